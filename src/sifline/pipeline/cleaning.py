"""Remove Docker images, SIFs, records and logs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sifline.contents import sif_records
from sifline.errors import UsageError
from sifline.model import Cleaned, Image
from sifline.pipeline.plans import BUILD, Planner
from sifline.stages.discover import tag_of


class Cleaner:
    """Removes what sifline made from the images of one checkout."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._context, self._workspace = planner.context, planner.workspace

    def environments(self, *, dry: bool) -> Cleaned:
        """Remove the environments and the tools' caches that were made for this checkout."""
        from sifline.stages import environments

        return environments.clean(self._workspace, dry=dry)

    def clean_files(self, files: Sequence[Path], *, dry: bool) -> Cleaned:
        """Remove SIFs of ``build/sif``, whatever they were made of.

        :raises UsageError: naming a file that is no such SIF.
        """
        from sifline.stages import clean

        for path in files:
            if not path.is_file():
                raise UsageError(f"{path}: there is no such file")
            if not sif_records.is_ours(Path(os.path.realpath(path)), self._workspace):
                raise UsageError(
                    f"{path}: is not in {self._workspace.sifs}, where sifline keeps its SIFs;"
                    " remove it with rm"
                )
        return clean.clean(
            [],
            clean.Parts(docker=False, state=False),
            self._context,
            sources=[Path(os.path.realpath(path)).stem for path in files],
            dry=dry,
        )

    def clean(
        self,
        names: Sequence[str],
        *,
        parts: Sequence[str],
        older_than: float,
        unused: bool,
        foreign: bool,
        gone: bool,
        dry: bool,
    ) -> Cleaned:
        """Remove ``parts`` (docker, sifs, state) of the images ``names``.

        :param gone: also SIFs that were made of other sources; with ``unused`` not these, but
            images whose folder no longer exists.
        """
        from sifline.stages import clean

        steps = self._planner.plan(BUILD, names).steps if unused else ()
        space, known = self._workspace, [*self._planner.known(names)]
        others = clean.sources(self._planner.images, space) if gone and not unused else []
        if unused and gone:
            known += clean.gone(self._planner.images, space)
        return clean.clean(
            # Their Dockerfiles are not read: they may be broken or deleted.
            [Image(name=name, folder=space.images / name, tag=tag_of(name)) for name in known],
            clean.Parts(
                **{part: part in parts for part in ("docker", "sifs", "state")},
                older_than=older_than,
                unused=unused,
                foreign=foreign,
            ),
            self._context,
            at_hand={step.held.image_id for step in steps if step.held},
            sources=others,
            dry=dry,
        )
