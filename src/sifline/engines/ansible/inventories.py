"""The inventory of a cluster: its hosts and their variables, as Ansible reads them."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from sifline.model import Accounting, Cluster, Node, Partition, Registry, Role
from sifline.nodeside.registry import FOLDERS, TOOLS

# What Slurm takes for a partition without a PriorityTier.
USUAL_TIER = 1

# All supported distributions have it; letting Ansible search costs each node a second.
NODE_PYTHON = "/usr/bin/python3"


def inventory(cluster: Cluster) -> str:
    """Return the inventory of ``cluster`` as JSON, which Ansible's YAML reader accepts."""
    return json.dumps(hosts(cluster), indent=2) + "\n"


def hosts(cluster: Cluster) -> dict[str, Any]:
    """Return the inventory of ``cluster``, in the form of Ansible's YAML.

    All nodes, chosen or not: each has the configuration of all.
    """
    compute = [node for node in cluster.whole if node.role is Role.COMPUTE]
    groups = {
        "controller": {"hosts": {cluster.controller.name: host_variables(cluster.controller)}},
        "compute": {"hosts": {node.name: host_variables(node) for node in compute}},
    }
    variables = {**access_variables(cluster), **cluster_variables(cluster)}
    return {"all": {"vars": variables, "children": groups}}


def host_variables(node: Node) -> dict[str, Any]:
    """Return the host variables of one node."""
    variables: dict[str, Any] = {"ansible_host": node.address or node.name}
    if node.role is Role.COMPUTE:
        variables |= {
            "slurm_common_cpus": node.cpus,
            "slurm_common_memory_mb": node.memory_mb,
            "slurm_common_gpus": node.gpus,
            "slurm_common_gpu_type": node.gpu_type,
        }
    if node.features:
        variables["slurm_common_features"] = list(node.features)
    if node.gpu_devices:
        variables["slurm_common_gpu_devices"] = [
            {"count": item.count, "files": item.files, **asdict(item)} for item in node.gpu_devices
        ]
    if shares := {name: n for name, n in (("shard", node.gpu_shards), ("mps", node.gpu_mps)) if n}:
        variables["slurm_common_gpu_shares"] = shares
    if node.gpu_detect != "off":
        variables["slurm_common_gpu_detect"] = node.gpu_detect
    return variables


def access_variables(cluster: Cluster) -> dict[str, Any]:
    """Return the connection variables. Unknown host keys are refused."""
    access = cluster.ssh
    options = {"StrictHostKeyChecking": "yes", "UpdateHostKeys": "no"}
    if access.known_hosts is not None:
        options["UserKnownHostsFile"] = f'"{access.known_hosts}"'
        options["GlobalKnownHostsFile"] = "none"
    if access.identity_file is not None:
        options["IdentitiesOnly"] = "yes"
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    variables: dict[str, Any] = {
        "ansible_user": access.user,
        "ansible_port": access.port,
        "ansible_become": access.user != "root",
        "ansible_python_interpreter": NODE_PYTHON,
        "ansible_ssh_common_args": shlex.join(words),
    }
    if access.identity_file is not None:
        variables["ansible_ssh_private_key_file"] = str(access.identity_file)
    return variables


def cluster_variables(cluster: Cluster) -> dict[str, Any]:
    """Return the variables of the cluster; variables in its file override ours."""
    return {
        "slurm_common_cluster_name": cluster.name,
        "slurm_common_partitions": [partition_variables(part) for part in cluster.partitions],
        **accounting_variables(cluster.accounting),
        "container_registry_root": str(cluster.registry_root),
        **registry_variables(cluster.registry),
        **dict(cluster.variables),
    }


def partition_variables(part: Partition) -> dict[str, Any]:
    """Return the variables of one partition; what Slurm does by itself is left out."""
    further = {
        "nodes": part.nodes,
        "default_time": part.default_time,
        "max_nodes": part.max_nodes,
        # 0 is a tier as well: below all others.
        "priority_tier": str(part.priority_tier) if part.priority_tier != USUAL_TIER else "",
        "allow_groups": list(part.allow_groups),
        "allow_accounts": list(part.allow_accounts),
        "allow_qos": list(part.allow_qos),
        "exclusive": part.exclusive,
        "state": part.state if part.state != "up" else "",
    }
    return {
        "name": part.name,
        "default": part.default,
        "max_time": part.max_time,
        **{key: value for key, value in further.items() if value},
    }


def registry_variables(registry: Registry) -> dict[str, Any]:
    """Return the variables of the registry of images, but for its root."""
    return {
        "container_registry_folders": list(FOLDERS),
        "container_registry_scripts": str(files("sifline.nodeside")),
        "container_registry_tools": TOOLS,
        "container_registry_deployers": registry.deployers,
        "container_registry_user_folders": list(registry.user_folders),
        "container_registry_shared": registry.shared,
        "container_registry_catch_up": registry.catch_up,
    }


def accounting_variables(accounting: Accounting | None) -> dict[str, Any]:
    """Return the variables of the accounting database; none if jobs are not recorded."""
    if accounting is None:
        return {}
    return {
        "slurm_common_accounting": True,
        "slurm_common_accounting_host": accounting.host,
        "slurm_common_accounting_enforce": list(accounting.enforce),
        "slurm_accounting_enabled": not accounting.host,
        "slurm_accounting_qos": [asdict(qos) for qos in accounting.qos],
        "slurm_accounting_accounts": [asdict(account) for account in accounting.accounts],
    }
