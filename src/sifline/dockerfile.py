"""A Dockerfile's instructions and the images it is built on, read without building it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sifline.errors import UsageError

_INSTRUCTION = re.compile(r"^\s*([A-Za-z]+)(?:\s+(.*))?$", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?:(:?[-+])([^}]*))?\})")
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)([A-Za-z_]\w*)\1")
_KNOWN = frozenset(
    {"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL"}
    | {"MAINTAINER", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}
)
_HEREDOC_VERBS = frozenset({"RUN", "COPY", "ADD"})


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction, its verb in upper case; ``line`` counts from 1."""

    verb: str
    value: str
    line: int


def instructions(path: Path) -> tuple[Instruction, ...]:
    """Return the instructions of the Dockerfile at ``path``, continuation lines joined.

    :raises UsageError: naming the line, where it is none; where there is no FROM.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}; a Dockerfile is UTF-8 text") from None
    found = tuple(_parse(path, line, logical) for line, logical in _logical_lines(text))
    if not any(instruction.verb == "FROM" for instruction in found):
        raise UsageError(f"{path}: has no FROM; begin it with FROM and the image to build on")
    return found


def references(path: Path, arguments: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the images the Dockerfile takes files from, each once, in order.

    That is FROM and ``COPY --from``, ARG defaults expanded (``arguments`` override them),
    names of its own stages and ``scratch`` left out.

    :raises UsageError: where the file is no Dockerfile or a FROM expands to nothing.
    """
    given = dict(arguments or {})
    values: dict[str, str] = {}
    stages: set[str] = set()
    found: dict[str, None] = {}
    for item in instructions(path):
        if item.verb == "ARG" and not stages and not found:
            name, _, default = item.value.partition("=")
            values[name.strip()] = given.get(name.strip(), _expand(_unquote(default), values))
        elif item.verb == "FROM":
            reference, stage = _from(path, item, values)
            if reference not in stages and reference != "scratch":
                found[reference] = None
            stages.add(stage or f"#{len(stages)}")
        elif item.verb in {"ADD", "COPY", "RUN"}:
            for reference in _sources(item.value):
                if reference.lower() not in stages and not reference.isdecimal():
                    found[_expand(reference, values)] = None
    return tuple(found)


def _sources(value: str) -> Iterator[str]:
    """Yield the images of ``--from=`` and ``--mount=…,from=``; such flags come first."""
    for word in value.split():
        if not word.startswith("--"):
            return
        flag, _, content = word.partition("=")
        if flag == "--from":
            yield content
        elif flag == "--mount":
            yield from (part[5:] for part in content.split(",") if part.startswith("from="))


def _from(path: Path, item: Instruction, values: Mapping[str, str]) -> tuple[str, str]:
    words = [word for word in item.value.split() if not word.startswith("--")]
    if len(words) not in {1, 3} or (len(words) == 3 and words[1].upper() != "AS"):  # noqa: PLR2004
        raise UsageError(f"{path}: line {item.line}: FROM takes an image, or image AS stage")
    reference = _expand(words[0], values)
    if not reference:
        raise UsageError(
            f"{path}: line {item.line}: FROM {words[0]} expands to nothing;"
            " give its ARG a default before the first FROM"
        )
    return reference, (words[2].lower() if len(words) == 3 else "")  # noqa: PLR2004


def _parse(path: Path, line: int, logical: str) -> Instruction:
    match = _INSTRUCTION.match(logical)
    verb = match.group(1).upper() if match else ""
    if not match or verb not in _KNOWN:
        word = logical.split(maxsplit=1)[0][:40]
        raise UsageError(f"{path}: line {line}: {word!r} is no Dockerfile instruction")
    return Instruction(verb=verb, value=(match.group(2) or "").strip(), line=line)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) with continuations joined, comments and here-documents out."""
    # A parser directive: only comment lines of the form key=value may stand before it.
    directive = re.match(r"(?:#\s*\w+\s*=.*\n)*?#\s*escape\s*=\s*`", text)
    escape = "`" if directive else "\\"
    pending, start, ends = "", 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if ends:
            if stripped == ends[0]:
                ends.pop(0)
            continue
        if stripped.startswith("#") or not stripped:
            continue
        start = start or number
        if stripped.endswith(escape):
            pending += stripped[:-1] + " "
            continue
        logical = pending + stripped
        if logical.split()[0].upper() in _HEREDOC_VERBS:
            ends = [match[1] for match in _HEREDOC.findall(logical)]
        yield start, logical
        pending, start = "", 0
    if pending:
        yield start, pending


def _expand(text: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        found = values.get(match.group(1) or match.group(2), "")
        operator, word = match.group(3), match.group(4) or ""
        if operator in {"-", ":-"}:
            return found or word
        if operator in {"+", ":+"}:
            return word if found else ""
        return found

    return _VARIABLE.sub(value, text)


def _unquote(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
