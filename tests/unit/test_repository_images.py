"""The images of this repository: what a change of one file makes old, and another base."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from sifline.config.sites import Site, load_site
from sifline.model import Workspace
from sifline.stages.build.contexts import context_digest
from sifline.stages.discover import Catalog

ROOT = Path(__file__).parents[2]
PYTORCH, TENSORFLOW = "pytorch-cuda12.1-mpi4.1", "tensorflow2.18-cuda12.5-mpi4.1"


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    """A copy of the repository's images, and of the playbooks, a build context of one."""
    for name in ("images", "ansible"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("rootfs.tar"))
    return Workspace(root=tmp_path)


def digests(space: Workspace) -> dict[str, str]:
    images = Catalog(space, Site(), ())
    return {name: context_digest(images[name], space) for name in images}


def chain(space: Workspace, name: str, site: Site | None = None) -> list[str]:
    """Return what the image ``name`` begins with, its own name first."""
    images, found = Catalog(space, site or Site(), ()), [name]
    while base := images[found[-1]].base:
        found.append(base)
    return found


def apt_steps(name: str) -> list[str]:
    """Return the ``RUN`` instructions of an image that call apt, in one line each."""
    text = (ROOT / "images" / name / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if re.match(r"RUN .*\bapt-get ", line)]


def test_every_step_with_apt_trusts_the_site_and_leaves_no_settings_and_lists() -> None:
    steps = {
        path.parent.name: apt_steps(path.parent.name) for path in ROOT.glob("images/*/Dockerfile")
    }
    assert sum(map(len, steps.values())) >= 8
    mounts = {
        "--mount=type=secret,id=ca-certificates,target=/etc/ssl/certs/ca-certificates.crt,mode=0444",
        "--mount=type=tmpfs,target=/var/lib/apt/lists",
    }
    others = [name for name in steps for step in steps[name] if not mounts < {*step.split()}]
    assert others == []
    assert [name for name in steps if "apt.conf" in " ".join(steps[name])] == []


def test_other_settings_of_apt_make_the_prepared_bases_old(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_of() -> list[list[str]]:
        images = Catalog(space, Site(), ())
        return [item.prepare.words for name in images if (item := images[name]).prepare]

    before = made_of()
    monkeypatch.setattr("sifline.model.image.DOCKER_CLEAN", "other")
    after = made_of()

    assert len(before) == 2
    assert [old for old, new in zip(before, after, strict=True) if old == new] == []


@pytest.mark.parametrize(
    ("file", "old"),
    [
        (f"{PYTORCH}/tools.lock", {PYTORCH}),
        (f"{PYTORCH}/torch.lock", {PYTORCH}),
        (f"{TENSORFLOW}/tensorflow.lock", {TENSORFLOW}),
        ("python-mpi4.1/mpi4py.lock", {"python-mpi4.1"}),
        ("base-mpi4.1/cuda.lock", {"base-mpi4.1"}),
        ("base-mpi4.1/image.toml", set()),
        ("base-mpi4.1/tests/test_base_mpi.py", set()),
    ],
)
def test_another_pin_is_no_reason_to_compile_open_mpi(
    space: Workspace, file: str, old: set[str]
) -> None:
    before = digests(space)
    with (space.images / file).open("a") as changed:
        changed.write("# another line\n")
    after = digests(space)
    assert {name for name in after if after[name] != before[name]} == old


@pytest.mark.parametrize("name", [PYTORCH, TENSORFLOW])
def test_both_frameworks_stand_on_one_mpi(space: Workspace, name: str) -> None:
    assert chain(space, name) == [name, "python-mpi4.1", "base-mpi4.1", "debian-bookworm"]


def test_one_value_of_a_profile_puts_all_of_it_on_another_base(space: Workspace) -> None:
    base = "nvidia/cuda:12.1.1-runtime-ubuntu22.04"
    (space.root / "sites").mkdir()
    (space.root / "sites" / "lab.toml").write_text(
        f'[images."base-mpi4.1".build-args]\nBASE_IMAGE = "{base}"\n'
    )
    site = load_site(space, "lab")
    assert chain(space, PYTORCH, site) == [PYTORCH, "python-mpi4.1", "base-mpi4.1"]
    bases = Catalog(space, site, ())["base-mpi4.1"].bases
    assert [reference.endswith(base) for reference in bases] == [True]


def test_every_image_has_a_budget(space: Workspace) -> None:
    images = Catalog(space, Site(), ())
    assert [name for name in images if not images[name].sif.budget] == []
