"""Flags of verbs that are passed to the pipeline."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from sifline.tasks.support import Run

Body = Callable[..., None]
SEEING = ("site", "build_arg")
DOING = ("force", "pull", "jobs", "keep_going")
CONVERTING = ("method", "compression", "level", "processors")
DEFAULTS: dict[str, Any] = {
    "site": "",
    "build_arg": (),
    "force": False,
    "pull": False,
    "jobs": 0,
    "keep_going": False,
    "method": "",
    "compression": "",
    "level": 0,
    "processors": 0,
    "gpu": False,
}


def options(*names: str) -> Callable[[Body], Body]:
    """Add flags to a verb that are passed to the pipeline; its body does not get them."""

    def decorate(verb: Body) -> Body:
        @wraps(verb)
        def call(run: Run, images: Sequence[str], **flags: Any) -> None:
            chosen = {name: flags.pop(name, DEFAULTS[name]) for name in names}
            verb(run, run.pipeline(**chosen), images, **flags)

        own = inspect.signature(verb)
        kind = inspect.Parameter.KEYWORD_ONLY
        more = [inspect.Parameter(name, kind, default=DEFAULTS[name]) for name in names]
        seen = [item for item in own.parameters.values() if item.name != "pipeline"]
        call.__signature__ = own.replace(parameters=[*seen, *more])  # type: ignore[attr-defined]
        return call

    return decorate
