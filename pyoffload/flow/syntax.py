"""Errors that point at a word, and the splitting of flow text into words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn, Protocol

from pyoffload.errors import UsageError

_HEX = frozenset("0123456789abcdefABCDEF")


class PortNames(Protocol):
    """The ports of one bridge by name and by OpenFlow number."""

    def number(self, name: str, /) -> int | None: ...

    def name(self, ofport: int, /) -> str | None: ...


class FlowSyntaxError(UsageError):
    """``text[offset:offset + length]`` is the word that is wrong; ``line`` (from 1) and ``source`` if it was in a file."""

    def __init__(
        self,
        message: str,
        text: str,
        offset: int,
        length: int,
        *,
        hint: str | None = None,
        line: int | None = None,
        source: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.text = text
        self.offset = offset
        self.length = length
        self.line = line
        self.source = source


class BadWordError(ValueError):
    """What parsers raise while they do not know where in the text they are; never leaves pyoffload.flow.

    ``word`` is the part of the text that is wrong, or empty for the whole of what is being parsed.
    """

    def __init__(self, message: str, word: str = "", hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.word = word
        self.hint = hint


def fail(message: str, word: str = "", hint: str | None = None) -> NoReturn:
    raise BadWordError(message, word, hint)


def locate(text: str, start: int, piece: str, error: BadWordError) -> FlowSyntaxError:
    """The public error for ``error``, which was raised while parsing ``piece``, found at ``text[start:]``."""
    within = piece.find(error.word) if error.word else -1
    if within >= 0:
        return FlowSyntaxError(error.message, text, start + within, len(error.word), hint=error.hint)
    return FlowSyntaxError(error.message, text, start, len(piece), hint=error.hint)


def parse_uint(text: str, limit: int, what: str) -> int:
    """A decimal or 0x… number of at most ``limit``."""
    value = _uint(text)
    if value is None:
        fail(f"{what}: '{text}' is no number", text)
    if value > limit:
        fail(f"{what}: {text} is more than {limit if limit < 1 << 20 else hex(limit)}", text)
    return value


def _uint(text: str) -> int | None:
    if text.isdecimal() and text.isascii():
        # ovs-ofctl reads 010 as octal, people as ten: neither guess is safe.
        return int(text) if text[0] != "0" or not text.strip("0") else None
    if text[:2] in {"0x", "0X"} and len(text) > 2 and _HEX.issuperset(text[2:]):
        return int(text, 0)
    return None


def words(text: str, start: int = 0) -> Iterator[tuple[str, int]]:
    """The words of ``text[start:]`` and where each begins.

    Commas and white space separate words, except inside parentheses and brackets, as in ovs-ofctl.
    """
    depth = 0
    begin = -1
    for index in range(start, len(text)):
        char = text[index]
        if char in "([":
            depth += 1
        elif char in ")]":
            depth = max(0, depth - 1)
        if depth == 0 and char in ", \t\r\n":
            if begin >= 0:
                yield text[begin:index], begin
                begin = -1
        elif begin < 0:
            begin = index
    if begin >= 0:
        yield text[begin:], begin


def split_words(text: str) -> list[str]:
    """The same without places, at the speed that files of flows want."""
    if "(" in text or "[" in text:
        return [word for word, _ in words(text)]
    return text.replace(",", " ").split()


def name_end(word: str) -> int:
    """Where the name at the beginning of ``word`` ends: at the first of ``:=(``, or with the word."""
    end = len(word)
    for separator in ":=(":
        at = word.find(separator, 0, end)
        if at >= 0:
            end = at
    return end


def name_and_argument(word: str) -> tuple[str, str | None]:
    """``name:argument``, ``name=argument`` and ``name(argument)`` are the same to ovs-ofctl."""
    end = name_end(word)
    if end == len(word):
        return word, None
    if word[end] != "(":
        return word[:end], word[end + 1 :]
    close = word.rfind(")")
    if close < 0:
        fail(f"'{word}': a closing parenthesis is missing", word)
    if word[close + 1 :]:
        fail(f"'{word[close + 1 :]}' after the parenthesis", word[close + 1 :])
    return word[:end], word[end + 1 : close]
