"""The files of the development container agree with those whose facts they repeat."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from bootstrapping.machine import Machine
from bootstrapping.packages import needs
from tests.support.devcontainer import FOLDER, ROOT, read

TEXT = (FOLDER / "devcontainer.json").read_text("utf-8")
PAGE = (ROOT / "docs" / "how-to" / "development-container.md").read_text("utf-8")
WORKSPACE = Path("/here/sifline")
BARE = Machine(
    distribution="debian",
    codename="trixie",
    root=False,
    engine="answers",
    dockerd=False,
    docker=False,
    buildx=False,
    tools=frozenset(),
    venv=False,
    ca_bundle=False,
    apparmor=True,
    tests=True,
)


def installed(dockerfile: Path) -> set[str]:
    """Return the packages that a Dockerfile installs in its one step with apt."""
    text = dockerfile.read_text("utf-8").replace("\\\n", " ")
    (words,) = re.findall(r"install --yes --no-install-recommends ([^&]+)", text)
    return set(shlex.split(words))


def pin(dockerfile: Path) -> str:
    (found,) = re.findall(r"^ARG APPTAINER_VERSION=(.+)$", dockerfile.read_text("utf-8"), re.M)
    return str(found)


def test_it_has_what_bootstrap_installs_and_what_the_toolbox_has() -> None:
    bootstrap = {need.package for need in needs(BARE)}
    toolbox = installed(ROOT / "images" / "toolbox" / "Dockerfile")

    # git is what bootstrap takes for granted; libcap2-bin has setcap.
    assert installed(FOLDER / "Dockerfile") == bootstrap | toolbox | {"git", "libcap2-bin"}


def test_its_apptainer_is_of_the_toolbox_s_release() -> None:
    assert pin(FOLDER / "Dockerfile") == pin(ROOT / "images" / "toolbox" / "Dockerfile")


def test_its_file_names_no_folder_of_the_host_but_the_checkout_and_the_socket() -> None:
    settings = read(TEXT, WORKSPACE, {})

    sources = [word for bind in (settings.workspace_mount, *settings.mounts)
               for word in bind.split(",") if word.startswith("source=")]  # fmt: skip
    assert sources == [f"source={WORKSPACE}", "source=/var/run/docker.sock"]
    assert settings.workspace_folder == str(WORKSPACE)


@pytest.mark.parametrize(
    ("environment", "base", "bundle"),
    [
        ({}, "", "/dev/null"),
        (
            {"SIFLINE_DEVCONTAINER_BASE": "a/b:c", "SSL_CERT_FILE": "/site.pem"},
            "a/b:c",
            "/site.pem",
        ),
    ],
)
def test_a_site_names_base_and_certificates_by_variables(
    environment: dict[str, str], base: str, bundle: str
) -> None:
    settings = read(TEXT, WORKSPACE, environment)

    assert settings.args == {"BASE": base}
    assert settings.build_options == (f"--secret=id=ca-certificates,src={bundle}",)


def test_the_command_of_its_page_is_that_of_its_file() -> None:
    (block,) = re.findall(r"^    docker run (.+?)\n\n", PAGE, re.MULTILINE | re.DOTALL)
    words = shlex.split(block.replace("$PWD", str(WORKSPACE)).replace("\\\n", " "))

    options = sorted(read(TEXT, WORKSPACE, {}).run_options())
    own = {"--detach", "--name", "sifline-devcontainer"}
    said = sorted(word for word in words if word not in own)
    assert said == options


def test_its_page_gives_a_reason_for_each_right() -> None:
    rights = [
        option.removeprefix("--security-opt=") for option in read(TEXT, WORKSPACE, {}).run_args
    ]

    assert [right for right in rights if not re.search(rf"\n\| `{right}` \|", PAGE)] == []


def test_a_key_that_the_tests_do_not_heed_is_named() -> None:
    with pytest.raises(AssertionError, match=r"do not heed .*'privileged'"):
        read(TEXT.replace('"init": true', '"init": true, "privileged": true'), WORKSPACE, {})


SOURCES = """\
Types: deb
# a snapshot of the archive
URIs: http://mirror.example/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /k.pgp

Types: deb
URIs: http://mirror.example/debian-security
Suites: trixie-security
Components: main
Signed-By: /k.pgp
"""


def test_unstable_comes_from_the_archive_of_a_base_of_the_hub_alone() -> None:
    text = (FOLDER / "Dockerfile").read_text("utf-8")
    (program,) = re.findall(r"sed '(.+?)' \S+/debian\.sources", text)

    done = subprocess.run(
        ["sed", program], input=SOURCES, capture_output=True, text=True, check=True
    )

    archive = SOURCES.partition("\n\n")[0]
    assert done.stdout.strip() == archive.replace("trixie trixie-updates", "sid")
