from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sifline.engines.apptainer import signatures
from sifline.engines.apptainer.signatures import DataObject, Key, Row, Signature, Signed, Verified
from sifline.errors import MissingError, StepFailed, UsageError
from sifline.machine.process import Result
from sifline.report import signatures as report
from sifline.report import tables
from sifline.stages import sign
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer

SIF, RING = Path("/x/a.sif"), Path("/home/u/.apptainer/keys")
ADA, BOB = "AD" * 20, "B0" * 20

# As Apptainer 1.4.5 prints it; singularity and Apptainer's own questions use the short words.
LISTED = f"""Private key listing (/keys/pgp-secret):

0)  User:              Ada L (work) <ada@example.org>
    Creation time:     2026-11-25 03:52:52 +0000 UTC
    Fingerprint:       {ADA}
    Length (in bits):  2048

1) U: Bob () <bob@example.org>
   C: 2026-11-25 03:53:17 +0000 UTC
   F: {BOB.lower()}
   L: 2048
"""
TABLE = """------------------------------------------------------------------------------
ID   |GROUP   |LINK    |SIF POSITION (start-end)  |TYPE
------------------------------------------------------------------------------
1    |1       |NONE    |32176-32459               |Def.FILE
2    |1       |NONE    |40960-1138688             |FS (Squashfs/*System/amd64)
3    |NONE    |1   (G) |1138688-1140207           |Signature (SHA-256)
"""
HELD = (
    Key(index=0, fingerprint=ADA, name="Ada"),
    Key(index=1, fingerprint=BOB, name="Bob"),
)


def entries(*signers: str, **said: object) -> str:
    """What apptainer verify --json prints: an entry for each object of each signature."""
    made = [
        {
            "Signer": {
                "Partition": "FS",
                "Name": f"name of {signer}",
                "Fingerprint": signer.lower(),
                "KeyLocal": True,
                "KeyCheck": True,
                "DataCheck": True,
                **said,
            }
        }
        for signer in signers
    ]
    return json.dumps({"Signatures": len(signers), "SignerKeys": made or None})


def row(number: int, *, group: int = 0, link: int = 0) -> Row:
    return Row(id=number, group=group, link=link, kind="Signature" if link else "Generic/Raw")


def refused(said: str) -> Result:
    return answer(stderr=f"INFO:    Verifying\nFATAL:   {said}\n", returncode=255)


def test_keys_are_read_in_both_styles_of_the_list() -> None:
    assert signatures.keys(LISTED) == (
        Key(index=0, fingerprint=ADA, name="Ada L (work) <ada@example.org>"),
        Key(index=1, fingerprint=BOB, name="Bob () <bob@example.org>"),
    )


def test_key_of_several_names_is_one_key() -> None:
    twice = LISTED.replace("    Creation", "0)  User:  Ada at home\n    Creation", 1)
    assert [key.name for key in signatures.keys(twice)] == [
        "Ada L (work) <ada@example.org>",
        "Bob () <bob@example.org>",
    ]


def test_empty_keyring_has_no_keys() -> None:
    assert signatures.keys("Private key listing (/keys/pgp-secret):\n\n") == ()


@pytest.mark.parametrize(
    "wanted", [BOB, BOB.lower(), f"0x{BOB}", BOB[-8:], " ".join([BOB[:20], BOB[20:]]), "1"]
)
def test_key_is_found_by_what_people_write(wanted: str) -> None:
    assert signatures.choose(HELD, wanted, RING) == HELD[1]


def test_only_key_needs_no_name() -> None:
    assert signatures.choose(HELD[:1], "", RING) == HELD[0]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("", "which key"),
        ("CC" * 20, "fits 0 private keys"),
        ("7", "fits 0 private keys"),
        ("B0B0", "at least its last 8 digits"),
        ("bob@example.org", "is no fingerprint"),
    ],
)
def test_no_other_key_is_taken(wanted: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        signatures.choose(HELD, wanted, RING)


def test_end_of_two_fingerprints_is_refused() -> None:
    alike = (HELD[0], Key(index=1, fingerprint="CC" * 10 + "AD" * 10, name="Cy"))
    with pytest.raises(UsageError, match="fits 2 private keys"):
        signatures.choose(alike, "AD" * 10, RING)


def test_keyring_without_private_key_says_how_to_make_one() -> None:
    with pytest.raises(MissingError, match="invoke keys -- newpair"):
        signatures.choose((), "", RING)


@pytest.mark.parametrize("part", [ADA[-16:], ADA[:-1], "x" * 40, ""])
def test_signer_is_demanded_by_a_whole_fingerprint_alone(part: str) -> None:
    with pytest.raises(UsageError):
        signatures.fingerprint(part)


def test_table_of_a_sif_is_read() -> None:
    assert signatures.rows(TABLE) == (
        Row(id=1, group=1, link=0, kind="Def.FILE"),
        Row(id=2, group=1, link=0, kind="FS (Squashfs/*System/amd64)"),
        Row(id=3, group=0, link=1, kind="Signature (SHA-256)"),
    )


def test_signature_is_of_the_objects_of_its_group() -> None:
    found = signatures.verified(SIF, entries(ADA, ADA), signatures.rows(TABLE))
    assert found.objects == (
        DataObject(id=1, kind="Def.FILE"),
        DataObject(id=2, kind="FS (Squashfs/*System/amd64)"),
    )
    assert found.signatures == (
        Signature(id=3, fingerprint=ADA, name=f"name of {ADA}", local=True, objects=(1, 2)),
    )
    assert found.signers == (ADA,)


def test_each_of_two_signers_of_everything_is_one() -> None:
    table = (*signatures.rows(TABLE), row(4, link=1))
    found = signatures.verified(SIF, entries(ADA, ADA, BOB, BOB), table)
    assert found.signers == (ADA, BOB)


def test_who_signed_one_group_did_not_sign_the_other() -> None:
    table = (*signatures.rows(TABLE), row(4, group=2), row(5, link=2))
    found = signatures.verified(SIF, entries(ADA, ADA, BOB), table)
    assert [(item.fingerprint, item.objects) for item in found.signatures] == [
        (ADA, (1, 2)),
        (BOB, (4,)),
    ]
    assert found.signers == ()


def test_groups_are_taken_in_the_order_of_their_numbers() -> None:
    table = (row(1, group=2), row(2, group=1), row(3, link=2), row(4, link=1))
    found = signatures.verified(SIF, entries(ADA, BOB), table)
    assert [(item.id, item.fingerprint) for item in found.signatures] == [(4, ADA), (3, BOB)]


@pytest.mark.parametrize(
    ("printed", "table"),
    [
        ("no json", signatures.rows(TABLE)),
        ("[]", signatures.rows(TABLE)),
        (entries(), signatures.rows(TABLE)),
        (entries(ADA), signatures.rows(TABLE)),
        (entries(ADA, BOB), signatures.rows(TABLE)),
        (entries(ADA, ADA, ADA), signatures.rows(TABLE)),
        (entries(ADA, ADA, DataCheck=False), signatures.rows(TABLE)),
        (entries(ADA, ADA, KeyCheck=False), signatures.rows(TABLE)),
        (entries(ADA, ADA), (*signatures.rows(TABLE), row(4))),
        (entries(), ()),
    ],
    ids=[
        *("no-json", "other-json", "nobody", "too-few", "two-signers", "too-many"),
        *("bad-data", "bad-key", "object-without-group", "empty-table"),
    ],
)
def test_what_does_not_fit_the_table_proves_nothing(printed: str, table: tuple[Row, ...]) -> None:
    with pytest.raises(StepFailed, match="does not say which objects are signed by whom"):
        signatures.verified(SIF, printed, table)


def test_unknown_key_is_named_with_the_way_to_get_it() -> None:
    said = "Failed to verify container: integrity: signature object 5 not valid: openpgp:"
    error = signatures.refusal(
        SIF,
        refused(f"{said} signature made by unknown entity"),
        [BOB, BOB],
        RING,
    )
    assert error.message == (
        f"{SIF}: is signed by a key that is not in {RING}: it names {BOB}; get that public key"
        " from its owner, and run invoke keys -- import FILE"
    )
    assert error.exit_code == 1


@pytest.mark.parametrize(
    "why",
    [
        "data object integrity compromised: 4",
        "header integrity compromised",
        "object 6: object not signed",
        "signature object 5 not valid: openpgp: invalid signature: RSA verification failure",
        "non-signature object not associated with object group",
    ],
)
def test_damage_is_told_in_apptainers_words(why: str) -> None:
    result = refused(f"Failed to verify container: integrity: {why}")
    error = signatures.refusal(SIF, result, [ADA], RING)
    assert error.message.startswith(f"{SIF}: is not what was signed: {why}; ")


def test_signature_of_a_key_file_is_apptainers_business() -> None:
    said = "Failed to verify container: integrity: key material not provided for DSSE envelope"
    error = signatures.refusal(SIF, refused(f"{said} signature"), ["0" * 40], RING)
    assert error.message.endswith("run apptainer verify --key PUBLIC.pem /x/a.sif")


def test_apptainer_that_could_not_look_is_no_damage() -> None:
    result = refused("Failed to verify container: open /keys/pgp-public: permission denied")
    error = signatures.refusal(SIF, result, [ADA], RING)
    assert error.message == (
        f"{SIF}: cannot be verified: open /keys/pgp-public: permission denied"
    )


def made(**changes: tuple[int, ...]) -> Verified:
    return Verified(
        path=SIF,
        objects=(DataObject(id=1, kind="Def.FILE"), DataObject(id=2, kind="FS")),
        signatures=tuple(
            Signature(id=3, fingerprint=key, name="N", local=True, objects=objects)
            for key, objects in changes.items()
        ),
    )


def test_one_of_the_demanded_signers_is_enough() -> None:
    found = made(**{ADA: (1, 2)})
    signatures.demand(found, [BOB, ADA.lower()])  # raises nothing
    with pytest.raises(StepFailed):
        signatures.demand(found, [BOB])


def test_nobody_demanded_anybody_will_do() -> None:
    found = made(**{ADA: (1,)})
    signatures.demand(found, [])  # raises nothing
    with pytest.raises(StepFailed):
        signatures.demand(found, [BOB])


@pytest.mark.parametrize(
    "found", [{BOB: (1, 2)}, {ADA: (1,), BOB: (2,)}], ids=["another", "a-part"]
)
def test_demanded_signer_has_to_have_signed_all(found: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(StepFailed, match=f"not as a whole by {ADA}"):
        signatures.demand(made(**found), [ADA])


@pytest.mark.parametrize(
    ("result", "needed"),
    [
        (answer("Enter key passphrase : \n", stderr="FATAL:   no", returncode=255), True),
        (answer("Enter key passphrase : \n"), False),
        (answer(stderr="FATAL:   Failed to sign container: index", returncode=255), False),
    ],
)
def test_passphrase_is_needed_where_apptainer_asked_and_failed(
    result: Result, needed: bool
) -> None:
    assert signatures.needs_passphrase(result) == needed


@pytest.mark.parametrize(
    ("stderr", "why"),
    [
        ("FATAL:   Failed to sign container: index out of range\n", "index out of range"),
        ("ERROR:   key import command failed: no\nmore\n", "key import command failed: no"),
        ("", "apptainer ended with status 255"),
    ],
)
def test_reason_is_the_last_word_of_apptainer(stderr: str, why: str) -> None:
    assert signatures.reason(answer(stderr=stderr, returncode=255)) == why


def test_table_of_what_was_signed() -> None:
    done = Signed(path=SIF, sha256="ab" * 32, size=1, fingerprint=ADA, name="Ada", reused=True)
    assert report.signed([done]).splitlines()[1].split() == [
        *("a.sif", "signed", "before", "abababababab", ADA, "Ada")
    ]


def test_document_says_who_signed_all() -> None:
    (found,) = report.document([made(**{ADA: (1, 2), BOB: (2,)})])
    assert found["signers"] == [ADA]
    assert [item["fingerprint"] for item in found["signatures"]] == [ADA, BOB]
    assert json.loads(tables.dump(**found)) == {"schema": 1, **found}


def test_a_valid_signature_is_said_to_be_valid_with_the_whole_key() -> None:
    text = report.verified([made(**{ADA: (1, 2), BOB: (2,)}), made(**{ADA: (1, 2)})])

    assert text.splitlines() == [
        "a.sif: the 2 signatures are valid",
        *("  signer:  N", f"  key:     {ADA} (from your keyring)", "  objects: all 2"),
        *("  signer:  N", f"  key:     {BOB} (from your keyring)", "  objects: 2"),
        "",
        "a.sif: the signature is valid",
        *("  signer:  N", f"  key:     {ADA} (from your keyring)", "  objects: all 2"),
    ]


def test_a_pipe_has_no_signature_and_nobody_waits_for_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.sif"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match=r"pipe\.sif: is no ordinary file"):
        sign.verify_signature(pipe, context_of(tmp_path, RecordingRunner(tools={"apptainer"})))
