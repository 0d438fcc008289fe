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

    def declare(self, *patterns: str) -> None:
        text = f"[tool.sifline]\nown-references = {list(patterns)}\n"
        (self.space.root / "pyproject.toml").write_text(text)

    def site(self, profile: str) -> Site:
        (self.space.root / "sites").mkdir()
        (self.space.root / "sites" / "lab.toml").write_text(profile)
        return load_site(self.space, "lab")

    def read(self, name: str = "x", *pairs: str, site: Site | None = None) -> Image:
        return Catalog(self.space, site or Site(), pairs)[name]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


DIGEST = "@sha256:" + "a" * 64


@pytest.mark.parametrize(
    "reference",
    [
        "sifline/base",
        "sifline/base:latest",
        "base",
        "ghcr.io/acme/base",
        "ghcr.io/acme/base:latest",
        "acme/hpc-base",
        "index.docker.io/acme/hpc-base",
        "--platform=linux/amd64 ghcr.io/acme/base",
    ],
)
def test_our_prefix_declared_references_and_plain_names_mean_an_image(
    repository: Repository, reference: str
) -> None:
    repository.declare("ghcr.io/acme/{name}", "acme/hpc-{name}")
    repository.add("x", f"FROM {reference}")

    assert repository.read().parents == ("base",)
    assert repository.read().bases == ()


@pytest.mark.parametrize(
    "reference",
    [
        "ubuntu",
        "acme/x:1",
        "base-image",
        "ghcr.io/base/ubuntu",
        # Each of these has the name of an image of ours in its last part.
        "base:1.2",
        "base:latest",
        f"base{DIGEST}",
        "acme/base",
        "docker.io/library/base",
        "docker.io/sifline/base",
        "nvcr.io/nvidia/base:24.07-py3",
        "localhost:5000/base",
        "other.example.org/sifline/base",
        # Published by this repository, and one version of all.
        "ghcr.io/acme/base:1.2",
        f"ghcr.io/acme/base{DIGEST}",
        f"ghcr.io/acme/base:latest{DIGEST}",
        "ghcr.io/acme/unknown",
        "ghcr.io/acme/tools/base",
        "ghcr.io/acme/x",
        "x",
    ],
)
def test_every_other_reference_means_a_foreign_image(
    repository: Repository, reference: str
) -> None:
    repository.declare("ghcr.io/acme/{name}")
    repository.add("x", f"FROM {reference}")

    assert (repository.read().parents, repository.read().bases) == ((), (reference,))


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("sifline/bse", r"no images/bse\. Did you mean base"),
        ("sifline/a/base", r"no images/a/base\."),
        ("sifline/base:1.2", "without a tag"),
        (f"sifline/base:latest{DIGEST}", "without a digest"),
    ],
)
def test_what_means_no_image_under_our_prefix_is_refused(
    repository: Repository, reference: str, said: str
) -> None:
    repository.add("x", f"FROM scratch\n\nFROM {reference}")

    with pytest.raises(UsageError, match=rf"Dockerfile: line 3: .*{said}"):
        repository.read()


@pytest.mark.parametrize(
    "pattern",
    ["ghcr.io/acme", "{name}", "ghcr.io/{name}/{name}", "ghcr.io/acme/{name}:1", "a/{other}", ""],
)
def test_a_declared_reference_names_the_image_once_and_no_tag(
    repository: Repository, pattern: str
) -> None:
    repository.declare(pattern)

    with pytest.raises(UsageError, match=r"pyproject\.toml: tool\.sifline\.own-references"):
        repository.read("base")


def test_patterns_that_give_two_images_one_reference_are_refused(repository: Repository) -> None:
    repository.add("my-base", "FROM scratch")
    repository.declare("acme/{name}", "acme/my-{name}")

    with pytest.raises(UsageError, match="acme/my-base would mean both"):
        repository.read("base")


def test_a_pyproject_of_other_things_declares_nothing(repository: Repository) -> None:
    (repository.space.root / "pyproject.toml").write_text('[tool.other]\nx = "y"\n')
    repository.add("x", "FROM ghcr.io/acme/base")

    assert repository.read().parents == ()


def test_an_unknown_key_beside_own_references_is_refused(repository: Repository) -> None:
    (repository.space.root / "pyproject.toml").write_text("[tool.sifline]\nown-refs = []\n")

    with pytest.raises(UsageError, match=r"unknown key tool\.sifline\.own-refs"):
        repository.read("base")


def test_image_toml_names_what_is_foreign_in_spite_of_its_name(repository: Repository) -> None:
    repository.declare("vendor/{name}")
    repository.add("x", "FROM vendor/base\nCOPY --from=base / /", 'foreign-bases = ["vendor/*"]')

    assert (repository.read().parents, repository.read().bases) == (("base",), ("vendor/base",))


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
    repository.add("x", "FROM ubuntu:22.04\nCOPY --from=sifline/base / /")
    site = repository.site('[bases]\n"docker.io/" = "mirror.example.org/hub/"\n')

    assert repository.read(site=site).sources == (
        Source(written="ubuntu:22.04", reference="mirror.example.org/hub/library/ubuntu:22.04"),
        Source(written="sifline/base", image="base"),
    )


@pytest.mark.parametrize("instead", ["sifline/base", "base", "ghcr.io/acme/base"])
def test_a_site_may_name_an_image_of_ours_in_place_of_a_foreign_one(
    repository: Repository, instead: str
) -> None:
    repository.declare("ghcr.io/acme/{name}")
    repository.add("x", "FROM ubuntu:22.04\nCOPY --from=docker.io/library/ubuntu:22.04 / /")
    found = repository.read(site=repository.site(f'[bases]\n"ubuntu:22.04" = "{instead}"\n'))

    assert (found.parents, found.bases, found.base) == (("base",), (), "base")
    assert found.words[0] == ("base", "ubuntu:22.04")


def test_a_site_may_name_images_of_ours_by_a_prefix(repository: Repository) -> None:
    repository.add("x", "FROM vendor.example.org/base")
    site = repository.site('[bases]\n"vendor.example.org/" = "sifline/"\n')

    assert repository.read(site=site).parents == ("base",)


@pytest.mark.parametrize("instead", ["sifline/x", "x"])
def test_an_image_that_a_site_names_is_itself_built_on_what_it_says(
    repository: Repository, instead: str
) -> None:
    repository.add("x", "FROM ubuntu:22.04")
    repository.add("y", "FROM ubuntu:22.04")
    site = repository.site(f'[bases]\n"ubuntu:22.04" = "{instead}"\n')

    assert repository.read(site=site).bases == ("ubuntu:22.04",)
    assert repository.read("y", site=site).parents == ("x",)


def test_a_site_that_names_no_image_of_ours_under_our_prefix_is_refused(
    repository: Repository,
) -> None:
    repository.add("x", "FROM ubuntu:22.04")
    site = repository.site('[bases]\n"ubuntu:22.04" = "sifline/bse"\n')

    with pytest.raises(UsageError, match=r"sites/lab\.toml: bases: .* no images/bse\."):
        repository.read(site=site)


def test_what_image_toml_calls_foreign_stays_so_without_an_entry_of_the_site(
    repository: Repository,
) -> None:
    repository.add("x", "FROM base", 'foreign-bases = ["base"]')

    assert repository.read().bases == ("base",)


def test_a_site_names_where_prepared_root_file_systems_come_from(repository: Repository) -> None:
    repository.add("x", "FROM scratch", '[prepare]\nsuite = "trixie"')
    site = repository.site('apt-sources = ["deb http://m.example.org/debian {suite} main"]')

    prepare = repository.read(site=site).prepare
    assert prepare is not None
    assert (prepare.suite, prepare.sources) == (
        "trixie",
        ("deb http://m.example.org/debian trixie main",),
    )


def test_a_proxy_that_would_stay_in_the_image_is_refused(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(repository.space.root))
    repository.add("x", "FROM scratch\nARG http_proxy\n")
    site = repository.site('[proxies]\nhttp = "http://p.example.org:1"')

    with pytest.raises(UsageError, match="declares ARG http_proxy"):
        repository.read(site=site)
    assert repository.read().bases == ()


def test_a_proxy_of_docker_that_would_stay_in_the_image_is_refused(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = '{"proxies": {"default": {"httpsProxy": "http://user:hush@p.example.org:1"}}}'
    (repository.space.root / "config.json").write_text(config)
    monkeypatch.setenv("DOCKER_CONFIG", str(repository.space.root))
    repository.add("x", "FROM scratch\nARG HTTP_PROXY\n")

    with pytest.raises(UsageError, match="HTTP_PROXY, by which the proxy of docker's") as error:
        repository.read()
    assert "hush" not in error.value.message
    assert repository.read("base").bases == ()


@pytest.mark.parametrize(
    ("argument", "frontend"), [("", "a:1"), ("b:1", "b:1"), ("b:1 and more", "b:1")]
)
def test_an_argument_names_the_reader_in_place_of_the_first_line(
    repository: Repository, argument: str, frontend: str
) -> None:
    own = f'[build-args]\nBUILDKIT_SYNTAX = "{argument}"' if argument else ""
    repository.add("x", "# syntax=a:1\nARG BUILDKIT_SYNTAX\nFROM scratch", own)

    assert repository.read().frontend == frontend


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
