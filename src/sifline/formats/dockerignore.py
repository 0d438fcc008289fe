"""The rules of .dockerignore: which files of a build context are excluded.

They are applied as BuildKit's client does when it sends the context: its patterns
(moby/patternmatcher) folder by folder, where a match of a folder applies to everything below it.
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

# The first existing file is used, even an empty one.
FILES = ("Dockerfile.dockerignore", ".dockerignore")
# In named contexts.
NAMED_FILES = (".dockerignore",)
_WELL_FORMED = re.compile(
    r"(?:\\.|\[\^?(?:(?:\\.|[^\]\\-])(?:-(?:\\.|[^\]\\-]))?)+\]|[^\\\[])*", re.DOTALL
)
_WILD = re.compile(r"[*?\[\]\\]")
# Patterns for which the engine looks into every folder.
_ANYWHERE = re.compile(r"[*?\[\]\\^]")
# Go's repetitions; to Go any other { is an ordinary character.
_REPETITION = re.compile(r"\{(0|[1-9][0-9]*)(?:,(0|[1-9][0-9]*)?)?\}")
_MOST_REPEATED = 1000
# Folders above a match count as well.
_MOST_LINKS = 1000
# Escaped letters that mean the same in Go and Python; Go refuses all others.
_ESCAPES = {letter: f"\\{letter}" for letter in "afnrtvdDsSwWbBA"} | {"z": r"\Z"}


@dataclass(frozen=True, kw_only=True)
class _Pattern:
    text: str
    matches: Callable[[str], bool]
    brings_back: bool

    @property
    def root(self) -> str:
        """Return the text without a final ``/**`` or ``/*``."""
        return self.text.removesuffix("/**").removesuffix("/*")


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """The patterns that match a folder, and whether everything below it is excluded."""

    matched: tuple[bool, ...]
    pruned: bool


def find(folder: Path, files: Sequence[str] = FILES) -> Path | None:
    """Return the file with the rules for the context in ``folder``; None if there is none.

    Links are followed as BuildKit does: the context is the root, so no link leads out of it. A
    link without a file counts as a missing file.
    """
    for name in files:
        path = folder / name
        if path.is_symlink():
            path = _followed(folder, name)
        if path.is_file():
            return path
    return None


def _followed(folder: Path, name: str) -> Path:
    """Return the target of ``name``; for circular links, a path that does not exist."""
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
        when a name is matched.
    """

    def __init__(self, text: str, path: Path = Path(FILES[1])) -> None:
        self.text = text
        self._patterns = tuple(_patterns(text, path))
        self._folders: dict[str, _Folder] = {}
        back = [pattern.root for pattern in self._patterns if pattern.brings_back]
        # A pattern with a wildcard may include something in any folder.
        self._anywhere = any(_ANYWHERE.search(root) for root in back)
        self._back = tuple(f"{root}/" for root in back)

    @classmethod
    def read(cls, folder: Path, files: Sequence[str] = FILES) -> IgnoreRules:
        """Read the rules for the context in ``folder``.

        :param files: names of the rule file; the first that exists is used.
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
        """Return whether the file ``name`` is excluded."""
        if not self._patterns:
            return False
        parent = self._above(name)
        return (parent is not None and parent.pruned) or self._judge(name, parent)[0]

    def prunes(self, name: str) -> bool:
        """Return whether the folder ``name`` and everything below it is certainly excluded."""
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
        """Return whether ``name`` is excluded, and which patterns match it or a folder above."""
        out, found = False, []
        for index, pattern in enumerate(self._patterns):
            match = parent.matched[index] if parent else False
            # The engine skips patterns that would change nothing, and a skipped pattern does not
            # match anything below either.
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
        # Compiled on first use, like in the engine, which accepts an invalid rule if it is not
        # needed.
        with _saying(where):
            return _matcher(text)

    def matches(name: str) -> bool:
        return matcher()(name)

    return _Pattern(text=text, matches=matches, brings_back=brings_back)


def _cleaned(text: str) -> str:
    """Return the name without ``.``, ``..``, double and outer slashes."""
    if not text:
        return ""
    # Two leading slashes are special in POSIX.
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
    """Return a pattern as a regular expression; wildcards are wildcards even in ``[…]``.

    The engine intends to escape ``|``, ``{`` and ``}`` but does not: beside a wildcard they are
    operators, and each side of a ``|`` is anchored at only one end of the name.
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
        # A repetition of the start anchor itself, which then matches anywhere.
        start, text = ("^" if _repeated(first) and int(first[1]) else ""), text[first.end() :]
    # The engine does not escape [, ] and ^ either; ^ outside […] matches nothing.
    pieces = re.sub(rf"\*\*/?|\\.|{_REPETITION.pattern}|[^\[\]^\-]", piece, text, flags=re.DOTALL)
    return rf"{start}{pieces}\Z"


def _repeated(match: re.Match[str]) -> str:
    """Return a repetition, if the engine accepts it."""
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
    """Return the expression with characters escaped that only Python interprets in ``[…]``."""
    classes = re.compile(r"\\.|(\[\^?\]?)((?:\\.|[^\]\\])*)", re.DOTALL)

    def escaped(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return match.group()
        return match.group(1) + re.sub(r"(\\.)|([\[&|~])", _inside, match.group(2))

    return classes.sub(escaped, expression)


def _inside(match: re.Match[str]) -> str:
    return match.group(1) or f"\\{match.group(2)}"
