"""Verification of a new SIF: whether it runs, and has the image's ENV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sifline.contents import environment
from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.sif import Sifs
from sifline.engines.apptainer.squashfs import Squashfs
from sifline.errors import StepFailed
from sifline.formats import sif
from sifline.machine.process import Result
from sifline.stages.convert import ordinary
from sifline.stages.convert.work import Made, Work

# Apptainer looks up the command after it has mounted the file system and made the namespaces.
_NOT_FOUND = "executable file not found"


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What running a SIF proved; ``notes`` are for the user."""

    verified: str
    notes: tuple[str, ...] = ()


def prove(work: Work, made: Made, apptainer: Apptainer) -> Proof:
    """Return what running a command in ``work.partial`` proved.

    :raises StepFailed: if nothing runs, or the variables are not those of ENV.
    """
    if made.env is not None:
        result = Sifs(apptainer).exec(work.partial, ["env", "-0"], check=False)
        found = environment.printed(result.stdout) if result.ok else None
        if found is not None:
            wrong = environment.differing(made.env, found)
            return Proof(verified="ran env", notes=_of_others(work, made, apptainer, wrong))
    result = Sifs(apptainer).exec(work.partial, ["true"], check=False)
    verified = verdict(result)
    if verified is None:
        raise StepFailed(
            f"converting {work.name} failed: nothing runs in the new SIF;"
            f" the whole log is {work.log}",
            details=result.tail(),
        )
    if made.env is not None and not _is_ours(work, made.env, apptainer):
        raise _lost(work, "all")
    return Proof(verified=verified)


def verdict(result: Result) -> str | None:
    """Return what running ``true`` in the SIF proved; None if it proved nothing.

    An image without that command, or without a shell, is not broken: Apptainer searched for the
    command, so it mounted the file system.
    """
    if result.ok:
        return "ran true"
    return "mounted; it holds no true" if _NOT_FOUND in result.stderr else None


def _of_others(
    work: Work, made: Made, apptainer: Apptainer, wrong: Sequence[str]
) -> tuple[str, ...]:
    """Return notes about variables that differ from those of the image."""
    if not wrong:
        return ()
    names, env = ", ".join(wrong), made.env or ()
    # Only Apptainer converts images that have environment scripts of their own.
    if made.method == ordinary.METHOD and _is_ours(work, env, apptainer):
        return (f"warning: scripts of the image in /.singularity.d/env change {names}",)
    raise _lost(work, names)


def _is_ours(work: Work, env: Sequence[str], apptainer: Apptainer) -> bool:
    """Return whether the SIF contains our script that sets the image's ENV."""
    names, folder = work.scratch / "script", work.scratch / "script.d"
    names.write_text(f"{environment.SCRIPT}\0", encoding="utf-8")
    offset = sif.system(sif.read(work.partial)).offset
    Squashfs(apptainer).unpack(work.partial, offset, names, folder, purpose=str(work.scratch))
    found = folder / environment.SCRIPT
    return found.is_file() and found.read_bytes() == environment.script(env)


def _lost(work: Work, names: str) -> StepFailed:
    return StepFailed(
        f"converting {work.name} failed: in the new SIF, variables of ENV are not those of the"
        f" image: {names}; run invoke doctor, and look at the Apptainer that it names"
    )
