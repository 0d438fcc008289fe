"""Ansible's inventory of a cluster, for people, for Ansible and for programs."""

from __future__ import annotations

from typing import Any

from sifline.model import Inventory

# Longer than any line of a host.
_WIDTH = 1 << 30


class _Line(dict[str, Any]):
    """A table that is written in one line."""


def text(found: Inventory) -> str:
    """Return the inventory as YAML, a line for each host."""
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        """PyYAML's own, which knows what is one line."""

    def one_line(dumper: Any, table: _Line) -> Any:
        return dumper.represent_mapping("tag:yaml.org,2002:map", table, flow_style=True)

    Dumper.add_representer(_Line, one_line)
    groups = {
        name: {"hosts": {host: _Line(variables) for host, variables in group["hosts"].items()}}
        for name, group in found.hosts["all"]["children"].items()
    }
    shown = {"all": {**found.hosts["all"], "children": groups}}
    return str(
        yaml.dump(
            shown,
            Dumper=Dumper,
            allow_unicode=True,
            default_flow_style=None,
            sort_keys=False,
            width=_WIDTH,
        )
    )


def values(found: Inventory) -> dict[str, Any]:
    """Return the inventory for JSON, with the cluster, its file and notes about it."""
    return {
        "cluster": found.cluster.name,
        "file": found.cluster.source,
        "notes": found.cluster.notes,
        "inventory": found.hosts,
    }
