"""The node image is the same however it is made: with the Dockerfile, or with Packer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import ROOT, invoke
from tests.support.engine import LONGEST, docker

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("node image")]

FOLDER = ROOT / "images" / "slurm-node"
BY_DOCKER, BY_PACKER = "sifline/slurm-node:latest", f"sifline-packer-{os.getpid()}"
# What Ansible's module apt installs for itself; the Dockerfile mounts it.
OF_ANSIBLE = {"distro-info-data", "python-apt-common", "python3-apt"}
LOOK = {
    "packages": "dpkg-query --show --showformat='${Package} ${Version}\\n'",
    "units": "ls /etc/systemd/system/*.wants /etc/systemd/system/*.d",
    "files": "cd /etc && sha256sum slurm/*.conf systemd/system/*.d/* sudoers.d/* | sort",
    "folders": "stat --format='%A %U %G %n' /etc/slurm /var/log/slurm /var/log/slurm-jobs",
    "users": "cut -d: -f1,3,4 /etc/passwd",
    "left": "find /etc/ssh /etc/munge /var/lib/mysql /root /opt -mindepth 1 | sort",
}


@pytest.fixture(scope="module")
def images() -> Iterator[tuple[str, str]]:
    if not shutil.which("packer"):
        pytest.skip("Packer is not installed")
    made = invoke("build.slurm-node")
    assert made.returncode == 0, made.stderr
    machine = f"{BY_PACKER}-machine"
    docker("build", "--quiet", f"--tag={machine}", "--target=machine", str(FOLDER))
    template = str(FOLDER / "packer" / "node.pkr.hcl")
    words = [f"-var=base={machine}", f"-var=tag={BY_PACKER}"]
    playbooks = f"-var=playbooks={ROOT / 'ansible'}"
    try:
        packer("build", "-color=false", *words, playbooks, template)
        yield BY_DOCKER, f"{BY_PACKER}:latest"
    finally:
        docker("rmi", "--force", machine, BY_PACKER)


def packer(*words: str) -> None:
    # It calls ansible-playbook, which is in this environment.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["packer", *words],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr


@pytest.mark.parametrize("what", LOOK)
def test_packer_makes_what_the_dockerfile_makes(images: tuple[str, str], what: str) -> None:
    one, other = (
        docker("run", "--rm", "--entrypoint=bash", image, "-c", LOOK[what]).stdout.splitlines()
        for image in images
    )
    assert one
    assert one == [line for line in other if line.partition(" ")[0] not in OF_ANSIBLE]
