"""The project's environment in .venv: making it from the lock file, and running in it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bootstrapping.commands import ROOT, Stop, do, say
from bootstrapping.indexes import uv_environment

VENV = ROOT / ".venv"
STAMP = VENV / "sifline-stamp"
LOCK = ROOT / "requirements" / "dev.lock"
LOCKED = ("--no-deps", "--require-hashes", "--requirement")


def wanted_stamp() -> tuple[str, str]:
    """Return what .venv must be made from."""
    python = f"{sys.base_prefix} {sys.version}"
    return stamp_of(LOCK.read_bytes(), (ROOT / "pyproject.toml").read_bytes(), python, ROOT)


def read_stamp() -> tuple[str, ...] | None:
    """Return what .venv was made from; empty where it is unfinished, None where not ours."""
    try:
        return tuple(STAMP.read_text(encoding="utf-8").split())
    except OSError:
        return None


def stamp_of(lock: bytes, project: bytes, python: str, root: Path) -> tuple[str, str]:
    """Return what .venv is made from: its packages, and the project that is linked into it.

    The folder counts, because the programs in an environment name it in their first line.
    """
    packages = hashlib.sha256(b"\0".join([lock, python.encode(), os.fsencode(root)]))
    return packages.hexdigest(), hashlib.sha256(project).hexdigest()


def make_venv(packages: str, project: str) -> None:
    """Make .venv from the lock file and link the project into it; done parts stay."""
    done = read_stamp()
    if done is None and VENV.exists():
        raise Stop(f"{VENV} was not made by this script; move it away or delete it", 2)
    inside = str(VENV / "bin" / "python")
    settings = {**uv_environment(), "VIRTUAL_ENV": str(VENV)}
    if not done or done[0] != packages:
        say("making .venv from requirements/dev.lock")
        if VENV.exists():
            shutil.rmtree(VENV)
        VENV.mkdir()
        STAMP.touch()  # the mark that this folder may be deleted and made anew
        do([getattr(sys, "_base_executable", sys.executable), "-m", "venv", str(VENV)], "venv.log")
        get_uv(inside)
        pip = installer(inside)
        # The file is whole. Resolving would let what is released tomorrow decide.
        do([*pip, "install", *LOCKED, str(LOCK)], "venv.log", settings=settings)
        do([*pip, "check"], "venv.log", settings=settings)
        do([inside, "-m", "compileall", "-q", "-j", "0", *packages_folders()], "venv.log")
        STAMP.write_text(f"{packages}\n", encoding="utf-8")
    say("linking the project into .venv")
    link = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    do([*installer(inside), "install", *link], "venv.log", settings=settings)
    do([inside, "-m", "compileall", "-q", str(ROOT / "src")], "venv.log")
    STAMP.write_text(f"{packages}\n{project}\n", encoding="utf-8")


def get_uv(python: str) -> None:
    """Install uv into the environment of ``python``, if the lock file names it."""
    entry = locked_entry(LOCK.read_text(encoding="utf-8"), "uv")
    if not entry:
        return
    with tempfile.NamedTemporaryFile("w", prefix="uv-", suffix=".lock", encoding="utf-8") as file:
        file.write(entry)
        file.flush()
        do([python, "-m", "pip", "install", *LOCKED, file.name], "venv.log")


def locked_entry(lock: str, package: str) -> str:
    """Return what a lock file says of one package, with its hashes; empty where it is silent."""
    found = re.search(rf"(?m)^{re.escape(package)}==.*\\\n(?:    --hash=.*\n)+", lock)
    return found[0] if found else ""


def installer(python: str) -> list[str]:
    """Return what installs into the environment of ``python``: its uv, which is quick, or pip."""
    uv = Path(python).with_name("uv")
    return [str(uv), "pip"] if uv.exists() else [python, "-m", "pip"]


def packages_folders() -> list[str]:
    """Return the folders of .venv that hold packages."""
    return [str(folder) for folder in VENV.glob("lib/python*/site-packages")]


def become(command: Sequence[str]) -> NoReturn:
    """Replace this process by COMMAND, the project's environment first on its search path."""
    os.environ["VIRTUAL_ENV"] = str(VENV)
    os.environ["PATH"] = os.pathsep.join([str(VENV / "bin"), os.environ.get("PATH", os.defpath)])
    os.environ.pop("PYTHONHOME", None)
    try:
        os.execvp(command[0], list(command))  # noqa: S606 - becoming COMMAND is the purpose
    except OSError as error:
        raise Stop(f"cannot run {command[0]}: {error.strerror}", 2) from None
