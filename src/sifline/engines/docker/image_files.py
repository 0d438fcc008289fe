"""The files of an image in the engine: where its layers are, and looks at all of them."""

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

# The engine would read the whole of a mount of another type first, to know it again.
_LOOK = """FROM {image} AS image
FROM {tools} AS look
RUN --mount=type=cache,id=sifline-look,from=image,target=/image \\
    --mount=type=bind,target=/context \\
    ["/bin/sh", "/context/look.sh", "/image", "/context/paths", "/out"]
FROM scratch
COPY --from=look /out /
"""


def layers(image: Mapping[str, Any]) -> tuple[Path, ...]:
    """Return the folders in which the engine keeps an image's layers, the last one first.

    :param image: what ``Docker.inspect`` says of it.
    They make the image's file system once they are mounted above each other (overlayfs);
    (), where the engine keeps it in another way, or does not say.
    """
    driver: Mapping[str, Any] = image.get("GraphDriver") or {}
    data: Mapping[str, str] = driver.get("Data") or {}
    if driver.get("Name") != "overlay2" or "UpperDir" not in data:
        return ()
    below = data.get("LowerDir", "")
    return tuple(Path(path) for path in (data["UpperDir"], *below.split(":")) if path)


def headers(image: Mapping[str, Any]) -> Path | None:
    """Return the folder in which the engine keeps the headers of layers' archives.

    :param image: what ``Docker.inspect`` says of it.
    There is a folder for each layer in it, see ``formats.layers.chain``. It may be missing;
    None, where the engine keeps none, or does not say.
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

    The engine puts files of its own into it, see ``sifline.contents.rootfs``.
    """
    with kept(runner, image, purpose=purpose) as container, engine.exported(container) as stream:
        yield stream


@contextmanager
def kept(runner: Runner, image: str, *, purpose: str) -> Iterator[str]:
    """Keep an image's files in the engine, whoever removes the image; yield a container of it.

    The container never runs; should we be killed, it is found by its ``purpose``.
    """
    config = Docker(runner).inspect(image)["Config"] or {}
    # Its working directory would be made, and most volumes made and filled, in vain.
    words = ["--workdir", "/", "--network", "none"]
    words += ["--label", f"{LABEL_PURPOSE}={purpose}"]
    for folder in _mountable(config.get("Volumes") or ()):
        words += ["--mount", f'"type=tmpfs","target={folder.replace(chr(34), chr(34) * 2)}"']
    # Without a command of its own an image has to be given one.
    made = docker(runner, "create", *words, "--", image, "none").stdout.strip()
    try:
        yield made
    finally:
        docker(runner, "rm", "--force", "--volumes", made, check=False)


def look(runner: Runner, image: str, tools: str, folder: Path, *, log: Path | None = None) -> Path:
    """Run ``folder/look.sh`` on the file system of ``image`` with the programs of ``tools``.

    Both are tags. The file system is that of the image alone, which no container's is; no
    program of the image runs. The engine remembers what came out, and asks no hub.

    :raises CommandFailed: with what it printed.
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
    """Return where volumes that an image declares can be mounted, each place once.

    ``VOLUME data`` and ``VOLUME ['/data']``, of which a shell's words are made, name no place.
    """
    places = (normpath(volume).strip("/") for volume in volumes if volume.startswith("/"))
    return tuple(dict.fromkeys(f"/{place}" for place in places if place))
