"""The toolbox, kept running: each command joins one container instead of starting its own."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sifline.engines.apptainer.toolbox import TOOLBOX, TOOLBOX_RIGHTS

MEMORY = Path("/dev/shm")
PREFIX = "sifline-test-"
# It ends with this process, however that ends: then nobody holds its standard input any more.
# The time limit is for an engine that does not notice.
HOURS = 4
STAY = f"""
echo running
timeout {HOURS}h cat > /dev/null
exec find "$@" -mindepth 1 -delete
"""


class Toolbox:
    """A container of the toolbox that sees the engine, and the folders that ``place`` makes."""

    def __init__(self) -> None:
        self._name = f"{PREFIX}toolbox-{uuid4().hex[:12]}"
        self._disk = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._memory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_memory()))
        for folder in (self._disk, self._memory):
            folder.chmod(0o755)
        folders = [str(self._disk), str(self._memory)]
        argv = ["docker", "run", "--rm", "--interactive", "--name", self._name]
        argv += ["--pull", "never", "--network", "none", *TOOLBOX_RIGHTS]
        for path in ("/var/run/docker.sock", *folders):
            argv += ["--volume", f"{path}:{path}"]
        self._process = subprocess.Popen(
            [*argv, TOOLBOX, "sh", "-c", STAY, "sh", *folders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # what interrupts the tests leaves it alone
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said == b"running\n", f"no toolbox was started; the image is {TOOLBOX}"

    def run(
        self, *words: str, folder: Path | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end, in ``folder``."""
        argv = ["docker", "exec", *(["--workdir", str(folder)] if folder else [])]
        for key, value in (env or {}).items():
            argv += ["--env", f"{key}={value}"]
        return subprocess.run([*argv, self._name, *words], capture_output=True, check=False)

    def output(self, *words: str) -> bytes:
        """Return what a command prints, which must not fail."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    @contextmanager
    def place(self, *, on_disk: bool = False) -> Iterator[Path]:
        """Yield a new folder that has the same path here and there.

        :param on_disk: for gigabytes; else in memory, if that holds all attributes.
        """
        parent = self._disk if on_disk else self._memory
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            Path(folder).chmod(0o755)  # for users of the toolbox who are not root
            yield Path(folder)

    def close(self) -> None:
        """End the container, and remove the folders."""
        self._process.communicate()
        for path in (self._disk, self._memory):
            shutil.rmtree(path, ignore_errors=True)


@functools.cache
def toolbox() -> Toolbox:
    """Return this process's own."""
    made = Toolbox()
    atexit.register(made.close)
    return made


def _memory() -> Path | None:
    """Where many files are made quickly and have all attributes; None where memory cannot.

    A tmpfs holds user.* since Linux 6.6.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=MEMORY) as file:
            os.setxattr(file.name, "user.try", b"")
    except OSError:
        return None
    return MEMORY
