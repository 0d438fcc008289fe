"""Reads Apptainer's output about keys and signatures, and decides what it proves.

Apptainer signs with OpenPGP. A signature covers a group of data objects: it contains digests of
them, of their entries in the table, and of the SIF's header. ``apptainer verify`` demands a valid
signature of every group, and no object outside a group (``pkg/integrity`` in apptainer/sif).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sifline.errors import MissingError, StepFailed, UsageError
from sifline.machine.process import Result

# Lengths of fingerprints in hexadecimal digits: OpenPGP versions 4 and 6.
_WHOLE = (40, 64)
# Least number of last digits that identify a key in a keyring.
_ENOUGH = 8
# A shorter number is an index in the list of keys.
_INDEX_DIGITS = 3

_KEY = re.compile(r"^\s*(\d+)\)\s+(?:User|U):\s*(.*?)\s*$")
_FINGERPRINT = re.compile(r"^\s*(?:Fingerprint|F):\s*([0-9A-Fa-f]+)\s*$")
_ROW = re.compile(r"^(\d+)\s*\|(\d+|NONE)\s*\|(\d+|NONE)\s*(\(G\))?\s*\|[^|]*\|(.*)$")
_PROMPT = "Enter key passphrase"
_FATAL = re.compile(r"^.*?(?:FATAL|ERROR).*?:\s+(.*)$")
_BEFORE_REASON = re.compile(r"^Failed to \w+ container: (?:integrity: )?")
_STRANGER = "unknown entity"
# Format of signatures made with a key file (PEM).
_KEY_FILE = "DSSE envelope"
_SIGNATURE = "Signature"
# Part of the message if a signature does not match; otherwise verification did not get that far.
_PROVED = "container: integrity: "


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key of a keyring; ``index`` is its position in Apptainer's list, from 0."""

    index: int
    fingerprint: str
    name: str

    def __str__(self) -> str:
        return f"{self.fingerprint} ({self.name})"


@dataclass(frozen=True, kw_only=True)
class DataObject:
    """A data object of a SIF: its number, and Apptainer's name for its type."""

    id: int
    kind: str


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A valid signature, its key, and the numbers of the objects that it covers.

    ``local``: the key is in the keyring; otherwise a key server had it.
    """

    id: int
    fingerprint: str
    name: str
    local: bool
    objects: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A SIF whose every object has a valid signature."""

    path: Path
    objects: tuple[DataObject, ...]
    signatures: tuple[Signature, ...]

    @property
    def signers(self) -> tuple[str, ...]:
        """Return the fingerprints of the keys that signed the whole file."""
        covered = dict[str, set[int]]()
        for item in self.signatures:
            covered.setdefault(item.fingerprint, set()).update(item.objects)
        everything = {item.id for item in self.objects}
        return tuple(key for key, objects in covered.items() if objects >= everything)


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A signed SIF; ``reused``: it had a signature of this key already."""

    path: Path
    sha256: str
    size: int
    fingerprint: str
    name: str
    reused: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of Apptainer's table of a SIF; ``link`` is the group that a signature covers."""

    id: int
    group: int
    link: int
    kind: str


def keys(printed: str) -> tuple[Key, ...]:
    """Parse the output of ``apptainer key list``; the first of a key's names is used."""
    found, index, name = list[Key](), -1, ""
    for line in printed.splitlines():
        if match := _KEY.match(line):
            if int(match[1]) != index:
                index, name = int(match[1]), match[2]
        elif (match := _FINGERPRINT.match(line)) and index == len(found):
            found.append(Key(index=index, fingerprint=match[1].upper(), name=name))
    return tuple(found)


def choose(held: Sequence[Key], wanted: str, keyring: Path) -> Key:
    """Return the key to sign with: the given one, or the only one.

    :param wanted: a fingerprint, its last digits, or an index of ``apptainer key list --secret``.
    :raises MissingError: if the keyring contains no private key.
    :raises UsageError: if ``wanted`` matches no key, or several.
    """
    if not held:
        raise MissingError(
            f"no private key in {keyring}; make one with invoke keys -- newpair, or import one"
            " with invoke keys -- import FILE"
        )
    listed = ", ".join(map(str, held))
    if not wanted:
        if len(held) > 1:
            raise UsageError(f"which key? Say --key FINGERPRINT, one of: {listed}")
        return held[0]
    if wanted.isdecimal() and len(wanted) <= _INDEX_DIGITS:
        found = [key for key in held if key.index == int(wanted)]
    else:
        digits = _digits(wanted)
        if len(digits) < _ENOUGH:
            raise UsageError(f"--key {wanted}: takes a fingerprint, or at least its last 8 digits")
        found = [key for key in held if key.fingerprint.endswith(digits)]
    if len(found) != 1:
        raise UsageError(f"--key {wanted}: fits {len(found)} private keys of {listed}")
    return found[0]


def fingerprint(text: str) -> str:
    """Return a whole fingerprint in Apptainer's notation; a part of one can be forged.

    :raises UsageError: if it is not a fingerprint.
    """
    digits = _digits(text)
    if len(digits) not in _WHOLE:
        raise UsageError(
            f"--key {text}: takes a whole fingerprint, 40 hexadecimal digits; invoke keys -- list"
            " prints those of the keyring"
        )
    return digits


def rows(printed: str) -> tuple[Row, ...]:
    """Parse the output of ``apptainer sif list``."""
    matches = filter(None, map(_ROW.match, printed.splitlines()))
    return tuple(
        Row(
            id=int(row[1]),
            group=_number(row[2]),
            # Without the mark it is the number of an object: an old kind of signature.
            link=_number(row[3]) if row[4] else 0,
            kind=row[5].strip(),
        )
        for row in matches
    )


def verified(path: Path, printed: str, table: Sequence[Row]) -> Verified:
    """Return what a successful ``apptainer verify --json`` proved about a SIF with that table.

    The output has an entry for each object of each signature, group by group, but names neither;
    both follow from the table.

    :raises StepFailed: if output and table do not match.
    """
    try:
        entries = [item["Signer"] for item in json.loads(printed)["SignerKeys"] or ()]
        found = list[Signature]()
        for group in sorted({row.group for row in table if row.group}):
            objects = tuple(row.id for row in table if row.group == group)
            for row in table:
                if row.link == group:
                    mine, entries = entries[: len(objects)], entries[len(objects) :]
                    found.append(_signature(row.id, objects, mine))
    except (ValueError, KeyError, TypeError):
        raise _strange(path, printed) from None
    covered = {number for item in found for number in item.objects}
    held = {row.id for row in table if not row.kind.startswith(_SIGNATURE)}
    if entries or not found or covered != held:
        raise _strange(path, printed)
    return Verified(
        path=path,
        objects=tuple(DataObject(id=row.id, kind=row.kind) for row in table if row.id in held),
        signatures=tuple(found),
    )


def refusal(path: Path, result: Result, claimed: Sequence[str], keyring: Path) -> StepFailed:
    """Return the error for a SIF that failed ``apptainer verify``: the signer, or the damage.

    :param claimed: the unverified fingerprints in its signatures.
    """
    why = reason(result)
    if _STRANGER in why:
        return StepFailed(
            f"{path}: is signed by a key that is not in {keyring}: it names"
            f" {', '.join(dict.fromkeys(claimed))}; get that public key from its owner, and run"
            " invoke keys -- import FILE",
            details=result.tail(),
        )
    if _KEY_FILE in why:
        return StepFailed(
            f"{path}: carries a signature of a key file, which no keyring holds; run"
            f" apptainer verify --key PUBLIC.pem {shlex.quote(str(path))}"
        )
    if _PROVED not in result.stderr:
        return StepFailed(f"{path}: cannot be verified: {why}", details=result.tail())
    return StepFailed(
        f"{path}: is not what was signed: {why}; copy it again, or convert and sign it again",
        details=result.tail(),
    )


def demand(found: Verified, wanted: Sequence[str]) -> None:
    """Check that one of the ``wanted`` fingerprints signed the whole SIF.

    :raises StepFailed: naming the actual signers.
    """
    allowed = [fingerprint(text) for text in wanted]
    if not allowed or set(allowed) & set(found.signers):
        return
    names = {item.fingerprint: item.name for item in found.signatures}
    by = ", ".join(f"{key} ({name})" for key, name in names.items())
    raise StepFailed(
        f"{found.path}: is signed by {by}, and not as a whole by {' or '.join(allowed)};"
        " do not use it, or name a --key that you trust"
    )


def needs_passphrase(result: Result) -> bool:
    """Return whether signing failed because of a wrong passphrase."""
    return not result.ok and _PROMPT in result.stdout + result.stderr


def reason(result: Result) -> str:
    """Return Apptainer's own error message."""
    for line in reversed(result.stderr.splitlines()):
        if match := _FATAL.match(line):
            return _BEFORE_REASON.sub("", match[1])
    return f"apptainer ended with status {result.returncode}"


def _signature(number: int, objects: tuple[int, ...], entries: Sequence[Any]) -> Signature:
    """Return the signature for its entries, one per object; ValueError if they differ."""
    made_by = {(item["Fingerprint"].upper(), item["Name"]) for item in entries}
    sound = all(item["KeyCheck"] and item["DataCheck"] for item in entries)
    if not sound or len(made_by) != 1 or len(entries) != len(objects):
        raise ValueError(number)
    ((key, name),) = made_by
    local = all(item["KeyLocal"] for item in entries)
    on_one_line = " ".join(name.split())
    return Signature(id=number, fingerprint=key, name=on_one_line, local=local, objects=objects)


def _digits(text: str) -> str:
    """Return hexadecimal digits without blanks, colons and 0x."""
    digits = re.sub(r"[\s:]", "", text).upper().removeprefix("0X")
    if not re.fullmatch(r"[0-9A-F]+", digits):
        raise UsageError(f"--key {text}: is no fingerprint; see invoke keys -- list --secret")
    return digits


def _number(text: str) -> int:
    return 0 if text == "NONE" else int(text)


def _strange(path: Path, printed: str) -> StepFailed:
    return StepFailed(
        f"{path}: apptainer verify does not say which objects are signed by whom; use another"
        " release of Apptainer",
        details=printed,
    )
