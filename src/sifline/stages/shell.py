"""Shell: decides the options of a container that a user opens, from flags and image.toml."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath
from pwd import getpwuid

from sifline.config.images import origin
from sifline.errors import MissingError, UsageError
from sifline.machine import gpus
from sifline.model import Bind, Image, Opening

SHELL = ("/bin/sh",)
# Variables that Apptainer sets itself, or reads as options.
NOT_TAKEN = frozenset(
    {"APPEND_PATH", "APPTAINER_APPNAME", "EUID", "GID", "PREPEND_PATH", "UID", "e", "key"}
)

# An incomplete character of another encoding becomes a lone surrogate.
_ODD = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_ODD_VALUE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_VOLUME = re.compile(r"([^:]+):([^:]+)(?::(ro|rw))?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEVICE = r"(?:[0-9]+|(?:GPU|MIG)-[0-9A-Za-z/-]+)"
_GPUS = re.compile(rf"all|none|[1-9][0-9]{{0,3}}|device={_DEVICE}(?:,{_DEVICE})*")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The values of the flags, as given."""

    mount_home: bool = False
    volumes: Sequence[str] = ()
    gpus: str = ""
    workdir: str = ""
    env: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The user and host that open it. ``gpus`` is the number of GPUs of the host."""

    user: tuple[int, int]
    name: str
    environ: Mapping[str, str]
    gpus: int = 0

    @classmethod
    def here(cls) -> Caller:
        """Return the current user and host."""
        return cls(
            user=(os.getuid(), os.getgid()),
            name=_name(os.getuid()),
            environ=os.environ,
            gpus=gpus.here(),
        )


def _name(uid: int) -> str:
    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return f"uid{uid}"


class _Absent(UsageError):
    """A path to bind does not exist."""


def opening(image: Image, asked: Asked, caller: Caller) -> Opening:
    """Return the options of a container of ``image``.

    What image.toml asks for and this host lacks is left out, with a note.

    :raises UsageError: naming an invalid flag.
    :raises MissingError: if ``--gpus`` asks for GPUs that this host lacks.
    """
    home = _home() if asked.mount_home else None
    binds, missing = _binds(image, asked.volumes, home)
    devices, fewer = _gpus(image, asked.gpus, caller.gpus)
    # Docker's container does not know this user; Python's getpass reads these two variables first.
    named = {"USER": caller.name, "LOGNAME": caller.name} if home else {}
    return Opening(
        binds=binds,
        home=home.target if home else "",
        user=caller.user if home else None,
        env=named | dict(_variable(text, caller.environ) for text in asked.env),
        workdir=_workdir(asked.workdir),
        gpus=devices,
        shared_memory=image.run.shared_memory,
        notes=(*missing, *fewer),
    )


def command(words: Sequence[str]) -> list[str]:
    """Return the command to run: ``words``, or a shell.

    :raises UsageError: if the first word is empty.
    """
    if words and not words[0]:
        raise UsageError("the command behind -- has an empty name; leave it out for a shell")
    return list(words or SHELL)


# Folders


def _home() -> Bind:
    try:
        home = Path.home()
    except RuntimeError:
        raise UsageError("--mount-home: you have no home folder; set HOME to one") from None
    text = str(home)
    # Apptainer separates source and target by a colon.
    if not home.is_absolute() or home == Path("/") or ":" in text or _ODD.search(text):
        raise UsageError(f"--mount-home: {text!r} cannot be bound; set HOME to another folder")
    return _bind("--mount-home", text, text, "rw")


def _binds(
    image: Image, volumes: Sequence[str], home: Bind | None
) -> tuple[tuple[Bind, ...], list[str]]:
    """Return all binds, and notes about missing ones of image.toml; flags override it."""
    said = [_volume(f"--volume {text!r}", text) for text in volumes]
    own = [*([home] if home else []), *said]
    _need_places("--volume", own)
    taken = {bind.target for bind in own}
    told, notes, found = f"{origin(image.name)}: run.binds", [], []
    for text in image.run.binds:
        try:
            found.append(_volume(f"{told}: {text!r}", text))
        except _Absent as error:
            notes.append(f"{error.message}, so it is not bound")
    _need_places(told, found)
    return (*own, *(bind for bind in found if bind.target not in taken)), notes


def _need_places(what: str, binds: Sequence[Bind]) -> None:
    """Raise an error for two binds with one target: Docker and Apptainer choose differently."""
    for target, count in Counter(bind.target for bind in binds).items():
        if count > 1:
            raise UsageError(f"{what}: {count} folders are bound to {target}; name one")


def _volume(what: str, text: str) -> Bind:
    found = _VOLUME.fullmatch(text)
    if not found or _ODD.search(text):
        raise UsageError(
            f"{what}: takes SOURCE:TARGET, maybe with :ro at its end; paths with colons or"
            " control characters cannot be bound"
        )
    return _bind(what, found[1], found[2], found[3])


def _bind(what: str, source: str, target: str, mode: str | None) -> Bind:
    place = "/" + normpath(target).lstrip("/")
    if not target.startswith("/") or place == "/":
        raise UsageError(f"{what}: {target} must be an absolute path in the container, below /")
    return Bind(source=_source(what, source), target=place, writable=mode != "ro")


def _source(what: str, text: str) -> Path:
    """Return the absolute source path; Docker would create a missing one as root."""
    named = "" if "/" in text else "; the name of a Docker volume is not meant here"
    try:
        place = Path(text).expanduser().absolute()
    except RuntimeError:
        raise UsageError(f"{what}: {text}: unknown user") from None
    try:
        found = place.resolve(strict=True)
    except FileNotFoundError:
        raise _Absent(f"{what}: there is no {place} on this host{named}") from None
    except (OSError, RuntimeError) as error:
        why = error.strerror if isinstance(error, OSError) else "its links go in a circle"
        raise _Absent(f"{what}: {place} cannot be bound: {why}") from None
    if _ODD.search(str(found)):
        raise UsageError(f"{what}: {str(found)!r}: paths with control characters cannot be bound")
    return found


# Other options


def _gpus(image: Image, asked: str, here: int) -> tuple[str, list[str]]:
    """Return the GPUs for the container, and notes about those of image.toml that are missing."""
    if asked:
        return _asked_gpus(asked, here), []
    wanted = image.run.gpus
    told = f"{origin(image.name)}: run.gpus: {wanted} asked for"
    if wanted and not here:
        return "", [f"{told}, but this host has no NVIDIA GPU: none is handed in"]
    if wanted.isdecimal() and int(wanted) > here:
        return "all", [f"{told}, but this host has {here}: all of them are handed in"]
    return wanted, []


def _asked_gpus(asked: str, here: int) -> str:
    if not _GPUS.fullmatch(asked):
        raise UsageError(f"--gpus {asked!r}: takes all, a number, device=0,2 or none")
    if asked == "none":
        return ""
    if not here:
        raise MissingError(
            f"--gpus {asked}: this host has no NVIDIA GPU (no {gpus.DEVICES}/nvidia0); install its"
            " driver, or leave --gpus out"
        )
    if max(_counted(asked), default=0) > here:
        raise MissingError(f"--gpus {asked}: this host has {here} of them; ask for fewer")
    return asked


def _counted(asked: str) -> Iterator[int]:
    """Yield how many GPUs a count needs, and how many each device number needs."""
    if asked.isdecimal():
        yield int(asked)
    for device in asked.removeprefix("device=").split(",") if "=" in asked else ():
        if device.isdecimal():
            yield int(device) + 1


def _workdir(asked: str) -> str:
    if asked and (not asked.startswith("/") or _ODD.search(asked)):
        raise UsageError(f"--workdir {asked!r}: takes an absolute path in the container")
    return asked


def _variable(text: str, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """Read one ``NAME=value``, or ``NAME``; errors never repeat the value."""
    name, equals, value = text.partition("=")
    if not _NAME.fullmatch(name):
        raise UsageError(f"--env {name!r}: takes NAME=value, or NAME of letters, digits and _")
    if name == "HOME":
        raise UsageError("--env HOME: is set by the home folder; use --mount-home")
    if name in NOT_TAKEN:
        raise UsageError(f"--env {name}: is reserved by Apptainer; choose another name")
    if not equals and name not in environ:
        raise UsageError(f"--env {name}: you have no such variable; say --env {name}=value")
    if _ODD_VALUE.search(value if equals else environ[name]):
        raise UsageError(f"--env {name}: its value has control characters, or is no UTF-8")
    return name, value if equals else None
