"""The verbs for a shell in an image, for signatures, and for removing what was made."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sifline.config.image_names import refuse_broken
from sifline.errors import UsageError
from sifline.tasks.options import SEEING, options
from sifline.tasks.support import Run, seconds

if TYPE_CHECKING:
    from sifline.model import Cleaned
    from sifline.pipeline import Pipeline


@options(*SEEING)
def shell(
    run: Run,
    pipeline: Pipeline,
    images: Sequence[str | Path],
    *,
    sif: bool = False,
    mount_home: bool = False,
    volume: Sequence[str] = (),
    gpus: str = "",
    workdir: str = "",
    env: Sequence[str] = (),
) -> None:
    """Open a shell in an image or a SIF, or run a command.

    The command follows --. The image is built first if it is out of date; with --sif its SIF is
    made. A SIF file is opened as it is.

        invoke shell.<image>
        invoke shell FILE.sif -- cat /etc/os-release
    """
    from sifline.stages.shell import Asked

    asked = Asked(mount_home=mount_home, volumes=volume, gpus=gpus, workdir=workdir, env=env)
    subject = images[0]
    if isinstance(subject, Path):
        if sif:
            raise UsageError("--sif is for images: a SIF file is a SIF in any case")
        code = pipeline.opener.shell_file(subject, run.command, asked)
    else:
        code = pipeline.opener.shell(subject, run.command, asked, sif=sif)
    run.end(code)


@options(*SEEING)
def sign(
    run: Run,
    pipeline: Pipeline,
    images: Sequence[str | Path],
    *,
    key: str = "",
    passphrase_file: str = "",
    passphrase_env: str = "",
) -> None:
    """Sign a SIF with a key of your keyring.

    The SIF of an image is converted first if it is out of date. Keys are those of Apptainer,
    see `keys`.

        invoke sign.<image>
        invoke sign FILE.sif --passphrase-env KEY_PASSPHRASE
    """
    from getpass import getpass

    from sifline.machine.passphrase import passphrase_of
    from sifline.report import signatures, tables

    def ask() -> str:
        with run.terminal.asking():
            try:
                return getpass("passphrase of the key: ")
            except EOFError:
                raise UsageError("no passphrase was given") from None

    passphrase = passphrase_of(
        file=Path(passphrase_file) if passphrase_file else None,
        variable=passphrase_env,
        ask=ask if sys.stdin.isatty() else None,
    )
    subjects, broken = run.sound(pipeline, images)
    signed = signatures.signed(pipeline.sifs.sign(subjects, key=key, passphrase=passphrase))
    run.print("\n".join([signed, *tables.broken(broken)]))
    refuse_broken(broken)


@options(*SEEING)
def verify_signature(
    run: Run,
    pipeline: Pipeline,
    images: Sequence[str | Path],
    *,
    key: str = "",
    online: bool = False,
    json: bool = False,
) -> None:
    """Print who signed a SIF; fail if it was changed since.

    Builds nothing. Also fails if the SIF is not signed.

        invoke verify-signature.<image>
        invoke verify-signature FILE.sif --json
    """
    from sifline.report import signatures, tables

    found = pipeline.sifs.verify_signature(images, signers=[key] if key else [], online=online)
    run.print(tables.dump(sifs=signatures.document(found)) if json else signatures.verified(found))


@options(*SEEING)
def clean(
    run: Run,
    pipeline: Pipeline,
    images: Sequence[str | Path],
    *,
    docker: bool = False,
    sifs: bool = False,
    state: bool = False,
    older_than: str = "",
    unused: bool = False,
    foreign: bool = False,
    yes: bool = False,
    environments: bool = False,
    json: bool = False,
) -> None:
    """Remove what sifline made of an image, or parts of it.

    Its Docker images, SIFs, and records with logs; with --docker, --sifs or --state these alone.
    Asks first; without a terminal it needs --yes. What another checkout made is kept, unless
    --foreign is given. --all includes the SIFs of convert --source; FILE.sif is one of build/sif.
    --environments is about no image: it removes the environments of scripts/bootstrap and Nox, and
    the caches of linters and tests.

        invoke --dry clean.<image>
        invoke clean --all --unused --older-than 7d --yes
    """
    from sifline.report import images as report
    from sifline.report import tables

    chosen = {"docker": docker, "sifs": sifs, "state": state}
    files, given = _apart(images)
    others = docker or state or bool(older_than) or unused or foreign
    _check_clean(files, environments=environments, sifs=sifs, others=others)
    # It is unknown which versions of a broken image are in use.
    names, broken = run.sound(pipeline, given) if unused else (given, {})
    parts = [part for part, named in chosen.items() if named or not any(chosen.values())]
    age = seconds("older-than", older_than)

    def clean(*, dry: bool) -> Cleaned:
        if environments:
            return pipeline.cleaner.environments(dry=dry)
        if files:
            return pipeline.cleaner.clean_files(files, dry=dry)
        return pipeline.cleaner.clean(
            names,
            parts=parts,
            older_than=age,
            unused=unused,
            foreign=foreign,
            gone=run.over_all,
            dry=dry,
        )

    def show(found: Cleaned, *, dry: bool) -> None:
        text = "\n".join([report.cleaned(found, dry=dry), *tables.broken(broken)])
        values = {**report.cleaned_values(found, dry=dry), "broken": tables.broken_values(broken)}
        run.print(tables.dump(**values) if json else text)
        refuse_broken(broken)

    if run.dry or not yes:
        found = clean(dry=True)
        things = report.sized(found)
        if run.dry or not things:
            show(found, dry=True)
            return
        if not run.agreed("clean", things):
            return
    show(clean(dry=False), dry=False)


def _apart(images: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """Return the SIF files among ``images``, and the names."""
    files = [item for item in images if isinstance(item, Path)]
    return files, [item for item in images if isinstance(item, str)]


def _check_clean(files: Sequence[Path], *, environments: bool, sifs: bool, others: bool) -> None:
    """Refuse flags of ``clean`` that contradict each other.

    :param others: whether there are flags about images besides --sifs.
    """
    if environments and (files or sifs or others):
        raise UsageError("--environments: stands alone; the other flags are about images")
    if files and others:
        raise UsageError("clean FILE.sif: removes that SIF; the flags are --sifs and --yes")
