"""The ordinary road: the image is saved, and Apptainer unpacks and packs it again."""

from __future__ import annotations

from sifline import ocilayout
from sifline.adapters.apptainer import Apptainer
from sifline.adapters.docker import Docker
from sifline.model import Progress
from sifline.runner import CommandFailed
from sifline.stages.convert.work import Made, Work

METHOD = "apptainer"
# It holds at most this many times the image's size at once: its layers, Apptainer's copy of them,
# the file tree, the SIF. 3.5 were measured with an image of 0.3 GB.
COPIES = 3.7


def make(work: Work) -> Made:
    """Make the SIF ``work.partial``.

    :raises StepFailed: where a tool fails.
    """
    context, apptainer = work.context, Apptainer(work.context.runner)
    archive, layout = work.scratch / "image.tar", work.scratch / work.name
    try:
        context.progress("saving the image")
        # By id: the tag may move meanwhile.
        Docker(context.runner).save(work.built.image_id, archive, log=work.log)
        context.progress("reading the image's layers")
        ocilayout.from_archive(archive, layout)
        archive.unlink()
        apptainer.build_from_layout(
            layout,
            work.partial,
            labels=work.labels,
            compression=work.compression,
            processors=work.options.processors,
            log=work.log,
            on_line=lambda line: _tell(line, context.progress),
        )
        made = Made(method=METHOD, tools={"apptainer": apptainer.version})
        part = work.provenance(made)
        note = work.scratch / part.name
        note.write_bytes(part.content)
        apptainer.sif_add(work.partial, note, log=work.log)
    except CommandFailed as error:
        raise work.failure(error.result) from None
    return made


def _tell(line: str, progress: Progress) -> None:
    """Pass on what Apptainer says it is doing."""
    _, mark, text = line.partition("INFO:")
    if mark and "..." in text:
        progress(text.strip().rstrip(".").lower())
