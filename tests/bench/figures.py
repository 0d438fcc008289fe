"""The figures: each sets up what it compares, and takes it away again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from uuid import uuid4

from tests.bench import conversion, provisioning
from tests.bench.measure import Comparison, Side
from tests.bench.projects import SYSTEM, Project, project

MANY, FEW = 100, 3
FILES, FOLDERS = 20_000, 200
# What changed within two seconds before a look is read again at the next.
SETTLED = 2.5
INDEPENDENT = 8
# Half work, half waiting, as installing packages is; `unique` keeps the engine's cache out.
WORK = """FROM {system}
COPY unique /unique
RUN i=0; while [ "$i" -lt 1500000 ]; do i=$((i + 1)); done; sleep 1.5
"""
# Large enough that the engine has something to look up, small enough to be built in seconds.
LAYERS = """FROM {system}
COPY file /file
RUN cp /file /copy
RUN echo done > /done
"""

# What bash does for a press of Tab; it fails where nothing is offered.
COMPLETE = """
source "$1"
compopt() { :; }
COMP_WORDS=(invoke build.) COMP_CWORD=1 COMP_LINE='invoke build.' COMP_POINT=13
_sifline_complete invoke build. invoke
[[ ${#COMPREPLY[@]} -ge 3 ]]
"""
REBUILD = (
    "the engine's client alone takes the peer's time; on top of it come the start of Python and"
    " Invoke (see the first row), the plan, and two tags once the image is seen to be whole."
)

Figure = Callable[[], AbstractContextManager[Iterable[Comparison]]]


def invoked(made: Project, *words: str, about: str = "") -> Side:
    """One call of invoke."""
    return Side(what=f"`invoke {' '.join(words)}`{about}", run=lambda: made.invoke(*words))


@contextmanager
def make() -> Iterator[Iterable[Comparison]]:
    """Nothing to do with 100 images, against Invoke's own start."""
    with project(built=True) as made:
        made.family(MANY)
        made.commit()
        made.invoke("make", "--all")
        yield (
            Comparison(
                what=f"Nothing to do with {MANY} images",
                ours=invoked(made, "make", "--all"),
                peer=invoked(made, "--version"),
                limit=3,
            ),
        )


@contextmanager
def context() -> Iterator[Iterable[Comparison]]:
    """The second look at 20,000 files, against git's."""
    from sifline.contents import build_context

    with project() as made:
        folder = made.root / "images" / made.image("large", "FROM scratch\nCOPY . /\n")
        for number in range(FILES):
            file = folder / f"folder{number % FOLDERS}" / f"file{number}"
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"{number}\n" * 50, encoding="utf-8")
        made.commit()
        time.sleep(SETTLED)
        cache = made.root / "build" / "cache"
        yield (
            Comparison(
                what=f"The second look at a context of {FILES:,} files, in the running process",
                ours=Side(
                    what="`sifline.contents.build_context.digest`",
                    run=lambda: build_context.digest(folder, cache=cache),
                ),
                peer=Side(what="`git status`", run=lambda: made.run("git", "status")),
                limit=2,
            ),
        )


@contextmanager
def listing() -> Iterator[Iterable[Comparison]]:
    """The list of tasks of 100 images, against that of 3."""
    with many_and_few() as (many, few):
        yield (
            Comparison(
                what=f"The list of tasks with {MANY} images and with {FEW}",
                ours=invoked(many, "--list", about=f", {MANY} images"),
                peer=invoked(few, "--list", about=f", {FEW} images"),
                limit=1.5,
            ),
        )


@contextmanager
def completion() -> Iterator[Iterable[Comparison]]:
    """One completion with 100 images, against 3."""
    with many_and_few() as (many, few):
        yield (
            Comparison(
                what=f"One completion in bash with {MANY} images and with {FEW}",
                ours=completed(many, f"{MANY} images"),
                peer=completed(few, f"{FEW} images"),
                limit=1.5,
            ),
        )


def completed(made: Project, about: str) -> Side:
    """Ask for what may follow `build.`."""
    script = made.root / "completion.bash"
    script.write_text(made.invoke("completion", "--shell", "bash"), encoding="utf-8")
    return Side(
        what=f"`invoke build.<TAB>`, {about}",
        run=lambda: made.run("bash", "-c", COMPLETE, "bash", str(script)),
    )


@contextmanager
def many_and_few() -> Iterator[tuple[Project, Project]]:
    """Two projects, one with many images and one with few."""
    with project() as many, project() as few:
        many.family(MANY)
        few.family(FEW)
        yield many, few


@contextmanager
def build() -> Iterator[Iterable[Comparison]]:
    """One image that the engine has in its cache, built by us and by the engine's client."""
    with project(built=True) as made:
        yield (one_build(made, what="One image, everything cached"),)


@contextmanager
def rebuild() -> Iterator[Iterable[Comparison]]:
    """The same after its tags were removed, so that we have to ask the engine as well."""
    with project(built=True) as made:
        told = one_build(made, what="The same, its tags removed")
        # Layers stay in the engine's cache.
        ours = replace(told.ours, prepare=lambda: made.forget(made.images))
        yield (replace(told, ours=ours, limit=None, note=REBUILD),)


def one_build(made: Project, *, what: str) -> Comparison:
    """One image, built once before."""
    name = made.image("one", LAYERS.format(system=made.borrow(SYSTEM)), file="content\n")
    made.commit()
    made.invoke(f"build.{name}")
    tag, folder = f"{made.prefix}/peer:latest", f"images/{name}"
    client = ("docker", "buildx", "build", "--load", "--tag", tag, folder)
    return Comparison(
        what=what,
        ours=Side(
            what="`invoke build.x`",
            run=lambda: made.invoke(f"build.{name}"),
        ),
        peer=Side(what="`docker buildx build`", run=lambda: made.run(*client)),
        limit=1.2,
    )


@contextmanager
def parallel() -> Iterator[Iterable[Comparison]]:
    """Independent images, two at a time and one after another."""
    with project(built=True) as made:
        dockerfile = WORK.format(system=made.borrow(SYSTEM))
        names = [
            made.image(f"work{number}", dockerfile, unique="") for number in range(INDEPENDENT)
        ]

        def renew() -> None:
            # Before they become images without a name, which nobody would remove.
            made.forget(made.images)
            for name in names:
                unique = made.root / "images" / name / "unique"
                unique.write_text(uuid4().hex, encoding="utf-8")

        def jobs(count: int) -> Side:
            words = ("build", "--all", "--jobs", str(count))
            return Side(
                what=f"`invoke {' '.join(words)}`",
                run=lambda: made.invoke(*words),
                prepare=renew,
            )

        yield (
            Comparison(
                what=f"{INDEPENDENT} independent images, each half work and half waiting",
                ours=jobs(2),
                peer=jobs(1),
                limit=0.65,
                rounds=3,
                warm=False,
            ),
        )


FIGURES: dict[str, Figure] = {
    "make": make,
    "context": context,
    "list": listing,
    "completion": completion,
    "build": build,
    "rebuild": rebuild,
    "parallel": parallel,
    "provision": provisioning.provision,
    "small": conversion.small,
    "large": conversion.large,
}
