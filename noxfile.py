"""The sessions that judge the code, from style to jobs on a virtual cluster.

``nox`` runs them all, ``nox -s NAME`` one, ``nox -s NAME -- ARGUMENTS`` hands arguments to
its pytest. They share one environment, .nox/environment, made from requirements/dev.lock:
one for each session would hold the same packages, take a minute more and 1.5 GB of disk.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent / "scripts"))
from bootstrapping.indexes import uv_environment

ROOT = Path(__file__).parent
LOCK = "requirements/dev.lock"
SHELLS = (b"#!/bin/sh", b"#!/bin/bash", b"#!/usr/bin/env sh", b"#!/usr/bin/env bash")
# Minutes and gigabytes each.
BIG = {path.name for name in ("pytorch-*", "tensorflow*") for path in ROOT.glob(f"images/{name}")}
# How long each session took the last time that it passed here.
DURATIONS = ROOT / ".nox" / "durations.json"
# Tests wait for an engine now and then: three share two cores.
WORKERS = ("-n", "3", "--dist", "loadgroup", "--no-loadscope-reorder", "--durations", "20")

# The releases of ansible-core that the roles are for, and the oldest Python that each runs on.
ANSIBLE = {"2.17": (3, 10), "2.18": (3, 11), "2.19": (3, 11), "2.20": (3, 12), "2.21": (3, 12)}
ANSIBLE_TESTS = (
    *("tests/unit/test_ansible.py", "tests/unit/test_slurm_templates.py"),
    "tests/integration/test_bare_nodes.py",
    "tests/integration/test_provision.py::test_a_second_run_changes_nothing_and_restarts_nothing",
)

nox.needs_version = ">=2026.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
# The quick ones first, and nothing behind one that failed.
nox.options.sessions = ["lint", "typing", "tests", "scripts", "images", "integration"]
nox.options.stop_on_first_error = True

# An environment of another Python than the one that runs nox is made anew.
os.environ["NOX_ENABLE_STALENESS_CHECK"] = "1"
# uv does not read pip's settings, and where packages come from is configured there.
os.environ.update(uv_environment())


@nox.session(default=False)
def environment(session: nox.Session) -> None:
    """The environment of all sessions: the locked packages and the project."""
    project = (ROOT / LOCK).read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    made_from = hashlib.sha256(project).hexdigest()
    stamp = Path(session.virtualenv.location) / "sifline-stamp"
    compile_ = ("python", "-m", "compileall", "-q")
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != made_from:
        # The file is whole. Resolving would let what is released tomorrow decide.
        session.install("--no-deps", "--require-hashes", "--requirement", LOCK)
        session.install("--no-deps", "--no-build-isolation", "--editable", ".")
        # Some installers and settings leave byte code out; every start would compile anew.
        session.run(*compile_, "-j", "0", session.virtualenv.location)
        stamp.write_text(made_from, encoding="utf-8")
    session.run(*compile_, "src")


def judges(*, default: bool = True) -> Callable[[Callable[[nox.Session], None]], object]:
    """Make a session of a function, in the shared environment; it says how long it took."""
    as_session = nox.session(venv_backend="none", requires=["environment"], default=default)

    def decorate(function: Callable[[nox.Session], None]) -> object:
        @functools.wraps(function)
        def timed(session: nox.Session) -> None:
            started = time.monotonic()
            function(session)
            tell_duration(session, time.monotonic() - started)

        return as_session(timed)

    return decorate


def tell_duration(session: nox.Session, seconds: float) -> None:
    """Say how long the session took, and the last time; remember it if it was the whole."""
    known = json.loads(DURATIONS.read_text("utf-8")) if DURATIONS.exists() else {}
    before = f"{known[session.name]} s" if session.name in known else "not recorded"
    session.log(f"{session.name}: {seconds:.0f} s; the last time: {before}")
    if not session.posargs:
        # A run that is killed here must not leave half a file for the next to stumble over.
        new = DURATIONS.with_suffix(".new")
        new.write_text(json.dumps({**known, session.name: round(seconds)}), "utf-8")
        new.replace(DURATIONS)


@judges()
def lint(session: nox.Session) -> None:
    """Style, and the rules of every language that is written here."""
    files = [path for path in tracked(session) if path.is_file()]
    run(session, "ruff", "check")
    run(session, "ruff", "format", "--check")
    run(session, "lint-imports")
    run(session, "shellcheck", *(path for path in files if is_shell(path)))
    run(session, "hadolint", *(path for path in files if path.name == "Dockerfile"))
    run(session, "yamllint", "--strict", ".")
    run(session, "ansible-lint", "--offline", "--strict", "ansible")
    run(session, "actionlint")


@judges()
def typing(session: nox.Session) -> None:
    """Types, strictly, in everything that is Python."""
    run(session, "mypy")


@judges()
def tests(session: nox.Session) -> None:
    """Behaviour of the package, without an engine: seconds."""
    run(session, "pytest", *WORKERS, "tests/unit", *session.posargs)


@judges()
def scripts(session: nox.Session) -> None:
    """Behaviour of the scripts, by running them."""
    run(session, "pytest", *WORKERS, "tests/scripts", *session.posargs)


@judges()
def images(session: nox.Session) -> None:
    """Build every image, convert it, and run its tests in the engine and in the SIF."""
    run(session, "invoke", *tasks(session, "make"))
    run(session, "python", "-m", "tests.support.skips", "build/reports")
    run(session, "pytest", *WORKERS, "tests/images", *session.posargs)


@judges()
def integration(session: nox.Session) -> None:
    """The whole way, from a Dockerfile to jobs on a virtual cluster."""
    chosen = () if with_big(session) else ("-m", "not big")
    run(session, "pytest", *WORKERS, "tests/integration", *chosen, *session.posargs)


@judges(default=False)
def devcontainer(session: nox.Session) -> None:
    """Build the development container, and make an image and run sessions in it: minutes."""
    run(session, "invoke", "build.debian-trixie")
    run(session, "pytest", "tests/devcontainer", *session.posargs)


@nox.session(default=False)
@nox.parametrize("release", [name for name, least in ANSIBLE.items() if sys.version_info >= least])
def ansible(session: nox.Session, release: str) -> None:
    """The roles with each release of ansible-core that this Python has: minutes each."""
    session.install("--no-deps", "--require-hashes", "--requirement", LOCK)
    session.install("--no-deps", "--no-build-isolation", "--editable", ".")
    session.install(f"ansible-core~={release}.0")
    session.run("pytest", "-n", "0", *ANSIBLE_TESTS, *session.posargs)


@judges(default=False)
def bench(session: nox.Session) -> None:
    """Speed against its peers, into docs/reference/benchmarks.md; `-- NAME` selects: minutes."""
    words = [f"build.{name}" for name in ("toolbox", "debian-bookworm", "hello-mpi", "slurm-node")]
    run(session, "invoke", *words)
    run(session, "python", "-m", "tests.bench", *session.posargs)


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Make requirements/dev.lock anew; `-- --upgrade` takes newer releases."""
    session.install("uv")
    words = ("pyproject.toml", "--group", "dev", "--output-file", LOCK, *session.posargs)
    compile_lock(session, "nox -s lock", *words)


@nox.session(name="image-locks", default=False)
def image_locks(session: nox.Session) -> None:
    """Take newer Python packages into the images: images/*/*.lock; `-- IMAGE…` selects."""
    session.install("uv")
    by_name = {name: sorted(ROOT.glob(f"images/{name}/*.in")) for name in session.posargs or ["*"]}
    if unknown := [name for name, paths in by_name.items() if not paths]:
        session.error(f"no image of that name has requirements (*.in): {', '.join(unknown)}")
    found = [path for paths in by_name.values() for path in paths]
    # What is constrained by another lock file comes after it.
    for path in sorted(found, key=lambda path: b"\n-c " in path.read_bytes()):
        with session.chdir(path.parent):
            words = (path.name, "--output-file", path.with_suffix(".lock").name, "--upgrade")
            compile_lock(session, f"nox -s image-locks -- {path.parent.name}", *words)


def compile_lock(session: nox.Session, command: str, *words: str) -> None:
    """Write a lock file with hashes, for every Python from 3.10 on."""
    session.run(
        *("uv", "pip", "compile", *words),
        *("--universal", "--python-version", "3.10", "--generate-hashes", "--no-annotate"),
        # Where packages come from is each machine's own matter.
        *("--no-emit-index-url", "--no-emit-find-links"),
        *("--custom-compile-command", command, "--quiet"),
        # What this machine has beside the index must not decide for all others.
        env={"UV_INDEX": None, "UV_FIND_LINKS": None},
    )


def run(session: nox.Session, program: str, *arguments: str | Path) -> None:
    """Run a program of the shared environment, whose other programs it finds."""
    programs = Path(session.env_dir).with_name("environment") / "bin"
    path = os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath)])
    session.run(
        str(programs / program),
        *map(str, arguments),
        env={"PATH": path, "VIRTUAL_ENV": str(programs.parent)},
    )


def with_big(session: nox.Session) -> bool:
    """Tell whether the images of PyTorch and TensorFlow take part: SIFLINE_BIG=no leaves them."""
    wanted = os.environ.get("SIFLINE_BIG", "yes") != "no"
    if not wanted:
        session.warn(f"SIFLINE_BIG=no: without {', '.join(sorted(BIG))}")
    return wanted


def tasks(session: nox.Session, verb: str) -> list[str]:
    """Return the tasks that do ``verb`` to the images that take part."""
    if with_big(session):
        return [verb, "--all"]
    names = {path.parent.name for path in ROOT.glob("images/*/Dockerfile")}
    return [f"{verb}.{name}" for name in sorted(names - BIG)]


def tracked(session: nox.Session) -> list[Path]:
    """Return the files that git holds or would hold."""
    listed = session.run(
        *("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        external=True,
        silent=True,
    )
    return [Path(name) for name in str(listed).split("\0") if name]


def is_shell(path: Path) -> bool:
    """Return whether the first line of a file names a shell; templates are none yet."""
    return path.suffix != ".j2" and path.read_bytes()[:64].startswith(SHELLS)
