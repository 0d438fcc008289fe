"""Convert with a definition file, from an image or from the source that the file names.

A file that ends in ``.j2`` is a template (https://jinja.palletsprojects.com/templates/). Its
variables are those of ``facts``; for an image also ``bootstrap`` and ``source``, for the header.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sifline.contents import comparison, environment
from sifline.engines.apptainer.build import Builder, Unpacked, file_section, label_section
from sifline.engines.apptainer.program import Apptainer
from sifline.errors import UsageError
from sifline.formats import sif
from sifline.machine.process import CommandFailed
from sifline.stages.convert import ordinary
from sifline.stages.convert.work import ImageWork, Made, Work

METHOD = "definition"
_TEMPLATE = ".j2"
# Header lines of a stage; see ``pkg/build/types/parser`` of Apptainer.
_STAGE = re.compile(r"(?mi)^bootstrap:")
_FROM = re.compile(r"(?mi)^from:[ \t]*(.*?)[ \t]*$")
_FINGERPRINTS = re.compile(r"(?mi)^fingerprints:")
# Exceptions that an expression in a template may raise.
_FAULTS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def make(work: Work, file: Path, *, network: bool) -> Made:
    """Make the SIF ``work.partial`` from the definition ``file``, or from its template.

    :param network: whether scripts of the definition may use the network.
    :raises UsageError: if the definition cannot be read or rendered.
    :raises StepFailed: if a tool fails.
    """
    try:
        return _make(work, file, network=network)
    except CommandFailed as error:
        raise work.failure(error.result) from None


def _make(work: Work, file: Path, *, network: bool) -> Made:
    apptainer = Apptainer(work.context.runner)
    values, layout = facts(work), work.scratch / work.name
    script = work.environment() if isinstance(work, ImageWork) else None

    bases = dict[str, Unpacked]()

    def recipe(seen: Callable[[Path], Path]) -> str:
        unpacked = {written: seen(base.target) for written, base in bases.items()}
        if script is None:
            return completed(rebased(render(file, values), unpacked), work.labels)
        source = seen(layout)
        text = render(file, {**values, "bootstrap": "oci", "source": source})
        text = rebased(text, unpacked)
        files = {environment.SCRIPT: seen(script)} if is_of(source, text) else {}
        return completed(text, work.labels, files)

    # Fail before the work if it is impossible.
    bases.update(_bases(recipe(lambda path: path), file, work, network=network))
    if isinstance(work, ImageWork):
        ordinary.save(work, layout)
    Builder(apptainer).build(
        recipe,
        work.partial,
        scratch=work.scratch,
        folder=file.absolute().parent,
        compression=work.compression,
        processors=work.processors,
        runs=True,
        network=network,
        bases=tuple(bases.values()),
        log=work.log,
        on_line=ordinary.teller(work.context.progress),
    )
    return ordinary.noted(work, Made(method=METHOD, tools={"apptainer": apptainer.version}))


def _bases(text: str, file: Path, work: Work, *, network: bool) -> dict[str, Unpacked]:
    """Return the SIFs to unpack first: Apptainer in the toolbox fails on their device nodes.

    :raises UsageError: if the definition needs the Docker engine, which the toolbox lacks.
    """
    if not Builder(Apptainer(work.context.runner)).in_toolbox(runs=True, network=network):
        return {}
    if wanted := of_engine(text):
        raise UsageError(
            f"{file}: is built on docker-daemon:{wanted}, and Apptainer in the toolbox has no"
            f" engine; save that image with docker save --output FILE.tar {wanted}, and write"
            " Bootstrap: docker-archive and From: FILE.tar"
        )
    found = dict[str, Unpacked]()
    for written, path in local_sifs(text, file.absolute().parent).items():
        with suppress(UsageError):  # Apptainer reports what is wrong with an unreadable one
            offset, target = sif.system(sif.read(path)).offset, work.scratch / f"base{len(found)}"
            found[written] = Unpacked(sif=path, offset=offset, target=target)
    return found


def of_engine(text: str) -> str:
    """Return the image of the Docker engine that a stage of a definition starts from, or ""."""
    of_it = (header for kind, header in _headers(text) if kind == "docker-daemon")
    named = (match[1].partition(" #")[0].strip() for match in map(_FROM.search, of_it) if match)
    return next(named, "")


def _headers(text: str) -> Iterator[tuple[str, str]]:
    """Yield what each stage of a definition starts from: the kind, and the lines that say more."""
    for stage in _STAGE.split(text)[1:]:
        header = stage.partition("\n%")[0]
        yield header.partition("\n")[0].partition("#")[0].strip().lower(), header


def local_sifs(text: str, folder: Path) -> dict[str, Path]:
    """Return the SIF files that a definition's stages start from, by how it writes them.

    :param folder: relative paths start here.
    """
    found = {}
    for kind, header in _headers(text):
        written = _FROM.search(header)
        # Apptainer needs the file itself to verify its signature (Fingerprints).
        if kind == "localimage" and written and not _FINGERPRINTS.search(header):
            path = folder / written[1].partition(" #")[0].strip()
            if path.is_file():
                found[written[1]] = path
    return found


def rebased(text: str, places: Mapping[str, Path]) -> str:
    """Return a definition in which other paths replace those of its sources."""
    return _FROM.sub(
        lambda match: f"From: {places[match[1]]}" if match[1] in places else match[0], text
    )


def is_of(source: Path, text: str) -> bool:
    """Return whether the last stage of a definition starts from the OCI layout ``source``."""
    last = _STAGE.split(text)[-1]
    return any(match[1] == str(source) for match in _FROM.finditer(last))


def facts(work: Work) -> dict[str, Any]:
    """Return the variables of a template: the image's metadata, labels and environment."""
    known = {"name": work.name, "commit": work.origin.get("commit", ""), "labels": work.labels}
    if not isinstance(work, ImageWork):
        return known
    image = work.inspected
    settings = comparison.of_config(image.get("Config") or {})
    return {
        **known,
        "labels": {**_lines(settings.labels), **work.labels},
        "environment": _lines(settings.environment),
        "description": work.image.description,
        "category": work.image.category,
        "image_id": work.held.image_id,
        "fingerprint": work.origin.get("fingerprint", ""),
        "size": work.size,
        "architecture": image.get("Architecture", ""),
    }


def _lines(values: Mapping[str, str]) -> dict[str, str]:
    """Return foreign texts, each on one line: a second line could begin a section."""
    words = ((key, value) for key, value in values.items() if key.split() == [key])
    return {key: " ".join(value.splitlines()) for key, value in words}


def render(file: Path, values: Mapping[str, Any]) -> str:
    """Return the text of a definition file; of a template, with ``values`` filled in.

    :raises UsageError: if it cannot be read, or uses an unknown variable.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise UsageError(f"{file}: cannot be read: {cause}") from None
    if file.suffix != _TEMPLATE:
        return text
    from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    rules = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    try:
        return rules.from_string(text).render(values)
    except TemplateSyntaxError as error:
        raise UsageError(f"{file}: line {error.lineno}: {error.message}") from None
    except (TemplateError, *_FAULTS) as error:
        known = ", ".join(sorted(values))
        raise UsageError(f"{file}: {error}; a template is given {known}") from None


def completed(
    text: str, labels: Mapping[str, str], files: Mapping[str, Path] | None = None
) -> str:
    """Return a definition with our sections appended: Apptainer merges sections of a kind."""
    sections = [*file_section(files or {}), *label_section(labels)]
    return "\n".join([text.rstrip("\n"), "", *sections]) + "\n"
