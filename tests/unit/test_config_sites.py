"""Site profiles: which one counts, what it says, and what never shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifline.config.sites import Facts, Proxies, Secret, Site, load_site
from sifline.errors import MissingError, UsageError
from sifline.model import SifCompression, Workspace

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_site_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIFLINE_SITE", raising=False)


def add(folder: Path, name: str, text: str = "") -> Workspace:
    (folder / "sites").mkdir(exist_ok=True)
    (folder / "sites" / f"{name}.toml").write_text(text)
    return Workspace(root=folder)


def site_of(folder: Path, text: str) -> Site:
    return load_site(add(folder, "lab", text), "lab")


# Which profile counts.


def test_without_profiles_there_is_an_empty_one(tmp_path: Path) -> None:
    assert load_site(Workspace(root=tmp_path)) == Site()


def test_the_profile_called_default_counts_where_none_is_named(tmp_path: Path) -> None:
    site = load_site(add(tmp_path, "default"))

    assert (site.name, site.chosen) == ("default", "sites/default.toml")


def test_the_variable_wins_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(tmp_path, "default")
    monkeypatch.setenv("SIFLINE_SITE", "lab")

    site = load_site(add(tmp_path, "lab"))

    assert (site.name, site.chosen) == ("lab", "SIFLINE_SITE")


def test_the_flag_wins_over_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, "lab")
    monkeypatch.setenv("SIFLINE_SITE", "lab")

    site = load_site(add(tmp_path, "hall"), "hall")

    assert (site.name, site.chosen) == ("hall", "--site")


def test_an_empty_variable_names_no_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIFLINE_SITE", "")

    assert load_site(Workspace(root=tmp_path)) == Site()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hal", "--site: no site profile 'hal'; "),
        ("hal", " Did you mean hall?"),
        ("zzz", " Known are hall, lab."),
        ("../sites/lab", "--site: no site profile '../sites/lab'"),
        ("Lab", " Did you mean lab?"),
        ("/etc/x", "NAME of lower-case letters, digits, dots and dashes."),
    ],
)
def test_an_unknown_profile_is_named_with_the_nearest(
    tmp_path: Path, name: str, message: str
) -> None:
    add(tmp_path, "lab")
    add(tmp_path, "My Site")

    with pytest.raises(UsageError) as error:
        load_site(add(tmp_path, "hall"), name)

    assert message in error.value.message


def test_an_unknown_profile_of_the_variable_is_named_with_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIFLINE_SITE", "gone")

    with pytest.raises(UsageError, match=r"^SIFLINE_SITE: no site profile 'gone'"):
        load_site(Workspace(root=tmp_path))


# What it says.


def test_the_example_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")

    path = ROOT / "sites" / "example.toml"
    assert load_site(Workspace(root=ROOT), "example") == Site(
        name="example",
        path=path,
        chosen="--site",
        description="An example: every key, for a machine room without internet",
        offline=False,
        bases=(
            ("docker.io/", "registry.example.org/hub/"),
            ("docker.io/library/ubuntu:22.04", "registry.example.org/base/ubuntu:22.04"),
            ("nvcr.io/nvidia/", "registry.example.org/nvidia/"),
        ),
        apt_sources=(
            "deb https://mirror.example.org/debian {suite} main",
            "deb https://mirror.example.org/debian-security {suite}-security main",
        ),
        build_args=(("PYTHON_VERSION", "3.11"),),
        images=(("hello-mpi", (("OPENMPI_VERSION", "4.1.4-*"),)),),
        proxies=Proxies(
            http="http://proxy.example.org:3128",
            https="http://proxy.example.org:3128",
            no="localhost,127.0.0.1,.example.org",
        ),
        certificates=ROOT / "sites" / "certificates" / "site.pem",
        secrets=(
            Secret(id="netrc", file=Path("/home/alice/.netrc")),
            Secret(id="token", env="SITE_TOKEN"),
        ),
        apptainer=SifCompression(compression="gzip", level=6),
        cluster=Facts(mpi="4.1.4", pmix="4.2.2", driver="535.161.08"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ofline = true", "unknown key ofline; allowed are description, offline,"),
        ("ofline = true", "Did you mean offline?"),
        ("offline = 'yes'", "offline must be true or false, found 'yes'"),
        ("bases = 'x'", "bases must be a table of references, found 'x'"),
        ("[bases]\n'docker.io/' = 'm.example.org'", 'bases."docker.io/" must be a beginning of'),
        ("[bases]\nubuntu = 'm.example.org/'", "bases.ubuntu must be a reference such as"),
        ("[bases]\n'Ubuntu' = 'm.example.org/ubuntu'", "bases.Ubuntu: the name must be a begin"),
        ("[bases]\n'https://docker.io/' = 'a/'", 'bases."https://docker.io/": the name must be'),
        (
            "[bases]\nubuntu = 'a/b'\n'docker.io/library/ubuntu:latest' = 'a/c'",
            "docker.io/library/ubuntu:latest and ubuntu are the same reference; keep one",
        ),
        (
            "[bases]\n'docker.io/' = 'a/'\n'index.docker.io/' = 'b/'",
            "docker.io/ and index.docker.io/ are the same reference; keep one of them",
        ),
        ("[build-args]\nHTTPS_PROXY = 'x'", "build-args.HTTPS_PROXY is not allowed: BuildKit"),
        ("[images.X.build-args]", "images.X: the name must be the name of an image"),
        ("[images.x]\nbuild-arg = {}", "unknown key images.x.build-arg; allowed are build-args."),
        ("[images.x.build-args]\nA = 1", "images.x.build-args.A must be a string, found 1"),
        ("[images.'x.y'.build-args]\nA = 1", 'images."x.y".build-args.A must be a string, found'),
        ("certificates = ''", "certificates must be the path of a file, found ''"),
        ("certificates = '~nobody-here/x'", "certificates must be a path of a user who has a h"),
        ("[secrets.a]", "secrets.a must have exactly one of file, env, found 0"),
        ("[secrets.a]\nfile = 'x'\nenv = 'X'", "secrets.a must have exactly one of file, env, f"),
        ("[secrets.a]\nfil = 'x'", "unknown key secrets.a.fil; allowed are file, env."),
        ("[secrets.'a,b']\nenv = 'X'", 'secrets."a,b": the name must be letters, digits,'),
        ("[apptainer]\ncompression = 'gzip'\nlevel = 12", "apptainer.level must be at most 9"),
        ("[cluster]\ndriver = 535", "cluster.driver must be one line of text, found 535"),
        ("a = = b", "is not TOML: Invalid value (at line 1, column 5); fix that line"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        site_of(tmp_path, text)

    assert error.value.message.startswith(f"{tmp_path / 'sites' / 'lab.toml'}: ")
    assert message in error.value.message


# Base images.


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("ubuntu", "m.example.org/hub/library/ubuntu:latest"),
        ("ubuntu:22.04", "m.example.org/jammy:1"),
        ("library/ubuntu:22.04", "m.example.org/jammy:1"),
        ("index.docker.io/library/ubuntu:22.04", "m.example.org/jammy:1"),
        (f"ubuntu@sha256:{'a' * 64}", f"m.example.org/hub/library/ubuntu@sha256:{'a' * 64}"),
        (f"ubuntu:22.04@sha256:{'b' * 64}", "m.example.org/pinned"),
        ("bitnami/redis:7", "m.example.org/bitnami/redis:7"),
        ("bitnamilegacy/redis:7", "m.example.org/hub/bitnamilegacy/redis:7"),
        ("localhost/x", "localhost/x"),
        ("localhost:5000/x/y:1", "here:1"),
        ("quay.io/a/b", "quay.io/a/b"),
        ("m.example.org/hub/x", "m.example.org/hub/x"),
    ],
)
def test_the_longest_match_replaces_a_reference(
    tmp_path: Path, reference: str, expected: str
) -> None:
    site = site_of(
        tmp_path,
        f"""
        [bases]
        "docker.io/" = "m.example.org/hub/"
        "ubuntu:22.04" = "m.example.org/jammy:1"
        "ubuntu@sha256:{"b" * 64}" = "m.example.org/pinned"
        "bitnami/" = "m.example.org/bitnami/"
        "localhost:5000/x/y:1" = "here:1"
        """,
    )

    assert site.replacement(reference) == expected


def test_without_bases_a_reference_stays_as_it_is_written() -> None:
    assert Site().replacement("ubuntu") == "ubuntu"


# Proxies and secrets.


def test_proxies_are_build_arguments_in_both_spellings(tmp_path: Path) -> None:
    site = site_of(tmp_path, "[proxies]\nhttps = 'http://p:1'\nno = 'a,b'")

    assert site.proxy_arguments() == {
        "HTTPS_PROXY": "http://p:1",
        "https_proxy": "http://p:1",
        "NO_PROXY": "a,b",
        "no_proxy": "a,b",
    }


def test_secrets_come_from_files_beside_the_profile_and_from_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_OF_TEST", "hunter2")
    site = site_of(
        tmp_path, "[secrets]\na = {file = 'a,b'}\nb = {env = 'TOKEN_OF_TEST'}\nc = {file = 'gone'}"
    )
    (tmp_path / "sites" / "a,b").write_text("hunter2")

    assert site.secret_arguments(["b", "a", "other"]) == {
        "b": "id=b,env=TOKEN_OF_TEST",
        "a": f'id=a,"src={tmp_path}/sites/a,b"',
    }


def test_the_certificates_of_a_site_are_a_secret(tmp_path: Path) -> None:
    site = site_of(tmp_path, "certificates = 'site.pem'")
    (tmp_path / "sites" / "site.pem").write_text("x")

    assert site.secret_arguments(["ca-certificates"]) == {
        "ca-certificates": f"id=ca-certificates,src={tmp_path}/sites/site.pem"
    }


def test_a_secret_of_that_name_wins_over_the_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUNDLE_OF_TEST", "x")
    site = site_of(
        tmp_path, "certificates = 'gone'\n[secrets]\nca-certificates = {env = 'BUNDLE_OF_TEST'}"
    )

    assert site.secret_arguments(["ca-certificates"]) == {
        "ca-certificates": "id=ca-certificates,env=BUNDLE_OF_TEST"
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[secrets]\na = {file = 'gone'}", "the secret a is the file {sites}/gone, which is not"),
        ("[secrets]\na = {file = '.'}", "the secret a is the file {sites}, which is not"),
        ("[secrets]\na = {env = 'NOT_SET'}", "the secret a is the environment variable NOT_SET,"),
    ],
)
def test_a_secret_that_is_not_there_is_missing_when_it_is_used(
    tmp_path: Path, text: str, message: str
) -> None:
    site = site_of(tmp_path, text)
    assert site.secret_arguments([]) == {}

    with pytest.raises(MissingError) as error:
        site.secret_arguments(["a"])

    assert message.format(sites=tmp_path / "sites") in error.value.message


@pytest.mark.parametrize(
    "text",
    [
        "secrets = 'hunter2'",
        "[secrets]\na = 'hunter2'",
        "[secrets]\na = ['hunter2']",
        "[secrets.a]\nfile = ['hunter2']",
        "[secrets.a]\nenv = 'hunter2!'",
        "[secrets.a]\nenv = {x = 'hunter2'}",
        "[secrets.a]\nvalue = 'hunter2'",
        "[secrets.a]\nfile = '~hunter2/x'",
        "[proxies]\nhttp = 'alice:hunter2@p:1'",
        "[proxies]\nhttp = 'http://alice:hunter2@p/q'",
        "[proxies]\nhttps = ['http://alice:hunter2@p']",
        "proxies = 'http://alice:hunter2@p'",
        "[secrets]\na = 'hunter2",
        "[secrets]\na = {env = hunter2}",
    ],
)
def test_no_error_repeats_a_secret(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as error:
        site_of(tmp_path, text)

    assert "hunter2" not in f"{error.value.message} {error.value.details}"
