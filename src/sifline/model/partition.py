"""Partitions of a Slurm cluster, as cluster files declare them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from sifline.model.accounting import NAME
from sifline.model.patterns import DURATION, HOST_LIST, HOST_NAME, TIME_LIMIT, USER

if TYPE_CHECKING:
    from sifline.fields.keys import Key
    from sifline.fields.kinds import Choice, Flag, Listed, Several, Text, Whole

_WORD = "[A-Za-z0-9_][A-Za-z0-9_-]{0,63}"
STATES = ("up", "down", "drain", "inactive")


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A Slurm partition.

    ``nodes`` is a list of compute nodes as Slurm writes it; "" for all of them.
    """

    name: Annotated[
        str,
        Key(
            kind=Text(what="letters, digits, - and _", pattern=_WORD, called="partition name"),
            help="Its name.",
            example="gpu",
        ),
    ]
    default: Annotated[
        bool,
        Key(
            kind=Flag(),
            help="Whether it is the default partition; if none is, the first one is.",
            example=True,
        ),
    ] = False
    # Without quotes, YAML reads 24:00:00 as a number of seconds, which Slurm takes for minutes.
    max_time: Annotated[
        str,
        Key(
            kind=Text(
                what="a time above 0 such as '24:00:00', or INFINITE",
                pattern=TIME_LIMIT,
                called="max_time",
            ),
            help="Time limit of jobs (MaxTime of slurm.conf); in quotes.",
            example="1-12:00:00",
        ),
    ] = "24:00:00"
    nodes: Annotated[
        str,
        Key(
            kind=Listed(
                item=Text(
                    what="a list of nodes such as compute-[01-03],gpu-1, or all",
                    pattern=f"{HOST_NAME}|{HOST_LIST}",
                    called="nodes",
                )
            ),
            help="Its compute nodes, as Slurm writes them, or a list of these. Default: all.",
            example="compute-[01-16]",
        ),
    ] = ""
    default_time: Annotated[
        str,
        Key(
            kind=Text(
                what="a time above 0 such as '01:00:00'",
                pattern=f"(?:{DURATION})?",
                called="default_time",
            ),
            help="Time limit of jobs that ask for none (DefaultTime); in quotes. Default:"
            " max_time.",
            example="01:00:00",
        ),
    ] = ""
    max_nodes: Annotated[
        int | None,
        Key(
            kind=Whole(least=1, most=65536),
            help="Most nodes of a job (MaxNodes). Default: no limit.",
            example=4,
        ),
    ] = None
    priority_tier: Annotated[
        int,
        Key(
            kind=Whole(least=0, most=65533),
            help="Jobs of a partition with a higher one are considered first (PriorityTier).",
            example=10,
        ),
    ] = 1
    allow_groups: Annotated[
        tuple[str, ...],
        Key(
            kind=Several(item=Text(what="the name of a group", pattern=USER, called="group")),
            help="Groups whose members may submit jobs (AllowGroups). Default: everybody.",
            example=["staff"],
        ),
    ] = ()
    allow_accounts: Annotated[
        tuple[str, ...],
        Key(
            kind=Several(item=Text(what="the name of an account", pattern=NAME, called="account")),
            help="Accounts whose jobs may run (AllowAccounts); needs `accounting`. Default: all.",
            example=["physics"],
        ),
    ] = ()
    allow_qos: Annotated[
        tuple[str, ...],
        Key(
            kind=Several(item=Text(what="the name of a QOS", pattern=NAME, called="QOS")),
            help="QOS whose jobs may run (AllowQos); needs `accounting`. Default: all.",
            example=["normal", "long"],
        ),
    ] = ()
    exclusive: Annotated[
        bool,
        Key(
            kind=Flag(),
            help="Whether a job gets whole nodes (OverSubscribe=EXCLUSIVE).",
            example=True,
        ),
    ] = False
    state: Annotated[
        str,
        Key(
            kind=Choice(words=STATES),
            help="In the state `down` jobs wait, `drain` takes no new ones, `inactive` both.",
            example="drain",
        ),
    ] = "up"
