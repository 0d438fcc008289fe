"""Throw-away repositories with images, and the commands that are timed in them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

TASKS = """from pathlib import Path

from sifline.tasks import namespace

ns = namespace(Path(__file__).parent)
"""
PROGRAMS = Path(sys.executable).parent
INVOKE = str(PROGRAMS / "invoke")
LAST_LINES = 20
SYSTEM = "sifline/debian-bookworm:latest"
AUTHOR = ("-c", "user.name=bench", "-c", "user.email=bench@example.org")


def succeed(argv: Sequence[str], folder: Path) -> str:
    """Run a command to its end and return what it printed; anything but success ends it all."""
    path = os.pathsep.join([str(PROGRAMS), os.environ.get("PATH", os.defpath)])
    done = subprocess.run(
        argv,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-LAST_LINES:])
        raise SystemExit(f"{said}\nerror: {shlex.join(argv)} ended with {done.returncode}")
    return done.stdout


class Project:
    """A git repository with tasks.py and images/, whose images no other run uses."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.prefix = f"bench{uuid4().hex[:8]}"
        (root / "images").mkdir()
        (root / "tasks.py").write_text(TASKS, encoding="utf-8")
        (root / ".gitignore").write_text("/build/\n__pycache__/\n", encoding="utf-8")

    def image(self, name: str, dockerfile: str, **files: str) -> str:
        """Write an image and return its full name."""
        full = f"{self.prefix}-{name}"
        folder = self.root / "images" / full
        folder.mkdir()
        for file, content in {"Dockerfile": dockerfile, **files}.items():
            (folder / file).write_text(content, encoding="utf-8")
        return full

    def family(self, size: int) -> list[str]:
        """Write ``size`` images of one file each, a tenth of them bases of the others."""
        bases = [
            self.image(f"base{number}", "FROM scratch\nCOPY file /base\n", file=f"{number}\n")
            for number in range(max(1, size // 10))
        ]
        return bases + [
            self.image(
                f"image{number}",
                f"FROM sifline/{bases[number % len(bases)]}\nCOPY file /file\n",
                file=f"{number}\n",
            )
            for number in range(size - len(bases))
        ]

    def borrow(self, tag: str) -> str:
        """Give an image that the engine holds a name that this project alone uses."""
        own = f"{self.prefix}/{tag.rpartition('/')[2]}"
        self.run("docker", "image", "tag", tag, own)
        return own

    def commit(self) -> None:
        """Make it a repository in which nothing is to be committed."""
        self.run("git", "init", "--quiet")
        self.run("git", "add", "--all")
        self.run("git", *AUTHOR, "commit", "--quiet", "--message", "All")

    def invoke(self, *words: str) -> str:
        """Run invoke to its end."""
        return self.run(INVOKE, *words)

    def run(self, *argv: str) -> str:
        """Run a command in the repository."""
        return succeed(argv, self.root)

    def forget(self, *patterns: str) -> None:
        """Take images of this project from the engine: all, or these."""
        listed = ("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
        for pattern in patterns or (self.images, f"{self.prefix}/*"):
            if tags := self.run(*listed, pattern).split():
                self.run("docker", "image", "rm", "--force", *tags)

    @property
    def images(self) -> str:
        """What matches the names of all images that invoke builds here."""
        return f"sifline/{self.prefix}-*"


@contextmanager
def project(*, built: bool = False) -> Iterator[Project]:
    """A project in a temporary folder; ``built`` where images of it come into the engine."""
    with TemporaryDirectory(prefix="sifline-bench-") as folder:
        made = Project(Path(folder))
        try:
            yield made
        finally:
            if built:
                made.forget()
