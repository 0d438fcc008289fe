"""What takes the space in an image: folders, duplicate files, and files that layers hide."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

# Smaller files are not reported and not read.
LEAST = 1_000_000
MOST_FOLDERS, MOST_COPIES, MOST_HIDDEN = 10, 10, 5
# A folder is left out if one sub-folder has at least this percentage of its size.
NEARLY_ALL = 90

_BUILDKIT = " # buildkit"
_NO_COMMAND = re.compile(r"/bin/sh -c #\(nop\) +")
_SHELL = re.compile(r"(?:RUN )?(?:\|\d+ .*? )?/(?:\S*/)?(?:ba|da|a|k|z)?sh(?: \S+)*? -c (.+)")
# Instructions that make layers even if they add nothing: they may delete files.
_MAKES_LAYER = re.compile(r"(?:RUN|COPY|ADD) ")


class Kind(Enum):
    """The type of a name in a layer; ``NOTHING`` (a whiteout) deletes it in lower layers."""

    FILE = "file"
    FOLDER = "folder"
    OTHER = "other"
    NOTHING = "nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One name in a folder of a layer. ``size`` in bytes; hard links have the same ``inode``.

    An ``opaque`` folder hides its content in all lower layers.
    """

    name: str
    kind: Kind
    size: int = 0
    inode: Hashable = None
    opaque: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """One name of a regular file. ``path`` has no leading slash; layer 0 is the top one."""

    path: str
    size: int
    inode: Hashable
    layer: int = 0


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The size that an instruction of a Dockerfile added, in bytes."""

    instruction: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder with everything below it, in bytes."""

    path: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Files with the same content, each of ``size`` bytes."""

    size: int
    paths: tuple[str, ...]

    @property
    def waste(self) -> int:
        """Return the bytes saved if there were only one of them."""
        return self.size * (len(self.paths) - 1)


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """Bytes of lower layers that an upper layer deletes or replaces at ``path``."""

    path: str
    size: int
    replaced: bool


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A file system with all names of its files; ``hidden`` is None if unknown."""

    files: tuple[File, ...]
    hidden: tuple[Hidden, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """The report on the sizes in an image or a SIF file.

    ``image``, ``sif`` and ``budget`` in bytes, None if there is none; ``total`` is the size of all
    ``files``. ``copies`` and ``hidden`` are complete, the largest first; if one is None,
    ``unknown`` says why, by its name.
    """

    name: str
    image: int | None = None
    sif: int | None = None
    budget: int | None = None
    layers: tuple[Layer, ...] = ()
    total: int = 0
    files: int = 0
    folders: tuple[Folder, ...] = ()
    copies: tuple[Copies, ...] | None = None
    hidden: tuple[Hidden, ...] | None = None
    unknown: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def wasted(self) -> int:
        """Return the bytes that duplicate files waste."""
        return sum(item.waste for item in self.copies or ())

    @property
    def buried(self) -> int:
        """Return the bytes of files that later layers delete or replace."""
        return sum(item.size for item in self.hidden or ())


Listing = Callable[[int, str], Iterable[Entry]]


def merge(layers: int, listing: Listing) -> Tree:
    """Merge layers as overlayfs does, and record what they hide.

    See "Upper and Lower" and "whiteouts and opaque directories" in the kernel's
    Documentation/filesystems/overlayfs.rst.

    :param listing: returns the entries of a layer's folder; layer 0 is the top one.
    """
    shown, lost = list[File](), list[tuple[str, bool, File]]()
    waiting: list[tuple[str, Sequence[int]]] = [("", range(layers))]
    while waiting:
        folder, within = waiting.pop()
        for path, found in _by_path(folder, within, listing):
            (layer, top), count = found[0], _taking_part(found)
            if top.kind is Kind.FOLDER:
                waiting.append((path, [number for number, _ in found[:count]]))
            elif top.kind is Kind.FILE:
                shown.append(_file(path, layer, top))
            replaced = top.kind is not Kind.NOTHING
            for number, entry in found[count:]:
                lost += ((path, replaced, file) for file in _below(path, number, entry, listing))
    return Tree(files=tuple(shown), hidden=_hidden(lost, {file.inode for file in shown}))


def _by_path(
    folder: str, within: Sequence[int], listing: Listing
) -> Iterator[tuple[str, list[tuple[int, Entry]]]]:
    """Yield each name in ``folder`` with its entries in the layers, from the top down."""
    named = defaultdict[str, list[tuple[int, Entry]]](list)
    for layer in within:
        for entry in listing(layer, folder):
            named[entry.name].append((layer, entry))
    for name, found in named.items():
        yield _join(folder, name), found


def _taking_part(found: Sequence[tuple[int, Entry]]) -> int:
    """Return how many layers are visible at a path: only folders merge with those below."""
    for count, (_, entry) in enumerate(found):
        if entry.kind is not Kind.FOLDER:
            return max(count, 1)
        if entry.opaque:
            return count + 1
    return len(found)


def _below(path: str, layer: int, entry: Entry, listing: Listing) -> Iterator[File]:
    """Yield the files of a layer at ``path`` and below it."""
    waiting = [(path, entry)]
    while waiting:
        place, found = waiting.pop()
        if found.kind is Kind.FILE:
            yield _file(place, layer, found)
        elif found.kind is Kind.FOLDER:
            waiting += ((_join(place, item.name), item) for item in listing(layer, place))


def _hidden(
    lost: Iterable[tuple[str, bool, File]], kept: Iterable[Hashable]
) -> tuple[Hidden, ...]:
    """Return the hidden bytes by path; a file with another visible name is not hidden."""
    counted, sizes = set(kept), Counter[tuple[str, bool]]()
    for path, replaced, file in sorted(lost, key=lambda item: item[2].path):
        if file.inode not in counted:
            counted.add(file.inode)
            sizes[path, replaced] += file.size
    found = (
        Hidden(path=path, size=size, replaced=replaced)
        for (path, replaced), size in sizes.items()
        if size
    )
    return tuple(sorted(found, key=lambda item: (-item.size, item.path)))


def _file(path: str, layer: int, entry: Entry) -> File:
    return File(path=path, size=entry.size, inode=entry.inode, layer=layer)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def report(name: str, tree: Tree) -> Report:
    """Return the report of a file system, without the parts that need layers or digests."""
    files = once(tree.files)
    return Report(
        name=name,
        total=sum(file.size for file in files),
        files=len(files),
        folders=largest(files),
        hidden=tree.hidden,
    )


def once(files: Iterable[File]) -> tuple[File, ...]:
    """Return files without further hard links, under the first name of each."""
    backwards = sorted(files, key=lambda file: file.path, reverse=True)
    return tuple({file.inode: file for file in backwards}.values())


def largest(files: Iterable[File]) -> tuple[Folder, ...]:
    """Return the largest folders, without those that are almost entirely one sub-folder."""
    sizes, main = Counter[str](), Counter[str]()
    for file in once(files):
        above = file.path
        while above:
            above = above.rpartition("/")[0]
            sizes[above] += file.size
    del sizes[""]  # the total is reported elsewhere
    for path, size in sizes.items():
        above = path.rpartition("/")[0]
        main[above] = max(main[above], size)
    found = (
        Folder(path=path, size=size)
        for path, size in sizes.items()
        if main[path] * 100 < size * NEARLY_ALL
    )
    return tuple(sorted(found, key=lambda item: (-item.size, item.path))[:MOST_FOLDERS])


def alike(files: Iterable[File]) -> tuple[File, ...]:
    """Return those of ``files`` that are large enough and have the size of another file."""
    by_size = defaultdict[int, list[File]](list)
    for file in once(files):
        if file.size >= LEAST:
            by_size[file.size].append(file)
    return tuple(file for found in by_size.values() if len(found) > 1 for file in found)


def copies(files: Iterable[File], digests: Mapping[Hashable, str]) -> tuple[Copies, ...]:
    """Return which of ``files`` have the same content, the largest waste first.

    :param digests: of the content of each file in ``alike``, by inode.
    """
    same = defaultdict[tuple[int, str], list[str]](list)
    for file in alike(files):
        same[file.size, digests[file.inode]].append(file.path)
    found = (
        Copies(size=size, paths=tuple(sorted(paths)))
        for (size, _), paths in same.items()
        if len(paths) > 1
    )
    return tuple(sorted(found, key=lambda item: (-item.waste, item.paths)))


def layers(history: Iterable[tuple[str, int]]) -> tuple[Layer, ...]:
    """Return the instructions of an image's history that add or may delete files."""
    found = (Layer(instruction=instruction(text), size=size) for text, size in history)
    return tuple(item for item in found if item.size or _MAKES_LAYER.match(item.instruction))


def instruction(created_by: str) -> str:
    """Return an instruction as in a Dockerfile, on one line, without the engine's additions."""
    text = " ".join(created_by.removesuffix(_BUILDKIT).split())
    if match := _NO_COMMAND.match(text):
        return text[match.end() :]
    match = _SHELL.fullmatch(text)
    return f"RUN {match[1]}" if match else text
