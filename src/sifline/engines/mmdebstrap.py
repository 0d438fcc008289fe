"""Makes Debian root file systems with mmdebstrap from a package mirror; no hub is needed."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from sifline.errors import StepFailed
from sifline.machine import records
from sifline.machine.process import CommandFailed, Runner
from sifline.model import DOCKER_CLEAN, Prepare

# Any fixed time would do: file times are limited to it, so that equal archives give equal bytes.
EPOCH = "1735689600"
# dpkg need not sync each file: after a crash the root file system is made again. The resulting tar
# does not contain the setting.
_FOLDER = '"$1"/etc/dpkg/dpkg.cfg.d'
_NOT_SYNCED = (
    f"--setup-hook=mkdir --parents {_FOLDER} && echo force-unsafe-io > {_FOLDER}/not-synced",
    f"--customize-hook=rm {_FOLDER}/not-synced",
)
# Written at the end, because mmdebstrap's own apt would run the commands in it on this machine.
# mmdebstrap removes the caches that these settings name, and they name none.
_WITHOUT_CACHES = (
    f"--customize-hook=printf %s {shlex.quote(DOCKER_CLEAN)}"
    ' > "$1"/etc/apt/apt.conf.d/docker-clean',
    '--customize-hook=rm --force "$1"/var/cache/apt/*.bin',
)


class Mmdebstrap:
    """Makes a tar file of a minimal Debian system."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def make(self, prepare: Prepare, target: Path, *, log: Path) -> None:
        """Make ``target``; the same archive state gives the same bytes.

        :raises StepFailed: if the archive cannot be reached or the disk is full.
        """
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        for leftover in target.parent.glob(f".{target.name}.*.tmp"):
            leftover.unlink()
        argv = [
            "mmdebstrap",
            "--variant=minbase",
            "--format=tar",
            # A snapshot mirror serves indexes past their Valid-Until date; signatures still count.
            '--aptopt=Acquire::Check-Valid-Until "false"',
            *_NOT_SYNCED,
            *_WITHOUT_CACHES,
            *([f"--include={','.join(prepare.packages)}"] if prepare.packages else []),
            prepare.suite,
            str(temporary),
            *prepare.sources,
        ]
        log.unlink(missing_ok=True)
        try:
            self._runner.run(argv, env={"SOURCE_DATE_EPOCH": EPOCH}, log=log)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
            records.sync_folder(target.parent)
        except CommandFailed as error:
            free = shutil.disk_usage(target.parent).free // 2**20
            raise StepFailed(
                f"mmdebstrap of {prepare.suite} failed with {free} MiB free; is the package mirror"
                f" reachable? The whole log is {log}",
                details=error.details,
            ) from None
        finally:
            temporary.unlink(missing_ok=True)
