"""Remove Docker images, SIFs, records and logs."""

from __future__ import annotations

from collections.abc import Sequence

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

        :param gone: with ``unused``, also clean images whose folder no longer exists.
        """
        from sifline.stages import clean

        steps = self._planner.plan(BUILD, names).steps if unused else ()
        space, known = self._workspace, [*self._planner.known(names)]
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
            dry=dry,
        )
