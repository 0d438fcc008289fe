"""Signatures of SIFs, as tables and as values for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from sifline.engines.apptainer.signatures import Signature, Signed, Verified
from sifline.report.tables import fitting, short, table


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
    """Return that the signatures of each SIF are valid: signer, key, and the signed objects."""
    return "\n\n".join(fitting([*_verified(item)]) for item in items)


def _verified(item: Verified) -> Iterator[str]:
    many = len(item.signatures) > 1
    are = f"the {len(item.signatures)} signatures are" if many else "the signature is"
    yield f"{item.path.name}: {are} valid"
    for made in item.signatures:
        source = "your keyring" if made.local else "the key server"
        yield f"  signer:  {made.name}"
        yield f"  key:     {made.fingerprint} (from {source})"
        yield f"  objects: {_objects(item, made)}"


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
