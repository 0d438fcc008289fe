"""Convert: makes a verified SIF, with its provenance, from an image in the engine.

A SIF is made under a temporary name beside its place, verified, synced and renamed: a file under
its final name is always complete. One conversion of an image runs at a time, so all other files
with the image's name here were left by a killed run, and are removed.

One module, because the steps of a conversion share its lock, scratch folder and clean-up.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from sifline.contents import environment, sif_records
from sifline.contents.build_context import file_digest
from sifline.engines.apptainer import scratch
from sifline.engines.apptainer.program import Apptainer
from sifline.errors import MissingError, SiflineError, StepFailed, UsageError
from sifline.formats import sif
from sifline.formats.platforms import MACHINES
from sifline.machine import architectures, records
from sifline.machine.context import Context
from sifline.machine.facts import Machine
from sifline.machine.process import CommandFailed
from sifline.model import DefinitionFile, FetchedImage, HeldImage, Sif, Workspace
from sifline.model.units import gigabytes
from sifline.stages.convert import access
from sifline.stages.convert.proof import prove, verdict
from sifline.stages.convert.state import (
    FORMAT,
    NO_SIF,
    UP_TO_DATE,
    changed,
    definition_digest,
    info,
    kept,
    read_sif,
    remembered,
    settled,
    signed,
    stale,
    standing,
    state,
    takes,
)
from sifline.stages.convert.work import DEFINITIONS, DefinitionWork, ImageWork, Made

__all__ = [
    "DEFINITIONS",
    "MEMORY",
    "NO_SIF",
    "UP_TO_DATE",
    "convert",
    "info",
    "read_sif",
    "settled",
    "signed",
    "space_needed",
    "stale",
    "standing",
    "state",
    "takes",
    "verdict",
]

RESERVE = 64 << 20
# Memory of a conversion: the caches of sqfstar and its threads, Apptainer, this program. 258 MiB
# were measured with an image of 5.6 GB and two processors; more processors need more.
MEMORY = 768 << 20
# A SIF this much larger than its image points to a wrong compression.
MOST, MOST_SPARE = 1.1, 1 << 20


def convert(
    subject: HeldImage | DefinitionFile,
    context: Context,
    *,
    force: bool = False,
    processors: int = 0,
    network: bool = False,
) -> Sif:
    """Make ``build/sif/<name>.sif`` from an image, unless it is up to date.

    A definition file without an image is built each time: whether its sources changed is unknown.

    :param processors: how many compress if the image does not set it; 0 for all.
    :param network: whether a definition file's scripts may use the network.
    :raises StepFailed: if there is too little space, or a tool fails; the old SIF is kept.
    """
    image, space = subject.image, context.workspace
    target = space.sif(image.name)
    lock = sif_records.lock(target.resolve(), space)
    with records.locked(lock, context, what=f"the SIF {target.name}"):
        known = None if force else _up_to_date(subject, space)
        if known:
            return known
        work = _work(subject, context, processors)
        return _Conversion(work, target, network=network).convert()


def _up_to_date(subject: HeldImage | DefinitionFile, workspace: Workspace) -> Sif | None:
    """Return the existing SIF if it is up to date and unchanged."""
    if isinstance(subject, DefinitionFile):
        return None
    image = subject.image
    if changed(sif_records.read(image.name, workspace), subject):
        return None
    return kept(image, workspace)


def _work(
    subject: HeldImage | DefinitionFile, context: Context, processors: int
) -> ImageWork | DefinitionWork:
    """Return what the conversion backends need."""
    image, space = subject.image, context.workspace
    target = space.sif(image.name)
    options = replace(image.sif, processors=image.sif.processors or processors)
    scratch = space.build / "tmp" / f"{image.name}.convert"
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    log = space.logs / f"{image.name}.convert.log"
    if isinstance(subject, DefinitionFile):
        return DefinitionWork(
            definition=subject,
            context=context,
            options=options,
            scratch=scratch,
            partial=partial,
            log=log,
        )
    return ImageWork(
        held=subject,
        context=context,
        options=options,
        scratch=scratch,
        partial=partial,
        log=log,
    )


def space_needed(size: int, copies: float) -> int:
    """Return the peak space in bytes of converting an image of ``size``."""
    return int(copies * size) + RESERVE


class _Conversion:
    """One conversion; the caller holds the image's lock."""

    def __init__(self, work: ImageWork | DefinitionWork, target: Path, *, network: bool) -> None:
        self._work, self._target = work, target
        self._context, self._options = work.context, work.options
        self._name = work.name
        self._notes, self._network = list[str](), network

    @cached_property
    def _apptainer(self) -> Apptainer:
        return Apptainer(self._context.runner)

    def convert(self) -> Sif:
        """Make the SIF."""
        started = time.monotonic()
        self._sweep()
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._work.log.unlink(missing_ok=True)
        with self._cleared(), ExitStack() as open_:
            made = self._make(open_)
            self._notes += made.notes
            proof, sha256 = self._verify(made)
            self._check_budget()
            self._settle()
        record = {
            "format": FORMAT,
            **self._subject(),
            "fingerprint": self._work.origin.get("fingerprint", ""),
            "commit": self._work.origin.get("commit", ""),
            "sha256": sha256,
            "size": self._target.stat().st_size,
            "stamp": vars(sif_records.Stamp.of(self._target)),
            "compression": self._work.compression.mksquashfs,
            "method": made.method,
            "tools": dict(made.tools),
            "verified": proof,
            "seconds": round(time.monotonic() - started, 1),
        }
        sif_records.write(self._name, self._context.workspace, record)
        done = remembered(self._work.image, self._target, record)
        return replace(done, reused=False, notes=tuple(self._notes))

    def _subject(self) -> dict[str, str]:
        """Return the SIF's source, for the record; a definition file alone has no image."""
        work = self._work
        if isinstance(work, DefinitionWork):
            digest = definition_digest(work.definition.file)
            return {"definition": digest, "source": os.path.realpath(work.definition.file)}
        origin = work.held.origin if isinstance(work.held, FetchedImage) else ""
        return {
            **({"source": origin} if origin else {}),
            "image_id": work.held.image_id,
            "image_digest": work.digest,
            "definition": definition_digest(work.options.definition),
        }

    def _make(self, open_: ExitStack) -> Made:
        """Make the SIF under its temporary name, from a definition file or the image alone."""
        work = self._work
        if isinstance(work, DefinitionWork):
            return self._by_definition(work.definition.file)
        self._check_architecture(work)
        file = work.options.definition
        return self._by_definition(file) if file else self._of_image(work, open_)

    def _check_architecture(self, work: ImageWork) -> None:
        """Raise an error before the work if nothing could run in the SIF."""
        from sifline.stages.convert import ordinary

        has = str(work.inspected.get("Architecture") or "")
        by_apptainer = self._options.method == ordinary.METHOD or self._options.definition
        if not has and by_apptainer:
            return
        if not has:
            raise UsageError(
                f"{self._name}: its image names no architecture, and a SIF must; use --method"
                " apptainer, which takes that of this machine"
            )
        machine = os.uname().machine
        here = MACHINES.get(machine, machine).partition("/")[0]
        if has != here and not architectures.runs(has, work.scratch, self._context.runner):
            raise MissingError(
                f"{self._name}: its image is for {has}, and this machine runs {here}; convert the"
                f" image for {here}, convert it on a machine of {has}, or install"
                " qemu-user-static, which runs such programs here"
            )

    def _of_image(self, work: ImageWork, open_: ExitStack) -> Made:
        """Stream the image if possible, else let Apptainer convert it."""
        from sifline.contents.rootfs import Complicated
        from sifline.stages.convert import ordinary, stream

        if self._options.method != ordinary.METHOD:
            why = stream.impossible(self._context.runner)
            try:
                if not why:
                    self._check_room(copies=1)
                    return stream.make(work, open_)
            except Complicated as error:
                why = error.message
                open_.close()
                scratch.remove(work.scratch)
                work.scratch.mkdir()
            if self._options.method == stream.METHOD:
                raise UsageError(
                    f"--method stream: {self._name} cannot be converted so: {why};"
                    " use --method apptainer"
                )
            self._notes.append(f"made by Apptainer itself, which takes longer: {why}")
            self._context.progress(self._notes[-1])
        self._check_room(copies=ordinary.COPIES)
        return ordinary.make(work)

    def _by_definition(self, file: Path) -> Made:
        from sifline.stages.convert import definition, ordinary, stream

        if self._options.method == stream.METHOD:
            raise UsageError(
                f"--method stream: {self._name} is made by {file.name}, as only Apptainer can;"
                " leave the flag out"
            )
        self._check_room(copies=ordinary.COPIES)
        return definition.make(self._work, file, network=self._network)

    def _verify(self, made: Made) -> tuple[str, str]:
        """Verify the new SIF by running it; return what that proved, and the SIF's digest."""
        self._context.progress("verifying the SIF")
        partial = self._work.partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        sif.read(partial)
        with ThreadPoolExecutor(1) as pool:  # starting a container is mostly waiting
            digest = pool.submit(file_digest, partial)
            apptainer = made.apptainer or self._apptainer
            proof = prove(self._work, made, apptainer)
            closed = access.warnings(self._work, apptainer)
            self._notes += [*_unset(made), *proof.notes, *closed]
            return proof.verified, digest.result()

    def _check_budget(self) -> None:
        """Raise an error, or note a warning, if the SIF is too large."""
        size, budget = self._work.partial.stat().st_size, self._options.budget
        if budget is not None and size > budget:
            text = (
                f"{self._name}.sif has {gigabytes(size, 2)}, and its size-budget is"
                f" {gigabytes(budget, 2)}"
            )
            if self._options.over_budget == "error":
                raise StepFailed(
                    f"{text}: it is not kept; make the image smaller, raise the budget, or say"
                    ' over-budget = "warning" under [convert] of its image.toml'
                )
            self._notes.append(f"warning: {text}")
        whole = self._work.size
        if isinstance(self._work, ImageWork) and size > MOST * whole + MOST_SPARE:
            self._notes.append(
                f"warning: {self._name}.sif has {gigabytes(size, 2)}, more than its image,"
                f" {gigabytes(whole, 2)}: is the compression right?"
            )

    def _settle(self) -> None:
        """Rename the synced SIF to its final name."""
        self._work.partial.replace(self._target)
        records.sync_folder(self._target.parent)

    def _check_room(self, copies: float) -> None:
        """Raise an error before the work if there is too little disk space or memory."""
        folder, size = self._target.parent, self._work.size
        free, needed = shutil.disk_usage(folder).free, space_needed(size, copies)
        if needed > free:
            raise StepFailed(
                f"converting {self._name} ({gigabytes(size, 2)}) needs {gigabytes(needed, 2)}"
                f" free in {self._context.workspace.build}, and there are"
                f" {gigabytes(free, 2)}; make room there"
            )
        left = Machine([]).free_memory()
        if left < MEMORY:
            raise StepFailed(
                f"converting {self._name} needs {gigabytes(MEMORY, 2)} of memory, and"
                f" {gigabytes(left, 2)} are free; end something, or try again later"
            )

    @contextmanager
    def _cleared(self) -> Iterator[None]:
        """Provide the scratch folder; remove it in any case."""
        try:
            self._work.scratch.mkdir(parents=True)
            yield
        except CommandFailed as error:
            raise self._work.failure(error.result) from None
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            cause = f"the disk is full; make room in {self._context.workspace.build}"
            raise StepFailed(
                f"converting {self._name} failed:"
                f" {cause if full else f'{error.filename}: {error.strerror}'}"
            ) from None
        finally:
            # A killed run's last container may have appeared after we looked.
            with suppress(SiflineError):
                self._apptainer.stop_builds(self._work.scratch)
            self._work.partial.unlink(missing_ok=True)
            scratch.remove(self._work.scratch)

    def _sweep(self) -> None:
        """Remove what a killed run left; first its container, which may still write."""
        self._apptainer.stop_builds(self._work.scratch)
        for left in self._target.parent.glob(f".{self._target.name}.partial-*"):
            left.unlink(missing_ok=True)
        scratch.remove(self._work.scratch)


def _unset(made: Made) -> Iterator[str]:
    """Yield a warning about variables that a SIF cannot have."""
    names = environment.impossible(made.env or ())
    if names:
        yield f"warning: ENV is not whole: no SIF has variables of such names: {', '.join(names)}"
