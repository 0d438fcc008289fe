"""Which images there are, and which references mean one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifline.config.sites import Site, load_site
from sifline.errors import UsageError
from sifline.model import Image, Source, Workspace
from sifline.stages.discover import Catalog


class Repository:
    """A checkout whose images are a line or a few each."""

    def __init__(self, root: Path) -> None:
        self.space = Workspace(root=root)
        self.add("base", "FROM scratch")
        self.add("other", "FROM scratch")

    def add(self, name: str, dockerfile: str, settings: str = "") -> None:
        folder = self.space.images / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "Dockerfile").write_text(dockerfile)
        (folder / "image.toml").write_text(settings)

    def site(self, profile: str) -> Site:
        (self.space.root / "sites").mkdir()
        (self.space.root / "sites" / "lab.toml").write_text(profile)
        return load_site(self.space, "lab")

    def read(self, name: str = "x", *pairs: str, site: Site | None = None) -> Image:
        return Catalog(self.space, site or Site(), pairs)[name]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.mark.parametrize(
    "reference",
    [
        "sifline/base",
        "sifline/base:latest",
        "base",
        "base:1.2",
        "acme/base",
        "ghcr.io/acme/base:1.2",
        "localhost:5000/base",
        "--platform=linux/amd64 quay.io/acme/tools/base",
    ],
)
def test_any_prefix_and_tag_may_stand_around_the_name_of_an_image(
    repository: Repository, reference: str
) -> None:
    repository.add("x", f"FROM {reference}")

    assert repository.read().parents == ("base",)
    assert repository.read().bases == ()


@pytest.mark.parametrize(
    "reference",
    ["ubuntu", "acme/x:1", "base-image", "ghcr.io/base/ubuntu", "base@sha256:" + "a" * 64],
)
def test_other_names_the_own_name_and_digests_mean_foreign_images(
    repository: Repository, reference: str
) -> None:
    repository.add("x", f"FROM {reference}")

    assert (repository.read().parents, repository.read().bases) == ((), (reference,))


def test_image_toml_names_what_is_foreign_in_spite_of_its_name(repository: Repository) -> None:
    repository.add("x", "FROM vendor/base:1\nCOPY --from=base / /", 'foreign-bases = ["vendor/*"]')

    assert (repository.read().parents, repository.read().bases) == (("base",), ("vendor/base:1",))


def test_an_unknown_image_under_our_prefix_is_refused_with_the_nearest(
    repository: Repository,
) -> None:
    repository.add("x", "FROM scratch\n\nFROM sifline/bse")

    with pytest.raises(UsageError, match=r"line 3: .* no images/bse\. Did you mean base"):
        repository.read()


def test_arguments_change_what_an_image_stands_on(repository: Repository, tmp_path: Path) -> None:
    repository.add("x", "ARG P=base\nFROM sifline/${P}", '[build-args]\nP = "other"')
    site = repository.site('[images.x.build-args]\nP = "base"\n')

    assert repository.read().parents == ("other",)
    assert repository.read(site=site).parents == ("base",)
    assert repository.read("x", "P=other", site=site).parents == ("other",)


def test_only_what_the_target_needs_counts(repository: Repository) -> None:
    dockerfile = "FROM base AS one\nFROM other AS two\n"
    repository.add("x", dockerfile, 'target = "one"')
    repository.add("y", dockerfile)

    assert repository.read("x").parents == ("base",)
    assert repository.read("y").parents == ("other",)


def test_a_site_replaces_foreign_bases_alone(repository: Repository) -> None:
    repository.add("x", "FROM ubuntu:22.04\nCOPY --from=docker.io/acme/base / /")
    site = repository.site('[bases]\n"docker.io/" = "mirror.example.org/hub/"\n')

    assert repository.read(site=site).sources == (
        Source(written="ubuntu:22.04", reference="mirror.example.org/hub/library/ubuntu:22.04"),
        Source(written="docker.io/acme/base", image="base"),
    )


def test_a_site_names_where_prepared_root_file_systems_come_from(repository: Repository) -> None:
    repository.add("x", "FROM scratch", '[prepare]\nsuite = "trixie"')
    site = repository.site('apt-sources = ["deb http://m.example.org/debian {suite} main"]')

    prepare = repository.read(site=site).prepare
    assert prepare is not None
    assert prepare.words == ["trixie", "deb http://m.example.org/debian trixie main"]


def test_a_proxy_that_would_stay_in_the_image_is_refused(repository: Repository) -> None:
    repository.add("x", "FROM scratch\nARG http_proxy\n")
    site = repository.site('[proxies]\nhttp = "http://p.example.org:1"')

    with pytest.raises(UsageError, match="declares ARG http_proxy"):
        repository.read(site=site)
    assert repository.read().bases == ()


def test_a_site_that_speaks_of_an_unknown_image_is_refused(repository: Repository) -> None:
    site = repository.site('[images.bas.build-args]\nA = "1"')

    with pytest.raises(
        UsageError, match=r"images\.bas: there is no such image\. Did you mean base"
    ):
        repository.read("base", site=site)


def test_a_broken_image_does_not_stop_the_others(repository: Repository) -> None:
    repository.add("broken", "NONSENSE")

    assert repository.read("base").name == "base"
    with pytest.raises(UsageError, match="no Dockerfile instruction"):
        repository.read("broken")


def test_an_image_begins_with_one_of_ours_and_takes_files_from_others(
    repository: Repository,
) -> None:
    repository.add("x", "FROM sifline/other AS files\nFROM sifline/base\nCOPY --from=files / /f")
    found = repository.read()
    assert (found.base, set(found.parents)) == ("base", {"base", "other"})


@pytest.mark.parametrize("begin", ["debian:12", "scratch"])
def test_one_that_begins_elsewhere_has_no_base_of_ours(repository: Repository, begin: str) -> None:
    repository.add("x", f"FROM sifline/base AS files\nFROM {begin}\nCOPY --from=files / /f")
    found = repository.read()
    assert (found.base, found.parents) == ("", ("base",))
