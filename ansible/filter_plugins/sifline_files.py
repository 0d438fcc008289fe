"""Which files and folders of a node are not as they shall be, and which sifline did not write.

Files of a format with comments are marked: their first line has the digest of the others, so that
a file of somebody else, or one that was changed since, is told from one of ours.
"""

from __future__ import annotations

import shlex
import stat
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

# Begins each marked file.
HEADER = "# Written by sifline, which does not replace it once it was changed."


def with_digest(body: str) -> str:
    """Return the text of a marked file."""
    return f"{HEADER} sha256 {sha256(body.encode()).hexdigest()}\n{body}"


def foreign_look(paths: Sequence[str]) -> str:
    """Return a shell command that prints ``foreign PATH`` for marked files that are not ours.

    These are files without the first line that ``with_digest`` adds, or with another digest.
    """
    return (
        f"for file in {' '.join(map(shlex.quote, paths))}; do"
        ' test -e "$file" || test -L "$file" || continue;'
        " said=$(sed -n '1s/^# Written by sifline, .* sha256 //p' \"$file\" 2> /dev/null);"
        ' test "$said" = "$(tail -n +2 "$file" 2> /dev/null | sha256sum | cut -d " " -f 1)"'
        ' || echo "foreign $file"; done'
    )


def marked_files(
    names: Sequence[str], folder: str, mode: str = "0644", owner: str = "root"
) -> list[dict[str, Any]]:
    """Return marked files in one folder, as ``wrong_files`` takes them."""
    return [
        {"path": f"{folder}/{name}", "mode": mode, "owner": owner, "text": name, "marked": True}
        for name in names
    ]


def wrong_files(
    files: Sequence[dict[str, Any]], texts: Mapping[str, str], seen: Sequence[str]
) -> list[dict[str, Any]]:
    """Return those of ``files`` that a node does not have with their content, mode and owner.

    :param files: each with ``path``; ``mode`` as four octal digits; ``text``, the name of its
        content in ``texts``; ``owner``, which is the group as well, if not root; and ``marked``.
    :param seen: lines of sha256sum, and of stat as ``file MODE USER GROUP PATH``.
    """

    def lines(file: dict[str, Any]) -> set[str]:
        text = texts[file["text"]]
        content = with_digest(text) if file.get("marked") else text
        mode, owner = file["mode"].lstrip("0"), file.get("owner", "root")
        return {
            f"{sha256(content.encode()).hexdigest()}  {file['path']}",
            f"file {mode} {owner} {owner} {file['path']}",
        }

    there = set(seen)
    return [file for file in files if not lines(file) <= there]


def wrong_folders(folders: Sequence[dict[str, str]], seen: Sequence[str]) -> list[dict[str, str]]:
    """Return those of ``folders`` that a node does not have with their mode and owner root.

    :param folders: each with ``path``, and ``mode`` as four octal digits.
    :param seen: lines as ``folder MODE USER GROUP PATH``, with the mode as ls(1) writes it.
    """

    def line(folder: dict[str, str]) -> str:
        mode = stat.filemode(stat.S_IFDIR | int(folder["mode"], 8))
        return f"folder {mode} root root {folder['path']}"

    return [folder for folder in folders if line(folder) not in seen]


class FilterModule:
    """Gives Ansible the filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by their names."""
        return {
            "foreign_look": foreign_look,
            "marked_files": marked_files,
            "with_digest": with_digest,
            "wrong_files": wrong_files,
            "wrong_folders": wrong_folders,
        }
