"""Addresses of virtual clusters: a subnet for each, and a fixed address in it for each node."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from sifline.errors import StepFailed

# Private ranges (RFC 1918) in parts that neither the engine's defaults nor most sites use first.
POOLS = tuple(map(IPv4Network, ("10.213.0.0/16", "172.30.0.0/16", "192.168.224.0/19")))
LENGTH = 24
# The first address is the gateway's. The upper half is for containers of others, whose addresses
# the engine chooses.
FIRST, DYNAMIC_LENGTH = 10, 25


def subnet(name: str, taken: Iterable[IPv4Network]) -> IPv4Network:
    """Return a free subnet for the cluster ``name``: the same one each time, if it is free.

    :param taken: the networks with which it must not overlap.
    :raises StepFailed: if all are taken.
    """
    merged = list(collapse_addresses(taken))
    for candidate in _candidates(name):
        if not any(candidate.overlaps(other) for other in merged):
            return candidate
    raise StepFailed(
        f"no free addresses for the cluster {name}: all of {', '.join(map(str, POOLS))} are in"
        " use; see docker network ls and ip route, or take a cluster down that is not needed"
    )


def _candidates(name: str) -> Iterator[IPv4Network]:
    """Yield all subnets of the pools, each pool from a place that the name decides."""
    for pool in POOLS:
        every = list(pool.subnets(new_prefix=LENGTH))
        start = zlib.crc32(name.encode()) % len(every)
        yield from (*every[start:], *every[:start])


def dynamic(subnet: IPv4Network) -> IPv4Network:
    """Return the part of a subnet from which the engine takes addresses that are not fixed."""
    return list(subnet.subnets(new_prefix=DYNAMIC_LENGTH))[1]


def assigned(nodes: Sequence[str], held: Mapping[str, str], subnet: IPv4Network) -> dict[str, str]:
    """Return the address of each of ``nodes``: those that they hold, and free ones for others.

    :param held: the addresses of nodes that exist, among ``nodes`` or not.
    """
    used = {IPv4Address(address) for address in held.values()}
    end = int(dynamic(subnet).network_address) - int(subnet.network_address)
    free = (subnet[number] for number in range(FIRST, end) if subnet[number] not in used)
    return {node: held.get(node) or str(next(free)) for node in nodes}
