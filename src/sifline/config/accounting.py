"""The rules over several keys of the section ``accounting`` of a cluster file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from sifline.errors import UsageError
from sifline.model import Accounting
from sifline.model.accounting import NEED_ACCOUNT, NORMAL, ROOT, Account


def check_accounting(path: Path, accounting: Accounting, job_user: str) -> None:
    """Check what goes into Slurm's database.

    :param path: the cluster file.
    :param job_user: who submits the jobs of ``validate``; "" if that is not known.
    :raises UsageError: naming file, key and cause.
    """
    where = f"{path}: accounting"
    if accounting.host and (accounting.qos or accounting.accounts):
        raise UsageError(
            f"{where}: qos and accounts are for a database of the cluster's own; with host, those"
            " who manage that slurmdbd make them with sacctmgr"
        )
    qualities, above = {NORMAL}, {ROOT}
    for qos in accounting.qos:
        if qos.name in qualities - {NORMAL}:
            raise UsageError(f"{where}: two QOS are named {qos.name}; name each once")
        qualities.add(qos.name)
    # Each account below its parent, so that there is no circle.
    for account in accounting.accounts:
        _check_account(where, account, above, qualities)
        above.add(account.name)
    if not accounting.host and NEED_ACCOUNT.intersection(accounting.enforce):
        _check_job_user(where, accounting, job_user)


def _check_account(where: str, account: Account, above: set[str], qualities: set[str]) -> None:
    name = account.name
    if name == ROOT:
        raise UsageError(f"{where}: Slurm makes the account {ROOT} itself; remove it")
    if name in above:
        raise UsageError(f"{where}: two accounts are named {name}; name each once")
    if account.parent not in above:
        raise UsageError(
            f"{where}: the account {name} belongs to {account.parent}, which is not above it"
            f" in the list; found {', '.join(sorted(above))}"
        )
    if unknown := [qos for qos in account.qos if qos not in qualities]:
        raise UsageError(
            f"{where}: the account {name} has the QOS {unknown[0]}, which accounting.qos does not"
            f" list; found {', '.join(sorted(qualities))}"
        )
    if again := twice(account.users):
        raise UsageError(f"{where}: the account {name} lists {again} twice; list each user once")


def _check_job_user(where: str, accounting: Accounting, job_user: str) -> None:
    users = {user for account in accounting.accounts for user in account.users}
    if job_user not in ("", ROOT, *users):
        raise UsageError(
            f"{where}: job_user {job_user} is in no account, so Slurm would refuse its jobs; add"
            " it to the users of one"
        )


def twice(words: Iterable[str]) -> str:
    """Return a word that is there more than once; "" if there is none."""
    return next((word for word, count in Counter(words).items() if count > 1), "")
