"""Apptainer: the machine's own, or else the one in the toolbox image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from sifline.engines.apptainer.toolbox import Toolbox
from sifline.engines.docker.engine import LABEL_PURPOSE, remove_left_over
from sifline.machine.process import Result, Runner
from sifline.model import Bind

APPTAINER = "apptainer"
# singularity 3 is a different program with other options.
NAMES = ("apptainer", "singularity")
OLDEST_SINGULARITY = 4
_VERSION = re.compile(r"(\d+)\.\d+\S*")


class Apptainer:
    """Runs Apptainer and its tools, natively or in the toolbox."""

    def __init__(
        self,
        runner: Runner,
        *,
        user: tuple[int, int] | None = None,
        toolbox: Toolbox | None = None,
    ) -> None:
        self.runner = runner
        self.toolbox = toolbox or Toolbox(runner, user=user)

    @cached_property
    def native(self) -> str | None:
        """Return the path of a usable Apptainer on this machine, or None."""
        for name in NAMES:
            path = self.runner.which(name)
            if path and _usable(name, self.runner.run([path, "--version"], check=False)):
                return path
        return None

    @property
    def name(self) -> str:
        """Return the program's name: apptainer or singularity."""
        return Path(self.native or APPTAINER).name

    @cached_property
    def version(self) -> str:
        """Return the version of the program, such as ``1.4.5``."""
        printed = self.run([APPTAINER, "--version"]).stdout
        match = _VERSION.search(printed)
        return match[0] if match else printed.strip()

    def description(self) -> str:
        """Return the program in words: ``apptainer 1.4.5 in sifline/toolbox``."""
        where = "of this machine" if self.native else f"in {self.toolbox.image}"
        return f"{self.name} {self.version} {where}"

    def own(self, program: str) -> str | None:
        """Return the path of ``program`` if this machine has Apptainer; None means the toolbox."""
        if program == APPTAINER or not self.native:
            return self.native
        return self.runner.which(program)

    def run(
        self,
        words: Sequence[str],
        *,
        binds: Sequence[Bind] = (),
        env: Mapping[str, str] | None = None,
        workdir: Path | None = None,
        network: bool = True,
        gpus: bool = False,
        purpose: str = "",
        **options: Any,
    ) -> Result:
        """Run ``words``, Apptainer or one of its tools, and return the result.

        :param binds: paths of this machine that the toolbox can see.
        :param network: whether the toolbox has network access.
        :param gpus: pass all GPUs of the host to the toolbox.
        :param purpose: label of the toolbox's container, by which ``stop_builds`` finds it.
        :param options: options of ``Runner.run``.
        :raises MissingError: if there is neither Apptainer nor a toolbox.
        """
        path = self.own(words[0])
        if path:
            return self.runner.run([path, *words[1:]], cwd=workdir, env=env, **options)
        return self.toolbox.run(
            words,
            binds=binds,
            env=env,
            workdir=workdir,
            network=network,
            gpus=gpus,
            purpose=purpose,
            **options,
        )

    @contextmanager
    def held(self, binds: Sequence[Bind], *, purpose: str) -> Iterator[Apptainer]:
        """Keep one container of the toolbox for many calls of the yielded Apptainer.

        It has no network, and ends with the block, with this process, or by ``stop_builds``.

        :param binds: all paths that the calls need, or folders around them.
        :raises StepFailed: if the engine does not start it, with the engine's message.
        """
        with self.kept(binds, label=f"{LABEL_PURPOSE}={purpose}", network=False) as held:
            yield held

    @contextmanager
    def kept(
        self, binds: Sequence[Bind], *, label: str, network: bool = True, gpus: bool = False
    ) -> Iterator[Apptainer]:
        """Keep a container of the toolbox until the block ends; yield an Apptainer for it."""
        with self.toolbox.kept(binds, label=label, network=network, gpus=gpus) as toolbox:
            yield Apptainer(self.runner, toolbox=toolbox)

    def stop_builds(self, scratch: Path) -> None:
        """Remove the containers of a killed run that worked in ``scratch``."""
        if self.runner.which("docker"):
            remove_left_over(self.runner, str(scratch))


def _usable(name: str, version: Result) -> bool:
    match = _VERSION.search(version.stdout)
    if not version.ok or not match:
        return False
    return name != "singularity" or int(match[1]) >= OLDEST_SINGULARITY
