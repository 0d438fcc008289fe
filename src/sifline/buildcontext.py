"""Which files of an image's folder the engine gets to see, and the digest of their content."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

# The engine reads these two whatever .dockerignore says.
ALWAYS = frozenset({"Dockerfile", ".dockerignore"})


def digest(folder: Path, *, without: frozenset[str] = frozenset()) -> str:
    """Return the SHA-256 over the build context in ``folder``.

    What counts: relative names, kind, the execute bit, content, link targets. Owners and
    times do not. ``without`` names files that are described elsewhere.
    """
    ignored = IgnoreRules(folder / ".dockerignore")
    total = hashlib.sha256()
    for path in sorted(_walk(folder)):
        name = path.relative_to(folder).as_posix()
        if name in without or (name not in ALWAYS and ignored(name)):
            continue
        total.update(f"{name}\0{_entry(path)}\0".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


class IgnoreRules:
    """Tells whether a name is left out by a .dockerignore file.

    The rules are those of the engine: patterns of Go's ``filepath.Match`` plus ``**``, a
    later line wins, ``!`` takes back, a folder's pattern covers what is below it.
    """

    def __init__(self, path: Path) -> None:
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._add(line.strip())

    def __call__(self, name: str) -> bool:
        """Tell whether ``name``, relative to the folder of the file, is left out."""
        left_out = False
        for keeps, pattern in self._rules:
            if pattern.match(name):
                left_out = not keeps
        return left_out

    def _add(self, line: str) -> None:
        if not line or line.startswith("#"):
            return
        keeps = line.startswith("!")
        pattern = os.path.normpath(line.lstrip("!").strip()).lstrip("/")
        if pattern != ".":
            self._rules.append((keeps, re.compile(_regex(pattern) + r"(/.*)?\Z", re.DOTALL)))


_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|\\.|.", re.DOTALL)
_MEANING = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _regex(pattern: str) -> str:
    def token(text: str) -> str:
        if text in _MEANING:
            return _MEANING[text]
        if text.startswith("[") and len(text) > 1:
            return text
        return re.escape(text[-1])

    return "".join(token(text) for text in _TOKENS.findall(pattern))


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _entry(path: Path) -> str:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return f"link {path.readlink()}"
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISREG(mode):
        return f"file {bool(mode & 0o111):d} {file_digest(path)}"
    return "other"


def file_digest(path: Path) -> str:
    """Return the SHA-256 of the content of ``path``."""
    content = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(partial(file.read, 1 << 20), b""):
            content.update(block)
    return content.hexdigest()
