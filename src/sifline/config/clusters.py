"""Cluster files: YAML in a short format of our own, or in the long one of older files."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from sifline.config import hpc
from sifline.errors import UsageError, did_you_mean
from sifline.fields.table import Table
from sifline.model import Cluster, Node, Partition, Role, SshAccess, Workspace

SUFFIXES = (".yaml", ".yml")
STATE_FILE = "cluster.yaml"
VIRTUAL = "virtual"
KEYS = (
    "name",
    "nodes",
    "ssh",
    "partitions",
    "job_user",
    "registry_root",
    "variables",
    VIRTUAL,
)

LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOST_NAME = re.compile(rf"{LABEL}(?:\.{LABEL})*")
LONGEST_HOST_NAME = 253
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
FOLDER = re.compile(r"(?:/[A-Za-z0-9_.-]+)+")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# slurm.conf(5), MaxTime: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:…].
MAX_TIME = re.compile(r"(?:\d+|(?:\d+:){1,2}\d\d|\d+-\d+(?::\d\d){0,2}|INFINITE|UNLIMITED)")


def find_cluster(name_or_path: str, workspace: Workspace) -> Path:
    """Return the file of a cluster: that path, else a virtual cluster's, else ``clusters/``'s.

    :raises UsageError: where there is none, with the nearest names.
    """
    if name_or_path.endswith(SUFFIXES):
        return Path(name_or_path)
    known = _known(workspace)
    if name_or_path in known:
        return known[name_or_path]
    hint = did_you_mean(name_or_path, known) or (
        f" Known are {', '.join(sorted(known))}." if known else ""
    )
    name = name_or_path if is_host_name(name_or_path) else "NAME"
    raise UsageError(
        f"no cluster {name_or_path!r}: it is neither a file clusters/NAME.yaml nor a virtual"
        f" cluster of this checkout; for one: invoke cluster.up --cluster {name}.{hint}"
    )


def described_clusters(workspace: Workspace) -> dict[str, Path]:
    """Return the files of ``clusters/`` by the names that they are called by."""
    folder = workspace.root / "clusters"
    return {path.stem: path for suffix in SUFFIXES for path in sorted(folder.glob(f"*{suffix}"))}


def _known(workspace: Workspace) -> dict[str, Path]:
    files = described_clusters(workspace)
    standing = {path.parent.name: path for path in workspace.clusters.glob(f"*/{STATE_FILE}")}
    return {**files, **standing}


def load_cluster(path: Path) -> Cluster:
    """Read the cluster file ``path``, in either format.

    :raises UsageError: naming file, key, cause and what to do.
    """
    return _cluster(Table(path, _parse(path)), standing=True)


def load_virtual(path: Path) -> tuple[Cluster, Table]:
    """Read the description of a virtual cluster, whose nodes may have no addresses.

    :returns: the cluster, and the section ``virtual``: how its stand-in is made.
    :raises UsageError: as ``load_cluster`` does.
    """
    table = Table(path, _parse(path))
    return _cluster(table, standing=False), table.sub(VIRTUAL)


def _cluster(table: Table, *, standing: bool) -> Cluster:
    path = table.path
    if hpc.KEY in table.values:
        cluster = hpc.read(table)
    else:
        table.only(*KEYS)
        cluster = _native(table)
        if standing and VIRTUAL in table.values:
            _need_addresses(path, cluster)
    _check(path, cluster)
    return cluster


def dump_cluster(cluster: Cluster, folder: Path) -> str:
    """Return ``cluster`` in the short format; its files are named relative to ``folder``."""
    import yaml

    def relative(file: Path) -> str:
        return str(file.relative_to(folder) if file.is_relative_to(folder) else file)

    access = cluster.ssh
    ssh: dict[str, Any] = {"user": access.user, "port": access.port}
    if access.identity_file is not None:
        ssh["identity_file"] = relative(access.identity_file)
    if access.known_hosts is not None:
        ssh["known_hosts"] = relative(access.known_hosts)
    values = {
        "name": cluster.name,
        "nodes": [_dump_node(node) for node in cluster.nodes],
        "ssh": ssh,
        "partitions": [
            {"name": part.name, "default": part.default, "max_time": part.max_time}
            for part in cluster.partitions
        ],
        **({"job_user": cluster.job_user} if cluster.job_user else {}),
        "registry_root": str(cluster.registry_root),
        "variables": dict(cluster.variables),
    }
    return yaml.safe_dump(values, sort_keys=False)


def _dump_node(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "role": node.role.value,
        **({"address": node.address} if node.address else {}),
        "cpus": node.cpus,
        "memory_mb": node.memory_mb,
        "gpus": node.gpus,
        **({"gpu_type": node.gpu_type} if node.gpu_type else {}),
    }


def _parse(path: Path) -> dict[Any, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no such file; a cluster is a YAML file, see clusters/example.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        cause = getattr(error, "problem", None) or getattr(error, "reason", "")
        raise UsageError(f"{path}{line}: is not YAML: {cause}; mend that line") from None
    except (ValueError, RecursionError) as error:
        # A date that does not exist; lists nested too deep.
        raise UsageError(f"{path}: is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(
            f"{path}: must be a table of {', '.join(KEYS)}; see clusters/virtual.yaml"
        )
    return values


def _native(table: Table) -> Cluster:
    folder = PurePosixPath(table.text("registry_root", "/opt/containers"))
    return Cluster(
        name=table.text("name", table.path.stem),
        nodes=tuple(_node(item) for item in table.subs("nodes")),
        ssh=_access(table.sub("ssh")),
        partitions=_partitions(table),
        source=table.path,
        job_user=table.text("job_user", ""),
        registry_root=folder,
        variables=_variables(table.sub("variables")),
    )


def _node(table: Table) -> Node:
    table.only("name", "role", "address", "cpus", "memory_mb", "gpus", "gpu_type")
    role = table.text("role")
    roles = [item.value for item in Role]
    if role not in roles:
        raise table.wrong("role", f"one of {', '.join(roles)}", role)
    return Node(
        name=table.text("name"),
        role=Role(role),
        address=table.text("address", ""),
        cpus=table.number("cpus", 1, least=1, most=65533),
        memory_mb=table.number("memory_mb", 1024, least=1, most=2**40),
        gpus=table.number("gpus", 0, least=0, most=64),
        gpu_type=table.text("gpu_type", ""),
    )


def _access(table: Table) -> SshAccess:
    table.only("user", "port", "identity_file", "known_hosts")
    return SshAccess(
        user=table.text("user", "root"),
        port=table.number("port", 22, least=1, most=65535),
        identity_file=_file(table, "identity_file"),
        known_hosts=_file(table, "known_hosts"),
    )


def _file(table: Table, key: str) -> Path | None:
    """A file named relative to the cluster file's folder, so that both move together."""
    if key not in table.values:
        return None
    return table.path.parent.absolute() / hpc.expand(table, key)


def _partitions(table: Table) -> tuple[Partition, ...]:
    items = table.subs("partitions")
    for item in items:
        item.only("name", "default", "max_time")
    found = [
        Partition(
            name=item.text("name"),
            default=item.flag("default"),
            # Without quotes YAML makes 24:00:00 a number of seconds, and Slurm of that minutes.
            max_time=item.text("max_time", "24:00:00"),
        )
        for item in items
    ]
    if sum(part.default for part in found) > 1:
        raise UsageError(f"{table.path}: partitions: only one can be the default")
    return hpc.with_default(found or [Partition(name="main")])


def _variables(table: Table) -> tuple[tuple[str, Any], ...]:
    for key in table.values:
        if not isinstance(key, str) or not VARIABLE.fullmatch(key):
            raise UsageError(
                f"{table.path}: variables: {key!r} is no name that Ansible takes;"
                " use letters, digits and _"
            )
    return tuple(table.values.items())


def _need_addresses(path: Path, cluster: Cluster) -> None:
    for node in cluster.nodes:
        if not node.address:
            raise UsageError(
                f"{path}: node {node.name} has no address, for this describes a virtual cluster;"
                f" run: invoke cluster.up --cluster {path}"
            )


def _check(path: Path, cluster: Cluster) -> None:
    """Refuse what no cluster can be; these names end up in command lines and slurm.conf."""
    _check_names(path, cluster)
    roles = Counter(node.role for node in cluster.nodes)
    if roles[Role.CONTROLLER] != 1:
        found = ", ".join(node.name for node in cluster.nodes if node.role is Role.CONTROLLER)
        raise UsageError(
            f"{path}: one node must have the role controller, found {found or 'none'};"
            " set the role of the node that runs slurmctld"
        )
    if not roles[Role.COMPUTE]:
        raise UsageError(f"{path}: no node has the role compute; add one, for jobs to run on")
    if twice := _twice(node.name for node in cluster.nodes):
        raise UsageError(f"{path}: two nodes are named {twice}; name each host once")
    if twice := _twice(node.address for node in cluster.nodes if node.address):
        names = " and ".join(node.name for node in cluster.nodes if node.address == twice)
        raise UsageError(f"{path}: {names} have the same address {twice}; give each its own")
    if twice := _twice(part.name for part in cluster.partitions):
        raise UsageError(f"{path}: two partitions are named {twice}; name each once")


def _check_names(path: Path, cluster: Cluster) -> None:
    def each(what: str, test: Callable[[str], object], kind: str, *words: str) -> None:
        for word in words:
            if not test(word):
                raise UsageError(f"{path}: {what} {word!r} must be {kind}; mend it")

    nodes, parts = cluster.nodes, cluster.partitions
    letters = "letters, digits, - and _"
    each("cluster name", is_host_name, "letters, digits and inner -", cluster.name)
    each("node name", is_host_name, "a host name", *(node.name for node in nodes))
    each("address", _is_address, "a host name or IP address", *(node.address for node in nodes))
    each("gpu_type", _is_word_or_none, letters, *(node.gpu_type for node in nodes))
    each("partition name", WORD.fullmatch, letters, *(part.name for part in parts))
    each("max_time", MAX_TIME.fullmatch, "a time such as '24:00:00'", *(p.max_time for p in parts))
    each("ssh user", USER.fullmatch, "a user name", cluster.ssh.user)
    each("job_user", _is_user_or_none, "a user name", cluster.job_user)
    each("registry_root", is_folder, "an absolute folder, plain", str(cluster.registry_root))


def is_host_name(word: str) -> bool:
    """Whether ``word`` can name a host (RFC 1123)."""
    return len(word) <= LONGEST_HOST_NAME and bool(HOST_NAME.fullmatch(word))


def is_folder(word: str) -> bool:
    """Whether ``word`` is an absolute folder without ``..`` and without special characters."""
    return bool(FOLDER.fullmatch(word)) and ".." not in PurePosixPath(word).parts


def _is_address(word: str) -> bool:
    try:
        return not word or is_host_name(word) or bool(ipaddress.ip_address(word))
    except ValueError:
        return False


def _is_word_or_none(word: str) -> bool:
    return not word or bool(WORD.fullmatch(word))


def _is_user_or_none(word: str) -> bool:
    return not word or bool(USER.fullmatch(word))


def _twice(words: Iterable[str]) -> str:
    return next((word for word, count in Counter(words).items() if count > 1), "")
