"""The IPv4 networks that this machine reaches by routes of its own, from the kernel's table."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from pathlib import Path

TABLE = Path("/proc/net/route")


def routed(table: Path = TABLE) -> tuple[IPv4Network, ...]:
    """Return the networks of all routes but the default one; () where there is no table.

    The format is that of proc_net(5): the third column after the name of the device is the
    gateway, and addresses are hexadecimal in the byte order of the machine.
    """
    try:
        lines = table.read_text(encoding="ascii").splitlines()[1:]
    except (OSError, UnicodeDecodeError):
        return ()
    found = list[IPv4Network]()
    for line in lines:
        with suppress(ValueError, IndexError, AddressValueError, NetmaskValueError, struct.error):
            words = line.split()
            network = IPv4Network((_address(words[1]), str(_address(words[7]))), strict=False)
            found += [network] if network.prefixlen else []
    return tuple(found)


def _address(word: str) -> IPv4Address:
    return IPv4Address(socket.inet_ntoa(struct.pack("=I", int(word, 16))))
