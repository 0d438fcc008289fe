"""``[tool.sifline]`` of the repository's pyproject.toml: settings for all of its images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from sifline.config.sites import PART, REGISTRY
from sifline.fields.keys import Key, Keys
from sifline.fields.kinds import Several, Text
from sifline.fields.table import Table, read_toml
from sifline.model import Workspace

FILE = "pyproject.toml"
_OR_NAME = PART.replace("[a-z0-9]+", "(?:[a-z0-9]|[{]name[}])+")


@dataclass(frozen=True, kw_only=True)
class _Project:
    """The keys of ``[tool.sifline]``."""

    own_references: Annotated[
        tuple[str, ...],
        Key(
            name="own-references",
            kind=Several(
                item=Text(
                    what='a reference with {name} once and without a tag, "ghcr.io/acme/{name}"',
                    pattern=rf"(?=[^{{}}]*[{{]name[}}][^{{}}]*$)(?:{REGISTRY}|{_OR_NAME})"
                    rf"(?:/{_OR_NAME})+",
                )
            ),
            help="References under which the images of this repository are published. Without a"
            " tag, or with `latest`, such a reference means the folder `images/{name}`.",
            example=["ghcr.io/acme/{name}"],
        ),
    ] = ()


def own_references(workspace: Workspace) -> tuple[str, ...]:
    """Return the patterns of references that the repository declares as its own.

    :raises UsageError: naming file, key and the allowed values.
    """
    whole = read_toml(workspace.root / FILE)
    table = whole.sub("tool").sub("sifline") if whole else Table(workspace.root / FILE, {})
    return Keys(of=_Project).value(table).own_references
