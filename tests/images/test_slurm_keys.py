"""The table of Slurm's keys, compared with what the programs of Slurm 24.11 say of each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sifline.formats import slurm_conf
from sifline.formats.slurm_conf import Effect, Key
from tests.support.engine import docker, need_image

IMAGE = "sifline/slurm-node"
RELEASE = "24.11"
SAMPLES = {"yes-no": "yes", "number": "1", "fraction": "1", "text": "x", "line": "x"}
UNKNOWN = re.compile(r"unrecognized key: (\S+)")
OBSOLETE = re.compile(r'The option "(\w+)" is defunct')
LEAST = """ClusterName=x
SlurmctldHost=localhost
NodeName=n1 Gres=gpu:1
PartitionName=p Nodes=ALL
GresTypes=gpu
"""
# slurmd reads gres.conf once MUNGE answers.
WITH_MUNGE = """
install --directory --owner=munge /run/munge
mungekey --create --keyfile=/tmp/key
chown munge /tmp/key
runuser --user=munge -- munged --key-file=/tmp/key 2> /dev/null
exec "$@"
"""
GROUPS = ("NodeName", "PartitionName", "NodeSet", "DownNodes")

pytestmark = pytest.mark.spread


@pytest.fixture(autouse=True, scope="module")
def _image() -> None:
    need_image(IMAGE)


def said(folder: Path, *words: str) -> str:
    """What a program of Slurm says of the files in ``folder``."""
    mount = f"type=bind,source={folder},target=/etc/slurm,readonly"
    argv = ("run", "--rm", "--pull=never", "--network=none", "--mount", mount, IMAGE, *words)
    done = docker(*argv, check=False)
    return done.stdout + done.stderr


def single(file: str, group: str = "") -> list[Key]:
    """The keys of a file that are no beginning of a line."""
    begins = {key.group for key in slurm_conf.keys(file)} | {"NodeName", "FrontendName"}
    return [key for key in slurm_conf.keys(file) if key.group == group and key.name not in begins]


def line(key: Key) -> str:
    return f"{key.name}={SAMPLES[key.kind]}"


def unknown(keys: list[Key]) -> set[str]:
    found = {key.name for key in keys if not key.known(RELEASE)}
    assert found, "the table has no key that 24.11 does not know"
    return found


def test_the_programs_are_of_the_release() -> None:
    argv = ("run", "--rm", "--pull=never", "--network=none", IMAGE, "slurmd", "-V")
    assert re.match(rf"\S+ {re.escape(RELEASE)}\.", docker(*argv).stdout)


def test_keys_of_slurm_conf(tmp_path: Path) -> None:
    keys = single("slurm.conf")
    (tmp_path / "slurm.conf").write_text("\n".join([*map(line, keys), "NoSuchKey=1\n"]))
    found = said(tmp_path, "scontrol", "show", "config")
    assert set(UNKNOWN.findall(found)) == {*unknown(keys), "NoSuchKey"}


def test_keys_of_lines_in_slurm_conf(tmp_path: Path) -> None:
    keys = [key for group in GROUPS for key in single("slurm.conf", group)]
    lines = [f"{key.group}=x {line(key)}" for key in keys]
    (tmp_path / "slurm.conf").write_text("\n".join([*lines, "NodeName=x NoSuchKey=1\n"]))
    found = said(tmp_path, "scontrol", "show", "config")
    assert set(UNKNOWN.findall(found)) == {*unknown(keys), "NoSuchKey"}


def test_obsolete_keys_are_named_by_the_daemon(tmp_path: Path) -> None:
    keys = [key for key in single("slurm.conf") if key.known(RELEASE)]
    obsolete = [key for key in keys if key.obsolete and key.obsolete <= RELEASE]
    lines = [*map(line, obsolete), "ProctrackType=proctrack/linuxproc", LEAST]
    (tmp_path / "slurm.conf").write_text("\n".join(lines))
    (tmp_path / "cgroup.conf").write_text("CgroupAutomount=yes\n")
    found = set(OBSOLETE.findall(said(tmp_path, "slurmd", "-G", "-N", "n1")))
    assert found - {"CgroupAutomount"} == {key.name for key in obsolete}
    assert len(obsolete) > 5


def test_keys_of_cgroup_conf(tmp_path: Path) -> None:
    keys = single("cgroup.conf")
    lines = [line(key) for key in keys if not key.fatal]
    (tmp_path / "slurm.conf").write_text(LEAST + "ProctrackType=proctrack/cgroup\n")
    (tmp_path / "cgroup.conf").write_text("\n".join([*lines, "NoSuchKey=1\n"]))
    found = said(tmp_path, "slurmd", "-G", "-N", "n1")
    assert set(UNKNOWN.findall(found)) == {*unknown(keys), "NoSuchKey"}


def test_keys_of_gres_conf(tmp_path: Path) -> None:
    keys = single("gres.conf", "Name")
    samples = {**SAMPLES, "text": "/dev/null"}
    lines = [f"Name=gpu {key.name}={samples[key.kind]}" for key in keys if key.name != "Name"]
    (tmp_path / "slurm.conf").write_text(LEAST + "ProctrackType=proctrack/linuxproc\n")
    asked = ("sh", "-c", WITH_MUNGE, "sh", "slurmd", "-G", "-N", "n1")
    found = []
    for line_ in [*lines, "Name=gpu NoSuchKey=1"]:  # a wrong value ends the reading
        (tmp_path / "gres.conf").write_text(f"{line_}\n")
        found += UNKNOWN.findall(said(tmp_path, *asked))
    assert found == ["NoSuchKey"]
    assert len(lines) > 8


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("FastSchedule=0", "FastSchedule option has been removed"),
        ("AccountingStorageLoc=x", "AccountingStorageLoc option has been removed"),
        ("SallocDefaultCommand=x", "SallocDefaultCommand has been removed"),
        ("SlurmctldTimeout=soon", "not a valid number"),
        ("DisableRootJobs=perhaps", "not a valid option"),
        ("no key", "Parse error in file"),
    ],
)
def test_what_the_table_calls_fatal_ends_the_daemon(tmp_path: Path, text: str, words: str) -> None:
    """Each with the daemon's own words, and none of them in the file without that line."""
    (tmp_path / "slurm.conf").write_text(LEAST)
    assert words not in said(tmp_path, "slurmctld", "-D")
    (tmp_path / "slurm.conf").write_text(f"{LEAST}{text}\n")
    found = said(tmp_path, "slurmctld", "-D")
    assert words in found
    # It ended there, and not for want of MUNGE.
    assert "fatal:" in found
    assert "auth" not in found
    file = slurm_conf.read(f"{LEAST}{text}\n", kind="slurm.conf", path="slurm.conf")
    fatal = [
        item
        for item in slurm_conf.check({"slurm.conf": file}, RELEASE)
        if item.effect is Effect.FATAL
    ]
    assert [item.line for item in fatal] == [6]


def test_a_node_that_is_described_twice_ends_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text(f"{LEAST}NodeName=n1\n")
    assert "fatal: Duplicated NodeHostName n1" in said(tmp_path, "slurmd", "-G", "-N", "n1")
    file = slurm_conf.read(f"{LEAST}NodeName=n1\n", kind="slurm.conf", path="slurm.conf")
    (one,) = (
        item
        for item in slurm_conf.check({"slurm.conf": file}, RELEASE)
        if item.effect is not Effect.ADVICE
    )
    assert (one.line, one.effect) == (6, Effect.FATAL)


def test_what_the_table_calls_ignored_is_told_and_survived(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text(f"{LEAST}FastSchedule=1\n")
    found = said(tmp_path, "slurmctld", "-D")
    assert "Ignoring obsolete FastSchedule=1" in found
    file = slurm_conf.read(f"{LEAST}FastSchedule=1\n", kind="slurm.conf", path="slurm.conf")
    (one,) = (
        item
        for item in slurm_conf.check({"slurm.conf": file}, RELEASE)
        if item.effect is not Effect.ADVICE
    )
    assert one.effect is Effect.ERROR
