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
    """Return the sessions a workflow's nox commands name, its matrix filled in."""
    found: set[str] = set()
    for job in yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values():
        matrix = job.get("strategy", {}).get("matrix", {})
        for step in job["steps"]:
            for words in re.findall(r"nox (?:--session|-s) ([^\n&|;]+)", step.get("run", "")):
                for word in re.sub(r'\$\{\{ matrix\.(\w+) \}\}|"', r" \1 ", words).split():
                    found |= set(matrix.get(word, [word]))
    return found


@pytest.fixture(scope="module")
def default_sessions() -> set[str]:
    argv = [sys.executable, "-m", "nox", "--list", "--json"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {session["name"] for session in json.loads(listed)}


def test_there_are_workflows() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_the_sessions_that_nox_alone_runs(
    workflow: Path, default_sessions: set[str]
) -> None:
    # The others need "environment", and nox runs it before them.
    assert named_sessions(workflow) == default_sessions - {"environment"}
