"""The Docker engine, through its own command line: BuildKit is not to be had otherwise."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from posixpath import normpath
from secrets import token_hex
from socket import socket
from typing import Any

from sifline.config.docker_client import EPOCH
from sifline.engines.docker.engine import (
    LABEL_PURPOSE,
    all_images,
    attach,
    builder,
    docker,
    exported,
    layers_size,
    load,
    mount,
)
from sifline.errors import StepFailed
from sifline.formats.reference import normalise
from sifline.formats.times import seconds_of
from sifline.machine.process import Result, Runner
from sifline.model import BuiltImage, Image, Opening
from sifline.model.recipe import SHORT, parse

LABEL_IMAGE = "sifline.image"
LABEL_FINGERPRINT = "sifline.fingerprint"
LABEL_RECIPE = "sifline.recipe"
LABEL_COMMIT = "sifline.commit"
CA_SECRET = "ca-certificates"  # noqa: S105 - the secret's id, not its content
LOG_LINES = 20
STEP_WIDTH = 100

# The engine would read the whole of a mount of another type first, to know it again.
_LOOK = """FROM {image} AS image
FROM {tools} AS look
RUN --mount=type=cache,id=sifline-look,from=image,target=/image \\
    --mount=type=bind,target=/context \\
    ["/bin/sh", "/context/look.sh", "/image", "/context/paths", "/out"]
FROM scratch
COPY --from=look /out /
"""

# Bytes of chance in the name of a file.
_TOKEN = 4
_STEP = re.compile(r"^#\d+ (\[[^\]]+\] .*)$")
# Debian 13 builds its engine without the version, which is v0.0.0+unknown then.
_BUILDKIT = re.compile(r"^buildkit(?: version)?:\s*v?0\.([1-9]\d*)", re.MULTILINE | re.IGNORECASE)
# Why it refuses a Dockerfile as a whole: behind the words of all who pass that on.
_REFUSED = re.compile(r"^ERROR: .*(?:LLB definition|frontend gateway\.v0): (.+)$", re.MULTILINE)
_READER = re.compile(r"frontend gateway\.v0|resolve image config for")
_UNKNOWN = re.compile("unknown (?:instruction|flag)|unexpected key|in substitution", re.IGNORECASE)
_FAILED_STEP = re.compile(r"^ > (\[[^\]]+\] .*?):?$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class EngineImage:
    """What the engine says of an image it holds. ``size`` in bytes, ``created`` in seconds.

    ``tags`` and ``digests`` (``name@sha256:…``, of images from a registry) as the engine writes
    them: without docker.io and library.
    """

    image_id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    created: int
    labels: Mapping[str, str]


class Docker:
    """The engine that the ``docker`` command talks to."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def all(self) -> tuple[EngineImage, ...]:
        """Return every image that the engine holds, the newest first."""
        return tuple(
            EngineImage(
                image_id=entry["Id"],
                tags=_names(entry["RepoTags"]),
                digests=_names(entry["RepoDigests"]),
                size=entry["Size"],
                created=entry["Created"],
                labels=entry["Labels"] or {},
            )
            for entry in all_images(self._runner)
        )

    def images(self, tags: Sequence[str]) -> dict[str, EngineImage]:
        """Return those of ``tags`` that the engine holds, by tag."""
        wanted = set(tags)
        return {tag: entry for entry in self.all() for tag in wanted.intersection(entry.tags)}

    def tag(self, image_id: str, tag: str) -> None:
        """Give an image one more tag, taking it from the image that has it now."""
        docker(self._runner, "image", "tag", image_id, tag)

    def pull(self, reference: str, *, platform: str = "", log: Path | None = None) -> None:
        """Get ``reference`` from its registry."""
        option = ["--platform", platform] if platform else []
        docker(self._runner, "image", "pull", "--quiet", *option, "--", reference, log=log)

    def remote_digest(self, reference: str) -> str:
        """Return the digest that ``reference`` has in its registry now.

        :raises CommandFailed: where the registry does not answer, or does not know it.
        """
        words = ("imagetools", "inspect", "--builder", builder())
        argv = ("buildx", *words, "--format", "{{json .Manifest}}", reference)
        return str(json.loads(docker(self._runner, *argv).stdout)["digest"])

    def remote_manifest(self, reference: str) -> dict[str, Any]:
        """Return the manifest or index that a registry has under ``reference``.

        :raises CommandFailed: where the registry does not answer, or does not know it.
        """
        argv = ("buildx", "imagetools", "inspect", "--builder", builder(), "--raw", reference)
        return dict(json.loads(docker(self._runner, *argv).stdout))

    def platform(self) -> str:
        """Return what the engine runs: ``linux/amd64``, say."""
        show = "{{.Server.Os}}/{{.Server.Arch}}"
        return docker(self._runner, "version", "--format", show).stdout.strip()

    def has_other_ids(self) -> bool:
        """Tell whether ids are no digests of configurations, as in containerd's image store."""
        said = docker(self._runner, "info", "--format", "{{json .DriverStatus}}").stdout
        return "io.containerd.snapshotter" in said

    def names(self, image: str) -> tuple[str, ...] | None:
        """Return the tags and digests that the image of that id has; None where it is not held."""
        show = ("--format", "{{json .RepoTags}} {{json .RepoDigests}}")
        done = docker(self._runner, "image", "inspect", *show, "--", image, check=False)
        if not done.ok:
            return None
        lists = (json.loads(text) for text in done.stdout.split())
        return tuple(name for found in lists for name in found or ())

    def holds(self, image: str) -> bool:
        """Tell whether the engine holds the image of that tag or id."""
        show = ("--format", "{{.Id}}")
        return docker(self._runner, "image", "inspect", *show, "--", image, check=False).ok

    def versions(self) -> dict[str, str]:
        """Return the versions of what builds: the engine, and buildx."""
        engine = docker(self._runner, "version", "--format", "{{.Server.Version}}").stdout
        buildx = docker(self._runner, "buildx", "version").stdout.split()
        return {"engine": engine.strip(), "buildx": buildx[1] if len(buildx) > 1 else ""}

    def buildkit(self) -> int | None:
        """Return the version of the engine's BuildKit, 8 of 0.8; None where it does not say."""
        said = docker(self._runner, "buildx", "inspect", builder(), check=False).stdout
        found = _BUILDKIT.search(said)
        return int(found[1]) if found else None

    def build(
        self,
        folder: Path,
        *,
        labels: Mapping[str, str],
        build_args: Mapping[str, str],
        secrets: Sequence[str],
        log: Path,
        on_step: Callable[[str], None],
        proxies: Mapping[str, str] | None = None,
        hide: Sequence[str] = (),
        ssh: Sequence[str] = (),
        contexts: Mapping[str, Path] | None = None,
        file: Path | None = None,
        target: str = "",
        no_cache: bool = False,
    ) -> str:
        """Build ``folder`` through BuildKit; return the id of the image, which has no name yet.

        Until it has one, a file beside the log holds its id, see ``id_files``.

        :param proxies: build arguments whose values, maybe with passwords, no list of processes
            and no log shall show.
        :param hide: what steps may print and no log shall show: the content of secrets.
        :param secrets: as docker's ``--secret`` takes them: ``id=…,src=…`` or ``id=…,env=…``.
        :param contexts: folders beside ``folder``, by their names.
        :param ssh: as docker's ``--ssh`` takes them: ``ID=SOCKET-OR-KEY``.
        :raises StepFailed: naming the Dockerfile's step, with the log's last lines.
        """
        # Another builder keeps what it builds to itself.
        argv = ["buildx", "build", "--builder", builder(), "--progress", "plain"]
        for flag, values in (
            ("--label", [f"{key}={value}" for key, value in labels.items()]),
            ("--build-arg", [f"{key}={value}" for key, value in build_args.items()]),
            ("--build-arg", [*(proxies or {})]),
            ("--secret", secrets),
            ("--ssh", ssh),
            ("--build-context", [f"{key}={path}" for key, path in (contexts or {}).items()]),
            ("--file", [str(file)] if file else []),
            ("--target", [target] if target else []),
        ):
            for value in values:
                argv += [flag, value]
        argv += ["--no-cache"] if no_cache else []

        def line(text: str) -> None:
            match = _STEP.match(text)
            if match:
                on_step(_shortened(match[1]))

        log.parent.mkdir(parents=True, exist_ok=True)
        made = log.with_name(f"{log.stem}.{token_hex(_TOKEN)}.id")
        argv += ["--iidfile", str(made), "--", str(folder)]
        try:
            result = docker(
                self._runner,
                *argv,
                check=False,
                # buildx would make a build argument of it, which no fingerprint shows.
                env={EPOCH: "", **(proxies or {})},
                log=log,
                on_line=line,
                hide=hide,
            )
            if not result.ok:
                raise self._build_error(folder, result, log)
            return made.read_text(encoding="utf-8").strip()
        except BaseException:
            made.unlink(missing_ok=True)
            raise

    def inspect(self, image: str) -> dict[str, Any]:
        """Return all that the engine says of the image of that tag or id."""
        found = docker(self._runner, "image", "inspect", "--format", "{{json .}}", "--", image)
        return dict(json.loads(found.stdout))

    def history(self, image: str) -> tuple[tuple[str, int], ...]:
        """Return what made an image, the first instruction first, and the bytes that each added.

        The instructions are as the engine remembers them, with words of its own.
        """
        show = ("--no-trunc", "--human=false", "--format", "{{json .}}")
        said = docker(self._runner, "image", "history", *show, "--", image).stdout
        entries = [json.loads(line) for line in said.splitlines()]
        return tuple((entry["CreatedBy"], int(entry["Size"])) for entry in reversed(entries))

    @staticmethod
    def layers(image: Mapping[str, Any]) -> tuple[Path, ...]:
        """Return the folders in which the engine keeps an image's layers, the last one first.

        :param image: what ``inspect`` says of it.
        They make the image's file system once they are mounted above each other (overlayfs);
        (), where the engine keeps it in another way, or does not say.
        """
        driver: Mapping[str, Any] = image.get("GraphDriver") or {}
        data: Mapping[str, str] = driver.get("Data") or {}
        if driver.get("Name") != "overlay2" or "UpperDir" not in data:
            return ()
        below = data.get("LowerDir", "")
        return tuple(Path(path) for path in (data["UpperDir"], *below.split(":")) if path)

    @staticmethod
    def headers(image: Mapping[str, Any]) -> Path | None:
        """Return the folder in which the engine keeps the headers of layers' archives.

        :param image: what ``inspect`` says of it.
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
    def exported(self, image: str, *, purpose: str) -> Iterator[socket]:
        """Open the merged file system of an image as a stream: a tar, on a connection.

        The engine puts files of its own into it, see ``sifline.contents.rootfs``.
        """
        with self.kept(image, purpose=purpose) as container, exported(container) as stream:
            yield stream

    @contextmanager
    def kept(self, image: str, *, purpose: str) -> Iterator[str]:
        """Keep an image's files in the engine, whoever removes the image; yield a container of it.

        The container never runs; should we be killed, it is found by its ``purpose``.
        """
        config = self.inspect(image)["Config"] or {}
        # Its working directory would be made, and most volumes made and filled, in vain.
        words = ["--workdir", "/", "--network", "none"]
        words += ["--label", f"{LABEL_PURPOSE}={purpose}"]
        for folder in _mountable(config.get("Volumes") or ()):
            words += ["--mount", f'"type=tmpfs","target={folder.replace(chr(34), chr(34) * 2)}"']
        # Without a command of its own an image has to be given one.
        made = docker(self._runner, "create", *words, "--", image, "none").stdout.strip()
        try:
            yield made
        finally:
            docker(self._runner, "rm", "--force", "--volumes", made, check=False)

    def look(self, image: str, tools: str, folder: Path, *, log: Path | None = None) -> Path:
        """Run ``folder/look.sh`` on the file system of ``image`` with the programs of ``tools``.

        Both are tags. The file system is that of the image alone, which no container's is; no
        program of the image runs. The engine remembers what came out, and asks no hub.

        :raises CommandFailed: with what it printed.
        """
        found = folder / "look"
        dockerfile = folder / "Dockerfile"
        dockerfile.write_text(_LOOK.format(image=image, tools=tools), encoding="utf-8")
        docker(
            self._runner,
            *("buildx", "build", "--builder", builder(), "--progress", "plain"),
            *("--network", "none", "--output", f"type=local,dest={found}"),
            *("--file", str(dockerfile), "--", str(folder)),
            log=log,
        )
        return found

    def save(self, image: str, archive: Path, *, log: Path | None = None) -> None:
        """Write the image of that tag or id to ``archive``, in the docker-archive format."""
        docker(self._runner, "image", "save", "--output", str(archive), image, log=log)

    def load(self, archive: Iterable[bytes]) -> None:
        """Take the image of a docker-archive, which comes in pieces; see ``engine.load``."""
        load(archive)

    def remove(self, names: Sequence[str]) -> bool:
        """Remove tags or ids, and what only they held; False where a container uses it."""
        return docker(self._runner, "image", "rm", *names, check=False).ok

    def tagged(self, ids: Sequence[str]) -> dict[str, int]:
        """Return when each image was last given a tag here, in seconds.

        When it was created tells less: that is the age of its last layer, from a cache maybe.
        """
        if not ids:
            return {}
        show = "{{.Id}} {{json .Metadata.LastTagTime}}"
        said = docker(self._runner, "image", "inspect", "--format", show, *ids, check=False)
        found = {}
        for line in said.stdout.splitlines():
            image, _, when = line.partition(" ")
            found[image] = seconds_of(json.loads(when))
        return found

    def used_images(self) -> set[str]:
        """Return the ids of the images that containers, running or not, are made of."""
        ids = docker(self._runner, "container", "ls", "--all", "--quiet").stdout.split()
        if not ids:
            return set()
        found = docker(
            self._runner, "container", "inspect", "--format", "{{.Image}}", *ids, check=False
        )
        return set(found.stdout.split())

    def layers_size(self) -> int | None:
        """Return how many bytes the layers of all images take, each counted once.

        None for an engine elsewhere: its command gives only a rounded text.
        """
        return layers_size()

    def root(self) -> str:
        """Return the folder in which the engine keeps all it holds."""
        return docker(self._runner, "info", "--format", "{{.DockerRootDir}}").stdout.strip()

    def shell(
        self,
        image: str,
        command: Sequence[str],
        opening: Opening,
        *,
        terminal: bool,
        label: str = "",
    ) -> int:
        """Run ``command`` in a throw-away container on the user's own terminal.

        Return its exit status. The command alone, as ``apptainer exec`` does it: no entrypoint
        stands before it.

        :param label: of the container, ``key=value``.
        """
        # Signals do not end a container's first process unless it asks for that.
        name = f"sifline-shell-{os.getpid()}"
        argv = ["docker", "run", "--rm", "--name", name, "--init", "--interactive"]
        argv += ["--tty"] if terminal else []
        program, *words = command
        for flag, values in (
            ("--label", [label] if label else []),
            ("--mount", [mount(bind) for bind in opening.binds]),
            ("--user", [f"{opening.user[0]}:{opening.user[1]}"] if opening.user else []),
            ("--env", [f"HOME={opening.home}"] if opening.home else []),
            ("--env", [_variable(name, value) for name, value in opening.env.items()]),
            ("--workdir", [opening.workdir] if opening.workdir else []),
            ("--gpus", [_gpus(opening.gpus)] if opening.gpus else []),
            ("--shm-size", [opening.shared_memory] if opening.shared_memory else []),
            ("--entrypoint", [program]),
        ):
            for value in values:
                argv += [flag, value]
        # What is passed on by name alone docker has to have, whatever else it is without.
        own = {key: os.environ.get(key, "") for key, value in opening.env.items() if value is None}
        return attach(self._runner, [*argv, image, *words], name=name, env=own)

    @staticmethod
    def _build_error(folder: Path, result: Result, log: Path) -> StepFailed:
        match = _FAILED_STEP.search(result.stderr)
        step = f"at {_shortened(match[1])}" if match else "before the first step"
        cause = _cause(result.stderr)
        return StepFailed(
            f"building {folder.name} failed {step}; {cause}the whole log is {log}",
            details=result.tail(LOG_LINES),
        )


def _cause(said: str) -> str:
    """Why a build failed, as far as that is known, with what to do; in front of the rest."""
    if "no space left on device" in said:
        return "the disk is full; "
    refused = _REFUSED.search(said)
    if refused and _READER.search(said):
        return (
            f"its line # syntax= names an image that does not read it: {refused[1]}; fix the name"
            " or the network, or remove that line; "
        )
    if refused and _UNKNOWN.search(refused[1]):
        return (
            f"{refused[1]}; correct it, or install a Docker engine that knows it and see invoke"
            " doctor; "
        )
    return f"{refused[1]}; " if refused else ""


def id_files(log: Path) -> dict[Path, str]:
    """Return the files in which builds with this ``log`` left the ids of their images.

    Whoever names an image removes its file: those that are there are of killed runs.
    """
    found = log.parent.glob(f"{escape(log.stem)}.{'[0-9a-f]' * 2 * _TOKEN}.id")
    return {path: id_of(path) for path in found}


def id_of(path: Path) -> str:
    """Return the id in such a file; "" where the build that wrote it has removed it."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def version_tag(name: str, mark: str) -> str:
    """Return the tag of the image ``name`` that has this fingerprint, in every checkout."""
    return f"sifline/{name}:{mark[:SHORT]}"


def versions(
    images: Iterable[Image], listed: Sequence[EngineImage]
) -> dict[str, tuple[BuiltImage, ...]]:
    """Return our images of that name in the engine: the latest one, then from new to old."""
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
    """Yield the images without a name that have our labels; children of ours inherit them."""
    by_name = {image.name: image for image in images}
    for entry in listed:
        image = by_name.get(entry.labels.get(LABEL_IMAGE, ""))
        if image and not entry.tags and entry.labels.get(LABEL_FINGERPRINT):
            yield _built(image, entry)


def base_ids(images: Iterable[Image], listed: Sequence[EngineImage]) -> dict[str, str]:
    """Return the ids of the foreign images that the engine holds, by reference."""
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


def _variable(name: str, value: str | None) -> str:
    """Return a variable for the docker command, which takes a name's value from the caller."""
    return name if value is None else f"{name}={value}"


def _gpus(which: str) -> str:
    """Return GPUs for the docker command: CSV, where a comma between devices ends the field."""
    return f'"{which}"' if which.startswith("device=") else which


def _mountable(volumes: Iterable[str]) -> tuple[str, ...]:
    """Return where volumes that an image declares can be mounted, each place once.

    ``VOLUME data`` and ``VOLUME ['/data']``, of which a shell's words are made, name no place.
    """
    places = (normpath(volume).strip("/") for volume in volumes if volume.startswith("/"))
    return tuple(dict.fromkeys(f"/{place}" for place in places if place))


def _names(found: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(name for name in found or () if "<none>" not in name)


def _shortened(step: str) -> str:
    """A step of a Dockerfile on one readable line: a RUN may hold a whole script."""
    words = " ".join(step.split())
    return words if len(words) <= STEP_WIDTH else f"{words[:STEP_WIDTH]}…"
