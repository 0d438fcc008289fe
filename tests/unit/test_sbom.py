from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sifline.contents import sbom
from sifline.contents.comparison import Contents
from sifline.errors import StepFailed
from sifline.formats.packages import Distribution, Found, Package, Unread

DEBIAN = Distribution(id="debian", version="12", name="Debian GNU/Linux 12 (bookworm)")
LIBC = Package(
    kind="deb", name="libc6", version="1:2.36-9+b1", architecture="amd64", source="glibc@2.36-9"
)
NUMPY = Package(
    kind="python", name="numpy", version="1.0+cu1", license="BSD-3-Clause", place="opt/lib"
)
SIF = Contents(
    name="x",
    kind="sif",
    version="ab" * 32,
    size=7,
    created=1_700_000_000,
    architecture="amd64",
    image_digest="sha256:1",
    fingerprint="f" * 64,
    commit="c0ffee",
    found=Found(packages=(LIBC, NUMPY), distribution=DEBIAN),
)

# Seconds of loading, that one process is enough for: see also test_config_schema.py.
pytestmark = pytest.mark.xdist_group("jsonschema")


def made(contents: Contents) -> dict[str, Any]:
    return dict(json.loads(sbom.document(contents)))


def components(contents: Contents) -> dict[str, dict[str, Any]]:
    return {item["bom-ref"]: item for item in made(contents).get("components", [])}


def with_packages(*packages: Package, distribution: Distribution = DEBIAN) -> Contents:
    return replace(SIF, found=Found(packages=packages, distribution=distribution))


def test_the_same_contents_give_the_same_bytes_in_another_process() -> None:
    program = (
        "import pickle, sys; from sifline.contents import sbom; sbom.check = lambda text: None;"
        "sys.stdout.buffer.write(sbom.document(pickle.load(sys.stdin.buffer)))"
    )
    # To load what checks a bill takes longer than all else, and the same bytes pass as well.
    again = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(SIF), capture_output=True, check=True
    )
    assert again.stdout == sbom.document(SIF)


@pytest.mark.parametrize(
    "other", [replace(SIF, version="cd" * 32), replace(SIF, size=8), with_packages(LIBC)]
)
def test_other_contents_have_another_serial_number(other: Contents) -> None:
    assert made(other)["serialNumber"] != made(SIF)["serialNumber"]


def test_bill_says_of_what_it_is() -> None:
    found = made(SIF)["metadata"]
    subject = found["component"]
    assert found["timestamp"] == "2023-11-14T22:13:20+00:00"
    assert (subject["type"], subject["name"], subject["version"]) == ("container", "x", "ab" * 32)
    assert subject["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert {item["name"]: item["value"] for item in subject["properties"]} == {
        "sifline:kind": "sif",
        "sifline:size": "7",
        "sifline:architecture": "amd64",
        "sifline:image-digest": "sha256:1",
        "sifline:fingerprint": "f" * 64,
        "sifline:commit": "c0ffee",
    }


def test_id_of_an_image_is_not_said_to_be_its_digest() -> None:
    image = replace(SIF, kind="image", version=f"sha256:{'ab' * 32}")
    assert "hashes" not in made(image)["metadata"]["component"]


def test_files_that_were_not_understood_are_told() -> None:
    found = replace(SIF, found=Found(broken=("a", "b")))
    properties = made(found)["metadata"]["component"]["properties"]
    assert {"name": "sifline:not-understood", "value": "a\nb"} in properties


def test_debian_package_has_the_name_that_trackers_know() -> None:
    assert str(sbom.purl(LIBC, DEBIAN)) == (
        "pkg:deb/debian/libc6@1:2.36-9%2Bb1?arch=amd64&distro=debian-12&upstream=glibc%402.36-9"
    )


@pytest.mark.parametrize(
    ("distribution", "name"),
    [
        (Distribution(id="ubuntu", version="24.04"), "pkg:deb/ubuntu/a@1?distro=ubuntu-24.04"),
        (Distribution(id="debian"), "pkg:deb/debian/a@1?distro=debian"),
        (Distribution(), "pkg:deb/debian/a@1"),
    ],
)
def test_debian_package_has_the_name_of_its_distribution(
    distribution: Distribution, name: str
) -> None:
    assert str(sbom.purl(Package(kind="deb", name="a", version="1"), distribution)) == name


def test_python_package_has_the_name_of_the_index() -> None:
    assert str(sbom.purl(NUMPY, DEBIAN)) == "pkg:pypi/numpy@1.0%2Bcu1"


def test_package_in_two_places_is_two_components() -> None:
    contents = with_packages(replace(NUMPY, place="a"), replace(NUMPY, place="b"))
    assert sbom.document(contents) == sbom.document(contents)
    found = components(contents)
    places = [
        item["evidence"]["occurrences"][0]["location"]
        for item in found.values()
        if item["name"] == "numpy"
    ]
    assert sorted(places) == ["/a", "/b"]


@pytest.mark.parametrize(
    ("license_", "expected"),
    [
        ("MIT", {"license": {"id": "MIT"}}),
        ("MIT OR Apache-2.0", {"expression": "MIT OR Apache-2.0"}),
        ("BSD License", {"license": {"name": "BSD License"}}),
    ],
)
def test_license_is_an_identifier_where_it_is_one(license_: str, expected: dict[str, Any]) -> None:
    (found,) = (
        item
        for item in components(with_packages(replace(NUMPY, license=license_))).values()
        if item["name"] == "numpy"
    )
    assert found["licenses"] == [expected]


def test_the_distribution_is_a_component() -> None:
    found = components(SIF)["os:debian@12"]
    assert (found["type"], found["description"]) == ("operating-system", DEBIAN.name)


def test_image_of_unknown_contents_has_a_bill() -> None:
    assert made(replace(SIF, created=0, found=Found())).get("components", []) == []


def damaged(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"type": "library"', '"type": "book"'),
        ('"bomFormat": "CycloneDX"', '"bomFormat": "Other"'),
        ('"alg": "SHA-256"', '"alg": "SHA-257"'),
        ('"specVersion"', '"unknown"'),
        ("urn:uuid:", "urn:"),
        ('"id": "BSD-3-Clause"', '"id": "BSD-33"'),
        ('"timestamp": "', '"timestamp": "about '),
    ],
)
def test_damaged_bill_is_refused(old: str, new: str) -> None:
    text = sbom.document(SIF).decode()
    sbom.check(text)
    with pytest.raises(StepFailed, match=r"no valid CycloneDX 1\.6"):
        sbom.check(damaged(text, old, new))


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("https://example.org/a?b=c#d", True),
        ("https://例え.テスト/é", True),
        ("../a/b", True),
        ("", True),
        ("urn:uuid:0", True),
        (7, True),
        ("https://example.org/a b", False),
        ("https://example.org/<a>", False),
        ("https://example.org/%zz", False),
        ("https://[::1", False),
        ("a\nb", False),
    ],
)
def test_references_to_what_is_elsewhere_are_told_from_others(text: object, right: bool) -> None:
    assert sbom.is_iri_reference(text) is right


def test_a_reference_that_is_none_is_refused() -> None:
    bill = json.loads(sbom.document(SIF))
    bill["externalReferences"] = [{"type": "website", "url": "https://example.org/é"}]
    sbom.check(json.dumps(bill))
    bill["externalReferences"][0]["url"] = "https://example.org/a b"
    with pytest.raises(StepFailed, match=r"no valid CycloneDX 1\.6"):
        sbom.check(json.dumps(bill))


def test_truncated_bill_is_refused() -> None:
    with pytest.raises(StepFailed, match="is no JSON"):
        sbom.check(sbom.document(SIF).decode()[:-10])


_TEXTS = st.text(max_size=8)


@settings(max_examples=15)
@given(
    st.lists(
        st.builds(
            Package,
            kind=st.sampled_from(["deb", "python"]),
            name=st.from_regex(r"[a-z0-9]{1,4}", fullmatch=True),
            version=st.from_regex(r"[!-~]{1,9}", fullmatch=True),
            architecture=st.sampled_from(["", "amd64"]),
            source=_TEXTS,
            license=_TEXTS,
            place=_TEXTS,
        ),
        unique_by=lambda item: (item.kind, item.name, item.version, item.architecture, item.place),
    ),
    st.builds(Distribution, id=st.sampled_from(["", "debian"]), version=_TEXTS, name=_TEXTS),
)
def test_whatever_is_found_makes_a_valid_bill(
    packages: list[Package], distribution: Distribution
) -> None:
    contents = with_packages(*packages, distribution=distribution)
    found = components(contents)
    assert len(found) == len(packages) + bool(distribution.id)


@pytest.mark.parametrize(
    ("found", "aggregate"),
    [
        (Found(packages=(LIBC,)), None),
        (Found(described=True), None),
        (Found(packages=(LIBC,), broken=("opt/odd",)), "incomplete"),
        (Found(unread=(Unread(manager="apk", path="lib/apk/db/installed"),)), "incomplete"),
        (Found(), "unknown"),
    ],
)
def test_bill_says_that_it_is_incomplete_in_the_words_of_the_format(
    found: Found, aggregate: str | None
) -> None:
    bill = made(replace(SIF, found=found))
    subject = bill["metadata"]["component"]["bom-ref"]
    expected = [{"aggregate": aggregate, "assemblies": [subject]}] if aggregate else None
    assert bill.get("compositions") == expected


def test_bill_names_the_package_databases_that_were_not_read() -> None:
    database = Unread(manager="apk", path="lib/apk/db/installed")
    bill = made(replace(SIF, found=Found(unread=(database,))))
    properties = {
        item["name"]: item["value"] for item in bill["metadata"]["component"]["properties"]
    }
    assert properties["sifline:unread-databases"] == "apk (/lib/apk/db/installed)"
