"""The module files that the registry script makes of deployed images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sifline.nodeside import registry
from tests.unit.test_registry_nodeside import CATEGORY, of, run

IMAGE = f"{CATEGORY}/hello"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    launcher = tmp_path / "launch"
    launcher.write_text("#!/bin/sh\n")
    launcher.chmod(0o755)
    monkeypatch.setattr(registry, "LAUNCHER", str(launcher))
    for name in registry.FOLDERS:
        (tmp_path / name).mkdir()
    return tmp_path


def deploy(
    root: Path, content: bytes, module: str, *, name: str = "hello", keep: int = 2, run_: str = ""
) -> dict[str, Any]:
    words = of(content, name)
    Path(run(root, "status", *words)["upload"]).write_bytes(content)
    number = sum(1 for _ in (root / ".registry").rglob("*.sif"))
    meta = {"when": f"2026-05-01T00:00:{number:02}+00:00", "module": module, "run": run_}
    return run(root, "install", *words, f"--meta={json.dumps(meta)}", f"--keep={keep}")


def files(root: Path) -> dict[str, str]:
    """The module files by name, with their text."""
    folder = root / "modules"
    return {
        str(path.relative_to(folder)): path.read_text("utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def commands(root: Path) -> list[str]:
    folder = root / ".registry" / "commands"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink())


def test_a_deployed_image_has_a_module_whose_command_is_in_its_path(root: Path) -> None:
    assert deploy(root, b"one", "pytorch/2.4.0")["module"] == ""

    text = files(root)["pytorch/2.4.0"]
    assert text.startswith("#%Module1.0\n")
    assert f"prepend-path PATH {{{root}/.registry/commands/{IMAGE}/2.4.0}}\n" in text
    assert files(root)["pytorch/.version"].endswith("set ModulesVersion {2.4.0}\n")
    link = root / ".registry" / "commands" / IMAGE / "2.4.0" / "pytorch"
    assert link.readlink() == Path(registry.LAUNCHER)
    assert (root / "modules" / "pytorch" / "2.4.0").stat().st_mode & 0o7777 == 0o644


def test_each_version_has_a_module_as_long_as_its_file_is_kept(root: Path) -> None:
    deploy(root, b"one", "hello/1", keep=1)
    deploy(root, b"two", "hello/2", keep=1)
    assert list(files(root)) == ["hello/.version", "hello/1", "hello/2"]
    assert files(root)["hello/.version"].endswith("{2}\n")

    deploy(root, b"three", "hello/3", keep=1)
    assert list(files(root)) == ["hello/.version", "hello/2", "hello/3"]
    assert commands(root) == [f"{IMAGE}/2/hello", f"{IMAGE}/3/hello"]


def test_another_name_takes_the_old_one_away_when_its_last_version_goes(root: Path) -> None:
    deploy(root, b"one", "old/1", keep=0)
    deploy(root, b"two", "new/1", keep=0)

    assert list(files(root)) == ["new/.version", "new/1"]
    assert not (root / "modules" / "old").exists()


def test_a_version_that_is_deployed_again_becomes_the_default(root: Path) -> None:
    for content, module in ((b"one", "hello/1"), (b"two", "hello/2"), (b"one", "hello/1")):
        deploy(root, content, module)

    assert files(root)["hello/.version"].endswith("{1}\n")


def test_what_others_put_there_is_left_alone_and_named(root: Path) -> None:
    theirs = root / "modules" / "pytorch" / "2.4.0"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("#%Module1.0\n# of a person\n")

    answer = deploy(root, b"one", "pytorch/2.4.0")

    assert answer["module"] == f"{theirs} is not of this image"
    assert theirs.read_text() == "#%Module1.0\n# of a person\n"
    assert commands(root) == []


def test_two_images_do_not_take_one_module(root: Path) -> None:
    deploy(root, b"one", "pytorch/1")
    answer = deploy(root, b"two", "pytorch/1", name="other")

    assert answer["module"].endswith("/modules/pytorch/1 is not of this image")
    assert f"# sifline: {IMAGE}\n" in files(root)["pytorch/1"]
    # And the second takes nothing away with it.
    deploy(root, b"three", "", name="other", keep=0)
    assert list(files(root)) == ["pytorch/.version", "pytorch/1"]


def test_without_the_launcher_the_image_is_there_and_the_lack_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = registry.LAUNCHER
    monkeypatch.setattr(registry, "LAUNCHER", "/nonexistent/launch")
    assert deploy(root, b"one", "hello/1")["module"] == "/nonexistent/launch is missing"
    assert files(root) == {}
    assert run(root, "status", *of(b"one"))["offered"] is False

    monkeypatch.setattr(registry, "LAUNCHER", launcher)
    meta = json.dumps({"module": "hello/1"})
    assert run(root, "install", *of(b"one"), f"--meta={meta}")["module"] == ""
    assert run(root, "status", *of(b"one"))["offered"] is True


def test_an_image_without_a_module_has_none(root: Path) -> None:
    assert deploy(root, b"one", "")["module"] == ""
    assert files(root) == {}
    assert run(root, "status", *of(b"one"))["offered"] is True


@pytest.mark.parametrize(
    "module", ["../x/1", "x", "x/../1", "x/1/2", "x/.1", "a b/1", "x/{1}", "x/1\n"]
)
def test_no_module_is_made_of_odd_names(root: Path, module: str) -> None:
    answer = deploy(root, b"one", module)

    assert answer.get("error", "") in {"", "bad-argument"}
    assert files(root) == {}
    assert commands(root) == []
