"""Nodes for tests: answers as they come over ssh, and an ssh that leads to this machine."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from sifline.engines.ssh.answers import MARK
from sifline.machine.process import Result
from tests.support.recording import answer

# It logs in to this machine with a login shell that says something first, as a .bashrc may.
# The last words are those that a shell on the node is given, as ssh hands them over.
SSH = """#!/bin/bash
while [ $# -gt 0 ]; do
  case $1 in
    -N | -O) exit 0 ;;
    -[oipl]) shift 2 ;;
    -*) shift ;;
    *) shift; break ;;
  esac
done
{greeting}
eval "$*"
"""

# It takes one password, from its input, and tells what it was not given.
SUDO = """#!/bin/bash
echo "$*" >> {log}
ask= quiet=
while [ $# -gt 0 ]; do
  case $1 in
    -S) ask=1; shift ;;
    -n) quiet=1; shift ;;
    -u) shift 2 ;;
    --) shift; break ;;
    -*) shift ;;
    *) break ;;
  esac
done
if [ -n "{password}" ]; then
  [ -z "$quiet" ] || {{ echo "sudo: {refusal}" >&2; exit 1; }}
  [ -z "$ask" ] || {{ printf "[sudo] password: " >&2; IFS= read -r given; }}
  [ "$given" = "{password}" ] || {{ echo "sudo: 1 incorrect password attempt" >&2; exit 1; }}
fi
exec "$@"
"""


def begun(stdout: str = "", *, stderr: str = "", returncode: int = 0) -> Result:
    """Return the answer of a command that a node ran."""
    mark = f"\n{MARK}\n"
    return answer(mark + stdout, stderr=mark + stderr, returncode=returncode)


def install(
    folder: Path, *, greeting: str = ":", wants: str = "", refusal: str = ""
) -> dict[str, str]:
    """Put such an ssh and such a sudo into ``folder``; return the search path that finds them.

    What sudo is asked for is in ``folder/sudo.log``.
    """
    log = folder / "sudo.log"
    log.touch()
    refusal = refusal or "a password is required"
    programs = {
        "ssh": SSH.format(greeting=greeting),
        "sudo": SUDO.format(password=wants, log=shlex.quote(str(log)), refusal=refusal),
    }
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}
