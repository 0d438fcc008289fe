"""Reading Dockerfiles: every form that decides what an image is built on, as BuildKit has it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline.errors import UsageError
from sifline.formats.dockerfile.stages import Dockerfile


def dockerfile(folder: Path, text: str) -> Dockerfile:
    path = folder / "Dockerfile"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return Dockerfile.read(path)


def images(
    folder: Path, text: str, arguments: dict[str, str] | None = None, target: str = ""
) -> list[str]:
    found = dockerfile(folder, text).references(arguments or {}, target=target)
    return [reference.text for reference in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a", ["a"]),
        ("from a as b\nfrom b", ["a"]),
        ("\tFROM\ta\tAS\tb\t\nFROM b", ["a"]),
        ("FROM a AS Base\nFROM base", ["a"]),
        ("FROM debian AS debian\nFROM debian", ["debian"]),
        ("FROM late\nFROM x AS late\nFROM y\nCOPY --from=0 / /", ["late", "y"]),
        ("FROM scratch\nCOPY x /", []),
        ("FROM a AS scratch\nFROM scratch", ["a"]),
        ('FROM "a"', ["a"]),
        ("FROM reg.example:5000/o/a:t", ["reg.example:5000/o/a:t"]),
        ("FROM a:1@sha256:" + "0" * 64, ["a:1@sha256:" + "0" * 64]),
        ("FROM a AS x\nFROM b AS x\nFROM c\nCOPY --from=x / /", ["b", "c"]),
        ("FROM a AS x\nFROM b AS x\nFROM x", ["b"]),
    ],
)
def test_from_and_its_stages(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert images(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ARG V=1\nFROM a:$V", "a:1"),
        ("ARG V=1\nARG W=${V}.2\nFROM a:${W}", "a:1.2"),
        ("ARG V=1 W=$V.3 X='4'\nFROM a:$W-$X", "a:1.3-4"),
        ("ARG R\nFROM ${R:-reg}/a", "reg/a"),
        ("ARG R=\nFROM a${R-x}:${R:-${S:-deep}}", "a:deep"),
        ("ARG V=1.2\nFROM a:${V//*/x}", "a:x"),
        ('ARG V="1 2"\nFROM a${V:+-gpu}${V+x}${W+y}', "a-gpux"),
        ("ARG V=12.4.1\nFROM a:${V%.*}-${V%%.*}-${V#*.}-${V##*.}", "a:12.4-12-4.1-1"),
        ("ARG V=1.2.3\nFROM a:${V//./-}-${V/./x}-${V/\\?/n}", "a:1-2-3-1x2.3-1.2.3"),
        ("ARG V=x\nFROM a:1\\\n${V}", "a:1x"),
        ("ARG V=\\$V\nFROM a:${V#?}", "a:V"),
        ("ARG V='$W' W=2\nFROM a:${V#?}", "a:W"),
        ("FROM --platform=$BUILDPLATFORM a-$TARGETOS", "a-linux"),
        ("ARG TARGETOS\nFROM a-$TARGETOS", "a-linux"),
        ("ARG TARGETOS=x\nFROM a-$TARGETOS", "a-x"),
        ("FROM a\nARG V=1\nFROM b:${V:-out-of-sight}", "b:out-of-sight"),
    ],
)
def test_arguments_before_the_first_from(tmp_path: Path, text: str, expected: str) -> None:
    assert images(tmp_path, text)[-1] == expected


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        ("ARG V=1\nFROM a:$V", {"V": "2"}, ["a:2"]),
        ("ARG V=1\nARG W=$V\nFROM a:$W", {"V": "2"}, ["a:2"]),
        ("ARG V\nFROM a:${V:-1}", {"V": ""}, ["a:1"]),
        ("FROM a:${V:-1}", {"V": "undeclared"}, ["a:1"]),
        ("FROM a-$TARGETARCH", {"TARGETARCH": "other"}, ["a-other"]),
    ],
)
def test_given_arguments_override_defaults(
    tmp_path: Path, text: str, arguments: dict[str, str], expected: list[str]
) -> None:
    assert images(tmp_path, text, arguments) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\nCOPY --chown=1 --from=b /x /y", ["a", "b"]),
        ('FROM a\ncopy --link --from=\'b\' --chmod=1 ["x", "y"]', ["a", "b"]),
        ("FROM a AS one\nFROM c\nCOPY --from=ONE /x /\nCOPY --from=0 /x /", ["a", "c"]),
        ("FROM a\nCOPY --from=scratch x /\nCOPY --from= x /", ["a"]),
        ("FROM a\nCOPY x --from=b /", ["a"]),
        ("FROM a\nADD --from=b x /", ["a"]),
        ("FROM a\nRUN --mount=type=bind,from=b,target=/b true", ["a", "b"]),
        ("FROM a\nRUN --mount=target=/b,from=b --mount=from=c,target=/c true", ["a", "b", "c"]),
        ("FROM a\nRUN --mount=type=tmpfs,from=b,target=/b true", ["a"]),
        ("FROM a\nRUN \\\n  --mount=from=b,\\\ntarget=/b \\\n  true", ["a", "b"]),
        ("FROM a AS s\nFROM c\nRUN --mount=from=S,target=/s x", ["a", "c"]),
        ("FROM a\nRUN --mount=from=0,target=/s x", ["a", "0"]),
        ("FROM a\nRUN tool --from=b", ["a"]),
        ("FROM a AS p\nONBUILD COPY --from=b / /\nFROM p\n", ["a", "b"]),
        ("FROM a\nONBUILD COPY --from=b / /", ["a"]),
    ],
)
def test_copies_and_mounts(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert images(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RUN <<EOF\ntrue\nEOF", [("a here-document", 10)]),
        ("COPY <<'x y' /a\ntrue\nx y", [("a here-document", 10)]),
        ("ONBUILD RUN cat <<-A <<B\nA\nB", [("a here-document", 10)]),
        ("COPY --link x /", [("COPY --link", 10)]),
        ("ADD --link=false x /", [("ADD --link", 10)]),
        ("copy --parents --exclude=*.o x /", [("COPY --parents", 26), ("COPY --exclude", 25)]),
        ("ADD --checksum=sha256:a https://x/y /", [("ADD --checksum", 12)]),
        ("ADD --keep-git-dir=true https://x/y.git /", [("ADD --keep-git-dir", 12)]),
        ("ADD --unpack=true x /", [("ADD --unpack", 23)]),
        ("COPY --chmod=u+x x /", [("COPY --chmod=u+x", 20)]),
        ("ADD --chmod=$MODE x /", [("ADD --chmod=$MODE", 16)]),
        ("RUN --network=none true", [("RUN --network", 9)]),
        ("RUN --security=insecure true", [("RUN --security", 26)]),
        ("RUN --mount=type=cache,target=$D true", [("a variable in RUN --mount", 9)]),
        ("RUN --mount=type=tmpfs,target=/a,size=1m true", [("RUN --mount=…,size=", 10)]),
        ("RUN --mount=type=secret,id=a,env=A true", [("RUN --mount=…,env=", 16)]),
        ("HEALTHCHECK --start-interval=5s CMD true", [("HEALTHCHECK --start-interval", 12)]),
        # What Docker 20.10 does as it says.
        ("COPY --chmod=0755 --chown=$U x /", []),
        ("RUN --mount=type=secret,id=a,required=true,mode=0400 --mount=target=/b true", []),
        ("RUN --mount=type=ssh true", []),
        ("RUN echo $((1 << 3)) && cat <<<'$X'", []),
        ("RUN tool --network=none --link", []),
        ("HEALTHCHECK --interval=5s CMD true", []),
    ],
)
def test_what_not_every_engine_knows_is_found_with_its_line(
    tmp_path: Path, text: str, expected: list[tuple[str, int]]
) -> None:
    found = dockerfile(tmp_path, f"FROM a\n{text}\n").features

    assert [(item.what, item.buildkit) for item in found] == expected
    assert {item.line for item in found} <= {2}


@pytest.mark.parametrize(
    ("text", "frontend"),
    [
        ("# syntax=x\nFROM a", "x"),
        ("#!/usr/bin/env docker\n# syntax=x\nFROM a", "x"),
        ("\ufeff#!x\n# check=skip=all\n#SYNTAX = x\nFROM a", "x"),
        ("#!x\n\n# syntax=x\nFROM a", ""),
        ("\n#!x\n# syntax=x\nFROM a", ""),
        ("FROM a\n# syntax=x", ""),
    ],
)
def test_the_frontend_is_the_one_that_an_engine_would_fetch(
    tmp_path: Path, text: str, frontend: str
) -> None:
    assert dockerfile(tmp_path, text).frontend == frontend


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# syntax=x\n# escape=`\nFROM `\n  a", ["a"]),
        ("# no directive\n# escape=`\nFROM \\\n  a", ["a"]),
        ("#!/usr/bin/env x\n# escape=`\n# syntax=x\nFROM \\\n  a", ["a"]),
        ("#ESCAPE = `\n#check=skip=all\n\nFROM a`\nb", ["ab"]),
        ("ARG \\\n  # of A\n  A=1 \\\n  # of B\n  B=2\nFROM a:$A.$B", ["a:1.2"]),
        ("FROM \\\n# a comment inside\n\n  # and one\n a", ["a"]),
        ("FROM a \\ \t\n AS b\nFROM b", ["a"]),
        ("FROM a\nRUN x \\\\\nFROM b", ["b"]),
        ("\ufeffFROM a\r\nRUN x \\\r\n  y\r\nFROM b\r\n", ["b"]),
        ("FROM a\n# \udcfc is Latin-1\nRUN x", ["a"]),
        ("FROM a\nRUN x\x0cFROM b", ["a"]),
        ("FROM a\nRUN x \\\n# FROM b\n  FROM c", ["a"]),
        ("FROM a\nRUN ends in \\", ["a"]),
    ],
)
def test_lines_comments_and_directives(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert images(tmp_path, text) == expected


@pytest.mark.parametrize(
    "document",
    [
        "RUN <<EOF\nFROM x\nEOF",
        "RUN << EOF\nFROM x\nEOF",
        "run <<-EOF\n\tFROM x\n\tEOF",
        "RUN <<EOF\n\tEOF\nFROM x\nEOF",
        "RUN <<'E F' cat\nFROM x\nE F",
        'RUN cat <<"A" 3<<B\nFROM x\nA\nFROM x\nB',
        "COPY <<a.txt <<b.txt /\nFROM x\na.txt\nFROM x\nb.txt",
        "ONBUILD RUN <<EOF\nFROM x\nEOF",
        "RUN [ -f x ] && cat <<EOF\nFROM x\nEOF",
        "RUN --mount=type=cache,target=/c <<EOF\r\nFROM x\r\nEOF\r",
        "RUN x \\\n  <<EOF\nFROM x \\\nEOF",
    ],
)
def test_a_here_document_is_no_instruction(tmp_path: Path, document: str) -> None:
    assert images(tmp_path, f"FROM a AS b\n{document}\nFROM b") == ["a"]


@pytest.mark.parametrize(
    "instruction",
    [
        "RUN cat <<<RUN",
        'RUN echo "a <<RUN"',
        "RUN echo 'a <<RUN'",
        'RUN ["cat", "<<RUN"]',
        "CMD cat <<RUN",
        'LABEL x="<<RUN"',
        "RUN a<<RUN",
        "RUN \\<<RUN",
        'RUN <<RUN more\\\\" <<RUN',
        "RUN echo $((1<<2)) $((1 << 2))",
        "RUN <<NEVERENDING",
    ],
)
def test_these_begin_no_here_document(tmp_path: Path, instruction: str) -> None:
    # A line that is an instruction as well as the end of a here-document.
    assert images(tmp_path, f"FROM a\n{instruction}\nFROM b\nRUN\n") == ["b"]


STAGES = """\
FROM a AS base
FROM b AS Tools
FROM base AS test
COPY --from=tools / /
FROM base AS Final
RUN --mount=from=c,target=/c true
FROM d
"""


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("", ["d"]),
        ("base", ["a"]),
        ("tools", ["b"]),
        ("test", ["a", "b"]),
        ("FINAL", ["a", "c"]),
    ],
)
def test_only_what_the_target_reaches_counts(
    tmp_path: Path, target: str, expected: list[str]
) -> None:
    assert images(tmp_path, STAGES, target=target) == expected


def test_an_unknown_target_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no stage 'tool'\. Did you mean tools"):
        images(tmp_path, STAGES, target="tool")


def test_a_reference_knows_its_platform_and_line(tmp_path: Path) -> None:
    text = "ARG P=linux/arm64\nFROM x\n\nFROM --platform=$P \\\n a\nCOPY --from=b / /"
    found = dockerfile(tmp_path, text).references({})

    assert [(one.text, one.platform, one.line) for one in found] == [
        ("a", "linux/arm64", 4),
        ("b", "", 6),
    ]


def test_what_is_declared(tmp_path: Path) -> None:
    read = dockerfile(
        tmp_path,
        "ARG A=1 B\nFROM a AS One\nARG A\nARG C='x y' D=\nFROM b\nONBUILD ARG E\nFROM c AS two",
    )

    assert (read.arguments, read.stages) == (("A", "B", "C", "D", "E"), ("one", "two"))


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ("--mount=type=ssh", (("default", False),)),
        ("--mount=type=ssh,id=a,required --mount=type=SSH,id=b", (("a", True), ("b", False))),
        ("--mount=type=ssh,required=true --mount=type=ssh", (("default", True),)),
        ("--mount=type=secret,id=a", ()),
    ],
)
def test_agents_of_ssh_and_whether_they_are_required(
    tmp_path: Path, mounts: str, expected: tuple[tuple[str, bool], ...]
) -> None:
    assert dockerfile(tmp_path, f"FROM a\nRUN {mounts} true").ssh == expected


BY_STAGE = "FROM a AS default\nFROM b AS b\nFROM ${TARGETSTAGE}\n"


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        (BY_STAGE, "", ["a"]),
        (f"{BY_STAGE}COPY --from=b x y\n", "", ["a", "b"]),
        (BY_STAGE, "b", ["b"]),
        (f"ARG TARGETSTAGE=b\n{BY_STAGE}", "", ["b"]),
        ("FROM a AS x\nFROM base-$TARGETSTAGE AS y\n", "y", ["base-y"]),
        # Nobody asks for one: it is the last, by its name where it has one (Docker 28).
        ("FROM a AS x\nFROM base-$TARGETSTAGE AS y\n", "", ["base-y"]),
        ("FROM a AS x\nFROM base-$TARGETSTAGE\n", "", ["base-default"]),
    ],
)
def test_the_stage_that_is_asked_for_is_an_argument_of_from(
    tmp_path: Path, text: str, target: str, expected: list[str]
) -> None:
    assert images(tmp_path, text, target=target) == expected
    read = dockerfile(tmp_path, text)
    assert read.rewritten({"c": "d"}, {}, target=target) == text


def test_named_contexts_come_before_stages_and_images(tmp_path: Path) -> None:
    text = (
        "FROM a AS one\nFROM src AS two\nCOPY --from=one x y\nCOPY --from=src x y\n"
        "RUN --mount=from=b,target=/b true\n"
    )
    path = tmp_path / "Dockerfile"
    path.write_text(text)

    read = Dockerfile.read(path, ["src", "one"])

    assert [item.text for item in read.references({})] == ["b"]
    assert read.base({}).text == "scratch"
    assert read.rewritten({"a": "c"}, {}) == text.replace("FROM a", "FROM c")
    # An older engine gets images in their place.
    assert read.rewritten({"src": "d", "one": "e"}, {}) == (
        "FROM a AS one\nFROM d AS two\nCOPY --from=e x y\nCOPY --from=d x y\n"
        "RUN --mount=from=b,target=/b true\n"
    )
    path.write_text("ARG X=src\nFROM $X\n")
    by_argument = Dockerfile.read(path, ["src"])
    assert by_argument.rewritten({"src": "d"}, {}) == "ARG X=src\nFROM d\n"


def test_an_older_buildkit_does_not_know_the_stage_that_is_asked_for(tmp_path: Path) -> None:
    read = dockerfile(tmp_path, BY_STAGE)
    assert [(item.line, item.buildkit) for item in read.features] == [(3, 17)]
    assert dockerfile(tmp_path, f"ARG TARGETSTAGE=b\n{BY_STAGE}").features == ()


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ("--mount=type=secret,id=a", (("a", False),)),
        ("--mount=type=secret,id=a,required", (("a", True),)),
        ("--mount=type=secret,id=a,required=true", (("a", True),)),
        ("--mount=type=secret,id=a,required=false", (("a", False),)),
        ("--mount=id=a,type=SECRET,target=/x", (("a", False),)),
        ("--mount=type=secret,target=/run/b", (("b", False),)),
        ("--mount=type=secret,source=c,dst=/run/b", (("c", False),)),
        ("--mount=type=cache,id=a,target=/x", ()),
        ('--mount="type=secret,id=a" --mount=type=secret,id=b', (("a", False), ("b", False))),
        ("--mount=type=secret,id=a,required --mount=type=secret,id=a", (("a", True),)),
        ("echo --mount=type=secret,id=a", ()),
    ],
)
def test_secrets_and_whether_they_are_required(
    tmp_path: Path, mounts: str, expected: tuple[tuple[str, bool], ...]
) -> None:
    assert dockerfile(tmp_path, f"FROM a\nRUN {mounts} true").secrets == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# only a comment\n", "has no FROM"),
        ("", "has no FROM"),
        ("ARG A=1", "has no FROM"),
        ("RUN true\nFROM a", "line 1: RUN comes before the first FROM"),
        ("FROM a\nCOPPY x y", "line 2: 'COPPY' is no Dockerfile instruction. Did you mean COPY"),
        ("FROM a\n\nRUN x \\\n  y\nz", "line 5: 'Z' is no Dockerfile instruction"),
        ("FROM a\nRUN <<EOF\nFROM b\n EOF", "line 4: 'EOF' is no Dockerfile instruction"),
        ("FROM", "line 1: FROM takes an image"),
        ("FROM a b", "line 1: FROM takes an image"),
        ("FROM a AS $b", "line 1: '$b' is no name for a stage"),
        ("FROM a AS 1b", "line 1: '1b' is no name for a stage"),
        ("# escape=x\nFROM a", "line 1: escape is"),
        ("# syntax=a\n# syntax=b\nFROM a", "line 2: a second syntax directive"),
        ("// syntax=a/b\nx", "line 1: the language of the frontend a/b is not Dockerfile's"),
        ("#!x\n//check=skip=all\n//Syntax = a\nx", "line 3: the language of the frontend a is"),
        ('{"syntax": "a/b"}\nx', "line 1: the language of the frontend a/b is not"),
        ('#!/usr/bin/env x\n{\n"syntax": "a/b", "c": 1}', "line 2: the language of the frontend"),
        ('{"syntax": 1}', "line 1: '{\"SYNTAX\":' is no Dockerfile instruction"),
        ("[1]", "line 1: '[1]' is no Dockerfile instruction"),
        ("FROM a\n// syntax=a", "line 2: '//' is no Dockerfile instruction"),
        ("ARG V\nFROM $V", "line 2: $V expands to nothing; give its ARG a default"),
        ("FROM --platform=$V a", "line 1: $V expands to nothing"),
        ("FROM a:${V}", "line 1: 'a:' is no image name; look at the ARGs in it"),
        ("FROM a:${V} AS unused\nFROM b", "line 1: 'a:' is no image name"),
        ("FROM A", "line 1: 'A' is no image name; correct it"),
        ("FROM a AS Base\nFROM Base", "line 2: 'Base' is no image name; FROM knows stages in"),
        ("FROM ${V:?unset}", "line 1: ${V:?unset} cannot be expanded: V: unset"),
        ("FROM ${V^^}", "line 1: ${V^^} cannot be expanded"),
        ('FROM a"', 'line 1: a" cannot be expanded: a closing " is missing'),
        ("ARG A=${\nFROM a", "line 1: ${ cannot be expanded"),
        ("FROM a\nCOPY --from=$X x /", "line 2: '$X' is no image name; --from knows no variab"),
        ("FROM a\nRUN --mount=from=${X},target=/ x", "line 2: '${X}' is no image name; --from"),
        ("FROM a\nCOPY --from=1 x /", "line 2: --from=1: there is no such stage"),
        ("FROM a\nCOPY --from=0 x /", "line 2: stage 0 must come before what uses it"),
        ("FROM a AS d\nCOPY --from=B x /\nFROM c AS b\nFROM d", "line 2: stage B must come befo"),
    ],
)
def test_a_broken_dockerfile_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        images(tmp_path, text)

    assert error.value.message.startswith(f"{tmp_path / 'Dockerfile'}: {message}")


def test_an_unreadable_dockerfile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Dockerfile.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\ufeffFROM  a  AS x\r\nRUN y\r\n", "\ufeffFROM  new:1  AS x\r\nRUN y\r\n"),
        ("ARG V=a\n# a\nFROM --platform=p $V\n", "ARG V=a\n# a\nFROM --platform=p new:1\n"),
        ("FROM a\nRUN <<EOF\nFROM a\nEOF\n", "FROM new:1\nRUN <<EOF\nFROM a\nEOF\n"),
        ("FROM b\nCOPY --from=a a a", "FROM b\nCOPY --from=new:1 a a"),
        ("FROM b\nCOPY --from='a' a a", "FROM b\nCOPY --from='new:1' a a"),
        ("FROM b\nCOPY --from=\\a a a", "FROM b\nCOPY --from=new:1 a a"),
        ("FROM b\nCOPY --from=''a'' a a", "FROM b\nCOPY --from=''new:1'' a a"),
        ("FROM b\nRUN --mount=from=a,src=a \\\n a", "FROM b\nRUN --mount=from=new:1,src=a \\\n a"),
        ('FROM b\nRUN --mount="from=a,src=a b" a', 'FROM b\nRUN --mount="from=new:1,src=a b" a'),
        ("FROM \\\n# a\n  a\nENV a=a", "FROM \\\n# a\n  new:1\nENV a=a"),
        ("FROM a AS a\nFROM a\nCOPY --from=a a a", "FROM new:1 AS a\nFROM a\nCOPY --from=a a a"),
        ("FROM a AS unused\nFROM a", "FROM new:1 AS unused\nFROM new:1"),
        (
            "FROM b AS p\nONBUILD COPY --from=a / /\nFROM a\nFROM p",
            "FROM b AS p\nONBUILD COPY --from=new:1 / /\nFROM new:1\nFROM p",
        ),
        ("FROM a\n# \udcfc\n", "FROM new:1\n# \udcfc\n"),
    ],
)
def test_other_images_are_put_in_and_nothing_else(
    tmp_path: Path, text: str, expected: str
) -> None:
    assert dockerfile(tmp_path, text).rewritten({"a": "new:1"}, {}) == expected


def test_a_name_quoted_in_the_middle_is_written_anew(tmp_path: Path) -> None:
    text = "FROM b\nRUN --mount=from=a'b'c,\"src=x y\" true"
    rewritten = dockerfile(tmp_path, text).rewritten({"abc": "new"}, {})

    assert rewritten == "FROM b\nRUN --mount=from=new,src=x\\ y true"
    assert images(tmp_path, rewritten) == ["b", "new"]


# --- properties ---------------------------------------------------------------------------------

# Names are chosen, and strategies are made once: to draw letters by a regular expression, and to
# make a strategy for each line, took ten times as long as reading what came of it.
NAME = st.sampled_from(
    [
        f"{first}{then}{tag}"
        for first in ("a", "b1", "z0yx", "as", "from", "copy")
        for then in ("", "/b", "/run")
        for tag in ("", ":1", ":z9", ":arg")
    ]
)
MOST = 5
# What the stage of each number may be built on, or copy from.
SOURCES = [NAME, *(NAME | st.integers(0, number - 1) for number in range(1, MOST))]
DRAWN = [st.tuples(source, st.lists(source, max_size=3)) for source in SOURCES]
GRAPHS = st.one_of(*(st.tuples(*DRAWN[:size]) for size in range(1, MOST + 1)))
Graph = tuple[tuple[str | int, list[str | int]], ...]


def needed(graph: Graph, index: int) -> set[int]:
    base, copies = graph[index]
    below = [one for one in (base, *copies) if isinstance(one, int)]
    return {index}.union(*(needed(graph, one) for one in below))


@st.composite
def spellings(draw: st.DrawFn, graph: Graph) -> str:
    """The graph as a Dockerfile, each line in one of the many ways to write it."""
    lines, arguments = [], []
    for index, (base, copies) in enumerate(graph):
        name = f"stage-{base}" if isinstance(base, int) else base
        how, keyword, as_, noise = draw(FORMS)
        if how == "argument":
            arguments.append(f"ARG A{index}={name}")
            name = f"${{A{index}}}"
        written = {"default": f"${{NO:-{name}}}", "quoted": f'"{name}"'}.get(how, name)
        written = f"\\\n {name}" if how == "continued" else written
        lines.append(f"{keyword} {written} {as_} Stage-{index}")
        for copy in copies:
            forms = copy_spellings(copy)
            lines.append(forms[draw(NUMBERS) % len(forms)])
        lines.append(noise)
    end, start = draw(ENDS)
    return start + "\n".join([*arguments, *lines]).replace("\n", end)


NOISE = [
    "# FROM noise",
    "RUN <<EOF\nFROM noise\nEOF",
    'ENV x="FROM noise"',
    "RUN x \\\n\n  FROM noise",
    "LABEL a=b \\\n # FROM noise\n c=d",
    "CMD cat <<noise",
    "",
]
FORMS = st.tuples(
    st.sampled_from(["plain", "argument", "default", "quoted", "continued"]),
    st.sampled_from(["FROM", "from", " From\t"]),
    st.sampled_from(["AS", "as", "As"]),
    st.sampled_from(NOISE),
)
NUMBERS = st.integers(0, 19)
ENDS = st.tuples(
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff", "# syntax=x\n", "# a comment\n\n"]),
)


def copy_spellings(source: str | int) -> list[str]:
    name = f"STAGE-{source}" if isinstance(source, int) else source
    forms = [
        f"COPY --from={name} x y",
        f'copy --chown=1:1 --from=\'{name}\' ["x", "y"]',
        f"RUN --mount=type=bind,from={name},target=/x true",
        f"RUN --mount=target=/x,from={name} \\\n  <<EOF\nFROM noise\nEOF",
    ]
    if isinstance(source, int):
        forms.append(f"COPY --from={source} x y")
    return forms


@given(GRAPHS, NUMBERS, st.data())
def test_a_graph_in_any_spelling_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, graph: Graph, number: int, data: st.DataObject
) -> None:
    text = data.draw(spellings(graph))
    target = number % len(graph)
    expected = {
        one
        for index in needed(graph, target)
        for one in (graph[index][0], *graph[index][1])
        if isinstance(one, str)
    }
    read = dockerfile(tmp_path_factory.getbasetemp(), text)
    found = [one.text for one in read.references({}, target=f"stage-{target}")]

    assert (sorted(found), len(found)) == (sorted(expected), len(set(found)))


@given(GRAPHS, st.data())
def test_replaced_images_are_read_back_and_put_back(
    tmp_path_factory: pytest.TempPathFactory, graph: Graph, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    read = dockerfile(folder, data.draw(spellings(graph)))
    target = f"stage-{len(graph) - 1}"
    before = [one.text for one in read.references({}, target=target)]
    replacements = {name: f"new.example/{number}" for number, name in enumerate(before)}
    after = dockerfile(folder, read.rewritten(replacements, {}))
    again = [one.text for one in after.references({}, target=target)]

    assert again == list(replacements.values())
    assert read.rewritten({}, {}) == read.text


WORDS = ["FROM ", " AS b", "ARG a=", "COPY --from=", "RUN --mount=", "from=", "type=secret", "EOF"]
CHARACTERS = "\\`${}'\" %#/*?,-<a9\n\r\ufeff\u00e9"
PIECES = st.sampled_from(
    [*WORDS, *CHARACTERS, "${a:-", "<<", "# escape=`\n", "ONBUILD ", "9" * 20]
)


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    try:
        read = dockerfile(tmp_path_factory.getbasetemp(), text)
        read.references({"a": "x"})
    except UsageError:
        return
    assert read.rewritten({}, {}) == text


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nested too deeply"):
        images(tmp_path, "FROM " + "${a:-" * 5000)


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        ("FROM a AS x\nFROM b\nCOPY --from=x / /", "", "b"),
        ("FROM a AS x\nFROM x AS y\nFROM c AS z\nFROM y\nCOPY --from=z / /", "", "a"),
        ("FROM a AS x\nFROM b", "x", "a"),
        ("FROM a AS x\nFROM scratch\nCOPY --from=x / /", "", "scratch"),
        ("ARG B=a:1\nFROM $B", "", "a:1"),
    ],
)
def test_an_image_begins_with_one_other_whatever_it_copies(
    tmp_path: Path, text: str, target: str, expected: str
) -> None:
    assert dockerfile(tmp_path, text).base({}, target=target).text == expected


def test_arguments_decide_what_it_begins_with(tmp_path: Path) -> None:
    found = dockerfile(tmp_path, "ARG B=a\nFROM $B AS x\nFROM x")
    assert found.base({"B": "nvidia/cuda:12.1"}).text == "nvidia/cuda:12.1"
