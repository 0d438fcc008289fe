"""The Docker engine, and projects with small images of their own that it builds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from sifline.engines.docker import image_files

from . import warm
from .waiting import until

# How long a run may take on a busy machine, in seconds.
LIMIT = 300
# Of a run that is to be interrupted at something that does not last.
TRIES = 5
# Longer than any docker command of a test takes.
LONGEST = 1200
CA_BUNDLE = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
TASKS = """
from pathlib import Path
from sifline.tasks import namespace
ns = namespace(Path(__file__).parent)
"""


def need_image(image: str) -> None:
    """Fail where the engine lacks an image of this repository."""
    if docker("image", "inspect", image, check=False).returncode:
        pytest.fail(
            f"the engine has no image {image}; run invoke build.{image.rpartition('/')[2]}"
        )


class Project:
    """A folder with tasks.py and images/, driven through the command line as a user does."""

    def __init__(self, root: Path, prefix: str = "") -> None:
        self.root = root
        (root / "images").mkdir(exist_ok=True)
        (root / "tasks.py").write_text(TASKS)
        self.prefix = prefix or f"t{uuid4().hex[:8]}"

    def image(self, name: str, dockerfile: str, **files: str) -> str:
        """Write an image; return its name, which no other run uses."""
        full = f"{self.prefix}-{name}"
        folder = self.root / "images" / full
        folder.mkdir(exist_ok=True)
        (folder / "Dockerfile").write_text(dockerfile)
        for file, content in files.items():
            (folder / file).write_text(content)
        return full

    def site(self, name: str, profile: str) -> None:
        """Write a site profile."""
        (self.root / "sites").mkdir(exist_ok=True)
        (self.root / "sites" / f"{name}.toml").write_text(profile)

    def build(self, name: str, *flags: str) -> dict[str, str]:
        """Build ``name``; return what was done to it and to each image it stands on."""
        done = self.invoke(f"build.{name}", *flags)
        assert done.returncode == 0, done.stderr
        rows = [row for row in done.stdout.splitlines()[1:] if row]
        return {row.split()[0]: "up to date" if "up to date" in row else "built" for row in rows}

    def read(self, name: str, path: str) -> str:
        """Return the content of a file of a built image, which needs no shell for that."""
        with self._copied(name, path) as copy:
            return copy.read_text()

    def files(self, name: str, folder: str) -> dict[str, str]:
        """Return the content of each file in a folder of a built image, by its name.

        Each file was made once: no layer hides what one below it holds.
        """
        said = docker("image", "inspect", f"sifline/{name}").stdout
        if layers := image_files.layers(json.loads(said)[0]):
            folders = [layer / folder for layer in layers if (layer / folder).is_dir()]
            return {path.name: path.read_text() for one in folders for path in one.iterdir()}
        with self._copied(name, folder) as copy:
            return {path.name: path.read_text() for path in copy.iterdir()}

    @contextmanager
    def _copied(self, name: str, path: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            made = docker("create", f"sifline/{name}", "none").stdout.strip()
            try:
                docker("cp", f"{made}:/{path}", f"{folder}/copy")
            finally:
                docker("rm", made)
            yield Path(folder, "copy")

    def remove_images(self) -> None:
        """Take what was built out of the engine; by tag: an id may have tags of others as well."""
        shown = ("--format", "{{.Repository}}:{{.Tag}}")
        tags = docker("image", "ls", *shown, f"sifline/{self.prefix}-*").stdout.split()
        if tags:
            docker("image", "rm", "--force", *tags)

    def invoke(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run invoke to its end."""
        done = warm.run(["-m", "invoke", *words], cwd=self.root, timeout=LIMIT)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def interrupt(
        self,
        *words: str,
        when: str,
        number: int = signal.SIGINT,
        seen: Callable[[], object] = lambda: True,
    ) -> tuple[int, str]:
        """Run invoke, and signal its whole group; return its status and output.

        The signal comes when it has printed ``when`` and ``seen`` returns something true. What is
        looked for may be gone before it was seen, on a busy machine: then another run is made.
        """
        late = list[int]()

        def signal_group(process: subprocess.Popen[str]) -> None:
            until(lambda: seen() or process.poll() is not None, f"what comes after {when!r}")
            if process.poll() is None:
                os.killpg(process.pid, number)
            else:
                late.append(process.pid)

        for tries in range(1, TRIES + 1):
            done = self.disturb(*words, when=when, act=signal_group)
            if len(late) < tries:
                return done
        pytest.fail(f"{TRIES} runs ended before what comes after {when!r} was seen")

    def disturb(
        self, *words: str, when: str, act: Callable[[subprocess.Popen[str]], None]
    ) -> tuple[int, str]:
        """Run invoke to its end, and ``act`` when it prints ``when``; return status and output."""
        process = subprocess.Popen(
            [sys.executable, "-m", "invoke", "--verbose", *words],
            cwd=self.root,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert process.stderr is not None
        # Whoever waits for a line, or for the end, is not to wait for ever.
        alarm = threading.Timer(LIMIT, process.kill)
        alarm.start()
        printed = ""
        try:
            for line in process.stderr:
                printed += line
                if when in line:
                    assert process.poll() is None, printed
                    act(process)
                    break
            else:
                pytest.fail(f"{when!r} was never printed:\n{printed}")
            printed += process.stderr.read()
            status = process.wait()
            assert alarm.is_alive(), f"it did not end within {LIMIT} s:\n{printed}"
        finally:
            alarm.cancel()
            process.kill()
            process.wait()
            process.stderr.close()
        return status, printed

    def inspect(self, name: str) -> dict[str, object] | None:
        """What the engine holds under the image's tag."""
        done = docker("image", "inspect", f"sifline/{name}:latest", check=False)
        return json.loads(done.stdout)[0] if done.returncode == 0 else None


def docker(
    *words: str, check: bool = True, seconds: float = LONGEST
) -> subprocess.CompletedProcess[str]:
    """Run the docker command to its end; one that waits for ever fails after ``seconds``."""
    return subprocess.run(
        ["docker", *words], capture_output=True, text=True, check=check, timeout=seconds
    )


def litter(project: Project) -> list[str]:
    """Temporary files below build/, and untagged images of these names."""
    files = [str(path) for path in (project.root / "build").rglob("*.tmp")]
    listed = docker("image", "ls", "--filter", "dangling=true", "--quiet", "--no-trunc").stdout
    show = ("--format", '{{index .Config.Labels "sifline.image"}} {{.Id}}')
    # Others may remove theirs meanwhile.
    said = docker("image", "inspect", *show, *set(listed.split()), check=False).stdout
    return files + [line for line in said.splitlines() if line.startswith(project.prefix)]


def make(folder: Path, tag: str, dockerfile: str) -> str:
    """Build ``dockerfile`` in ``folder``, with its context, and return ``tag``."""
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile)
    docker("buildx", "build", "--tag", tag, "--label", "sifline.test=1", str(folder))
    return tag
