"""The look at an image's file system, as its stage reads it; two of its tools are stand-ins.

The real ones are in the toolbox: see tests/images/test_container_scripts.py.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from sifline.contents import rootfs
from tests.support.calls import copy, program, refusal, run

USAGE, MISSING = 2, 3
REAL = ("cat", "find", "head", "mkdir", "sh", "stat", "tar", "xargs")
SQFSTAR = "echo 'sqfstar version 4.6.1 (2023/03/25)'; echo more"
GETFATTR = "printf '# file: %s\\n' dev"


class Look:
    """The script, a folder that stands for an image's file system, and programs on the path."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.script = copy("src/sifline/contents/look.sh", root / "the context")
        self.image, self.out = root / "an image", root / "new" / "out folder"
        self.paths = root / "the context" / "paths"
        self.tools = root / "tools"
        self.tools.mkdir()
        (self.image / "etc").mkdir(parents=True)
        (self.image / "etc" / "a file").write_text("content")
        (self.image / "link").symlink_to("nothing")
        self.paths.write_text("etc\netc/a file\nlink\nmissing\n")
        for name in REAL:
            (self.tools / name).symlink_to(program(name))
        self.tool("sqfstar", SQFSTAR)
        self.tool("getfattr", GETFATTR)

    def tool(self, name: str, script: str) -> None:
        """Put a program on the path that runs ``script``."""
        path = self.tools / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!{program('sh')}\n{script}\n")
        path.chmod(0o755)

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run it as the stage does, or with other ``words``."""
        words = words or (self.image, self.paths, self.out)
        argv = [program("sh"), self.script, *words]
        return run(argv, env={"PATH": str(self.tools)}, cwd=self.root)

    def entries(self) -> dict[str, tarfile.TarInfo]:
        with tarfile.open(self.out / "entries.tar") as tar:
            return {entry.name: entry for entry in tar}


@pytest.fixture
def look(tmp_path: Path) -> Look:
    return Look(tmp_path / "with a space")


def test_of_the_paths_those_are_packed_that_are_there(look: Look) -> None:
    done = look.run()

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = look.entries()
    assert list(found) == ["etc", "etc/a file", "link"]
    assert (found["etc/a file"].size, found["link"].linkname) == (7, "nothing")


def test_a_folder_is_packed_without_what_is_in_it(look: Look) -> None:
    look.paths.write_text("etc\n")
    look.run()

    assert list(look.entries()) == ["etc"]


def test_the_stage_reads_what_was_written(look: Look, tmp_path: Path) -> None:
    for name in ("dev", "proc", "sys"):
        (look.image / name).mkdir()
    look.paths.write_text("\n".join(rootfs.PATHS) + "\n")
    look.run()
    (tmp_path / "skeleton").mkdir()

    layout = rootfs.layout(look.out, tmp_path / "skeleton", created=1000, declared=None)

    assert (layout.root.mode, layout.linked) == (look.image.stat().st_mode & 0o7777, False)
    assert (look.out / "tools").read_text() == "sqfstar version 4.6.1 (2023/03/25)\n"


def test_a_file_with_two_names_is_told(look: Look) -> None:
    (look.image / "twin").hardlink_to(look.image / "etc" / "a file")
    look.run()

    assert (look.out / "linked").read_text() == "etc/a file\n"


def test_nothing_that_is_asked_for_may_be_there(look: Look) -> None:
    look.paths.write_text("missing\n")

    assert look.run().returncode == 0
    assert (look.entries(), (look.out / "linked").read_text()) == ({}, "")


def test_relative_paths_mean_the_folder_at_hand(look: Look) -> None:
    done = look.run("an image", "the context/paths", "new/out folder")

    assert (done.returncode, done.stderr) == (0, "")
    assert list(look.entries()) == ["etc", "etc/a file", "link"]


@pytest.mark.parametrize(("tool", "status"), [("getfattr", 123), ("tar", 2), ("stat", 1)])
def test_the_status_of_a_step_that_fails_is_passed_on(look: Look, tool: str, status: int) -> None:
    look.tool(tool, f"echo {tool} failed >&2; exit {status % 122}")  # 123 is that of xargs

    done = look.run()

    assert (done.returncode, done.stderr) == (status, f"{tool} failed\n")


@pytest.mark.parametrize(
    "tool", ["find", "getfattr", "head", "mkdir", "sqfstar", "stat", "tar", "xargs"]
)
def test_each_missing_tool_is_named_before_anything_is_written(look: Look, tool: str) -> None:
    (look.tools / tool).unlink()

    status, said = refusal(look.run())

    assert (status, f"{tool} is not found" in said) == (MISSING, True)
    assert not look.out.exists()


def test_an_image_that_is_no_folder_is_named(look: Look) -> None:
    shutil.rmtree(look.image)

    assert refusal(look.run()) == (USAGE, f"look.sh: IMAGE is no folder: {look.image}")


def test_a_list_of_paths_that_is_no_file_is_named(look: Look) -> None:
    look.paths.unlink()

    assert refusal(look.run()) == (USAGE, f"look.sh: PATHS is no file: {look.paths}")


def test_an_argument_too_many_is_named(look: Look) -> None:
    status, said = refusal(look.run(look.image, look.paths, look.out, "too many"))

    assert (status, "too many" in said) == (USAGE, True)
