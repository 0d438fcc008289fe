"""Flags of ours that every task takes, before its name and behind it, as Invoke's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sifline.tasks import flags
from sifline.tasks.support import SECTION

if TYPE_CHECKING:
    from invoke.parser.argument import Argument
    from invoke.parser.context import ParserContext
    from invoke.program import Program

Method = Callable[..., Any]


def _arguments() -> list[Argument]:
    from invoke.parser.argument import Argument

    return [
        Argument(
            names=tuple(word.lstrip("-") for word in flag.written),
            kind=bool,
            default=False,
            help=flag.help,
        )
        for flag in flags.OWN
    ]


def _known(before: Method) -> Method:
    """Let Invoke's parser know them."""

    def core_args(self: Program) -> list[Argument]:
        return [*before(self), *_arguments()]

    return core_args


def _read(before: Method) -> Method:
    """Let Invoke take their values: it read the command line before it knew of them."""

    def update(self: Program, context: ParserContext, new_args: Any) -> None:
        from invoke.util import enable_logging

        for argument in _arguments():
            if argument.name not in context.args:
                context.add_arg(argument)
        before(self, context, new_args)
        # Behind a flag that it did not know, it read no further.
        if context.args.debug.value:
            enable_logging()

    return update


def _kept(before: Method) -> Method:
    """Keep their values in Invoke's configuration, where tasks find them."""

    def update_config(self: Program, *more: Any) -> None:
        before(self, *more)
        given = self.core[0].args
        names = [str(argument.name) for argument in _arguments()]
        values = {name: bool(given[name].value) for name in names if name in given}
        setattr(self.config, SECTION, values)

    return update_config


# By the method of Invoke's program that each is put around.
CHANGES: dict[str, Callable[[Method], Method]] = {
    "core_args": _known,
    "_update_core_context": _read,
    "update_config": _kept,
}
