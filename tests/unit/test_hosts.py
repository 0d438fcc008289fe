"""``invoke inventory``: a cluster file is checked, and what Ansible gets of it is printed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from sifline.config.clusters import load_cluster
from sifline.engines import ansible
from tests.support.invoking import invoke_here

TASKS = """
from pathlib import Path
from sifline.tasks import namespace
ns = namespace(Path(__file__).parent)
"""
TEXT = """\
name: small
nodes:
  - {name: c, role: controller, address: 10.0.0.1}
  - {name: "n[1-2]", role: compute, address: "10.0.0.[2-3]", features: [ib]}
partitions: [{name: p, nodes: n1}]
variables: {list: [1, "2"], day: 2026-01-31, text: "a: b\\nc", empty: {}}
"""
VIRTUAL = """\
nodes:
  - {name: c, role: controller}
  - {name: n1, role: compute}
virtual: {image: slurm-node}
"""
NOTE = "n2 is in no partition, so that no job can run there"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / "images").mkdir()
    (tmp_path / "clusters").mkdir()
    (tmp_path / "clusters" / "small.yaml").write_text(TEXT)
    (tmp_path / "clusters" / "lab.yaml").write_text(VIRTUAL)
    return tmp_path


def test_what_is_printed_is_what_provision_gives_to_ansible(project: Path) -> None:
    done = invoke_here(project, "inventory", "--cluster", "small")
    cluster = load_cluster(project / "clusters" / "small.yaml")
    assert yaml.safe_load(done.stdout) == json.loads(ansible.inventory(cluster))
    assert done.stderr == f"note: {project / 'clusters' / 'small.yaml'}: {NOTE}\n"
    # A host is a line, so that grep finds all of it.
    assert [line for line in done.stdout.splitlines() if "n2:" in line] == [
        "        n2: {ansible_host: 10.0.0.3, slurm_common_cpus: 1, slurm_common_memory_mb: 1024,"
        " slurm_common_gpus: 0, slurm_common_gpu_type: '', slurm_common_features: [ib]}"
    ]


def test_json_has_the_cluster_and_the_notes(project: Path) -> None:
    found = json.loads(invoke_here(project, "inventory", "--cluster", "small", "--json").stdout)
    assert (found["cluster"], found["notes"]) == ("small", [NOTE])
    assert found["inventory"]["all"]["vars"]["day"] == "2026-01-31"


def test_ansible_reads_it(project: Path, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.yaml"
    hosts.write_text(invoke_here(project, "inventory", "--cluster", "small").stdout)
    program = Path(sys.executable).with_name("ansible-inventory")
    done = subprocess.run(
        [program, "--inventory", str(hosts), "--host", "n2"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert (found["ansible_host"], found["slurm_common_features"]) == ("10.0.0.3", ["ib"])
    assert (found["list"], found["text"]) == ([1, "2"], "a: b\nc")


def test_a_virtual_cluster_need_not_run(project: Path) -> None:
    done = invoke_here(project, "inventory", "--cluster", "lab")
    assert yaml.safe_load(done.stdout)["all"]["children"]["compute"]["hosts"]["n1"]
    assert done.stderr.endswith(
        "its nodes have no addresses before: invoke cluster.up --cluster lab\n"
    )


def test_a_file_that_is_wrong_ends_in_one_line_and_status_2(project: Path) -> None:
    path = project / "clusters" / "small.yaml"
    path.write_text(TEXT.replace("nodes: n1", "nodes: n9"))
    done = invoke_here(project, "inventory", "--cluster", "small")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {path}:5: partitions[0].nodes: there is no compute node n9; add it to nodes, or"
        " remove it here. Did you mean n2, n1?\n"
    )


def test_2000_nodes_take_a_second(project: Path) -> None:
    rows = [
        f"  - {{name: n{number}, role: compute, address: 10.{number // 250}.{number % 250}.1,"
        " cpus: 8, memory_mb: 16000, gpus: 2, gpu_type: a100, features: [ib, a100]}"
        for number in range(2000)
    ]
    head = "nodes:\n  - {name: c, role: controller}\n"
    (project / "clusters" / "big.yaml").write_text(head + "\n".join(rows))
    started = time.process_time()
    done = invoke_here(project, "inventory", "--cluster", "big")
    assert (
        len(yaml.load(done.stdout, yaml.CSafeLoader)["all"]["children"]["compute"]["hosts"])
        == 2000
    )
    # Of this process, since other tests run beside it; 0.4 s where it is alone.
    assert time.process_time() - started < 3
