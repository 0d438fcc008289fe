"""A shell in a container of an image, on the user's own terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sifline.engines.docker.engine import attach, mount
from sifline.machine.process import Runner
from sifline.model import Opening


def shell(
    runner: Runner,
    image: str,
    command: Sequence[str],
    opening: Opening,
    *,
    terminal: bool,
    label: str = "",
) -> int:
    """Run ``command`` in a throw-away container on the user's own terminal.

    Return its exit status. Only the command runs, as with ``apptainer exec``: without the
    entrypoint.

    :param label: label of the container, ``key=value``.
    """
    # A container's first process ignores signals unless it handles them.
    name = f"sifline-shell-{os.getpid()}"
    argv = ["docker", "run", "--rm", "--name", name, "--init", "--interactive"]
    argv += ["--tty"] if terminal else []
    program, *words = command
    for flag, values in (
        ("--label", [label] if label else []),
        ("--mount", [mount(bind) for bind in opening.binds]),
        ("--user", [f"{opening.user[0]}:{opening.user[1]}"] if opening.user else []),
        ("--env", [f"HOME={opening.home}"] if opening.home else []),
        ("--env", [_variable(name, value) for name, value in opening.env.items()]),
        ("--workdir", [opening.workdir] if opening.workdir else []),
        ("--gpus", [_gpus(opening.gpus)] if opening.gpus else []),
        ("--shm-size", [opening.shared_memory] if opening.shared_memory else []),
        ("--entrypoint", [program]),
    ):
        for value in values:
            argv += [flag, value]
    # Variables that are passed by name must be in docker's own environment.
    own = {key: os.environ.get(key, "") for key, value in opening.env.items() if value is None}
    return attach(runner, [*argv, image, *words], name=name, env=own)


def _variable(name: str, value: str | None) -> str:
    """Return a variable for the docker command, which reads the value of a bare name itself."""
    return name if value is None else f"{name}={value}"


def _gpus(which: str) -> str:
    """Return GPUs for the docker command, in CSV: a comma between devices would end the field."""
    return f'"{which}"' if which.startswith("device=") else which
