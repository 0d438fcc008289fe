"""Reading Dockerfiles: every form of FROM that decides what an image is built on."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifline.dockerfile import references
from sifline.errors import UsageError


def dockerfile(folder: Path, text: str) -> Path:
    path = folder / "Dockerfile"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a", ("a",)),
        ("from a as b\nfrom b", ("a",)),
        ("FROM a AS Base\nFROM base", ("a",)),
        ("FROM scratch\nCOPY x /", ()),
        ("# syntax=x\n# escape=`\nFROM `\n  a", ("a",)),
        ("ARG V=1\nFROM a:$V", ("a:1",)),
        ("ARG V=1\nARG W=${V}.2\nFROM a:${W}", ("a:1.2",)),
        ("FROM a:${TAG:-x}", ("a:x",)),
        ('ARG V="1 2"\nFROM a${V:+-gpu}', ("a-gpu",)),
        ("FROM --platform=linux/amd64 registry.example:5000/o/a@sha256:00", None),
        ("FROM a\nCOPY --chown=1 --from=b /x /y", ("a", "b")),
        ("FROM a AS one\nFROM c\nCOPY --from=one /x /\nCOPY --from=0 /x /", ("a", "c")),
        ("FROM a\nRUN --mount=type=bind,from=b,target=/b true", ("a", "b")),
        ("FROM a\nRUN tool --from=b", ("a",)),
        ("FROM a\nRUN <<EOF\nFROM b\nEOF\nFROM c", ("a", "c")),
        ("FROM \\\n# a comment inside\n a", ("a",)),
    ],
)
def test_images_a_dockerfile_is_built_on(
    tmp_path: Path, text: str, expected: tuple[str, ...] | None
) -> None:
    if expected is None:
        expected = ("registry.example:5000/o/a@sha256:00",)

    assert references(dockerfile(tmp_path, text)) == expected


def test_given_arguments_override_defaults(tmp_path: Path) -> None:
    path = dockerfile(tmp_path, "ARG V=1\nFROM a:$V")

    assert references(path, {"V": "2"}) == ("a:2",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN true\n", "has no FROM"),
        ("", "has no FROM"),
        ("FROM a\nRAN true", "line 2: 'RAN' is no Dockerfile instruction"),
        ("FROM a b", "line 1: FROM takes an image"),
        ("ARG V\nFROM $V", "line 2: FROM $V expands to nothing"),
    ],
)
def test_a_broken_dockerfile_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        references(dockerfile(tmp_path, text))

    assert message in error.value.message
    assert "Dockerfile" in error.value.message


def test_a_binary_dockerfile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_bytes(b"FROM \xff\xfe")

    with pytest.raises(UsageError, match="UTF-8"):
        references(path)
