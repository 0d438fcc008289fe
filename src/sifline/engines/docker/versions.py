"""Our images in the engine: their labels, tags and versions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sifline.engines.docker.images import EngineImage
from sifline.formats.reference import normalise
from sifline.model import BuiltImage, Image
from sifline.model.recipe import SHORT, parse

LABEL_IMAGE = "sifline.image"
LABEL_FINGERPRINT = "sifline.fingerprint"
LABEL_RECIPE = "sifline.recipe"
LABEL_COMMIT = "sifline.commit"


def version_tag(name: str, mark: str) -> str:
    """Return the tag of the image ``name`` with this fingerprint, the same in every checkout."""
    return f"sifline/{name}:{mark[:SHORT]}"


def versions(
    images: Iterable[Image], listed: Sequence[EngineImage]
) -> dict[str, tuple[BuiltImage, ...]]:
    """Return our images of that name in the engine: the current one, then newest first."""
    by_name: dict[str, list[EngineImage]] = {}
    for entry in listed:
        by_name.setdefault(entry.labels.get(LABEL_IMAGE, ""), []).append(entry)
    found = {}
    for image in images:
        ours = [entry for entry in by_name.get(image.name, ()) if _is_ours(image.name, entry)]
        ours.sort(key=lambda entry: (image.tag in entry.tags, entry.created), reverse=True)
        found[image.name] = tuple(_built(image, entry) for entry in ours)
    return found


def unnamed(images: Sequence[Image], listed: Sequence[EngineImage]) -> Iterator[BuiltImage]:
    """Yield untagged images with our labels; images built on ours inherit them, too."""
    by_name = {image.name: image for image in images}
    for entry in listed:
        image = by_name.get(entry.labels.get(LABEL_IMAGE, ""))
        if image and not entry.tags and entry.labels.get(LABEL_FINGERPRINT):
            yield _built(image, entry)


def base_ids(images: Iterable[Image], listed: Sequence[EngineImage]) -> dict[str, str]:
    """Return the ids of the foreign images in the engine, by reference."""
    wanted = {base: normalise(base) for image in images for base in image.bases}
    if not wanted:
        return {}
    names = {
        normalise(name): entry.image_id for entry in listed for name in entry.tags + entry.digests
    }
    return {base: names[full] for base, full in wanted.items() if full in names}


def _is_ours(name: str, entry: EngineImage) -> bool:
    # Images built on ours by other means inherit our labels, but not this tag.
    return version_tag(name, entry.labels.get(LABEL_FINGERPRINT, "")) in entry.tags


def _built(image: Image, entry: EngineImage) -> BuiltImage:
    return BuiltImage(
        image=image,
        image_id=entry.image_id,
        fingerprint=entry.labels[LABEL_FINGERPRINT],
        size=entry.size,
        reused=False,
        created=entry.created,
        tags=entry.tags,
        commit=entry.labels.get(LABEL_COMMIT, ""),
        recipe=parse(entry.labels.get(LABEL_RECIPE, "")),
    )
