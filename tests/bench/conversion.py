"""The figures of conversion: against Apptainer's own build, and against the engine's stream."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sifline.engines.apptainer.toolbox import TOOLBOX, TOOLBOX_RIGHTS
from sifline.engines.docker.engine import SOCKET
from tests.bench.measure import Comparison, Side, Unit
from tests.bench.projects import SYSTEM, Project, project

HELLO = "sifline/hello-mpi:latest"
ZSTD = ("--mksquashfs-args", "-comp zstd -Xcompression-level 3")
IMPORT = ("python3", "-c", "import torch")
# The framework of the project's main image, with nothing around it. Packages are not checked by
# hash: what they are is the same for both sides.
PYTORCH = r"""FROM {system}
SHELL ["/bin/bash", "-o", "errexit", "-o", "pipefail", "-c"]
RUN --mount=type=secret,id=ca-certificates,target=/run/secrets/ca-certificates \
    --mount=type=tmpfs,target=/var/lib/apt/lists \
    export DEBIAN_FRONTEND=noninteractive \
    && printf 'Acquire::Check-Valid-Until "false";\nAcquire::https::CAInfo "%s";\n' \
        /run/secrets/ca-certificates > /etc/apt/apt.conf.d/90build \
    && apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-pip python3-venv \
    && rm /etc/apt/apt.conf.d/90build \
    && rm --recursive --force /var/cache/apt/archives/*.deb /var/cache/ldconfig/aux-cache
RUN --mount=type=secret,id=ca-certificates,target=/run/secrets/ca-certificates \
    python3 -m venv /opt/pytorch \
    && /opt/pytorch/bin/pip --cert /run/secrets/ca-certificates install --no-cache-dir \
        torch==2.4.0 numpy==1.26.4
ENV PATH=/opt/pytorch/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["python3"]
"""


class Conversions:
    """One image of a project, converted by us and by Apptainer."""

    def __init__(self, made: Project, name: str, label: str) -> None:
        self._made, self._name, self._label = made, name, label
        self._out = made.root / "build" / "peer"
        self._out.mkdir(parents=True)
        self._sif = made.root / "build" / "sif" / f"{name}.sif"

    def ours(self) -> Side:
        """Convert it; that it is built is seen each time."""
        return Side(
            what="`invoke convert.x`",
            run=lambda: self._made.invoke(f"convert.{self._name}"),
            prepare=lambda: self._made.invoke(f"clean.{self._name}", "--yes", "--sifs"),
        )

    def apptainer(self, *words: str, what: str) -> Side:
        """What people do today: the same tools, in the same container, from the same engine."""
        target = self._out / f"{'zstd' if words else 'default'}.sif"
        source = f"docker-daemon:sifline/{self._name}:latest"
        return Side(
            what=what,
            run=lambda: self._toolbox("apptainer", "build", *words, str(target), source),
            prepare=lambda: target.unlink(missing_ok=True),
        )

    def export(self) -> Side:
        """The least that reading the image's files out of the engine takes."""
        name = f"{self._made.prefix}-export"

        def create() -> None:
            self._made.run("docker", "container", "rm", "--force", name)
            tag = f"sifline/{self._name}:latest"
            self._made.run("docker", "container", "create", "--name", name, tag, "true")

        return Side(
            what="`docker export` to nowhere",
            run=lambda: self._made.run("sh", "-c", 'exec docker export "$0" > /dev/null', name),
            prepare=create,
        )

    def against(
        self, *words: str, what: str, limit: float, rounds: int, warm: bool = False
    ) -> Comparison:
        """Compare the conversion with Apptainer's own build."""
        return Comparison(
            what=f"{self._label} to SIF",
            ours=self.ours(),
            peer=self.apptainer(*words, what=what),
            limit=limit,
            rounds=rounds,
            warm=warm,
        )

    def size(self, peer: str, *, what: str) -> Comparison:
        """Compare the SIFs that are there."""
        theirs = self._out / f"{peer}.sif"
        return Comparison(
            what=f"Size of the SIF of {self._label}",
            ours=Side(what="`invoke convert.x`", run=lambda: self._sif.stat().st_size),
            peer=Side(what=what, run=lambda: theirs.stat().st_size),
            limit=1.02,
            rounds=1,
            warm=False,
            unit=Unit.SIZE,
        )

    def start(self, peer: str, *words: str, what: str) -> Comparison:
        """Compare how long a command takes in the SIFs that are there, read from the disk."""

        def side(path: Path, told: str) -> Side:
            return Side(
                what=told,
                # Root would mount as a set-uid program does, with more rights than there are here.
                run=lambda: self._toolbox("apptainer", "exec", "--userns", str(path), *words),
                prepare=lambda: forget_pages(path),
            )

        return Comparison(
            what=f"`{words[0]} {words[1]} '{words[2]}'` in {self._label}, SIF not in memory",
            ours=side(self._sif, "our SIF"),
            peer=side(self._out / f"{peer}.sif", what),
            limit=1,
            rounds=5,
        )

    def forget(self) -> None:
        """Take away what is left in the engine."""
        self._made.run("docker", "container", "rm", "--force", f"{self._made.prefix}-export")

    def _toolbox(self, *words: str) -> str:
        root = self._made.root
        return self._made.run(
            *("docker", "container", "run", "--rm", *TOOLBOX_RIGHTS),
            *("--volume", f"{SOCKET}:{SOCKET}", "--volume", f"{root}:{root}"),
            # Its scratch space on the same disk as ours.
            *("--env", f"APPTAINER_TMPDIR={self._out}"),
            *(f"{TOOLBOX}:latest", *words),
        )


def forget_pages(path: Path) -> None:
    """Let the system forget what it holds of a file in memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def conversions(dockerfile: str, *, base: str, label: str) -> Iterator[Conversions]:
    """Build an image on what the engine holds, to convert it."""
    with project(built=True) as made:
        name = made.image("converted", dockerfile.replace("{system}", made.borrow(base)))
        made.commit()
        made.invoke(f"build.{name}")
        done = Conversions(made, name, label)
        try:
            yield done
        finally:
            done.forget()


@contextmanager
def small() -> Iterator[Iterable[Comparison]]:
    """Convert hello-mpi, against Apptainer's own build."""
    dockerfile = "FROM {system}\nLABEL bench=hello-mpi\n"
    with conversions(dockerfile, base=HELLO, label="hello-mpi") as made:
        yield (made.against(what="`apptainer build`", limit=0.5, rounds=3, warm=True),)


@contextmanager
def large() -> Iterator[Iterable[Comparison]]:
    """Convert PyTorch, against Apptainer's own build and the engine's stream: half an hour."""
    default, zstd = "`apptainer build`", "`apptainer build` with zstd"
    label = "PyTorch 2.4.0"
    with conversions(PYTORCH, base=SYSTEM, label=label) as made:
        yield (
            Comparison(
                what=f"{label} to SIF",
                ours=made.ours(),
                peer=made.export(),
                limit=1.8,
                rounds=5,
            ),
            # A round of the peer takes many minutes.
            made.against(what=default, limit=1 / 10, rounds=1),
            made.against(*ZSTD, what=zstd, limit=1 / 5, rounds=1),
            made.size("default", what=default),
            made.size("zstd", what=zstd),
            made.start("default", *IMPORT, what="Apptainer's"),
        )
