"""Sizes for people, in powers of ten, as docker counts them."""

from __future__ import annotations

_GIGABYTE = 10**9


def megabytes(size: int, places: int = 1) -> str:
    """Return ``size`` bytes as megabytes."""
    return f"{size / 1e6:.{places}f} MB"


def gigabytes(size: int, places: int = 1) -> str:
    """Return ``size`` bytes as gigabytes."""
    return f"{size / 1e9:.{places}f} GB"


def size_text(size: int) -> str:
    """Return ``size`` bytes as text in GB, or in MB below one GB."""
    return gigabytes(size) if size >= _GIGABYTE else megabytes(size)


def counted(number: int, what: str) -> str:
    """Return ``1 node`` or ``2 nodes``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
