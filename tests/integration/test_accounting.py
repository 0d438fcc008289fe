"""Accounting on real nodes: jobs are recorded and held to their account, and nothing is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.model import Account, Accounting, Cluster, Qos
from sifline.stages.provision import provision
from tests.support.groups import shares_cluster
from tests.support.waiting import until

pytestmark = [shares_cluster("cluster of isolation and accounting"), pytest.mark.long]

CONF = "/etc/slurm/slurmdbd.conf"
HELD = Accounting(
    enforce=("limits", "qos"),
    qos=(Qos(name="short", max_wall="1", max_tres_per_user="gres/gpu=1"),),
    accounts=(
        Account(name="physics", users=("admin", "alice"), qos=("normal", "short")),
        Account(name="optics", parent="physics", users=("alice",)),
    ),
)


@pytest.fixture
def held(cluster: Cluster, context: Context) -> Iterator[Cluster]:
    """The cluster with accounts that jobs are held to."""
    wanted = dataclasses.replace(cluster, accounting=HELD)
    provision(wanted, context)
    yield wanted
    provision(cluster, context)


def asked(ssh: Ssh, *argv: str) -> str:
    return ssh.run(ssh.cluster.controller, argv, sudo=True).stdout


def job(ssh: Ssh, *options: str) -> str:
    """What a job of alice prints, or why Slurm does not take it."""
    argv = ["srun", "--immediate=30", *options, "sh", "-c", "echo ran $SLURM_JOB_ID"]
    ran = ssh.run(ssh.cluster.controller, argv, user="alice", check=False)
    return ran.stdout or ran.stderr


def test_jobs_are_recorded_and_held_to_their_account(
    held: Cluster, context: Context, ssh: Ssh
) -> None:
    assert provision(held, context).changed == 0
    ran = job(ssh, "--account=optics", "--qos=short", "--time=1", "--gpus=1")
    assert ran.startswith("ran "), ran
    show = ["--noheader", "--parsable2", "--allocations", f"--jobs={ran.split()[1]}"]
    ask = ["sacct", *show, "--format=User,Account,QOS,State,AllocTRES"]
    until(lambda: "|COMPLETED|" in asked(ssh, *ask), "the end of the job in the database")
    user, account, qos, _, resources = asked(ssh, *ask).strip().split("|")
    assert (user, account, qos) == ("alice", "optics", "short")
    assert "gres/gpu=1" in resources.split(",")

    assert "Invalid account" in job(ssh, "--account=staff-of-others")
    assert "Invalid qos" in job(ssh, "--account=optics", "--qos=long")
    wait = ["--parsable", "--account=physics", "--qos=short", "--time=5", "--wrap=true"]
    number = ssh.run(held.controller, ["sbatch", *wait], user="alice").stdout.strip()
    why = ["squeue", "--noheader", f"--jobs={number}", "--format=%r"]
    until(lambda: "QOSMaxWallDurationPerJobLimit" in asked(ssh, *why), "the limit of the QOS")
    asked(ssh, "scancel", number)


def test_a_slurmdbd_that_does_not_start_gets_its_old_configuration_back(
    cluster: Cluster, context: Context, ssh: Ssh
) -> None:
    before = asked(ssh, "sha256sum", CONF)
    # Only root may have such a port, which slurmdbd is not.
    variables = (*cluster.variables, ("slurm_accounting_extra", ["DbdPort=7"]))
    wrong = dataclasses.replace(cluster, variables=variables)
    with pytest.raises(StepFailed, match=r"slurmdbd does not run: .*; the old configuration"):
        provision(wrong, context)
    assert asked(ssh, "sha256sum", CONF) == before
    assert asked(ssh, "systemctl", "is-active", "slurmdbd") == "active\n"
    assert provision(cluster, context).changed == 0


def test_a_key_that_slurmdbd_does_not_know_is_refused_before_anything_is_changed(
    cluster: Cluster, context: Context, ssh: Ssh
) -> None:
    before = asked(ssh, "systemctl", "show", "--property=MainPID", "slurmdbd")
    variables = (*cluster.variables, ("slurm_accounting_extra", ["NoSuchKey=1"]))
    wrong = dataclasses.replace(cluster, variables=variables)
    with pytest.raises(StepFailed, match=r"slurmdbd\.conf:\d+: NoSuchKey=1: "):
        provision(wrong, context)
    assert asked(ssh, "systemctl", "show", "--property=MainPID", "slurmdbd") == before


def test_a_file_of_others_is_kept(cluster: Cluster, context: Context, ssh: Ssh) -> None:
    asked(ssh, "sed", "--in-place", "s/^LogFile=.*/LogFile=\\/tmp\\/x/", CONF)
    before = asked(ssh, "sha256sum", CONF)
    with pytest.raises(StepFailed, match=rf"{CONF}: not written by sifline.*--adopt"):
        provision(cluster, context)
    assert asked(ssh, "sha256sum", CONF) == before
    done = provision(cluster, context, adopt=True)
    (kept,) = done.kept
    assert kept.startswith(f"{cluster.controller.name}:{CONF}.")
    assert asked(ssh, "stat", "--format=%a %U", CONF) == "600 slurm\n"
    asked(ssh, "rm", kept.partition(":")[2])


def test_jobs_run_while_the_database_is_down_and_are_recorded_after_it(
    cluster: Cluster, context: Context, ssh: Ssh
) -> None:
    asked(ssh, "systemctl", "stop", "slurmdbd", "mariadb")
    ran = job(ssh)
    assert ran.startswith("ran "), ran
    assert provision(cluster, context).changed > 0
    show = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={ran.split()[1]}"]
    ask = [*show, "--format=State"]
    until(lambda: asked(ssh, *ask) == "COMPLETED\n", "the job in the database")


def test_no_password_is_needed_and_none_is_there(cluster: Cluster, ssh: Ssh) -> None:
    assert "StoragePass" not in asked(ssh, "cat", CONF)
    others = ["mariadb", "--user=slurm", "--execute=show databases"]
    assert "Access denied" in ssh.run(cluster.controller, others, user="alice", check=False).stderr
