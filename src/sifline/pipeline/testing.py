"""Which image tests are needed, running them, and recording those that passed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import fields
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sifline.contents.build_context import file_digest
from sifline.errors import UsageError
from sifline.machine import gpus, records
from sifline.machine.context import Context
from sifline.model import NOT_TESTED, BuiltImage, Image, Sif, Step, TestedImage, TestReport, Verb

if TYPE_CHECKING:
    from sifline.stages.imagetest import Promises

RUNTIMES = {Verb.TEST: "docker", Verb.TEST_SIF: "apptainer"}
KINDS = {verb: f"test-{runtime}" for verb, runtime in RUNTIMES.items()}
# What affects the tests' results besides their own files.
HERE, TEST_MEANS = Path(__file__).parents[1] / "imagetests", ("plugin.py", "python.py")
# Why tests are run again, by the part of their key that changed.
RETEST = {
    "tests": "its tests changed",
    "smoke": "its tests changed",
    "skip": "its tests changed",
    "means": "the test tools changed",
    "gpus": "the GPUs are others than when it was tested",
    "subject": "the image or SIF changed",
}
REPORT = {field.name for field in fields(TestReport)}


class Testing:
    """Decides which tests are needed, runs them, and records those that passed."""

    def __init__(
        self, images: Mapping[str, Image], context: Context, *, gpu: bool = False
    ) -> None:
        self._images, self._gpu = images, gpu
        self._context, self._workspace = context, context.workspace

    def needed(self, verb: Verb, before: Step) -> str:
        """Return why the tests must be run again; "" if they passed on the same image or SIF."""
        name = before.image.name
        known = self._record(name, verb)
        if not known:
            failed = records.read(self._workspace.record(name, KINDS[verb])) or {}
            return "its tests failed" if "failed" in failed else "not tested yet"
        # Planning changes nothing: the common tag is restored when the plan is carried out.
        subject = before.held if verb is Verb.TEST else self._sif(before)
        assert subject is not None  # noqa: S101 - it is tested again where it is made anew
        try:
            now = self.key(subject)
        except UsageError as error:  # running the tests raises it again, for this image only
            return error.message
        changed = (why for part, why in RETEST.items() if known["key"].get(part) != now[part])
        return next(changed, "")

    def states(self, image: Image, held: BuiltImage | None) -> tuple[str, str]:
        """Return how the tests of an image, and of its SIF, ended: passed, failed, not tested.

        :param held: the image that the engine has of it.
        """
        from sifline.stages import convert

        step = Step(image=image, reason="", needed=False, held=held)
        made = convert.state(image.name, held, self._workspace) == convert.UP_TO_DATE
        return (
            self._state(Verb.TEST, step) if held else NOT_TESTED,
            self._state(Verb.TEST_SIF, step) if held and made else NOT_TESTED,
        )

    def _state(self, verb: Verb, before: Step) -> str:
        if not self.needed(verb, before):
            return "passed"
        known = records.read(self._workspace.record(before.image.name, KINDS[verb])) or {}
        subject = before.held if verb is Verb.TEST else self._sif(before)
        assert subject is not None  # noqa: S101 - for the type checker: it is up to date
        try:
            failed = "failed" in known and known.get("key") == self.key(subject)
        except UsageError:  # its tests cannot be read
            failed = False
        return "failed" if failed else NOT_TESTED

    def seconds(self, name: str, verb: Verb) -> float | None:
        """Return how long the tests took the last time that they passed; None if not known."""
        return records.seconds(self._record(name, verb).get("report"))

    def passed(self, name: str, verb: Verb) -> TestReport:
        """Return the recorded report of tests that need not be run again."""
        report = self._record(name, verb)["report"]
        lists = {part: tuple(report[part]) for part in ("skip_reasons", "warnings")}
        return TestReport(**{**report, **lists})

    def test(self, built: BuiltImage, held: AbstractContextManager[str]) -> TestedImage:
        """Run the tests of an image.

        :param held: yields the label of the containers that are started.
        """
        return TestedImage(built=built, report=self._run(built, built.size, held))

    def test_sif(self, sif: Sif, image_size: int, held: AbstractContextManager[str]) -> TestReport:
        """Run the tests of the SIF of an image of that many bytes; see ``test``."""
        return self._run(sif, image_size, held)

    def key(self, subject: BuiltImage | Sif) -> dict[str, Any]:
        """Return everything that decides the result of the tests of ``subject``."""
        name = _name(subject)
        return {
            "subject": subject.sha256 if isinstance(subject, Sif) else subject.image_id,
            "tests": [_tests_digest(folder) for folder in self.folders(subject)],
            "smoke": [list(words) for words in self._images[name].smoke],
            "skip": self.skip(name),
            "means": self._means,
            "gpus": gpus.means(),
        }

    def folders(self, subject: BuiltImage | Sif) -> list[Path]:
        """Return the folders of the tests: our own, those of its parents (``FROM``), its own.

        Tests of images that only files are copied from are not inherited.
        """
        from sifline.stages import imagetest

        name = _name(subject)
        own = imagetest.suites(self._images[name], runtime=RUNTIMES[_verb(subject)])
        return [*own, *self._tests(name)]

    def _tests(self, name: str) -> list[Path]:
        """The folders of tests of what an image begins with, its own at last."""
        folders = (image.folder / "tests" for image in self._line(name))
        return [folder for folder in folders if folder.is_dir()]

    def _line(self, name: str) -> list[Image]:
        """The images that ``name`` begins with, the first base first, and itself."""
        found = list[Image]()
        while name:
            found.insert(0, self._images[name])
            name = found[0].base
        return found

    def skip(self, name: str) -> dict[str, str]:
        """Return the tests that an image does not have to pass, each with the reason.

        What an image departs from, those that are built on it depart from too.
        """
        return {
            test: f"{reason} (images/{image.name}/image.toml)"
            for image in self._line(name)
            for test, reason in image.skip
        }

    def need_known(self, image: Image) -> None:
        """Refuse an image that skips a test which it does not have.

        :raises UsageError: with the nearest names.
        """
        if image.skip:
            from sifline.stages import imagetest

            folders = [*imagetest.EVERY_SUITE, *self._tests(image.name)]
            imagetest.need_known(image, folders)

    @cached_property
    def _means(self) -> list[str]:
        return [file_digest(HERE / name) for name in TEST_MEANS]

    def _record(self, name: str, verb: Verb) -> dict[str, Any]:
        """Return the record of tests that passed; {} if there is no valid one."""
        known = records.read(self._workspace.record(name, KINDS[verb])) or {}
        key, report = known.get("key"), known.get("report")
        sound = isinstance(key, dict) and isinstance(report, dict) and set(report) == REPORT
        return known if sound else {}

    def _sif(self, step: Step) -> Sif:
        """Return the SIF of a conversion that is up to date."""
        from sifline.stages import convert

        return convert.standing(step.image, self._workspace)

    def _run(
        self, subject: BuiltImage | Sif, image_size: int, held: AbstractContextManager[str]
    ) -> TestReport:
        """Run the tests, one run at a time, and record that they passed; return the report."""
        from sifline.stages import imagetest

        name, kind = _name(subject), KINDS[_verb(subject)]
        lock = self._workspace.build / "locks" / f"{name}.{kind}.lock"
        with records.locked(lock, self._context, what=f"the tests of {name}"), held as label:
            place, key = self._workspace.record(name, kind), self.key(subject)
            # Whatever passed before, the new result counts.
            place.unlink(missing_ok=True)
            try:
                report = imagetest.imagetest(
                    subject,
                    # Not part of the key: tests that passed with a GPU remain passed.
                    [*([imagetest.A_GPU] if self._gpu else []), *self.folders(subject)],
                    self._context,
                    runtime=RUNTIMES[_verb(subject)],
                    promises=self._promises(self._images[name], image_size),
                    label=label,
                )
            except imagetest.TestsFailed as error:
                # With --gpu tests fail that are skipped otherwise.
                if not self._gpu and key == self.key(subject):
                    records.write(place, {"key": key, "failed": error.message})
                raise
            if key == self.key(subject):  # else the tests changed while they ran
                records.write(place, {"key": key, "report": vars(report)})
        return report

    def _promises(self, image: Image, size: int) -> Promises:
        """Return what the tests expect of ``image``, which has that many bytes in the engine."""
        from sifline.stages import imagetest

        options = image.sif
        return imagetest.Promises(
            smoke=image.smoke,
            budget=(options.budget or 0) if options.over_budget == "error" else 0,
            # What a definition file installs is in no image.
            image_size=0 if options.definition else size,
            gpu=self._gpu,
            skip=self.skip(image.name),
        )


def _name(subject: BuiltImage | Sif) -> str:
    return subject.name if isinstance(subject, Sif) else subject.image.name


def _verb(subject: BuiltImage | Sif) -> Verb:
    return Verb.TEST_SIF if isinstance(subject, Sif) else Verb.TEST


def _tests_digest(folder: Path) -> str:
    """Return the SHA-256 of a folder of tests, without Python's byte code.

    :raises UsageError: naming the file that cannot be read.
    """
    try:
        files = [
            path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        ]
        told = {str(path.relative_to(folder)): file_digest(path) for path in files}
    except OSError as error:
        raise UsageError(
            f"the tests in {folder} cannot be read: {error.filename}: {error.strerror};"
            " make them readable"
        ) from None
    return sha256(json.dumps(told).encode()).hexdigest()
