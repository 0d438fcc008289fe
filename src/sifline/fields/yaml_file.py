"""Reads YAML files of people: lines are kept, and what cannot be meant is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from sifline.errors import UsageError
from sifline.fields.marked import MarkedList, MarkedTable

# A file of 30,000 nodes that are written one by one is smaller.
MOST_BYTES = 4 << 20
# Anchors can make much of a small file: each place that one is used in counts as if written out.
MOST_WRITTEN_OUT = 8 * MOST_BYTES
MOST_DEPTH = 64
_TAG = "tag:yaml.org,2002:"
_STRING, _TABLE, _LIST, _MERGE, _BINARY = (
    f"{_TAG}{name}" for name in ("str", "map", "seq", "merge", "binary")
)
# What a value takes in memory beside its text, in characters: enough for a bound.
_OVERHEAD = 8


def read_yaml(path: Path, *, missing: str = "fix its name") -> Any:
    """Return the value of the YAML file ``path``, with ``MarkedTable`` and ``MarkedList``.

    :param missing: what to do if there is no such file.
    :raises UsageError: naming the line: for a file that cannot be read, is no YAML or too large;
        for a key that is there twice; for anchors that contain themselves, or that would fill the
        memory.
    """
    import yaml

    text = _text(path, missing)
    try:
        return _read(path, text)
    except yaml.reader.ReaderError as error:
        # A character that YAML does not allow; libyaml counts bytes.
        before = text[: error.position]
        if getattr(yaml, "CSafeLoader", None):
            before = text.encode()[: error.position].decode(errors="ignore")
        line = before.count("\n") + 1
        raise UsageError(f"{path}:{line}: is not YAML: {error.reason}; fix that line") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}{_place_and_cause(error, text)}; fix that line") from None
    except RecursionError:
        raise UsageError(f"{path}: is not YAML: tables and lists are nested too deep") from None


def _read(path: Path, text: str) -> Any:
    import yaml

    # libyaml is ten times as fast; where PyYAML was built without it, the same in Python.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _Reader(path, loader).whole(node)
    finally:
        loader.dispose()


def _place_and_cause(error: Any, text: str) -> str:
    """Return the line of an error of PyYAML, and what it says."""
    mark, begun = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    cause = getattr(error, "problem", None) or "it cannot be read"
    # A text that ends too early is faulty in its last line, not behind it.
    line = min(mark.line, text.rstrip().count("\n")) + 1 if mark else 0
    if error.context and begun:
        cause = f"{error.context} that begins in line {begun.line + 1}, {cause}"
    return f":{line}: is not YAML: {cause}" if line else f": is not YAML: {cause}"


def _text(path: Path, missing: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UsageError(
                f"{path}: is larger than {MOST_BYTES >> 20} MiB, so it is no settings file; name"
                " another file"
            )
        return content.decode()
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; {missing}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; fix that") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}:{line}: cannot be read: no text in UTF-8; fix that") from None


class _Reader:
    """Makes values of the nodes that PyYAML composed; a node with an anchor is made once."""

    def __init__(self, path: Path, loader: Any) -> None:
        self._path = path
        self._loader = loader
        # By the identity of their nodes: values, and how much they are if written out.
        self._done: dict[int, tuple[Any, int]] = {}
        self._open = set[int]()

    def whole(self, node: Any) -> Any:
        """Return the value of the topmost node."""
        value = self._value(node, 0)[0]
        if isinstance(value, MarkedTable):
            value.line = 0
        return value

    def _value(self, node: Any, depth: int) -> tuple[Any, int]:
        """Return the value of a node, and how much it is if written out."""
        if node.tag == _STRING:
            return node.value, _OVERHEAD + len(node.value)
        if id(node) in self._done:
            return self._done[id(node)]
        if id(node) in self._open:
            self._refuse(node, "an anchor contains itself; write it out")
        self._open.add(id(node))
        found = self._made(node, depth)
        if found[1] > MOST_WRITTEN_OUT:
            self._refuse(
                node, f"its anchors stand for more than {MOST_WRITTEN_OUT >> 20} MiB; use fewer"
            )
        self._open.remove(id(node))
        self._done[id(node)] = found
        return found

    def _made(self, node: Any, depth: int) -> tuple[Any, int]:
        if depth > MOST_DEPTH:
            self._refuse(node, f"more than {MOST_DEPTH} tables and lists in each other")
        if node.tag == _TABLE and isinstance(node.value, list):
            return self._table(node, depth)
        if node.tag == _LIST and isinstance(node.value, list):
            return self._list(node, depth)
        if not isinstance(node.value, str) or node.tag == _BINARY:
            self._refuse(node, f"the tag {node.tag.replace(_TAG, '!!')} is not known; remove it")
        return self._scalar(node), _OVERHEAD + len(node.value)

    def _table(self, node: Any, depth: int) -> tuple[MarkedTable, int]:
        values, lines, merged = dict[Any, Any](), dict[Any, int](), dict[Any, Any]()
        size = _OVERHEAD
        for key_node, value_node in node.value:
            value, more = self._value(value_node, depth + 1)
            size += more
            if key_node.tag == _MERGE:
                self._merge(key_node, value, merged, lines)
                continue
            key = self._key(key_node)
            if key in values:
                self._refuse(
                    key_node,
                    f"the key {key} is there already, in line {lines[key]}; keep one of them",
                )
            values[key] = value
            lines[key] = _line(key_node)
            size += len(key_node.value)
        return MarkedTable({**merged, **values}, lines, _line(node)), size

    def _merge(self, node: Any, value: Any, merged: dict[Any, Any], lines: dict[Any, int]) -> None:
        """Add what ``<<`` takes from other tables; what comes first wins."""
        for table in value if isinstance(value, list) else [value]:
            if not isinstance(table, MarkedTable):
                self._refuse(node, "<< takes tables alone; fix it")
            for key, item in table.items():
                merged.setdefault(key, item)
                lines.setdefault(key, _line(node))

    def _key(self, node: Any) -> Any:
        if not isinstance(node.value, str) or node.tag == _BINARY:
            self._refuse(node, "a table or a list cannot be a key; fix it")
        return node.value if node.tag == _STRING else self._scalar(node)

    def _list(self, node: Any, depth: int) -> tuple[MarkedList, int]:
        found = [self._value(item, depth + 1) for item in node.value]
        size = _OVERHEAD + sum(more for _, more in found)
        return MarkedList((value for value, _ in found), map(_line, node.value)), size

    def _scalar(self, node: Any) -> Any:
        try:
            return self._loader.construct_object(node)
        except (ArithmeticError, AttributeError, LookupError, ValueError) as error:
            # A date that does not exist, a number with too many digits.
            self._refuse(node, f"{error}; fix it, or put it in quotes")

    def _refuse(self, node: Any, why: str) -> NoReturn:
        raise UsageError(f"{self._path}:{_line(node)}: is not YAML that sifline reads: {why}")


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1
