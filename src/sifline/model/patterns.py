"""Patterns of names that cluster files give; JavaScript and Python both read them."""

from __future__ import annotations

# Host names: RFC 1123.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOST_NAME = rf"(?!.{{254}}){_LABEL}(?:\.{_LABEL})*"
# Lists of hosts as Slurm writes them, compute-[01-03,07],gpu-1, with a range or a comma.
_NUMBERS = "[0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*"
_RANGE = rf"[A-Za-z0-9.-]*(?:\[{_NUMBERS}\][A-Za-z0-9.-]*)+"
_HOSTS = rf"(?:{_LABEL}(?:\.{_LABEL})*|{_RANGE})"
HOST_LIST = rf"(?=[^,\[]*[,\[]){_HOSTS}(?:,{_HOSTS})*"
# IPv6: RFC 4291: eight groups, or at most seven around one ::, and perhaps a zone (RFC 4007).
_GROUP = "[0-9A-Fa-f]{1,4}"
_GROUPS = f"{_GROUP}(?::{_GROUP})*"
_SHORT = f"(?!:*(?:{_GROUP}:+){{7}}{_GROUP})(?:{_GROUPS})?::(?:{_GROUPS})?"
_IPV4 = r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}"
# An IPv4 address in the place of the last two groups.
_MIXED = f"(?:(?:{_GROUP}:){{6}}|(?:{_GROUPS})?::(?:{_GROUPS}:)?){_IPV4}"
_IPV6 = rf"(?:(?:{_GROUP}:){{7}}{_GROUP}|{_SHORT}|{_MIXED})(?:%[^\s%]+)?"
# Of users and groups: what useradd takes, and directories of a company have, such as first.last;
# no number alone, which chown(1) and sudo take for an id.
USER = "(?![0-9]+$)[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}"
# The same where Slurm's database has it: there all names are in lower case.
SLURM_USER = "(?![0-9]+$)[a-z0-9_][a-z0-9_.-]{0,31}"
ADDRESS = f"{HOST_NAME}|{_IPV6}"
# slurm.conf(5), MaxTime: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:…].
# None that is 0: no job could run.
DURATION = "(?![0:-]+$)(?:[0-9]+|(?:[0-9]+:){1,2}[0-9]{2}|[0-9]+-[0-9]+(?::[0-9]{2}){0,2})"
TIME_LIMIT = f"{DURATION}|INFINITE|UNLIMITED"
# GRES types. Slurm reads gpu:4 and gpu:4k as numbers of GPUs, whatever type is meant.
GRES_TYPE = "(?![0-9]+[kKmMgGtTpP]?$)(?!no_consume$)[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
