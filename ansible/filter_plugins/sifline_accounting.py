"""Which commands of sacctmgr make a Slurm database what a cluster file says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ROOT = "root"
UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}

Table = Mapping[str, Any]
Command = list[str]


def sacctmgr_changes(
    lines: Iterable[str], cluster: str, qos: Sequence[Table], accounts: Sequence[Table]
) -> list[Command]:
    """Return the words after ``sacctmgr --immediate``, a list for each command, in their order.

    What the file does not name is left as it is: other accounts, QOS and users.

    :param lines: of sacctmgr --parsable2, each with its kind in front: ``cluster|NAME``,
        ``qos|Name|Priority|MaxWall|MaxJobsPU|MaxTRESPU``,
        ``assoc|Account|ParentName|User|Share|MaxJobs|QOS``.
    :param qos: the QOS that shall be there, as in a cluster file.
    :param accounts: the accounts that shall be there, parents first.
    """
    rows = [line.strip().split("|") for line in lines]
    named = {row[1]: row[2:] for row in rows if row[0] == "qos"}
    found = [row[1:] for row in rows if row[0] == "assoc"]
    above = {account: [parent, *limits] for account, parent, user, *limits in found if not user}
    users = {(account, user) for account, _, user, *_ in found if user}
    changes: list[Command] = []
    if ["cluster", cluster.lower()] not in rows:
        changes.append(["add", "cluster", cluster.lower()])
    for item in qos:
        changes += _qos(item, named.get(item["name"]))
    changes += _accounts(accounts, above, cluster.lower())
    for account in accounts:
        for user in account.get("users") or ():
            if (account["name"], user) not in users:
                place = [f"account={account['name']}", f"cluster={cluster.lower()}"]
                changes.append(["add", "user", user, *place])
    return changes


def _qos(wanted: Table, found: list[str] | None) -> list[Command]:
    most = wanted.get("max_jobs_per_user")
    settings = {
        "Priority": str(wanted.get("priority") or 0),
        "MaxWall": wanted.get("max_wall") or "",
        "MaxJobsPerUser": "" if most is None else str(most),
        "MaxTRESPerUser": wanted.get("max_tres_per_user") or "",
    }
    if found is None:
        given = [f"{key}={value}" for key, value in settings.items() if value]
        return [["add", "qos", wanted["name"], *given]]
    same = (str, _seconds, str, _resources)
    words = [
        _unset(key, value, old)
        for (key, value), old, read in zip(settings.items(), found, same, strict=True)
        if read(value) != read(old)
    ]
    return [["modify", "qos", wanted["name"], "set", *words]] if words else []


def _unset(key: str, value: str, old: str) -> str:
    """Return the setting; one that is cleared is -1, of resources each by itself."""
    if key != "MaxTRESPerUser":
        return f"{key}={value or '-1'}"
    gone = sorted(_resources(old).keys() - _resources(value).keys())
    return f"{key}={','.join([*([value] if value else []), *(f'{name}=-1' for name in gone)])}"


def _accounts(
    accounts: Sequence[Table], found: Mapping[str, list[str]], cluster: str
) -> list[Command]:
    changes: list[Command] = []
    # What an account inherits, by its name: the limit of jobs, and the QOS.
    root = found.get(ROOT, ["", "", "", ""])
    inherited: dict[str, tuple[str, frozenset[str]]] = {ROOT: (root[2], _words(root[3]))}
    for account in accounts:
        parent = account.get("parent") or ROOT
        jobs, levels = inherited[parent]
        own_jobs, own = account.get("max_jobs"), account.get("qos") or ()
        jobs = jobs if own_jobs is None else str(own_jobs)
        levels = frozenset(own) or levels
        inherited[account["name"]] = jobs, levels
        share = str(1 if account.get("fairshare") is None else account["fairshare"])
        words = {"Parent": parent, "Fairshare": share}
        if account["name"] not in found:
            if own_jobs is not None:
                words["MaxJobs"] = jobs
            if own:
                words["QOS"] = ",".join(sorted(own))
            given = [f"{key}={value}" for key, value in words.items()]
            name = account["name"]
            about = [f"Description={name}", f"Organization={cluster}"]
            changes.append(["add", "account", name, f"cluster={cluster}", *about, *given])
            continue
        old_parent, old_share, old_jobs, old_levels = found[account["name"]]
        words = {
            **({"Parent": parent} if old_parent != parent else {}),
            **({"Fairshare": share} if old_share != share else {}),
            **({"MaxJobs": jobs if own_jobs is not None else "-1"} if old_jobs != jobs else {}),
            **({"QOS": ",".join(sorted(own))} if _words(old_levels) != levels else {}),
        }
        if words:
            settings = [f"{key}={value}" for key, value in words.items()]
            where = [account["name"], "where", f"cluster={cluster}"]
            changes.append(["modify", "account", *where, "set", *settings])
    return changes


def _words(text: str) -> frozenset[str]:
    return frozenset(word for word in text.split(",") if word)


def _seconds(text: str) -> int | None:
    """Return a time as Slurm reads it; None for no limit."""
    days, dash, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":") if part]
    if not parts:
        return None
    # A number alone is minutes, behind days it is hours.
    if dash:
        parts = [*parts, 0, 0][:3]
    elif len(parts) == 1:
        parts.append(0)
    hours, minutes, seconds = [0, *parts][-3:]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _resources(text: str) -> dict[str, int]:
    """Return amounts by resource; sacctmgr writes 2048M of memory as 2G."""
    found = {}
    for item in text.split(","):
        name, _, amount = item.partition("=")
        if read := re.fullmatch(r"(\d+)([KMGTP]?)", amount):
            number, unit = int(read[1]), read[2]
            # Of memory a plain number is MiB.
            power = UNITS[unit or "M"] if name == "mem" else UNITS[unit]
            found[name] = number * 1024**power
    return found


class FilterModule:
    """Gives Ansible the filter."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by its name."""
        return {"sacctmgr_changes": sacctmgr_changes}
