"""Convert with ``apptainer build``: save the image, let Apptainer unpack and pack it."""

from __future__ import annotations

from pathlib import Path

from sifline.contents import environment
from sifline.engines.apptainer.build import Builder
from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.sif import Sifs
from sifline.engines.docker.images import Docker
from sifline.formats import oci_layout
from sifline.machine.process import CommandFailed
from sifline.machine.streams import OnLine
from sifline.model import Progress
from sifline.stages.convert.work import ImageWork, Made, Work

METHOD = "apptainer"
# Peak space in multiples of the image's size: its layers, Apptainer's copy of them, the file tree,
# the SIF. 3.5 were measured with an image of 0.3 GB.
COPIES = 3.7


def make(work: ImageWork) -> Made:
    """Make the SIF ``work.partial``.

    :raises StepFailed: if a tool fails.
    """
    apptainer, layout = Apptainer(work.context.runner), work.scratch / work.name
    try:
        save(work, layout)
        Builder(apptainer).build_from_layout(
            layout,
            work.partial,
            labels=work.labels,
            files={environment.SCRIPT: work.environment()},
            compression=work.compression,
            processors=work.processors,
            log=work.log,
            on_line=teller(work.context.progress),
        )
        made = Made(method=METHOD, tools={"apptainer": apptainer.version}, env=work.env)
        return noted(work, made)
    except CommandFailed as error:
        raise work.failure(error.result) from None


def save(work: ImageWork, layout: Path) -> None:
    """Write the image as an OCI layout into the folder ``layout`` of the scratch folder."""
    context, archive = work.context, work.scratch / "image.tar"
    context.progress("saving the image")
    # By id: the tag may move meanwhile.
    Docker(context.runner).save(work.held.image_id, archive, log=work.log)
    context.progress("reading the image's layers")
    oci_layout.from_archive(archive, layout)
    archive.unlink()


def noted(work: Work, made: Made) -> Made:
    """Add the provenance record to Apptainer's SIF."""
    part = work.provenance(made)
    note = work.scratch / part.name
    note.write_bytes(part.content)
    Sifs(Apptainer(work.context.runner)).add_object(work.partial, note, log=work.log)
    return made


def teller(progress: Progress) -> OnLine:
    """Return a reader of Apptainer's output that passes its messages to ``progress``."""

    def tell(line: str) -> None:
        _, mark, text = line.partition("INFO:")
        if mark and "..." in text:
            progress(text.strip().rstrip(".").lower())

    return tell
