"""Cluster files in the long format: ``clusters.hpc`` with controller and compute nodes.

Unknown keys are not errors: they are listed in ``Cluster.notes``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from sifline.config import hpc_nodes, partition_rules
from sifline.config.cluster_rules import Places
from sifline.config.hpc_keys import ignored, value_of
from sifline.errors import UsageError, did_you_mean
from sifline.fields.keys import Rows, keys_of
from sifline.fields.kinds import File, Several
from sifline.fields.table import Table
from sifline.model import Cluster, Partition, SshAccess

KEY = "clusters"
OURS = "hpc"
VERSION = re.compile(r"1(?:\.[0-9]+)*")

TOP_KEYS = frozenset({"version", "metadata", "virtual", KEY})
# Keys that mean the same in both formats.
SHARED_KEYS = ("job_user", "registry_root", "registry", "accounting", "variables")
CLUSTER_KEYS = frozenset(
    {
        *("name", "network", "controller", "compute_nodes", "slurm_config", "ssh", "storage"),
        *SHARED_KEYS,
    }
)
SLURM_KEYS = frozenset({"partitions", "default_partition", "max_job_time"})
SSH_KEYS = frozenset({"user", "private_key_path", "port", "known_hosts"})


def read(top: Table, key: str = "") -> tuple[Cluster, Places]:
    """Return a cluster of a file, and where the file has what.

    :param key: which one, by its key or its name; "" for ``hpc``, or the only one.
    :raises UsageError: naming file, line, key and the allowed values.
    """
    _check_version(top)
    clusters = top.sub(KEY)
    used = _chosen(clusters, key)
    _refuse_short(top, clusters.full(used))
    table = clusters.sub(used)
    slurm, ssh, storage = table.sub("slurm_config"), table.sub("ssh"), table.sub("storage")
    nodes = hpc_nodes.read(table)
    rows, partitions = _partitions(slurm)
    notes = [
        *(
            f"{clusters.full(other)} is not used, {clusters.full(used)} is; for that one:"
            f" --cluster {top.path}#{other}"
            for other in clusters.values
            if other != used
        ),
        *ignored(top, TOP_KEYS),
        *ignored(table, CLUSTER_KEYS),
        *ignored(slurm, SLURM_KEYS),
        *ignored(ssh, SSH_KEYS),
        *nodes.notes,
        *(f"{storage.full(key)} is ignored; mount it on the nodes" for key in storage.values),
    ]
    shared = {
        name: declared.read(table)
        for name, declared in keys_of(Cluster).items()
        if name in SHARED_KEYS
    }
    cluster = Cluster(
        name=value_of(Cluster, "name", table, "name", str(used)),
        nodes=nodes.nodes,
        ssh=_access(ssh),
        partitions=partitions,
        source=top.path,
        notes=tuple(notes),
        **shared,
    )
    places = Places(top=table, nodes=nodes.places, partitions=rows)
    return cluster, places


def _check_version(top: Table) -> None:
    version = top.values.get("version", "1.0")
    if isinstance(version, bool) or not VERSION.fullmatch(str(version)):
        raise UsageError(
            f"{top.where('version')} is {version!r}, and sifline reads 1.0; use a newer sifline,"
            " or write the file in the short format, see docs/reference/cluster-file.md"
        )


def _chosen(clusters: Table, key: str) -> str:
    """Return the key of the cluster that is used."""
    known = clusters.values
    if not known:
        raise UsageError(f"{clusters.at()}: clusters has no {OURS}; describe one there")
    if not key and (OURS in known or len(known) == 1):
        return OURS if OURS in known else str(next(iter(known)))
    named = [name for name, item in known.items() if isinstance(item, dict)]
    found = [name for name in named if str(name) == key] or [
        name for name in named if known[name].get("name") == key
    ]
    if len(found) == 1:
        return str(found[0])
    listed = ", ".join(map(str, known))
    if not key:
        raise UsageError(
            f"{clusters.at()}: clusters has no {OURS}, found {listed}; choose one:"
            f" --cluster {clusters.path}#{next(iter(known))}"
        )
    names = [*map(str, known), *(str(known[name].get("name", "")) for name in named)]
    what, near = "clusters has no", did_you_mean(key, names)
    if found:
        what, near = "two clusters have the name", " Choose one by its key."
    raise UsageError(f"{clusters.at()}: {what} {key}, found {listed}.{near}")


def _refuse_short(top: Table, used: str) -> None:
    """Refuse keys of the short format beside ``clusters``: they would count for nothing."""
    short = {field.name for field in fields(Cluster)} - {"name"}
    for key in top.values:
        if key in short:
            raise UsageError(
                f"{top.where(key)}: is a key of the short format, which is a file without"
                f" {KEY}; move it into {used}, or describe the cluster without {KEY}"
            )


def with_default(partitions: Sequence[Partition]) -> tuple[Partition, ...]:
    """Return ``partitions`` with the first as default if none is: srun needs one."""
    if any(part.default for part in partitions):
        return tuple(partitions)
    return (replace(partitions[0], default=True), *partitions[1:])


def _access(table: Table) -> SshAccess:
    def file(key: str) -> Path | None:
        return File().expand(table, key) if key in table.values else None

    return SshAccess(
        user=value_of(SshAccess, "user", table, "user", "root"),
        port=value_of(SshAccess, "port", table, "port", 22),
        identity_file=file("private_key_path"),
        known_hosts=file("known_hosts"),
    )


def _partitions(table: Table) -> tuple[Sequence[Table], tuple[Partition, ...]]:
    """Return the partitions, which are names or tables, and the place of each."""
    given = table.values.get("partitions")
    time = value_of(Partition, "max_time", table, "max_job_time", Partition.max_time)
    if isinstance(given, list) and given and isinstance(given[0], dict):
        rows = [row.with_default("max_time", time) for row in table.subs("partitions")]
        found = partition_rules.settled(rows, Rows(of=Partition).values(rows))
    else:
        listed = Several(item=keys_of(Partition)["name"].kind)
        named = listed.read(table, "partitions") if "partitions" in table.values else ()
        found = tuple(Partition(name=name, max_time=time) for name in named or ("main",))
        rows = [table.sub_of("partitions")] * len(found)
    if "default_partition" in table.values:
        default = table.text("default_partition")
        names = [part.name for part in found]
        if default not in names:
            raise table.wrong("default_partition", f"one of {', '.join(names)}", default)
        found = tuple(replace(part, default=part.name == default) for part in found)
    return rows, with_default(found)
