"""Open an image or its SIF on the user's terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sifline.engines.docker.shell import shell
from sifline.pipeline.plans import TOOLBOX, Planner

if TYPE_CHECKING:
    from sifline.model import Opening
    from sifline.pipeline.work import Work
    from sifline.stages.shell import Asked


class Opener:
    """Opens images and SIFs, after building or converting them if they are out of date."""

    def __init__(self, planner: Planner, work: Work) -> None:
        self._planner = planner
        self._work = work
        self._context, self._show = planner.context, planner.show

    def shell(
        self,
        name: str,
        command: Sequence[str],
        asked: Asked,
        *,
        sif: bool,
    ) -> int:
        """Open ``name`` on the user's terminal; return the exit status."""
        from sifline.stages import shell

        self._planner.known([name])
        opening = shell.opening(self._planner.images[name], asked, shell.Caller.here())
        wanted = shell.command(command)
        # If the output is not a terminal, a pseudo-terminal would change its line ends.
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        opened = self._open_sif if sif else self._open_image
        return opened(name, wanted, opening, terminal=terminal)

    def shell_file(
        self,
        path: Path,
        command: Sequence[str],
        asked: Asked,
    ) -> int:
        """Open a SIF file on the user's terminal; return the exit status.

        :raises UsageError: if it is not a SIF, or truncated or damaged.
        """
        from sifline.formats import sif as siffile
        from sifline.stages import discover, shell

        path = path.absolute()  # the toolbox starts in another folder
        siffile.system(siffile.read(path))
        # Nothing but the flags says how a file of others is opened.
        image = discover.foreign(
            path.stem,
            self._context.workspace,
            self._planner.site,
            self._planner.options.conversion,
        )
        opening = shell.opening(image, asked, shell.Caller.here())
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        return self._enter(path, shell.command(command), opening, terminal=terminal)

    def _open_image(
        self, name: str, command: Sequence[str], opening: Opening, *, terminal: bool
    ) -> int:
        (built,) = self._work.build([name])
        self._tell(opening)
        with self._work.labelled(sif=False) as label:
            return shell(
                self._context.runner,
                built.image_id,
                command,
                opening,
                terminal=terminal,
                label=label,
            )

    def _open_sif(
        self, name: str, command: Sequence[str], opening: Opening, *, terminal: bool
    ) -> int:
        (made,) = self._work.convert([name])
        return self._enter(made.path, command, opening, terminal=terminal)

    def _enter(
        self, path: Path, command: Sequence[str], opening: Opening, *, terminal: bool
    ) -> int:
        from sifline.engines.apptainer.sif import Sifs
        from sifline.formats import sif as siffile

        if self._planner.need_toolbox():
            self._work.build([TOOLBOX])
        self._tell(opening)
        # As Docker does; Apptainer by default starts in the caller's folder.
        workdir = siffile.workdir(siffile.read(path))
        with self._work.labelled(sif=True) as label:
            return Sifs(self._planner.apptainer).shell(
                path, command, opening, workdir=workdir, terminal=terminal, label=label
            )

    def _tell(self, opening: Opening) -> None:
        for note in opening.notes:
            self._show.line(note)
