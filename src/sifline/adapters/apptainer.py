"""Apptainer: the machine's own, else the one in the toolbox image through Docker."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sifline.engine import need_answer
from sifline.errors import MissingError, SiflineError, StepFailed
from sifline.runner import CommandFailed, OnLine, Result, Runner

TOOLBOX = "sifline/toolbox"
LABEL_PURPOSE = "sifline.apptainer"
# singularity 3 is another program with other options.
NAMES = ("apptainer", "singularity")
OLDEST_SINGULARITY = 4
# How the docker command says that it could not start the container at all.
NOT_STARTED = 125
# What Apptainer needs to make user namespaces and mount with FUSE inside a container.
# Not --privileged: it asks for more, and fails where the engine itself holds less.
TOOLBOX_RIGHTS = (
    *("--cap-add", "SYS_ADMIN"),
    *("--device", "/dev/fuse"),
    *("--security-opt", "apparmor=unconfined"),
    *("--security-opt", "seccomp=unconfined"),
    *("--security-opt", "systempaths=unconfined"),
)

_VERSION = re.compile(r"(\d+)\.\d+\S*")
_numbers = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Bind:
    """A host path that is seen at ``target`` inside; files are read-only unless said."""

    source: Path
    target: str
    writable: bool = False

    @classmethod
    def parse(cls, text: str) -> Bind:
        """Read ``SOURCE[:TARGET[:ro]]``, as the command lines of both engines write it."""
        source, _, rest = text.partition(":")
        target, _, mode = rest.partition(":")
        place = Path(source).expanduser().absolute()
        return cls(source=place, target=target or str(place), writable=mode != "ro")

    @property
    def words(self) -> str:
        """The same for Apptainer."""
        return f"{self.source}:{self.target}:{'rw' if self.writable else 'ro'}"


@dataclass(frozen=True, kw_only=True)
class Compression:
    """How the squashfs is compressed."""

    name: str = "zstd"
    level: int | None = 3

    @property
    def mksquashfs(self) -> str:
        """The arguments of mksquashfs."""
        level = "" if self.level is None else f" -Xcompression-level {self.level}"
        return f"-comp {self.name}{level}"


class Apptainer:
    """Builds, runs and inspects SIFs, whichever way Apptainer is to be had."""

    def __init__(
        self,
        runner: Runner,
        *,
        toolbox: str = TOOLBOX,
        user: tuple[int, int] | None = None,
    ) -> None:
        self._runner = runner
        self._toolbox = toolbox
        self._uid, self._gid = user or (os.getuid(), os.getgid())

    @cached_property
    def native(self) -> str | None:
        """The path of a usable program on this machine, or None."""
        for name in NAMES:
            path = self._runner.which(name)
            if path and _usable(name, self._runner.run([path, "--version"], check=False)):
                return path
        return None

    @cached_property
    def version(self) -> str:
        """The version of the program that is used, such as ``1.4.5``."""
        printed = self._run(["--version"]).stdout
        match = _VERSION.search(printed)
        return match[0] if match else printed.strip()

    def description(self) -> str:
        """Say what is used, for people: ``apptainer 1.4.5 in sifline/toolbox``."""
        if self.native:
            return f"{Path(self.native).name} {self.version} of this machine"
        return f"apptainer {self.version} in {self._toolbox}"

    def build_from_layout(
        self,
        layout: Path,
        sif: Path,
        *,
        labels: Mapping[str, str],
        compression: Compression,
        log: Path | None = None,
        on_line: OnLine | None = None,
    ) -> Result:
        """Make ``sif`` of an OCI layout. The folder around that is the scratch space, too.

        :raises CommandFailed: with the end of what the build printed.
        """
        scratch = layout.parent
        recipe = scratch / f"{layout.name}.def"
        recipe.write_text(definition(layout.name, labels), encoding="utf-8")
        return self._run(
            [
                *("build", "--disable-cache", "--mksquashfs-args", compression.mksquashfs),
                *(str(sif), recipe.name),
            ],
            binds=[
                Bind(source=folder, target=str(folder), writable=True)
                for folder in dict.fromkeys((scratch, sif.parent))
            ],
            env={"APPTAINER_TMPDIR": str(scratch)},
            workdir=scratch,
            network=False,
            purpose=str(scratch),
            log=log,
            on_line=on_line,
        )

    def exec(
        self,
        sif: Path,
        argv: Sequence[str],
        *,
        binds: Sequence[Bind] = (),
        env: Mapping[str, str] | None = None,
        workdir: str = "",
        check: bool = True,
        timeout: float | None = None,
    ) -> Result:
        """Run ``argv`` inside ``sif``, apart from the caller's environment and home."""
        words = ["exec", *self._options(binds, workdir), str(sif), *argv]
        return self._run(
            words,
            binds=[_file(sif), *map(_same, binds)],
            env=self._inside(env or {}),
            check=check,
            timeout=timeout,
        )

    def shell_argv(
        self,
        sif: Path,
        command: Sequence[str],
        *,
        binds: Sequence[str] = (),
        gpus: bool = False,
        terminal: bool = False,
    ) -> list[str]:
        """Return the command line that runs ``command`` inside ``sif`` for a person."""
        parsed = [Bind.parse(text) for text in binds]
        words = ["exec", *self._options(parsed, ""), *(["--nv"] if gpus else [])]
        return self._argv(
            [*words, str(sif), *command],
            binds=[_file(sif), *map(_same, parsed)],
            env={},
            extra=[
                "--interactive",
                *(["--tty"] if terminal else []),
                *(["--gpus", "all"] if gpus else []),
            ],
        )

    def inspect(self, sif: Path) -> dict[str, Any]:
        """Return what Apptainer says of ``sif``: labels, environment, run script."""
        result = self._run(["inspect", "--json", "--all", str(sif)], binds=[_file(sif)])
        try:
            found = json.loads(result.stdout)["data"]["attributes"]
        except (ValueError, KeyError, TypeError):
            raise StepFailed(
                f"{sif}: apptainer inspect printed no JSON", details=result.tail()
            ) from None
        return dict(found)

    def sif_list(self, sif: Path) -> str:
        """Return Apptainer's own table of the data objects.

        :raises CommandFailed: where Apptainer cannot read the file.
        """
        return self._run(["sif", "list", str(sif)], binds=[_file(sif)]).stdout

    def stop_builds(self, scratch: Path) -> None:
        """End the build that a killed run left at work in ``scratch``."""
        if self.native:
            return
        listed = self._runner.run(
            ["docker", "ps", "--all", "--quiet", "--filter", f"label={LABEL_PURPOSE}={scratch}"]
        )
        if listed.stdout.split():
            self._runner.run(["docker", "rm", "--force", *listed.stdout.split()])

    # How a command line comes about

    def _options(self, binds: Sequence[Bind], workdir: str) -> list[str]:
        options = ["--cleanenv", "--contain"]
        if not self.native and self._uid == 0:
            # Root would mount as a set-uid program does, with more rights than there are here.
            options.append("--userns")
        for bind in binds:
            options += ["--bind", bind.words]
        return options + (["--pwd", workdir] if workdir else [])

    def _inside(self, env: Mapping[str, str]) -> dict[str, str]:
        prefix = Path(self.native).name.upper() if self.native else "APPTAINER"
        return {f"{prefix}ENV_{key}": value for key, value in env.items()}

    def _argv(
        self,
        words: Sequence[str],
        *,
        binds: Sequence[Bind],
        env: Mapping[str, str],
        extra: Sequence[str] = (),
    ) -> list[str]:
        """Return the whole command line; ``env`` and ``extra`` are for the container."""
        if self.native:
            return [self.native, *words]
        argv = ["docker", "run", "--rm", "--pull", "never", *TOOLBOX_RIGHTS, *extra]
        for bind in binds:
            argv += ["--mount", mount(bind)]
        for key, value in env.items():
            argv += ["--env", f"{key}={value}"]
        become = ["as-user", f"{self._uid}:{self._gid}"] if self._uid else []
        return [*argv, self._toolbox, *become, "apptainer", *words]

    def _run(
        self,
        words: Sequence[str],
        *,
        binds: Sequence[Bind] = (),
        env: Mapping[str, str] | None = None,
        workdir: Path | None = None,
        network: bool = True,
        purpose: str = "",
        check: bool = True,
        timeout: float | None = None,
        log: Path | None = None,
        on_line: OnLine | None = None,
    ) -> Result:
        name = f"sifline-apptainer-{os.getpid()}-{next(_numbers)}"
        extra = ["--name", name, "--label", f"{LABEL_PURPOSE}={purpose}"]
        extra += ["--workdir", str(workdir)] if workdir else []
        extra += [] if network else ["--network", "none"]
        argv = self._argv(words, binds=binds, env=env or {}, extra=extra)
        try:
            result = self._runner.run(
                argv,
                check=check,
                cwd=workdir if self.native else None,
                env=env if self.native else None,
                timeout=timeout,
                log=log,
                on_line=on_line,
            )
        except CommandFailed as error:
            self._remove(name)
            raise self._cause(error.result) or error from None
        except BaseException:
            self._remove(name)
            raise
        cause = None if result.ok else self._cause(result)
        if cause:
            raise cause
        return result

    def _remove(self, name: str) -> None:
        """End the container; the docker command's own end does not always do that."""
        if not self.native:
            with suppress(SiflineError):
                self._runner.run(["docker", "rm", "--force", name], check=False, timeout=30)

    def _cause(self, result: Result) -> SiflineError | None:
        """Return what kept the toolbox from starting; None where it was not that."""
        if self.native or result.returncode not in (1, NOT_STARTED):
            return None
        said = result.stderr
        if "No such image" in said or "Unable to find image" in said:
            return MissingError(
                f"no apptainer on this machine, and no image {self._toolbox};"
                " run invoke build.toolbox"
            )
        need_answer(result)
        if result.returncode != NOT_STARTED:
            return None
        return StepFailed(
            f"the engine did not start {self._toolbox}; run invoke doctor", details=result.tail()
        )


def definition(layout: str, labels: Mapping[str, str]) -> str:
    """Return the definition file that takes an OCI layout as it is and adds ``labels``."""
    lines = ["Bootstrap: oci", f"From: {layout}", "", "%labels"]
    lines += [f"    {key} {value}" for key, value in labels.items() if value]
    return "\n".join(lines) + "\n"


def mount(bind: Bind) -> str:
    """Return a bind for the docker command; its format is CSV, so quotes are doubled."""
    fields = ["type=bind", f"source={bind.source}", f"target={bind.target}"]
    fields += [] if bind.writable else ["readonly"]
    quoted = ['"' + field.replace('"', '""') + '"' for field in fields]
    return ",".join(quoted)


def _file(path: Path) -> Bind:
    return Bind(source=path.absolute(), target=str(path.absolute()))


def _same(bind: Bind) -> Bind:
    """The toolbox sees the same path; Apptainer maps it to the target."""
    return Bind(source=bind.source, target=str(bind.source), writable=bind.writable)


def _usable(name: str, version: Result) -> bool:
    match = _VERSION.search(version.stdout)
    if not version.ok or not match:
        return False
    return name != "singularity" or int(match[1]) >= OLDEST_SINGULARITY
