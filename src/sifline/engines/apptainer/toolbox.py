"""The toolbox: the Docker image that provides Apptainer on machines without one."""

from __future__ import annotations

import fcntl
import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sifline.engines.docker.engine import LABEL_PURPOSE, mount, need_answer, reason, remove
from sifline.errors import MissingError, SiflineError, StepFailed
from sifline.machine.process import CommandFailed, Result, Runner
from sifline.model import Bind

TOOLBOX = "sifline/toolbox"
# Locked by the process that keeps a container of the toolbox running.
ALIVE = "/sifline-alive"
# docker's exit status if it could not start the container.
NOT_STARTED = 125
# Rights that Apptainer needs to create user namespaces and mount with FUSE inside a container.
# --privileged would ask for more, and fail if the engine itself has fewer rights.
TOOLBOX_RIGHTS = (
    *("--cap-add", "SYS_ADMIN"),
    *("--device", "/dev/fuse"),
    *("--security-opt", "apparmor=unconfined"),
    *("--security-opt", "seccomp=unconfined"),
    *("--security-opt", "systempaths=unconfined"),
)
_numbers = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Box:
    """A running container of the toolbox, and the binds that it has."""

    name: str
    binds: tuple[Bind, ...]

    def sees(self, bind: Bind) -> bool:
        """Return whether ``bind`` can be used in it, as in a container of its own."""
        return any(
            held.writable >= bind.writable
            and Path(bind.source).is_relative_to(held.source)
            and Path(held.target, Path(bind.source).relative_to(held.source)) == Path(bind.target)
            for held in self.binds
        )


class Toolbox:
    """Runs commands in containers of the toolbox: one for each command, or one kept for all."""

    def __init__(
        self,
        runner: Runner,
        *,
        user: tuple[int, int] | None = None,
        image: str = TOOLBOX,
        box: Box | None = None,
    ) -> None:
        self.image = image
        self.uid, self._gid = user or (os.getuid(), os.getgid())
        self._runner, self._box = runner, box

    @property
    def become(self) -> tuple[str, ...]:
        """Return the words before a command that make it run as the caller."""
        return ("as-user", f"{self.uid}:{self._gid}") if self.uid else ()

    def argv(
        self,
        words: Sequence[str],
        *,
        binds: Sequence[Bind],
        env: Mapping[str, str],
        extra: Sequence[str] = (),
        root: bool = False,
    ) -> list[str]:
        """Return the whole command line; ``env`` and ``extra`` are for the container.

        :param root: run as root instead of as the caller.
        """
        variables = [word for item in env.items() for word in ("--env", "=".join(item))]
        command = [*(() if root else self.become), *words]
        if self._box:
            unseen = [bind for bind in binds if not self._box.sees(bind)]
            assert not unseen, unseen  # noqa: S101 - whoever holds the toolbox says what it sees
            return ["docker", "exec", *extra, *variables, self._box.name, *command]
        argv = ["docker", "run", "--rm", "--pull", "never", *TOOLBOX_RIGHTS, *extra]
        for bind in binds:
            argv += ["--mount", mount(bind)]
        return [*argv, *variables, self.image, *command]

    def run(
        self,
        words: Sequence[str],
        *,
        root: bool = False,
        binds: Sequence[Bind] = (),
        env: Mapping[str, str] | None = None,
        workdir: Path | None = None,
        network: bool = True,
        gpus: bool = False,
        purpose: str = "",
        input: str | None = None,
        **options: Any,
    ) -> Result:
        """Run ``words`` and return the result; see ``Apptainer.run``.

        :param root: run as root instead of as the caller.
        """
        name = self._box.name if self._box else _new_name()
        extra = [] if self._box else ["--name", name, "--label", f"{LABEL_PURPOSE}={purpose}"]
        extra += [] if self._box or network else ["--network", "none"]
        extra += ["--gpus", "all"] if gpus and not self._box else []
        extra += ["--workdir", str(workdir)] if workdir else []
        extra += [] if input is None else ["--interactive"]
        argv = self.argv(words, binds=binds, env=env or {}, extra=extra, root=root)
        try:
            result = self._runner.run(argv, input=input, **options)
        except CommandFailed as error:
            self._end(name)
            raise self._start_failure(error.result) or error from None
        except BaseException:
            self._end(name)
            raise
        cause = None if result.ok else self._start_failure(result)
        if cause:
            raise cause
        return result

    @contextmanager
    def kept(
        self, binds: Sequence[Bind], *, label: str, network: bool, gpus: bool
    ) -> Iterator[Toolbox]:
        """Keep a container until the block or this process ends; yield a toolbox that uses it.

        :param label: label of the container, ``key=value``.
        """
        name = _new_name()
        extra = ["--detach", "--name", name, "--label", label]
        extra += [*([] if network else ["--network", "none"]), *(["--gpus", "all"] * gpus)]
        with tempfile.NamedTemporaryFile(prefix="sifline-held-", dir=_shared(binds)) as alive:
            # If this process is killed, it loses the lock: the container's first process gets it
            # and ends.
            fcntl.flock(alive, fcntl.LOCK_EX)
            # Root of the container opens it, who may be nobody on a shared file system.
            os.fchmod(alive.fileno(), 0o666)
            waiting = [*binds, Bind(source=Path(alive.name), target=ALIVE)]
            words = ["flock", ALIVE, "true"]
            argv = self.argv(words, root=True, binds=waiting, env={}, extra=extra)
            try:
                result = self._runner.run(argv, check=False)
                if not result.ok:
                    failed = CommandFailed("no toolbox was started", result)
                    raise self._start_failure(result) or failed
                box, user = Box(name=name, binds=tuple(binds)), (self.uid, self._gid)
                yield Toolbox(self._runner, user=user, image=self.image, box=box)
            finally:
                remove(self._runner, name)

    def _end(self, name: str) -> None:
        """Remove the container of a failed call; a kept one is removed by its owner."""
        if not self._box:
            remove(self._runner, name)

    def _start_failure(self, result: Result) -> SiflineError | None:
        """Return the error if the toolbox did not start; None if the command itself failed."""
        if result.returncode not in (1, NOT_STARTED):
            return None
        said = result.stderr
        if self._box:
            need_answer(result)
            # The container runs, so the status is that of the command in it.
            return None
        if "No such image" in said or "Unable to find image" in said:
            return MissingError(
                f"no apptainer on this machine, and no image {self.image};"
                " run invoke build.toolbox"
            )
        need_answer(result)
        if result.returncode != NOT_STARTED:
            return None
        return StepFailed(
            f"the engine did not start {self.image}: {reason(result)}; run invoke doctor",
            details=result.tail(),
        )


def _shared(binds: Sequence[Bind]) -> Path | None:
    """Return a folder that the engine sees as well as we do; None where only a guess is left.

    Where sifline runs in a container, its /tmp is none that the host's engine could bind.
    """
    folders = (Path(bind.source) for bind in binds if bind.writable)
    return next((folder for folder in folders if folder.is_dir()), None)


def seen(path: Path, *, writable: bool = False) -> Bind:
    """Return a bind that gives ``path`` the same place in the toolbox."""
    path = path.absolute()
    return Bind(source=path, target=str(path), writable=writable)


def _new_name() -> str:
    """Return a unique name for a container."""
    return f"sifline-apptainer-{os.getpid()}-{next(_numbers)}"
