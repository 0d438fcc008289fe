"""What tests of images with Python in them share: running programs, and what is installed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sifline.imagetests import Container, Ran


def python(container: Container, source: str, *, env: Mapping[str, str] | None = None) -> Ran:
    """Run a short Python program in the image."""
    return container.run(["python3", "-c", source], env=env)


def printed(ran: Ran) -> Any:
    """Return the JSON in the last line that a program printed; it has to have ended well."""
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def installed(container: Container) -> dict[str, str]:
    """Return the version of every Python package that the image's Python finds."""
    found = printed(
        python(
            container,
            "import importlib.metadata as m, json\n"
            "print(json.dumps([[d.metadata['Name'], d.version] for d in m.distributions()]))",
        )
    )
    return {canonicalize_name(name): version for name, version in found}


def locked(container: Container, locks: Iterable[Path]) -> dict[str, str]:
    """Return the version that lock files name for every package, for the image's Python."""
    version = printed(
        python(container, "import json, platform\nprint(json.dumps(platform.python_version()))")
    )
    here = {"python_full_version": version, "python_version": version.rpartition(".")[0]}
    wanted = dict[str, str]()
    for lock in locks:
        for line in lock.read_text(encoding="utf-8").splitlines():
            entry = Requirement(line.rstrip("\\ ")) if re.match(r"\w", line) else None
            if entry and (not entry.marker or entry.marker.evaluate(here)):
                wanted[canonicalize_name(entry.name)] = str(entry.specifier).removeprefix("==")
    return wanted
