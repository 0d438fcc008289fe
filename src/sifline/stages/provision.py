"""Provision: configures the nodes of a cluster with Ansible."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from sifline.engines import ansible
from sifline.engines.ansible import HostEvent, NoHosts, Outcome, Run
from sifline.engines.ssh.faults import Fault, explain, login_command
from sifline.engines.ssh.turn import turn
from sifline.errors import MissingError, StepFailed, UsageError
from sifline.formats import node_lists
from sifline.machine import records
from sifline.machine.context import Context
from sifline.model import Cluster, ProvisionedCluster, Workspace

SITE = "site.yml"
# Variables of the roles, by the flags that set them.
FLAGS = {"adopt": "--adopt", "interrupt_jobs": "--interrupt-jobs", "wait_for_jobs": "--wait"}
ACCOUNTING = "accounting"

# Last lines of Ansible's output that are printed with a failure.
DETAIL_LINES = 40

LONGEST_MESSAGE = 300

# Messages of Ansible and sudo, and the faults that deploy and validate know for them.
FAULTS = (
    (re.compile(r"Missing sudo password|sudo: .*password is required"), Fault.SUDO_ASKS),
    (re.compile(r"Incorrect sudo password"), Fault.SUDO_REFUSED),
)
# Ansible's message if a module printed no JSON: it was killed, or never ran.
UNREAD = "Module result deserialization failed"


def provision(
    cluster: Cluster,
    context: Context,
    *,
    check: bool = False,
    stage: str = "",
    adopt: bool = False,
    interrupt_jobs: bool = False,
    wait: bool = False,
    diff: bool = False,
) -> ProvisionedCluster:
    """Configure the chosen nodes of ``cluster`` with the roles; with ``check`` change nothing.

    With some of the nodes, a new slurm.conf is refused, as all nodes share it.

    :param stage: the only stage to run, a tag of the plays in site.yml; "" for all.
    :param adopt: replace files that sifline did not write, or that were changed since.
    :param interrupt_jobs: make changes that end jobs: nodes and partitions that go, other CPUs,
        fewer GPUs. Without it they are refused.
    :param wait: wait for these jobs first; no new ones begin there.
    :param diff: return the changes of files line by line, secrets left out; an error has them in
        its details.

    A node that fails or does not answer does not stop the others. If a daemon does not run with
    the new configuration of Slurm, all nodes get the old one back, and the error says why.

    Runs for one cluster take turns, from whichever checkout, user or machine, also those that
    change nothing: what they said of a half-changed cluster would be wrong.

    :raises UsageError: for the stage accounting of a cluster that has no database of its own.
    :raises StepFailed: if a task failed, a node did not answer, or a play had no hosts.
    :raises MissingError: if there are no playbooks or no Ansible.
    """
    if stage == ACCOUNTING and (cluster.accounting is None or cluster.accounting.host):
        raise UsageError(
            f"{cluster.source} asks for no database of its own, so there is nothing to do; add the"
            " section accounting, see docs/reference/cluster-file.md"
        )
    asked = {"adopt": adopt, "interrupt_jobs": interrupt_jobs, "wait_for_jobs": wait}
    lock = records.shared_lock(context.workspace, f"{cluster.name}.provision.lock")
    waits = records.locked(lock, context, what=f"the provision of {cluster.name}")
    with waits, turn(cluster, context):
        return _provisioned(
            cluster,
            context,
            check=check,
            stage=stage,
            allowed=[name for name, is_asked in asked.items() if is_asked],
            diff=diff,
        )


def _provisioned(
    cluster: Cluster,
    context: Context,
    *,
    check: bool,
    stage: str,
    allowed: Sequence[str],
    diff: bool,
) -> ProvisionedCluster:
    started = time.monotonic()
    log = context.workspace.logs / f"{cluster.name}.provision.log"
    log.unlink(missing_ok=True)
    folder = playbooks(context.workspace)
    run = ansible.playbook(
        cluster, context, folder, SITE, log, check=check, stage=stage, allowed=allowed, diff=diff
    )
    diffs = tuple((tuple(sorted(hosts)), text) for text, hosts in run.diffs.items() if diff)
    if fault := find_fault(run, cluster):
        raise StepFailed(
            f"provision {cluster.name}: {fault}; all it printed: {log}; then run it again:"
            f" {_again(cluster, check=check, stage=stage, allowed=allowed)}",
            details="\n".join([*(text for _, text in diffs), run.result.tail(DETAIL_LINES)]),
        )
    return ProvisionedCluster(
        cluster=cluster,
        changed=run.stats.changed,
        changes=tuple((task, tuple(hosts)) for task, hosts in run.changes.items()),
        ok=run.stats.ok,
        seconds=time.monotonic() - started,
        kept=run.kept,
        diffs=diffs,
        jobs=run.jobs,
        notes=run.notes,
    )


def _again(cluster: Cluster, *, check: bool, stage: str, allowed: Sequence[str]) -> str:
    """Return the command of this run."""
    words = ["invoke", "--dry"] if check else ["invoke"]
    words += ["provision", cluster.flag, *(["--stage", stage] if stage else [])]
    if cluster.left_out:
        words += ["--node", shlex.quote(node_lists.fold(node.name for node in cluster.nodes))]
    return " ".join([*words, *(FLAGS[name] for name in allowed)])


def playbooks(workspace: Workspace) -> Path:
    """Return the folder of the playbooks: the workspace's own, or the installed one."""
    installed = Path(str(resources.files("sifline") / "_share" / "ansible"))
    for folder in (workspace.root / "ansible", installed):
        if (folder / SITE).is_file():
            return folder
    raise MissingError(
        f"no {SITE} in {workspace.root / 'ansible'}, and none was installed with sifline; "
        "install sifline anew, or run in its checkout"
    )


def find_fault(run: Run, cluster: Cluster) -> str:
    """Return what failed in ``run``, and the next command, in one line; "" if nothing failed."""
    if run.faults:
        return f"{describe(run.faults[0], cluster)}{others(run.faults[1:])}"
    # With some of the nodes, plays for the others have none.
    if not cluster.left_out and any(isinstance(event, NoHosts) for event in run.events):
        return f"a play found no host to work on; see the nodes in {cluster.source}"
    if not run.result.ok:
        return f"ansible-playbook ended with status {run.result.returncode}: {reason(run)}"
    return ""


def describe(fault: HostEvent, cluster: Cluster) -> str:
    """Return a fault with its host, task, message and the next command."""
    node = next(node for node in cluster.whole if node.name == fault.host)
    login = login_command(cluster.ssh, node.address or node.name)
    if fault.outcome is Outcome.UNREACHABLE:
        return f"{fault.host} does not answer: {ssh_reason(fault.message)}; try: {login}"
    message = first_line(fault.message)
    for pattern, kind in FAULTS:
        if pattern.search(message):
            return explain(cluster, node, kind, message)
    if UNREAD in message:
        why = "Python was killed there, or the login shell runs nothing"
        message = f"{message.rstrip('.')}: {why}"
    return f"{fault.host}: task {fault.task!r} failed: {message}; look there: {login}"


def ssh_reason(text: str) -> str:
    """Return why ssh failed: the last line, after banners and warnings."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return first_line(lines[-1].rpartition("via ssh: ")[2] if lines else "") or "no reason given"


def others(faults: Sequence[HostEvent]) -> str:
    """Return the hosts of further faults, in brackets."""
    return f" (also {', '.join(fault.host for fault in faults)})" if faults else ""


def reason(run: Run) -> str:
    """Return the line in which Ansible says why it stopped."""
    lines = run.result.tail(DETAIL_LINES).splitlines()
    marked = [line for line in lines if line.startswith(("ERROR", "[ERROR]"))]
    return first_line("\n".join(marked or lines[-1:])) or "it gave no reason"


def first_line(text: str) -> str:
    """Return the first non-empty line of ``text``, shortened to the length of a message."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= LONGEST_MESSAGE else f"{line[:LONGEST_MESSAGE]}…"
