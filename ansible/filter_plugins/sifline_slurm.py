"""Lines of Slurm's configuration files, and what keeps Slurm from starting with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# With these the daemons do not start, or the node takes no jobs.
STOPPING = frozenset({"fatal", "drains"})


def slurm_faults(texts: Mapping[str, str], release: str) -> list[str]:
    """Return what keeps Slurm from starting with these files, a line each.

    Without sifline beside this Ansible nothing is checked.

    :param texts: contents by name, slurm.conf and so on.
    """
    try:
        from sifline.errors import UsageError
        from sifline.formats import slurm_conf
    except ImportError:
        return []
    try:
        series = slurm_conf.release(str(release))  # YAML makes 24.11 a number
    except UsageError as error:
        return [f"slurm_common_release: {error.message}"]
    files = {
        name: slurm_conf.read(text, kind=name, path=name)
        for name, text in texts.items()
        if name in slurm_conf.FILES
    }
    found = slurm_conf.check(files, series)
    return [item.message for item in found if item.effect.value in STOPPING]


def slurm_node_lines(nodes: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of slurm.conf for nodes; those that are alike share one.

    :param nodes: of each its name, its address ("" for its name), and the rest of the line.
    """
    alike: dict[str, list[Sequence[str]]] = {}
    for node in nodes:
        alike.setdefault(node[2].strip(), []).append(node)
    lines = []
    for settings, group in alike.items():
        names, addresses = (
            [name for name, *_ in group],
            [there or name for name, there, _ in group],
        )
        own = f" NodeAddr={_folded(addresses)}" if addresses != names else ""
        lines.append(f"NodeName={_folded(names)}{own} {settings}")
    return lines


def slurm_gres_lines(nodes: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Return the lines of gres.conf for nodes; those that are alike share theirs.

    :param nodes: of each its name, and its lines without NodeName.
    """
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, lines in nodes:
        alike.setdefault(tuple(lines), []).append(name)
    return [
        f"NodeName={_folded(names)} {line}" for group, names in alike.items() for line in group
    ]


def _folded(names: Sequence[str]) -> str:
    """Return a list of nodes in their order, with ranges where sifline is beside this Ansible."""
    try:
        from sifline.formats.node_lists import fold_in_order
    except ImportError:
        return ",".join(names)
    return fold_in_order(names)


class FilterModule:
    """Gives Ansible the filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by their names."""
        return {
            "slurm_faults": slurm_faults,
            "slurm_gres_lines": slurm_gres_lines,
            "slurm_node_lines": slurm_node_lines,
        }
