"""References as Docker reads them."""

from __future__ import annotations

import pytest

from sifline.formats.reference import last_part, normalise


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("ubuntu:22.04", "docker.io/library/ubuntu:22.04"),
        ("acme/tool", "docker.io/acme/tool:latest"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("index.docker.io/acme/tool:1", "docker.io/acme/tool:1"),
        ("localhost/tool", "localhost/tool:latest"),
        ("localhost:5000/tool", "localhost:5000/tool:latest"),
        ("registry.example.org/a/b/c:1", "registry.example.org/a/b/c:1"),
        ("registry:5000/a", "registry:5000/a:latest"),
        ("ubuntu@sha256:ab", "docker.io/library/ubuntu@sha256:ab"),
        ("ubuntu:22.04@sha256:ab", "docker.io/library/ubuntu@sha256:ab"),
    ],
)
def test_a_reference_in_full(reference: str, full: str) -> None:
    assert normalise(reference) == full
    assert normalise(full) == full


@pytest.mark.parametrize(
    "reference",
    [
        "base",
        "base:1",
        "acme/base",
        "ghcr.io/acme/base:1.0",
        "localhost:5000/base",
        "base@sha256:a",
    ],
)
def test_the_last_part_of_a_name_is_without_registry_owner_tag_and_digest(reference: str) -> None:
    assert last_part(reference) == "base"
