"""Keys of cluster files in the long format: their values, and notes on those that are ignored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sifline.fields.keys import keys_of
from sifline.fields.table import Table

# What to write in place of keys that other programs read.
_INSTEAD = {
    "container_registry": "write registry_root and registry",
    "gpu": "write gpus and gpu_type, or gpu_devices",
    "gpu_config": "write gpus and gpu_type, or gpu_devices, of each node",
    "gres": "write gpus and gpu_type, or gpu_devices",
    "gres_config": "write gpus and gpu_type, or gpu_devices, of each node",
}


def value_of(of: type, field: str, table: Table, key: str, default: Any) -> Any:
    """Return the value of ``key``, checked like ``field`` of the short format."""
    return replace(keys_of(of)[field], name=key, default=default).read(table)


def ignored(table: Table, known: Collection[str]) -> list[str]:
    """Return a note on each key of ``table`` that is not ``known``."""
    return [_note(table.full(key), key) for key in table.values if key not in known]


def ignored_in_rows(rows: Sequence[Table], known: Collection[str]) -> Iterator[str]:
    """Yield notes on keys of several tables, one for each key."""
    counts = Counter(key for row in rows for key in row.values if key not in known)
    for key, count in counts.items():
        first = next(row for row in rows if key in row.values)
        more = f", and in {count - 1} other nodes" if count > 1 else ""
        yield _note(first.full(key), key, more)


def _note(name: str, key: object, more: str = "") -> str:
    instead = _INSTEAD.get(str(key))
    return (
        f"{name} is ignored{more}; {instead}" if instead else f"{name} is ignored: unknown{more}"
    )
