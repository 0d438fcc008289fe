"""The existing SIF of an image: its file, its record, and whether it is up to date."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sifline.contents import sif_records
from sifline.contents.build_context import file_digest
from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.sif import Sifs
from sifline.errors import UsageError
from sifline.formats import sif
from sifline.machine.context import Context
from sifline.model import FoundSif, HeldImage, Image, Sif, Workspace
from sifline.model.recipe import SHORT
from sifline.stages.convert.work import PREFIX, compression, read_provenance

# Metadata of a SIF that ``info`` prints without opening it.
KEPT = {"fingerprint", "commit", "sha256", "size", "stamp", "compression", "method"}
UP_TO_DATE, NO_SIF = "up to date", "there is no SIF"
# Version of the way in which SIFs are made; a higher one makes all SIFs again. 2: ENV and file
# attributes are those of the image. Older records had no number.
FORMAT = 2


def read_sif(path: Path) -> FoundSif:
    """Return the SIF at ``path`` with what its labels say.

    :raises UsageError: if it is not a SIF, or truncated or damaged.
    """
    found = sif.labels(sif.read(path))
    return FoundSif(
        name=path.stem,
        path=path.absolute(),
        sha256=file_digest(path),
        size=path.stat().st_size,
        image_digest=sif.image_digest(found),
        fingerprint=found.get(f"{PREFIX}fingerprint", ""),
        commit=found.get(f"{PREFIX}commit", ""),
    )


def info(path: Path, context: Context) -> dict[str, Any]:
    """Return the metadata of a SIF file: header, objects, labels, digest.

    :raises UsageError: if it is not a SIF, or truncated or damaged.
    """
    file = sif.read(path)
    labels = sif.labels(file)
    if not labels:
        # Apptainer would have to mount it, and its errors say little.
        sif.system(file)
        labels = Sifs(Apptainer(context.runner)).inspect(path).get("labels") or {}
    return {
        "path": str(path),
        "sha256": file_digest(path),
        "size": file.size,
        "architecture": file.architecture,
        "file_system": sif.file_system(file),
        "id": file.id,
        "created": datetime.fromtimestamp(file.created, timezone.utc).isoformat(),
        "image_digest": sif.image_digest(labels),
        "fingerprint": labels.get(f"{PREFIX}fingerprint", ""),
        "commit": labels.get(f"{PREFIX}commit", ""),
        "provenance": read_provenance(sif.parts(file)),
        "labels": dict(sorted(labels.items())),
    }


def standing(image: Image, workspace: Workspace) -> Sif:
    """Return the SIF of ``image``, which ``stale`` found up to date; writes nothing."""
    path, record = workspace.sif(image.name), sif_records.read(image.name, workspace)
    now = sif_records.current(path, record) if record else None
    assert now is not None  # noqa: S101 - for the type checker: else it would be converted
    return remembered(image, path, now)


def settled(image: Image, workspace: Workspace) -> Sif:
    """Return the SIF of ``image``, which ``stale`` found up to date; see ``kept``."""
    found = kept(image, workspace)
    assert found is not None  # noqa: S101 - for the type checker: else it would be converted
    return found


def kept(image: Image, workspace: Workspace) -> Sif | None:
    """Return the SIF of ``image`` if its file is the one in its record.

    If only its time stamps changed, the record is updated.
    """
    path, record = workspace.sif(image.name), sif_records.read(image.name, workspace)
    if not path.is_file() or record is None:
        return None
    now = sif_records.current(path, record)
    if now is not None and now != record:
        with suppress(OSError):  # the file is read again next time
            sif_records.write(image.name, workspace, now)
    return remembered(image, path, now) if now else None


def takes(name: str, workspace: Workspace, *, origin: str, image_id: str) -> bool:
    """Return whether the SIF of a source may be called ``name``: no SIF of another one is.

    :param origin: see ``FetchedImage``; ``image_id``: "" for a definition file.
    """
    if not os.path.lexists(workspace.sif(name)):
        return True
    record = sif_records.read(name, workspace) or {}
    if image_id and record.get("image_id") == image_id:
        return True
    return record.get("source") == origin


def stale(name: str, held: HeldImage | None, workspace: Workspace) -> str:
    """Return why the SIF of ``name`` must be made again; "" if it is up to date."""
    found = state(name, held, workspace)
    if found == UP_TO_DATE:
        return ""
    return NO_SIF if found == "none" else f"the SIF is out of date: {found}"


def state(name: str, held: HeldImage | None, workspace: Workspace) -> str:
    """Return the state of the SIF of ``name`` in a few words, compared with ``held``."""
    path = workspace.sif(name)
    record = sif_records.read(name, workspace)
    if not path.is_file():
        return "none"
    if record is not None and not sif_records.untouched(path, record):
        return "altered"
    if held is None:
        return "its image is gone"
    return changed(record, held) or UP_TO_DATE


def signed(path: Path) -> bool:
    """Tell whether the SIF at ``path`` carries a signature; nobody vouches for it."""
    try:
        return any(item.kind == sif.Kind.SIGNATURE for item in sif.read(path).objects)
    except UsageError:  # there is none, or it is damaged
        return False


def changed(record: Mapping[str, Any] | None, held: HeldImage) -> str:
    """Return why a SIF with this record is out of date; "" if it is not."""
    options = held.image.sif
    wanted = compression(options).mksquashfs
    if record is None or not record.keys() >= KEPT:  # the file may contain anything
        return "no record of its conversion"
    packed, method, size = (record[key] for key in ("compression", "method", "size"))
    other = not options.definition and options.method not in (None, method)
    over = options.over_budget == "error" and (options.budget or size) < size
    older = record.get("format") != FORMAT
    reasons = {
        "the image was built again since": record.get("image_id") != held.image_id,
        "made by an older sifline": older,
        f"its compression: {packed} → {wanted}": packed != wanted,
        "its definition file changed": record.get("definition", "")
        != definition_digest(options.definition),
        f"its method: {method} → {options.method}": other,
        "it is larger than its size-budget": over,
    }
    return next((reason for reason, true in reasons.items() if true), "")


def definition_digest(file: Path | None) -> str:
    """Return the digest of the definition file of a SIF; "" if there is none."""
    try:
        return file_digest(file) if file else ""
    except OSError:
        return "unread"  # the conversion reports what is wrong with it


def module_of(image: Image, fingerprint: str) -> str:
    """Return the name and version of the image's module on nodes."""
    return f"{image.module.name or image.name}/{image.module.version or fingerprint[:SHORT]}"


def remembered(image: Image, path: Path, record: Mapping[str, Any]) -> Sif:
    """Return the SIF at ``path`` as its record describes it."""
    return Sif(
        name=image.name,
        path=path,
        sha256=record["sha256"],
        size=record["size"],
        image_digest=record.get("image_digest", ""),
        fingerprint=record["fingerprint"],
        commit=record["commit"],
        category=image.category,
        module=module_of(image, record["fingerprint"]),
        run=image.run,
        reused=True,
    )
