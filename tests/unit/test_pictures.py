"""Guides whose flow has more than three steps show it, and what is drawn can be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
GUIDES = [path for path in PAGES if path.parent.name in ("how-to", "tutorial")]
STEPS = 3
# Guides that are no flow: a table, one command with its options, or errors and what to do.
NO_FLOW = {
    *("coming-from-cmake", "development-container", "make-an-image-smaller", "open-an-image"),
    *("shell-completion", "troubleshooting"),
}
PICTURE = re.compile(r"^```mermaid\n(.*?)^```$|<picture>", re.MULTILINE | re.DOTALL)
# A box with its text, quoted where it has more than words; a decision has braces.
BOX = r"\w+(?:\[(?:[\w ./,:]+|\"[^\"\]]+\")\]|\{[\w ]+\})?"
LINE = re.compile(rf" {{4}}{BOX}(?: --> {BOX})*")


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_with_more_than_three_steps_has_a_picture(page: Path) -> None:
    text = page.read_text()
    numbered = re.findall(r"^## \d+\.", text, re.MULTILINE)

    assert bool(PICTURE.search(text)) is (page.stem not in NO_FLOW)
    assert not (len(numbered) > STEPS and page.stem in NO_FLOW)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_line_of_a_flowchart_is_boxes_and_arrows(page: Path) -> None:
    for drawn in filter(None, PICTURE.findall(page.read_text())):
        head, *lines = drawn.splitlines()
        assert head == "flowchart LR"
        assert [line for line in lines if not LINE.fullmatch(line)] == []
        assert lines
