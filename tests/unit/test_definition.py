from __future__ import annotations

from pathlib import Path

import pytest

from sifline.errors import UsageError
from sifline.stages.convert.definition import (
    completed,
    is_of,
    local_sifs,
    of_engine,
    rebased,
    render,
)

TEMPLATE = """Bootstrap: {{ bootstrap }}
%labels
{% for key, value in labels.items() %}
    {{ key }} {{ value }}
{% endfor %}
%post
    echo "{{ name }}"
"""


def test_a_template_is_filled_in(tmp_path: Path) -> None:
    (tmp_path / "x.def.j2").write_text(TEMPLATE)

    text = render(
        tmp_path / "x.def.j2", {"bootstrap": "oci", "labels": {"a": "1", "b": "<2>"}, "name": "n"}
    )

    assert text == 'Bootstrap: oci\n%labels\n    a 1\n    b <2>\n%post\n    echo "n"\n'


def test_a_plain_definition_file_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.def").write_text("%post\n    echo {{ name }}\n")

    assert render(tmp_path / "x.def", {"name": "n"}) == "%post\n    echo {{ name }}\n"


def test_a_name_that_is_not_given_is_told_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "x.def.j2").write_text("{{ nmae }}")

    with pytest.raises(UsageError, match="'nmae' is undefined; a template is given commit, name"):
        render(tmp_path / "x.def.j2", {"name": "n", "commit": "c"})


def test_an_error_of_syntax_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.def.j2").write_text("a\n{% if %}\n")

    with pytest.raises(UsageError, match="line 2: "):
        render(tmp_path / "x.def.j2", {})


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.def").write_bytes(b"\xff")

    with pytest.raises(UsageError, match=r"x\.def: cannot be read: it is no UTF-8"):
        render(tmp_path / "x.def", {})


def test_our_labels_stand_behind_whatever_the_definition_has() -> None:
    assert completed("%labels\n    a 1\n\n", {"b": "2"}) == (
        "%labels\n    a 1\n\n%labels\n    b 2\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        '{{ "%(a)s"|format({}) }}',
        '{{ "{} {}".format(1) }}',
        '{{ name.encode("foo") }}',
        "{{ name.no.thing }}",
        "{{ 1 // 0 }}",
        "{{ [] < 1 }}",
    ],
)
def test_an_expression_that_fails_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.def.j2").write_text(text)

    with pytest.raises(UsageError, match=r"x\.def\.j2: .*; a template is given name"):
        render(tmp_path / "x.def.j2", {"name": "n"})


SOURCE = "/sifline/1/x"
FIRST = f"Bootstrap: oci\nFrom: {SOURCE}\nStage: one\n\n%post\n    true\n\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Bootstrap: oci\nFrom: {SOURCE}\n", True),
        (f"bootstrap:oci\nFROM:{SOURCE} \n%labels\n", True),
        (f"{FIRST}Bootstrap: oci\nFrom: {SOURCE}\n", True),
        (f"{FIRST}Bootstrap: docker\nFrom: debian\n\n%files from one\n    /a /a\n", False),
        ("Bootstrap: docker\nFrom: debian\n", False),
        (f"Bootstrap: oci\nFrom: {SOURCE}-other\n", False),
        ("", False),
    ],
)
def test_what_the_last_stage_is_made_of(text: str, expected: bool) -> None:
    assert is_of(Path(SOURCE), text) is expected


def test_our_files_stand_behind_those_of_the_definition() -> None:
    assert completed("%files\n    a /a\n", {}, {"b": Path("/tmp/b c")}) == (
        '%files\n    a /a\n\n%files\n    "/tmp/b c" "/b"\n\n%labels\n'
    )


STAGES = """Bootstrap: docker
From: a.sif
Stage: one
%post
    echo 'Bootstrap: localimage'

bootstrap: LocalImage # ours
FROM: a.sif # the base
%files from one
    /x
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Bootstrap: localimage\nFrom: a.sif\n", {"a.sif": "a.sif"}),
        ("Bootstrap: localimage\nFrom: {folder}/a.sif\n", {"{folder}/a.sif": "a.sif"}),
        (STAGES, {"a.sif # the base": "a.sif"}),
        # What is no file, and what needs a signature, is left to Apptainer.
        ("Bootstrap: localimage\nFrom: b.sif\n", {}),
        ("Bootstrap: localimage\nFrom: .\n", {}),
        ("Bootstrap: localimage\nFrom: a.sif\nFingerprints: 12\n", {}),
        ("Bootstrap: docker\nFrom: a.sif\n%post\nFrom: a.sif\n", {}),
        ("Bootstrap: localimage\n%post\nFrom: a.sif\n", {}),
    ],
)
def test_the_sifs_that_stages_are_made_of(
    tmp_path: Path, text: str, found: dict[str, str]
) -> None:
    (tmp_path / "a.sif").write_text("")

    told = local_sifs(text.replace("{folder}", str(tmp_path)), tmp_path)

    assert told == {
        written.replace("{folder}", str(tmp_path)): tmp_path / name
        for written, name in found.items()
    }


def test_a_stage_is_made_of_what_was_unpacked_instead() -> None:
    assert rebased("Bootstrap: localimage\nFROM:  a.sif\n", {"a.sif": Path("/x/base0")}) == (
        "Bootstrap: localimage\nFrom: /x/base0\n"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Bootstrap: docker-daemon\nFrom: acme/x:1\n\n%post\n    true\n", "acme/x:1"),
        ("BOOTSTRAP: docker\nFROM: x\n\n%post\nbootstrap: docker-daemon\nfrom: y\n", "y"),
        ("Bootstrap: docker-archive\nFrom: docker-daemon.tar\n", ""),
        ("", ""),
    ],
)
def test_an_image_of_the_engine_that_a_definition_starts_from(text: str, found: str) -> None:
    assert of_engine(text) == found
