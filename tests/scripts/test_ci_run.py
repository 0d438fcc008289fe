"""What the continuous integration runs, in small checkouts whose bootstrap is a stand-in."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.calls import PATH, copy, program, refusal, run, signalled

BOOTSTRAP = """#!/bin/sh
printf '<%s>\\n' "$PWD" "$@"
exit 7
"""
GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "my checkout"
    folder.mkdir()
    copy(".ci/run", folder / ".ci")
    bootstrap(folder, BOOTSTRAP)
    for words in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message=First"]):
        subprocess.run([*GIT, *words], cwd=folder, check=True)
    return folder


def bootstrap(checkout: Path, text: str) -> None:
    script = checkout / "scripts" / "bootstrap"
    script.parent.mkdir(exist_ok=True)
    script.write_text(text)
    script.chmod(0o755)


def test_it_says_what_machine_this_is_and_what_is_tested(checkout: Path) -> None:
    said = run([checkout / ".ci" / "run"]).stdout

    assert said.startswith("== machine ==\nPRETTY_NAME=")
    for words in ("cores: ", "MemTotal: ", "Python 3.", "cgroup file system: ", " First\n"):
        assert words in said


def test_then_nox_runs_in_the_checkout_and_its_status_is_passed_on(
    checkout: Path, tmp_path: Path
) -> None:
    done = run([checkout / ".ci" / "run"], cwd=tmp_path)

    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout.endswith(f"== scripts/bootstrap nox ==\n<{checkout}>\n<nox>\n")


def test_arguments_are_those_of_nox(checkout: Path) -> None:
    words = ["-s", "lint", "--", "-k", "a b", "", "*", "--help"]

    said = run([checkout / ".ci" / "run", *words]).stdout

    assert said.partition("<nox>\n")[2] == "".join(f"<{word}>\n" for word in words)


def test_another_folder_of_that_name_is_not_taken_for_the_checkout(
    checkout: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere" / ".ci").mkdir(parents=True)
    env = {"PATH": PATH, "CDPATH": str(tmp_path / "elsewhere")}

    done = run([program("bash"), ".ci/run"], env=env, cwd=checkout)

    assert f"\n<{checkout}>\n" in done.stdout


def test_a_fact_that_cannot_be_had_ends_it_before_any_test(checkout: Path, tmp_path: Path) -> None:
    broken = tmp_path / "df"
    broken.write_text("#!/bin/sh\nexit 4\n")
    broken.chmod(0o755)

    done = run([checkout / ".ci" / "run"], env={"PATH": f"{tmp_path}:{PATH}"})

    assert done.returncode == 4
    assert "<nox>" not in done.stdout


@pytest.mark.parametrize("tool", ["git", "python3"])
def test_what_a_fresh_machine_may_lack_is_named(checkout: Path, tmp_path: Path, tool: str) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in {"df", "dirname", "git", "grep", "nproc", "python3", "sed", "stat", "uname"} - {
        tool
    }:
        (tools / name).symlink_to(program(name))

    done = run([program("bash"), checkout / ".ci" / "run"], env={"PATH": str(tools)})

    assert refusal(done) == (3, f".ci/run: {tool} is not found; is PATH right? It is: {tools}")


def test_a_signal_reaches_bootstrap(checkout: Path) -> None:
    bootstrap(checkout, "#!/bin/sh\necho ready $$\nexec sleep 600\n")
    process = subprocess.Popen([checkout / ".ci" / "run"], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    lines = iter(process.stdout.readline, "")
    assert next(line for line in lines if line.startswith("ready")) == f"ready {process.pid}\n"
    assert signalled(process, signal.SIGTERM) == -signal.SIGTERM


def test_words_are_sessions_and_what_begins_with_a_dash_is_nox_s(checkout: Path) -> None:
    said = run([checkout / ".ci" / "run", "lint", "typing", "--verbose", "--", "-k", "x"]).stdout

    words = ["--session", "lint", "typing", "--verbose", "--", "-k", "x"]
    assert said.partition("<nox>\n")[2] == "".join(f"<{word}>\n" for word in words)
