"""Builds SIFs with Apptainer, from a definition file or an OCI layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sifline.engines.apptainer.program import APPTAINER, Apptainer
from sifline.engines.apptainer.squashfs import SQUASH_MEMORY, Compression
from sifline.engines.apptainer.toolbox import seen
from sifline.machine.process import Result
from sifline.machine.streams import OnLine
from sifline.model import Bind

# Begins with a dot, which no image name does.
DEFINITION = ".definition"
# Parent of the build folders: Apptainer looks for the mount point above its scratch folder, and
# fails if the path contains a space.
PLACE = "/sifline/{}"

# Root's Apptainer demands all capabilities to run a script. In a user namespace it has them, and
# no more rights outside than this container.
_WITH_ALL_RIGHTS = """
echo root:0:65536 | tee /etc/subuid > /etc/subgid
exec unshare --user --map-users=0:0:65536 --map-groups=0:0:65536 --setuid 0 --setgid 0 "$0" "$@"
"""

# Device nodes cannot be created in a user namespace. Apptainer treats that as a failure when it
# unpacks a base itself, so it gets the base unpacked; it provides device nodes of its own.
_UNPACKED = """
unsquashfs -quiet -no-progress -offset "$1" -dest "$3" "$2" 2> "$3.errors"
status=$?
grep -v -e '^$' -e ' not create .* device ' -e ' failed to create .* device ' "$3.errors" >&2 \\
    && exit 1
[ $status -eq 0 ] || [ $status -eq 2 ] || exit $status
shift 3
exec "$@"
"""


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """A SIF whose squashfs, at ``offset``, is unpacked into ``target`` before a build."""

    sif: Path
    offset: int
    target: Path


class Builder:
    """Builds SIFs with ``apptainer build``."""

    def __init__(self, apptainer: Apptainer) -> None:
        self._apptainer = apptainer

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
        """Make ``sif`` from an OCI layout, whose parent folder is the scratch folder.

        :param files: files of the scratch folder, by their paths in the SIF.
        :raises CommandFailed: with the end of the build's output.
        """
        return self.build(
            # Only its name: the whole path would become part of the SIF.
            lambda _: definition(layout.name, labels, files or {}),
            sif,
            scratch=layout.parent,
            compression=compression,
            processors=processors,
            log=log,
            on_line=on_line,
        )

    def in_toolbox(self, *, runs: bool, network: bool) -> bool:
        """Return whether ``build`` uses the toolbox for this build.

        Only the toolbox can be cut off from the network.
        """
        return not self._apptainer.native or (runs and not network)

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
        """Make ``sif`` from a definition file.

        :param recipe: returns its text, given a function that returns where Apptainer sees a path
            of the folders of ``sif`` and ``scratch``.
        :param folder: where relative paths in it start; default: ``scratch``.
        :param runs: whether it may run scripts, such as ``%post``.
        :param bases: SIFs to unpack first, into folders of ``scratch``; only in the toolbox.
        :raises CommandFailed: with the end of the build's output.
        """
        arguments = [*compression.words, "-mem", SQUASH_MEMORY]
        arguments += ["-processors", str(processors)] if processors else []
        toolbox = self.in_toolbox(runs=runs, network=network)
        folders = dict.fromkeys((sif.parent, scratch, folder or scratch))
        places = {
            path: Path(PLACE.format(number)) if toolbox else path
            for number, path in enumerate(folders)
        }

        def place_of(path: Path) -> Path:
            return places[path.parent] / path.name

        file = scratch / DEFINITION
        file.write_text(recipe(place_of), encoding="utf-8")
        words = ["build", "--disable-cache", "--mksquashfs-args", " ".join(arguments)]
        words = [APPTAINER, *words, str(place_of(sif)), str(place_of(file))]
        for base in bases:
            given = [str(base.offset), str(base.sif.absolute()), str(place_of(base.target))]
            words = ["sh", "-c", _UNPACKED, "sh", *given, *words]
        if runs and toolbox and self._apptainer.toolbox.uid == 0:
            words = ["sh", "-c", _WITH_ALL_RIGHTS, *words]
        way = self._apptainer.toolbox if toolbox else self._apptainer
        return way.run(
            words,
            binds=[
                *(
                    Bind(source=path, target=str(place), writable=path in (sif.parent, scratch))
                    for path, place in places.items()
                ),
                *(seen(base.sif) for base in bases),
            ],
            env={"APPTAINER_TMPDIR": str(places[scratch])},
            workdir=places[folder or scratch],
            network=network,
            purpose=str(scratch),
            log=log,
            on_line=on_line,
        )


def places(folder: Path) -> tuple[Bind, ...]:
    """Return the binds that ``held`` needs for a folder in which SIFs are built."""
    return tuple(
        Bind(source=folder, target=target, writable=True)
        for target in (str(folder), PLACE.format(0))
    )


def definition(layout: str, labels: Mapping[str, str], files: Mapping[str, Path]) -> str:
    """Return a definition file that adds ``labels`` and ``files`` to an OCI layout."""
    # Only their names: the paths during the build must not become part of the SIF.
    copied = file_section({place: Path(path.name) for place, path in files.items()})
    lines = ["Bootstrap: oci", f"From: {layout}", "", *copied, *label_section(labels)]
    return "\n".join(lines) + "\n"


def file_section(files: Mapping[str, Path]) -> list[str]:
    """Return the ``%files`` section for ``files``, by their paths in the SIF."""
    lines = [f'    "{path}" "/{place}"' for place, path in files.items()]
    return ["%files", *lines, ""] if lines else []


def label_section(labels: Mapping[str, str]) -> list[str]:
    """Return the ``%labels`` section for ``labels``, without empty values.

    A label is one line there: text after a line end could begin another section.
    """
    found = ((key, " ".join(value.split())) for key, value in labels.items())
    return ["%labels", *(f"    {key} {value}" for key, value in found if value)]
