"""Which of several files and flags counts, and what is said of where a value came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifline.config.images import ImageSettings, load_image_settings
from sifline.config.settings import Setting, conversion, everything, resolve
from sifline.config.sites import Site, load_site
from sifline.engines.apptainer.squashfs import Compression
from sifline.errors import UsageError
from sifline.model import SifOptions, Workspace

DECLARED = ("A", "B", "C", "D", "E")


def setting(key: str, value: object, origin: str) -> Setting:
    return Setting(key=key, value=value, origin=origin)


def checkout(folder: Path, image: str = "", site: str = "") -> Workspace:
    for path, text in (("images/x/image.toml", image), ("sites/lab.toml", site)):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(text)
    return Workspace(root=folder)


# Build arguments.


def test_the_stronger_source_of_an_argument_wins() -> None:
    settings = ImageSettings(build_args=(("A", "toml"), ("B", "toml"), ("C", "toml")))
    site = Site(
        name="lab",
        build_args=(("B", "site"), ("C", "site"), ("D", "site")),
        images=(("x", (("C", "own"), ("D", "own"))), ("y", (("A", "other"),))),
    )

    assert resolve(settings, site, {"D": "flag"}, DECLARED, "x") == (
        setting("A", "toml", "images/x/image.toml"),
        setting("B", "site", "sites/lab.toml"),
        setting("C", "own", "sites/lab.toml"),
        setting("D", "flag", "--build-arg"),
    )


def test_arguments_for_all_images_are_taken_where_they_are_declared() -> None:
    site = Site(name="lab", build_args=(("A", "site"), ("Z", "site")))

    assert resolve(ImageSettings(), site, {"B": "flag", "Y": "flag"}, DECLARED, "x") == (
        setting("A", "site", "sites/lab.toml"),
        setting("B", "flag", "--build-arg"),
    )


def test_an_argument_of_image_toml_has_to_be_declared() -> None:
    settings = ImageSettings(build_args=(("PYTHN", "3"),))

    with pytest.raises(UsageError) as error:
        resolve(settings, Site(), {}, ("PYTHON",), "x")

    assert error.value.message == (
        "images/x/image.toml: build-args.PYTHN: images/x/Dockerfile declares no such argument;"
        " add ARG PYTHN there. Did you mean PYTHON?"
    )


def test_an_argument_of_the_site_for_this_image_has_to_be_declared() -> None:
    site = Site(name="lab", images=(("x", (("PYTHN", "3"),)),))

    with pytest.raises(UsageError) as error:
        resolve(ImageSettings(), site, {}, ("PYTHON",), "x")

    assert error.value.message == (
        "sites/lab.toml: images.x.build-args.PYTHN: images/x/Dockerfile declares no such"
        " argument; add ARG PYTHN there. Did you mean PYTHON?"
    )


# Conversion.


@pytest.mark.parametrize(
    ("image", "site", "expected"),
    [
        (SifOptions(), SifOptions(), (("zstd", "default"), (3, "default"))),
        (
            SifOptions(),
            SifOptions(compression="gzip", level=6),
            (("gzip", "sites/lab.toml"), (6, "sites/lab.toml")),
        ),
        (
            SifOptions(compression="zstd", level=9),
            SifOptions(compression="gzip", level=6),
            (("zstd", "images/x/image.toml"), (9, "images/x/image.toml")),
        ),
        (
            SifOptions(compression="zstd"),
            SifOptions(compression="gzip", level=6),
            (("zstd", "images/x/image.toml"), (3, "default")),
        ),
        (
            SifOptions(compression="gzip"),
            SifOptions(compression="zstd", level=6),
            (("gzip", "images/x/image.toml"), (None, "default")),
        ),
    ],
)
def test_compression_and_level_come_from_the_same_place(
    image: SifOptions, site: SifOptions, expected: tuple[tuple[object, str], ...]
) -> None:
    settings, profile = ImageSettings(convert=image), Site(name="lab", apptainer=site)

    found = conversion(settings, profile, "x")

    assert tuple((item.value, item.origin) for item in found) == expected


def test_the_defaults_are_those_of_the_converter() -> None:
    assert (Compression().name, Compression().level) == SifOptions().packing


# Everything.


def test_each_setting_of_an_image_comes_with_its_origin(tmp_path: Path) -> None:
    space = checkout(
        tmp_path,
        """
        description = "d"
        smoke = [["true"]]
        [build-args]
        A = "toml"
        B = "toml"
        [labels]
        "org.x" = "y"
        [prepare]
        suite = "trixie"
        """,
        """
        build-args = {B = "site"}
        apptainer = {compression = "gzip"}
        """,
    )

    found = everything(
        space, load_site(space, "lab"), name="x", flags={"C": "flag"}, declared=DECLARED
    )

    image, site = "images/x/image.toml", "sites/lab.toml"
    assert found == (
        setting("site", "lab", "--site"),
        setting("description", "d", image),
        setting("category", "custom-images", "default"),
        setting("target", "", "default"),
        setting('labels."org.x"', "y", image),
        setting("foreign-bases", [], "default"),
        setting("prepare.suite", "trixie", image),
        setting("prepare.packages", [], "default"),
        setting("run.gpus", "", "default"),
        setting("run.shared-memory", "", "default"),
        setting("run.binds", [], "default"),
        setting("module.name", "", "default"),
        setting("module.version", "", "default"),
        setting("size-budget", None, "default"),
        setting("smoke", [["true"]], image),
        setting("convert.compression", "gzip", site),
        setting("convert.level", None, "default"),
        setting("convert.processors", None, "default"),
        setting("convert.definition", None, "default"),
        setting("convert.over-budget", "error", "default"),
        setting("build-args.A", "toml", image),
        setting("build-args.B", "site", site),
        setting("build-args.C", "flag", "--build-arg"),
    )


def test_an_image_without_a_file_has_defaults_alone(tmp_path: Path) -> None:
    found = everything(Workspace(root=tmp_path), Site(), name="x")

    assert {item.origin for item in found} == {"default"}
    assert "prepare.suite" not in {item.key for item in found}


def test_each_setting_of_a_site_comes_with_its_origin(tmp_path: Path) -> None:
    space = checkout(
        tmp_path,
        site="""
        offline = true
        certificates = "a.pem"
        bases = {"docker.io/" = "m.example.org/"}
        images = {x = {build-args = {A = "1"}}}
        proxies = {http = "http://p:1"}
        secrets = {token = {env = "T"}, netrc = {file = "~/.netrc"}}
        """,
    )

    found = everything(space, load_site(space, "lab"))

    assert found == (
        setting("site", "lab", "--site"),
        setting("description", "", "default"),
        setting("offline", True, "sites/lab.toml"),
        setting('bases."docker.io/"', "m.example.org/", "sites/lab.toml"),
        setting("images.x.build-args.A", "1", "sites/lab.toml"),
        setting("proxies.http", "http://p:1", "sites/lab.toml"),
        setting("proxies.https", "", "default"),
        setting("proxies.no", "", "default"),
        setting("certificates", "a.pem", "sites/lab.toml"),
        setting("secrets.netrc.file", "~/.netrc", "sites/lab.toml"),
        setting("secrets.token.env", "T", "sites/lab.toml"),
        setting("apptainer.compression", None, "default"),
        setting("apptainer.level", None, "default"),
        setting("apt-sources", [], "default"),
        setting("cluster.mpi", "", "default"),
        setting("cluster.pmix", "", "default"),
        setting("cluster.driver", "", "default"),
    )


def test_credentials_in_urls_do_not_show(tmp_path: Path) -> None:
    space = checkout(
        tmp_path,
        """
        smoke = [["curl", "https://alice:hunter2@example.org/x"]]
        [build-args]
        A = "--index-url=https://hunter2@example.org/simple --extra=http://a:hunter2@b/c"
        """,
        "proxies = {http = 'http://alice:p@hunter2@p:1'}",
    )
    site = load_site(space, "lab")

    of_image = {
        item.key: item.value for item in everything(space, site, name="x", declared=DECLARED)
    }
    of_site = {item.key: item.value for item in everything(space, site)}

    assert of_image["smoke"] == [["curl", "https://example.org/x"]]
    assert of_image["build-args.A"] == (
        "--index-url=https://example.org/simple --extra=http://b/c"
    )
    assert of_site["proxies.http"] == "http://p:1"
    assert site.proxy_arguments()["http_proxy"] == "http://alice:p@hunter2@p:1"


def test_the_value_of_a_secret_does_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_OF_TEST", "hunter2")
    space = checkout(tmp_path, site="secrets = {a = {env = 'TOKEN_OF_TEST'}, b = {file = 'b'}}")
    (tmp_path / "sites" / "b").write_text("hunter2")
    site = load_site(space, "lab")

    shown = f"{everything(space, site)} {everything(space, site, name='x')} {site}"

    assert "TOKEN_OF_TEST" in shown
    assert "hunter2" not in shown


def test_a_mistake_in_image_toml_is_not_passed_over(tmp_path: Path) -> None:
    space = checkout(tmp_path, "descripton = 'x'")

    with pytest.raises(UsageError, match="unknown key descripton"):
        everything(space, Site(), name="x")


def test_the_images_of_this_repository_have_settings() -> None:
    root = Path(__file__).resolve().parents[2]

    found = {path.parent.name: load_image_settings(path) for path in root.glob("images/*/*.toml")}

    assert "hello-mpi" in found
    assert [name for name, settings in found.items() if not settings.description] == []
