"""A build killed at any moment, and two builds at once: the end is that of a quiet run."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support import warm
from tests.support.engine import LIMIT, Project, litter

BASE = "docker.io/sifline/debian-trixie"
# Each makes small images of its own.
pytestmark = pytest.mark.spread


def write_family(project: Project, word: str) -> None:
    """Four images: one at the root, two on it, one on top; each holds ``word``."""
    root = project.image(
        "root", f"FROM {BASE}\nCOPY w /made/w\nRUN cp /made/w /made/root\n", w=word
    )
    left = project.image("left", f"FROM sifline/{root}\nRUN sleep 0.3; cp /made/w /made/left\n")
    right = project.image("right", f"FROM sifline/{root}\nCOPY r /made/r\nRUN sleep 0.2\n", r=word)
    project.image(
        "top", f"FROM sifline/{left}\nCOPY --from=sifline/{right} /made/r /made/from-right\n"
    )


FILES = {
    "root": ["root", "w"],
    "left": ["left", "root", "w"],
    "right": ["r", "root", "w"],
    "top": ["from-right", "left", "root", "w"],
}


def state(project: Project) -> dict[str, dict[str, str]]:
    """What each image of the family holds of the files that were put or made there."""
    return {name: project.files(f"{project.prefix}-{name}", "made") for name in FILES}


def undisturbed(word: str) -> dict[str, dict[str, str]]:
    return {name: dict.fromkeys(files, word) for name, files in FILES.items()}


# Invoke that kills itself where its argument says: before it starts its n-th process, before it
# writes its n-th record, or when it has printed a line of an image's that holds a text.
PROGRAM = """
import itertools, os, signal, sys
from threading import Lock
from invoke.main import program
from sifline.machine import records
from sifline.machine.process import ProcessRunner

kind, place = sys.argv.pop(1).split(" ", 1)
sys.argv[0] = "invoke"  # else it takes no flags of ours
lock, numbers = Lock(), itertools.count(1)

def dying(function):
    def counted(*arguments, **options):
        with lock:
            if next(numbers) == int(place):
                os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return counted

class Printed:
    def __init__(self, stream):
        self.stream = stream
    def write(self, text):
        done = self.stream.write(text)
        self.stream.flush()
        name, _, wanted = place.partition(" ")
        if f"-{name}] " in text and wanted in text:
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    def __getattr__(self, name):
        return getattr(self.stream, name)

if kind == "process":
    ProcessRunner.run = dying(ProcessRunner.run)
elif kind == "record":
    records.write_bytes = dying(records.write_bytes)
else:
    sys.stderr = Printed(sys.stderr)
sys.exit(program.run())
"""


# Of the 22 processes of a build of all four each image has five: its build, two names, and two
# that ask for versions; of the 18 or 19 records the last of each image says that it was built.
MOMENTS = {
    "while the first is made": [
        "process 3",
        "line root RUN",
        "process 4",
        "process 5",
        "record 7",
    ],
    "while two are made": [
        "line root done",
        "process 8",
        "line left RUN",
        "process 9",
        "record 9",
    ],
    "while two are named": ["process 10", "process 11", "process 14", "process 15", "record 14"],
    "while the last is made": ["line right done", "line top COPY", "process 19", "process 20"],
    "at the end": ["line top done", "process 22"],
}


def kill(project: Project, moment: str) -> None:
    """Build all in a run that is killed at that moment; the engine may go on for a while."""
    words = ["-c", PROGRAM, moment, "--verbose", "build", "--all"]
    done = warm.run(words, cwd=project.root, timeout=LIMIT)
    assert done.returncode == -signal.SIGKILL, f"it came to no {moment}:\n{done.stderr}"


@pytest.mark.long
@pytest.mark.parametrize("moments", MOMENTS.values(), ids=MOMENTS)
def test_after_a_run_that_was_killed_the_next_one_ends_as_an_undisturbed_one(
    project: Project, moments: Sequence[str]
) -> None:
    for moment in moments:
        word = f"{moment.replace(' ', '-')}-{uuid4().hex}"
        write_family(project, word)
        kill(project, moment)

        again = project.invoke("build", "--all")

        assert again.returncode == 0, again.stderr
        assert state(project) == undisturbed(word)
        plan = project.invoke("--dry", "build", "--all").stdout
        assert plan.splitlines()[-1] == "0 of 4 steps to do"
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
        out, err = process.communicate(timeout=LIMIT)
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
