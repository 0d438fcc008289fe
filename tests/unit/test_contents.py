from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline.contents import comparison
from sifline.contents.comparison import Change, Contents, Settings, Upgrade
from sifline.formats.packages import Distribution, Found, Package


def deb(name: str, version: str = "1", architecture: str = "amd64") -> Package:
    return Package(kind="deb", name=name, version=version, architecture=architecture)


def python(name: str, version: str = "1", place: str = "opt") -> Package:
    return Package(kind="python", name=name, version=version, place=place)


def held(*packages: Package, settings: Settings | None = None, broken: str = "") -> Contents:
    return Contents(
        name="x",
        kind="image",
        version="sha256:1",
        size=1,
        found=Found(packages=tuple(sorted(packages)), broken=(broken,) if broken else ()),
        settings=settings or Settings(),
    )


def test_configuration_of_an_image_gives_its_settings() -> None:
    found = comparison.of_config(
        {
            "Env": ["A=b=c", "EMPTY=", "LINES=1\n2"],
            "Labels": {"org.example": "x", "sifline.recipe": "{}", "org.sifline.name": "x"},
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ["run"],
            "WorkingDir": "/work",
            "User": "1000:1000",
        }
    )
    assert found == Settings(
        environment={"A": "b=c", "EMPTY": "", "LINES": "1\n2"},
        labels={"org.example": "x"},
        entrypoint=("/bin/sh", "-c"),
        command=("run",),
        workdir="/work",
        user="1000:1000",
    )


@pytest.mark.parametrize("config", [{}, {"Env": None, "Labels": None, "Cmd": None, "User": None}])
def test_configuration_may_leave_all_out(config: dict[str, None]) -> None:
    assert comparison.of_config(config) == Settings()


def test_old_engines_wrote_a_command_as_one_text() -> None:
    assert comparison.of_config({"Entrypoint": "/run me"}).entrypoint == ("/run me",)


def test_notes_of_apptainer_give_what_the_scripts_export() -> None:
    found = comparison.of_attributes(
        {
            "environment": {
                "/.singularity.d/env/90-environment.sh": (
                    "#!/bin/sh\n# export NO=1\nexport A='b c'\n  export B=\"d\"\n"
                    "export C=a b\nexport D='open\nF=1\n"
                )
            },
            "labels": {
                "org.label-schema.build-date": "today",
                "org.label-schema.usage.apptainer.version": "1.4.5",
                "org.label-schema.name": "theirs",
                "org.sifline.commit": "c0ffee",
            },
            "runscript": "#!/bin/sh\nexec run\n",
        }
    )
    assert found == Settings(
        environment={"A": "b c", "B": "d", "C": "a b", "D": "'open"},
        labels={"org.label-schema.name": "theirs"},
        script="#!/bin/sh\nexec run\n",
    )


def test_packages_that_came_and_went_are_told() -> None:
    found = comparison.compare(held(deb("a"), deb("b")), held(deb("b"), python("a"), deb("c")))
    assert (found.added, found.removed) == ((deb("c"), python("a")), (deb("a"),))
    assert found.changed == ()


def test_other_version_is_a_change_and_no_coming_and_going() -> None:
    found = comparison.compare(held(deb("a", "1")), held(deb("a", "2")))
    assert found.changed == (
        Upgrade(kind="deb", name="a", architecture="amd64", before=("1",), after=("2",)),
    )
    assert (found.added, found.removed) == ((), ())


def test_packages_of_another_architecture_are_others() -> None:
    found = comparison.compare(held(deb("a")), held(deb("a"), deb("a", "2", "i386")))
    assert (found.added, found.changed) == ((deb("a", "2", "i386"),), ())


def test_another_place_alone_is_no_difference() -> None:
    old, new = python("a", place="lib/python3.11"), python("a", place="lib/python3.12")
    assert comparison.compare(held(old), held(new)).same


@pytest.mark.parametrize("version", ["1", "2"])
def test_one_more_place_is_a_difference(version: str) -> None:
    found = comparison.compare(held(python("a")), held(python("a"), python("a", version, "other")))
    assert [(item.before, item.after) for item in found.changed] == [(("1",), ("1", version))]


def test_settings_that_changed_are_told_and_a_missing_one_is_not_an_empty_one() -> None:
    old = Settings(environment={"A": "1", "B": "", "C": "c"}, labels={"l": "1"})
    new = Settings(environment={"A": "2", "C": "c", "D": ""}, labels={"l": "2"})
    found = comparison.compare(held(settings=old), held(settings=new))
    assert found.environment == (
        Change(name="A", before="1", after="2"),
        Change(name="B", before="", after=None),
        Change(name="D", before=None, after=""),
    )
    assert found.labels == (Change(name="l", before="1", after="2"),)


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        (
            Settings(entrypoint=("a b", "c")),
            Change(name="entrypoint", before=None, after="'a b' c"),
        ),
        (Settings(command=("x",)), Change(name="cmd", before=None, after="x")),
        (Settings(workdir="/w"), Change(name="workdir", before=None, after="/w")),
        (Settings(user="me"), Change(name="user", before=None, after="me")),
        (Settings(script="s"), Change(name="runscript", before=None, after="s")),
    ],
)
def test_another_way_to_start_is_told(settings: Settings, change: Change) -> None:
    assert comparison.compare(held(), held(settings=settings)).start == (change,)


def test_the_top_folder_is_no_other_than_none_at_all() -> None:
    assert comparison.compare(held(), held(settings=Settings(workdir="/"))).same


def test_another_distribution_is_told() -> None:
    new = replace(held(), found=Found(distribution=Distribution(id="debian", version="13")))
    (change,) = comparison.compare(held(), new).start
    assert change == Change(name="distribution", before=None, after="debian 13")


def test_files_that_were_not_understood_go_with_the_difference() -> None:
    found = comparison.compare(held(broken="b"), held(broken="a"))
    assert (found.broken, found.same) == (("a", "b"), True)


_PACKAGES = st.frozensets(
    st.builds(
        Package,
        kind=st.sampled_from(["deb", "python"]),
        name=st.sampled_from("ab"),
        version=st.sampled_from("12"),
        architecture=st.sampled_from(["", "i386"]),
        place=st.sampled_from(["", "opt"]),
    )
)


@given(_PACKAGES, _PACKAGES)
def test_a_difference_read_backwards_is_its_mirror(
    old: frozenset[Package], new: frozenset[Package]
) -> None:
    there, back = (
        comparison.compare(held(*one), held(*other)) for one, other in ((old, new), (new, old))
    )
    assert (there.added, there.removed) == (back.removed, back.added)
    assert [(item.before, item.after) for item in there.changed] == [
        (item.after, item.before) for item in back.changed
    ]
    assert comparison.compare(held(*old), held(*old)).same
