"""Accounting of a Slurm cluster: which database, which accounts and qualities of service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from sifline.model.patterns import ADDRESS, DURATION, SLURM_USER

if TYPE_CHECKING:
    from sifline.fields.keys import Key, Rows
    from sifline.fields.kinds import Choice, Several, Text, Whole

# Slurm writes these names in lower case.
NAME = "[a-z0-9_][a-z0-9_.-]{0,63}"
_RESOURCE = r"[a-z]+(?:/[A-Za-z0-9_:.-]+)?=[0-9]+[KMGT]?"
_MOST = 2**31 - 1
# The account above all others, and the QOS of every cluster; Slurm makes both.
ROOT, NORMAL = "root", "normal"
# Values of AccountingStorageEnforce (slurm.conf).
ENFORCED = ("associations", "limits", "nojobs", "nosteps", "qos", "safe", "wckeys")
# Those of them with which a job needs an account.
NEED_ACCOUNT = frozenset({"associations", "limits", "qos", "safe", "wckeys"})


@dataclass(frozen=True, kw_only=True)
class Qos:
    """A quality of service (QOS): priority and limits of the jobs that ask for it."""

    name: Annotated[
        str,
        Key(
            kind=Text(what="lower-case letters, digits, -, _ and .", pattern=NAME),
            help="Its name, for `sbatch --qos`.",
            example="long",
        ),
    ]
    priority: Annotated[
        int, Key(kind=Whole(least=0, most=_MOST), help="Priority of its jobs.", example=10)
    ] = 0
    max_wall: Annotated[
        str,
        Key(
            kind=Text(
                what="a time above 0 such as '24:00:00'",
                pattern=f"(?:{DURATION})?",
                called="max_wall",
            ),
            help="Longest time of a job; in quotes. Default: that of the partition.",
            example="7-00:00:00",
        ),
    ] = ""
    max_jobs_per_user: Annotated[
        int | None,
        Key(
            kind=Whole(least=0, most=_MOST),
            help="Running jobs of a user; default: no limit.",
            example=4,
        ),
    ] = None
    max_tres_per_user: Annotated[
        str,
        Key(
            kind=Text(
                what="resources such as 'cpu=64,gres/gpu=4'",
                pattern=f"(?:{_RESOURCE}(?:,{_RESOURCE})*)?",
                called="max_tres_per_user",
            ),
            help="Resources that the running jobs of a user may hold; default: no limit.",
            example="cpu=64,gres/gpu=4",
        ),
    ] = ""


@dataclass(frozen=True, kw_only=True)
class Account:
    """An account: users whose jobs are counted together."""

    name: Annotated[
        str,
        Key(
            kind=Text(what="lower-case letters, digits, -, _ and .", pattern=NAME),
            help="Its name, for `sbatch --account`.",
            example="physics",
        ),
    ]
    parent: Annotated[
        str,
        Key(
            kind=Text(what="the name of an account", pattern=NAME),
            help="The account that it belongs to; `root` is above all.",
            example="science",
        ),
    ] = ROOT
    users: Annotated[
        tuple[str, ...],
        Key(
            kind=Several(
                item=Text(what="a user name in lower case", pattern=SLURM_USER, called="user")
            ),
            help="Users who may submit jobs for it.",
            example=["alice"],
        ),
    ] = ()
    qos: Annotated[
        tuple[str, ...],
        Key(
            kind=Several(item=Text(what="the name of a QOS", pattern=NAME)),
            help="QOS that its jobs may ask for; default: those of its parent.",
            example=["normal", "long"],
        ),
    ] = ()
    fairshare: Annotated[
        int,
        Key(
            kind=Whole(least=0, most=_MOST),
            help="Its share of the cluster beside the other accounts of its parent.",
            example=10,
        ),
    ] = 1
    max_jobs: Annotated[
        int | None,
        Key(
            kind=Whole(least=0, most=_MOST),
            help="Running jobs of each of its users; default: the limit of its parent.",
            example=20,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Accounting:
    """Where jobs are recorded, and who may run which.

    ``host`` is "" for a database of the cluster's own, on its controller.
    """

    host: Annotated[
        str,
        Key(
            kind=Text(
                what="a host name or IP address",
                pattern=f"(?:{ADDRESS})?",
                called="accounting host",
            ),
            help="Host of a slurmdbd that others manage; default: MariaDB and slurmdbd are set up"
            " on the controller.",
            example="slurmdbd.example.org",
        ),
    ] = ""
    enforce: Annotated[
        tuple[str, ...],
        Key(
            kind=Several(item=Choice(words=ENFORCED)),
            help="What jobs are held to (AccountingStorageEnforce of slurm.conf). Default:"
            " nothing; jobs are recorded.",
            example=["limits", "qos"],
        ),
    ] = ()
    qos: Annotated[
        tuple[Qos, ...],
        Key(kind=Rows(of=Qos), help="Qualities of service (QOS); `normal` is always there."),
    ] = ()
    accounts: Annotated[
        tuple[Account, ...],
        Key(kind=Rows(of=Account), help="Accounts; `root` is always there."),
    ] = ()
