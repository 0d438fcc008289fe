"""Makes, lists and unpacks squashfs files, with the tools that come with Apptainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.toolbox import seen
from sifline.machine.process import Result
from sifline.model import Bind

# Memory of sqfstar's caches; its default is a quarter of the machine's.
SQUASH_MEMORY = "256M"

_SQUASH = 'exec "$@" < "$0"'
# overlayfs needs two layers, so a single layer gets an empty one below it.
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
# Through files: names may not be UTF-8, and too many for a command line.
_LIST = 'exec unsquashfs "$@" > "$0"'
_UNPACK = 'exec xargs -0 unsquashfs "$@" < "$0"'


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
        """Return the arguments of mksquashfs as one string."""
        return " ".join(self.words)


class Squashfs:
    """Makes, lists and unpacks squashfs files; inspects image layers."""

    def __init__(self, apptainer: Apptainer) -> None:
        self._apptainer, self._toolbox = apptainer, apptainer.toolbox

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
        """Make a squashfs at ``offset`` of ``target`` from the tar in a FIFO.

        Always uses the toolbox: other releases of sqfstar write other bytes.

        :param created: the time of the file system, in seconds since 1970.
        :param layers: layer folders on the engine's machine, the last layer first: mounted above
            each other, their content is written as a tar into the FIFO ``raw``.
        :raises CommandFailed: with its output.
        """
        words = [
            *(self._toolbox.become if layers else ()),
            *("sqfstar", "-quiet", "-no-progress", *compression.words, "-mem", SQUASH_MEMORY),
            *(("-processors", str(processors)) if processors else ()),
            *("-mkfs-time", str(created)),
            *("-offset", str(offset), *options, str(target)),
        ]
        folders = dict.fromkeys((stream.parent, target.parent))
        binds = [seen(folder, writable=True) for folder in folders]
        if layers:
            return self._mounted(
                layers,
                _SQUASH_MOUNTED,
                [str(stream), str(raw), *words],
                binds=binds,
                purpose=purpose,
                log=log,
            )
        return self._toolbox.run(
            ["sh", "-c", _SQUASH, str(stream), *words],
            binds=binds,
            network=False,
            purpose=purpose,
            log=log,
        )

    def look(
        self, layers: Sequence[Path], folder: Path, *, purpose: str, log: Path | None = None
    ) -> Path:
        """Run ``folder/look.sh`` on the mounted ``layers``, see ``squash``; return its output.

        :raises StepFailed: if they cannot be mounted; CommandFailed with the script's output.
        """
        found = folder / "look"
        found.mkdir()  # otherwise docker would create it as root
        binds = [seen(folder, writable=True)]
        self._mounted(layers, _LOOK, ["look", str(folder)], binds=binds, purpose=purpose, log=log)
        return found

    def headers(
        self, folder: Path, layers: Sequence[str], target: Path, *, purpose: str, log: Path
    ) -> tuple[Path, ...]:
        """Copy the headers that the engine keeps of layer archives into ``target``; return them.

        :param folder: on the engine's machine, see ``image_files.headers`` of docker.
        :param layers: the names of the layers in it, the first layer first.
        :raises StepFailed: if they cannot be copied; CommandFailed with the output.
        """
        target.mkdir()  # otherwise docker would create it as root
        self._toolbox.run(
            ["sh", "-ec", _HEADERS, "sh", str(target), *layers],
            root=True,
            binds=[seen(target, writable=True), headers(folder)],
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
        """Run ``script`` with ``layers`` mounted at /image; the first of ``words`` is its $0."""
        layered = mounts(layers)
        joined = ":".join(bind.target for bind in layered)
        name, *others = words
        return self._toolbox.run(
            ["unshare", "--mount", "sh", "-c", _MOUNTED + script, name, joined, *others],
            # Mounting needs root; users of the engine can read all layers anyway.
            root=True,
            binds=[*binds, *layered],
            network=False,
            purpose=purpose,
            log=log,
        )

    def unsquash(self, squashfs: Path, target: Path, *, purpose: str, log: Path) -> None:
        """Unpack a small squashfs into the new folder ``target``."""
        words = ["-quiet", "-no-progress", "-no-xattrs", "-dest", str(target), str(squashfs)]
        self._toolbox.run(
            ["unsquashfs", *words],
            binds=[seen(target.parent, writable=True), seen(squashfs)],
            network=False,
            purpose=purpose,
            log=log,
        )

    def list_files(self, sif: Path, offset: int, listing: Path, *, purpose: str) -> None:
        """List the squashfs at ``offset`` of ``sif`` in the file ``listing``, a line per file."""
        self._unsquashfs(
            _LIST, sif, offset, listing, words=["-lln", "-no-progress"], purpose=purpose
        )

    def unpack(self, sif: Path, offset: int, names: Path, target: Path, *, purpose: str) -> None:
        """Unpack files of the squashfs at ``offset`` of ``sif`` into the folder ``target``.

        :param names: a file beside ``target`` with NUL-terminated names or patterns.
        """
        words = ["-quiet", "-no-progress", "-no-xattrs", "-force", "-dest", str(target)]
        self._unsquashfs(_UNPACK, sif, offset, names, words=words, purpose=purpose)

    def _unsquashfs(
        self, script: str, sif: Path, offset: int, file: Path, *, words: list[str], purpose: str
    ) -> None:
        runs = self._apptainer if self._apptainer.own("unsquashfs") else self._toolbox
        runs.run(
            ["sh", "-c", script, str(file), *words, "-offset", str(offset), str(sif)],
            binds=[seen(file.parent, writable=True), seen(sif)],
            network=False,
            purpose=purpose,
        )


def mounts(layers: Sequence[Path]) -> tuple[Bind, ...]:
    """Return binds by which the toolbox sees the layers of an image, the last layer first."""
    return tuple(
        Bind(source=path, target=f"/layers/{number}") for number, path in enumerate(layers)
    )


def headers(folder: Path) -> Bind:
    """Return a bind by which the toolbox sees the engine's headers of layer archives."""
    return Bind(source=folder, target="/headers")
