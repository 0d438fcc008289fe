"""Sign: put a signature of one's own key into a SIF, and tell whose signatures one carries.

Apptainer signs in place. So it is given a copy beside the SIF, and that takes the SIF's name once
its signatures were verified: what stands under the name is whole at every moment. One run at a
time works on a file; every other copy beside it is the remains of a killed run, and is removed.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fcntl import ioctl
from pathlib import Path
from typing import IO, Any

from sifline.contents import sif_records
from sifline.contents.build_context import file_digest
from sifline.engines.apptainer import signatures
from sifline.engines.apptainer.keys import Keyring
from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.sif import Sifs
from sifline.engines.apptainer.signatures import Key, Signed, Verified
from sifline.errors import StepFailed, UsageError
from sifline.formats import sif
from sifline.formats.sif import Kind
from sifline.machine import records
from sifline.machine.context import Context
from sifline.machine.passphrase import Passphrase
from sifline.machine.process import CommandFailed, Result
from sifline.model.units import megabytes

# What signatures take, and more; one is 1.5 kB.
RESERVE = 1 << 20
# From linux/fs.h: a second file of the same blocks, where the file system can do that.
FICLONE = 0x40049409
_BLOCK = 64 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK_FULL = "no space left on device"
# Of a SIF's table, what a signature carries: the kind of digest, the fingerprint of the key.
_SIGNER = struct.Struct("<i20s")


def sign(
    path: Path, context: Context, *, key: str = "", passphrase: Passphrase | None = None
) -> Signed:
    """Sign all of the SIF at ``path`` with a key of the user's keyring, unless that is done.

    :param key: a fingerprint, its end, or an index; "" where the keyring holds one private key.
    :param passphrase: called where the key has one, see ``sifline.machine.passphrase``.
    :raises StepFailed: where it fails; the SIF is then what it was.
    :raises MissingError: where there is no private key.
    :raises UsageError: where ``path`` is no SIF, or ``key`` is none, or more than one.
    """
    target = path.resolve()
    sif.read(target)
    apptainer = Apptainer(context.runner)
    keyring = Keyring(apptainer)
    chosen = signatures.choose(keyring.secret_keys(), key, keyring.folder)
    with records.locked(sif_records.lock(target, context.workspace), context):
        return _Signing(target, context, apptainer, chosen, passphrase).run()


def verify_signature(
    path: Path, context: Context, *, signers: Sequence[str] = (), online: bool = False
) -> Verified:
    """Return who signed the SIF at ``path``; every object has to have a valid signature.

    :param signers: whole fingerprints, one of which has to have signed all of it.
    :param online: ask a key server for keys that the keyring does not hold.
    :raises StepFailed: where it is unsigned, signed by an unknown key, damaged, or by another.
    :raises UsageError: where ``path`` is no SIF.
    """
    wanted = [signatures.fingerprint(text) for text in signers]
    found = _verified(path.absolute(), context, Apptainer(context.runner), online=online)
    signatures.demand(found, wanted)
    return found


class _Signing:
    """One file on its way; the caller holds its lock."""

    def __init__(
        self,
        path: Path,
        context: Context,
        apptainer: Apptainer,
        key: Key,
        passphrase: Passphrase | None,
    ) -> None:
        self._path, self._context, self._apptainer = path, context, apptainer
        self._key, self._passphrase = key, passphrase
        self._partial = path.with_name(f".{path.name}.signing-{os.getpid()}")
        self._ours = sif_records.is_ours(path, context.workspace)

    def run(self) -> Signed:
        """Sign, unless the key's signature is there."""
        with self._cleared():
            self._sweep()
            before, record = sif_records.Stamp.of(self._path), self._record()
            if _claims(sif.read(self._path)):
                held = _verified(self._path, self._context, self._apptainer)
                if self._key.fingerprint in held.signers:
                    return self._signed(file_digest(self._path), reused=True)
            self._context.progress("copying the SIF")
            _copy(self._path, self._partial, self._context)
            self._context.progress("signing")
            self._sign()
            self._verify()
            sha256 = self._settle(before, record)
        return self._signed(sha256, reused=False)

    def _record(self) -> dict[str, Any] | None:
        """What is remembered of the file: signing another one would lend it one's name."""
        space = self._context.workspace
        record = sif_records.read(self._path.stem, space) if self._ours else None
        if record is None:
            return None
        known = sif_records.current(self._path, record)
        if known is None:
            image = sif_records.image_of(self._path, space)
            again = f"run invoke convert.{image} first" if image else "convert it again first"
            raise StepFailed(
                f"{self._path}: was altered since it was converted, and is not signed; {again}"
            )
        return known

    def _sign(self) -> None:
        """Sign the copy; the passphrase is asked for only where the key has one."""
        result = self._attempt("")
        if signatures.needs_passphrase(result):
            if self._passphrase is None:
                raise StepFailed(
                    f"the key {self._key} has a passphrase; name where it stands with"
                    " --passphrase-file or --passphrase-env, or sign on a terminal"
                )
            result = self._attempt(self._passphrase())
            if signatures.needs_passphrase(result):
                raise StepFailed(f"that is not the passphrase of the key {self._key}; try again")
        if not result.ok:
            raise _failure(self._path, result)

    def _attempt(self, passphrase: str) -> Result:
        return Keyring(self._apptainer).sign(
            self._partial, self._key, passphrase=passphrase, purpose=str(self._path)
        )

    def _verify(self) -> None:
        """Look at the signed copy as others will."""
        self._context.progress("verifying the signature")
        found = _verified(
            self._partial, self._context, self._apptainer, purpose=str(self._path), name=self._path
        )
        signatures.demand(found, [self._key.fingerprint])

    def _settle(self, before: sif_records.Stamp, record: dict[str, Any] | None) -> str:
        """Put the durable copy in the file's place, and keep what is remembered of it true."""
        original = self._path.stat()
        with self._partial.open("rb") as file:
            os.fchmod(file.fileno(), original.st_mode & 0o7777)
            with suppress(PermissionError):  # only root gives files to others
                os.fchown(file.fileno(), original.st_uid, original.st_gid)
            os.fsync(file.fileno())
        sha256, size = file_digest(self._partial), self._partial.stat().st_size
        change, name = {"sha256": sha256, "size": size}, self._path.stem
        space = self._context.workspace
        if record is not None:
            sif_records.write(name, space, {**record, sif_records.NEXT: change})
        if sif_records.Stamp.of(self._path) != before:
            raise StepFailed(f"{self._path}: was changed while it was signed; sign it again")
        self._partial.replace(self._path)
        records.sync_folder(self._path.parent)
        if record is not None:
            stamp = vars(sif_records.Stamp.of(self._path))
            with suppress(OSError):  # what was announced tells the same
                sif_records.write(name, space, {**record, **change, "stamp": stamp})
        return sha256

    @contextmanager
    def _cleared(self) -> Iterator[None]:
        """No copy is left afterwards, whatever happens."""
        try:
            yield
        except OSError as error:
            full = f"the disk is full; make room in {self._path.parent}"
            raise StepFailed(
                f"signing {self._path} failed:"
                f" {full if error.errno in _FULL else f'{error.filename}: {error.strerror}'}"
            ) from None
        finally:
            self._partial.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what a killed run left, beginning with the container that may still write."""
        if not self._apptainer.native:
            self._apptainer.stop_builds(self._path)
        for left in self._path.parent.iterdir():
            if left.name.startswith(f".{self._path.name}.signing-"):
                left.unlink(missing_ok=True)

    def _signed(self, sha256: str, *, reused: bool) -> Signed:
        return Signed(
            path=self._path,
            sha256=sha256,
            size=self._path.stat().st_size,
            fingerprint=self._key.fingerprint,
            name=self._key.name,
            reused=reused,
        )


def _verified(
    path: Path,
    context: Context,
    apptainer: Apptainer,
    *,
    online: bool = False,
    purpose: str = "",
    name: Path | None = None,
) -> Verified:
    """Return what is proved of ``path``; errors call it ``name``."""
    known = name or path
    claimed = _claims(_read(path))
    if not claimed:
        image = sif_records.image_of(known, context.workspace)
        command = f"sign.{image}" if image else f"sign {shlex.quote(str(known))}"
        raise StepFailed(f"{known}: is not signed; run invoke {command}, or ask who made it")
    keyring = Keyring(apptainer)
    result = keyring.verify(path, online=online, purpose=purpose)
    if not result.ok:
        raise signatures.refusal(known, result, claimed, keyring.folder)
    try:
        table = signatures.rows(Sifs(apptainer).list_objects(path))
    except CommandFailed as error:
        raise _failure(known, error.result) from None
    return signatures.verified(known, result.stdout, table)


def _read(path: Path) -> sif.SifFile:
    """Read a SIF; one that is damaged is no wrong usage here, but what is looked for."""
    try:
        return sif.read(path)
    except UsageError as error:
        # Opening a pipe would wait for somebody who writes to it.
        if path.is_file():
            with suppress(OSError), path.open("rb") as file:
                if sif.MAGIC in file.read(64):
                    raise StepFailed(error.message) from None
        raise


def _claims(file: sif.SifFile) -> list[str]:
    """Return the fingerprints that the signatures of a SIF carry; nobody vouches for them."""
    extras = [item.extra for item in file.objects if item.kind == Kind.SIGNATURE]
    return [_SIGNER.unpack_from(extra)[1].hex().upper() for extra in extras]


def _copy(source: Path, target: Path, context: Context) -> None:
    """Copy ``source`` in the quickest way that the file system has.

    :raises StepFailed: where there is too little room, with the figures.
    """
    with source.open("rb") as held, target.open("xb") as made:
        try:
            ioctl(made.fileno(), FICLONE, held.fileno())
            return
        except OSError:
            pass  # it shares no blocks: another kind of file system, or an old one
        size, free = os.fstat(held.fileno()).st_size, shutil.disk_usage(target.parent).free
        if size + RESERVE > free:
            raise StepFailed(
                f"signing {source} needs {megabytes(size + RESERVE)} free in {source.parent}"
                f" for a copy, and there are {megabytes(free)}; make room there"
            )
        _copy_blocks(held, made, context)
        if made.seek(0, os.SEEK_END) != size:
            raise StepFailed(f"{source}: was changed while it was copied; sign it again")


def _copy_blocks(source: IO[bytes], target: IO[bytes], context: Context) -> None:
    try:
        while os.copy_file_range(source.fileno(), target.fileno(), _BLOCK):
            context.runner.check()
    except OSError as error:
        if error.errno in _FULL:
            raise
        # Old kernels, and some file systems, cannot; what was copied is copied again.
        source.seek(0)
        target.seek(0)
        shutil.copyfileobj(source, target, 1 << 20)


def _failure(path: Path, result: Result) -> StepFailed:
    """Return the error for a command that failed at signing."""
    full = _DISK_FULL in (result.stdout + result.stderr).lower()
    cause = f"the disk is full; make room in {path.parent}" if full else signatures.reason(result)
    return StepFailed(f"signing {path} failed: {cause}", details=result.tail())
