"""Who runs sifline, as catalogs, locks and leases name them."""

from __future__ import annotations

import getpass
import socket


def caller() -> str:
    """Return user and machine: ``ada@workstation``."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
