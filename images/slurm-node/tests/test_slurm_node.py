"""What a Slurm node promises: the daemons, nothing running by itself, and no secrets."""

from __future__ import annotations

import pytest

from sifline.imagetests import Container


@pytest.mark.parametrize("daemon", ["slurmd", "slurmctld"])
def test_slurm_is_of_one_version(container: Container, daemon: str) -> None:
    # Slurm asks for the name of its user, which an arbitrary one has not.
    found = container.run([daemon, "-V"], user="alice")
    assert (found.returncode, found.stdout[:15]) == (0, "slurm-wlm 24.11")


def test_apptainer_is_there(container: Container) -> None:
    found = container.run(["apptainer", "--version"])
    assert found.stdout[:18] == "apptainer version "


@pytest.mark.parametrize("tool", ["python3", "rsync", "sbcast", "scontrol", "sinfo", "srun"])
def test_tool_is_there(container: Container, tool: str) -> None:
    found = container.run(["sh", "-c", 'command -v "$1"', "sh", tool])
    assert found.stdout.strip() == f"/usr/bin/{tool}"


def test_srun_offers_pmix(container: Container) -> None:
    found = container.run(["sh", "-c", "ls /usr/lib/*/slurm-wlm/mpi_pmix.so"])
    assert found.returncode == 0


@pytest.mark.parametrize("service", ["munge", "slurmctld", "slurmd"])
def test_service_waits_for_provisioning(container: Container, service: str) -> None:
    found = container.run(["systemctl", "is-enabled", service])
    assert found.stdout.strip() == "disabled"


def test_sshd_starts_at_boot(container: Container) -> None:
    found = container.run(["systemctl", "is-enabled", "ssh"])
    assert found.stdout.strip() == "enabled"


@pytest.mark.parametrize(
    "pattern", ["/etc/munge/*.key", "/etc/ssh/ssh_host_*", "/home/*/.ssh", "/etc/slurm/slurm.conf"]
)
def test_key_or_configuration_is_not_in_the_image(container: Container, pattern: str) -> None:
    # The container of a test never ran the entry script, which makes host keys.
    found = container.run(["sh", "-c", f"ls -d / {pattern}"], user="root")
    assert found.stdout == "/\n"


def test_nodes_do_not_share_a_machine_id(container: Container) -> None:
    found = container.run(["wc", "-c", "/etc/machine-id"])
    assert found.stdout.split()[0] == "0"


@pytest.mark.parametrize(
    ("user", "ids"), [("admin", "1000:1000"), ("alice", "1001:1001"), ("slurm", "64030:64030")]
)
def test_user_has_the_same_ids_on_every_node(container: Container, user: str, ids: str) -> None:
    found = container.run(["sh", "-c", 'echo "$(id -u "$1"):$(id -g "$1")"', "sh", user])
    assert found.stdout.strip() == ids


def test_admin_is_root_without_a_password(container: Container) -> None:
    if container.runtime == "apptainer":
        pytest.skip("inside a SIF nobody becomes root")
    found = container.run(["sudo", "-n", "id", "-u"], user="admin")
    assert found.stdout.strip() == "0"


def test_jobs_user_is_not_root(container: Container) -> None:
    if container.runtime == "apptainer":
        pytest.skip("inside a SIF nobody becomes root")
    found = container.run(["sudo", "-n", "id", "-u"], user="alice")
    assert (found.returncode, found.stdout) == (1, "")


def test_entrypoint_has_help(container: Container) -> None:
    found = container.run(["/usr/local/sbin/entrypoint", "--help"])
    assert (found.returncode, found.stdout.split()[0], found.stderr) == (0, "usage:", "")


@pytest.mark.parametrize(
    ("words", "env", "named"),
    [
        ([], {"NODE_GPUS": "two"}, "NODE_GPUS='two'"),
        (["--gpus"], {}, "'--gpus'"),
        # What it does as the first process is tested by tests/images/test_container_scripts.py.
        ([], {"NODE_GPUS": "2"}, "first process"),
    ],
)
def test_entrypoint_names_what_is_wrong(
    container: Container, words: list[str], env: dict[str, str], named: str
) -> None:
    found = container.run(["/usr/local/sbin/entrypoint", *words], env=env)
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert named in found.stderr
