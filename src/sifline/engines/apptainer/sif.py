"""Opens SIFs with Apptainer: inspects them, and runs commands and shells inside them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from sifline.engines.apptainer.program import APPTAINER, NAMES, Apptainer
from sifline.engines.apptainer.toolbox import seen
from sifline.engines.docker.engine import attach, mount
from sifline.errors import StepFailed
from sifline.machine.process import Result
from sifline.model import Bind, Opening

# Prefixes of variables that are options of Apptainer or variables inside a SIF, for both programs.
_VARIABLES = tuple(name.upper() for name in NAMES)
# Variables that only say where Apptainer keeps its files.
_PLACES = ("CACHEDIR", "CONFIGDIR", "KEYSDIR", "TMPDIR")
# Name of the instance of a SIF that is kept open; one in each container of the toolbox.
INSTANCE = "sifline"
# The kernel applies the modes of the files to every user.
_MOUNT = (
    'mkdir -p "$0" && exec squashfuse_ll -o "allow_other,default_permissions,offset=$1" "$2" "$0"'
)
# The folder has the SIF's name, since Apptainer names the container after it.
STRICT = "/run/strict"


class Run(Protocol):
    """Runs a command inside a SIF; any exit status is accepted."""

    def __call__(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, workdir: str = ""
    ) -> Result:
        """Return the result of ``argv``."""


class Sifs:
    """Inspects SIFs and runs commands inside them."""

    def __init__(self, apptainer: Apptainer) -> None:
        self._apptainer = apptainer

    def exec(
        self,
        sif: Path,
        argv: Sequence[str],
        *,
        binds: Sequence[Bind] = (),
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        gpus: bool = False,
        instance: str = "",
        check: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Run ``argv`` inside ``sif``, isolated from the caller's environment and home.

        :param gpus: pass in all GPUs of the host, which must have some.
        :param instance: a running instance of the SIF to join instead of starting a container.
        """
        nvidia = ["--nv"] if gpus else []
        # Apptainer would evaluate the values.
        literal = ["--no-eval"] if env else []
        options = [*self._options(binds, workdir), *nvidia, *literal]
        return self._apptainer.run(
            [APPTAINER, "exec", *options, instance or str(sif), *argv],
            binds=[seen(sif), *map(_same, binds)],
            env=self._inside(env or {}),
            gpus=gpus,
            check=check,
            timeout=timeout,
            without=settings(os.environ),
        )

    @contextmanager
    def opened(
        self, sif: Path, *, label: str, gpus: bool = False, strict: int | None = None
    ) -> Iterator[Run]:
        """Keep ``sif`` open for many commands, which share processes and /tmp.

        In the toolbox this saves each command a container and a mount. The machine's own Apptainer
        starts a container for each command: that is fast, and an instance would survive a killed
        caller.

        :param label: label of the toolbox's container, ``key=value``.
        :param gpus: pass in all GPUs of the host, which must have some.
        :param strict: the offset of the squashfs, to keep the owners of files as in the image, as
            set-uid Apptainer does; otherwise all belong to the caller. Only in the toolbox.
        """
        if self._apptainer.native:
            yield partial(self.exec, sif, gpus=gpus, check=False)
            return
        with self._apptainer.kept([seen(sif)], label=label, gpus=gpus) as held:
            inside = Sifs(held)
            image = str(sif) if strict is None else inside._strictly(sif, strict)
            words = [APPTAINER, "instance", "start", *self._options((), ""), *(["--nv"] * gpus)]
            joined = held.run([*words, image, INSTANCE], binds=[seen(sif)], check=False)
            # An image without a shell cannot become an instance.
            opened = f"instance://{INSTANCE}" if joined.ok else image
            nvidia = gpus and not joined.ok
            yield partial(inside.exec, sif, instance=opened, gpus=nvidia, check=False)

    def _strictly(self, sif: Path, offset: int) -> str:
        """Mount ``sif`` for all users of the kept toolbox; return the mount point."""
        place = f"{STRICT}/{sif.name}"
        words = ["sh", "-c", _MOUNT, place, str(offset), str(sif)]
        self._apptainer.toolbox.run(words, root=True, binds=[seen(sif)])
        return place

    def shell(
        self,
        sif: Path,
        command: Sequence[str],
        opening: Opening,
        *,
        workdir: str,
        terminal: bool,
        label: str = "",
    ) -> int:
        """Run ``command`` inside ``sif`` on the user's own terminal; return its exit status.

        :param workdir: the working directory, if ``opening`` sets none.
        :param label: label of the toolbox's container, ``key=value``.
        """
        # At its own path a folder could hide one of the toolbox, such as /etc.
        places = {
            bind: bind.source if self._apptainer.native else Path(f"/sifline/{number}")
            for number, bind in enumerate(opening.binds)
        }
        inside = [replace(bind, source=place) for bind, place in places.items()]
        words = ["exec", *self._options(inside, opening.workdir or workdir)]
        home = next((bind for bind in inside if bind.target == opening.home), None)
        words += ["--home", f"{home.source}:{home.target}"] if home else []
        words += ["--nv"] if opening.gpus else []
        # Variables appear in no process list; Apptainer would evaluate their values otherwise.
        env = self._inside({**_visible(opening.gpus), **_values(opening.env)})
        words += ["--no-eval"] if env else []
        words += [str(sif), *command]
        runner = self._apptainer.runner
        if self._apptainer.native:
            return runner.attach([self._apptainer.native, *words], env=env or None)
        container = f"sifline-shell-{os.getpid()}"
        options = _container_options(opening, env, terminal=terminal, label=label)
        binds = [replace(bind, target=str(place)) for bind, place in places.items()]
        argv = self._apptainer.toolbox.argv(
            [APPTAINER, *words],
            binds=[seen(sif), *binds],
            env={},
            extra=["--name", container, *options],
        )
        return attach(runner, argv, name=container, env=env or None)

    def inspect(self, sif: Path) -> dict[str, Any]:
        """Return the output of ``apptainer inspect``: labels, environment, run script."""
        result = self._apptainer.run(
            [APPTAINER, "inspect", "--json", "--all", str(sif)], binds=[seen(sif)]
        )
        try:
            found = json.loads(result.stdout)["data"]["attributes"]
        except (ValueError, KeyError, TypeError):
            raise StepFailed(
                f"{sif}: apptainer inspect printed no JSON", details=result.tail()
            ) from None
        return dict(found)

    def list_objects(self, sif: Path) -> str:
        """Return the output of ``apptainer sif list``: the table of data objects.

        :raises CommandFailed: if Apptainer cannot read the file.
        """
        return self._apptainer.run([APPTAINER, "sif", "list", str(sif)], binds=[seen(sif)]).stdout

    def add_object(self, sif: Path, note: Path, *, log: Path) -> None:
        """Add the JSON file ``note`` to ``sif``, under its own name, in the system's group.

        :raises CommandFailed: if Apptainer fails.
        """
        kind = ("--datatype", "6", "--groupid", "1", "--filename", note.name)
        self._apptainer.run(
            [APPTAINER, "sif", "add", *kind, str(sif), str(note)],
            binds=[
                seen(sif.parent, writable=True),
                seen(note),
            ],
            network=False,
            log=log,
        )

    def _options(self, binds: Sequence[Bind], workdir: str) -> list[str]:
        options = ["--cleanenv", "--contain"]
        if not self._apptainer.native and self._apptainer.toolbox.uid == 0:
            # As root, Apptainer would mount as a set-uid program does, which needs more rights.
            options.append("--userns")
        for bind in binds:
            options += ["--mount", mount(bind)]
        return options + (["--pwd", workdir] if workdir else [])

    def _inside(self, env: Mapping[str, str]) -> dict[str, str]:
        prefix = f"{self._apptainer.name.upper()}ENV_"
        return {f"{prefix}{key}": value for key, value in env.items()}


def settings(names: Iterable[str]) -> frozenset[str]:
    """Return those of ``names`` that change what Apptainer does with a container."""
    kept = {f"{prefix}_{place}" for prefix in _VARIABLES for place in _PLACES}
    return frozenset(name for name in names if name.startswith(_VARIABLES) and name not in kept)


def _container_options(
    opening: Opening, variables: Iterable[str], *, terminal: bool, label: str
) -> list[str]:
    """Return docker's options for a shell; variables are passed by name, without values."""
    options = ["--interactive", *(["--tty"] if terminal else [])]
    options += ["--label", label] if label else []
    # All GPUs: the numbers refer to those that the toolbox has.
    options += ["--gpus", "all"] if opening.gpus else []
    return options + [word for name in variables for word in ("--env", name)]


def _values(env: Mapping[str, str | None]) -> dict[str, str]:
    return {name: os.environ[name] if value is None else value for name, value in env.items()}


def _visible(gpus: str) -> dict[str, str]:
    """Return the variables that limit CUDA to those GPUs: Apptainer passes all of them in."""
    if gpus in ("", "all"):
        return {}
    _, named, devices = gpus.partition("device=")
    return {
        # The order of nvidia-smi and Docker; CUDA's default is the fastest first.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": devices if named else ",".join(map(str, range(int(gpus)))),
    }


def _same(bind: Bind) -> Bind:
    """Return a bind of the same path for the toolbox; Apptainer maps it to the target."""
    return Bind(source=bind.source, target=str(bind.source), writable=bind.writable)
