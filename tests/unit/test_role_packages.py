"""Which packages the roles install, and from where, on each distribution: rendered by Ansible."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).parents[2] / "ansible" / "roles"
DEBIAN, UBUNTU = "system debian 13", "system ubuntu 24.04"

# Of what the roles ask for, the names in Ubuntu 24.04's archive (main and universe). apptainer is
# in none of its components; libpmix2 was renamed when time_t got 64 bits.
OF_UBUNTU = {
    *("munge", "libpmix2t64", "mariadb-server", "rsync", "sudo", "pciutils"),
    *("slurmctld", "slurmd", "slurmdbd", "slurm-client"),
    *("fuse-overlayfs", "fuse2fs", "gocryptfs", "squashfs-tools", "squashfuse", "uidmap"),
}
SOURCE = "deb [signed-by=/etc/apt/keyrings/site.asc] https://mirror.example/apptainer noble main"


REFUSALS = [(UBUNTU, "", True), (UBUNTU, SOURCE, False), (DEBIAN, "", False)]
CASES = [
    ([DEBIAN], "", "unstable"),
    ([DEBIAN, "offered"], "", "own"),
    ([DEBIAN], SOURCE, "given"),
    ([UBUNTU], "", "missing"),
    ([UBUNTU, "offered"], "", "own"),
    ([UBUNTU], SOURCE, "given"),
    (["system linuxmint 22"], "", "missing"),
    ([], "", "missing"),
    ([UBUNTU, "installed"], "", "none"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Ansible makes of the roles' variables and tasks, in one run on this machine."""
    folder = tmp_path_factory.mktemp("roles")
    role = ROLES / "container-runtime"
    defaults = sorted(ROLES.glob("*/defaults/main.yml"))
    names = [f"{file.parts[-3].replace('-', '_')}_packages" for file in defaults]
    told = {
        "packages": " + ".join(f"{name} | default([])" for name in names),
        "look": "container_runtime_look",
        "host": "container_runtime_host_as_it_is",
    }
    given = yaml.safe_load((role / "vars" / "main.yml").read_text())
    apart = {
        "container_runtime_look_host": "true",
        "container_runtime_host_as_it_is": given["container_runtime_look_host"],
    }
    tasks: list[dict[str, Any]] = [
        {**write(folder, name, text), "vars": apart} for name, text in told.items()
    ]
    for number, (seen, source, _) in enumerate(CASES):
        task = write(folder, f"source{number}", "[container_runtime_wanted_source, faults]")
        given = {
            "container_runtime_seen": {"stdout_lines": seen},
            "container_runtime_apt_source": source,
            "faults": "{{ container_runtime_faults }}",
        }
        tasks.append({**task, "vars": given})
    for number, (system, source, _) in enumerate(REFUSALS):
        tasks.append(
            {
                "block": [
                    {
                        "ansible.builtin.include_role": {
                            "name": "container-runtime",
                            "tasks_from": "source.yml",
                            "rolespec_validate": False,
                        },
                        "vars": {
                            "container_runtime_look": f"echo {system}",
                            "container_runtime_apt_source": source,
                        },
                    },
                    write(folder, f"said{number}", "''"),
                ],
                "rescue": [write(folder, f"said{number}", "ansible_failed_result.msg")],
            }
        )
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars_files": [*map(str, defaults), str(role / "vars" / "main.yml")],
        "tasks": tasks,
    }
    (folder / "play.json").write_text(json.dumps([play]))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("--inventory", "localhost,", "--connection", "local", "play.json"),
        ],
        cwd=folder,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_ROLES_PATH": str(ROLES),
            "ANSIBLE_FILTER_PLUGINS": str(ROLES.parent / "filter_plugins"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {file.stem: json.loads(file.read_text())["it"] for file in folder.glob("*.out")}


def write(folder: Path, name: str, expression: str) -> dict[str, Any]:
    """Return the task that writes what ``expression`` is."""
    content = f"{{{{ {{'it': {expression}}} }}}}"
    place = {"content": content, "dest": str(folder / f"{name}.out"), "mode": "0600"}
    return {"ansible.builtin.copy": place}


def test_ubuntu_has_what_the_roles_install_but_apptainer(made: dict[str, Any]) -> None:
    assert set(made["packages"]) == {*OF_UBUNTU, "apptainer"}


@pytest.mark.parametrize(("number", "wanted"), [*enumerate(case[2] for case in CASES)])
def test_apptainer_comes_from_a_source_that_has_it(
    made: dict[str, Any], number: int, wanted: str
) -> None:
    assert made[f"source{number}"] == [wanted, []]


@pytest.mark.parametrize(("number", "refused"), [*enumerate(case[2] for case in REFUSALS)])
def test_without_a_source_of_apptainer_the_role_says_what_to_set(
    made: dict[str, Any], number: int, *, refused: bool
) -> None:
    said = made[f"said{number}"]
    assert bool(said) is refused
    if refused:
        assert "no package source of this node (ubuntu 24.04) has Apptainer; set" in said
        assert "container_runtime_apt_source under variables" in said
        assert "\n" not in said.strip()


# As on a machine that has no Apptainer, and no source of it.
NONE = "command() { return 1; }; apt-cache() { :; };"
OFFER = "apt-cache() {{ printf 'apptainer:\\n  Candidate: {}\\n'; }};"


@pytest.mark.parametrize(
    ("known", "file", "lines"),
    [
        ("", "", [UBUNTU]),
        (OFFER.format("1.4.5-1"), "", ["offered", UBUNTU]),
        (OFFER.format("(none)"), "", [UBUNTU]),
        # A source whose lists were not fetched yet.
        ("", "URIs: https://ppa.example/apptainer/ppa/ubuntu/", ["offered", UBUNTU]),
        ("command() { return 0; };", "", ["installed", UBUNTU]),
    ],
)
def test_a_node_tells_its_system_and_whether_it_can_have_apptainer(
    made: dict[str, Any], tmp_path: Path, known: str, file: str, lines: list[str]
) -> None:
    """The command of the role itself, on an /etc of our own."""
    etc = tmp_path / "etc"
    (etc / "apt" / "sources.list.d").mkdir(parents=True)
    (etc / "apt" / "sources.list.d" / "site.sources").write_text(f"{file}\n")
    (etc / "os-release").write_text('ID=ubuntu\nVERSION_ID="24.04"\n')
    script = f"{NONE} {known} {made['look']}".replace("/etc/", f"{etc}/")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == lines, done.stderr


@pytest.mark.parametrize(
    ("restricted", "profiles", "refused"),
    [
        ("1", "apptainer (unconfined)\nfirefox (enforce)\n", False),
        ("1", "firefox (enforce)\n", True),
        # What keeps users from making them is something else.
        ("0", "apptainer (unconfined)\n", True),
        ("", "", True),
    ],
)
def test_apptainer_may_make_user_namespaces_by_its_profile_of_apparmor(
    made: dict[str, Any], tmp_path: Path, restricted: str, profiles: str, *, refused: bool
) -> None:
    for path, text in (
        ("proc/sys/kernel/apparmor_restrict_unprivileged_userns", restricted),
        ("sys/kernel/security/apparmor/profiles", profiles),
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    look = made["host"].replace("/proc/sys/", f"{tmp_path}/proc/sys/")
    look = look.replace("/sys/kernel/security/", f"{tmp_path}/sys/kernel/security/")
    # No user of this machine may make any.
    script = f"setpriv() {{ return 1; }}; {look}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert ("users may make no user namespaces" in done.stdout) is refused, done.stderr
