"""SIFs as Apptainer opens them: what is in them, and commands and shells inside them."""

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

# Of variables that are flags of Apptainer, or variables in a SIF, whichever of both programs runs.
_VARIABLES = tuple(name.upper() for name in NAMES)
# Those that say where it keeps its files, and nothing of what is in a container.
_PLACES = ("CACHEDIR", "CONFIGDIR", "KEYSDIR", "TMPDIR")
# Of a SIF that is kept open; one in each container of the toolbox.
INSTANCE = "sifline"
# The kernel holds every user to the modes of the files.
_MOUNT = (
    'mkdir -p "$0" && exec squashfuse_ll -o "allow_other,default_permissions,offset=$1" "$2" "$0"'
)
# Its folder has the SIF's name: so Apptainer calls the container.
STRICT = "/run/strict"


class Run(Protocol):
    """Runs a command inside a SIF to its end, whatever its exit status is."""

    def __call__(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, workdir: str = ""
    ) -> Result:
        """Return what came of ``argv``."""


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
        """Run ``argv`` inside ``sif``, apart from the caller's environment and home.

        :param gpus: hand in all GPUs of the host, which has to have some.
        :param instance: of the SIF, to be joined instead of starting another container.
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
        """Keep ``sif`` open for many commands, which see each other's processes and /tmp.

        In the toolbox this saves each command a container and a mount. The machine's own
        Apptainer starts a container for each: that is quick, and nothing would end an instance
        whose caller was killed.

        :param label: of the toolbox's container, ``key=value``.
        :param gpus: hand in all GPUs of the host, which has to have some.
        :param strict: where its squashfs begins, to have files belong to whom they do in the
            image, as where Apptainer is set-uid; else they are all the caller's. In the toolbox.
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
        """Mount ``sif`` for all users of the toolbox that is kept; return where it is."""
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

        :param workdir: where it starts, if ``opening`` does not say.
        :param label: of the toolbox's container, ``key=value``.
        """
        # At its own path a folder would hide one of the toolbox: its programs, its /etc.
        places = {
            bind: bind.source if self._apptainer.native else Path(f"/sifline/{number}")
            for number, bind in enumerate(opening.binds)
        }
        inside = [replace(bind, source=place) for bind, place in places.items()]
        words = ["exec", *self._options(inside, opening.workdir or workdir)]
        home = next((bind for bind in inside if bind.target == opening.home), None)
        words += ["--home", f"{home.source}:{home.target}"] if home else []
        words += ["--nv"] if opening.gpus else []
        # As variables they stand in no list of processes; Apptainer would evaluate their values.
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
        """Return what Apptainer says of ``sif``: labels, environment, run script."""
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
        """Return Apptainer's own table of the data objects.

        :raises CommandFailed: where Apptainer cannot read the file.
        """
        return self._apptainer.run([APPTAINER, "sif", "list", str(sif)], binds=[seen(sif)]).stdout

    def add_object(self, sif: Path, note: Path, *, log: Path) -> None:
        """Add the JSON file ``note`` to ``sif``, under its own name, in the group of the system.

        :raises CommandFailed: where Apptainer cannot.
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
            # Root would mount as a set-uid program does, with more rights than there are here.
            options.append("--userns")
        for bind in binds:
            options += ["--mount", mount(bind)]
        return options + (["--pwd", workdir] if workdir else [])

    def _inside(self, env: Mapping[str, str]) -> dict[str, str]:
        prefix = f"{self._apptainer.name.upper()}ENV_"
        return {f"{prefix}{key}": value for key, value in env.items()}


def settings(names: Iterable[str]) -> frozenset[str]:
    """Return those of ``names`` by which Apptainer changes what is in a container."""
    kept = {f"{prefix}_{place}" for prefix in _VARIABLES for place in _PLACES}
    return frozenset(name for name in names if name.startswith(_VARIABLES) and name not in kept)


def _container_options(
    opening: Opening, variables: Iterable[str], *, terminal: bool, label: str
) -> list[str]:
    """Return docker's options for a shell; variables are named alone, without their values."""
    options = ["--interactive", *(["--tty"] if terminal else [])]
    options += ["--label", label] if label else []
    # All of them: numbers count those that the toolbox has.
    options += ["--gpus", "all"] if opening.gpus else []
    return options + [word for name in variables for word in ("--env", name)]


def _values(env: Mapping[str, str | None]) -> dict[str, str]:
    return {name: os.environ[name] if value is None else value for name, value in env.items()}


def _visible(gpus: str) -> dict[str, str]:
    """Return the variables by which CUDA sees those GPUs alone: Apptainer hands in all of them."""
    if gpus in ("", "all"):
        return {}
    _, named, devices = gpus.partition("device=")
    return {
        # The order of nvidia-smi and Docker; by itself CUDA puts the fastest first.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": devices if named else ",".join(map(str, range(int(gpus)))),
    }


def _same(bind: Bind) -> Bind:
    """The toolbox sees the same path; Apptainer maps it to the target."""
    return Bind(source=bind.source, target=str(bind.source), writable=bind.writable)
