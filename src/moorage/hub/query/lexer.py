"""The words of a query, each with its place. [hub-service 8.1]"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from moorage.hub.query.refusals import QueryInvalid
from moorage.hub.query.tree import PLAIN_NAME

_SPACE = re.compile(r"[ \t\r\n\f\v\u00a0\u2028\u2029\ufeff]+")
_NUMBER = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_HEX = re.compile(r"0[xX][0-9A-Fa-f]+")
_SYMBOL = re.compile(r"<>|!=|<=|>=|[=<>+\-*/%()\[\],.]")
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_QUOTED_NAME = re.compile(r"\[\[(.+?)\]\]", re.DOTALL)
_ESCAPED = {"'": "'", '"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_DIGITS = 100  # of a whole number; there are none that long in a twin


class Sort(Enum):
    NAME = "a name"
    STRING = "a string"
    NUMBER = "a number"
    SYMBOL = "a symbol"
    QUOTED_NAME = "a name in [[ ]]"
    END = "the end of the query"


@dataclass(frozen=True, slots=True)
class Token:
    """`text` is as written; `value` is what a string or a number stands for, the name itself of a quoted one."""

    sort: Sort
    text: str
    position: int
    value: str | int | float = ""

    @property
    def shown(self) -> str:
        return self.sort.value if self.sort is Sort.END else f"{self.text:.40}"


def tokens(text: str) -> Iterator[Token]:
    """All of them, an END last. Raises QueryInvalid."""
    position = 0
    while position < len(text):
        if space := _SPACE.match(text, position):
            position = space.end()
            continue
        token = _token(text, position)
        position += len(token.text)
        yield token
    yield Token(Sort.END, "", len(text))


def _token(text: str, position: int) -> Token:
    if found := _HEX.match(text, position) or _NUMBER.match(text, position):
        return Token(Sort.NUMBER, found[0], position, _number(text, position, found[0]))
    if found := PLAIN_NAME.match(text, position):
        return Token(Sort.NAME, found[0], position, found[0])
    if text[position] in "'\"":
        return _string(text, position)
    if found := _QUOTED_NAME.match(text, position):
        return Token(Sort.QUOTED_NAME, found[0], position, found[1])
    if found := _SYMBOL.match(text, position):
        return Token(Sort.SYMBOL, found[0], position)
    raise QueryInvalid(text, position, f"{text[position]!r} has no meaning here")


def _string(text: str, position: int) -> Token:
    found = _STRING.match(text, position)
    if found is None:
        raise QueryInvalid(text, position, f"the string that begins with {text[position]} does not end")
    inside = found[0][1:-1]

    def unescape(escape: re.Match[str]) -> str:
        what = escape[1]
        if len(what) == 5:
            return chr(int(what[1:], 16))
        if what not in _ESCAPED:
            at = position + 1 + escape.start()
            raise QueryInvalid(text, at, rf"\{what} is no escape, expected \', \", \\ or \uXXXX")
        return _ESCAPED[what]

    try:
        value = _ESCAPE.sub(unescape, inside)
        value = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise QueryInvalid(text, position, "the string holds half of a surrogate pair") from None
    return Token(Sort.STRING, found[0], position, value)


def _number(text: str, position: int, written: str) -> int | float:
    if len(written) > _DIGITS:
        raise QueryInvalid(text, position, f"a number has more than {_DIGITS} digits")
    if written[:2].lower() == "0x":
        value: int | float = int(written, 16)
    elif written.isdecimal():
        value = int(written)
    else:
        value = float(written)
    if isinstance(value, int) and value >= 1 << 63:
        value = float(value)
    if value == float("inf"):
        raise QueryInvalid(text, position, f"{written} is larger than any number")
    return value
