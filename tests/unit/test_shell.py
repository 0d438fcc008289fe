"""What a shell is given: flags over image.toml, and what is refused before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifline.errors import MissingError, UsageError
from sifline.model import Bind, Image, Opening, Run
from sifline.stages.shell import Asked, Caller, command, opening

TOLD = "hunter\x07"


def caller(gpus: int = 0, **environ: str) -> Caller:
    return Caller(user=(1000, 100), name="alice", environ=environ, gpus=gpus)


def opened(
    run: Run | None = None, asked: Asked | None = None, who: Caller | None = None
) -> Opening:
    image = Image(name="x", folder=Path("/x"), tag="sifline/x", run=run or Run())
    return opening(image, asked or Asked(), who or caller())


def refused(asked: Asked, who: Caller | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        opened(asked=asked, who=who)
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that one is in, with two others; one of them is the home."""
    for name in ("data", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path.resolve()


def test_nothing_is_given_where_nobody_says_anything() -> None:
    assert opened() == Opening()


# Folders


@pytest.mark.parametrize(
    ("text", "source", "target", "writable"),
    [
        ("data:/d", "data", "/d", True),
        ("./data:/d:rw", "data", "/d", True),
        ("data:/d:ro", "data", "/d", False),
        ("~:/h/", "home", "/h", True),
        ("~/../data:/a/../d//e", "data", "/d/e", True),
        ("/:/host:ro", "/", "/host", False),
    ],
)
def test_a_volume_is_a_path_of_this_host(
    folder: Path, text: str, source: str, target: str, writable: bool
) -> None:
    assert opened(asked=Asked(volumes=[text])).binds == (
        Bind(source=folder / source, target=target, writable=writable),
    )


def test_a_volume_may_be_a_link_and_a_file(folder: Path) -> None:
    (folder / "file").touch()
    (folder / "link").symlink_to("file")

    (bind,) = opened(asked=Asked(volumes=["link:/f"])).binds

    assert bind.source == folder / "file"


@pytest.mark.parametrize("name", ["a,b", 'q"q', "it's", "a b", "$HOME", "é"])
def test_odd_names_are_bound(folder: Path, name: str) -> None:
    (folder / name).mkdir()

    (bind,) = opened(asked=Asked(volumes=[f"{name}:/{name}"])).binds

    assert (bind.source, bind.target) == (folder / name, f"/{name}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data", "takes SOURCE:TARGET"),
        (":/d", "takes SOURCE:TARGET"),
        ("data:", "takes SOURCE:TARGET"),
        ("data:/d:xx", "takes SOURCE:TARGET"),
        ("data:/d:ro:rw", "paths with colons"),
        ("data:/a\nb", "control characters"),
        ("data:/a\udcff", "control characters"),
        ("data:d", "d must be an absolute path in the container"),
        ("data:/", "/ must be an absolute path in the container, below /"),
        ("data:/x/..", "below /"),
        ("./none:/d", "/none on this host"),
        ("none:/d", "the name of a Docker volume is not meant"),
        ("~nobody-of-that-name/x:/d", "unknown user"),
    ],
)
def test_a_volume_that_cannot_be_bound_is_refused(folder: Path, text: str, message: str) -> None:
    assert message in refused(Asked(volumes=[text]))


def test_links_in_a_circle_are_refused(folder: Path) -> None:
    (folder / "a").symlink_to("a")

    assert "a cannot be bound" in refused(Asked(volumes=["a:/d"]))


def test_a_link_to_a_name_that_cannot_be_bound_is_refused(folder: Path) -> None:
    (folder / "a\nb").mkdir()
    (folder / "link").symlink_to("a\nb")

    assert "control characters" in refused(Asked(volumes=["link:/d"]))


def test_two_volumes_for_one_place_are_refused(folder: Path) -> None:
    assert "2 folders are bound to /d" in refused(
        Asked(volumes=["data:/d", "home:/d/", "home:/e"])
    )


def test_the_folders_of_image_toml_are_bound_beside_those_of_the_flags(folder: Path) -> None:
    run = Run(binds=(f"{folder}/data:/d:ro", f"{folder}/data:/e", "~/:/h"))

    found = opened(run, Asked(volumes=["home:/e"])).binds

    assert found == (
        Bind(source=folder / "home", target="/e", writable=True),
        Bind(source=folder / "data", target="/d"),
        Bind(source=folder / "home", target="/h", writable=True),
    )


def test_a_folder_of_image_toml_that_is_not_there_is_told_and_left_out() -> None:
    found = opened(Run(binds=("/no/scratch:/scratch",)))

    assert found.binds == ()
    (note,) = found.notes
    assert note.startswith("images/x/image.toml: run.binds: '/no/scratch:/scratch': there is no")
    assert note.endswith("so it is not bound")


def test_the_home_folder_makes_the_caller_the_user(folder: Path) -> None:
    found = opened(asked=Asked(mount_home=True))

    home = str(folder / "home")
    assert found.binds == (Bind(source=folder / "home", target=home, writable=True),)
    assert (found.home, found.user) == (home, (1000, 100))
    assert found.env == {"USER": "alice", "LOGNAME": "alice"}
    assert opened(asked=Asked(mount_home=True, env=["USER=bob"])).env["USER"] == "bob"


@pytest.mark.parametrize("home", ["/", "", "relative", "/no/such", "/a:b", "/a\nb"])
def test_a_home_folder_that_cannot_be_bound_is_refused(
    monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setenv("HOME", home)

    assert "--mount-home: " in refused(Asked(mount_home=True))


# GPUs


@pytest.mark.parametrize("gpus", ["all", "1", "2", "device=0", "device=1,0", "device=GPU-8a-b"])
def test_gpus_that_are_there_are_handed_in(gpus: str) -> None:
    assert opened(asked=Asked(gpus=gpus), who=caller(2)).gpus == gpus


@pytest.mark.parametrize("gpus", ["all", "1", "device=0"])
def test_gpus_without_a_driver_are_something_missing(gpus: str) -> None:
    with pytest.raises(MissingError, match="no NVIDIA GPU"):
        opened(asked=Asked(gpus=gpus))


@pytest.mark.parametrize("gpus", ["3", "device=0,2"])
def test_more_gpus_than_there_are_are_something_missing(gpus: str) -> None:
    with pytest.raises(MissingError, match="this host has 2 of them"):
        opened(asked=Asked(gpus=gpus), who=caller(2))


@pytest.mark.parametrize("gpus", ["0", "-1", "two", "ALL", "device=", "device=0,", "0,1", "1 "])
def test_other_words_for_gpus_are_refused(gpus: str) -> None:
    assert "takes all, a number, device=0,2 or none" in refused(Asked(gpus=gpus), caller(2))


@pytest.mark.parametrize(
    ("said", "here", "given", "note"),
    [
        ("all", 2, "all", ""),
        ("2", 2, "2", ""),
        ("4", 2, "all", "this host has 2: all of them are handed in"),
        ("all", 0, "", "this host has no NVIDIA GPU: none is handed in"),
        ("", 0, "", ""),
    ],
)
def test_the_gpus_of_image_toml_are_those_that_there_are(
    said: str, here: int, given: str, note: str
) -> None:
    found = opened(Run(gpus=said), who=caller(here))

    assert found.gpus == given
    assert [text.partition("but ")[2] for text in found.notes] == ([note] if note else [])


@pytest.mark.parametrize(("flag", "given"), [("none", ""), ("1", "1")])
def test_the_flag_wins_over_the_gpus_of_image_toml(flag: str, given: str) -> None:
    found = opened(Run(gpus="all"), Asked(gpus=flag), caller(2))

    assert (found.gpus, found.notes) == (given, ())


# What else there is


def test_the_size_of_shared_memory_is_that_of_image_toml() -> None:
    assert opened(Run(shared_memory="8g")).shared_memory == "8g"


def test_variables_have_a_value_or_the_callers_own() -> None:
    asked = Asked(env=["A=1", "B=", "OWN", "A=x=y", "_n2=two\nlines\t"])

    assert opened(asked=asked, who=caller(OWN="z")).env == {
        "A": "x=y",
        "B": "",
        "OWN": None,
        "_n2": "two\nlines\t",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NONE", "you have no such variable; say --env NONE=value"),
        ("", "takes NAME=value"),
        ("=x", "takes NAME=value"),
        ("A-B=x", "takes NAME=value"),
        ("9=x", "takes NAME=value"),
        ("HOME=/x", "use --mount-home"),
        ("UID=5", "is reserved by Apptainer"),
        ("A=x\r", "its value has control characters"),
        ("A=\udcff", "is no UTF-8"),
        ("ODD", "its value has control characters"),
    ],
)
def test_a_variable_that_cannot_be_passed_on_is_refused(text: str, message: str) -> None:
    assert message in refused(Asked(env=[text]), caller(ODD=TOLD))


@pytest.mark.parametrize(("text", "secret"), [(f"A={TOLD}", TOLD), ("A B=hunter", "hunter")])
def test_no_value_is_repeated(text: str, secret: str) -> None:
    assert secret not in refused(Asked(env=[text]))


def test_the_folder_to_start_in_is_one_of_the_container() -> None:
    assert opened(asked=Asked(workdir="/a, b")).workdir == "/a, b"


@pytest.mark.parametrize("workdir", ["data", "./x", "~", "/a\nb"])
def test_another_folder_to_start_in_is_refused(workdir: str) -> None:
    assert "takes an absolute path in the container" in refused(Asked(workdir=workdir))


@pytest.mark.parametrize(
    ("words", "run"), [([], ["/bin/sh"]), (["ls", ""], ["ls", ""]), (["-x"], ["-x"])]
)
def test_without_a_command_it_is_a_shell(words: list[str], run: list[str]) -> None:
    assert command(words) == run


def test_a_command_without_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match="has an empty name"):
        command(["", "x"])
