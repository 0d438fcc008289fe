"""Configuration files of Slurm: how they are read, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline.errors import MissingError, UsageError
from sifline.formats import slurm_conf
from sifline.formats.slurm_conf import Effect, Finding
from sifline.stages import lint_slurm
from tests.support.invoking import invoke_here

SOUND = """ClusterName=x
SlurmctldHost=c
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup,task/affinity
PrologFlags=Contain
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
NodeName=n[1-2] CPUs=4 Gres=gpu:a100:2
PartitionName=p Nodes=n[1-2] Default=YES
"""
DEFAULT = "NodeName=DEFAULT CPUs=4 Gres=gpu:a100:2\nNodeName=n[1-2]"
GRES = "NodeName=n[1-2] Name=gpu Type=a100 File=/dev/nvidia[0-1]\n"
CGROUP = "ConstrainRAMSpace=yes\nConstrainDevices=yes\nConstrainCores=yes\n"


def found(
    slurm: str = SOUND, gres: str = GRES, cgroup: str = CGROUP, release: str = "24.11"
) -> list[Finding]:
    texts = {"slurm.conf": slurm, "gres.conf": gres, "cgroup.conf": cgroup}
    files = {name: slurm_conf.read(text, kind=name, path=name) for name, text in texts.items()}
    return [*slurm_conf.check(files, release)]


def only(**texts: str) -> Finding:
    (one,) = found(**texts)
    return one


def test_sound_files_have_no_findings() -> None:
    assert found() == []


# How files are read


def test_keys_have_any_case_and_values_may_be_quoted() -> None:
    file = slurm_conf.read(
        'clustername = "a b"\nCLUSTERNAME=c # not this=x\n', kind="slurm.conf", path="x"
    )
    assert [pair.value for line in file.lines for pair in line.pairs] == ["a b", "c"]
    assert file.last("ClusterName") == (2, "c")


def test_a_line_goes_on_behind_a_backslash_and_keeps_its_first_number() -> None:
    file = slurm_conf.read("\nNodeName=a \\\n CPUs=2\nX=1\n", kind="slurm.conf", path="x")
    assert [(line.number, line.group, line.value("CPUs")) for line in file.lines] == [
        (2, "NodeName", "2"),
        (4, "", None),
    ]


def test_what_is_no_key_with_a_value_is_kept() -> None:
    (line,) = slurm_conf.read("A=1 nonsense\n", kind="slurm.conf", path="x").lines
    assert (line.pairs[0].value, line.rest) == ("1", "nonsense")


@given(st.text())
def test_whatever_stands_in_a_file_is_read_and_checked(text: str) -> None:
    found(slurm=text, gres=text, cgroup=text)


# Keys


@pytest.mark.parametrize(
    ("line", "effect", "words"),
    [
        ("SchedulerPort=1", Effect.FATAL, "slurm.conf has no SchedulerPort; remove it"),
        ("SlurmctldTimout=9", Effect.FATAL, "Did you mean SlurmctldTimeout"),
        ("PrologTimeout=9", Effect.FATAL, "came with 25.05; write PrologEpilogTimeout"),
        ("SlurmctldPlugstack=x", Effect.FATAL, "was removed after 22.05"),
        ("SallocDefaultCommand=x", Effect.FATAL, "LaunchParameters=use_interactive_step"),
        ("ExtSensorsType=x", Effect.ERROR, "obsolete since 23.11"),
        ("FastSchedule=1", Effect.ERROR, "config_overrides"),
        ("SelectType=select/cons_res", Effect.FATAL, "after 23.02; write select/cons_tres"),
        ("SlurmctldTimeout=soon", Effect.FATAL, "write a whole number"),
        ("DisableRootJobs=perhaps", Effect.FATAL, "write yes or no"),
        ("nonsense", Effect.FATAL, "no KEY=VALUE"),
        ("PartitionName=q Nodes=n1 Foo=1", Effect.FATAL, "no Foo in a line of PartitionName"),
    ],
)
def test_a_wrong_line_says_what_slurm_does_and_what_to_write(
    line: str, effect: Effect, words: str
) -> None:
    one = only(slurm=f"{SOUND}{line}\n")
    assert one.message.startswith(f"slurm.conf:{SOUND.count(chr(10)) + 1}: ")
    assert (one.effect, words in one.message) == (effect, True)


@pytest.mark.parametrize(
    "line",
    [
        "SlurmctldTimeout=INFINITE",
        "SlurmctldPort=6817",
        "SelectType=select/cons_tres",
        "JobSubmitPlugins=lua,ours",
        "TopologyPlugin=topology/tree",
        "SlurmUser=slurm SlurmdUser=root",
        "DownNodes=n1 State=DOWN",
    ],
)
def test_a_right_line_is_no_finding(line: str) -> None:
    assert found(slurm=f"{SOUND}{line}\n") == []


@pytest.mark.parametrize(
    ("line", "releases"),
    [
        ("PrologTimeout=9", {"25.05", "25.11", "26.05"}),
        ("AccountingStorageUser=x", {"22.05", "23.02", "23.11", "24.05", "24.11", "25.05"}),
        ("SelectType=select/cons_res", {"22.05", "23.02"}),
    ],
)
def test_a_line_is_right_for_some_releases(line: str, releases: set[str]) -> None:
    sound = {
        release
        for release in slurm_conf.RELEASES
        if not found(slurm=f"{SOUND}{line}\n", release=release)
    }
    assert sound == releases


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("TaskAffinity=no", "TaskPlugin=task/affinity"),
        ("CgroupReleaseAgentDir=x", "its support was removed"),
        ("AllowedDevicesFile=x", "logs a warning and ignores it"),
        ("CgroupAutomount=yes", "obsolete since 23.11"),
        ("ConstrainKmemSpace=no", "was removed after 23.02"),
    ],
)
def test_the_obsolete_keys_of_cgroup_conf(line: str, words: str) -> None:
    assert words in only(cgroup=f"{CGROUP}{line}\n").message


# Keys that need each other


def without(text: str, start: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(start))


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (
            {"slurm": SOUND.replace("CR_Core_Memory", "CR_Core")},
            "ConstrainRAMSpace=yes: memory is no resource",
        ),
        ({"slurm": without(SOUND, "TaskPlugin")}, "without task/cgroup"),
        (
            {"gres": GRES.replace("File=/dev/nvidia[0-1]", "Count=2")},
            "gres.conf has 0 with a file: Slurm drains the node; write File=/dev/nvidia0",
        ),
        (
            {"slurm": SOUND.replace("a100:2", "a100:4")},
            "n1 has 4 GPUs: gres.conf has 2 with a file: Slurm dr",
        ),
        ({"slurm": SOUND.replace("a100:2", "a100:1")}, "jobs can use 1"),
        ({"slurm": f"{SOUND}Prolog=/x\n"}, "PrologEpilogTimeout=60"),
        ({"slurm": f"{SOUND}Epilog=/x\n"}, "PrologEpilogTimeout=60"),
        ({"slurm": without(SOUND, "PrologFlags")}, "write PrologFlags=Contain"),
        ({"slurm": SOUND.replace("Nodes=n[1-2]", "Nodes=n1")}, "NodeName=n2: no partition"),
        ({"slurm": SOUND.replace("Nodes=n[1-2]", "Nodes=n[1-4]")}, "describes n[3-4]"),
        (
            {
                "slurm": SOUND + "NodeName=m\nPartitionName=q Nodes=m\n",
                "gres": "Name=gpu File=/dev/nvidia[0-1]\n",
            },
            "gres.conf:1: a GPU of all nodes: m have none in slurm.conf",
        ),
        ({"slurm": f"{SOUND}TaskPluginParam=Cores,Sched\n"}, "does not start with Sched"),
        ({"slurm": f"{SOUND}AccountingStorageEnforce=limit,qos\n"}, "does not start with limit"),
        (
            {"slurm": f"{SOUND}AccountingStorageType=accounting_storage/mysql\n"},
            "write accounting_storage/slurmdbd",
        ),
        ({"slurm": without(SOUND, "ClusterName")}, "slurm.conf: no ClusterName"),
        (
            {"slurm": SOUND.replace("Default=YES", 'AllowGroups="a b"Default=YES')},
            "no KEY=VALUE",
        ),
        ({"slurm": f"{SOUND}NodeName=n2 CPUs=4 Gres=gpu:2\n"}, "line 8 describes it already"),
    ],
)
def test_settings_that_do_nothing_together(texts: dict[str, str], words: str) -> None:
    assert words in only(**texts).message


@pytest.mark.parametrize(
    "texts",
    [
        {"slurm": f"{SOUND}Prolog=/x\nPrologEpilogTimeout=60\n"},
        {"slurm": without(SOUND, "SelectTypeParameters")},
        {"slurm": SOUND.replace("Nodes=n[1-2]", "Nodes=ALL")},
        {"slurm": SOUND.replace("Nodes=n[1-2]", "Nodes=s") + "NodeSet=s Feature=x\n"},
        {"gres": "AutoDetect=nvml\nName=gpu\n"},
        {"gres": "AutoDetect=nvml\n"},
        {"gres": "NodeName=n[1-2] AutoDetect=nvml\n"},
        {"slurm": SOUND.replace("NodeName=n[1-2] CPUs=4 Gres=gpu:a100:2", DEFAULT)},
        {"slurm": SOUND.replace("gpu:a100:2", "gpu:a100:2(S:0,1)")},
        {"slurm": SOUND.replace("gpu:a100:2", "gpu:a100:no_consume:2")},
        {"gres": GRES.replace("File=", "Files=")},
        {"gres": "Name=gpu MultipleFiles=/dev/a,/dev/b\nName=gpu MultipleFiles=/dev/c,/dev/d\n"},
        {"gres": "Name=gpu File=/dev/card[0-1]of[1]\n"},
        {"slurm": SOUND.replace("PrologFlags=Contain", "PrologFlags=X11")},
        {"slurm": f"{SOUND}TaskPluginParam=Cores,Verbose,AutoBind=threads\n"},
        {"slurm": f"{SOUND}AccountingStorageEnforce=associations,limits,qos,safe\n"},
        {
            "gres": "NodeName=n1 Name=gpu Count=2 File=/dev/nvidia[0-1]\nNodeName=n2 Name=gpu"
            " File=/dev/nvidia0,/dev/nvidia1\n"
        },
        {"gres": "Name=gpu File=/dev/nvidia0\nName=gpu File=/dev/nvidia1\n"},
    ],
)
def test_settings_that_work_together(texts: dict[str, str]) -> None:
    assert found(**texts) == []


def test_memory_became_a_resource_by_default() -> None:
    old = found(slurm=without(SOUND, "SelectTypeParameters"), release="23.11")
    assert [item.what for item in old] == ["ConstrainRAMSpace=yes"]


def test_a_range_without_an_end_is_no_range() -> None:
    one = only(
        gres="Name=gpu File=/dev/nvidia[0-]\nName=gpu File=/dev/nvidia[,]\nName=gpu File=/x\n"
    )
    assert "gres.conf has 3" in one.message


def test_what_matters_on_some_clusters_is_advice() -> None:
    assert only(slurm=without(SOUND, "PrologFlags")).effect is Effect.ADVICE
    default = without(without(SOUND, "PrologFlags"), "ProctrackType")
    assert only(slurm=default).effect is Effect.ADVICE


def test_a_gres_conf_of_another_node_is_no_error_yet() -> None:
    one = only(slurm=f"{SOUND}NodeName=m Gres=gpu:1\nPartitionName=q Nodes=m\n")
    assert (one.effect, "gres.conf names other nodes" in one.message) == (Effect.ADVICE, True)


@pytest.mark.parametrize(
    ("nodes", "member", "other"),
    [
        ("n[1-300,400-700]", "n700", "n350"),
        ("n[01-100]", "n50", "n050"),
        ("n[1-9],m[1-9]", "m9", "m09"),
    ],
)
def test_nodes_of_long_lists_are_known(nodes: str, member: str, other: str) -> None:
    slurm = SOUND.replace("n[1-2]", nodes) + f"PartitionName=q Nodes={member},{other}\n"
    (one,) = found(slurm=slurm, gres=GRES.replace("n[1-2]", nodes))
    assert one.does.endswith(f"describes {other}")


def test_a_list_that_cannot_be_read_is_said_and_decides_nothing() -> None:
    slurm = SOUND.replace("NodeName=n[1-2]", "NodeName=n[1-99999999]")
    one = only(slurm=slurm)
    assert (one.line, one.effect) == (8, Effect.ADVICE)
    assert "has more than 65536 nodes), and checks no nodes and partitions" in one.does


def test_reserves_need_no_partition_and_lists_have_an_end() -> None:
    assert found(slurm=f"{SOUND}NodeName=f[1-3] State=FUTURE\nNodeName=c1 State=CLOUD\n") == []
    found(slurm=f"{SOUND}NodeName=n[1-99999999]\n", gres=f"Name=gpu File=/dev/x[{'9' * 5000}]\n")


def test_what_is_in_a_file_that_was_not_read_is_no_finding() -> None:
    text = SOUND.replace("Nodes=n[1-2]", "Nodes=gpus") + "include sets.conf\n"
    assert found(slurm=text) == []


def test_only_a_newline_ends_a_line() -> None:
    assert found(slurm=SOUND.replace("SlurmctldHost=c", "SlurmctldHost=c # a\x0cb\x85c")) == []


# The verb


def test_a_copy_of_the_files_includes_its_own(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text(SOUND + "Include /etc/slurm/more.conf\n")
    (tmp_path / "more.conf").write_text("SchedulerPort=1\n")
    (one,) = lint_slurm.lint([tmp_path / "slurm.conf"], "24.11").findings
    assert one.what == "SchedulerPort=1"


def test_the_name_of_the_cluster_stands_in_paths_and_odd_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text(SOUND + "include %c.conf\n")
    (tmp_path / "x.conf").write_text("SchedulerPort=1\n")
    (one,) = lint_slurm.lint([tmp_path / "slurm.conf"], "24.11").findings
    assert one.what == "SchedulerPort=1"
    (tmp_path / "slurm.conf").write_text(SOUND + "include a\0b\n")
    with pytest.raises(UsageError, match="cannot be read"):
        lint_slurm.lint([tmp_path / "slurm.conf"], "24.11")


def test_files_that_include_others_are_read_with_them(tmp_path: Path) -> None:
    (tmp_path / "slurm.conf").write_text(SOUND + "Include more.conf\n")
    (tmp_path / "more.conf").write_text("\n\nSchedulerPort=1\n")
    (one,) = lint_slurm.lint([tmp_path / "slurm.conf"], "24.11.5").findings
    assert (one.line, one.what) == (10, "SchedulerPort=1")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.conf", "", "takes files that are called slurm.conf"),
        ("slurm.conf", "Include slurm.conf\n", "too many files in each other"),
        ("slurm.conf", "Include none.conf\n", "none.conf: cannot be read"),
    ],
)
def test_what_is_no_file_of_slurm(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=said):
        lint_slurm.lint([tmp_path / name], "24.11")


@pytest.mark.parametrize("release", ["24.10", "x", ""])
def test_an_unknown_release_is_refused(release: str) -> None:
    with pytest.raises(UsageError, match=r"takes 22\.05"):
        lint_slurm.lint([], release)


def test_a_machine_without_slurm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lint_slurm, "FOLDER", tmp_path)
    with pytest.raises(MissingError, match="name the files"):
        lint_slurm.standing()


def test_the_verb_names_each_line_and_ends_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "tasks.py").write_text(
        "from pathlib import Path\nfrom sifline.tasks import namespace\n"
        "ns = namespace(Path(__file__).parent)\n"
    )
    (tmp_path / "slurm.conf").write_text(SOUND)
    (tmp_path / "gres.conf").write_text(GRES)
    sound = invoke_here(tmp_path, "lint-slurm", "slurm.conf", "gres.conf")
    (tmp_path / "gres.conf").write_text(f"{GRES}Bogus=1\n")
    wrong = invoke_here(tmp_path, "lint-slurm", "slurm.conf", "gres.conf", "--release", "25.05")
    assert (sound.returncode, sound.stdout) == (0, "nothing in 2 files, for Slurm 24.11\n")
    assert wrong.returncode == 1
    assert "gres.conf:2: Bogus=1: Slurm 25.05 does not start with it" in wrong.stdout
    assert "1 finding in 2 files, for Slurm 25.05; correct the files" in wrong.stderr
