"""The program ``sifline``: Invoke under our name, with the image as a word after its verb."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sifline import __version__
from sifline.config import image_names
from sifline.errors import SiflineError
from sifline.tasks import cluster, flags, images

VERBS = frozenset(map(flags.called, images.VERBS))
GROUPS = {"cluster": tuple(flags.called(body) for body in cluster.GROUP)}


def main() -> None:
    """Run the tasks of this folder as ``invoke`` does; ``VERB IMAGE`` means ``VERB.IMAGE``.

    Looks for a task file with our tasks in this folder and the folders above it.
    """
    from invoke.program import Program

    class Sifline(Program):
        """Invoke with our version; it rejects a folder without our tasks."""

        def print_version(self) -> None:
            sys.stdout.write(f"{version()}\n")

        def print_help(self) -> None:
            # Invoke prints this before it reads the task file, which replaces the text by ours.
            self.load_collection()
            super().print_help()

        def load_collection(self) -> None:
            from invoke.exceptions import Exit

            from sifline.tasks.naming import theirs

            elsewhere = self.args["search-root"].value or self.args.collection.value
            if not elsewhere and not flags.task_file(Path.cwd()):
                raise Exit(
                    "error: no tasks.py in this folder or one above it; sifline works in a"
                    " checkout whose tasks.py has its tasks",
                    code=2,
                )
            super().load_collection()
            if theirs(self.collection) is None:
                raise Exit(
                    "error: tasks.py here has no tasks of sifline; add: from sifline.tasks import"
                    " namespace; ns = namespace(Path(__file__).parent)",
                    code=2,
                )

    # Code that reads the command line later must see these words.
    sys.argv[1:] = dotted(sys.argv[1:], _names(Path.cwd()))
    Sifline(name="sifline", binary="sifline", binary_names=["sifline"]).run(sys.argv)


def version() -> str:
    """Return the versions that a bug report should name."""
    from importlib.metadata import version as of

    python = ".".join(map(str, sys.version_info[:3]))
    return f"sifline {__version__} (Invoke {of('invoke')}, Python {python})"


def dotted(words: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return a command line with each image, or cluster task, joined to the verb before it.

    ``build hello-mpi --force`` becomes ``build.hello-mpi --force``. A word that is both an image
    and a task is taken as the image.

    :param names: the images of the repository.
    """
    made: list[str] = []
    verb = -1  # index of the last task without an image
    for here, word in flags.walk(words):
        if here.ended or not here.names_task(word):
            made.append(word)
        elif verb >= 0 and word in GROUPS.get(made[verb], names):
            made[verb] = f"{made[verb]}.{word}"
            verb = -1
        else:
            verb = len(made) if word in VERBS or word in GROUPS else -1
            made.append(word)
    return made


def _names(folder: Path) -> Sequence[str]:
    from sifline.model import Workspace

    file = flags.task_file(folder)
    try:
        return image_names.names(Workspace(root=flags.root_of(file))) if file else ()
    except SiflineError:
        return ()  # the error is reported when the tasks are loaded
