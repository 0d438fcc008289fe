"""The rules over several keys of a cluster file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from sifline.errors import UsageError
from sifline.model import Accounting, Cluster, Node, Role
from sifline.model.accounting import NEED_ACCOUNT, NORMAL, ROOT, Account


def check(path: Path, cluster: Cluster) -> None:
    """Check the names, which go into command lines and slurm.conf, and the accounts.

    :raises UsageError: naming file and cause.
    """
    roles = Counter(node.role for node in cluster.nodes)
    if roles[Role.CONTROLLER] != 1:
        found = ", ".join(node.name for node in cluster.nodes if node.role is Role.CONTROLLER)
        raise UsageError(
            f"{path}: one node must have the role controller, found {found or 'none'};"
            " set the role of the node that runs slurmctld"
        )
    if not roles[Role.COMPUTE]:
        raise UsageError(f"{path}: no node has the role compute; add one, for jobs to run on")
    if again := _twice(node.name for node in cluster.nodes):
        raise UsageError(f"{path}: two nodes are named {again}; name each host once")
    if again := _twice(node.address for node in cluster.nodes if node.address):
        names = " and ".join(node.name for node in cluster.nodes if node.address == again)
        raise UsageError(f"{path}: {names} have the same address {again}; give each its own")
    if again := _twice(part.name for part in cluster.partitions):
        raise UsageError(f"{path}: two partitions are named {again}; name each once")
    if cluster.registry.shared and cluster.registry.catch_up:
        raise UsageError(
            f"{path}: registry: shared and catch_up: a node has nothing to fetch where all share"
            " one folder; remove catch_up"
        )
    if cluster.accounting:
        _check_accounting(path, cluster.accounting, cluster.job_user)


def counted(path: Path, node: Node) -> Node:
    """Return ``node`` with the number of its GPUs; check what it says of them.

    :raises UsageError: naming file, node and cause.
    """
    where, devices = f"{path}: {node.name}", node.gpu_devices
    for item in devices:
        if bool(item.file) == bool(item.multiple_files):
            raise UsageError(f"{where}: gpu_devices: each needs file or multiple_files, not both")
    if again := _twice(file for item in devices if item.file for file in item.files):
        raise UsageError(f"{where}: gpu_devices: {again} is there twice; name each file once")
    count = sum(item.count for item in devices) or node.gpus
    if node.gpus not in (0, count) or (devices and node.gpu_type):
        raise UsageError(
            f"{where}: gpu_devices has {count} GPUs and their types; remove gpus and gpu_type"
        )
    _check_use(where, node, count)
    return replace(node, gpus=count)


def _check_use(where: str, node: Node, count: int) -> None:
    """Check what is said of the ``count`` GPUs of a node beside their number and type."""
    for key, shares in (("gpu_shards", node.gpu_shards), ("gpu_mps", node.gpu_mps)):
        if shares and (not count or shares % count):
            raise UsageError(f"{where}: {key} {shares} is no multiple of its {count} GPUs; fix it")
    if node.gpu_detect != "off" and not count:
        raise UsageError(f"{where}: gpu_detect finds nothing without gpus; say how many it has")
    if node.gpu_shards and node.gpu_mps:
        raise UsageError(f"{where}: Slurm shares a GPU by gpu_shards or gpu_mps; remove one")


def _check_accounting(path: Path, accounting: Accounting, job_user: str) -> None:
    where = f"{path}: accounting"
    if accounting.host and (accounting.qos or accounting.accounts):
        raise UsageError(
            f"{where}: qos and accounts are for a database of the cluster's own; with host, those"
            " who manage that slurmdbd make them with sacctmgr"
        )
    qualities, above = {NORMAL}, {ROOT}
    for qos in accounting.qos:
        if qos.name in qualities - {NORMAL}:
            raise UsageError(f"{where}: two QOS are named {qos.name}; name each once")
        qualities.add(qos.name)
    # Each account below its parent, so that there is no circle.
    for account in accounting.accounts:
        _check_account(where, account, above, qualities)
        above.add(account.name)
    if not accounting.host and NEED_ACCOUNT.intersection(accounting.enforce):
        _check_job_user(where, accounting, job_user)


def _check_account(where: str, account: Account, above: set[str], qualities: set[str]) -> None:
    name = account.name
    if name == ROOT:
        raise UsageError(f"{where}: Slurm makes the account {ROOT} itself; remove it")
    if name in above:
        raise UsageError(f"{where}: two accounts are named {name}; name each once")
    if account.parent not in above:
        raise UsageError(
            f"{where}: the account {name} belongs to {account.parent}, which is not above it"
            f" in the list; found {', '.join(sorted(above))}"
        )
    if unknown := [qos for qos in account.qos if qos not in qualities]:
        raise UsageError(
            f"{where}: the account {name} has the QOS {unknown[0]}, which accounting.qos does not"
            f" list; found {', '.join(sorted(qualities))}"
        )
    if again := _twice(account.users):
        raise UsageError(f"{where}: the account {name} lists {again} twice; list each user once")


def _check_job_user(where: str, accounting: Accounting, job_user: str) -> None:
    users = {user for account in accounting.accounts for user in account.users}
    if job_user not in ("", ROOT, *users):
        raise UsageError(
            f"{where}: job_user {job_user} is in no account, so Slurm would refuse its jobs; add"
            " it to the users of one"
        )


def _twice(words: Iterable[str]) -> str:
    """Return a word that is there more than once; "" if there is none."""
    return next((word for word, count in Counter(words).items() if count > 1), "")
