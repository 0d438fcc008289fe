"""Reports on finished images and SIFs, signatures, and SIFs from other sources.

One module, because all of it finds its images and SIF files, and notes missing ones, in one way.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from sifline.config import image_names
from sifline.errors import MissingError, UsageError
from sifline.model import (
    BuiltImage,
    DefinitionFile,
    FetchedImage,
    Image,
    Sif,
    Step,
    Verb,
)
from sifline.pipeline.plans import BUILD, TOOLBOX, Planner
from sifline.pipeline.work import Work

if TYPE_CHECKING:
    from sifline.contents.comparison import Difference
    from sifline.contents.compatibility import Compatibility
    from sifline.contents.sizes import Report
    from sifline.engines.apptainer.signatures import Signed, Verified
    from sifline.machine.passphrase import Passphrase
    from sifline.model import WouldConvert
    from sifline.model.catalog import Version
    from sifline.stages.fetch import Wanted
    from sifline.stages.inventory import Bill
    from sifline.stages.output import Output

SIF_ENDING = ".sif"
# A fingerprint is given in at least that many digits: fewer may be a tag.
LEAST_DIGITS = 6
# Of the digest that tells the SIFs of two sources of the same name apart.
MARK_DIGITS = 8


class Sifs:
    """Reports on images and SIFs, signs SIFs, converts images from other sources."""

    def __init__(self, planner: Planner, work: Work) -> None:
        self._planner = planner
        self._work = work
        self._context, self._show = planner.context, planner.show
        self._options, self._workspace = planner.options, planner.workspace

    def sign(
        self, subjects: Sequence[str | Path], *, key: str, passphrase: Passphrase | None
    ) -> tuple[Signed, ...]:
        """Sign the SIFs of images, converted first if out of date, or SIF files."""
        from sifline.stages import sign

        names = [item for item in subjects if isinstance(item, str)]
        titles = (item if isinstance(item, str) else item.stem for item in subjects)
        self._show.expect(dict.fromkeys(f"sign {title}" for title in titles))
        made = {sif.name: sif.path for sif in self._work.convert(names)} if names else {}
        done = []
        for item in subjects:
            path = made[item] if isinstance(item, str) else item
            with self._show.step(f"sign {path.stem}"):
                done.append(sign.sign(path, self._context, key=key, passphrase=passphrase))
        return tuple(done)

    def verify_signature(
        self, subjects: Sequence[str | Path], *, signers: Sequence[str], online: bool
    ) -> tuple[Verified, ...]:
        """Return who signed the SIFs of images, as they are now, or SIF files.

        :raises MissingError: for an image that has no SIF yet.
        """
        from sifline.stages import sign

        names = [item for item in subjects if isinstance(item, str)]
        self._planner.known(names)
        for name in names:
            if not self._workspace.sif(name).exists():
                raise _no_sif(name)
        paths = [self._workspace.sif(item) if isinstance(item, str) else item for item in subjects]
        return tuple(
            sign.verify_signature(path, self._context, signers=signers, online=online)
            for path in paths
        )

    def keys(self, words: Sequence[str]) -> int:
        """Run Apptainer's key command on the user's terminal; return its exit status."""
        from sifline.stages import keys

        return keys.manage(words, self._context)

    def info_of(self, files: Sequence[Path]) -> list[dict[str, Any]]:
        """Return the metadata of each SIF file."""
        from sifline.stages import convert

        return [{"sif": convert.info(path, self._context)} for path in files]

    def info(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return the metadata of each image and of its SIF."""
        from sifline.stages import convert

        facts = list[dict[str, Any]]()
        held_images = self._versions(names)
        for name in names:
            image = self._planner.images[name]
            held = next(iter(held_images[name]), None)
            path = self._workspace.sif(name)
            tests, sif_tests = self._planner.testing.states(image, held)
            sif = convert.info(path, self._context) if path.is_file() else None
            # In the order in which people ask for it.
            facts.append(
                {
                    "name": name,
                    "description": image.description,
                    "category": image.category,
                    "size": held.size if held else 0,
                    "sif_size": sif["size"] if sif else 0,
                    "sif_budget": image.sif.budget,
                    "tests": tests,
                    "sif_tests": sif_tests,
                    "image_id": held.image_id if held else "",
                    "fingerprint": held.fingerprint if held else "",
                    "built_on": [*image.parents, *image.bases],
                    "source": str(image.folder.relative_to(self._workspace.root)),
                    "commit": held.commit if held else "",
                    "tag": image.tag,
                    **({"sif": sif} if sif else {}),
                }
            )
        return facts

    def sizes_of(self, files: Sequence[Path]) -> tuple[Report, ...]:
        """Return what takes the space in each SIF file."""
        from sifline.stages import sizes

        done = []
        self._expect("sizes", files)
        for path in files:
            with self._show.step(f"sizes {path}"):
                done.append(sizes.of_sif(path, self._context))
        return tuple(done)

    def sizes(self, names: Sequence[str]) -> tuple[Report, ...]:
        """Return what takes the space in each image of the engine, and the size of its SIF."""
        from sifline.stages import convert, sizes

        held_images = self._versions(names)
        built = [held_images[name][0] for name in names if held_images[name]]
        missing = [name for name in names if not held_images[name]]
        if missing and not built:
            raise _not_held(missing[0])
        done = []
        self._expect("sizes", (item.image.name for item in built))
        for item in built:
            name = item.image.name
            with self._show.step(f"sizes {name}"):
                path, size, notes = self._workspace.sif(name), None, []
                if path.is_file():
                    size = path.stat().st_size
                    why = convert.stale(name, item, self._workspace)
                    notes = [f"{why}; run invoke convert.{name}"] if why else []
                done.append(sizes.of_image(item, self._context, sif_size=size, notes=notes))
        for name in missing:
            self._show.line(f"{name} is left out: {_not_held(name).message}")
        return tuple(done)

    def convert_source(self, source: str, name: str, output: Output | None = None) -> Sif:
        """Make a SIF from an image of the engine or a registry, an archive or a definition file.

        :param name: the name of the SIF; "" to derive it from the source.
        :param output: where a copy of the SIF goes.
        """
        from sifline.stages import output as outputs

        title = self._title(source, name, output)
        if self._planner.need_toolbox((Verb.CONVERT,)):
            self._work.build([TOOLBOX])
        with self._show.step(f"convert {title}"):
            wanted, image = self._looked_up(source, name)
            sif = self._fetched(source, wanted, image) if wanted else self._defined(source, image)
            if not output:
                return sif
            new = outputs.place(sif, output, self._context)
            return replace(sif, path=output.path.absolute(), reused=not new)

    def would_convert_source(
        self, source: str, name: str, output: Output | None = None
    ) -> WouldConvert:
        """Return what ``convert_source`` would do; nothing is pulled, built or written."""
        from sifline.model import WouldConvert
        from sifline.stages import convert

        title = self._title(source, name, output)
        steps: tuple[Step, ...] = ()
        if self._planner.need_toolbox((Verb.CONVERT,)):
            done = self._work.dry(BUILD, [TOOLBOX])
            done.check()
            steps = tuple(step for step in done.steps if step.needed)
        with self._show.step(f"look at {title}"):
            wanted, image = self._looked_up(source, name)
        reason = "a definition file is built each time"
        if wanted:
            held = self._held(source, wanted, image)
            reason = convert.stale(image.name, held, self._workspace)
            reason = reason or ("--force" if self._options.force else "")
        path = output.path.absolute() if output else self._workspace.sif(image.name)
        return WouldConvert(source=source, name=image.name, path=path, reason=reason, steps=steps)

    def _title(self, source: str, name: str, output: Output | None) -> str:
        """Return how progress calls a conversion; what is wrong with it is said first."""
        from sifline.stages import convert, fetch
        from sifline.stages import output as outputs

        if output:
            outputs.check(output, self._workspace)
        known = fetch.is_image(source)
        if not known and not source.endswith(convert.DEFINITIONS):
            raise UsageError(f"--source {source!r}: takes {fetch.FORMS}")
        if not known and not Path(source).is_file():
            raise UsageError(f"--source {source}: there is no such file")
        fetch.check(source)
        return output.name if output and not name else self._free(name or fetch.name_of(source))

    def _looked_up(self, source: str, name: str) -> tuple[Wanted | None, Image]:
        """Return the image of a source (None: a definition file), and the settings of its SIF."""
        from sifline.stages import discover, fetch

        offline = self._planner.site.offline
        known = fetch.is_image(source)
        wanted = fetch.find(source, self._context, offline=offline) if known else None
        image = discover.foreign(
            name or self._named(source, wanted),
            self._workspace,
            self._planner.site,
            self._options.conversion,
        )
        return wanted, image

    def _defined(self, source: str, image: Image) -> Sif:
        from sifline.stages import convert

        file = Path(source).absolute()
        definition = DefinitionFile(image=image, file=file, commit=self._planner.commit)
        network = not self._planner.site.offline
        return self._work.told(convert.convert(definition, self._context, network=network))

    def _named(self, source: str, wanted: Wanted | None) -> str:
        """Return the name of the SIF of a source; it never replaces that of another source."""
        from sifline.stages import convert, fetch

        name, origin = fetch.name_of(source), fetch.origin_of(source)
        image_id = wanted.image_id if wanted else ""
        if image_names.is_name(name) and name not in self._planner.images:
            if convert.takes(name, self._workspace, origin=origin, image_id=image_id):
                return name
        else:
            name = name if name in self._planner.images else "source"
        mark = hashlib.sha256(os.fsencode(origin)).hexdigest()[:MARK_DIGITS]
        return f"{name[: image_names.MAX_NAME - MARK_DIGITS - 1].rstrip('.-')}-{mark}"

    def _fetched(self, source: str, wanted: Wanted, image: Image) -> Sif:
        from sifline.stages import convert, fetch

        held = self._held(source, wanted, image)
        stale = convert.stale(image.name, held, self._workspace)
        if not stale and not self._options.force:
            fetch.sweep(image.name, self._context)
            return convert.settled(image, self._workspace)
        with fetch.fetched(wanted, image.name, self._context) as size:
            return self._work.told(
                convert.convert(replace(held, size=size), self._context, force=self._options.force)
            )

    def _held(self, source: str, wanted: Wanted, image: Image) -> FetchedImage:
        from sifline.stages import fetch

        return FetchedImage(
            image=image,
            image_id=wanted.image_id,
            size=0,  # that of an image that is not pulled yet is unknown
            source=wanted.source,
            origin=fetch.origin_of(source),
        )

    def _free(self, name: str) -> str:
        """Return ``name`` if it is a valid SIF name that no image of images/ has."""
        if not image_names.is_name(name):
            raise UsageError(f"{name!r} is not a SIF name; give --sif-name: {image_names.RULE}")
        if name in self._planner.images:
            raise UsageError(f"{name} is an image of images/; give --sif-name another name")
        return name

    def sbom(
        self, subjects: Sequence[str | Path], *, sif: bool, target: Path | None
    ) -> tuple[Bill, ...]:
        """Write the bill of materials of images in the engine, or of SIF files.

        :param sif: use the images' SIFs instead.
        """
        from sifline.stages import inventory

        if target and len(subjects) != 1 and not target.is_dir():
            raise UsageError(
                f"--output {target}: takes one bill; name one image or SIF, or a folder that is"
                " there"
            )
        done, found = [], self._subjects(subjects, sif=sif)
        self._expect("sbom", (item for item, _ in found))
        for item, subject in found:
            with self._show.step(f"sbom {item}"):
                done.append(inventory.write_sbom(subject, self._context, target=target))
        return tuple(done)

    def compat(
        self, subjects: Sequence[str | Path], *, sif: bool
    ) -> tuple[tuple[str, Compatibility], ...]:
        """Return what images in the engine, or SIF files, need of hosts and clusters.

        :param sif: use the images' SIFs instead.
        """
        from sifline.stages import inventory

        done, found = [], self._subjects(subjects, sif=sif)
        self._expect("compat", (item for item, _ in found))
        for item, subject in found:
            with self._show.step(f"compat {item}"):
                name = item.stem if isinstance(item, Path) else item
                done.append((name, inventory.needs(subject, self._context)))
        return tuple(done)

    def _expect(self, verb: str, items: Iterable[object]) -> None:
        """Announce a step for each of several things; how long they take is not known."""
        self._show.expect(dict.fromkeys(f"{verb} {item}" for item in items))

    def _versions(self, names: Sequence[str]) -> Mapping[str, Sequence[BuiltImage]]:
        """Return the versions of each image in the engine, the current one first."""
        look = self._planner.look(self._planner.known(names))
        return self._planner.held(names, look).images

    def _subjects(
        self, subjects: Sequence[str | Path], *, sif: bool
    ) -> tuple[tuple[str | Path, BuiltImage | Path], ...]:
        """Return SIF files as they are, and for each name its image or its SIF.

        Reports build nothing: an image that is missing is skipped, with a line that says so.
        """
        names = [item for item in subjects if isinstance(item, str)]
        if sif and len(names) < len(subjects):
            raise UsageError("--sif is for images: a SIF file is a SIF in any case")
        there: dict[str, BuiltImage | Path] = {}
        missing: dict[str, MissingError] = {}
        held_images = self._versions(names) if names else {}
        for name in self._planner.known(names):
            path = self._workspace.sif(name)
            if sif and path.is_file():
                there[name] = path
                self._note_stale(name, held_images[name])
            elif not sif and held_images[name]:
                there[name] = held_images[name][0]
            else:
                missing[name] = _no_sif(name) if sif else _not_held(name)
        if missing and len(missing) == len(subjects):
            raise next(iter(missing.values()))
        for name, why in missing.items():
            self._show.line(f"{name} is left out: {why.message}")
        return tuple(
            (item, there[item] if isinstance(item, str) else item)
            for item in subjects
            if item not in missing
        )

    def _note_stale(self, name: str, held: Sequence[BuiltImage]) -> None:
        """Print a line if the SIF was not made from the current image."""
        from sifline.stages import convert

        why = convert.stale(name, held[0], self._workspace) if held else ""
        if why:
            self._show.line(f"{name}: {why}; run invoke convert.{name}")

    def diff(self, name: str, *, against: str) -> Difference:
        """Compare an image in the engine with an older version, or with another image.

        :param against: a version's fingerprint, or its beginning; a SIF file; an image of
            images/; any image of the engine; "" for the previous version.
        """
        held = self._versions([name])[name]
        if not held:
            raise _not_held(name)
        other = _other(name, against, held)
        if other == against and against in self._planner.images:
            return self._difference(self._at_hand(against), held[0])
        return self._difference(other, held[0])

    def diff_deployed(self, name: str, deployed: Version, path: PurePosixPath) -> Difference:
        """Compare the image in the engine with the version of it that is deployed at ``path``.

        :raises MissingError: if this machine no longer has that version.
        """
        from sifline.contents import sif_records

        held = self._versions([name])[name]
        if not held:
            raise _not_held(name)
        mark = deployed.fingerprint
        for item in held:
            if mark and item.fingerprint == mark:
                return self._difference(item, held[0])
        sif, record = self._workspace.sif(name), sif_records.read(name, self._workspace)
        known = sif_records.current(sif, record) if record and sif.is_file() else None
        if known and known["sha256"] == deployed.sha256:
            return self._difference(sif, held[0])
        raise MissingError(
            f"the packages of {name} {deployed.sha256[:12]} are not known here: the engine and"
            f" build/sif no longer have that version; copy {path} from a node and run:"
            " invoke diff OLD.sif NEW.sif"
        )

    def _at_hand(self, name: str) -> BuiltImage:
        """Return the current version of an image in the engine.

        :raises MissingError: if the engine holds none.
        """
        held = self._versions([name])[name]
        if not held:
            raise _not_held(name)
        return held[0]

    def diff_of(self, files: Sequence[Path]) -> Difference:
        """Compare two SIF files, the older one first."""
        old, new = files
        return self._difference(old, new)

    def _difference(self, old: Path | BuiltImage | str, new: Path | BuiltImage) -> Difference:
        from sifline.stages import inventory

        with self._show.step("diff"):
            return inventory.diff(old, new, self._context)


def _not_held(name: str) -> MissingError:
    return MissingError(f"the engine holds no {name} yet; run invoke build.{name}")


def _no_sif(name: str) -> MissingError:
    return MissingError(f"there is no SIF of {name} yet; run invoke convert.{name}")


def _other(name: str, against: str, held: Sequence[BuiltImage]) -> Path | BuiltImage | str:
    """Return what ``held[0]`` is compared with."""
    if against.endswith(SIF_ENDING):
        return Path(against)
    if not against and len(held) < 2:  # noqa: PLR2004 - one and the one before
        raise UsageError(
            f"the engine holds one version of {name}; say with --against what to compare it with:"
            " FILE.sif, or an image of the engine"
        )
    if not against:
        return held[1]
    digits = len(against) >= LEAST_DIGITS
    found = [item for item in held if digits and item.fingerprint.startswith(against)]
    if len(found) > 1:
        raise UsageError(f"--against {against}: matches {len(found)} versions; write more of it")
    return found[0] if found else against
