"""Apptainer: the machine's own, else the one in the toolbox image through Docker."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from sifline.engines.apptainer import signatures
from sifline.engines.apptainer.signatures import Key
from sifline.engines.docker.engine import (
    LABEL_PURPOSE,
    attach,
    mount,
    need_answer,
    reason,
    remove,
    remove_left_over,
)
from sifline.errors import MissingError, SiflineError, StepFailed
from sifline.machine.process import CommandFailed, Result, Runner
from sifline.machine.streams import OnLine
from sifline.model import Bind, Opening

TOOLBOX = "sifline/toolbox"
APPTAINER = "apptainer"
# sqfstar's caches; without a word it takes a quarter of the machine.
SQUASH_MEMORY = "256M"
# singularity 3 is another program with other options.
NAMES = ("apptainer", "singularity")
OLDEST_SINGULARITY = 4
# Of variables that are flags of Apptainer, or variables in a SIF, whichever of both programs runs.
_VARIABLES = tuple(name.upper() for name in NAMES)
# Those that say where it keeps its files, and nothing of what is in a container.
_PLACES = ("CACHEDIR", "CONFIGDIR", "KEYSDIR", "TMPDIR")
# Begins with a dot, as no image's name does.
DEFINITION = ".definition"
# Where the folders of a build are: Apptainer looks for the mount point above its scratch space,
# and finds none where there is a space in the path.
PLACE = "/sifline/{}"
# Locked by whoever keeps a container of the toolbox running.
ALIVE = "/sifline-alive"
# Of a SIF that is kept open; one in each container of the toolbox.
INSTANCE = "sifline"
# How the docker command says that it could not start the container at all.
NOT_STARTED = 125
# What Apptainer needs to make user namespaces and mount with FUSE inside a container.
# Not --privileged: it asks for more, and fails where the engine itself holds less.
TOOLBOX_RIGHTS = (
    *("--cap-add", "SYS_ADMIN"),
    *("--device", "/dev/fuse"),
    *("--security-opt", "apparmor=unconfined"),
    *("--security-opt", "seccomp=unconfined"),
    *("--security-opt", "systempaths=unconfined"),
)

# Of a keyring: the keys of others and one's own, and those to sign with.
PUBLIC_RING, SECRET_RING = "pgp-public", "pgp-secret"
# Apptainer insists on a keyring of its own modes that it can write to: it gets a copy.
_WITH_PUBLIC_KEYS = """
mkdir -m 700 /tmp/keys
test ! -e "$0" || cp "$0" /tmp/keys/
APPTAINER_KEYSDIR=/tmp/keys exec apptainer "$@"
"""

_SQUASH = 'exec "$@" < "$0"'
# A single layer cannot be mounted: there is an empty one below.
_MOUNTED = """
set -e
# In a user namespace, the engine marks what a layer hides in a way that a mount here ignores.
read -r inside outside count < /proc/self/uid_map
test "$inside $outside $count" = "0 0 4294967295"
mkdir --parents /image /nothing
# The newer way to mount takes 256 characters of an option.
LIBMOUNT_FORCE_MOUNT2=always mount -t overlay -o "ro,lowerdir=$1:/nothing" image /image
shift
"""
_LOOK = 'exec sh "$1/look.sh" /image "$1/paths" "$1/look"'
_SQUASH_MOUNTED = """
# Before anybody waits for what comes out of it.
exec 3> "$1"
shift
tar --create --blocking-factor 512 --format pax --pax-option delete=atime,delete=ctime \\
    --xattrs --xattrs-include security.capability --numeric-owner --sort name \\
    --directory /image . >&3 &
tar=$!
exec 3>&-
"$@" < "$0"
# 1: a file was gone before it was read. Nobody changes these layers: it is what look.sh skips.
wait "$tar" || test "$?" -eq 1
"""
_HEADERS = """
folder=$1 number=0
shift
for layer; do
    cp "/headers/$layer/tar-split.json.gz" "$folder/$number"
    number=$((number + 1))
done
"""
# To run something, root's Apptainer wants every right that there is. In a user namespace it has
# them, and no more rights outside than this container.
_WITH_ALL_RIGHTS = """
echo root:0:65536 | tee /etc/subuid > /etc/subgid
exec unshare --user --map-users=0:0:65536 --map-groups=0:0:65536 --setuid 0 --setgid 0 "$0" "$@"
"""

# In a user namespace nobody makes a device: those of the SIF are missing then, which Apptainer
# takes for a failure where it unpacks by itself. It hands in devices of its own.
_UNPACKED = """
unsquashfs -quiet -no-progress -offset "$1" -dest "$3" "$2" 2> "$3.errors"
status=$?
grep -v -e '^$' -e ' not create .* device ' -e ' failed to create .* device ' "$3.errors" >&2 \\
    && exit 1
[ $status -eq 0 ] || [ $status -eq 2 ] || exit $status
shift 3
exec "$@"
"""

# The kernel holds every user to the modes of the files.
_MOUNT = (
    'mkdir -p "$0" && exec squashfuse_ll -o "allow_other,default_permissions,offset=$1" "$2" "$0"'
)
# Its folder has the SIF's name: so Apptainer calls the container.
STRICT = "/run/strict"
# Through files: names may be no UTF-8, and too many for a command line.
_LIST = 'exec unsquashfs "$@" > "$0"'
_UNPACK = 'exec xargs -0 unsquashfs "$@" < "$0"'

_VERSION = re.compile(r"(\d+)\.\d+\S*")
_numbers = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Compression:
    """How the squashfs is compressed."""

    name: str = "zstd"
    level: int | None = 3

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments of mksquashfs and sqfstar."""
        level = () if self.level is None else ("-Xcompression-level", str(self.level))
        return ("-comp", self.name, *level)

    @property
    def mksquashfs(self) -> str:
        """The same on one line."""
        return " ".join(self.words)


class Run(Protocol):
    """Runs a command inside a SIF to its end, whatever its exit status is."""

    def __call__(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, workdir: str = ""
    ) -> Result:
        """Return what came of ``argv``."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A container of the toolbox that is kept running, and all that it sees of the host."""

    name: str
    binds: tuple[Bind, ...]

    def sees(self, bind: Bind) -> bool:
        """Tell whether a command in it finds ``bind`` where a container of its own would."""
        return any(
            held.writable >= bind.writable
            and Path(bind.source).is_relative_to(held.source)
            and Path(held.target, Path(bind.source).relative_to(held.source)) == Path(bind.target)
            for held in self.binds
        )


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """A SIF whose squashfs, at ``offset``, a build finds unpacked in the folder ``target``."""

    sif: Path
    offset: int
    target: Path


class Apptainer:
    """Builds, runs and inspects SIFs, whichever way Apptainer is to be had."""

    def __init__(
        self,
        runner: Runner,
        *,
        toolbox: str = TOOLBOX,
        user: tuple[int, int] | None = None,
        box: Box | None = None,
    ) -> None:
        self._runner = runner
        self._toolbox = toolbox
        self._box = box
        self._uid, self._gid = user or (os.getuid(), os.getgid())

    @cached_property
    def native(self) -> str | None:
        """The path of a usable program on this machine, or None."""
        for name in NAMES:
            path = self._runner.which(name)
            if path and _usable(name, self._runner.run([path, "--version"], check=False)):
                return path
        return None

    @cached_property
    def version(self) -> str:
        """The version of the program that is used, such as ``1.4.5``."""
        printed = self._run(["--version"]).stdout
        match = _VERSION.search(printed)
        return match[0] if match else printed.strip()

    def description(self) -> str:
        """Say what is used, for people: ``apptainer 1.4.5 in sifline/toolbox``."""
        if self.native:
            return f"{Path(self.native).name} {self.version} of this machine"
        return f"apptainer {self.version} in {self._toolbox}"

    def squash(
        self,
        stream: Path,
        target: Path,
        *,
        offset: int,
        compression: Compression,
        processors: int,
        created: int,
        options: Sequence[str],
        purpose: str,
        layers: Sequence[Path] = (),
        raw: Path | None = None,
        log: Path | None = None,
    ) -> Result:
        """Make a squashfs at ``offset`` of ``target`` of the tar that comes out of a FIFO.

        This is always done by the toolbox: other releases of sqfstar write other bytes.

        :param created: the time of the file system, in seconds since 1970.
        :param layers: folders of the engine's machine, the last layer first: what they make when
            mounted above each other goes into the FIFO ``raw``, as a tar.
        :raises CommandFailed: with what it printed.
        """
        words = [
            *(self._become if layers else ()),
            *("sqfstar", "-quiet", "-no-progress", *compression.words, "-mem", SQUASH_MEMORY),
            *(("-processors", str(processors)) if processors else ()),
            *("-mkfs-time", str(created)),
            *("-offset", str(offset), *options, str(target)),
        ]
        folders = [
            Bind(source=folder, target=str(folder), writable=True)
            for folder in dict.fromkeys((stream.parent, target.parent))
        ]
        if layers:
            return self._mounted(
                layers,
                _SQUASH_MOUNTED,
                [str(stream), str(raw), *words],
                binds=folders,
                purpose=purpose,
                log=log,
            )
        return self._run(
            ["-c", _SQUASH, str(stream), *words],
            program="sh",
            toolbox=True,
            binds=folders,
            network=False,
            purpose=purpose,
            log=log,
        )

    def look(
        self, layers: Sequence[Path], folder: Path, *, purpose: str, log: Path | None = None
    ) -> Path:
        """Run ``folder/look.sh`` on what ``layers`` make, see ``squash``; return what it wrote.

        :raises StepFailed: where they cannot be mounted; CommandFailed with what it printed.
        """
        found = folder / "look"
        found.mkdir()  # else it would be root's
        binds = [Bind(source=folder, target=str(folder), writable=True)]
        self._mounted(layers, _LOOK, ["look", str(folder)], binds=binds, purpose=purpose, log=log)
        return found

    def headers(
        self, folder: Path, layers: Sequence[str], target: Path, *, purpose: str, log: Path
    ) -> tuple[Path, ...]:
        """Copy what the engine kept of layers' archives into the folder ``target``; return them.

        :param folder: of the engine's machine, see ``Docker.headers``.
        :param layers: the names of the layers in it, the first layer first.
        :raises StepFailed: where it cannot be had; CommandFailed with what was printed.
        """
        target.mkdir()  # else it would be root's
        self._run(
            ["-ec", _HEADERS, "sh", str(target), *layers],
            program="sh",
            toolbox=True,
            root=True,
            binds=[Bind(source=target, target=str(target), writable=True), headers(folder)],
            network=False,
            purpose=purpose,
            log=log,
        )
        return tuple(target / str(number) for number in range(len(layers)))

    def _mounted(
        self,
        layers: Sequence[Path],
        script: str,
        words: Sequence[str],
        *,
        binds: Sequence[Bind],
        purpose: str,
        log: Path | None,
    ) -> Result:
        """Run ``script`` with what ``layers`` make at /image; the first of ``words`` is its $0."""
        layered = mounts(layers)
        name, *others = words
        return self._run(
            ["--mount", "sh", "-c", _MOUNTED + script, name, _joined(layered), *others],
            program="unshare",
            toolbox=True,
            # Whoever may use the engine may read all layers; mounting them is for root.
            root=True,
            binds=[*binds, *layered],
            network=False,
            purpose=purpose,
            log=log,
        )

    def unsquash(self, squashfs: Path, target: Path, *, purpose: str, log: Path) -> None:
        """Unpack a small squashfs into the folder ``target``, which is made."""
        folder = target.parent
        self._run(
            ["-quiet", "-no-progress", "-no-xattrs", "-dest", str(target), str(squashfs)],
            program="unsquashfs",
            toolbox=True,
            binds=[Bind(source=folder, target=str(folder), writable=True), _file(squashfs)],
            network=False,
            purpose=purpose,
            log=log,
        )

    def build_from_layout(
        self,
        layout: Path,
        sif: Path,
        *,
        labels: Mapping[str, str],
        compression: Compression,
        files: Mapping[str, Path] | None = None,
        processors: int = 0,
        log: Path | None = None,
        on_line: OnLine | None = None,
    ) -> Result:
        """Make ``sif`` of an OCI layout. The folder around that is the scratch space, too.

        :param files: of the scratch space, by where they go in the SIF.
        :raises CommandFailed: with the end of what the build printed.
        """
        return self.build(
            # Its name alone: the whole path would become part of the SIF.
            lambda _: definition(layout.name, labels, files or {}),
            sif,
            scratch=layout.parent,
            compression=compression,
            processors=processors,
            log=log,
            on_line=on_line,
        )

    def in_toolbox(self, *, runs: bool, network: bool) -> bool:
        """Tell whether a build is done in the toolbox; see ``build``.

        It alone can be cut off from the network.
        """
        return not self.native or (runs and not network)

    def build(
        self,
        recipe: Callable[[Callable[[Path], Path]], str],
        sif: Path,
        *,
        scratch: Path,
        compression: Compression,
        processors: int = 0,
        folder: Path | None = None,
        runs: bool = False,
        network: bool = False,
        bases: Sequence[Unpacked] = (),
        log: Path | None = None,
        on_line: OnLine | None = None,
    ) -> Result:
        """Make ``sif`` of a definition file.

        :param recipe: returns its text, given what tells where Apptainer sees a path of the
            folders that it has: those of ``sif`` and ``scratch``.
        :param folder: the folder that relative paths in it belong to, by default ``scratch``.
        :param runs: whether it may run something, as ``%post`` does.
        :param bases: what is unpacked before, into folders of ``scratch``; in the toolbox alone.
        :raises CommandFailed: with the end of what the build printed.
        """
        arguments = [*compression.words, "-mem", SQUASH_MEMORY]
        arguments += ["-processors", str(processors)] if processors else []
        toolbox = self.in_toolbox(runs=runs, network=network)
        folders = dict.fromkeys((sif.parent, scratch, folder or scratch))
        places = {
            path: Path(PLACE.format(number)) if toolbox else path
            for number, path in enumerate(folders)
        }

        def seen(path: Path) -> Path:
            return places[path.parent] / path.name

        file = scratch / DEFINITION
        file.write_text(recipe(seen), encoding="utf-8")
        words = ["build", "--disable-cache", "--mksquashfs-args", " ".join(arguments)]
        words = [APPTAINER, *words, str(seen(sif)), str(seen(file))]
        for base in bases:
            place = [str(base.offset), str(base.sif.absolute()), str(seen(base.target))]
            words = ["sh", "-c", _UNPACKED, "sh", *place, *words]
        if runs and toolbox and self._uid == 0:
            words = ["sh", "-c", _WITH_ALL_RIGHTS, *words]
        return self._run(
            words[1:],
            program=words[0],
            toolbox=toolbox,
            binds=[
                *(
                    Bind(source=path, target=str(place), writable=path in (sif.parent, scratch))
                    for path, place in places.items()
                ),
                *(_file(base.sif) for base in bases),
            ],
            env={"APPTAINER_TMPDIR": str(places[scratch])},
            workdir=places[folder or scratch],
            network=network,
            purpose=str(scratch),
            log=log,
            on_line=on_line,
        )

    def exec(
        self,
        sif: Path,
        argv: Sequence[str],
        *,
        binds: Sequence[Bind] = (),
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        gpus: bool = False,
        instance: str = "",
        check: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Run ``argv`` inside ``sif``, apart from the caller's environment and home.

        :param gpus: hand in all GPUs of the host, which has to have some.
        :param instance: of the SIF, to be joined instead of starting another container.
        """
        nvidia = ["--nv"] if gpus else []
        # Apptainer would evaluate the values.
        literal = ["--no-eval"] if env else []
        words = [
            "exec",
            *self._options(binds, workdir),
            *nvidia,
            *literal,
            instance or str(sif),
            *argv,
        ]
        return self._run(
            words,
            binds=[_file(sif), *map(_same, binds)],
            env=self._inside(env or {}),
            gpus=gpus,
            check=check,
            timeout=timeout,
            without=settings(os.environ),
        )

    def places(self, folder: Path) -> tuple[Bind, ...]:
        """Return what ``held`` needs of a folder in which SIFs are built, and other files made."""
        return tuple(
            Bind(source=folder, target=target, writable=True)
            for target in (str(folder), PLACE.format(0))
        )

    @contextmanager
    def held(self, binds: Sequence[Bind], *, purpose: str) -> Iterator[Apptainer]:
        """Keep one container of the toolbox for many calls of what is yielded.

        It has no network, and ends with the block, with this process, or by ``stop_builds``.

        :param binds: all that the calls hand in, or folders around it.
        :raises StepFailed: where the engine does not start it, with the engine's words.
        """
        with self._kept(binds, label=f"{LABEL_PURPOSE}={purpose}", network=False) as held:
            yield held

    @contextmanager
    def _kept(
        self, binds: Sequence[Bind], *, label: str, network: bool = True, gpus: bool = False
    ) -> Iterator[Apptainer]:
        """Keep a container of the toolbox until the block or this process ends; yield its use."""
        name = _new_name()
        extra = ["--detach", "--name", name, "--label", label]
        extra += [*([] if network else ["--network", "none"]), *(["--gpus", "all"] * gpus)]
        with tempfile.NamedTemporaryFile(prefix="sifline-held-") as alive:
            # A process that is killed loses the lock: the container's first one gets it and ends.
            fcntl.flock(alive, fcntl.LOCK_EX)
            waiting = [*binds, Bind(source=Path(alive.name), target=ALIVE)]
            argv = self._argv(
                [ALIVE, "true"],
                program="flock",
                toolbox=True,
                root=True,
                binds=waiting,
                env={},
                extra=extra,
            )
            try:
                result = self._runner.run(argv, check=False)
                if not result.ok:
                    raise self._cause(result) or CommandFailed("no toolbox was started", result)
                box = Box(name=name, binds=tuple(binds))
                user = (self._uid, self._gid)
                yield Apptainer(self._runner, toolbox=self._toolbox, user=user, box=box)
            finally:
                remove(self._runner, name)

    @contextmanager
    def opened(
        self, sif: Path, *, label: str, gpus: bool = False, strict: int | None = None
    ) -> Iterator[Run]:
        """Keep ``sif`` open for many commands, which see each other's processes and /tmp.

        In the toolbox this saves each command a container and a mount. The machine's own
        Apptainer starts a container for each: that is quick, and nothing would end an instance
        whose caller was killed.

        :param label: of the toolbox's container, ``key=value``.
        :param gpus: hand in all GPUs of the host, which has to have some.
        :param strict: where its squashfs begins, to have files belong to whom they do in the
            image, as where Apptainer is set-uid; else they are all the caller's. In the toolbox.
        """
        if self.native:
            yield partial(self.exec, sif, gpus=gpus, check=False)
            return
        with self._kept([_file(sif)], label=label, gpus=gpus) as held:
            image = str(sif) if strict is None else held._strictly(sif, strict)
            words = ["instance", "start", *self._options((), ""), *(["--nv"] * gpus)]
            joined = held._run([*words, image, INSTANCE], binds=[_file(sif)], check=False)
            # An image without a shell cannot become an instance.
            opened = f"instance://{INSTANCE}" if joined.ok else image
            nvidia = gpus and not joined.ok
            yield partial(held.exec, sif, instance=opened, gpus=nvidia, check=False)

    def _strictly(self, sif: Path, offset: int) -> str:
        """Mount ``sif`` for all users of the toolbox that is kept; return where it is."""
        place = f"{STRICT}/{sif.name}"
        words = ["-c", _MOUNT, place, str(offset), str(sif)]
        self._run(words, program="sh", toolbox=True, root=True, binds=[_file(sif)])
        return place

    def shell(
        self,
        sif: Path,
        command: Sequence[str],
        opening: Opening,
        *,
        workdir: str,
        terminal: bool,
        label: str = "",
    ) -> int:
        """Run ``command`` inside ``sif`` on the user's own terminal; return its exit status.

        :param workdir: where it starts, if ``opening`` does not say.
        :param label: of the toolbox's container, ``key=value``.
        """
        # At its own path a folder would hide one of the toolbox: its programs, its /etc.
        places = {
            bind: bind.source if self.native else Path(f"/sifline/{number}")
            for number, bind in enumerate(opening.binds)
        }
        seen = [replace(bind, source=place) for bind, place in places.items()]
        words = ["exec", *self._options(seen, opening.workdir or workdir)]
        home = next((bind for bind in seen if bind.target == opening.home), None)
        words += ["--home", f"{home.source}:{home.target}"] if home else []
        words += ["--nv"] if opening.gpus else []
        # As variables they stand in no list of processes; Apptainer would evaluate their values.
        env = self._inside({**_visible(opening.gpus), **_values(opening.env)})
        words += ["--no-eval"] if env else []
        container = f"sifline-shell-{os.getpid()}"
        extra = ["--name", container, "--interactive", *(["--tty"] if terminal else [])]
        extra += ["--label", label] if label else []
        # All of them: numbers count those that the toolbox has.
        extra += ["--gpus", "all"] if opening.gpus else []
        for name in env:
            extra += ["--env", name]
        argv = self._argv(
            [*words, str(sif), *command],
            binds=[
                _file(sif),
                *(replace(bind, target=str(place)) for bind, place in places.items()),
            ],
            env={},
            extra=extra,
        )
        if self.native:
            return self._runner.attach(argv, env=env or None)
        return attach(self._runner, argv, name=container, env=env or None)

    def inspect(self, sif: Path) -> dict[str, Any]:
        """Return what Apptainer says of ``sif``: labels, environment, run script."""
        result = self._run(["inspect", "--json", "--all", str(sif)], binds=[_file(sif)])
        try:
            found = json.loads(result.stdout)["data"]["attributes"]
        except (ValueError, KeyError, TypeError):
            raise StepFailed(
                f"{sif}: apptainer inspect printed no JSON", details=result.tail()
            ) from None
        return dict(found)

    def sif_list(self, sif: Path) -> str:
        """Return Apptainer's own table of the data objects.

        :raises CommandFailed: where Apptainer cannot read the file.
        """
        return self._run(["sif", "list", str(sif)], binds=[_file(sif)]).stdout

    def sif_add(self, sif: Path, note: Path, *, log: Path) -> None:
        """Add the JSON file ``note`` to ``sif``, under its own name, in the group of the system.

        :raises CommandFailed: where Apptainer cannot.
        """
        kind = ("--datatype", "6", "--groupid", "1", "--filename", note.name)
        self._run(
            ["sif", "add", *kind, str(sif), str(note)],
            binds=[Bind(source=sif.parent, target=str(sif.parent), writable=True), _file(note)],
            network=False,
            log=log,
        )

    def list_files(self, sif: Path, offset: int, listing: Path, *, purpose: str) -> None:
        """Write what the squashfs at ``offset`` of ``sif`` holds to ``listing``, a line each."""
        self._unsquashfs(
            _LIST, sif, offset, listing, words=["-lln", "-no-progress"], purpose=purpose
        )

    def unpack(self, sif: Path, offset: int, names: Path, target: Path, *, purpose: str) -> None:
        """Unpack files of the squashfs at ``offset`` of ``sif`` into the folder ``target``.

        :param names: a file beside ``target`` with their names, or patterns, a NUL after each.
        """
        words = ["-quiet", "-no-progress", "-no-xattrs", "-force", "-dest", str(target)]
        self._unsquashfs(_UNPACK, sif, offset, names, words=words, purpose=purpose)

    def _unsquashfs(
        self, script: str, sif: Path, offset: int, file: Path, *, words: list[str], purpose: str
    ) -> None:
        self._run(
            ["-c", script, str(file), *words, "-offset", str(offset), str(sif)],
            program="sh",
            toolbox=self._own("unsquashfs") is None,
            binds=[
                Bind(source=file.parent, target=str(file.parent), writable=True),
                _file(sif),
            ],
            network=False,
            purpose=purpose,
        )

    # Keys and signatures

    @cached_property
    def keyring(self) -> Path:
        """The folder of the user's keys, where the program itself looks for them."""
        program = Path(self.native or APPTAINER).name
        for name in dict.fromkeys((program, *NAMES)):
            if named := os.environ.get(f"{name.upper()}_KEYSDIR"):
                return Path(named).absolute()
        try:
            return Path.home() / f".{program}" / "keys"
        except RuntimeError:
            raise MissingError(
                "no home folder to keep keys in; set APPTAINER_KEYSDIR to a folder"
            ) from None

    def secret_keys(self) -> tuple[Key, ...]:
        """Return the keys that the user can sign with."""
        if not os.access(self.keyring / SECRET_RING, os.R_OK):
            return ()
        return signatures.keys(self._with_keys(["key", "list", "--secret"]).stdout)

    def sign(self, sif: Path, key: Key, *, passphrase: str = "", purpose: str = "") -> Result:
        """Add a signature of every object to ``sif``, in place; nothing is raised where it fails.

        The passphrase goes through standard input: a command line can be read by everyone.
        """
        return self._with_keys(
            ["sign", "--keyidx", str(key.index), str(sif)],
            binds=[Bind(source=sif, target=str(sif), writable=True)],
            input=f"{passphrase}\n",
            hide=[passphrase] if passphrase else [],
            check=False,
            purpose=purpose,
        )

    def verify(self, sif: Path, *, online: bool = False, purpose: str = "") -> Result:
        """Return what ``apptainer verify --json`` says; nothing is raised where it refuses.

        :param online: ask a key server for keys that the keyring does not hold.
        """
        words = ["verify", "--json", *([] if online else ["--local"]), str(sif)]
        if self.native:
            return self._run(words, env=self._keyring_env(), check=False)
        # Secret keys are none of its business, and it would write to a keyring that lacks some.
        ring = self.keyring / PUBLIC_RING
        return self._run(
            ["-c", _WITH_PUBLIC_KEYS, str(ring), *words],
            program="sh",
            binds=[*([_file(ring)] if os.access(ring, os.R_OK) else []), _file(sif)],
            network=online,
            purpose=purpose,
            check=False,
        )

    def import_key(self, file: Path, *, passphrase: str) -> Result:
        """Take a secret key into the keyring; nothing is raised where that fails."""
        return self._with_keys(
            ["key", "import", str(file)],
            binds=[_file(file)],
            input=f"{passphrase}\n",
            hide=[passphrase] if passphrase else [],
            check=False,
        )

    def attach_key(
        self, words: Sequence[str], *, binds: Sequence[Bind], terminal: bool, online: bool
    ) -> int:
        """Run ``apptainer key`` on the user's own terminal; return its exit status.

        :raises MissingError: where there is no Apptainer.
        """
        _ = self.version  # the terminal would show what docker says of a missing toolbox
        env = self._keyring_env()
        extra = ["--interactive", *(["--tty"] if terminal else [])]
        extra += [] if online else ["--network", "none"]
        argv = self._argv(
            ["key", *words], binds=[self._keyring_bind(), *binds], env=env, extra=extra
        )
        return self._runner.attach(argv, env=env if self.native else None)

    def _with_keys(
        self, words: Sequence[str], *, binds: Sequence[Bind] = (), **options: Any
    ) -> Result:
        """Run Apptainer with the user's own keyring, and without a network."""
        return self._run(
            words,
            binds=[self._keyring_bind(), *binds],
            env=self._keyring_env(),
            network=False,
            **options,
        )

    def _keyring_bind(self) -> Bind:
        """Writable: Apptainer insists on the modes of folder and files, and makes missing ones."""
        ring = self.keyring
        try:
            ring.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise MissingError(
                f"the keyring {ring} cannot be made: {error.strerror}; set APPTAINER_KEYSDIR to"
                " another folder"
            ) from None
        return Bind(source=ring, target=str(ring), writable=True)

    def _keyring_env(self) -> dict[str, str]:
        return {f"{Path(self.native or APPTAINER).name.upper()}_KEYSDIR": str(self.keyring)}

    def stop_builds(self, scratch: Path) -> None:
        """Remove the containers of a killed run that worked in ``scratch``."""
        if self._runner.which("docker"):
            remove_left_over(self._runner, str(scratch))

    # How a command line comes about

    def _options(self, binds: Sequence[Bind], workdir: str) -> list[str]:
        options = ["--cleanenv", "--contain"]
        if not self.native and self._uid == 0:
            # Root would mount as a set-uid program does, with more rights than there are here.
            options.append("--userns")
        for bind in binds:
            options += ["--mount", mount(bind)]
        return options + (["--pwd", workdir] if workdir else [])

    def _inside(self, env: Mapping[str, str]) -> dict[str, str]:
        prefix = Path(self.native).name.upper() if self.native else "APPTAINER"
        return {f"{prefix}ENV_{key}": value for key, value in env.items()}

    def _own(self, program: str) -> str | None:
        """The path of ``program`` on a machine that has Apptainer, or None: the toolbox."""
        if program == APPTAINER or not self.native:
            return self.native
        return self._runner.which(program)

    def _argv(
        self,
        words: Sequence[str],
        *,
        binds: Sequence[Bind],
        env: Mapping[str, str],
        extra: Sequence[str] = (),
        program: str = APPTAINER,
        toolbox: bool = False,
        root: bool = False,
    ) -> list[str]:
        """Return the whole command line; ``env`` and ``extra`` are for the container.

        :param toolbox: even where this machine has the program.
        :param root: as root in the toolbox, whoever asks for it.
        """
        path = None if toolbox else self._own(program)
        if path:
            return [path, *words]
        variables = [word for item in env.items() for word in ("--env", "=".join(item))]
        command = [*(() if root else self._become), program, *words]
        if self._box:
            unseen = [bind for bind in binds if not self._box.sees(bind)]
            assert not unseen, unseen  # noqa: S101 - whoever holds the toolbox says what it sees
            return ["docker", "exec", *extra, *variables, self._box.name, *command]
        argv = ["docker", "run", "--rm", "--pull", "never", *TOOLBOX_RIGHTS, *extra]
        for bind in binds:
            argv += ["--mount", mount(bind)]
        return [*argv, *variables, self._toolbox, *command]

    @property
    def _become(self) -> tuple[str, ...]:
        return ("as-user", f"{self._uid}:{self._gid}") if self._uid else ()

    def _run(
        self,
        words: Sequence[str],
        *,
        program: str = APPTAINER,
        toolbox: bool = False,
        root: bool = False,
        binds: Sequence[Bind] = (),
        env: Mapping[str, str] | None = None,
        workdir: Path | None = None,
        network: bool = True,
        gpus: bool = False,
        purpose: str = "",
        check: bool = True,
        timeout: float | None = None,
        log: Path | None = None,
        on_line: OnLine | None = None,
        input: str | None = None,
        hide: Sequence[str] = (),
        without: Collection[str] = (),
    ) -> Result:
        name = self._box.name if self._box else _new_name()
        extra = [] if self._box else ["--name", name, "--label", f"{LABEL_PURPOSE}={purpose}"]
        extra += [] if self._box or network else ["--network", "none"]
        extra += ["--gpus", "all"] if gpus and not self._box else []
        extra += ["--workdir", str(workdir)] if workdir else []
        extra += [] if input is None else ["--interactive"]
        path = None if toolbox else self._own(program)
        argv = self._argv(
            words,
            binds=binds,
            env=env or {},
            extra=extra,
            program=program,
            toolbox=toolbox,
            root=root,
        )
        try:
            result = self._runner.run(
                argv,
                check=check,
                cwd=workdir if path else None,
                env=env if path else None,
                timeout=timeout,
                log=log,
                on_line=on_line,
                input=input,
                hide=hide,
                without=without,
            )
        except CommandFailed as error:
            if path:
                raise
            self._end(name)
            raise self._cause(error.result) or error from None
        except BaseException:
            if not path:
                self._end(name)
            raise
        cause = None if result.ok or path else self._cause(result)
        if cause:
            raise cause
        return result

    def _end(self, name: str) -> None:
        """Remove the container of a call that failed; who keeps one ends it himself."""
        if not self._box:
            remove(self._runner, name)

    def _cause(self, result: Result) -> SiflineError | None:
        """Return what kept the toolbox from starting; None where it was not that."""
        if result.returncode not in (1, NOT_STARTED):
            return None
        said = result.stderr
        if self._box:
            need_answer(result)
            # It runs: the status is that of the command in it.
            return None
        if "No such image" in said or "Unable to find image" in said:
            return MissingError(
                f"no apptainer on this machine, and no image {self._toolbox};"
                " run invoke build.toolbox"
            )
        need_answer(result)
        if result.returncode != NOT_STARTED:
            return None
        return StepFailed(
            f"the engine did not start {self._toolbox}: {reason(result)}; run invoke doctor",
            details=result.tail(),
        )


def settings(names: Iterable[str]) -> frozenset[str]:
    """Return those of ``names`` by which Apptainer changes what is in a container."""
    kept = {f"{prefix}_{place}" for prefix in _VARIABLES for place in _PLACES}
    return frozenset(name for name in names if name.startswith(_VARIABLES) and name not in kept)


def mounts(layers: Sequence[Path]) -> tuple[Bind, ...]:
    """Return where the toolbox sees the layers of an image, the last layer first."""
    return tuple(
        Bind(source=path, target=f"/layers/{number}") for number, path in enumerate(layers)
    )


def headers(folder: Path) -> Bind:
    """Return where the toolbox sees what the engine kept of layers' archives."""
    return Bind(source=folder, target="/headers")


def _joined(layers: Sequence[Bind]) -> str:
    return ":".join(bind.target for bind in layers)


def _new_name() -> str:
    """Return a name that no other container has."""
    return f"sifline-apptainer-{os.getpid()}-{next(_numbers)}"


def definition(layout: str, labels: Mapping[str, str], files: Mapping[str, Path]) -> str:
    """Return the definition file that takes an OCI layout and adds ``labels`` and ``files``."""
    # Their names alone, as well: where a build looks for them is no part of the SIF.
    copied = file_section({place: Path(path.name) for place, path in files.items()})
    lines = ["Bootstrap: oci", f"From: {layout}", "", *copied, *label_section(labels)]
    return "\n".join(lines) + "\n"


def file_section(files: Mapping[str, Path]) -> list[str]:
    """Return the lines of a definition file's section of ``files``, by where they go."""
    lines = [f'    "{path}" "/{place}"' for place, path in files.items()]
    return ["%files", *lines, ""] if lines else []


def label_section(labels: Mapping[str, str]) -> list[str]:
    """Return the lines of a definition file's section of ``labels``, without those of no value.

    A label is one line there: whatever came after a line's end could begin another section.
    """
    found = ((key, " ".join(value.split())) for key, value in labels.items())
    return ["%labels", *(f"    {key} {value}" for key, value in found if value)]


def _values(env: Mapping[str, str | None]) -> dict[str, str]:
    return {name: os.environ[name] if value is None else value for name, value in env.items()}


def _visible(gpus: str) -> dict[str, str]:
    """Return the variables by which CUDA sees those GPUs alone: Apptainer hands in all of them."""
    if gpus in ("", "all"):
        return {}
    _, named, devices = gpus.partition("device=")
    return {
        # The order of nvidia-smi and Docker; by itself CUDA puts the fastest first.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": devices if named else ",".join(map(str, range(int(gpus)))),
    }


def _file(path: Path) -> Bind:
    return Bind(source=path.absolute(), target=str(path.absolute()))


def _same(bind: Bind) -> Bind:
    """The toolbox sees the same path; Apptainer maps it to the target."""
    return Bind(source=bind.source, target=str(bind.source), writable=bind.writable)


def _usable(name: str, version: Result) -> bool:
    match = _VERSION.search(version.stdout)
    if not version.ok or not match:
        return False
    return name != "singularity" or int(match[1]) >= OLDEST_SINGULARITY
