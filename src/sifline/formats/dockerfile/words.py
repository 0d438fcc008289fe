"""The words of a Dockerfile line: quotes, escapes and variables, as BuildKit reads them.

The rules are those of BuildKit's ``frontend/dockerfile/shell``: almost those of a shell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_SPECIAL = frozenset("@*#?-$!0")
_NAME = re.compile(r"\d+|[^\W\d]\w*")
_BLANKS = " \t\r"


def expand(text: str, values: Mapping[str, str], *, escape: str = "\\") -> str:
    """Return ``text`` as one word: variables replaced, quotes and escapes removed.

    :raises ValueError: if a quote or brace is not closed, an operator is unknown, or
        ``${NAME:?…}`` needs a missing value.
    """
    return _Reader(text, values, escape=escape).read()[0]


def split(text: str) -> list[str]:
    """Return the words as written, with spaces inside quotes and after ``<<``.

    :raises ValueError: as :func:`expand`.
    """
    return _Reader(text, None, raw=True).read()[1]


def bare(text: str) -> list[str]:
    """Return the words without their quotes and escapes; variables are not expanded.

    :raises ValueError: as :func:`expand`.
    """
    return _Reader(text, None).read()[1]


class _Words:
    """Words under construction; a space ends one, unless it is quoted."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._word = ""

    def add(self, text: str) -> None:
        for char in text:
            if not char.isspace():
                self._word += char
            elif self._word:
                self._done.append(self._word)
                self._word = ""

    def keep(self, text: str) -> None:
        self._word += text

    def all(self) -> list[str]:
        return [*self._done, self._word] if self._word else self._done


class _Reader:
    """One pass over a text. Without ``values``, variables are not expanded."""

    def __init__(
        self,
        text: str,
        values: Mapping[str, str] | None,
        *,
        escape: str = "\\",
        raw: bool = False,
    ) -> None:
        self._text, self._at = text, 0
        self._values, self._escape, self._raw = values, escape, raw

    def read(self) -> tuple[str, list[str]]:
        """Return the whole text, and its words."""
        try:
            return self._until("", raw=self._raw)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None

    def _until(self, stop: str, *, raw: bool) -> tuple[str, list[str]]:
        result, words = "", _Words()
        while char := self._peek():
            if char == stop:
                self._at += 1
                return result, words.all()
            if char == "$":
                found = self._dollar(raw=raw)
                words.add(found)
            elif char in "'\"<":
                found = self._quoted(char, raw=raw) if char != "<" else self._less()
                words.keep(found)
            elif char == self._escape:
                found = self._escaped(raw=raw)
                words.keep(found)
            else:
                found = self._next()
                words.add(found)
            result += found
        if stop:
            raise ValueError(f"{stop!r} is missing")
        return result, words.all()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        self._at += 1
        return self._text[self._at - 1 : self._at]

    def _escaped(self, *, raw: bool) -> str:
        escape = self._next()
        return (escape if raw else "") + self._next()

    def _less(self) -> str:
        """Return ``<`` or ``<<`` with the spaces after it, part of a here-document's word."""
        if self._text[self._at : self._at + 2] != "<<":
            return self._next()
        rest = self._text[self._at + 2 :]
        found = "<<" + rest[: len(rest) - len(rest.lstrip(_BLANKS))]
        self._at += len(found)
        return found

    def _quoted(self, quote: str, *, raw: bool) -> str:
        self._at += 1
        result = ""
        while char := self._peek():
            if char == quote:
                self._at += 1
                return f"{quote}{result}{quote}" if self._raw else result
            if quote == "'":
                result += self._next()
            elif char == "$":
                result += self._dollar(raw=raw)
            elif char == self._escape:
                result += self._escaped_in_quotes(raw=raw)
            else:
                result += self._next()
        raise ValueError(f"a closing {quote} is missing")

    def _escaped_in_quotes(self, *, raw: bool) -> str:
        escape = self._next()
        following = self._peek()
        if not following:
            return escape if raw else ""
        if following in {'"', "$", self._escape}:
            return (escape if raw else "") + self._next()
        return escape * 2 if raw else escape

    def _dollar(self, *, raw: bool) -> str:
        self._at += 1
        if self._peek() != "{":
            name = self._name()
            return self._value(name, f"${name}") if name else "$"
        start = self._at
        self._at += 1
        if self._peek() in {"", "{", "}", ":"}:
            raise ValueError("${ begins no substitution")
        name = self._name()
        operator = self._next()
        if operator == "}":
            return self._value(name, f"${{{name}}}")
        replaced = self._operation(name, operator)
        unset = self._values is None or (raw and name not in self._values)
        return f"${self._text[start : self._at]}" if unset else replaced

    def _operation(self, name: str, operator: str) -> str:
        empty_is_unset = operator == ":"
        if empty_is_unset:
            operator = self._next()
        if operator == "/" and not empty_is_unset:
            return self._substitute(name)
        if not operator or operator not in "-+?#%":
            raise ValueError(f"${{{name}{operator}…}} is no substitution")
        word, _ = self._until("}", raw=operator in "#%")
        value = (self._values or {}).get(name)
        given = value is not None and not (empty_is_unset and not value)
        if operator in "#%":
            return _trimmed(value or "", word, operator)
        if operator == "?" and not given and self._values is not None:
            raise ValueError(f"{name}: {word or 'needs a value'}")
        if operator == "+":
            return word if given else ""
        return value or "" if given else word

    def _substitute(self, name: str) -> str:
        everywhere = self._peek() == "/"
        self._at += everywhere
        pattern, _ = self._until("/", raw=True)
        replacement, _ = self._until("}", raw=True)
        value = (self._values or {}).get(name, "")
        found = re.compile("".join(_tokens(pattern, greedy=True)))
        # The empty match at the end after a greedy match does not count.
        put: Callable[[re.Match[str]], str] = lambda match: (  # noqa: E731
            replacement if match.group() or not value else ""
        )
        return found.sub(put, value, count=0 if everywhere else 1)

    def _name(self) -> str:
        if (char := self._peek()) and char in _SPECIAL:
            return self._next()
        match = _NAME.match(self._text, self._at)
        if not match:
            return ""
        self._at = match.end()
        return match.group()

    def _value(self, name: str, written: str) -> str:
        return written if self._values is None else self._values.get(name, "")


def _tokens(pattern: str, *, greedy: bool) -> list[str]:
    r"""Split a shell pattern (``*``, ``?``, ``\`` before them) into regular expressions."""
    found: list[str] = []
    characters = iter(pattern)
    for char in characters:
        if char == "*":
            found.append(".*" if greedy else ".*?")
        elif char == "?":
            found.append(".")
        elif char == "\\":
            following = next(characters, "")
            if not following or following not in "*?\\}/":
                raise ValueError(f"\\{following} is no escape in a pattern")
            found.append(re.escape(following))
        else:
            found.append(re.escape(char))
    return found


def _trimmed(value: str, word: str, operator: str) -> str:
    greedy = word.startswith(operator)
    tokens = _tokens(word[greedy:], greedy=greedy)
    if operator == "#":
        match = re.match("".join(tokens), value)
        return value[match.end() :] if match else value
    # Backwards, so that the shortest and the longest match end at the end of the value.
    match = re.match("".join(reversed(tokens)), value[::-1])
    return value[: len(value) - match.end()] if match else value
