"""A provisioned cluster with hello-mpi deployed, shared by all integration tests.

``SIFLINE_TEST_CLUSTER=NAME`` reuses a standing one and leaves it standing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sifline.model import Cluster, Workspace
from sifline.pipeline import Pipeline
from sifline.report.terminal import Terminal
from sifline.runner import Context, ProcessRunner

ROOT = Path(__file__).parents[2]
NAME = "itest"


@pytest.fixture(scope="session")
def context() -> Context:
    return Context(workspace=Workspace(root=ROOT), runner=ProcessRunner(), progress=Terminal())


@pytest.fixture(scope="session")
def pipeline(context: Context) -> Pipeline:
    return Pipeline(context, Terminal())


@pytest.fixture(scope="session")
def cluster(pipeline: Pipeline) -> Iterator[Cluster]:
    standing = os.environ.get("SIFLINE_TEST_CLUSTER")
    if standing:
        yield pipeline.cluster(standing)
        return
    try:
        yield pipeline.quickstart(NAME).cluster
    finally:
        pipeline.cluster_down(NAME)
