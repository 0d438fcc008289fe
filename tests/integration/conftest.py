"""A provisioned cluster with hello-mpi deployed, one for each worker that has tests of it.

``SIFLINE_TEST_CLUSTER=NAME`` reuses a standing one and leaves it standing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sifline.engines.ssh.nodes import Ssh
from sifline.machine.context import Context
from sifline.model import Cluster
from sifline.pipeline import Pipeline
from sifline.report.terminal import Terminal
from tests.support.command import ROOT, invoke
from tests.support.contexts import context_of
from tests.support.groups import STANDING

# A name for each worker of each run: they do not meet.
NAME = f"itest-{os.getpid()}"
PYTORCH = "pytorch-cuda12.1-mpi4.1"
# Where nothing of it is in the builder's cache.
BIG_SECONDS = 3000


@pytest.fixture(scope="session")
def context() -> Context:
    return context_of(ROOT, progress=Terminal())


@pytest.fixture(scope="session")
def pipeline(context: Context) -> Pipeline:
    return Pipeline(context, Terminal())


@pytest.fixture(scope="session")
def cluster(pipeline: Pipeline) -> Iterator[Cluster]:
    if STANDING:
        yield pipeline.clusters.find(STANDING)
        return
    try:
        yield pipeline.quickstart(NAME).cluster
    finally:
        pipeline.clusters.down(NAME)


@pytest.fixture
def ssh(cluster: Cluster, context: Context) -> Iterator[Ssh]:
    with Ssh(cluster, context.runner) as connections:
        yield connections


@pytest.fixture(scope="session")
def pytorch(cluster: Cluster) -> str:
    """The image of PyTorch, made and deployed; its name."""
    words = (f"make.{PYTORCH}", f"deploy.{PYTORCH}", "--cluster", cluster.name)
    done = invoke(*words, seconds=BIG_SECONDS)
    assert done.returncode == 0, done.stderr[-4000:]
    return PYTORCH
