"""Where Python packages come from: pip's own configuration, and the same for uv."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from configparser import ConfigParser
from configparser import Error as ConfigError
from pathlib import Path

from bootstrapping.commands import Stop
from bootstrapping.machine import home


def uv_environment() -> dict[str, str]:
    """Return what uv must be told of this machine's configuration of pip."""
    return uv_settings(pip_settings(pip_files(), os.environ), os.environ)


def pip_files() -> list[Path]:
    """Return pip's configuration files, the later ones deciding."""
    user = home()
    named = Path(os.environ.get("PIP_CONFIG_FILE", os.devnull))
    system = [Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf")]
    return [*system, user / ".pip/pip.conf", user / ".config/pip/pip.conf", named]


def pip_settings(files: Iterable[Path], environment: Mapping[str, str]) -> dict[str, str]:
    """Return what pip's configuration says: files in their order, then the environment."""
    settings: dict[str, str] = {}
    for file in files:
        parser = ConfigParser(interpolation=None)
        try:
            parser.read(file, encoding="utf-8")
        except ConfigError as error:
            raise Stop(f"cannot read {file}: {error}".replace("\n", " "), 2) from None
        for section in ("global", "install"):
            if parser.has_section(section):
                settings.update(parser.items(section))
    for name, value in environment.items():
        if name.startswith("PIP_"):
            settings[name[4:].lower().replace("_", "-")] = value
    return settings


def uv_settings(pip: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return pip's index settings as uv reads them; what is set for uv itself stays.

    uv reads neither pip's files nor its variables. pip compares all indexes, so uv is told to
    do the same: the lock file's hashes decide what may be installed, not the index.
    """
    said = {
        "UV_DEFAULT_INDEX": pip.get("index-url", ""),
        "UV_INDEX": pip.get("extra-index-url", ""),
        "UV_FIND_LINKS": ",".join(pip.get("find-links", "").split()),
        "SSL_CERT_FILE": pip.get("cert", ""),
        "UV_INDEX_STRATEGY": "unsafe-best-match" if pip.get("extra-index-url") else "",
    }
    return {name: value for name, value in said.items() if value and name not in environment}
