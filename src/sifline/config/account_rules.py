"""The rules over several keys of the section ``accounting`` of a cluster file."""

from __future__ import annotations

from sifline.config.repeated import twice
from sifline.errors import UsageError
from sifline.fields.table import Table
from sifline.model import Accounting
from sifline.model.accounting import NEED_ACCOUNT, NORMAL, ROOT, Account


def check(top: Table, accounting: Accounting, job_user: str) -> None:
    """Check the accounts and QOS of a cluster.

    :param top: the table with the keys of the cluster.
    :raises UsageError: naming file, line, key and cause.
    """
    where, section = top.where("accounting"), top.sub("accounting")
    if accounting.host and (accounting.qos or accounting.accounts):
        raise UsageError(
            f"{where}: qos and accounts are for a database of the cluster's own; with host, those"
            " who manage that slurmdbd make them with sacctmgr"
        )
    qualities, above = {NORMAL}, {ROOT}
    for qos, row in zip(accounting.qos, section.subs("qos"), strict=True):
        if qos.name in qualities - {NORMAL}:
            raise UsageError(f"{row.where('name')}: two QOS are named {qos.name}; name each once")
        qualities.add(qos.name)
    # Each account below its parent, so that there is no circle.
    for account, row in zip(accounting.accounts, section.subs("accounts"), strict=True):
        _check_account(row, account, above, qualities)
        above.add(account.name)
    if not accounting.host and NEED_ACCOUNT.intersection(accounting.enforce):
        _check_job_user(where, accounting, job_user)


def _check_account(row: Table, account: Account, above: set[str], qualities: set[str]) -> None:
    name = account.name
    if name == ROOT:
        raise UsageError(f"{row.where('name')}: Slurm makes the account {ROOT} itself; remove it")
    if name in above:
        raise UsageError(f"{row.where('name')}: two accounts are named {name}; name each once")
    if account.parent not in above:
        raise UsageError(
            f"{row.where('parent')}: the account {name} belongs to {account.parent}, which is"
            f" not above it in the list; found {', '.join(sorted(above))}"
        )
    if unknown := [qos for qos in account.qos if qos not in qualities]:
        raise UsageError(
            f"{row.where('qos')}: the account {name} has the QOS {unknown[0]}, which"
            f" accounting.qos does not list; found {', '.join(sorted(qualities))}"
        )
    if again := twice(account.users):
        raise UsageError(
            f"{row.where('users')}: the account {name} lists {again} twice; list each user once"
        )


def _check_job_user(where: str, accounting: Accounting, job_user: str) -> None:
    users = {user for account in accounting.accounts for user in account.users}
    if job_user not in ("", ROOT, *users):
        raise UsageError(
            f"{where}: job_user {job_user} is in no account, so Slurm would refuse its jobs; add"
            " it to the users of one"
        )
