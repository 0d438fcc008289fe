"""The configuration of Slurm that the role slurm-common writes for an inventory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sifline.config.clusters import dump_cluster, load_cluster
from sifline.engines import ansible
from sifline.errors import UsageError
from sifline.formats import slurm_conf
from sifline.model import Cluster

ROOT = Path(__file__).parents[2]
NODES = """\
nodes:
  - {name: head, role: controller, address: 192.0.2.1}
  - {name: n1, role: compute, cpus: 8, memory_mb: 16000, gpus: 2, gpu_type: a100}
  - name: n2
    role: compute
    cpus: 8
    memory_mb: 16000
    gpu_shards: 8
    gpu_devices:
      - {type: a100, file: "/dev/nvidia[0-1]", cores: 0-3}
      - {type: h100, file: /dev/nvidia2}
      - {type: 1g.10gb, multiple_files: [/dev/nvidia3, /dev/nvidia-caps/nvidia-cap21]}
  - {name: n3, role: compute, gpus: 4, gpu_type: l40, gpu_detect: nvml}
  - {name: n4, role: compute, gpus: 1, gpu_mps: 100}
  - {name: n5, role: compute}
"""
PLAY = "- {hosts: controller, gather_facts: false, roles: [slurm-common]}\n"
TASK = """\
- ansible.builtin.copy:
    content: "{{ slurm_common_bodies }}"
    dest: "{{ out }}"
  delegate_to: localhost
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    path = tmp_path_factory.mktemp("cluster") / "hpc.yaml"
    path.write_text(NODES)
    return load_cluster(path)


def rendered(cluster: Cluster, folder: Path, **variables: Any) -> dict[str, str]:
    """The bodies of the files by their names."""
    own = {"slurm_common_seen": {"stdout_lines": ["head"], "stdout": "head"}}
    given = replace(cluster, variables=tuple({**own, **variables}.items()))
    (folder / "hosts.json").write_text(ansible.inventory(given))
    (folder / "play.yml").write_text(PLAY)
    # The role with another task: its variables are what is asked for.
    role = folder / "roles" / "slurm-common"
    (role / "tasks").mkdir(parents=True)
    (role / "tasks" / "main.yml").write_text(TASK)
    for part in ("defaults", "vars", "templates"):
        (role / part).symlink_to(ROOT / "ansible" / "roles" / "slurm-common" / part)
    program = Path(sys.executable).with_name("ansible-playbook")
    words = ["--inventory", "hosts.json", "play.yml", "--extra-vars", f"out={folder / 'out.json'}"]
    done = subprocess.run(
        [program, "--connection=local", *words],
        cwd=folder,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_FILTER_PLUGINS": str(ROOT / "ansible" / "filter_plugins"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads((folder / "out.json").read_text()))


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_gpus_are_described_as_the_cluster_file_has_them(cluster: Cluster, tmp_path: Path) -> None:
    files = rendered(cluster, tmp_path)
    assert lines(files["gres.conf"], "NodeName=") == [
        "NodeName=n1 Name=gpu Type=a100 File=/dev/nvidia[0-1]",
        "NodeName=n2 Name=gpu Type=a100 File=/dev/nvidia[0-1] Cores=0-3",
        "NodeName=n2 Name=gpu Type=h100 File=/dev/nvidia2",
        "NodeName=n2 Name=gpu Type=1g.10gb"
        " MultipleFiles=/dev/nvidia3,/dev/nvidia-caps/nvidia-cap21",
        "NodeName=n2 Name=shard Count=8",
        "NodeName=n3 AutoDetect=nvml Name=gpu Type=l40",
        "NodeName=n4 Name=gpu File=/dev/nvidia0",
        "NodeName=n4 Name=mps Count=100",
    ]
    gres = [
        next((word for word in line.split() if word.startswith("Gres=")), "")
        for line in lines(files["slurm.conf"], "NodeName=")
    ]
    assert gres == [
        "Gres=gpu:a100:2",
        "Gres=gpu:1g.10gb:1,gpu:a100:2,gpu:h100:1,shard:8",
        "Gres=gpu:l40:4",
        "Gres=gpu:1,mps:100",
        "",
    ]
    assert lines(files["slurm.conf"], "GresTypes=") == ["GresTypes=gpu,shard,mps"]
    read = {name: slurm_conf.read(text, kind=name, path=name) for name, text in files.items()}
    found = slurm_conf.check(
        {name: read[name] for name in slurm_conf.FILES if name in read}, "24.11"
    )
    assert [item.message for item in found] == []


@pytest.mark.parametrize(
    ("release", "line"),
    [
        ("24.11", "JobContainerType=job_container/tmpfs"),
        ("25.05", "JobContainerType=job_container/tmpfs"),
        ("25.11", "NamespaceType=namespace/tmpfs"),
        ("26.05", "NamespaceType=namespace/tmpfs"),
    ],
)
def test_each_job_gets_its_own_tmp_by_the_plugin_of_the_release(
    cluster: Cluster, tmp_path: Path, release: str, line: str
) -> None:
    asked = {"slurm_common_private_tmp": "/scratch", "slurm_common_release": release}
    files = rendered(cluster, tmp_path, **asked)
    assert line in files["slurm.conf"].splitlines()
    assert "BasePath=/scratch" in files["job_container.conf"].splitlines()


MANY = """\
nodes:
  - {name: head, role: controller, address: 192.0.2.1}
  - name: compute-[001-003,007]
    role: compute
    address: 192.0.2.[11-14]
    cpus: 8
    memory_mb: 16000
    gpus: 2
    gpu_type: a100
    features: [a100, ib]
  - name: big-1,big-2,n1-ib
    role: compute
    address: 192.0.2.30,192.0.2.20,192.0.2.21
    cpus: 64
  - {name: compute-004, role: compute, address: 192.0.2.15, cpus: 8, memory_mb: 16000}
partitions:
  - {name: main, default: true, max_time: INFINITE}
  - name: gpu
    nodes: [compute-003, "compute-[001-002]"]
    default_time: "01:00:00"
    max_nodes: 2
    priority_tier: 0
    allow_groups: [staff, first.last]
    allow_accounts: [physics]
    allow_qos: [normal, long]
    exclusive: true
    state: drain
accounting:
  qos: [{name: long}]
  accounts: [{name: physics}]
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("many")
    (folder / "hpc.yaml").write_text(MANY)
    return rendered(load_cluster(folder / "hpc.yaml"), folder)


def test_nodes_that_are_alike_share_a_line(many: dict[str, str]) -> None:
    assert lines(many["slurm.conf"], "NodeName=") == [
        "NodeName=compute-[001-003,007] NodeAddr=192.0.2.[11-14] CPUs=8 RealMemory=16000"
        " Gres=gpu:a100:2 Feature=a100,ib State=UNKNOWN",
        # In their order, and a number that is not at the end is no range.
        "NodeName=big-[1-2],n1-ib NodeAddr=192.0.2.[30,20-21] CPUs=64 RealMemory=1024"
        " State=UNKNOWN",
        "NodeName=compute-004 NodeAddr=192.0.2.15 CPUs=8 RealMemory=16000 State=UNKNOWN",
    ]
    assert lines(many["gres.conf"], "NodeName=") == [
        "NodeName=compute-[001-003,007] Name=gpu Type=a100 File=/dev/nvidia[0-1]"
    ]


def test_a_partition_has_its_nodes_and_limits(many: dict[str, str]) -> None:
    assert lines(many["slurm.conf"], "PartitionName=") == [
        "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP",
        "PartitionName=gpu Nodes=compute-[003,001-002] Default=NO MaxTime=24:00:00"
        " DefaultTime=01:00:00 MaxNodes=2 PriorityTier=0 AllowGroups=staff,first.last"
        " AllowAccounts=physics AllowQos=normal,long OverSubscribe=EXCLUSIVE State=DRAIN",
    ]


@pytest.mark.parametrize("release", slurm_conf.RELEASES)
def test_each_release_takes_lists_and_limits(many: dict[str, str], release: str) -> None:
    read = {
        name: slurm_conf.read(text, kind=name, path=name)
        for name, text in many.items()
        if name in slurm_conf.FILES
    }
    assert [item.message for item in slurm_conf.check(read, release)] == []


def test_what_a_job_is_held_to_can_be_set(cluster: Cluster, tmp_path: Path) -> None:
    asked = {"slurm_common_constrain_swap": False, "slurm_common_min_ram_mb": 50}
    text = rendered(cluster, tmp_path, **asked)["cgroup.conf"]
    assert {"ConstrainCores=yes", "ConstrainSwapSpace=no", "MinRAMSpace=50"} <= {
        *text.splitlines()
    }
    assert "MaxRAMPercent" not in text


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("gpu_devices: [{type: a}]", "each needs file or multiple_files"),
        ("gpu_devices: [{file: /dev/a0, multiple_files: [/dev/a1]}]", "not both"),
        ("gpu_devices: [{file: '/dev/a[0-1]'}, {file: /dev/a1}]", "/dev/a1 is there twice"),
        ("gpus: 3, gpu_devices: [{file: '/dev/a[0-1]'}]", "gpu_devices has 2 GPUs"),
        ("gpu_type: x, gpu_devices: [{file: /dev/a0}]", "remove gpus and gpu_type"),
        ("gpu_devices: [{file: ../a}]", "file '../a' must be a device file"),
        ("gpus: 2, gpu_shards: 3", "gpu_shards 3 is no multiple of its 2 GPUs"),
        ("gpu_mps: 100", "gpu_mps 100 is no multiple of its 0 GPUs"),
        ("gpus: 1, gpu_mps: 100, gpu_shards: 2", "by gpu_shards or gpu_mps"),
    ],
)
def test_a_node_that_contradicts_itself_is_refused(tmp_path: Path, text: str, cause: str) -> None:
    path = tmp_path / "hpc.yaml"
    node = f"{{name: n1, role: compute, {text}}}"
    path.write_text(f"nodes: [{{name: head, role: controller}}, {node}]\n")
    with pytest.raises(UsageError, match=cause):
        load_cluster(path)


def test_gpus_survive_the_file_of_a_running_cluster(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "again.yaml"
    path.write_text(dump_cluster(cluster, tmp_path))
    assert load_cluster(path).nodes == cluster.nodes
    assert [node.gpus for node in cluster.compute] == [2, 4, 4, 1, 0]
