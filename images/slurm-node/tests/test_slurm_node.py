"""What a Slurm node promises: the daemons, waiting for provisioning, and no secrets."""

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


@pytest.mark.parametrize(
    "tool",
    ["lspci", "python3", "rsync", "sacct", "sbcast", "scontrol", "sinfo", "srun", "systemd-cgls"],
)
def test_tool_is_there(container: Container, tool: str) -> None:
    found = container.run(["sh", "-c", 'command -v "$1"', "sh", tool])
    assert found.stdout.strip() == f"/usr/bin/{tool}"


def test_srun_offers_pmix(container: Container) -> None:
    found = container.run(["sh", "-c", "ls /usr/lib/*/slurm-wlm/mpi_pmix.so"])
    assert found.returncode == 0


@pytest.mark.parametrize(
    ("service", "state"),
    [
        *(("munge", "enabled"), ("slurmctld", "enabled"), ("slurmd", "enabled")),
        # Provisioning chooses the node that has the database.
        *(("mariadb", "disabled"), ("slurmdbd", "disabled")),
    ],
)
def test_what_starts_at_boot(container: Container, service: str, state: str) -> None:
    found = container.run(["systemctl", "is-enabled", service])
    assert found.stdout.strip() == state


@pytest.mark.parametrize("service", ["munge", "slurmctld", "slurmd", "slurmdbd"])
def test_a_daemon_waits_for_what_provisioning_writes(container: Container, service: str) -> None:
    files = f"/usr/lib/systemd/system/{service}.service /etc/systemd/system/{service}.service.d/*"
    unit = container.run(["sh", "-c", f"cat {files} 2> /dev/null"]).stdout.splitlines()
    (path,) = {line.partition("=")[2] for line in unit if line[:19] == "ConditionPathExists"}
    assert path.startswith("/etc/")
    assert container.run(["test", "-e", path], user="root").returncode == 1


def test_cgroups_are_those_of_the_node_not_of_the_builder(container: Container) -> None:
    found = container.run(["cat", "/etc/slurm/cgroup.conf"])
    assert "CgroupPlugin=autodetect" in found.stdout.splitlines()


@pytest.mark.parametrize(
    ("folder", "is_so"),
    [
        ("/etc/slurm", "drwxr-xr-x root root"),
        # A job's record is readable for its user; nobody but root lists or writes.
        ("/var/log/slurm-jobs", "drwx--x--x root root"),
    ],
)
def test_folder_of_slurm_is_there(container: Container, folder: str, is_so: str) -> None:
    found = container.run(["stat", "--format=%A %U %G", folder])
    assert found.stdout.strip() == is_so


def test_ansible_is_not_left_in_the_image(container: Container) -> None:
    left = "find / -xdev -iname '*ansible*' -not -path '/usr/share/*' -not -path '/proc/*'"
    found = container.run(["sh", "-c", f"{left} 2> /dev/null; ls /opt"], user="root")
    assert found.stdout == ""


def test_sshd_starts_at_boot(container: Container) -> None:
    found = container.run(["systemctl", "is-enabled", "ssh"])
    assert found.stdout.strip() == "enabled"


@pytest.mark.parametrize(
    "pattern",
    [
        *("/etc/munge/*.key", "/etc/ssh/ssh_host_*", "/home/*/.ssh"),
        *("/etc/slurm/slurm.conf", "/etc/slurm/gres.conf", "/etc/slurm/slurmdbd.conf"),
        *("/var/lib/mysql/*", "/opt/containers", "/var/lib/sifline"),
    ],
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
