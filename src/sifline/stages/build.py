"""From a step of the plan to an image in the engine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from sifline import records
from sifline.adapters.docker import CA_SECRET, LABEL_FINGERPRINT, LABEL_IMAGE, Docker, EngineImage
from sifline.adapters.mmdebstrap import Mmdebstrap
from sifline.errors import StepFailed
from sifline.model import PREPARED, BuiltImage, Image, Step
from sifline.runner import Context

# Where Debian and the Red Hat family keep the bundle of trusted certificates.
CA_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
)


def existing(images: Iterable[Image], context: Context) -> dict[str, BuiltImage]:
    """Return the images the engine holds, by name, with the fingerprint of their label."""
    by_tag = {image.tag: image for image in images}
    found = Docker(context.runner).images(sorted(by_tag))
    return {by_tag[tag].name: _built(by_tag[tag], entry) for tag, entry in found.items()}


def build(step: Step, context: Context) -> BuiltImage:
    """Build ``step.image``, preparing its root file system first where it asks for one.

    :raises StepFailed: naming the step of the Dockerfile, with the end of its log.
    """
    image, docker = step.image, Docker(context.runner)
    with records.locked(context.workspace.build / "locks" / f"{image.name}.build.lock"):
        if image.prepare:
            _prepare(image, context)
        context.progress(f"building: {step.reason}" if step.reason else "building")
        docker.build(
            image.folder,
            tag=image.tag,
            labels={LABEL_IMAGE: image.name, LABEL_FINGERPRINT: step.fingerprint},
            build_args=dict(image.build_args),
            secrets=_secrets(os.environ),
            log=context.workspace.logs / f"{image.name}.build.log",
            on_step=context.progress,
        )
        entry = docker.images([image.tag]).get(image.tag)
    if entry is None:
        raise StepFailed(f"{image.tag} was built but is not in the engine; another run removed it")
    return _built(image, entry)


def _prepare(image: Image, context: Context) -> None:
    """Make the root file system, unless the one that is there was made from the same words."""
    assert image.prepare is not None  # noqa: S101 - for the type checker: the caller asked
    target = image.folder / PREPARED
    record = context.workspace.records / f"{image.name}.prepare.json"
    made_from = {"suite": image.prepare.suite, "packages": list(image.prepare.packages)}
    if target.is_file() and (records.read(record) or {}).get("prepare") == made_from:
        return
    context.progress(f"preparing {PREPARED}: mmdebstrap {image.prepare.suite}")
    log = context.workspace.logs / f"{image.name}.prepare.log"
    Mmdebstrap(context.runner).make(image.prepare, target, log=log)
    records.write(record, {"prepare": made_from})


def _secrets(environment: Mapping[str, str]) -> dict[str, Path]:
    """The host's CA bundle, which build steps need behind a mirror or a proxy."""
    named = environment.get("SSL_CERT_FILE")
    for path in (*((Path(named),) if named else ()), *CA_BUNDLES):
        if path.is_file():
            return {CA_SECRET: path}
    return {}


def _built(image: Image, entry: EngineImage) -> BuiltImage:
    # A child inherits its parent's labels: only one that names itself was made by us.
    ours = entry.labels.get(LABEL_IMAGE) == image.name
    return BuiltImage(
        image=image,
        image_id=entry.image_id,
        fingerprint=entry.labels.get(LABEL_FINGERPRINT, "") if ours else "",
        size=entry.size,
        fresh=False,
    )
