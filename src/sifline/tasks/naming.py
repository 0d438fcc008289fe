"""Invoke collections whose task names may contain dots, and tasks that Invoke can distinguish."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any

from invoke.collection import Collection
from invoke.tasks import Task

from sifline.tasks import flags as known
from sifline.tasks.flags import FILE_NAMES


class OwnTask(Task[Any]):
    """A task that equals only itself, with the given flags.

    Invoke compares tasks by name and code object, so of several tasks from one factory it would
    run only the first and exit with status 0.
    """

    def __init__(
        self,
        call: Callable[..., None],
        *,
        name: str,
        help: str,
        flags: Sequence[Parameter],
        verb: str = "",
        files: int = 0,
    ) -> None:
        # Invoke knows no optional words, so add them if the command line has them.
        words = [Parameter(word, Parameter.KEYWORD_ONLY) for word in FILE_NAMES[:files]]
        super().__init__(
            call,
            name=name,
            positional=[word.name for word in words],
            iterable=[flag.name for flag in flags if known.repeatable(flag)],
            auto_shortflags=False,
            help={flag.name: known.help_of(flag.name, verb) for flag in flags},
        )
        self.__doc__ = help
        self._flags = (*words, *flags)

    def twin(self, call: Callable[..., None], *, name: str, help: str) -> OwnTask:
        """Return a task with the same flags: much faster than a new one."""
        other = copy.copy(self)
        other.body, other._name, other.__doc__ = call, name, help
        other.help = dict(self.help)  # Invoke removes the texts that it uses
        return other

    def argspec(self, body: Callable[..., None]) -> Signature:
        """Return the flags in the form in which Invoke reads them from a function."""
        del body
        # Invoke does not let a flag be repeated if its default is another.
        return Signature(
            [
                flag.replace(default=None) if known.repeatable(flag) else flag
                for flag in self._flags
            ]
        )

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


class VerbCollection(Collection):
    """The tasks of one verb, one per image: ``build.pytorch-cuda12.1-mpi4.1``.

    Invoke takes every dot for a sub-collection. Here the whole name is looked up first. The root
    collection cannot do this: Invoke copies it into its own class.

    Invoke makes a parser for each task and copies all of them several times, so the time grows
    with the number of images. Therefore it sees only the tasks that the command line may name
    (``spoken``); lists show all of them, and the ``rows``, which cannot be called.
    """

    def __init__(
        self,
        name: str,
        tasks: Mapping[str, OwnTask],
        *,
        default: str,
        spoken: Callable[[str], bool],
        rows: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(name)
        self.tasks.update(tasks)
        self.default = default
        self._spoken = spoken
        self._rows = rows

    @property
    def task_names(self) -> dict[str, list[str]]:
        """Return the names of the callable tasks, each with its (empty) aliases."""
        return {name: [] for name in self.tasks if self._is_spoken(name)}

    def _is_spoken(self, name: str) -> bool:
        if name == self.default:
            return True
        return name not in self._rows and self._spoken(f"{self.name}.{name}")

    def transform(self, name: str) -> str:
        """Return ``name`` unchanged: Invoke would replace underscores by dashes."""
        return name

    def task_with_config(self, name: str | None) -> tuple[Any, dict[str, Any]]:
        """Return the task called ``name``, dots included, and its configuration."""
        if name and name in self.tasks:
            return self.tasks[name], self.configuration()
        found: tuple[Any, dict[str, Any]] = super().task_with_config(name)
        return found

    def __deepcopy__(self, _: dict[int, Any]) -> VerbCollection:
        """Return itself: Invoke copies collections of a task file and drops the originals."""
        return self


class Namespace(Collection):
    """All our tasks; a task of the same name in a task file replaces ours.

    Invoke copies it into its own class once the task file is loaded.
    """

    def add_task(self, task: Task[Any], name: str | None = None, *more: Any, **given: Any) -> None:
        """Add ``task``, even if ours of that name is a collection."""
        self.collections.pop(self.transform(name or task.name), None)
        super().add_task(task, name, *more, **given)

    def add_collection(self, coll: Any, name: str | None = None, *more: Any, **given: Any) -> None:
        """Add ``coll``, even if ours of that name is a task."""
        called = name or getattr(coll, "name", "") or getattr(coll, "__name__", "") or ""
        self.tasks.pop(self.transform(called.rpartition(".")[2]), None)
        super().add_collection(coll, name, *more, **given)


def theirs(root: Collection) -> frozenset[str] | None:
    """Return the names of all tasks that are not ours; None if ours are in another collection.

    :param root: the collection of the whole task file, which may contain ours.
    """
    if not any(isinstance(item, VerbCollection) for item in root.collections.values()):
        return None
    return frozenset(
        word
        for name, aliases in root.task_names.items()
        if not isinstance(root.task_with_config(name)[0], OwnTask)
        for word in (name, *aliases)
    )
