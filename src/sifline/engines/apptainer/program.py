"""Apptainer: the machine's own, else the one in the toolbox image through Docker."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from sifline.engines.apptainer.toolbox import (
    ALIVE,
    TOOLBOX,
    TOOLBOX_RIGHTS,
    Box,
    new_name,
    start_failure,
)
from sifline.engines.docker.engine import LABEL_PURPOSE, mount, remove, remove_left_over
from sifline.errors import SiflineError
from sifline.machine.process import CommandFailed, Result, Runner
from sifline.machine.streams import OnLine
from sifline.model import Bind

APPTAINER = "apptainer"
# singularity 3 is another program with other options.
NAMES = ("apptainer", "singularity")
OLDEST_SINGULARITY = 4
_VERSION = re.compile(r"(\d+)\.\d+\S*")


class Apptainer:
    """Runs Apptainer, and the tools beside it, whichever way they are to be had."""

    def __init__(
        self,
        runner: Runner,
        *,
        toolbox: str = TOOLBOX,
        user: tuple[int, int] | None = None,
        box: Box | None = None,
    ) -> None:
        self.runner = runner
        self._toolbox = toolbox
        self._box = box
        self.uid, self._gid = user or (os.getuid(), os.getgid())

    @cached_property
    def native(self) -> str | None:
        """The path of a usable program on this machine, or None."""
        for name in NAMES:
            path = self.runner.which(name)
            if path and _usable(name, self.runner.run([path, "--version"], check=False)):
                return path
        return None

    @cached_property
    def version(self) -> str:
        """The version of the program that is used, such as ``1.4.5``."""
        printed = self.run(["--version"]).stdout
        match = _VERSION.search(printed)
        return match[0] if match else printed.strip()

    def description(self) -> str:
        """Say what is used, for people: ``apptainer 1.4.5 in sifline/toolbox``."""
        if self.native:
            return f"{Path(self.native).name} {self.version} of this machine"
        return f"apptainer {self.version} in {self._toolbox}"

    @contextmanager
    def held(self, binds: Sequence[Bind], *, purpose: str) -> Iterator[Apptainer]:
        """Keep one container of the toolbox for many calls of what is yielded.

        It has no network, and ends with the block, with this process, or by ``stop_builds``.

        :param binds: all that the calls hand in, or folders around it.
        :raises StepFailed: where the engine does not start it, with the engine's words.
        """
        with self.kept(binds, label=f"{LABEL_PURPOSE}={purpose}", network=False) as held:
            yield held

    @contextmanager
    def kept(
        self, binds: Sequence[Bind], *, label: str, network: bool = True, gpus: bool = False
    ) -> Iterator[Apptainer]:
        """Keep a container of the toolbox until the block or this process ends; yield its use."""
        name = new_name()
        extra = ["--detach", "--name", name, "--label", label]
        extra += [*([] if network else ["--network", "none"]), *(["--gpus", "all"] * gpus)]
        with tempfile.NamedTemporaryFile(prefix="sifline-held-") as alive:
            # A process that is killed loses the lock: the container's first one gets it and ends.
            fcntl.flock(alive, fcntl.LOCK_EX)
            waiting = [*binds, Bind(source=Path(alive.name), target=ALIVE)]
            argv = self.argv(
                [ALIVE, "true"],
                program="flock",
                toolbox=True,
                root=True,
                binds=waiting,
                env={},
                extra=extra,
            )
            try:
                result = self.runner.run(argv, check=False)
                if not result.ok:
                    raise self._cause(result) or CommandFailed("no toolbox was started", result)
                box = Box(name=name, binds=tuple(binds))
                user = (self.uid, self._gid)
                yield Apptainer(self.runner, toolbox=self._toolbox, user=user, box=box)
            finally:
                remove(self.runner, name)

    def stop_builds(self, scratch: Path) -> None:
        """Remove the containers of a killed run that worked in ``scratch``."""
        if self.runner.which("docker"):
            remove_left_over(self.runner, str(scratch))

    def own(self, program: str) -> str | None:
        """The path of ``program`` on a machine that has Apptainer, or None: the toolbox."""
        if program == APPTAINER or not self.native:
            return self.native
        return self.runner.which(program)

    def argv(
        self,
        words: Sequence[str],
        *,
        binds: Sequence[Bind],
        env: Mapping[str, str],
        extra: Sequence[str] = (),
        program: str = APPTAINER,
        toolbox: bool = False,
        root: bool = False,
    ) -> list[str]:
        """Return the whole command line; ``env`` and ``extra`` are for the container.

        :param toolbox: even where this machine has the program.
        :param root: as root in the toolbox, whoever asks for it.
        """
        path = None if toolbox else self.own(program)
        if path:
            return [path, *words]
        variables = [word for item in env.items() for word in ("--env", "=".join(item))]
        command = [*(() if root else self.become), program, *words]
        if self._box:
            unseen = [bind for bind in binds if not self._box.sees(bind)]
            assert not unseen, unseen  # noqa: S101 - whoever holds the toolbox says what it sees
            return ["docker", "exec", *extra, *variables, self._box.name, *command]
        argv = ["docker", "run", "--rm", "--pull", "never", *TOOLBOX_RIGHTS, *extra]
        for bind in binds:
            argv += ["--mount", mount(bind)]
        return [*argv, *variables, self._toolbox, *command]

    @property
    def become(self) -> tuple[str, ...]:
        """The words before a command of the toolbox that is run as the caller."""
        return ("as-user", f"{self.uid}:{self._gid}") if self.uid else ()

    def run(
        self,
        words: Sequence[str],
        *,
        program: str = APPTAINER,
        toolbox: bool = False,
        root: bool = False,
        binds: Sequence[Bind] = (),
        env: Mapping[str, str] | None = None,
        workdir: Path | None = None,
        network: bool = True,
        gpus: bool = False,
        purpose: str = "",
        check: bool = True,
        timeout: float | None = None,
        log: Path | None = None,
        on_line: OnLine | None = None,
        input: str | None = None,
        hide: Sequence[str] = (),
        without: Collection[str] = (),
    ) -> Result:
        """Run ``program`` with ``words``; what it prints and its status come back.

        :param binds: what of this machine the toolbox sees.
        :param purpose: of a container of the toolbox, by which ``stop_builds`` finds it.
        :raises MissingError: where there is neither Apptainer nor a toolbox.
        :raises CommandFailed: with what it printed, where it fails and ``check`` is set.
        """
        name = self._box.name if self._box else new_name()
        extra = [] if self._box else ["--name", name, "--label", f"{LABEL_PURPOSE}={purpose}"]
        extra += [] if self._box or network else ["--network", "none"]
        extra += ["--gpus", "all"] if gpus and not self._box else []
        extra += ["--workdir", str(workdir)] if workdir else []
        extra += [] if input is None else ["--interactive"]
        path = None if toolbox else self.own(program)
        argv = self.argv(
            words,
            binds=binds,
            env=env or {},
            extra=extra,
            program=program,
            toolbox=toolbox,
            root=root,
        )
        try:
            result = self.runner.run(
                argv,
                check=check,
                cwd=workdir if path else None,
                env=env if path else None,
                timeout=timeout,
                log=log,
                on_line=on_line,
                input=input,
                hide=hide,
                without=without,
            )
        except CommandFailed as error:
            if path:
                raise
            self._end(name)
            raise self._cause(error.result) or error from None
        except BaseException:
            if not path:
                self._end(name)
            raise
        cause = None if result.ok or path else self._cause(result)
        if cause:
            raise cause
        return result

    def _end(self, name: str) -> None:
        """Remove the container of a call that failed; who keeps one ends it himself."""
        if not self._box:
            remove(self.runner, name)

    def _cause(self, result: Result) -> SiflineError | None:
        return start_failure(self._toolbox, result, box=self._box)


def file_bind(path: Path) -> Bind:
    """Return how the toolbox sees a file that it reads: at its own path."""
    return Bind(source=path.absolute(), target=str(path.absolute()))


def _usable(name: str, version: Result) -> bool:
    match = _VERSION.search(version.stdout)
    if not version.ok or not match:
        return False
    return name != "singularity" or int(match[1]) >= OLDEST_SINGULARITY
