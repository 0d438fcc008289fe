"""Invoke collections whose tasks may have dots in their names, and tasks told apart."""

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
    """A task that equals itself alone, and has the flags that it is told.

    Invoke compares tasks by name and code object, so that of several tasks made by one
    factory it runs only the first, with status 0.
    """

    def __init__(
        self,
        call: Callable[..., None],
        *,
        name: str,
        help: str,
        flags: Sequence[Parameter],
        files: int = 0,
    ) -> None:
        names = {flag.name for flag in flags}
        # Invoke knows no optional words: they are there when the command line has them.
        words = [Parameter(word, Parameter.KEYWORD_ONLY) for word in FILE_NAMES[:files]]
        super().__init__(
            call,
            name=name,
            positional=[word.name for word in words],
            iterable=[flag.name for flag in flags if known.repeatable(flag)],
            auto_shortflags=False,
            help={name: text for name, text in known.HELP.items() if name in names},
        )
        self.__doc__ = help
        self._flags = (*words, *flags)

    def twin(self, call: Callable[..., None], *, name: str, help: str) -> OwnTask:
        """Return a task with the same flags: far cheaper than making one anew."""
        other = copy.copy(self)
        other.body, other._name, other.__doc__ = call, name, help
        other.help = dict(self.help)  # Invoke takes texts out as it uses them
        return other

    def argspec(self, body: Callable[..., None]) -> Signature:
        """Return the flags as Invoke reads them off a function."""
        del body
        # Of a flag with another default, Invoke forgets that it may be repeated.
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

    Invoke takes every dot for a step into a sub-collection. Here a name is looked up whole
    first. The root collection cannot do this: Invoke copies it into one of its own class.

    Invoke makes a parser for each task and copies all of them several times: a command line
    would take the longer, the more images there are. So it sees the names of only those
    tasks that the command line may mean, ``spoken``; lists are made from all, and from the
    ``rows`` that cannot be called.
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
        """The names of the tasks that may be called, each with its aliases, of which is none."""
        return {name: [] for name in self.tasks if self._is_spoken(name)}

    def _is_spoken(self, name: str) -> bool:
        if name == self.default:
            return True
        return name not in self._rows and self._spoken(f"{self.name}.{name}")

    def transform(self, name: str) -> str:
        """Return ``name``: Invoke would write dashes for what is no name of an image."""
        return name

    def task_with_config(self, name: str | None) -> tuple[Any, dict[str, Any]]:
        """Return the task called ``name``, dots included, and its configuration."""
        if name and name in self.tasks:
            return self.tasks[name], self.configuration()
        found: tuple[Any, dict[str, Any]] = super().task_with_config(name)
        return found

    def __deepcopy__(self, _: dict[int, Any]) -> VerbCollection:
        """Invoke copies the collections of a task file, and then forgets the first ones."""
        return self


class Namespace(Collection):
    """All our tasks; those that a task file adds take the place of ours of the same name.

    Invoke copies it into a collection of its own class once the task file is loaded.
    """

    def add_task(self, task: Task[Any], name: str | None = None, *more: Any, **given: Any) -> None:
        """Add ``task``, also where ours is a collection."""
        self.collections.pop(self.transform(name or task.name), None)
        super().add_task(task, name, *more, **given)

    def add_collection(self, coll: Any, name: str | None = None, *more: Any, **given: Any) -> None:
        """Add ``coll``, also where ours is a task."""
        called = name or getattr(coll, "name", "") or getattr(coll, "__name__", "") or ""
        self.tasks.pop(self.transform(called.rpartition(".")[2]), None)
        super().add_collection(coll, name, *more, **given)


def theirs(root: Collection) -> frozenset[str] | None:
    """Return all names of the tasks that are not ours; None where ours have names of others.

    :param root: the collection of a whole task file, in which ours may be one of several.
    """
    if not any(isinstance(item, VerbCollection) for item in root.collections.values()):
        return None
    return frozenset(
        word
        for name, aliases in root.task_names.items()
        if not isinstance(root.task_with_config(name)[0], OwnTask)
        for word in (name, *aliases)
    )
