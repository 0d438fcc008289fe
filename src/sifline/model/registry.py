"""The registry of images of a cluster: who writes to it beside root, and where its files lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from sifline.model.patterns import USER

if TYPE_CHECKING:
    from sifline.fields.keys import Key
    from sifline.fields.kinds import Flag, Several, Text


@dataclass(frozen=True, kw_only=True)
class Registry:
    """What the registry offers beside the images that root deploys."""

    deployers: Annotated[
        str,
        Key(
            kind=Text(what="the name of a group", pattern=f"(?:{USER})?", called="deployers"),
            help="Group whose members deploy without being root on the nodes: sudo lets them run"
            " the registry's two programs, and nothing else. Default: root alone deploys.",
            example="deployers",
        ),
    ] = ""
    user_folders: Annotated[
        tuple[str, ...],
        Key(
            kind=Several(
                item=Text(what="a user name, or @ and a group", pattern=f"@?{USER}", called="user")
            ),
            help="Users, and the members of @groups, who get a folder of their own below `users`,"
            " which they alone write to. Default: nobody.",
            example=["alice", "@staff"],
        ),
    ] = ()
    shared: Annotated[
        bool,
        Key(
            kind=Flag(),
            help="It is a folder of a file system that all nodes share. `provision` looks whether"
            " it is mounted, and whether all nodes see the same files.",
            example=True,
        ),
    ] = False
    strict: Annotated[
        bool,
        Key(
            kind=Flag(),
            help="Refuse to `deploy` an image also where it is unknown whether it can work on a"
            " node. Default: it prints what is unknown, and goes on.",
            example=True,
        ),
    ] = False
    catch_up: Annotated[
        bool,
        Key(
            kind=Flag(),
            help="A node that boots fetches from the controller what was deployed while it was"
            " down, with an SSH key that can do only this.",
            example=True,
        ),
    ] = False
