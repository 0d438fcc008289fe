"""The reference page of all commands, generated from their helps.

``python -m sifline.tasks.reference PAGE`` writes it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from sifline.tasks import flags, helps, images

Body = Callable[..., None]


def reference() -> str:
    """Return the reference page of all tasks, in Markdown."""
    parts = [
        "# Commands",
        "The output of `invoke --help` for each task; `python -m sifline.tasks.reference PAGE`"
        " writes this page.",
        "`VERB.<image>` acts on one image, `VERB --all` on all of them, `VERB FILE.sif` on a file."
        " `sifline VERB <image>` is the same as `invoke VERB.<image>`. Every verb takes"
        " `--echo`, which prints each command that is run, and `--debug`; and these:",
        "\n".join(
            [
                "| flag | meaning |",
                "|---|---|",
                *(f"| `{', '.join(flag.written)}` | {flag.help} |" for flag in flags.OWN),
            ]
        ),
        "On a terminal, tables have its width: texts are wrapped, and long values shortened in the"
        " middle. In a pipe each row is one line with whole values. There are no colours if"
        " `NO_COLOR` is set, with `TERM=dumb`, and in a pipe.",
        "`sifline --version` names the releases of sifline, Invoke and Python; `invoke --list`"
        " begins with that of sifline. `invoke --version` is Invoke's: it is printed before Invoke"
        " looks for a task file.",
    ]
    for title, bodies in helps.groups():
        parts += [f"## {title}"]
        for name, body in bodies.items():
            parts += _section(name, body)
    return "\n\n".join(parts) + "\n"


def _section(name: str, body: Body) -> Iterator[str]:
    told = helps.doc(body)
    yield f"### {name}"
    yield told.summary
    yield from told.paragraphs
    yield "\n".join(f"    {example}" for example in told.examples)
    taken = {flag.name: flag for flag in helps.listed(flags.parameters(body), name)}
    if body in images.VERBS:
        more = flags.parameters(body, over_all=True)
        taken |= {flag.name: flag for flag in helps.listed(more, name)}
    if taken:
        rows = [
            f"| `{_cell(helps.written(flag))}` | {_cell(flag.help)} |" for flag in taken.values()
        ]
        yield "\n".join(["| flag | meaning |", "|---|---|", *sorted(rows)])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
