from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def named_sessions(workflow: Path) -> set[str]:
    """Return the sessions a workflow's calls of .ci/run name, its matrix filled in."""
    found: set[str] = set()
    for job in yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values():
        matrix = job.get("strategy", {}).get("matrix", {})
        for step in job["steps"]:
            for words in re.findall(r"\.ci/run ([^\n&|;]+)", step.get("run", "")):
                for word in re.sub(r'\$\{\{ matrix\.(\w+) \}\}|"', r" \1 ", words).split():
                    found |= set(matrix.get(word, [word]))
    return found


@pytest.fixture(scope="module")
def default_sessions() -> set[str]:
    argv = [sys.executable, "-m", "nox", "--list", "--json"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {session["name"] for session in json.loads(listed)}


def test_there_are_workflows() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "weekly.yml"]


def test_the_workflow_of_changes_runs_the_sessions_that_nox_alone_runs(
    default_sessions: set[str],
) -> None:
    # The others need "environment", and nox runs it before them.
    assert named_sessions(WORKFLOWS[0]) == default_sessions - {"environment"}


def test_the_weekly_workflow_runs_what_takes_too_long_for_each_change() -> None:
    assert named_sessions(WORKFLOWS[1]) == {"images", "integration", "ansible", "devcontainer"}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit(workflow: Path) -> None:
    used = re.findall(r"uses: *(\S+)", workflow.read_text(encoding="utf-8"))

    assert used
    assert [name for name in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name)] == []
