"""Rows of ``nodes`` in a cluster file: each is a host, or several that are alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated

from sifline.config.cluster_rules import counted
from sifline.errors import UsageError
from sifline.fields.keys import Key
from sifline.fields.kinds import Text
from sifline.fields.table import Table
from sifline.formats.node_lists import MOST, NodeListError, expand_in_order
from sifline.model import Node
from sifline.model.patterns import ADDRESS, HOST_LIST, HOST_NAME


@dataclass(frozen=True, kw_only=True)
class NodeRow(Node):
    """A row of ``nodes``: ``name`` and ``address`` may be lists of as many."""

    name: Annotated[
        str,
        Key(
            kind=Text(
                what="a host name, or several such as compute-[001-128]",
                pattern=f"{HOST_NAME}|{HOST_LIST}",
                called="node name",
            ),
            help="The host name that the host itself reports; also its NodeName in Slurm. A list"
            " as Slurm writes it is as many nodes, which have the other keys in common.",
            example="compute-01",
        ),
    ]
    address: Annotated[
        str,
        Key(
            kind=Text(
                what="a host name or IP address, or as many as names",
                pattern=f"(?:{ADDRESS}|{HOST_LIST})?",
                called="address",
            ),
            help="Address to connect to, of several nodes such as 192.0.2.[11-42]; default: its"
            " name.",
            example="192.0.2.11",
        ),
    ] = ""


def expanded(
    rows: Sequence[Table], found: Sequence[NodeRow]
) -> tuple[tuple[Node, ...], list[str]]:
    """Return the nodes that rows stand for, and the place of each in the file.

    :param found: the values of ``rows``.
    :raises UsageError: naming file, line, key and cause.
    """
    nodes, places = list[Node](), list[str]()
    for row, value in zip(rows, found, strict=True):
        own = {field.name: getattr(value, field.name) for field in fields(Node)}
        node = counted(row.where("name"), Node(**own))
        nodes += each(row, node, name="name", address="address")
        if len(nodes) > MOST:
            raise UsageError(f"{row.where('name')}: with it there are more than {MOST} nodes")
        places += [row.where("name")] * (len(nodes) - len(places))
    return tuple(nodes), places


def each(row: Table, node: Node, *, name: str, address: str) -> list[Node]:
    """Return the nodes that ``node`` stands for, whose name and address may be lists.

    :param name: the key of the name in ``row``.
    :param address: the key of the address.
    :raises UsageError: naming file, line, key and cause.
    """
    if re.fullmatch(HOST_NAME, node.name) and not _is_list(node.address):
        return [node]
    names = _listed(row, name, node.name, HOST_NAME)
    addresses = _listed(row, address, node.address, ADDRESS) if node.address else [""] * len(names)
    if len(names) != len(addresses):
        raise UsageError(
            f"{row.where(address)}: {node.address} is {len(addresses)} addresses, and {node.name}"
            f" {len(names)} nodes; write as many, such as 192.0.2.[1-{len(names)}]"
        )
    pairs = zip(names, addresses, strict=True)
    return [replace(node, name=name, address=address) for name, address in pairs]


def _is_list(text: str) -> bool:
    return "," in text or "[" in text


def _listed(row: Table, key: str, text: str, pattern: str) -> list[str]:
    if not _is_list(text):
        return [text]
    try:
        words = expand_in_order(text)
    except NodeListError as error:
        raise UsageError(f"{row.where(key)} {text!r}: {error}") from None
    for word in words:
        if not re.fullmatch(pattern, word):
            raise UsageError(f"{row.where(key)} {text!r}: {word} is no host name; fix it")
    return words
