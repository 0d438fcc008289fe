"""Which files and folders of a node are not as they shall be, from one look at all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any


def wrong_texts(
    files: Sequence[dict[str, str]], texts: Mapping[str, str], seen: Sequence[str]
) -> list[dict[str, str]]:
    """Return those of ``files`` that a node does not have with their content, mode and owner root.

    :param files: each with ``path``, ``mode`` as four octal digits, and ``text``, the name of its
        content in ``texts``.
    :param seen: lines as ``file MODE USER GROUP SHA256 PATH``.
    """

    def line(file: dict[str, str]) -> str:
        digest = sha256(texts[file["text"]].encode()).hexdigest()
        return f"file {file['mode'].lstrip('0')} root root {digest} {file['path']}"

    return [file for file in files if line(file) not in seen]


def wrong_folders(folders: Sequence[dict[str, str]], seen: Sequence[str]) -> list[dict[str, str]]:
    """Return those of ``folders`` that a node does not have with their mode and owner root.

    :param folders: each with ``path``, and ``mode`` as ls(1) writes it.
    :param seen: lines as ``folder MODE USER GROUP PATH``.
    """
    return [
        folder
        for folder in folders
        if f"folder {folder['mode']} root root {folder['path']}" not in seen
    ]


class FilterModule:
    """Gives Ansible the filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by their names."""
        return {"wrong_folders": wrong_folders, "wrong_texts": wrong_texts}
