"""A build killed at any moment, and two builds at once: the end is that of a quiet run."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

from tests.support.engine import Project, docker, litter

BASE = "docker.io/sifline/debian-trixie"
MOMENTS = 20


def write_family(project: Project, word: str) -> None:
    """Four images: one at the root, two on it, one on top; each holds ``word``."""
    root = project.image("root", f"FROM {BASE}\nCOPY w /w\nRUN cp /w /root-made\n", w=word)
    left = project.image("left", f"FROM sifline/{root}\nRUN sleep 0.3; cp /w /left-made\n")
    right = project.image("right", f"FROM sifline/{root}\nCOPY r /r\nRUN sleep 0.2\n", r=word)
    project.image("top", f"FROM sifline/{left}\nCOPY --from=sifline/{right} /r /from-right\n")


FILES = {
    "root": ["/root-made", "/w"],
    "left": ["/left-made", "/root-made", "/w"],
    "right": ["/r", "/root-made", "/w"],
    "top": ["/from-right", "/left-made", "/root-made", "/w"],
}


def state(project: Project) -> dict[str, dict[str, str]]:
    """What each image of the family holds of the files that were put or made there."""
    found = {}
    for name in FILES:
        show = "for f in /*; do test -f $f && echo $f=$(cat $f); done; true"
        said = docker("run", "--rm", f"sifline/{project.prefix}-{name}", "sh", "-c", show).stdout
        found[name] = dict(line.split("=", 1) for line in said.splitlines())
    return found


def undisturbed(word: str) -> dict[str, dict[str, str]]:
    return {name: dict.fromkeys(files, word) for name, files in FILES.items()}


def test_killed_at_twenty_moments_the_next_run_ends_as_an_undisturbed_one(
    project: Project,
) -> None:
    write_family(project, "quiet")
    started = time.monotonic()
    assert project.invoke("build", "--all").returncode == 0
    duration = time.monotonic() - started
    assert state(project) == undisturbed("quiet")

    killed = 0
    for moment in range(MOMENTS):
        word = f"{moment}-{uuid4().hex}"
        write_family(project, word)
        process = subprocess.Popen(
            [sys.executable, "-m", "invoke", "build", "--all"],
            cwd=project.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(duration * (moment + 0.5) / MOMENTS)
        process.kill()
        killed += process.wait() == -signal.SIGKILL

        again = project.invoke("build", "--all")

        assert again.returncode == 0, again.stderr
        assert state(project) == undisturbed(word)
        plan = project.invoke("--dry", "build", "--all").stdout
        assert plan.splitlines()[-1] == "0 of 4 steps to do"
    assert killed > MOMENTS // 2  # else nothing was disturbed
    assert litter(project) == []


def both(*projects: Project) -> list[subprocess.CompletedProcess[str]]:
    """Build all, at the same time."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "invoke", "build", "--all"],
            cwd=project.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for project in projects
    ]
    done = []
    for process in running:
        out, err = process.communicate(timeout=120)
        done.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return done


def test_two_runs_in_one_checkout_build_each_image_once(project: Project) -> None:
    write_family(project, uuid4().hex)

    done = both(project, project)

    assert [item.returncode for item in done] == [0, 0], [item.stderr for item in done]
    rows = [row for item in done for row in item.stdout.splitlines()[1:]]
    assert sum("up to date" not in row for row in rows) == len(FILES)
    for name in FILES:
        folder = project.root / "build" / "records" / f"{project.prefix}-{name}"
        assert len([*folder.glob("build-*.json")]) == 1
    assert litter(project) == []


def test_two_checkouts_with_other_content_do_not_mix(project: Project, tmp_path: Path) -> None:
    words = [f"one-{uuid4().hex}", f"two-{uuid4().hex}"]
    (tmp_path / "other").mkdir()
    other = Project(tmp_path / "other", prefix=project.prefix)
    for checkout, word in zip((project, other), words, strict=True):
        write_family(checkout, word)

    done = both(project, other)

    assert [item.returncode for item in done] == [0, 0], [item.stderr for item in done]
    for checkout, word in zip((project, other), words, strict=True):
        plan = checkout.invoke("--dry", "build", "--all").stdout
        assert plan.splitlines()[-1] == "0 of 4 steps to do"
        # The common tag goes to the checkout that says it last.
        assert checkout.invoke("build", "--all").returncode == 0
        assert state(checkout) == undisturbed(word)
