"""Folders of nodes that belong to the system, so that no registry can be there."""

from __future__ import annotations

from pathlib import PurePosixPath

from sifline.errors import UsageError
from sifline.fields.table import Table

# With all that is below them (hier(7)).
_WHOLE = """
    /bin /boot /dev /etc /lib /lib32 /lib64 /libx32 /lost+found /proc /root /run /sbin /sys /tmp
    /usr/bin /usr/include /usr/lib /usr/lib32 /usr/lib64 /usr/libexec /usr/libx32 /usr/sbin
    /usr/share /usr/src /usr/local/bin /usr/local/etc /usr/local/lib /usr/local/sbin /var/backups
    /var/cache /var/lib/dpkg /var/lib/slurm /var/lock /var/log /var/mail /var/run /var/spool
    /var/tmp
"""
# Themselves alone: they hold the folders of everybody.
_THEMSELVES = "/ /home /media /mnt /opt /srv /usr /usr/local /var /var/lib /var/local"


def refuse(table: Table, key: str, folder: PurePosixPath) -> None:
    """Refuse a folder of the system as the value of ``key``.

    :raises UsageError: naming file, line and key.
    """
    above = {str(folder), *map(str, folder.parents)}
    if str(folder) in _THEMSELVES.split() or not above.isdisjoint(_WHOLE.split()):
        raise UsageError(
            f"{table.where(key)}: {folder} is a folder of the system, whose owner and mode"
            " provision would change; choose one for the images alone, such as /opt/containers"
        )
