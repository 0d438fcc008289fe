"""What is wrong with configuration files of Slurm, for the roles to ask before they write any."""

from __future__ import annotations

from collections.abc import Mapping
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


class FilterModule:
    """Gives Ansible the filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by its name."""
        return {"slurm_faults": slurm_faults}
