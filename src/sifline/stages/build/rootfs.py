"""The root file system of a base image, made by mmdebstrap."""

from __future__ import annotations

from sifline.engines.mmdebstrap import Mmdebstrap
from sifline.machine import records
from sifline.machine.context import Context
from sifline.model import PREPARED, Image


def prepare(image: Image, context: Context, *, anew: bool) -> None:
    """Make the root file system, unless one with the same settings exists."""
    assert image.prepare is not None  # noqa: S101 - for the type checker: the caller asked
    target = image.folder / PREPARED
    record = context.workspace.record(image.name, "prepare")
    made_from = image.prepare.words
    known = (records.read(record) or {}).get("prepare") == made_from
    if target.is_file() and known and not anew:
        return
    context.progress(f"preparing {PREPARED}: mmdebstrap {image.prepare.suite}")
    log = context.workspace.logs / f"{image.name}.prepare.log"
    Mmdebstrap(context.runner).make(image.prepare, target, log=log)
    records.write(record, {"prepare": made_from})
