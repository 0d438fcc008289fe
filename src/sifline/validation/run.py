"""Validate: runs the checks against a cluster, phase by phase."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sifline.engines.ssh.nodes import Ssh
from sifline.errors import SiflineError, UsageError, did_you_mean
from sifline.machine.context import Context
from sifline.model import CheckResult, Cluster, Status
from sifline.validation.check import Check
from sifline.validation.outcome import CheckFailed, CheckSkipped, one_line
from sifline.validation.probe import CHECK_SECONDS, Probe
from sifline.validation.suites import known


def validate(
    cluster: Cluster,
    context: Context,
    *,
    suites: Sequence[str] = (),
    checks: Sequence[str] = (),
    seconds: float = CHECK_SECONDS,
) -> tuple[CheckResult, ...]:
    """Run health checks on ``cluster``: all, or those of ``suites`` and those named ``checks``.

    A check is named by its name, or by ``suite.name``. A check that raises an error, or does not
    end within ``seconds``, has failed.

    :raises UsageError: if a suite or a check is unknown.
    """
    results = []
    with Ssh(cluster, context.runner) as ssh:
        for check in chosen(suites, checks):
            context.progress(f"{check.phase.value}: {check.key}")
            result = judge(check, Probe(ssh, seconds=seconds))
            context.progress(f"{check.key} {result.status.value}: {result.message}")
            results.append(result)
    return tuple(results)


def chosen(suites: Sequence[str], checks: Sequence[str]) -> tuple[Check, ...]:
    """Return the checks that ``validate`` runs.

    :raises UsageError: if a suite or a check is unknown.
    """
    return select(known(), suites, checks)


def listing() -> dict[str, list[tuple[str, str]]]:
    """Return the names and summaries of the checks, by suite."""
    suites: dict[str, list[tuple[str, str]]] = {}
    for check in known():
        suites.setdefault(check.suite, []).append((check.name, check.summary))
    return suites


def select(
    checks: Sequence[Check], suites: Sequence[str], names: Sequence[str]
) -> tuple[Check, ...]:
    """Return the selected checks in the order in which they run; all if none was selected."""
    known_suites = {check.suite for check in checks}
    known_names = {check.name for check in checks} | {check.key for check in checks}
    for kind, words, valid in (("suite", suites, known_suites), ("check", names, known_names)):
        for word in words:
            if word not in valid:
                near = did_you_mean(word, valid)
                if not near and kind == "suite":
                    near = f" Known are {', '.join(sorted(valid))}."
                raise UsageError(
                    f"no {kind} is called {word!r}.{near} See invoke validate --list."
                )
    if not suites and not names:
        return tuple(checks)
    return tuple(
        check
        for check in checks
        if check.suite in suites or check.name in names or check.key in names
    )


def judge(check: Check, probe: Probe) -> CheckResult:
    """Run one check and return its result; an exception is a failure."""
    started = time.monotonic()
    try:
        status, message = Status.PASSED, check.function(probe)
    except CheckFailed as failure:
        status, message = Status.FAILED, str(failure)
    except CheckSkipped as skip:
        status, message = Status.SKIPPED, str(skip)
    except SiflineError as error:
        status, message = Status.FAILED, one_line(error)
    except Exception as error:  # a broken check has not passed
        status, message = Status.FAILED, f"the check broke: {type(error).__name__}: {error}"
    return CheckResult(
        suite=check.suite,
        name=check.name,
        status=status,
        message=message,
        seconds=time.monotonic() - started,
        left_out=tuple(node.name for node in probe.cluster.left_out),
    )
