"""Invoke collections whose tasks may have dots in their names, and tasks told apart."""

from __future__ import annotations

from typing import Any

from invoke.collection import Collection
from invoke.tasks import Task


class OwnTask(Task[Any]):
    """A task that equals itself alone.

    Invoke compares tasks by name and code object, so that of several tasks made by one
    factory it runs only the first, with status 0.
    """

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


class VerbCollection(Collection):
    """The tasks of one verb, one per image: ``build.pytorch-cuda12.1-mpi4.1``.

    Invoke takes every dot for a step into a sub-collection. Here a name is looked up whole
    first. The root collection cannot do this: Invoke copies it into one of its own class.
    """

    def task_with_config(self, name: str | None) -> tuple[Any, dict[str, Any]]:
        """Return the task called ``name``, dots included, and its configuration."""
        if name and name in self.tasks:
            return self.tasks[name], self.configuration()
        found: tuple[Any, dict[str, Any]] = super().task_with_config(name)
        return found
