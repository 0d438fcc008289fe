"""Words that a settings file has more than once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def twice(words: Iterable[str]) -> str:
    """Return a word that is there more than once; "" if there is none."""
    return next((word for word, count in Counter(words).items() if count > 1), "")
