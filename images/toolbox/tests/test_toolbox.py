"""What the toolbox promises: a complete Apptainer, and nothing else from unstable."""

from __future__ import annotations

import pytest

from sifline.imagetests import Container


def test_apptainer_is_of_the_pinned_version(container: Container) -> None:
    found = container.run(["apptainer", "--version"])
    assert found.stdout.strip() == "apptainer version 1.4.5"


@pytest.mark.parametrize(
    "tool",
    [
        *("fuse-overlayfs", "fuse2fs", "gocryptfs", "mksquashfs", "newuidmap", "squashfuse"),
        *("getfattr", "sqfstar", "unsquashfs"),  # what sifline itself calls
    ],
)
def test_tool_that_is_called_is_there(container: Container, tool: str) -> None:
    found = container.run(["sh", "-c", 'command -v "$1"', "sh", tool])
    assert found.stdout.strip() == f"/usr/bin/{tool}"


def test_squashfs_is_made_with_zstd(container: Container) -> None:
    # Without its arguments the program prints its help, which lists what it can compress with.
    found = container.run(["mksquashfs", "-help"])
    assert "\n\tzstd" in found.stdout + found.stderr


def test_only_apptainer_comes_from_unstable(container: Container) -> None:
    sources = container.run(["grep", "--recursive", "sid", "/etc/apt"])
    assert (sources.returncode, sources.stdout) == (1, "")  # 2, where it cannot look
    # glibc decides: with unstable's, everything else would follow.
    glibc = container.run(["dpkg-query", "--show", "--showformat=${Version}", "libc6"])
    assert glibc.stdout.startswith("2.41-")


def test_as_user_has_help(container: Container) -> None:
    found = container.run(["as-user", "--help"])
    assert (found.returncode, found.stdout.split()[0], found.stderr) == (0, "usage:", "")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "UID:GID is missing"),
        (["1000", "id"], "'1000' is not UID:GID"),
        (["root:root", "id"], "'root:root' is not UID:GID"),
        (["1000:1000"], "no COMMAND"),
        (["--user", "1000:1000", "id"], "no option --user"),
    ],
)
def test_as_user_names_what_it_cannot_use(
    container: Container, words: list[str], named: str
) -> None:
    found = container.run(["as-user", *words])
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert named in found.stderr


# What it does where it may is tested in containers of their own, which can be written to:
# tests/images/test_container_scripts.py.


def test_as_user_needs_root(container: Container) -> None:
    found = container.run(["as-user", "1:1", "id"], user="12345")
    assert (found.returncode, "only root" in found.stderr) == (3, True)


def test_as_user_says_how_to_get_the_device_that_is_missing(container: Container) -> None:
    found = container.run(["as-user", "1:1", "id"], user="root")
    assert (found.returncode, "--device=/dev/fuse" in found.stderr) == (3, True)
