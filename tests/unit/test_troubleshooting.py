"""Errors lead to the section of the page on troubleshooting that is about them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sifline
from sifline.errors import MissingError, StepFailed, UsageError
from sifline.tasks.support import complain
from sifline.tasks.troubleshooting import PAGE, patterns, section
from tests.support.texts import texts

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / PAGE).read_text()
HEADINGS = re.findall(r"^### (.+)$", TEXT, re.MULTILINE)
# The sections that messages lead to: their anchors stand above the headings, and are short.
ANCHORS = {
    heading: name
    for name, heading in re.findall(r'^<a id="([a-z-]+)"></a>\n\n### (.+)$', TEXT, re.MULTILINE)
}
# Not the line of an error that a verb ends with.
OTHERWISE = {
    "`Python 3.10 or newer is needed, this is …`": "of scripts/bootstrap, which has no sifline",
    "Tab completes nothing, or file names only": "no message",
    "`interrupted`": "says all by itself",
    "`waiting for process … in …: the build of …`": "a line of progress",
    "`no record says that this checkout built it`": "a line of a result",
    "It works in Docker, not as a SIF": "no message",
}
SHOWN = [heading for heading in HEADINGS if heading not in OTHERWISE]


@pytest.mark.parametrize("where", sorted(set(patterns().values())))
def test_the_section_that_an_error_leads_to_is_there(where: str) -> None:
    assert where in ANCHORS.values()


@pytest.mark.parametrize("heading", SHOWN)
def test_an_error_leads_to_every_section(heading: str) -> None:
    assert ANCHORS[heading] in patterns().values()


def test_the_page_has_all_that_is_said_of_it_here() -> None:
    assert set(OTHERWISE) <= set(HEADINGS)


# What tools of others print.
FOREIGN = {
    "could not find bridge docker0",
    "certificate verify failed|Could not resolve host",
    "Unable to allocate resources",
    # Put together of several parts.
    r"\(inherited from \S+\)",
    r"has no \S.* --stage registry",
    r"checks failed: .*(?:four-ranks-on-two-nodes|pmix-fence)",
    r"checks failed: .*counts-match",
    r"is on \d+ of \d+ (?:chosen )?nodes",
    r"testing \S+ \d+ failed",
    r"steps failed: .*\btest ",
    r"needs \S+ \S+ free below",
}


@pytest.mark.parametrize("pattern", sorted({*patterns()} - FOREIGN))
def test_something_says_what_leads_to_a_section(pattern: str) -> None:
    """Where a message is written anew, its pattern is, too."""
    modules = Path(sifline.__file__).parent.rglob("*.py")
    said = [text for path in modules if path.name != "troubleshooting.py" for text in texts(path)]
    roles = (ROOT / "ansible").rglob("*.yml")
    said += [" ".join(path.read_text().split()) for path in roles]
    assert any(re.search(pattern, text) for text in said)


@pytest.mark.parametrize(
    ("message", "details", "where"),
    [
        ("no Docker engine answers; run it", "", "no-engine"),
        (
            "building x failed at [1/2] RUN y; the whole log is z",
            "",
            "build-failed",
        ),
        (
            "building x failed at [1/2] RUN y; the whole log is z",
            "curl: (6) Could not resolve host: a",
            "certificate",
        ),
        (
            "testing x: 2 failed: test_a (inherited from y); the whole log is z",
            "",
            "inherited-test",
        ),
        (
            "testing x: 2 failed: test_a; the whole log is z",
            "",
            "test-failed",
        ),
        ("x needs 5.0 GB free below /opt: n1 has 1.0 GB", "", "disk-full"),
        (
            "n1: /opt/c has no base; run: invoke provision --stage registry",
            "",
            "no-registry",
        ),
        ("x is on 2 of 3 nodes of y: n1 does not answer", "", "incomplete"),
        ("validating x: 1 of 9 checks failed: counts-match", "", "gpu-count"),
    ],
)
def test_a_message_leads_to_its_section(message: str, details: str, where: str) -> None:
    assert section(message, details) == f"{PAGE}#{where}"


def test_the_section_ends_the_one_line() -> None:
    missing = MissingError("no Docker engine answers; run scripts/bootstrap", details="why")
    unknown = UsageError("no image 'x' in images/. Did you mean y?")

    assert complain(missing) == (
        f"  | why\nerror: no Docker engine answers; run scripts/bootstrap; see {PAGE}#no-engine"
    )
    assert complain(unknown).endswith(f" Did you mean y? See {PAGE}#no-image")
    assert complain(StepFailed("another thing")) == "error: another thing"
