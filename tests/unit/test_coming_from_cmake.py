"""The page for users of the CMake system has a row for each thing that system had."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "coming-from-cmake.md"
COMMANDS = (
    *(f"hpc-container-manager {verb}" for verb in ("convert", "test", "deploy", "info")),
    "hpc-container-manager docker prompt",
    *("setup-container-tools", "setup-hpc-cli", "build-docker-X", "test-docker-X"),
    *("convert-to-apptainer-X", "convert-all-to-apptainer", "test-apptainer-X"),
    *("run-in-dev-container.sh", "convert-single.sh", "test-apptainer-local.sh"),
    *("deploy-single.sh", "deploy-all.sh", "diagnose_training_failure"),
    *("phase `start`", "phase `deploy`", "phase `run`", "phase `stop`", "phase `status`"),
    *("phase `list`", "container-registry", "slurm-controller", "slurm-compute"),
    "packer_build",
)
PACKAGES = (
    *("build-essential", "pkg-config", "wget", "curl", "vim", "CMake", "tensorboard", "wandb"),
    *("nvitop", "py-spy", "memory-profiler", "psutil", "ipython", "jupyter", "matplotlib"),
    *("pandas", "scikit-learn", "pytest", "pytest-cov", "black", "flake8", "mypy", "git"),
    *("SSH client", "entrypoint script"),
)
DEVIATIONS = (
    *("Python 3.10", "Ubuntu 24.04", "NVIDIA's CUDA image", "TensorFlow 2.18 with CUDA 12.5"),
    *("--enable-mpi-cxx", "CgroupReleaseAgentDir", "catalog of the registry in YAML"),
)


def rows(page: str) -> list[str]:
    """The first cells of all tables' rows; a deviation may be named in the second."""
    return re.findall(r"^\| (?!before|---)(.+?) \|", page, re.MULTILINE)


@pytest.mark.parametrize("name", [*COMMANDS, *PACKAGES])
def test_each_command_script_and_package_has_a_row(name: str) -> None:
    assert any(name in row for row in rows(PAGE.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", DEVIATIONS)
def test_each_deviation_has_its_reason(name: str) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Deviations")[2]
    found = [line for line in section.splitlines() if line.startswith("| ") and name in line]

    assert found
    assert all(len(line.split(" | ")[2].strip(" |")) > len("reason") for line in found)
