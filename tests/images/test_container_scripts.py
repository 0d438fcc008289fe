"""The scripts of images and of the stages, doing in containers what they are for.

They are those of the checkout, in place of the ones that the images hold.
"""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from sifline.contents import rootfs
from sifline.virtual.wanted import CAPABILITIES, TMPFS, UNCONFINED
from tests.support.engine import docker, need_image
from tests.support.waiting import PATIENCE, until

ROOT = Path(__file__).resolve().parents[2]
TOOLBOX, NODE = "sifline/toolbox", "sifline/slurm-node"
UID, GID = 12345, 23456

# Each starts containers of its own; the quick ones share one.
pytestmark = pytest.mark.spread


@pytest.fixture(autouse=True, scope="module")
def _images() -> None:
    for image in (TOOLBOX, NODE):
        need_image(image)


def instead(script: str, place: str) -> str:
    """Return the option that puts a script of the checkout into a container."""
    return f"--mount=type=bind,source={ROOT / script},target={place},readonly"


AS_USER = instead("images/toolbox/as-user", "/usr/local/bin/as-user")
ENTRYPOINT = instead("images/slurm-node/entrypoint", "/usr/local/sbin/entrypoint")
LOOK = instead("src/sifline/contents/look.sh", "/the context/look.sh")


def toolbox(
    *words: str, options: Sequence[str] = (), device: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run ``words`` in a toolbox."""
    fuse = ["--device=/dev/fuse"] if device else []
    argv = ["run", "--rm", "--pull=never", "--network=none", *fuse, *options]
    return docker(*argv, TOOLBOX, *words, check=False)


def as_user(*words: str, ids: str = f"{UID}:{GID}") -> subprocess.CompletedProcess[str]:
    """Run ``words`` in a toolbox of their own, which knew no such user before."""
    return toolbox("as-user", ids, *words, options=[AS_USER])


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def again() -> Iterator[Run]:
    """Runs words as a user in a toolbox that is kept, where the user may be known by then."""
    options = (
        "--detach",
        "--rm",
        "--init",
        "--pull=never",
        "--network=none",
        "--device=/dev/fuse",
    )
    label = f"sifline.test={uuid4().hex}"
    name = docker(
        "run", *options, "--label", label, AS_USER, TOOLBOX, "sleep", "3600"
    ).stdout.strip()

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return docker("exec", name, "as-user", f"{UID}:{GID}", *words, check=False)

    yield run
    docker("rm", "--force", name)


# as-user


def test_the_command_runs_as_that_user_alone() -> None:
    show = "id -u; id -g; id -G; id -un; id -gn; grep CapEff /proc/self/status"

    done = as_user("sh", "-c", show)

    names = [f"user{UID}", f"group{GID}"]
    assert done.stdout.split("\n")[:5] == [str(UID), str(GID), str(GID), *names]
    assert int(done.stdout.split()[-1], 16) == 0


def test_it_has_a_home_that_it_may_write_to_and_the_device() -> None:
    use = 'touch "$HOME/a file" && stat --format="%n %U" "$HOME" /dev/fuse && exec 3<> /dev/fuse'

    done = as_user("sh", "-c", use)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"/home/{UID} user{UID}\n/dev/fuse root\n"


def test_a_user_and_a_group_that_are_known_keep_their_names() -> None:
    done = as_user("sh", "-c", "id -un; id -gn; grep -c :x:33: /etc/passwd", ids="33:34")

    assert done.stdout == "www-data\nbackup\n1\n"


def test_arguments_of_its_command_arrive_as_they_are(again: Run) -> None:
    words = ["two words", "", "a\nb", "*", "$HOME", "--", "-x", "'"]

    done = again("printf", r"%s\0", *words)

    assert done.stdout.split("\0") == [*words, ""]


def test_a_command_in_a_folder_with_a_space_is_run(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    script = tmp_path / "a command"
    script.write_text("#!/bin/sh\nid -u\n")
    script.chmod(0o755)
    mount = f"--mount=type=bind,source={script},target=/my tools/a command,readonly"

    done = toolbox("as-user", "1:1", "/my tools/a command", options=[AS_USER, mount])

    assert (done.returncode, done.stdout) == (0, "1\n")


@pytest.mark.parametrize("status", [1, 3, 7, 255])
def test_the_status_of_the_command_is_passed_on(again: Run, status: int) -> None:
    assert again("sh", "-c", f"exit {status}").returncode == status


@pytest.mark.parametrize(("command", "status"), [("/etc", 126), ("no-such-command", 127)])
def test_a_command_that_cannot_be_run_is_named(again: Run, command: str, status: int) -> None:
    done = again(command)

    assert (done.returncode, command in done.stderr) == (status, True)


def test_after_two_dashes_the_command_may_begin_with_one(again: Run) -> None:
    assert again("--", "printf", "%s", "--").stdout == "--"
    # No option of what changes the user.
    assert again("--", "--version").returncode == 127


def test_the_command_is_the_first_process() -> None:
    assert as_user("sh", "-c", "echo $$").stdout == "1\n"


def test_without_the_device_nothing_is_changed() -> None:
    script = f"as-user {UID}:{GID} true; echo $?; grep -c {UID} /etc/passwd"

    done = toolbox("sh", "-c", script, options=[AS_USER], device=False)

    assert done.stdout == "3\n0\n"
    assert "--device=/dev/fuse" in done.stderr


# look.sh


def test_the_look_works_with_the_tools_that_the_toolbox_has(tmp_path: Path) -> None:
    (tmp_path / "paths").write_text("\n".join([*rootfs.PATHS, "a file"]) + "\n")
    prepare = (
        'mkdir -p "/an image/etc" && cd "/an image" && echo text > "a file" && mknod pipe p'
        ' && setfattr --name user.a --value b "a file" && ln pipe twin'
    )
    look = 'sh "/the context/look.sh" "/an image" "/with a space/paths" "/with a space/new/out"'
    mount = f"--mount=type=bind,source={tmp_path},target=/with a space"

    done = toolbox("sh", "-c", f"{prepare} && {look}", options=[LOOK, mount], device=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    out = tmp_path / "new" / "out"
    with tarfile.open(out / "entries.tar") as tar:
        assert sorted(tar.getnames()) == ["a file", "etc"]
    assert (out / "tools").read_text().startswith("sqfstar version 4.")
    assert (out / "linked").read_text() in ("./pipe\n", "./twin\n")
    assert "# file: a file\nuser.a=0x62\n" in (out / "xattrs").read_text()


# The first process of a node

Node = Callable[..., str]


@pytest.fixture
def node() -> Iterator[Node]:
    """Starts nodes as virtual clusters do, and returns their names; they are removed again."""
    label = f"sifline.test={uuid4().hex}"

    def start(*options: str, capabilities: Sequence[str] = CAPABILITIES) -> str:
        return docker(
            *("run", "--detach", "--pull=never", "--network=none", "--cgroupns=private"),
            *("--label", label, "--device=/dev/fuse", ENTRYPOINT),
            *(f"--cap-add={capability}" for capability in capabilities),
            *(f"--security-opt={option}" for option in UNCONFINED),
            *(f"--tmpfs={tmpfs}" for tmpfs in TMPFS),
            *(f"--device-cgroup-rule=c 195:{minor} rwm" for minor in range(9)),
            *options,
            NODE,
        ).stdout.strip()

    yield start
    for name in docker("ps", "--all", "--quiet", "--filter", f"label={label}").stdout.split():
        docker("rm", "--force", "--volumes", name)


def inside(name: str, *words: str) -> str:
    return docker("exec", name, *words, check=False).stdout.rstrip("\n")


def booted(name: str) -> str:
    """Wait until systemd has started everything, or given up, and return what it says."""
    said = list[str]()

    def settled() -> bool:
        said.append(inside(name, "systemctl", "is-system-running", "--wait"))
        return said[-1] not in ("", "offline", "starting", "initializing")

    until(settled, "the end of the boot")
    return said[-1]


def test_a_node_becomes_systemd_with_what_it_was_asked_for(node: Node) -> None:
    key = "ssh-ed25519 AAAA somebody with spaces"

    name = node("--env=NODE_GPUS=08", f"--env=NODE_AUTHORIZED_KEY={key}")

    assert booted(name) == "running"
    assert inside(name, "cat", "/proc/1/comm") == "systemd"
    # As a count of base ten, which the shell would take for a wrong octal one.
    gpus = inside(name, "sh", "-c", "stat --format='%n %a %t:%T' /dev/nvidia*").splitlines()
    assert gpus == [f"/dev/nvidia{minor} 666 c3:{minor}" for minor in range(8)]
    authorized = "/home/admin/.ssh/authorized_keys"
    assert inside(name, "cat", authorized) == key
    assert inside(name, "stat", "--format=%U %a", authorized) == "admin 600"
    assert inside(name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub").startswith("ssh-ed25519 ")
    assert inside(name, "stat", "--file-system", "--format=%T", "/sys/fs/cgroup") == "cgroup2fs"
    assert inside(name, "stat", "--format=%a", "/dev/fuse") == "666"


def test_a_node_keeps_its_host_key_when_it_starts_again(node: Node) -> None:
    name = node()
    booted(name)
    before = inside(name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
    docker("restart", "--time", "20", name)
    booted(name)

    assert before.startswith("ssh-ed25519 ")
    assert inside(name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub") == before


def test_a_node_without_a_key_lets_nobody_in_and_has_no_gpus(node: Node) -> None:
    name = node()
    booted(name)

    assert inside(name, "sh", "-c", "ls -d /home/admin/.ssh /dev/nvidia*") == ""


def test_a_node_that_may_not_mount_ends_with_the_status_of_that(node: Node) -> None:
    name = node(capabilities=())
    status = docker("wait", name, seconds=PATIENCE).stdout.strip()

    assert status not in ("0", "2", "3")
    assert "mount" in docker("logs", name).stderr


def test_a_node_whose_first_process_is_another_touches_nothing(node: Node) -> None:
    name = node("--init")
    status = docker("wait", name, seconds=PATIENCE).stdout.strip()

    assert (status, "first process" in docker("logs", name).stderr) == ("2", True)
