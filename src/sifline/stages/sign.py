"""Sign: adds a signature to a SIF, and verifies signatures.

Apptainer signs in place. So it signs a copy beside the SIF, which is verified and then renamed to
the SIF's name: the file under that name is complete at every moment. One run at a time works on a
file; all other copies beside it were left by a killed run, and are removed.

One module, because a new signature is verified in the same way as any other.
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

# Space for signatures, with a reserve; one takes 1.5 kB.
RESERVE = 1 << 20
# From linux/fs.h: clone a file by sharing its blocks, if the file system can.
FICLONE = 0x40049409
_BLOCK = 64 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK_FULL = "no space left on device"
# Fields of a signature in a SIF's table: the digest type, the key's fingerprint.
_SIGNER = struct.Struct("<i20s")


def sign(
    path: Path, context: Context, *, key: str = "", passphrase: Passphrase | None = None
) -> Signed:
    """Sign all of the SIF at ``path`` with a key of the user's keyring, unless it has done so.

    :param key: a fingerprint, its end, or an index; "" if the keyring has one private key.
    :param passphrase: called if the key has one, see ``sifline.machine.passphrase``.
    :raises StepFailed: if signing fails; the SIF is unchanged then.
    :raises MissingError: if there is no private key.
    :raises UsageError: if ``path`` is not a SIF, or ``key`` matches no key, or several.
    """
    sif.read(path)  # resolve fails if links lead to themselves
    target = path.resolve()
    apptainer = Apptainer(context.runner)
    keyring = Keyring(apptainer)
    chosen = signatures.choose(keyring.secret_keys(), key, keyring.folder)
    lock = sif_records.lock(target, context.workspace)
    with records.locked(lock, context, what=f"the SIF {target.name}"):
        return _Signing(target, context, apptainer, chosen, passphrase).run()


def verify_signature(
    path: Path, context: Context, *, signers: Sequence[str] = (), online: bool = False
) -> Verified:
    """Return who signed the SIF at ``path``; every object must have a valid signature.

    :param signers: whole fingerprints, one of which must have signed the whole SIF.
    :param online: ask a key server for keys that the keyring lacks.
    :raises StepFailed: if it is unsigned, damaged, or signed by an unknown or another key.
    :raises UsageError: if ``path`` is not a SIF.
    """
    wanted = [signatures.fingerprint(text) for text in signers]
    found = _verified(path.absolute(), context, Apptainer(context.runner), online=online)
    signatures.demand(found, wanted)
    return found


class _Signing:
    """Signs one file; the caller holds its lock."""

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
        """Return the record of a SIF of ours; raise an error if the file was altered since."""
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
        """Sign the copy; ask for the passphrase only if the key has one."""
        result = self._attempt("")
        if signatures.needs_passphrase(result):
            if self._passphrase is None:
                raise StepFailed(
                    f"the key {self._key} has a passphrase; give it with"
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
        """Verify the signed copy."""
        self._context.progress("verifying the signature")
        found = _verified(
            self._partial, self._context, self._apptainer, purpose=str(self._path), name=self._path
        )
        signatures.demand(found, [self._key.fingerprint])

    def _settle(self, before: sif_records.Stamp, record: dict[str, Any] | None) -> str:
        """Rename the synced copy to the file's name, and update the record; return the digest."""
        original = self._path.stat()
        with self._partial.open("rb") as file:
            os.fchmod(file.fileno(), original.st_mode & 0o7777)
            with suppress(PermissionError):  # only root may change a file's owner
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
            with suppress(OSError):  # the record written before has the same content
                sif_records.write(name, space, {**record, **change, "stamp": stamp})
        return sha256

    @contextmanager
    def _cleared(self) -> Iterator[None]:
        """Remove the copy in any case."""
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
        """Remove what a killed run left; first its container, which may still write."""
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
    """Return what is proved about ``path``; errors call it ``name``."""
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
    """Read a SIF; here a damaged one is a failed check (status 1), not wrong input."""
    try:
        return sif.read(path)
    except UsageError as error:
        # Opening a pipe would wait for a writer.
        if path.is_file():
            with suppress(OSError), path.open("rb") as file:
                if sif.MAGIC in file.read(64):
                    raise StepFailed(error.message) from None
        raise


def _claims(file: sif.SifFile) -> list[str]:
    """Return the fingerprints in a SIF's signatures, unverified."""
    extras = [item.extra for item in file.objects if item.kind == Kind.SIGNATURE]
    return [_SIGNER.unpack_from(extra)[1].hex().upper() for extra in extras]


def _copy(source: Path, target: Path, context: Context) -> None:
    """Copy ``source`` in the fastest way that the file system supports.

    :raises StepFailed: if there is too little space, with the figures.
    """
    with source.open("rb") as held, target.open("xb") as made:
        try:
            ioctl(made.fileno(), FICLONE, held.fileno())
            return
        except OSError:
            pass  # the file system cannot share blocks
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
        # Not supported by old kernels and some file systems; then copy everything again.
        source.seek(0)
        target.seek(0)
        shutil.copyfileobj(source, target, 1 << 20)


def _failure(path: Path, result: Result) -> StepFailed:
    """Return the error for a command that failed while signing."""
    full = _DISK_FULL in (result.stdout + result.stderr).lower()
    cause = f"the disk is full; make room in {path.parent}" if full else signatures.reason(result)
    return StepFailed(f"signing {path} failed: {cause}", details=result.tail())
