"""Named build contexts for an engine that knows none: images that last as long as the build."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from sifline.engines.docker import builds
from sifline.engines.docker.images import Docker
from sifline.machine import records
from sifline.machine.context import Context
from sifline.model import Image
from sifline.stages.build.needs import Surroundings

# The first BuildKit with named contexts, 0.10. Frontends (# syntax=) have them on any engine.
SINCE = 10
TAG = "sifline-context:"
LABEL = "sifline.context"
CONTENT = b"FROM scratch\nCOPY . /\n"


def known(image: Image, around: Surroundings) -> bool:
    """Return whether the engine takes the named contexts of ``image`` as folders."""
    return around.buildkit is None or bool(image.frontend) or around.buildkit >= SINCE


@contextmanager
def as_images(
    image: Image, context: Context, around: Surroundings, log: Path
) -> Iterator[dict[str, str]]:
    """Yield an image for each named context, by its name; none if the engine takes folders.

    Those of a run that was killed are removed with its other untagged images, by their ids.
    """
    docker, found = Docker(context.runner), dict[str, str]()
    try:
        file = context.workspace.resolved / f"{image.name}.context"
        for name, folder in () if known(image, around) else image.contexts:
            context.progress(f"copying {folder}, for this engine knows no named contexts")
            records.write_bytes(file, CONTENT)
            tag = f"{TAG}{token_hex(8)}"
            made = builds.build(
                context.runner,
                folder,
                file=file,
                labels={LABEL: tag},  # an image of its own, even if another build has the same
                build_args={},
                secrets=(),
                log=log,
                on_step=lambda _: None,
            )
            docker.tag(made, tag)
            found[name] = tag
        yield found
    finally:
        if found:
            docker.remove([*found.values()])
