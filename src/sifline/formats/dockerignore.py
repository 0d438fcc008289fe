"""Which files of a build context are left out: the rules of .dockerignore.

They are applied as BuildKit's client does when it sends the context: its patterns
(moby/patternmatcher) folder by folder, what a folder matched going on for all below it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from sifline.errors import UsageError

# The first that exists counts, even an empty one.
FILES = ("Dockerfile.dockerignore", ".dockerignore")
# In contexts beside the Dockerfile's own.
NAMED_FILES = (".dockerignore",)
_WELL_FORMED = re.compile(
    r"(?:\\.|\[\^?(?:(?:\\.|[^\]\\-])(?:-(?:\\.|[^\]\\-]))?)+\]|[^\\\[])*", re.DOTALL
)
_WILD = re.compile(r"[*?\[\]\\]")
# What makes the engine look into every folder.
_ANYWHERE = re.compile(r"[*?\[\]\\^]")
# Go's repetitions; another { is a letter to it.
_REPETITION = re.compile(r"\{(0|[1-9][0-9]*)(?:,(0|[1-9][0-9]*)?)?\}")
_MOST_REPEATED = 1000
# Folders on the way count as well.
_MOST_LINKS = 1000
# Go's letters after a backslash that mean the same to Python; all others it refuses.
_ESCAPES = {letter: f"\\{letter}" for letter in "afnrtvdDsSwWbBA"} | {"z": r"\Z"}


@dataclass(frozen=True, kw_only=True)
class _Pattern:
    text: str
    matches: Callable[[str], bool]
    brings_back: bool

    @property
    def root(self) -> str:
        """The text without the ``/**`` or ``/*`` that says "all below"."""
        return self.text.removesuffix("/**").removesuffix("/*")


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """Which patterns match a folder, and whether all below it is left out."""

    matched: tuple[bool, ...]
    pruned: bool


def find(folder: Path, files: Sequence[str] = FILES) -> Path | None:
    """Return the file that holds the rules for the context in ``folder``; None without one.

    Links are followed as BuildKit does it: the context is the root of all, so that no link leads
    out of it. One that leads to no file counts as no file.
    """
    for name in files:
        path = folder / name
        if path.is_symlink():
            path = _followed(folder, name)
        if path.is_file():
            return path
    return None


def _followed(folder: Path, name: str) -> Path:
    """Return where ``name`` leads; a path that does not exist for a circle of links."""
    left, place = name.split("/"), PurePosixPath("/")
    for _ in range(_MOST_LINKS):
        if not left:
            break
        part = left.pop(0)
        place = place.parent if part == ".." else place / part
        found = folder / place.relative_to("/")
        if found.is_symlink():
            target = str(found.readlink())
            left = [*PurePosixPath(target.lstrip("/")).parts, *left]
            place = PurePosixPath("/") if target.startswith("/") else place.parent
    return folder / place.relative_to("/") if not left else folder / name / "circle"


class IgnoreRules:
    """The rules of one context; call it with a file's relative POSIX name.

    :raises UsageError: naming the line of a rule that the engine refuses; some are only noticed
        when a name comes to them.
    """

    def __init__(self, text: str, path: Path = Path(FILES[1])) -> None:
        self.text = text
        self._patterns = tuple(_patterns(text, path))
        self._folders: dict[str, _Folder] = {}
        back = [pattern.root for pattern in self._patterns if pattern.brings_back]
        # A wildcard may bring back something in any folder.
        self._anywhere = any(_ANYWHERE.search(root) for root in back)
        self._back = tuple(f"{root}/" for root in back)

    @classmethod
    def read(cls, folder: Path, files: Sequence[str] = FILES) -> IgnoreRules:
        """Read the rules that hold for the context in ``folder``.

        :param files: where they may stand; the first that exists counts.
        :raises UsageError: naming the line of a rule that the engine refuses.
        """
        path = find(folder, files)
        if path is None:
            return cls("")
        try:
            text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
        return cls(text, path)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def __call__(self, name: str) -> bool:
        """Tell whether the file ``name`` is left out."""
        if not self._patterns:
            return False
        parent = self._above(name)
        return (parent is not None and parent.pruned) or self._judge(name, parent)[0]

    def prunes(self, name: str) -> bool:
        """Tell whether the folder ``name`` and everything below it is left out for sure."""
        return bool(self._patterns) and self._folder(name).pruned

    def _above(self, name: str) -> _Folder | None:
        parent = name.rpartition("/")[0]
        return self._folder(parent) if parent else None

    def _folder(self, name: str) -> _Folder:
        known = self._folders.get(name)
        if known is None:
            parent = self._above(name)
            out, matched = self._judge(name, parent)
            pruned = out and not self._anywhere and not self._comes_back_below(name)
            pruned = pruned or (parent is not None and parent.pruned)
            known = self._folders[name] = _Folder(matched=matched, pruned=pruned)
        return known

    def _comes_back_below(self, name: str) -> bool:
        return any(back.startswith(f"{name}/") for back in self._back)

    def _judge(self, name: str, parent: _Folder | None) -> tuple[bool, tuple[bool, ...]]:
        """Tell whether ``name`` is left out, and which patterns match it or a folder above."""
        out, found = False, []
        for index, pattern in enumerate(self._patterns):
            match = parent.matched[index] if parent else False
            # The engine does not look where it would change nothing, and what it did not look
            # at does not match what is below either.
            if not match and pattern.brings_back is out:
                match = pattern.matches(name)
            found.append(match)
            if match:
                out = not pattern.brings_back
        return out, tuple(found)


def _patterns(text: str, path: Path) -> Iterator[_Pattern]:
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        rule = line.strip()
        if line.startswith("#") or not rule:
            continue
        where = f"{path}: line {number}: {rule!r}"
        with _saying(where):
            pattern = _pattern(rule, where)
        yield pattern


@contextmanager
def _saying(where: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{where} {error}; correct it") from None


def _pattern(rule: str, where: str) -> _Pattern:
    brings_back = rule.startswith("!")
    text = _cleaned(rule.removeprefix("!").strip())
    if not text or (brings_back and text == "/"):
        raise ValueError("brings back nothing")
    if not _WELL_FORMED.fullmatch(text):
        raise ValueError("has a [ without its ] or ends in a backslash")

    @cache
    def matcher() -> Callable[[str], bool]:
        # As late as the engine, which takes a rule that it cannot use where it does not need it.
        with _saying(where):
            return _matcher(text)

    def matches(name: str) -> bool:
        return matcher()(name)

    return _Pattern(text=text, matches=matches, brings_back=brings_back)


def _cleaned(text: str) -> str:
    """The name without ``.``, ``..``, doubled and outer slashes."""
    if not text:
        return ""
    # Two leading slashes are special to POSIX alone.
    clean = posixpath.normpath(re.sub("^/+", "/", text))
    return clean[1:] if len(clean) > 1 and clean.startswith("/") else clean


def _matcher(text: str) -> Callable[[str], bool]:
    if not _WILD.search(text):
        return text.__eq__
    if text.endswith("**") and not _WILD.search(text[:-2]):
        return lambda name: name.startswith(text[:-2])
    if text.startswith("**") and not _WILD.search(text[2:]):
        return lambda name: name.endswith(text[2:]) or f"/{name}" == text[2:]
    try:
        expression = re.compile(_nested(_expression(text)), re.ASCII)
    except re.error as error:
        raise ValueError(f"cannot be matched: {error}") from None
    return lambda name: expression.search(name) is not None


def _expression(text: str) -> str:
    """A pattern as a regular expression; wildcards are wildcards even in ``[…]``.

    The engine means to escape ``|``, ``{`` and ``}`` and does not: beside a wildcard they are
    operators, and each side of a ``|`` has the start or the end of the name to itself.
    """

    def piece(match: re.Match[str]) -> str:
        found = match.group()
        if found.startswith("**"):
            return "(?:.*/)?" if match.end() < len(text) else ".*"
        if found.startswith("\\"):
            return _escaped(found[1])
        if len(found) > 1:
            return _repeated(match)
        return {"*": "[^/]*", "?": "[^/]", "|": "|"}.get(found) or re.escape(found)

    first = _REPETITION.match(text)
    start = "^"
    if first:
        # Of the start itself, which may then be wherever it is.
        start, text = ("^" if _repeated(first) and int(first[1]) else ""), text[first.end() :]
    # Not escaped by the engine either: [, ] and ^, which outside of […] matches nothing.
    pieces = re.sub(rf"\*\*/?|\\.|{_REPETITION.pattern}|[^\[\]^\-]", piece, text, flags=re.DOTALL)
    return rf"{start}{pieces}\Z"


def _repeated(match: re.Match[str]) -> str:
    """What says how often something is repeated, if the engine takes it."""
    least, most = int(match[1]), int(match[2] or match[1])
    if max(least, most) > _MOST_REPEATED or most < least:
        raise ValueError(f"repeats {match.group()}, which the engine refuses")
    return match.group()


def _escaped(char: str) -> str:
    if char.isascii() and not char.isalnum():
        return re.escape(char)
    if char in _ESCAPES:
        return _ESCAPES[char]
    raise ValueError(f"has \\{char}, which the engine refuses; folders are separated by /")


def _nested(expression: str) -> str:
    """The expression with what Python, but not Go, takes for special in ``[…]`` escaped."""
    classes = re.compile(r"\\.|(\[\^?\]?)((?:\\.|[^\]\\])*)", re.DOTALL)

    def escaped(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return match.group()
        return match.group(1) + re.sub(r"(\\.)|([\[&|~])", _inside, match.group(2))

    return classes.sub(escaped, expression)


def _inside(match: re.Match[str]) -> str:
    return match.group(1) or f"\\{match.group(2)}"
