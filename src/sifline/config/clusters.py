"""Cluster files: YAML, in the short format or in the long one of older files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path, PurePath
from typing import Annotated, Any

from sifline.config import hpc, node_rows, partition_rules
from sifline.config.cluster_rules import Places, check
from sifline.config.node_rows import NodeRow
from sifline.errors import UsageError, did_you_mean
from sifline.fields.keys import Key, Keys, Named, Rows, keys_of
from sifline.fields.kinds import Text
from sifline.fields.table import Table
from sifline.fields.yaml_file import read_yaml
from sifline.model import Cluster, Partition, Workspace
from sifline.model.patterns import HOST_NAME

SUFFIXES = (".yaml", ".yml")
STATE_FILE = "cluster.yaml"
VIRTUAL = "virtual"
# The default cluster, unless the environment names another.
VARIABLE, DEFAULT = "SIFLINE_CLUSTER", "virtual"


@dataclass(frozen=True, kw_only=True)
class Virtual:
    """How the nodes of a virtual cluster are made."""

    image: Annotated[
        str,
        Key(
            kind=Text(what="the name of an image", pattern="[a-z0-9][a-z0-9.-]{0,127}"),
            help="Image of the containers.",
            example="slurm-node",
        ),
    ] = "slurm-node"


@dataclass(frozen=True, kw_only=True)
class _File(Cluster):
    """The keys of a cluster file: those of a cluster, rows of nodes, and ``virtual``."""

    nodes: Annotated[
        tuple[NodeRow, ...],
        Key(
            kind=Rows(of=NodeRow),
            help="Its hosts: one `controller`, and at least one `compute`.",
            default=(),
        ),
    ]
    virtual: Annotated[
        Virtual | None,
        Key(kind=Keys(of=Virtual), help="Read by `cluster.up` alone: how the nodes are made."),
    ] = None


CLUSTER = Keys(of=_File)
# One of several clusters that a file describes: FILE#KEY.
_KEYED = re.compile(r"(?P<file>.+)#(?P<key>[^/#]*)")


def names_file(asked: str) -> bool:
    """Return whether ``asked``, as --cluster takes it, is a file, FILE or FILE#KEY."""
    return _parted(asked)[0].endswith(SUFFIXES)


def _parted(asked: str) -> tuple[str, str]:
    """Return the name or file of a cluster without its key, and the key; "" if it has none.

    :raises UsageError: if the key is empty.
    """
    match = None if asked.endswith(SUFFIXES) else _KEYED.fullmatch(asked)
    if not match:
        return asked, ""
    if not match["key"]:
        raise UsageError(f"{asked}: no cluster is named behind #; write FILE#KEY, or FILE alone")
    return match["file"], match["key"]


def find_cluster(name_or_path: str, workspace: Workspace) -> Path:
    """Return the file of a cluster: that path, a virtual cluster's, or one of ``clusters/``.

    A key behind # stays: ``load_cluster`` takes it.

    :raises UsageError: if there is none, with the nearest names.
    """
    if names_file(name_or_path):
        return Path(name_or_path)
    name_or_path, key = _parted(name_or_path)
    known = {**described_clusters(workspace), **standing_clusters(workspace)}
    if name_or_path in known:
        path = known[name_or_path]
        return path.with_name(f"{path.name}#{key}") if key else path
    if near := did_you_mean(name_or_path, known):
        raise UsageError(f"no cluster {name_or_path!r}.{near} See invoke cluster.list.")
    hint = f" Known are {', '.join(sorted(known))}." if known else ""
    name = name_or_path if is_host_name(name_or_path) else "NAME"
    raise UsageError(
        f"no cluster {name_or_path!r}: it is neither a file clusters/{name}.yaml nor a virtual"
        f" cluster of this checkout; for one: invoke cluster.up --cluster {name}.{hint}"
    )


def default(environ: Mapping[str, str] = os.environ) -> str:
    """Return the cluster that verbs act on if none is named."""
    return environ.get(VARIABLE) or DEFAULT


def described_clusters(workspace: Workspace) -> dict[str, Path]:
    """Return the files of ``clusters/`` by the names that --cluster accepts."""
    folder = workspace.root / "clusters"
    return {path.stem: path for suffix in SUFFIXES for path in sorted(folder.glob(f"*{suffix}"))}


def standing_clusters(workspace: Workspace) -> dict[str, Path]:
    """Return the files of the virtual clusters that this checkout brought up, by their names."""
    return {path.parent.name: path for path in workspace.clusters.glob(f"*/{STATE_FILE}")}


def load_cluster(path: Path, *, asked: str = "") -> Cluster:
    """Read the cluster file ``path``, in either format.

    :param path: with #KEY for one of several clusters in it, by its key or its name.
    :param asked: the name or file by which the user named the cluster.
    :raises UsageError: naming file, key, cause and what to do.
    """
    table, key = _table(path)
    cluster = _cluster(table, key)
    if VIRTUAL in table.values and not all(node.address for node in cluster.nodes):
        raise not_running(cluster.name, asked or str(path))
    return cluster


def not_running(name: str, asked: str) -> UsageError:
    """Return the error for a virtual cluster that is to be used, and is not running.

    :param asked: the name or file by which the user named it.
    """
    up, provision = f"invoke cluster.up --cluster {asked}", f"invoke provision --cluster {name}"
    if asked == default():
        up, provision = "invoke cluster.up", "invoke provision"
    more = ""
    if asked != name:
        more = f"; if it is running, name it: --cluster {name}"
    return UsageError(
        f"the virtual cluster {name} is not running; run: {up} and then: {provision}{more}"
    )


def load_virtual(path: Path) -> tuple[Cluster, Virtual | None]:
    """Read a cluster file whose nodes may have no addresses, for a virtual cluster.

    :returns: the cluster, and the section ``virtual``; None if the file describes hosts.
    :raises UsageError: as ``load_cluster``.
    """
    table, key = _table(path)
    section = keys_of(_File)[VIRTUAL].read(table)
    cluster = _cluster(table, key)
    return cluster, section if isinstance(section, Virtual) else None


def _cluster(table: Table, key: str) -> Cluster:
    if hpc.KEY in table.values:
        cluster, places = hpc.read(table, key)
    else:
        cluster, places = _native(table)
        if key not in ("", cluster.name):
            raise UsageError(f"{table.path}: describes {cluster.name} alone; leave out #{key}")
    return replace(cluster, notes=(*cluster.notes, *check(cluster, places)))


def dump_cluster(cluster: Cluster, folder: Path) -> str:
    """Return ``cluster`` in the short format, with paths relative to ``folder``."""
    import yaml

    return yaml.safe_dump(_written(cluster, folder), sort_keys=False)


def _written(value: Any, folder: Path) -> Any:
    """Return a value in the form of the file, without empty keys."""
    if is_dataclass(value):
        found = [(key, getattr(value, key.field)) for key in keys_of(type(value)).values()]
        return {
            key.name: dict(item) if isinstance(key.kind, Named) else _written(item, folder)
            for key, item in found
            if item not in ("", None, ())
        }
    if isinstance(value, tuple):
        return [_written(item, folder) for item in value]
    if isinstance(value, Path) and value.is_relative_to(folder):
        return str(value.relative_to(folder))
    if isinstance(value, PurePath):
        return str(value)
    return value.value if isinstance(value, Enum) else value


def _table(path: Path) -> tuple[Table, str]:
    """Return the content of a cluster file, and the key behind its path."""
    file, key = _parted(str(path))
    path = Path(file)
    values = read_yaml(path, missing="a cluster is a YAML file, see clusters/example.yaml")
    if not isinstance(values, dict):
        raise UsageError(f"{path}: must be {CLUSTER.what}; see clusters/virtual.yaml")
    return Table(path, values), key


def _native(table: Table) -> tuple[Cluster, Places]:
    named = table.with_default("name", table.path.stem)
    found = CLUSTER.value(named, source=table.path)
    nodes, places = node_rows.expanded(table.subs("nodes"), found.nodes)
    rows = table.subs("partitions") or (table.sub_of("partitions"),)
    partitions = partition_rules.settled(rows, found.partitions or (Partition(name="main"),))
    own = {field.name: getattr(found, field.name) for field in fields(Cluster)}
    own |= {"nodes": nodes, "partitions": hpc.with_default(partitions)}
    return Cluster(**own), Places(top=table, nodes=places, partitions=rows)


def is_host_name(word: str) -> bool:
    """Return whether ``word`` can name a host (RFC 1123)."""
    return bool(re.fullmatch(HOST_NAME, word))
