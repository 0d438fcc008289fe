"""A provisioned cluster with hello-mpi deployed, shared by all integration tests.

``SIFLINE_TEST_CLUSTER=NAME`` reuses a standing one and leaves it standing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sifline.model import Cluster, Workspace
from sifline.pipeline import Pipeline
from sifline.report.terminal import Terminal
from sifline.runner import Context, ProcessRunner

ROOT = Path(__file__).parents[2]
NAME = "itest"
PYTORCH = "pytorch-cuda12.1-mpi4.1"
# Where nothing of it is in the builder's cache.
BIG_SECONDS = 3000


def invoke(*words: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
    """Run a command line as a person types it; it never ends in a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "invoke", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


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


@pytest.fixture(scope="session")
def pytorch(cluster: Cluster) -> str:
    """The image of PyTorch, made and deployed; its name."""
    words = (f"make.{PYTORCH}", f"deploy.{PYTORCH}", "--cluster", cluster.name)
    done = invoke(*words, seconds=BIG_SECONDS)
    assert done.returncode == 0, done.stderr[-4000:]
    return PYTORCH
