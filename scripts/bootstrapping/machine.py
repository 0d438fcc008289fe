"""What this machine has already."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from bootstrapping.commands import quiet, which
from bootstrapping.engine import ask_engine


def home() -> Path:
    """Return the user's home folder; where the machine knows none, one that is not there."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/nonexistent")


PLUGINS = [
    home() / ".docker/cli-plugins",
    *(Path(p) / "docker/cli-plugins" for p in ("/usr/local/lib", "/usr/local/libexec")),
    *(Path(p) / "docker/cli-plugins" for p in ("/usr/lib", "/usr/libexec")),
]
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


class Machine(NamedTuple):
    """What is there already. ``engine``: "answers", "denied" (no permission) or "silent"."""

    distribution: str
    codename: str
    root: bool
    engine: str
    dockerd: bool
    docker: bool
    buildx: bool
    tools: frozenset[str]
    venv: bool
    ca_bundle: bool
    apparmor: bool
    tests: bool = False  # whether COMMAND runs the tests


def look(tests: bool) -> Machine:
    """Return what this machine has; ``tests`` says whether they are to be run on it."""
    distribution, codename = os_release()
    names = (
        "mmdebstrap",
        "rsync",
        "ssh",
        "dot",
        "iptables",
        "apparmor_parser",
        "newuidmap",
        "zsh",
        "fish",
        "packer",
    )
    tools = {name for name in names if which(name)}
    if Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        tools.add("debian-archive-keyring")
    plugin = any((folder / "docker-buildx").exists() for folder in PLUGINS)
    switch = Path("/sys/module/apparmor/parameters/enabled")
    return Machine(
        distribution=distribution,
        codename=codename,
        root=os.geteuid() == 0,
        engine=ask_engine(),
        dockerd=bool(which("dockerd")),
        docker=bool(which("docker")),
        buildx=plugin or bool(which("docker") and quiet(["docker", "buildx", "version"])),
        tools=frozenset(tools),
        venv=bool(which("uv") or find_spec("ensurepip")),  # Debian splits it into a package
        ca_bundle=CA_BUNDLE.exists() or "SSL_CERT_FILE" in os.environ,
        apparmor=switch.exists() and switch.read_text().startswith("Y"),
        tests=tests,
    )


def os_release() -> tuple[str, str]:
    """Return the distribution's ID and code name; empty where the machine does not say."""
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return "", ""
    fields = dict(re.findall(r'(?m)^([A-Z_]+)="?([^"\n]*)"?$', text))
    return fields.get("ID", ""), fields.get("VERSION_CODENAME", "")
