"""Write what a playbook does as JSON lines, for a program to follow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: sifline_events
type: notification
short_description: Write events as JSON lines
description:
  - Appends one JSON object a line to the file that the environment variable
    SIFLINE_ANSIBLE_EVENTS names; does nothing without it.
  - "Events: task (name), host (host, task, outcome, message), diff (host, text), jobs (jobs),
    note (host, text), nohosts, stats (by host)."
  - Of tasks with no_log it writes the outcome and no message and no difference; of changes, which
    files they kept.
requirements: []
"""

FILE_VARIABLE = "SIFLINE_ANSIBLE_EVENTS"

# Where a module puts what went wrong, best first.
MESSAGES = ("msg", "stderr", "module_stderr", "stdout", "module_stdout")

# The fact in which the role slurm-controller has the jobs that feel a change.
JOBS = "slurm_controller_felt"
# The fact in which a role has what a person must know of a host.
NOTE = "sifline_note"

# Tasks of the roles' own order, of which nothing happens on a host.
LEADING = ("include_role", "include_tasks", "import_tasks", "meta", "validate_argument_spec")

HIDDEN = "the output is hidden because the task handles a secret (no_log)"


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Follows the play and writes."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "sifline_events"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        path = os.environ.get(FILE_VARIABLE)
        self._path = Path(path) if path else None
        self.disabled = self._path is None

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Tell which task starts, unless it is one that only leads to others."""
        if task.action.rpartition(".")[2] not in LEADING:
            self._write(event="task", name=task.get_name())

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """Tell which handler starts."""
        self._write(event="task", name=task.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        """Tell of a host where the task changed something, and which jobs feel a change."""
        if result._result.get("changed"):
            self._host(result, "changed")
        facts = result._result.get("ansible_facts") or {}
        if JOBS in facts:
            self._write(event="jobs", jobs=facts[JOBS])
        if NOTE in facts:
            self._write(event="note", host=result._host.get_name(), text=facts[NOTE])

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Tell of a host where the task failed."""
        if not ignore_errors:
            self._host(result, "failed")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Tell of a host that does not answer."""
        self._host(result, "unreachable")

    def v2_on_file_diff(self, result: Any) -> None:
        """Tell what a change of a file is, or would be, line by line."""
        if is_hidden(result._result):
            return
        for item in result._result.get("results") or [result._result]:
            if item.get("diff") and item.get("changed") and not is_hidden(item):
                text = self._get_diff(item["diff"])
                self._write(event="diff", host=result._host.get_name(), text=text)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Tell that a play had nothing to do, which no status does."""
        self._write(event="nohosts")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Tell the counts of each host."""
        hosts = {host: stats.summarize(host) for host in sorted(stats.processed)}
        self._write(event="stats", hosts=hosts)

    def _host(self, result: Any, outcome: str) -> None:
        self._write(
            event="host",
            host=result._host.get_name(),
            task=result._task.get_name(),
            outcome=outcome,
            message=kept_of(result._result)
            if outcome == "changed"
            else message_of(result._result),
        )

    def _write(self, **event: Any) -> None:
        if self._path:
            with self._path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(event) + "\n")


def kept_of(result: dict[str, Any]) -> str:
    """Return where modules and commands kept what they replaced; such names end in ~."""
    items = [result, *(result.get("results") or [])]
    names = [
        str(item.get(key) or "") for item in items for key in ("backup_file", "backup", "dest")
    ]
    # The target of cp.
    names += [words[-1] for item in items if isinstance(words := item.get("cmd"), list) and words]
    return ", ".join(dict.fromkeys(name for name in names if name.endswith("~")))


def is_hidden(result: dict[str, Any]) -> bool:
    """Tell whether the task handles a secret."""
    return "censored" in result or bool(result.get("_ansible_no_log"))


def message_of(result: dict[str, Any]) -> str:
    """Return what a module says went wrong; of a loop, what its first failed item says."""
    if is_hidden(result):
        return HIDDEN
    for item in result.get("results") or []:
        if item.get("failed"):
            return message_of(item)
    found = (str(result.get(key) or "").strip() for key in MESSAGES)
    return next((text for text in found if text), "no reason given")
