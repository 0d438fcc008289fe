"""The files of an image in the engine: the folders of its layers, and ways to read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from posixpath import normpath
from socket import socket
from typing import Any

from sifline.engines.docker import engine
from sifline.engines.docker.engine import LABEL_PURPOSE, builder, docker
from sifline.engines.docker.images import Docker
from sifline.machine.process import Runner

# For a mount of another type, the engine would first read all of it to check its cache.
_LOOK = """FROM {image} AS image
FROM {tools} AS look
RUN --mount=type=cache,id=sifline-look,from=image,target=/image \\
    --mount=type=bind,target=/context \\
    ["/bin/sh", "/context/look.sh", "/image", "/context/paths", "/out"]
FROM scratch
COPY --from=look /out /
"""


def layers(image: Mapping[str, Any]) -> tuple[Path, ...]:
    """Return the folders of an image's layers in the engine, the last layer first.

    :param image: the output of ``Docker.inspect``.
    Mounted above each other (overlayfs) they are the image's file system. Returns () if the engine
    keeps it in another form, or does not say.
    """
    driver: Mapping[str, Any] = image.get("GraphDriver") or {}
    data: Mapping[str, str] = driver.get("Data") or {}
    if driver.get("Name") != "overlay2" or "UpperDir" not in data:
        return ()
    below = data.get("LowerDir", "")
    return tuple(Path(path) for path in (data["UpperDir"], *below.split(":")) if path)


def headers(image: Mapping[str, Any]) -> Path | None:
    """Return the folder in which the engine keeps the headers of layer archives.

    :param image: the output of ``Docker.inspect``.
    It contains a folder for each layer, see ``formats.layers.chain``. It may be missing; None if
    the engine keeps no headers, or does not say.
    """
    driver: Mapping[str, Any] = image.get("GraphDriver") or {}
    own = Path((driver.get("Data") or {}).get("UpperDir", ""))
    # ROOT/overlay2/ID/diff
    if driver.get("Name") != "overlay2" or own.name != "diff":
        return None
    return own.parents[2] / "image" / "overlay2" / "layerdb" / "sha256"


@contextmanager
def exported(runner: Runner, image: str, *, purpose: str) -> Iterator[socket]:
    """Open the merged file system of an image as a stream: a tar, on a connection.

    The engine adds files of its own, see ``sifline.contents.rootfs``.
    """
    with kept(runner, image, purpose=purpose) as container, engine.exported(container) as stream:
        yield stream


@contextmanager
def kept(runner: Runner, image: str, *, purpose: str) -> Iterator[str]:
    """Keep an image's files in the engine, even if the image is removed; yield a container of it.

    The container never runs; after a kill it is found by its ``purpose``.
    """
    config = Docker(runner).inspect(image)["Config"] or {}
    # docker would create its working directory and volumes for nothing.
    words = ["--workdir", "/", "--network", "none"]
    words += ["--label", f"{LABEL_PURPOSE}={purpose}"]
    for folder in _mountable(config.get("Volumes") or ()):
        words += ["--mount", f'"type=tmpfs","target={folder.replace(chr(34), chr(34) * 2)}"']
    # An image without a command needs one to create a container.
    made = docker(runner, "create", *words, "--", image, "none").stdout.strip()
    try:
        yield made
    finally:
        docker(runner, "rm", "--force", "--volumes", made, check=False)


def look(runner: Runner, image: str, tools: str, folder: Path, *, log: Path | None = None) -> Path:
    """Run ``folder/look.sh`` on the file system of ``image`` with the programs of ``tools``.

    Both are tags. The file system is exactly the image's, without files that the engine adds to
    containers; no program of the image runs. The engine caches the result, and asks no hub.

    :raises CommandFailed: with its output.
    """
    found = folder / "look"
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text(_LOOK.format(image=image, tools=tools), encoding="utf-8")
    docker(
        runner,
        *("buildx", "build", "--builder", builder(), "--progress", "plain"),
        *("--network", "none", "--output", f"type=local,dest={found}"),
        *("--file", str(dockerfile), "--", str(folder)),
        log=log,
    )
    return found


def _mountable(volumes: Iterable[str]) -> tuple[str, ...]:
    """Return the paths at which declared volumes can be mounted, each once.

    ``VOLUME data`` and ``VOLUME ['/data']``, which is read as words, are not absolute paths.
    """
    places = (normpath(volume).strip("/") for volume in volumes if volume.startswith("/"))
    return tuple(dict.fromkeys(f"/{place}" for place in places if place))
