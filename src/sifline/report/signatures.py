"""Signatures of SIFs, as tables and as values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sifline.engines.apptainer.signatures import Signature, Signed, Verified
from sifline.report.tables import short, table


def signed(items: Sequence[Signed]) -> str:
    """Return which SIFs were signed, and with which key."""
    rows = [
        (
            item.path.name,
            "signed before" if item.reused else "signed",
            short(item.sha256),
            item.fingerprint,
            item.name,
        )
        for item in items
    ]
    return table(("sif", "state", "sha256", "key", "signer"), rows)


def verified(items: Sequence[Verified]) -> str:
    """Return the signatures of each SIF: signer, and the signed objects."""
    rows = [
        (
            item.path.name,
            made.fingerprint,
            "keyring" if made.local else "key server",
            _objects(item, made),
            made.name,
        )
        for item in items
        for made in item.signatures
    ]
    return table(("sif", "key", "key from", "objects", "signer"), rows)


def document(items: Sequence[Verified]) -> list[dict[str, Any]]:
    """Return the same as values for JSON; ``signers`` are the keys that signed a whole file."""
    return [
        {
            "path": str(item.path),
            "signers": list(item.signers),
            "objects": [asdict(held) for held in item.objects],
            "signatures": [
                {**asdict(made), "objects": list(made.objects)} for made in item.signatures
            ],
        }
        for item in items
    ]


def _objects(item: Verified, made: Signature) -> str:
    if set(made.objects) == {held.id for held in item.objects}:
        return f"all {len(made.objects)}"
    return ", ".join(map(str, made.objects))
