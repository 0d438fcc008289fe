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
HEADINGS = re.findall(r"^### (.+)$", (ROOT / PAGE).read_text(), re.MULTILINE)
# Not the line of an error that a verb ends with.
OTHERWISE = {
    "`Python 3.10 or newer is needed, this is …`": "of scripts/bootstrap, which has no sifline",
    "Tab completes nothing, or file names only": "no message",
    "`interrupted`": "says all by itself",
    "`no record says that this checkout built it`": "a line of a result",
    "It works in Docker, not as a SIF": "no message",
    "`deploy` ends with failed tests": "the message is that of the tests",
}
SHOWN = [heading for heading in HEADINGS if heading not in OTHERWISE]


def anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    plain = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return plain.replace(" ", "-")


@pytest.mark.parametrize("where", sorted(set(patterns().values())))
def test_the_section_that_an_error_leads_to_is_there(where: str) -> None:
    assert where in {anchor(heading) for heading in HEADINGS}


@pytest.mark.parametrize("heading", SHOWN)
def test_an_error_leads_to_every_section(heading: str) -> None:
    assert anchor(heading) in patterns().values()


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
        ("no Docker engine answers; run it", "", "no-docker-engine-answers"),
        (
            "building x failed at [1/2] RUN y; the whole log is z",
            "",
            "building--failed-at-25-run-",
        ),
        (
            "building x failed at [1/2] RUN y; the whole log is z",
            "curl: (6) Could not resolve host: a",
            "certificate-verify-failed-could-not-resolve-host",
        ),
        (
            "testing x: 2 failed: test_a (inherited from y); the whole log is z",
            "",
            "a-test-fails-that-you-did-not-write",
        ),
        (
            "testing x: 2 failed: test_a; the whole log is z",
            "",
            "testing--2-failed-test_-the-whole-log-is-",
        ),
        ("x needs 5.0 GB free below /opt: n1 has 1.0 GB", "", "the-disk-is-full--needs--gb-free"),
        (
            "n1: /opt/c has no base; run: invoke provision --stage registry",
            "",
            "optcontainers-has-no-",
        ),
        ("x is on 2 of 3 nodes of y: n1 does not answer", "", "-is-on-2-of-3-nodes"),
        ("validating x: 1 of 9 checks failed: counts-match", "", "-offers-0-gpus-instead-of-2"),
    ],
)
def test_a_message_leads_to_its_section(message: str, details: str, where: str) -> None:
    assert section(message, details) == f"{PAGE}#{where}"


def test_the_section_ends_the_one_line() -> None:
    missing = MissingError("no Docker engine answers; run scripts/bootstrap", details="why")
    unknown = UsageError("no image 'x' in images/. Did you mean y?")

    assert complain(missing) == (
        "  | why\nerror: no Docker engine answers; run scripts/bootstrap;"
        f" see {PAGE}#no-docker-engine-answers"
    )
    assert complain(unknown).endswith(
        f" Did you mean y? See {PAGE}#no-image--in-images-no-images-folder-in-"
    )
    assert complain(StepFailed("another thing")) == "error: another thing"
