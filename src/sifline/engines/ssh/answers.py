"""A marker line before the output of a command on a node; login shells may print before it."""

from __future__ import annotations

# A line before the output of the command, on both streams. Text before it comes from the login
# shell (a greeting, a message of `module load`) or from sudo; without it, the command did not run.
MARK = "=== sifline: the answer begins here ==="
BEGIN = r'printf "\n%s\n" "$0"; printf "\n%s\n" "$0" >&2; exec "$@"'
# In the user's home, as after a login; `sudo --login` would remove line breaks from arguments.
BEGIN_AT_HOME = BEGIN.replace("exec", 'cd "$HOME" && exec')

# Runs between rsync and ssh, and passes on what follows the marker: rsync treats other text as a
# protocol error. A password is sent before rsync's data. bash reads a pipe byte by byte, so
# nothing after the line is lost.
TO_RSYNC = 'while IFS= read -r line; do [ "$line" != "$0" ] || exec cat; done'
RSYNC_SHELL = f'set -o pipefail; "$@" | {{ {TO_RSYNC}; }}'
BECOME_VARIABLE = "SIFLINE_BECOME"
# Not a pipe: bash would wait for cat, and cat for rsync, which waits for bash.
PASSWORD_FIRST = f'< <(printf "%s\\n" "${BECOME_VARIABLE}"; exec cat)'
RSYNC_SHELL_SUDO = RSYNC_SHELL.replace('"$@"', f'"$@" {PASSWORD_FIRST}')


def behind_mark(text: str) -> str:
    """Return the output of the command itself; the whole text if there is no marker."""
    _, begun, behind = text.partition(f"\n{MARK}\n")
    return behind if begun else text
