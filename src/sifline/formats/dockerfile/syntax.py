"""Parses a Dockerfile into instructions and flags, and finds where images are named.

One module, because continued lines, here-documents and positions in the text depend on each other.

Continued lines, comments and here-documents follow BuildKit's rules. Results know their position
in the text, so that they can be replaced without any other change.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sifline.errors import UsageError, did_you_mean
from sifline.formats.dockerfile import features, words
from sifline.model import Feature

_KNOWN = frozenset(
    {"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL"}
    | {"MAINTAINER", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}
)
_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
_OTHER_DIRECTIVE = re.compile(r"//\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
_VERB = re.compile(r"\s*(\S+)\s*")
_BLANK = re.compile(r"\s*")
_PLAIN = re.compile(r"[^\s'\"\\]+(?!\S)")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_HERE_DOCUMENT = re.compile(r"\d*<<(-?)\s*([^<]*)")
# The default id of RUN --mount=type=ssh.
DEFAULT_AGENT = "default"
_TRUE = frozenset({"", "1", "t", "true"})


@dataclass(frozen=True, kw_only=True)
class Use:
    """A place that names an image or a stage; ``start`` to ``end`` is the text to replace."""

    text: str
    line: int
    start: int
    end: int
    before: str = ""
    after: str = ""
    kind: str = "FROM"
    platform: str = ""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage: FROM and what follows; ``triggers`` are its ONBUILD instructions."""

    base: Use
    name: str
    uses: tuple[Use, ...]
    triggers: tuple[Use, ...]


@dataclass(frozen=True, kw_only=True)
class Syntax:
    """A parsed Dockerfile; ``defaults`` are the ARGs before the first FROM.

    ``frontend`` is the image of the ``syntax`` directive; "" for none. ``features`` need a recent
    engine.
    """

    escape: str
    frontend: str
    declared: tuple[str, ...]
    defaults: tuple[tuple[int, str], ...]
    secrets: tuple[tuple[str, bool], ...]
    ssh: tuple[tuple[str, bool], ...]
    features: tuple[Feature, ...]
    stages: tuple[Stage, ...]


def refusal(path: Path, line: int, message: str) -> UsageError:
    """Return a UsageError with the file, the line and the message."""
    return UsageError(f"{path}: line {line}: {message}")


class _Line:
    """One instruction on one line, which knows the position of each character in the file."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.text = ""
        self._starts: list[int] = []
        self._places: list[int] = []

    def append(self, text: str, place: int) -> None:
        self._starts.append(len(self.text))
        self._places.append(place)
        self.text += text

    def place(self, index: int) -> int:
        """Return the position in the file of the character ``index`` of the text."""
        piece = bisect_right(self._starts, index) - 1
        # Empty pieces have the same start as the next one, which bisect_right finds.
        return self._places[piece] + index - self._starts[piece]

    def use(self, text: str, start: int, end: int, **more: str) -> Use:
        place = self.place(start)
        return Use(text=text, line=self.number, start=place, end=self.place(end - 1) + 1, **more)


@dataclass(frozen=True, kw_only=True)
class _Flag:
    """``--name=value`` before an instruction's words, without quotes.

    ``places`` are the positions of the value's characters in the line, ``start`` and ``end`` the
    flag's.
    """

    name: str
    value: str
    places: Sequence[int]
    start: int
    end: int


class Parser:
    """Parses one Dockerfile from the first line to the last."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text
        self.escape = "\\"
        self.frontend = ""
        self.declared: dict[str, None] = {}
        self.defaults: list[tuple[int, str]] = []
        self.secrets: dict[str, bool] = {}
        self.ssh: dict[str, bool] = {}
        self.features: list[Feature] = []
        self.bases: list[tuple[Use, str]] = []
        self.uses: list[list[Use]] = []
        self.triggers: list[list[Use]] = []

    def syntax(self) -> Syntax:
        """Parse the whole file.

        :raises UsageError: naming the line that the engine would refuse.
        """
        self._directives()
        for line in self._lines():
            self._instruction(line)
        if not self.bases:
            raise UsageError(
                f"{self.path}: has no FROM; begin it with FROM and the image to build on"
            )
        return Syntax(
            escape=self.escape,
            frontend=self.frontend,
            declared=tuple(self.declared),
            defaults=tuple(self.defaults),
            secrets=tuple(self.secrets.items()),
            ssh=tuple(self.ssh.items()),
            features=tuple(self.features),
            stages=tuple(
                Stage(base=base, name=name, uses=tuple(uses), triggers=tuple(triggers))
                for (base, name), uses, triggers in zip(
                    self.bases, self.uses, self.triggers, strict=True
                )
            ),
        )

    def _directives(self) -> None:
        """Read the parser directives ``escape`` and ``syntax``."""
        seen: set[str] = set()
        for number, name, value in self._leading(_DIRECTIVE):
            if name in seen:
                raise refusal(self.path, number, f"a second {name} directive; remove one")
            seen.add(name)
            if name == "syntax":
                self.frontend = value
            # After a first line #!… newer engines look for syntax only.
            if name == "escape" and not self._behind:
                if value not in {"\\", "`"}:
                    raise refusal(self.path, number, f"escape is \\ or `, not {value}")
                self.escape = value
        if not self.frontend:
            self._need_dockerfile()

    def _need_dockerfile(self) -> None:
        """Raise an error for another language, whose frontend is in ``// syntax=`` or in JSON."""
        found = [
            (number, value)
            for number, name, value in self._leading(_OTHER_DIRECTIVE)
            if name == "syntax"
        ]
        with suppress(ValueError):
            lines = [line for number, _, line in self._physical() if number > self._behind]
            value, _ = json.JSONDecoder().raw_decode("\n".join(lines).lstrip())
            if isinstance(value, dict) and isinstance(value.get("syntax"), str):
                found.append((self._behind + 1, value["syntax"]))
        for number, frontend in found:
            raise refusal(
                self.path,
                number,
                f"the language of the frontend {frontend} is not Dockerfile's, which alone is read"
                " here; build this one with docker buildx build",
            )

    def _leading(self, form: re.Pattern[str]) -> Iterator[tuple[int, str, str]]:
        """Yield line, name and value of the directives, up to the first other line."""
        for number, _, line in self._physical():
            match = form.fullmatch(line.lstrip())
            if number > self._behind:
                if not match or match[1].lower() not in {"syntax", "escape", "check"}:
                    return
                yield number, match[1].lower(), match[2]

    @property
    def _behind(self) -> int:
        """Return the number of lines before the directives: 1 if the first is #!…, else 0."""
        return int(self.text.removeprefix("\ufeff").startswith("#!"))

    def _physical(self) -> Iterator[tuple[int, int, str]]:
        """Yield number, position in the file and content of each line."""
        place = len(self.text) - len(self.text.removeprefix("\ufeff"))
        for number, line in enumerate(self.text[place:].split("\n"), 1):
            yield number, place, line.rstrip("\r")
            place += len(line) + 1

    def _lines(self) -> Iterator[_Line]:
        """Yield the instructions: continued lines joined, without here-documents and comments."""
        current: _Line | None = None
        physical = list(self._physical())
        index = 0
        while index < len(physical):
            number, place, line = physical[index]
            index += 1
            stripped = line.lstrip()
            if not stripped or stripped.startswith("#"):
                continue
            if current is None:
                current = _Line(number)
                place += len(line) - len(stripped)
                line = stripped
            content = self._continued(line)
            current.append(line if content is None else content, place)
            if content is None:
                yield current
                after = self._after_here_documents(current.text, physical, index)
                if after > index:
                    self.features.append(features.here_document(current.number))
                index, current = after, None
        if current:
            yield current

    def _continued(self, line: str) -> str | None:
        """Return the line without its continuation character; None if it has none."""
        content = line.rstrip(" \t")
        if not content.endswith(self.escape) or content.endswith(self.escape * 2):
            return None
        return content[:-1]

    def _after_here_documents(
        self, text: str, physical: list[tuple[int, int, str]], index: int
    ) -> int:
        """Return the number of the first line after the here-documents that ``text`` begins."""
        for name, tabs in _here_documents(text) if "<<" in text else ():
            end = index
            while end < len(physical):
                content = physical[end][2]
                end += 1
                if (content.lstrip("\t") if tabs else content) == name:
                    index = end
                    break
        return index

    def _instruction(self, line: _Line) -> None:
        verb, at = _verb(line.text, 0)
        self._check(verb, line.number)
        if verb in {"ADD", "COPY", "HEALTHCHECK", "RUN"}:
            self._features(verb, line.number, _flags(line.text, at)[0])
        if verb == "FROM":
            self._from(line, at)
        elif verb == "ARG":
            self._arg(line, at)
        elif verb == "ONBUILD":
            verb, at = _verb(line.text, at)
            if verb == "ARG":
                self._arg(line, at)
            elif verb in {"COPY", "RUN"}:
                self.triggers[-1] += _sources(line, verb, _flags(line.text, at)[0])
        elif verb in {"COPY", "RUN"}:
            flags, _ = _flags(line.text, at)
            self.uses[-1] += _sources(line, verb, flags)
            self._mounted(verb, flags)

    def _check(self, verb: str, line: int) -> None:
        if verb not in _KNOWN:
            hint = did_you_mean(verb, _KNOWN) or " Is a continued line or here-document broken?"
            raise refusal(self.path, line, f"{verb[:40]!r} is no Dockerfile instruction.{hint}")
        if not self.bases and verb not in {"FROM", "ARG"}:
            raise refusal(self.path, line, f"{verb} comes before the first FROM")

    def _from(self, line: _Line, at: int) -> None:
        flags, at = _flags(line.text, at)
        words = list(re.finditer(r"[^\t\v\f\r ]+", line.text[at:].rstrip()))
        named = len(words) == 3  # noqa: PLR2004
        if len(words) != 1 and not (named and words[1].group().upper() == "AS"):
            raise refusal(
                self.path, line.number, "FROM takes an image, or image AS stage: correct it"
            )
        name = words[2].group().lower() if named else ""
        if named and not _STAGE_NAME.fullmatch(name):
            raise refusal(
                self.path,
                line.number,
                f"{name!r} is no name for a stage: a letter, then letters, digits and -_.",
            )
        platform = next((flag.value for flag in flags if flag.name == "platform"), "")
        given = {word.partition("=")[0] for _, word in self.defaults}
        if features.TARGET_STAGE not in given:
            self.features += features.of_base(words[0].group(), line.number)
        start, end = at + words[0].start(), at + words[0].end()
        base = line.use(words[0].group(), start, end, platform=platform)
        self.bases.append((base, name))
        self.uses.append([])
        self.triggers.append([])

    def _arg(self, line: _Line, at: int) -> None:
        for word in _quoted_words(line.text[at:], self.escape):
            self.declared[word.partition("=")[0]] = None
            if not self.bases:
                self.defaults.append((line.number, word))

    def _features(self, verb: str, line: int, flags: list[_Flag]) -> None:
        for flag in flags:
            fields = {key: text for key, (text, _) in _fields(flag.value).items()}
            found = features.of_flag(verb, flag.name, flag.value, fields, line)
            self.features += found

    def _mounted(self, verb: str, flags: list[_Flag]) -> None:
        """Record the secrets and the SSH agents that RUN mounts."""
        mounts = [flag for flag in flags if verb == "RUN" and flag.name == "mount"]
        for fields in (_fields(flag.value) for flag in mounts):
            value = {key: text for key, (text, _) in fields.items()}
            kind, found = value.get("type", "").lower(), self.secrets
            name = value.get("id") or value.get("source") or value.get("src")
            if kind == "ssh":
                name, found = name or DEFAULT_AGENT, self.ssh
            elif kind == "secret":
                target = value.get("target") or value.get("dst") or value.get("destination") or ""
                name = name or target.rpartition("/")[2]
            else:
                continue
            if name:
                required = value.get("required", "no").lower() in _TRUE
                found[name] = found.get(name, False) or required


def _sources(line: _Line, verb: str, flags: list[_Flag]) -> Iterator[Use]:
    """Yield the uses in ``COPY --from`` and ``RUN --mount=…,from=…``."""
    for flag in flags:
        if verb == "COPY" and flag.name == "from" and flag.value:
            yield _flag_use(line, flag, 0, len(flag.value), verb)
        elif verb == "RUN" and flag.name == "mount":
            fields = _fields(flag.value)
            name, start = fields.get("from", ("", 0))
            if name and fields.get("type", ("", 0))[0].lower() != "tmpfs":
                yield _flag_use(line, flag, start, start + len(name), verb)


def _verb(text: str, at: int) -> tuple[str, int]:
    match = _VERB.match(text, at)
    return (match[1].upper(), match.end()) if match else ("", at)


def _here_documents(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the end word of each here-document in ``text``, and whether tabs may precede it."""
    verb, at = _verb(text, 0)
    if verb == "ONBUILD":
        verb, at = _verb(text, at)
    if verb not in {"ADD", "COPY", "RUN"}:
        return
    try:
        for word in words.split(text):
            match = _HERE_DOCUMENT.fullmatch(word)
            names = words.bare(match[2]) if match else []
            if match and len(names) == 1:
                yield names[0], bool(match[1])
    except ValueError:
        return


def _quoted_words(text: str, escape: str) -> list[str]:
    """Return the words of ARG as they are written; spaces in quotes do not separate."""
    one = re.escape(escape)
    word = rf"(?:{one}.|'[^']*(?:'|$)|\"(?:{one}.|[^\"{one}])*(?:\"|$)|[^\s'\"{one}])+"
    return re.findall(word, text, re.DOTALL)


def _flags(text: str, at: int) -> tuple[list[_Flag], int]:
    """Return the flags that follow at ``at``, and the start of the other words."""
    found: list[_Flag] = []
    while True:
        start = _BLANK.match(text, at).end()  # type: ignore[union-attr]  # may be empty
        if not text.startswith("--", start):
            return found, start
        word, places, at = _flag_word(text, start)
        if word == "--":
            return found, at
        name, _, value = word.partition("=")
        found.append(
            _Flag(name=name[2:], value=value, places=places[len(name) + 1 :], start=start, end=at)
        )


def _flag_word(text: str, at: int) -> tuple[str, Sequence[int], int]:
    """Return the word at ``at`` without quotes, the positions of its characters, and its end."""
    if plain := _PLAIN.match(text, at):
        return plain.group(), range(at, plain.end()), plain.end()
    word, places, quote = "", [], ""
    while at < len(text) and (quote or not text[at].isspace()):
        char = text[at]
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        else:
            at += char == "\\" and at + 1 < len(text)
            word += text[at]
            places.append(at)
        at += 1
    return word, places, at


def _fields(value: str) -> dict[str, tuple[str, int]]:
    """Return the settings of a mount, and the position of each value in ``value``."""
    found: dict[str, tuple[str, int]] = {}
    at = 0
    for part in value.split(","):
        key, _, text = part.partition("=")
        found[key.lower()] = (text, at + len(key) + 1)
        at += len(part) + 1
    return found


def _flag_use(line: _Line, flag: _Flag, start: int, end: int, kind: str) -> Use:
    """Return the use in ``flag.value[start:end]``."""
    text, places = flag.value[start:end], flag.places
    first, last = places[start], places[end - 1] + 1
    if line.text[first:last] == text and line.text[first - 1] != "\\":
        return line.use(text, first, last, kind=kind)
    # There are quotes or escapes inside the name, so replace the whole flag.
    before, after = f"--{flag.name}={flag.value[:start]}", flag.value[end:]
    quoted = {"before": re.sub(r"([\\'\"\s])", r"\\\1", before)}
    quoted["after"] = re.sub(r"([\\'\"\s])", r"\\\1", after)
    return line.use(text, flag.start, flag.end, kind=kind, **quoted)
