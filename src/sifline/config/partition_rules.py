"""The rules of partitions: their nodes, times, and the accounts and QOS that they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sifline.errors import UsageError, did_you_mean
from sifline.fields.table import Table
from sifline.formats.node_lists import NodeListError, expand_in_order, fold_in_order
from sifline.formats.times import slurm_seconds
from sifline.model import Accounting, Cluster, Partition
from sifline.model.accounting import NORMAL, ROOT

ALL = "all"


def settled(rows: Sequence[Table], found: Sequence[Partition]) -> tuple[Partition, ...]:
    """Return partitions with their nodes as slurm.conf takes them; "" for all nodes.

    :raises UsageError: naming file, line and key of a list that cannot be read.
    """
    return tuple(_settled(row, part) for row, part in zip(rows, found, strict=True))


def _settled(row: Table, part: Partition) -> Partition:
    if part.nodes.lower() == ALL:
        return replace(part, nodes="")
    try:
        names = expand_in_order(part.nodes)
    except NodeListError as error:
        raise UsageError(f"{row.where('nodes')} {part.nodes!r}: {error}") from None
    return replace(part, nodes=fold_in_order(names))


def check(rows: Sequence[Table], cluster: Cluster) -> list[str]:
    """Check the partitions of a cluster; return notes.

    :param rows: the table of each partition in the file.
    :raises UsageError: naming file, line, key and cause.
    """
    unused = dict.fromkeys(node.name for node in cluster.compute)
    compute = frozenset(unused)
    for row, part in zip(rows, cluster.partitions, strict=True):
        names = expand_in_order(part.nodes) if part.nodes else [*compute]
        for name in names:
            if name not in compute:
                raise UsageError(f"{row.where('nodes')}: {_unknown(name, cluster)}")
            unused.pop(name, None)
        _check_times(row, part)
        _check_accounts(row, part, cluster.accounting)
    if not unused:
        return []
    are = "is" if len(unused) == 1 else "are"
    return [f"{fold_in_order(unused)} {are} in no partition, so that no job can run there"]


def _unknown(name: str, cluster: Cluster) -> str:
    if name == cluster.controller.name:
        return f"{name} is the controller, which runs no jobs; name compute nodes"
    near = did_you_mean(name, [node.name for node in cluster.compute])
    return f"there is no compute node {name}; add it to nodes, or remove it here.{near}"


def _check_times(row: Table, part: Partition) -> None:
    if part.default_time and slurm_seconds(part.default_time) > slurm_seconds(part.max_time):
        raise UsageError(
            f"{row.where('default_time')}: {part.default_time} is longer than max_time,"
            f" {part.max_time}; fix one of them"
        )


def _check_accounts(row: Table, part: Partition, accounting: Accounting | None) -> None:
    for key, names in (("allow_accounts", part.allow_accounts), ("allow_qos", part.allow_qos)):
        if names and accounting is None:
            raise UsageError(
                f"{row.where(key)}: without the section accounting Slurm knows no accounts and no"
                " QOS; add it, or remove this"
            )
        if accounting is None or accounting.host:
            continue  # those of another database are not known here
        named = accounting.accounts if key == "allow_accounts" else accounting.qos
        known = {ROOT if key == "allow_accounts" else NORMAL, *(item.name for item in named)}
        for name in names:
            if name not in known:
                where = f"accounting.{key.removeprefix('allow_')}"
                raise UsageError(
                    f"{row.where(key)}: {where} has no {name}; add it there, or remove it here."
                    f"{did_you_mean(name, known)}"
                )
