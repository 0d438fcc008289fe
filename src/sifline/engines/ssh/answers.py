"""The mark in front of what a command on a node prints; a login shell may print before it."""

from __future__ import annotations

# A line before the answer of a command, on both streams. Whatever stands in front of it comes from
# the login shell (a greeting, a message of `module load`) or from sudo; without it, the command
# was not run.
MARK = "=== sifline: the answer begins here ==="
BEGIN = r'printf "\n%s\n" "$0"; printf "\n%s\n" "$0" >&2; exec "$@"'
# From the user's home, as after a login; `sudo --login` would take line breaks out of arguments.
BEGIN_AT_HOME = BEGIN.replace("exec", 'cd "$HOME" && exec')

# Stands between rsync and ssh, and passes on what comes behind the mark: rsync takes any other
# word for a broken protocol. With a password, that goes ahead of all that rsync sends. bash reads
# a pipe byte by byte, so nothing behind the line is lost.
TO_RSYNC = 'while IFS= read -r line; do [ "$line" != "$0" ] || exec cat; done'
RSYNC_SHELL = f'set -o pipefail; "$@" | {{ {TO_RSYNC}; }}'
BECOME_VARIABLE = "SIFLINE_BECOME"
# Not a pipe: bash would wait for cat, and cat for rsync, which waits for bash.
PASSWORD_FIRST = f'< <(printf "%s\\n" "${BECOME_VARIABLE}"; exec cat)'
RSYNC_SHELL_SUDO = RSYNC_SHELL.replace('"$@"', f'"$@" {PASSWORD_FIRST}')


def behind_mark(text: str) -> str:
    """What a command itself printed; all, where there is no mark."""
    _, begun, behind = text.partition(f"\n{MARK}\n")
    return behind if begun else text
