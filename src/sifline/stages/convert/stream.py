"""Convert by streaming: the image's file system goes from the engine straight into the SIF.

Nothing is unpacked and no layer is copied. The definition, labels, environment and run script come
from a SIF that Apptainer builds from an image of the same configuration without files.

One module, because source, filter and sqfstar are started and stopped together.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from sifline.config.docker_client import EPOCH
from sifline.contents import environment, rootfs
from sifline.contents.rootfs import Complicated, Layout
from sifline.engines.apptainer.build import Builder, places
from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.squashfs import Squashfs, headers, mounts
from sifline.engines.apptainer.toolbox import TOOLBOX
from sifline.engines.docker import engine, image_files
from sifline.engines.docker.images import Docker
from sifline.errors import StepFailed
from sifline.formats import layers, oci_layout, sif, squashfs, tar_stream
from sifline.formats.layers import Tree
from sifline.formats.sif import Part
from sifline.formats.times import seconds_of
from sifline.machine.process import CommandFailed, Result
from sifline.model import Bind
from sifline.stages.convert.work import ImageWork, Made

METHOD = "stream"
BUILD_DATE = "org.label-schema.build-date"
PIPE_SIZE = 1 << 20
LOOK_SECONDS = 0.05
TELL_SECONDS = 1.0


def impossible(runner: Any) -> str:
    """Return why no image can be streamed on this machine; "" if streaming is possible."""
    if not engine.is_local():
        return "the Docker engine is on another machine"
    if not Docker(runner).images([f"{TOOLBOX}:latest"]):
        return f"there is no image {TOOLBOX}, which has the tools for it"
    return ""


def make(work: ImageWork, open_: ExitStack) -> Made:
    """Make the SIF ``work.partial``.

    :param open_: keeps the toolbox's container until the SIF is verified.
    :raises Complicated: if only Apptainer can convert the image.
    :raises StepFailed: if a tool fails, or the engine's stream ends too early.
    """
    try:
        return _Stream(work, open_).make()
    except CommandFailed as error:
        raise work.failure(error.result) from None


class _Stream:
    def __init__(self, work: ImageWork, open_: ExitStack) -> None:
        self._work, self._scratch = work, work.scratch
        self._purpose = str(work.scratch)
        self._docker = Docker(work.context.runner)
        self._image = work.inspected
        self._created = when(str(self._image.get("Created", "")))
        self._layers = image_files.layers(self._image)
        self._headers = image_files.headers(self._image)
        self._notes = list[str]()
        self._apptainer = self._toolbox(open_)

    def _toolbox(self, open_: ExitStack) -> Apptainer:
        """Start the toolbox once for all commands, with the engine's layers if possible."""
        apptainer, work = Apptainer(self._work.context.runner), self._work
        binds = [
            *places(work.scratch),
            Bind(source=work.partial.parent, target=str(work.partial.parent), writable=True),
        ]
        spare: Path | None = None
        while self._layers or self._headers:
            kept = (headers(self._headers),) if self._headers else ()
            seen = [*binds, *mounts(self._layers), *kept]
            try:
                return open_.enter_context(apptainer.held(seen, purpose=self._purpose))
            except StepFailed as error:
                # The layers can be mounted without headers; if that fails too, the fault is
                # theirs.
                if self._headers:
                    spare, self._headers = self._headers, None
                else:
                    self._without_layers(error)
                    self._headers = spare
        return open_.enter_context(apptainer.held(binds, purpose=self._purpose))

    def _without_layers(self, error: StepFailed) -> None:
        """Continue with the engine's own stream, and note why."""
        self._layers = ()
        self._notes.append(
            "the engine's layers cannot be read, so it exports the files itself, which"
            f" takes longer: {_last(error)}"
        )
        self._work.context.progress(self._notes[-1])

    def make(self) -> Made:
        work = self._work
        work.context.progress("reading the image")
        with ThreadPoolExecutor(1, "look") as pool:
            looking = pool.submit(self._look)
            skeleton, parts = self._skeleton()
            look, said = looking.result()
        layout = rootfs.layout(look, skeleton, created=self._created, declared=said)
        made = Made(
            method=METHOD,
            tools=self._tools(look),
            notes=self._notes,
            apptainer=self._apptainer,
            env=work.env,
        )
        parts = (*parts, work.provenance(made))
        offset = sif.room(parts)
        tally = self._squash(layout, offset)
        with work.partial.open("rb") as file:
            file.seek(offset)
            found = squashfs.inodes(file.read(squashfs.HEAD))
        if found != tally.inodes:
            raise StepFailed(
                f"converting {work.name} failed: {tally.inodes} files and folders went into the"
                f" squashfs, and it holds {found}; the whole log is {work.log}"
            )
        sif.complete(
            work.partial,
            parts,
            identity=uuid5(NAMESPACE_URL, f"{work.digest} {work.compression.mksquashfs}"),
            created=self._created,
            architecture=str(self._image.get("Architecture", "")),
        )
        return made

    def _skeleton(self) -> tuple[Path, tuple[Part, ...]]:
        """Return Apptainer's SIF of the image without files: its tree, and its objects."""
        work, folder = self._work, self._scratch / "skeleton"
        layout, made = self._scratch / work.name, self._scratch / "skeleton.sif"
        oci_layout.without_files(layout, self._image)
        Builder(self._apptainer).build_from_layout(
            layout, made, labels=work.labels, compression=work.compression, log=work.log
        )
        found = sif.read(made)
        system, small = sif.system(found), self._scratch / "skeleton.squashfs"
        with made.open("rb") as file:
            file.seek(system.offset)
            small.write_bytes(file.read(system.size))
        Squashfs(self._apptainer).unsquash(small, folder, purpose=self._purpose, log=work.log)
        shutil.copy(work.environment(), folder / environment.SCRIPT)
        labels = folder / rootfs.OWN / "labels.json"
        before = sif.labels(found).get(BUILD_DATE, "").encode()
        after = build_date(self._created).encode()
        labels.write_bytes(labels.read_bytes().replace(before, after))
        return folder, tuple(
            Part(kind=part.kind, name=part.name, content=part.content.replace(before, after))
            for part in sif.parts(found)
        )

    def _look(self) -> tuple[Path, Tree | None]:
        """Inspect the image's file system; also return what its layers say, if that is known.

        :raises Complicated: if the engine's files differ from what the layers say.
        """
        look, said = self._seen(), self._said()
        other = "" if said is None else layers.difference(said, (look / "tree").read_bytes())
        if other:
            raise Complicated(f"the engine shows {other} in another way than the image's layers")
        return look, said

    def _said(self) -> Tree | None:
        """Return the file tree that the layers describe; None if the engine keeps no headers."""
        if self._headers is None:
            return None
        names = layers.chain((self._image.get("RootFS") or {}).get("Layers") or ())
        target, purpose = self._scratch / "headers", self._purpose
        try:
            found = Squashfs(self._apptainer).headers(
                self._headers, names, target, purpose=purpose, log=self._work.log
            )
            return layers.declared(found)
        except (StepFailed, layers.Unreadable):
            return None

    def _seen(self) -> Path:
        folder = self._scratch / "look"
        folder.mkdir()
        shutil.copyfile(rootfs.SCRIPT, folder / rootfs.SCRIPT.name)
        (folder / "paths").write_text("\n".join(rootfs.PATHS) + "\n", encoding="utf-8")
        if self._layers:
            try:
                return Squashfs(self._apptainer).look(
                    self._layers, folder, purpose=self._purpose, log=self._work.log
                )
            except StepFailed as error:
                self._without_layers(error)
        return self._look_by_building(folder)

    def _look_by_building(self, folder: Path) -> Path:
        if not (self._image.get("RepoTags") or self._image.get("RepoDigests")):
            # A tag given for the build would remove the image when it is removed.
            raise Complicated("the engine has no name for it")
        # FROM cannot name an id, and the tag must be one that no other run moves.
        tag = f"sifline-convert:{sha256(self._purpose.encode()).hexdigest()[:32]}"
        self._docker.tag(self._work.held.image_id, tag)
        try:
            runner, tools = self._work.context.runner, f"{TOOLBOX}:latest"
            return image_files.look(runner, tag, tools, folder, log=self._work.log)
        except CommandFailed as error:
            # The builder fails on a whiteout inside a folder of the same layer.
            raise Complicated(f"the engine cannot read its files: {_last(error)}") from None
        finally:
            self._docker.remove([tag])

    def _tools(self, look: Path) -> Mapping[str, str]:
        first = (look / "tools").read_text(encoding="utf-8", errors="replace")
        return {"apptainer": self._apptainer.version, "squashfs-tools": squashfs.version(first)}

    def _squash(self, layout: Layout, offset: int) -> tar_stream.Tally:
        """Stream the files into the squashfs, directly from the engine's layers if possible."""
        mounted = () if layout.linked else self._layers
        work = self._work
        fifo, raw = self._scratch / "stream", self._scratch / "raw"
        for path in (fifo, raw):
            os.mkfifo(path, 0o600)
        packing = _Side(
            lambda: Squashfs(self._apptainer).squash(
                fifo,
                work.partial,
                offset=offset,
                compression=work.compression,
                processors=work.processors,
                created=self._created,
                options=rootfs.options(layout),
                purpose=self._purpose,
                layers=mounted,
                raw=raw,
                log=work.log,
            ),
            stop=lambda: self._apptainer.stop_builds(self._scratch),
        )
        with packing, self._source(mounted, raw) as stream:
            target = packing.open(fifo, work.context.runner.check)
            # Only now is it certain that the source has, or had, a writer.
            os.set_blocking(stream.fileno(), True)
            try:
                tally = tar_stream.copy(
                    stream,
                    target,
                    first=layout.first,
                    tally=layout.tally,
                    without=layout.without,
                    xattrs=layout.xattrs,
                    newest=layout.created,
                    on_bytes=self._teller(),
                )
            except tar_stream.Damaged as error:
                raise StepFailed(f"{error.message}; the whole log is {work.log}") from None
            except BrokenPipeError:
                packing.done()  # raises its own error
                raise StepFailed(
                    f"converting {work.name} failed: the squashfs tool stopped reading;"
                    f" the whole log is {work.log}"
                ) from None
            finally:
                os.close(target)
            packing.done()
        return tally

    @contextmanager
    def _source(self, mounted: Sequence[Path], raw: Path) -> Iterator[tar_stream.Source]:
        """Yield the source of the image's file system as a tar."""
        runner, image = self._work.context.runner, self._work.held.image_id
        if not mounted:
            with image_files.exported(runner, image, purpose=self._purpose) as connection:
                yield connection
            return
        with image_files.kept(runner, image, purpose=self._purpose):
            # The writer waits for it.
            reader = os.open(raw, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                with suppress(OSError):
                    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
                yield tar_stream.Pipe(reader)
            finally:
                os.close(reader)

    def _teller(self) -> Callable[[int], None]:
        """Return a function that reports progress, and raises if the user interrupted."""
        context, total = self._work.context, self._work.size
        started = told = time.monotonic()

        def tell(passed: int) -> None:
            nonlocal told
            context.runner.check()
            now = time.monotonic()
            if now - told >= TELL_SECONDS:
                told = now
                context.progress(figures(passed, total, now - started))

        return tell


def _last(error: StepFailed) -> str:
    """Return the last line that a failed command printed."""
    return next(reversed(error.details.splitlines()), error.message)


class _Side:
    """Runs sqfstar in a thread; stops it if the stream fails."""

    def __init__(self, work: Callable[[], Result], stop: Callable[[], None]) -> None:
        self._work, self._stop = work, stop
        self._pool = ThreadPoolExecutor(1, "sqfstar")

    def __enter__(self) -> _Side:
        self._future: Future[Result] = self._pool.submit(self._work)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # The container may still be starting, and would wait for a stream for ever.
        while kind and not self._future.done():
            with suppress(StepFailed):
                self._stop()
            time.sleep(LOOK_SECONDS)
        self._pool.shutdown()

    def open(self, fifo: Path, check: Callable[[], None]) -> int:
        """Return the writing end of ``fifo``, once it has a reader."""
        while True:
            check()
            try:
                target = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                break
            except OSError:  # ENXIO: it has no reader yet
                if self._future.done():
                    self.done()
                    raise
                time.sleep(LOOK_SECONDS)
        os.set_blocking(target, True)
        with suppress(OSError):
            fcntl.fcntl(target, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        return target

    def done(self) -> None:
        """Wait for its end; raise its error if it failed."""
        self._future.result()


def figures(passed: int, total: int, seconds: float) -> str:
    """Return the progress of the stream: bytes, rate, and the time left if known."""
    rate = passed / seconds if seconds else 0.0
    left = f", {max(0, total - passed) / rate:.0f} s left" if rate and total > passed else ""
    size = f"{passed / 1e9:.2f} of {total / 1e9:.2f} GB"
    return f"packing {size}, {rate / 1e6:.0f} MB/s{left}"


def when(created: str) -> int:
    """Return the time for all files that sifline adds: SOURCE_DATE_EPOCH, else the image's own.

    See https://reproducible-builds.org/specs/source-date-epoch/.
    """
    epoch = os.environ.get(EPOCH, "")
    if epoch.isdecimal():
        return min(int(epoch), sif.LATEST)
    return seconds_of(created)


def build_date(seconds: int) -> str:
    """Return a time in the format of Apptainer's label."""
    day = datetime.fromtimestamp(seconds, timezone.utc)
    clock = f"{day.hour}:{day.minute}:{day.second}"
    return f"{day:%A}_{day.day}_{day:%B}_{day.year}_{clock}_UTC"
