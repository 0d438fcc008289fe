from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bootstrapping import environment, indexes, packages
from bootstrapping.commands import Stop
from bootstrapping.machine import Machine

ALL_TOOLS = frozenset(
    {
        "apparmor_parser",
        "debian-archive-keyring",
        "dot",
        "iptables",
        "mmdebstrap",
        "newuidmap",
        "rsync",
        "ssh",
    }
)


def wanted(**changes: Any) -> list[str]:
    """Return the packages a machine needs that has everything except ``changes``."""
    machine = {
        "distribution": "debian",
        "codename": "bookworm",
        "root": True,
        "engine": "answers",
        "dockerd": True,
        "docker": True,
        "buildx": True,
        "tools": ALL_TOOLS,
        "venv": True,
        "ca_bundle": True,
        "apparmor": False,
    }
    return [need.package for need in packages.needs(Machine(**{**machine, **changes}))]


EMPTY: dict[str, Any] = {
    "engine": "silent",
    "dockerd": False,
    "docker": False,
    "buildx": False,
    "tools": frozenset(),
    "venv": False,
    "ca_bundle": False,
}


def test_a_complete_machine_needs_nothing() -> None:
    assert wanted() == []


def test_what_only_tests_need_is_needed_for_tests_alone() -> None:
    assert wanted(tests=True) == ["zsh", "fish", "packer"]
    assert wanted(tests=True, tools=ALL_TOOLS | {"zsh", "fish", "packer"}) == []
    assert wanted(tests=True, codename="trixie") == ["zsh", "fish"]


@pytest.mark.parametrize(
    ("distribution", "codename", "engine"),
    [
        ("debian", "bookworm", {"docker.io", "iptables"}),
        ("debian", "trixie", {"docker.io", "iptables", "docker-cli"}),
        ("ubuntu", "noble", {"docker.io", "iptables", "debian-archive-keyring"}),
    ],
)
def test_an_empty_machine_needs_everything_once(
    distribution: str, codename: str, engine: set[str]
) -> None:
    found = wanted(distribution=distribution, codename=codename, **EMPTY)

    common = {"docker-buildx", "mmdebstrap", "rsync", "openssh-client", "graphviz", "python3-venv"}
    assert sorted(found) == sorted(engine | common | {"ca-certificates"})


DRAWS = packages.Need("graphviz", "draws")
COPIES = packages.Need("rsync", "copies")


def test_what_only_pictures_need_stops_nothing() -> None:
    machine = Machine(
        **{
            **EMPTY,
            "distribution": "debian",
            "codename": "trixie",
            "root": True,
            "apparmor": False,
        }
    )

    packages.obtain([DRAWS], machine, may_install=False)
    with pytest.raises(Stop, match="missing: graphviz, rsync; without --no-install"):
        packages.obtain([DRAWS, COPIES], machine, may_install=False)


def test_a_client_alone_is_no_engine() -> None:
    assert "docker.io" in wanted(engine="silent", dockerd=False, docker=True)


def test_an_engine_that_is_there_but_silent_is_not_installed_again() -> None:
    assert wanted(engine="silent", dockerd=True) == []


def test_an_answering_engine_without_a_local_one_needs_only_the_client() -> None:
    assert wanted(dockerd=False, docker=False, codename="trixie") == ["docker-cli"]


def test_no_permission_is_no_reason_to_install() -> None:
    assert wanted(engine="denied", dockerd=False) == []


def test_apparmor_comes_with_the_engine_where_the_kernel_uses_it() -> None:
    without = ALL_TOOLS - {"apparmor_parser"}

    assert wanted(engine="silent", dockerd=False, tools=without) == ["docker.io"]
    assert wanted(engine="silent", dockerd=False, tools=without, apparmor=True) == [
        "docker.io",
        "apparmor",
    ]


def test_an_ordinary_user_needs_user_namespaces_for_mmdebstrap() -> None:
    assert wanted(root=False, tools=ALL_TOOLS - {"newuidmap"}) == ["uidmap"]
    assert wanted(root=True, tools=ALL_TOOLS - {"newuidmap"}) == []


LIST = """\
# a comment with bookworm main
deb http://mirror.example/debian bookworm main contrib
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main
deb http://mirror.example/debian bookworm-updates main
#deb http://mirror.example/off bookworm main
deb http://other.example/tool nodistro main
"""


def test_one_line_sources_are_pointed_at_the_next_suite() -> None:
    assert packages.next_suite(LIST, False, "bookworm", "trixie").splitlines() == [
        "deb http://mirror.example/debian trixie main contrib",
        "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian trixie main",
    ]


SOURCES = """\
# made by hand
Types: deb deb-src
# snapshot of bookworm
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://mirror.example/off
Suites: bookworm
Components: main
"""


def test_paragraph_sources_are_pointed_at_the_next_suite() -> None:
    text = packages.next_suite(SOURCES, True, "bookworm", "trixie")

    assert text.splitlines() == [
        "Types: deb",
        "Uris: http://mirror.example/debian",
        "Suites: trixie",
        "Components: main",
        "Signed-By: ",
        " -----BEGIN PGP PUBLIC KEY BLOCK-----",
        " .",
        " abc",
    ]


def test_sources_of_other_archives_only_give_nothing() -> None:
    text = "Types: deb\nURIs: http://other.example\nSuites: nodistro\nComponents: main\n"

    assert packages.next_suite(text, True, "bookworm", "trixie") == ""


def test_pip_settings_come_from_files_and_the_environment_decides(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(
        "[global]\nindex-url = http://a.example\ncert = /a.crt\n[list]\nformat = columns\n"
    )
    (tmp_path / "b").write_text("[install]\nfind-links = /w1\n  /w2\nextra-index-url = %x\n")
    environment = {"PIP_INDEX_URL": "http://c.example", "HOME": "/root"}

    settings = indexes.pip_settings([tmp_path / "a", tmp_path / "b"], environment)

    assert settings == {
        "index-url": "http://c.example",
        "cert": "/a.crt",
        "find-links": "/w1\n/w2",
        "extra-index-url": "%x",
    }


def test_a_broken_pip_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("index-url = x\n")

    with pytest.raises(Stop, match=r"cannot read .*pip\.conf"):
        indexes.pip_settings([tmp_path / "pip.conf"], {})


def test_uv_is_told_what_pip_knows_unless_it_was_told_itself() -> None:
    pip = {
        "index-url": "http://a.example",
        "extra-index-url": "http://b.example",
        "find-links": "/w1\n/w2",
        "cert": "/ca.crt",
    }

    assert indexes.uv_settings(pip, {"UV_DEFAULT_INDEX": "http://mine.example"}) == {
        "UV_INDEX": "http://b.example",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/w1,/w2",
        "SSL_CERT_FILE": "/ca.crt",
    }
    assert indexes.uv_settings({}, {}) == {}


def test_the_stamp_changes_with_each_thing_it_stands_for() -> None:
    packages, project = environment.stamp_of(b"lock", b"project", "3.11", Path("/a"))

    assert environment.stamp_of(b"lock", b"other", "3.11", Path("/a"))[0] == packages
    assert environment.stamp_of(b"other", b"project", "3.11", Path("/a"))[1] == project
    for other in [(b"other", "3.11", "/a"), (b"lock", "3.12", "/a"), (b"lock", "3.11", "/b")]:
        changed = environment.stamp_of(other[0], b"project", other[1], Path(other[2]))
        assert changed[0] != packages
