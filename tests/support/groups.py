"""Which tests go to one worker because they share a standing cluster."""

from __future__ import annotations

import os

import pytest

STANDING = os.environ.get("SIFLINE_TEST_CLUSTER")


def shares_cluster(group: str) -> pytest.MarkDecorator:
    """Return the mark of tests that use the fixture ``cluster``.

    Each worker brings up a cluster of its own, so each group may have another one; but where
    one was named that stands, all groups meet there, and have to be one.
    """
    return pytest.mark.xdist_group("standing cluster" if STANDING else group)
