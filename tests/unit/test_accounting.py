"""Accounting: what a cluster file may say, and which commands of sacctmgr it comes to."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from pathlib import Path

import pytest

from sifline.config.clusters import dump_cluster, load_cluster
from sifline.engines import ansible
from sifline.errors import UsageError
from sifline.model import Account, Accounting, Qos
from sifline.stages.provision import provision
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner

ROOT = Path(__file__).parents[2]
NODES = """\
nodes: [{name: head, role: controller}, {name: n1, role: compute}]
job_user: alice
"""
# As sacctmgr of Slurm 24.11 writes them.
BEFORE = (
    "cluster|hpc",
    "answered",
    "qos|normal|0|||",
    "qos|long|10|7-00:00:00|2|cpu=64,mem=2G",
    "assoc|root|||1||normal",
    "assoc|root||root|1||normal",
    "assoc|physics|root||3|20|long,normal",
    "assoc|physics||alice|1|20|long,normal",
    "assoc|optics|physics||1|20|long,normal",
)
LONG = Qos(
    name="long",
    priority=10,
    max_wall="168:00:00",
    max_jobs_per_user=2,
    max_tres_per_user="mem=2048M,cpu=64",
)
PHYSICS = Account(
    name="physics", users=("alice",), qos=("normal", "long"), fairshare=3, max_jobs=20
)
OPTICS = Account(name="optics", parent="physics")


def changes(lines: tuple[str, ...], qos: list[Qos], accounts: list[Account]) -> list[str]:
    path = ROOT / "ansible" / "filter_plugins" / "sifline_accounting.py"
    spec = importlib.util.spec_from_file_location("sifline_accounting", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    find = module.FilterModule().filters()["sacctmgr_changes"]
    wanted = [asdict(item) for item in qos], [asdict(item) for item in accounts]
    return [" ".join(words) for words in find(lines, "HPC", *wanted)]


def test_what_is_as_it_shall_be_needs_no_command() -> None:
    assert changes(BEFORE, [LONG], [PHYSICS, OPTICS]) == []


def test_a_new_database_gets_all_in_the_order_in_which_each_needs_the_other() -> None:
    new = ("answered", "qos|normal|0|||", "assoc|root|||1||normal")
    assert changes(new, [LONG], [PHYSICS, OPTICS]) == [
        "add cluster hpc",
        "add qos long Priority=10 MaxWall=168:00:00 MaxJobsPerUser=2"
        " MaxTRESPerUser=mem=2048M,cpu=64",
        "add account physics cluster=hpc Description=physics Organization=hpc Parent=root"
        " Fairshare=3 MaxJobs=20 QOS=long,normal",
        "add account optics cluster=hpc Description=optics Organization=hpc Parent=physics"
        " Fairshare=1",
        "add user alice account=physics cluster=hpc",
    ]


def test_what_the_file_no_longer_limits_is_free_again() -> None:
    assert changes(BEFORE, [Qos(name="long")], [Account(name="physics"), OPTICS]) == [
        "modify qos long set Priority=0 MaxWall=-1 MaxJobsPerUser=-1 MaxTRESPerUser=cpu=-1,mem=-1",
        "modify account physics where cluster=hpc set Fairshare=1 MaxJobs=-1 QOS=",
        "modify account optics where cluster=hpc set MaxJobs=-1 QOS=",
    ]


def test_what_changed_alone_is_set() -> None:
    more = Qos(name="long", priority=11, max_wall="7-0", max_tres_per_user="cpu=64,gres/gpu=1")
    moved = Account(name="optics", max_jobs=0)
    assert changes(BEFORE, [more], [PHYSICS, moved]) == [
        "modify qos long set Priority=11 MaxJobsPerUser=-1"
        " MaxTRESPerUser=cpu=64,gres/gpu=1,mem=-1",
        "modify account optics where cluster=hpc set Parent=root MaxJobs=0 QOS=",
    ]


def test_what_the_file_does_not_name_stays() -> None:
    assert changes((*BEFORE, "assoc|physics||bob|1||normal"), [], [PHYSICS]) == []


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("30", "00:30:00"),
        ("90:30", "01:30:30"),
        ("24:00:00", "1-00:00:00"),
        ("2-12", "2-12:00:00"),
        ("2-12:30", "2-12:30:00"),
    ],
)
def test_a_time_is_the_same_however_it_is_written(written: str, shown: str) -> None:
    line = f"qos|x|0|{shown}||"
    assert changes((BEFORE[0], line), [Qos(name="x", max_wall=written)], []) == []
    other = line.replace(":00|", ":01|") if ":00|" in line else line.replace(":30|", ":31|")
    assert changes((BEFORE[0], other), [Qos(name="x", max_wall=written)], []) != []


# The cluster file


def load(folder: Path, text: str) -> Accounting | None:
    path = folder / "hpc.yaml"
    path.write_text(f"{NODES}{text}")
    return load_cluster(path).accounting


FULL = """\
accounting:
  enforce: [limits, qos]
  qos:
    - {name: long, priority: 10, max_wall: "7-00:00:00", max_jobs_per_user: 4}
  accounts:
    - {name: physics, users: [alice], qos: [normal, long], max_jobs: 20}
    - {name: optics, parent: physics, users: [alice, bob]}
"""


def test_a_cluster_without_the_section_records_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, "") is None
    variables = ansible.cluster_variables(load_cluster(tmp_path / "hpc.yaml"))
    assert not [name for name in variables if "accounting" in name]


def test_accounts_reach_the_roles_and_survive_the_file_of_a_running_cluster(
    tmp_path: Path,
) -> None:
    found = load(tmp_path, FULL)
    assert found == Accounting(
        enforce=("limits", "qos"),
        qos=(Qos(name="long", priority=10, max_wall="7-00:00:00", max_jobs_per_user=4),),
        accounts=(
            Account(name="physics", users=("alice",), qos=("normal", "long"), max_jobs=20),
            Account(name="optics", parent="physics", users=("alice", "bob")),
        ),
    )
    cluster = load_cluster(tmp_path / "hpc.yaml")
    variables = ansible.cluster_variables(cluster)
    assert variables["slurm_accounting_enabled"] is True
    assert variables["slurm_common_accounting_enforce"] == ["limits", "qos"]
    assert [item["name"] for item in variables["slurm_accounting_accounts"]] == [
        "physics",
        "optics",
    ]
    (tmp_path / "again.yaml").write_text(dump_cluster(cluster, tmp_path))
    assert load_cluster(tmp_path / "again.yaml").accounting == found


def test_a_database_that_others_manage_is_only_used(tmp_path: Path) -> None:
    assert load(tmp_path, "accounting: {host: dbd.example.org}") == Accounting(
        host="dbd.example.org"
    )
    variables = ansible.cluster_variables(load_cluster(tmp_path / "hpc.yaml"))
    assert variables["slurm_accounting_enabled"] is False
    assert variables["slurm_common_accounting_host"] == "dbd.example.org"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("{host: dbd, accounts: [{name: a}]}", "with host, those who manage that slurmdbd"),
        ("{qos: [{name: a}, {name: a}]}", "two QOS are named a"),
        ("{accounts: [{name: a}, {name: a}]}", "two accounts are named a"),
        ("{accounts: [{name: root}]}", "Slurm makes the account root itself"),
        ("{accounts: [{name: a, parent: b}, {name: b}]}", "a belongs to b, which is not above it"),
        ("{accounts: [{name: a, qos: [long]}]}", "a has the QOS long.* found normal"),
        ("{accounts: [{name: a, users: [x, x]}]}", "a lists x twice"),
        ("{accounts: [{name: A}]}", "accounts.*name"),
        ("{accounts: [{name: a, users: ['x y']}]}", "user 'x y' must be a user name"),
        ("{enforce: [limits], accounts: [{name: a}]}", "job_user alice is in no account"),
        ("{enforce: [everything]}", "must be one of associations"),
        (
            "{qos: [{name: a, max_tres_per_user: cpu}]}",
            "max_tres_per_user 'cpu' must be resources",
        ),
        ("{qos: [{name: a, max_wall: 24:00:00}]}", "max_wall"),
    ],
)
def test_an_error_names_the_file_and_the_cause(tmp_path: Path, text: str, cause: str) -> None:
    with pytest.raises(UsageError, match=rf"hpc\.yaml:\d+: .*{cause}"):
        load(tmp_path, f"accounting: {text}")


@pytest.mark.parametrize("text", ["", "accounting: {host: dbd.example.org}"])
def test_the_stage_alone_says_that_there_is_no_database_to_set_up(
    tmp_path: Path, text: str
) -> None:
    load(tmp_path, text)
    cluster = load_cluster(tmp_path / "hpc.yaml")
    with pytest.raises(UsageError, match=r"no database of its own.*section accounting"):
        provision(cluster, context_of(tmp_path, RecordingRunner()), stage="accounting")
