"""What is decided on the way to an inventory; tests/images reads real images."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from sifline.contents import compatibility
from sifline.contents.comparison import Contents, Settings, compare
from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.squashfs import Squashfs
from sifline.errors import MissingError, StepFailed, UsageError
from sifline.formats import sif
from sifline.formats.packages import Distribution, Found, Package, Unread
from sifline.report import inventory as report
from sifline.report import tables
from sifline.stages import inventory
from sifline.stages.inventory import Bill
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer
from tests.support.sif_files import SQUASHFS, write

NUMPY = Package(kind="python", name="numpy", version="1.0", place="opt")
OLD = Contents(
    name="x",
    kind="image",
    version=f"sha256:{'a' * 64}",
    size=10_000_000,
    found=Found(
        packages=(Package(kind="deb", name="libc6", version="2.36"), NUMPY),
        distribution=Distribution(id="debian", version="12", name="Debian 12"),
    ),
    settings=Settings(environment={"A": "1"}),
)
NEW = replace(
    OLD,
    version=f"sha256:{'b' * 64}",
    size=11_000_000,
    found=replace(OLD.found, packages=(replace(NUMPY, version="2.0"),), broken=("opt/odd",)),
    settings=Settings(environment={"A": ""}),
)


# Apptainer's neighbour


def test_the_machines_own_unsquashfs_is_used_beside_its_own_apptainer(tmp_path: Path) -> None:
    runner = RecordingRunner(
        {
            ("/usr/bin/apptainer", "--version"): answer("apptainer version 1.4.5"),
            ("/usr/bin/sh",): answer(),
        },
        tools={"apptainer", "sh", "unsquashfs"},
    )
    Squashfs(Apptainer(runner)).list_files(Path("/x.sif"), 4096, tmp_path / "list", purpose="p")
    assert runner.argvs[-1] == (
        *("/usr/bin/sh", "-c", 'exec unsquashfs "$@" > "$0"', f"{tmp_path}/list"),
        *("-lln", "-no-progress", "-offset", "4096", "/x.sif"),
    )


def test_the_toolbox_unpacks_where_the_machine_has_no_unsquashfs(tmp_path: Path) -> None:
    runner = RecordingRunner(
        {
            ("/usr/bin/apptainer", "--version"): answer("apptainer version 1.4.5"),
            ("docker",): answer(),
        },
        tools={"apptainer", "sh", "docker"},
    )
    squashfs = Squashfs(Apptainer(runner, user=(7, 8)))
    squashfs.unpack(Path("/x.sif"), 4096, tmp_path / "names", tmp_path / "tree", purpose="p")
    argv = runner.argvs[-1]
    inside = argv[argv.index("sifline/toolbox") + 1 :]
    assert argv[:3] == ("docker", "run", "--rm")
    assert inside[:3] == ("as-user", "7:8", "sh")
    assert inside[-3:] == ("-offset", "4096", "/x.sif")
    mounts = [argv[at + 1] for at, word in enumerate(argv) if word == "--mount"]
    assert [item.endswith('"readonly"') for item in mounts] == [False, True]
    assert ("--network", "none") in pairwise(argv)


# What a SIF says of itself


def sif_with(path: Path, **objects: object) -> sif.SifFile:
    parts = [
        (int(sif.Kind.JSON), name.replace("_", "-") + ".json", json.dumps(content).encode())
        for name, content in objects.items()
    ]
    return sif.read(write(path / "x.sif", [*parts, SQUASHFS]))


def test_configuration_of_the_image_is_preferred(tmp_path: Path) -> None:
    attributes = {"labels": {"a": "of apptainer"}, "environment": {}}
    file = sif_with(
        tmp_path,
        inspect_metadata={"data": {"attributes": attributes}},
        oci_config={"Labels": {"a": "of the image"}, "Cmd": ["x"]},
    )
    assert inventory.settings(file) == Settings(labels={"a": "of the image"}, command=("x",))


def test_notes_of_apptainer_do_without_one(tmp_path: Path) -> None:
    attributes = {"labels": {"a": "b"}, "environment": {"e": "export A=1"}, "runscript": "r"}
    file = sif_with(tmp_path, inspect_metadata={"data": {"attributes": attributes}})
    assert inventory.settings(file) == Settings(
        labels={"a": "b"}, environment={"A": "1"}, script="r"
    )


def test_sif_without_notes_has_no_settings(tmp_path: Path) -> None:
    assert inventory.settings(sif_with(tmp_path)) == Settings()


@pytest.mark.parametrize(
    "objects",
    [
        {"oci_config": []},
        {"oci_config": {"Env": [1]}},
        {"oci_config": {"Labels": "x"}},
        {"inspect_metadata": {}},
        {"inspect_metadata": {"data": {"attributes": {"environment": ["x"]}}}},
    ],
)
def test_odd_notes_are_damage(tmp_path: Path, objects: dict[str, object]) -> None:
    file = sif_with(tmp_path, **objects)
    with pytest.raises(UsageError, match="is a damaged SIF: its configuration"):
        inventory.settings(file)


# What goes wrong


def test_missing_image_is_named(tmp_path: Path) -> None:
    runner = RecordingRunner(
        {("docker", "image", "inspect"): answer(stderr="No such image: gone", returncode=1)},
        tools={"docker"},
    )
    with pytest.raises(MissingError, match="holds no image gone; build it"):
        inventory.look("gone", context_of(tmp_path, runner))


def test_damaged_file_system_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.sif", [SQUASHFS])
    runner = RecordingRunner(
        {("docker",): answer(stderr="FATAL ERROR: corrupt", returncode=1)}, tools={"docker"}
    )
    with pytest.raises(StepFailed, match=r"x\.sif: its file system cannot be read") as caught:
        inventory.look(path, context_of(tmp_path, runner))
    assert "corrupt" in caught.value.details
    assert list((tmp_path / "build" / "tmp").iterdir()) == []


def test_file_that_is_no_sif_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "x.sif").write_text("#!/bin/sh\n")
    with pytest.raises(UsageError, match="is not a SIF"):
        inventory.look(tmp_path / "x.sif", context_of(tmp_path, RecordingRunner(tools=set())))


def test_what_a_killed_run_left_goes_with_the_next(tmp_path: Path) -> None:
    path = write(tmp_path / "x.sif", [SQUASHFS])
    runner = RecordingRunner(
        {("docker",): answer(returncode=1), ("docker", "ps"): answer("c0ffee\n")}
        | {("docker", "rm"): answer()},
        tools={"docker"},
    )
    here = context_of(tmp_path, runner)
    with pytest.raises(StepFailed):
        inventory.look(path, here)
    assert not any("ps" in argv for argv in runner.argvs)
    (lock,) = (tmp_path / "build" / "locks").iterdir()
    left = tmp_path / "build" / "tmp" / lock.stem
    (left / "tree").mkdir(parents=True)

    with pytest.raises(StepFailed, match="its file system cannot be read"):
        inventory.look(path, here)

    assert ("docker", "rm", "--force", "--volumes", "c0ffee") in runner.argvs
    assert not left.exists()


# What people are shown


def test_summary_counts_packages_and_tells_what_may_be_missing() -> None:
    shown = report.bills([Bill(path=Path("build/sbom/x.cdx.json"), contents=NEW)]).splitlines()
    assert shown[1].split() == [
        *("x", "image", "bbbbbbbbbbbb", "0", "1", "Debian", "12", "build/sbom/x.cdx.json")
    ]
    assert shown[2].startswith("note: x may hold more packages: sifline cannot read 1 file of")
    assert shown[3:] == ["  /opt/odd"]


def test_summary_for_scripts_is_json() -> None:
    values = report.bill_values([Bill(path=Path("x.cdx.json"), contents=OLD)])
    (found,) = json.loads(tables.dump(bills=values))["bills"]
    assert found["packages"] == {"deb": 1, "python": 1}
    assert found["file"] == "x.cdx.json"


def test_many_files_that_were_not_understood_are_not_all_named() -> None:
    many = replace(OLD, found=Found(broken=tuple(f"f{number}" for number in range(25))))
    shown = report.bills([Bill(path=Path("x"), contents=many)]).splitlines()
    assert (len(shown), shown[-1]) == (4 + report.NAMED_FILES, "  and 5 more")


def test_an_image_whose_packages_cannot_be_read_never_seems_to_have_none() -> None:
    rpm = Unread(manager="rpm", path="var/lib/rpm/Packages")
    bill = Bill(path=Path("x"), contents=replace(OLD, found=Found(unread=(rpm,))))
    note = "incomplete: x has packages that sifline cannot read; package databases: rpm"
    assert report.bills([bill]).splitlines()[2].startswith(note)
    (value,) = report.bill_values([bill])
    assert (value["complete"], value["unread"]) == (False, ["rpm (/var/lib/rpm/Packages)"])


def test_an_image_without_any_package_database_is_said_to_have_none() -> None:
    bill = Bill(path=Path("x"), contents=replace(OLD, found=Found()))
    assert report.bills([bill]).splitlines()[2:] == [
        "incomplete: x has no package database that sifline knows; whether it has packages is"
        " unknown"
    ]
    assert report.bill_values([bill])[0]["complete"] is None
    needs = compatibility.read({}, (), Found(), architecture="amd64")
    assert "no package database that sifline knows" in report.compatibility([("x", needs)])
    assert report.compatibility_values([("x", needs)])[0]["complete"] is None


def test_an_image_whose_database_has_no_packages_has_none() -> None:
    bill = Bill(path=Path("x"), contents=replace(OLD, found=Found(described=True)))
    assert report.bills([bill]).splitlines()[2:] == [
        "note: the package database of x has no packages"
    ]
    assert report.bill_values([bill])[0]["complete"] is True


def test_compatibility_says_that_a_damaged_database_may_hide_something() -> None:
    found = replace(OLD.found, broken=("var/lib/dpkg/status",))
    needs = compatibility.read({}, (), found, architecture="amd64")
    shown = report.compatibility([("x", needs)])
    assert "may hold more packages" in shown
    assert "/var/lib/dpkg/status" in shown
    (value,) = report.compatibility_values([("x", needs)])
    assert (value["complete"], value["not_understood"]) == (False, ("var/lib/dpkg/status",))


def test_difference_and_compatibility_name_the_databases_that_were_not_read() -> None:
    rpm = Unread(manager="rpm", path="var/lib/rpm/Packages")
    other = replace(OLD, found=replace(OLD.found, unread=(rpm,)))
    assert "rpm (/var/lib/rpm/Packages)" in report.difference(compare(OLD, other))
    needs = compatibility.read({}, (), other.found, architecture="amd64")
    assert "rpm (/var/lib/rpm/Packages)" in report.compatibility([("x", needs)])
    assert needs.unread == ("rpm (/var/lib/rpm/Packages)",)


def test_difference_is_a_line_for_each_package_and_setting() -> None:
    shown = report.difference(compare(OLD, NEW))
    assert "size +1.0 MB (+10.0 %)" in shown
    assert [line.split() for line in shown.splitlines()[5:8]] == [
        ["Debian", "libc6", "2.36", "-"],
        ["Python", "numpy", "1.0", "2.0"],
        ["environment", "A", "1", '""'],
    ]


RPM = Unread(manager="rpm", path="var/lib/rpm/Packages")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Found(unread=(RPM,)), "has packages that sifline cannot read"),
        (Found(broken=("var/lib/dpkg/status",)), "may hold more packages"),
        (Found(), "has no package database that sifline knows"),
    ],
)
@pytest.mark.parametrize("side", ["old", "new"])
def test_what_cannot_be_read_is_not_said_to_be_the_same(
    found: Found, said: str, side: str
) -> None:
    sides = {"old": replace(OLD, found=Found(described=True)), "new": replace(OLD, version="y")}
    sides = {name: replace(one, found=Found(described=True)) for name, one in sides.items()}
    both = compare(**sides)
    assert both.same is True
    difference = compare(**sides | {side: replace(sides[side], found=found)})
    assert report.difference_values(difference)["same"] is None
    shown = report.difference(difference)
    assert "the same packages" not in shown
    assert "whether they are the same is unknown" in shown
    assert f"the {side} one {said}" in shown
    assert shown.count(said) == 1


def test_one_and_the_same_image_is_the_same_whatever_is_in_it() -> None:
    unread = replace(OLD, found=Found(unread=(RPM,)))
    assert compare(unread, unread).same is True


def test_a_difference_that_was_found_is_one_whatever_cannot_be_read() -> None:
    assert compare(replace(OLD, found=replace(OLD.found, unread=(RPM,))), NEW).same is False


def test_no_difference_is_said() -> None:
    assert "the same packages and settings" in report.difference(compare(OLD, OLD))


def test_sizes_of_an_image_and_a_sif_are_not_compared() -> None:
    shown = report.difference(compare(OLD, replace(OLD, kind="sif")))
    assert "their sizes do not compare" in shown


def test_difference_for_scripts_is_json() -> None:
    found = json.loads(tables.dump(**report.difference_values(compare(OLD, NEW))))
    assert found["same"] is False
    assert found["changed"][0]["after"] == ["2.0"]
    assert found["environment"] == [{"name": "A", "before": "1", "after": ""}]
