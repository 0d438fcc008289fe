"""What is wrong with configuration files of Slurm, for the roles to ask before they write any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
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


def with_digest(body: str, header: str) -> str:
    """Return the text of a file that says with its first line whether it was changed since."""
    return f"{header} sha256 {sha256(body.encode()).hexdigest()}\n{body}"


def wrong_files(
    bodies: Mapping[str, str], folder: str, header: str, seen: Sequence[str]
) -> list[str]:
    """Return the names of the files that a node does not have as they shall be.

    :param bodies: contents by name, without the line that ``with_digest`` adds.
    :param seen: lines of sha256sum, and of stat as ``mode MODE USER GROUP PATH``.
    """

    def lines(name: str, body: str) -> set[str]:
        digest = sha256(with_digest(body, header).encode()).hexdigest()
        return {f"{digest}  {folder}/{name}", f"mode 644 root root {folder}/{name}"}

    found = set(seen)
    return [name for name, body in bodies.items() if not lines(name, body) <= found]


class FilterModule:
    """Gives Ansible the filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by their names."""
        return {
            "slurm_faults": slurm_faults,
            "with_digest": with_digest,
            "wrong_files": wrong_files,
        }
