from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline.formats import packages
from sifline.formats.packages import Distribution, Package

STATUS = "var/lib/dpkg/status"
SITE = "usr/lib/python3/site-packages"
LIBC = b"""Package: libc6
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Source: glibc
Version: 2.36-9
Description: GNU C Library
 Package: not-this
 .
 Version: 9
"""


def stanza(**fields: str) -> bytes:
    return "".join(f"{key.title()}: {value}\n" for key, value in fields.items()).encode()


def installed(name: str, state: str = "install ok installed", **more: str) -> bytes:
    fields = {"package": name, "status": state, "version": "1", **more}
    return stanza(**fields)


def metadata(name: str, version: str = "1.0", rest: str = "") -> bytes:
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{rest}".encode()


def only(files: dict[str, bytes]) -> Package:
    found = packages.read(files)
    assert found.broken == ()
    (package,) = found.packages
    return package


def test_debian_package_is_read_from_its_stanza() -> None:
    assert only({STATUS: LIBC}) == Package(
        kind="deb", name="libc6", version="2.36-9", architecture="amd64", source="glibc"
    )


def test_stanzas_are_parted_by_empty_lines() -> None:
    found = packages.read({STATUS: b"\n\n" + LIBC + b"\n\n\n" + installed("zlib1g") + b"\n"})
    assert [package.name for package in found.packages] == ["libc6", "zlib1g"]


@pytest.mark.parametrize(
    ("state", "there"),
    [
        ("install ok installed", True),
        ("hold ok installed", True),
        ("install ok unpacked", True),
        ("install ok half-configured", True),
        ("install ok triggers-pending", True),
        ("install ok triggers-awaited", True),
        ("deinstall ok config-files", False),
        ("unknown ok not-installed", False),
        ("install reinstreq half-installed", False),
    ],
)
def test_only_packages_whose_files_are_in_place_count(state: str, there: bool) -> None:
    found = packages.read({STATUS: installed("a", state)})
    assert (len(found.packages), found.broken) == (int(there), ())


def test_package_that_was_never_installed_needs_no_version() -> None:
    content = stanza(package="a", status="unknown ok not-installed")
    assert packages.read({STATUS: content}).broken == ()


@pytest.mark.parametrize(
    ("written", "source"),
    [
        ("", ""),
        ("a", ""),
        ("a (1)", ""),
        ("glibc", "glibc"),
        ("gcc-12 (12.2.0-14)", "gcc-12@12.2.0-14"),
        ("a (2)", "a@2"),
        ("what is this", ""),
    ],
)
def test_source_is_told_where_it_has_another_name_or_version(written: str, source: str) -> None:
    assert only({STATUS: installed("a", source=written)}).source == source


def test_images_without_dpkg_describe_each_package_in_a_file() -> None:
    folder = f"{STATUS}.d"
    found = packages.read(
        {
            f"{folder}/base": stanza(package="base-files", version="12", architecture="amd64"),
            f"{folder}/base.md5sums": b"d41d8cd98f00b204e9800998ecf8427e  etc/os-release\n",
        }
    )
    assert found.packages == (
        Package(kind="deb", name="base-files", version="12", architecture="amd64"),
    )
    assert found.broken == ()


def test_stanza_of_dpkg_without_a_state_is_broken() -> None:
    assert packages.read({STATUS: stanza(package="a", version="1")}).broken == (STATUS,)


@pytest.mark.parametrize(
    "stanza_",
    [
        b"\xff\xfe\x00\n",
        b"Package a\nStatus: install ok installed\n",
        installed("Not A Name"),
        installed("a", version=""),
        installed("a", version="one two"),
        installed("a", state="installed"),
        installed("a", state="install ok sideways"),
    ],
)
def test_broken_stanza_is_counted_and_the_others_are_read(stanza_: bytes) -> None:
    found = packages.read({STATUS: installed("z") + b"\n" + stanza_ + b"\n" + LIBC})
    assert [package.name for package in found.packages] == ["libc6", "z"]
    assert found.broken == (STATUS,)


def test_empty_list_of_dpkg_is_no_broken_one() -> None:
    assert packages.read({STATUS: b""}) == packages.Found(described=True)


@pytest.mark.parametrize(
    "path",
    [
        f"{SITE}/x-1.dist-info/METADATA",
        f"{SITE}/x.egg-info/PKG-INFO",
        f"{SITE}/x-1-py3.11.egg-info",
        f"{SITE}/x-1-py3.11.egg/EGG-INFO/PKG-INFO",
    ],
)
def test_python_package_is_found_in_every_layout(path: str) -> None:
    assert only({path: metadata("x")}) == Package(
        kind="python", name="x", version="1.0", place=SITE
    )


@pytest.mark.parametrize("written", ["Zope.Interface", "zope_interface", "zope-_.interface"])
def test_python_names_have_one_spelling(written: str) -> None:
    assert only({f"{SITE}/x.dist-info/METADATA": metadata(written)}).name == "zope-interface"


def test_package_in_two_places_is_two_entries() -> None:
    files = {
        f"{folder}/x-1.dist-info/METADATA": metadata("x") for folder in ("opt/b", "opt/a", "")
    }
    found = packages.read({path.lstrip("/"): content for path, content in files.items()})
    assert [package.place for package in found.packages] == ["", "opt/a", "opt/b"]


def test_package_described_twice_in_one_place_is_one_entry() -> None:
    files = [f"{SITE}/x-1.dist-info/METADATA", f"{SITE}/x.egg-info/PKG-INFO"]
    assert only(dict.fromkeys(files, metadata("x"))).name == "x"


@pytest.mark.parametrize(
    ("rest", "license_"),
    [
        ("License-Expression: MIT\nLicense: other\n", "MIT"),
        ("License: BSD-3-Clause\n", "BSD-3-Clause"),
        ("License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License\n", "MIT License"),
        ("License: Copyright\n   Permission is\n", ""),
        (f"License: {'x' * 101}\n", ""),
        ("Classifier: License :: A\nClassifier: Topic :: B\nClassifier: License :: C\n", "A, C"),
        ("\nLicense: in the description\n", ""),
        ("Description: old\n        \n        style\nLicense: ISC\n", "ISC"),
    ],
)
def test_license_is_a_name(rest: str, license_: str) -> None:
    assert only({f"{SITE}/x.dist-info/METADATA": metadata("x", rest=rest)}).license == license_


def test_metadata_with_the_line_ends_of_windows_is_read() -> None:
    content = metadata("x", rest="\nLicense: in the description\n").replace(b"\n", b"\r\n")
    package = only({f"{SITE}/x.dist-info/METADATA": content})
    assert (package.version, package.license) == ("1.0", "")


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"\x00\xff", b"Name: x\n", metadata("no good"), metadata("x", "1 2")]
)
def test_broken_metadata_is_counted(content: bytes) -> None:
    path = f"{SITE}/x.dist-info/METADATA"
    found = packages.read({path: content})
    assert (found.packages, found.broken) == ((), (path,))


def test_names_that_are_no_utf8_are_escaped() -> None:
    path = b"opt/\xff/x.dist-info/METADATA".decode("utf-8", "surrogateescape")
    assert only({path: metadata("x")}).place == "opt/\\xff"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {
                "etc/os-release": b'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=b\n'
                b'PRETTY_NAME="Debian 12 (b)"\n'
            },
            Distribution(id="debian", version="12", name="Debian 12 (b)"),
        ),
        (
            {"usr/lib/os-release": b"# sid\nNAME='Debian'\nID=debian\nVERSION_CODENAME=sid\n"},
            Distribution(id="debian", version="sid", name="Debian"),
        ),
        ({"etc/os-release": b"ID=\"un'closed\nNAME=a b\n"}, Distribution(name="a b")),
        ({"etc/os-release": b"ID=../../x\n"}, Distribution()),
        ({}, Distribution()),
    ],
)
def test_distribution_is_that_of_os_release(
    files: dict[str, bytes], expected: Distribution
) -> None:
    assert packages.read(files).distribution == expected


@pytest.mark.parametrize(
    "path",
    [
        "etc/os-release",
        "usr/lib/os-release",
        "var/lib/dpkg/status",
        "var/lib/dpkg/status.d/libc6",
        "x.dist-info/METADATA",
        "a b/\n/x.egg-info",
    ],
)
def test_files_that_tell_of_packages_are_wanted(path: str) -> None:
    assert packages.wanted(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "opt/etc/os-release",
        "var/lib/dpkg/status-old",
        "var/lib/dpkg/status.d/libc6.md5sums",
        "var/lib/dpkg/status.d/a/b",
        "x.dist-info/RECORD",
        "x.dist-info/METADATA/y",
        ".dist-info/METADATA",
        "x.egg-info/SOURCES.txt",
    ],
)
def test_other_files_are_not_wanted(path: str) -> None:
    assert not packages.wanted(path)


@given(st.binary(max_size=40))
def test_a_path_is_the_same_as_bytes_and_as_text(path: bytes) -> None:
    assert packages.wanted(path) == packages.wanted(path.decode("utf-8", "surrogateescape"))


_PIECES = st.sampled_from(
    [b"Package: a", b"Status: install ok installed", b"Version: 1", b"Name: x", b" cont", b"\n\n"]
)


@given(
    st.dictionaries(
        st.sampled_from([STATUS, f"{STATUS}.d/x", "x.dist-info/METADATA", "etc/os-release"]),
        st.lists(_PIECES | st.binary(max_size=20)).map(b"\n".join),
    )
)
def test_whatever_an_image_holds_is_survived(files: dict[str, bytes]) -> None:
    found = packages.read(files)
    assert set(found.broken) <= set(files)
    assert list(found.packages) == sorted(found.packages)
    assert all(package.name and package.version for package in found.packages)


_NAMES = st.from_regex(re.compile(r"[a-z0-9][a-z0-9+.-]{1,8}"), fullmatch=True)


@given(
    st.dictionaries(
        _NAMES, st.from_regex(re.compile(r"[0-9][0-9A-Za-z.+~:-]{0,8}"), fullmatch=True)
    )
)
def test_every_installed_package_is_found_once(versions: dict[str, str]) -> None:
    content = b"\n".join(installed(name, version=number) for name, number in versions.items())
    found = packages.read({STATUS: content})
    assert {package.name: package.version for package in found.packages} == versions
    assert len(found.packages) == len(versions)


# Databases that are not read


@pytest.mark.parametrize(
    ("manager", "path"),
    [
        ("apk", "lib/apk/db/installed"),
        ("apk", "usr/lib/apk/db/installed"),
        ("rpm", "var/lib/rpm/Packages"),
        ("rpm", "usr/lib/sysimage/rpm/rpmdb.sqlite"),
        ("rpm", "usr/lib/sysimage/rpm/Packages.db"),
        ("pacman", "var/lib/pacman/local/ALPM_DB_VERSION"),
        ("Portage", "var/db/pkg/sys-apps/sed-4.9/PF"),
        ("opkg", "usr/lib/opkg/status"),
        ("Nix", "nix/var/nix/db/db.sqlite"),
        ("Guix", "var/guix/db/db.sqlite"),
        ("rpm", "usr/share/rpm/rpmdb.sqlite"),
        ("xbps", "var/db/xbps/pkgdb-0.38.plist"),
        ("Slackware", "var/lib/pkgtools/packages/aaa_base-15.0-x86_64-3"),
        ("Slackware", "var/log/packages/aaa_base-15.0-x86_64-3"),
        ("eopkg", "var/lib/eopkg/package/zlib-1.3-24/metadata.xml"),
        ("Clear Linux", "usr/share/clear/bundles/os-core"),
        ("Nix", "nix/store/0c7c1hp8yfa5ylvhkphwxhxaf5mbywd1-hello-2.12"),
        ("Guix", "gnu/store/0c7c1hp8yfa5ylvhkphwxhxaf5mbywd1-hello-2.12"),
        ("Homebrew", "home/linuxbrew/.linuxbrew/Cellar/jq/1.7/INSTALL_RECEIPT.json"),
        ("conda", "opt/conda/conda-meta/history"),
        ("conda", "opt/conda/conda-meta/numpy-1.26-py312.json"),
        ("conda", "opt/a\nb/conda-meta/history"),
        ("Spack", "opt/spack/opt/spack/.spack-db/index.json"),
    ],
)
def test_package_database_that_cannot_be_read_is_named(manager: str, path: str) -> None:
    assert packages.named(path)
    found = packages.read({STATUS: installed("libc6")}, [path])
    assert [(item.manager, item.path) for item in found.unread] == [(manager, path)]
    assert (found.complete, len(found.packages), found.broken) == (False, 1, ())


@pytest.mark.parametrize(
    "path",
    [
        "usr/share/doc/lib/apk/db/installed",
        "opt/conda/conda-meta/pkgs/numpy.json",
        "var/lib/rpm/macros",
        "var/log/packages/README",
        "nix/store/.links",
    ],
)
def test_other_files_of_package_managers_are_no_databases(path: str) -> None:
    assert not packages.named(path)
    assert packages.databases([path]) == ()


def test_without_any_database_it_is_unknown_what_packages_there_are() -> None:
    assert packages.read({"etc/os-release": b"ID=x"}).complete is None
    assert packages.read({STATUS: b""}).complete is True
    assert packages.read({"x.dist-info/METADATA": metadata("x")}).complete is True


def test_the_history_of_a_conda_environment_is_named_rather_than_its_packages() -> None:
    paths = ["opt/conda-meta/a-1.json", "opt/conda-meta/history", "opt/conda-meta/z-1.json"]
    assert [str(item) for item in packages.databases(paths)] == ["conda (/opt/conda-meta/history)"]


def test_each_environment_of_conda_is_named_and_each_other_manager_once() -> None:
    paths = [
        "opt/conda/conda-meta/history",
        "opt/conda/envs/a/conda-meta/history",
        "var/db/pkg/a/b-1/PF",
        "var/db/pkg/a/c-1/PF",
    ]
    assert [str(item) for item in packages.databases(paths)] == [
        "Portage (/var/db/pkg/a/b-1/PF)",
        "conda (/opt/conda/conda-meta/history)",
        "conda (/opt/conda/envs/a/conda-meta/history)",
    ]
