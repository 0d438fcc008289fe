"""Invoke called in a project: as a user calls it, or in this process."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from invoke.main import program

PATIENCE = 120
# What a call of Invoke gives another meaning.
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)


def invoke(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Start ``invoke`` in ``project`` as a user does, which takes a third of a second."""
    done = subprocess.run(
        [sys.executable, "-m", "invoke", *words],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def invoke_here(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Do in this process what ``invoke`` does in ``project``: for tests of what is decided.

    :raises Exception: where a user would see a traceback.
    """
    status: object = 0
    out, err = io.StringIO(), io.StringIO()
    with _as_new(project, words), redirect_stdout(out), redirect_stderr(err):
        try:
            program.run(sys.argv)
        except SystemExit as end:
            status = end.code
    assert isinstance(status, int | None)
    return subprocess.CompletedProcess(words, status or 0, out.getvalue(), err.getvalue())


def engine_without_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let invoke meet an engine without any image, which is asked by its command."""
    fake = folder / "bin" / "docker"
    fake.parent.mkdir()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "other")
    fake.write_text(
        f'#!/bin/sh\ncase "$*" in *Server.Os*) echo linux/{machine};;'
        " *version*) echo docker 28.2.2;; esac\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/bin")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")


@contextmanager
def _as_new(project: Path, words: Sequence[str]) -> Iterator[None]:
    """Make this process look like a new one of Invoke; what that changes is put back."""
    argv, path, folder = sys.argv, list(sys.path), Path.cwd()
    tasks, compiles = sys.modules.pop("tasks", None), sys.dont_write_bytecode
    heard = {number: signal.getsignal(number) for number in SIGNALS}
    sys.argv = ["invoke", *words]
    os.chdir(project)
    try:
        yield
    finally:
        os.chdir(folder)
        sys.argv, sys.path[:], sys.dont_write_bytecode = argv, path, compiles
        for number, action in heard.items():
            signal.signal(number, action)
        sys.modules.pop("tasks", None)  # that of one project is not that of the next
        if tasks:
            sys.modules["tasks"] = tasks
