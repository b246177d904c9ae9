"""A query's text to its tree, by recursive descent. [hub-service 8.1]

Every nesting counts against one depth, so that no text exhausts the stack, here or in whoever walks the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from moorage.hub.query.functions import FUNCTIONS
from moorage.hub.query.lexer import Sort, Token, tokens
from moorage.hub.query.refusals import QueryInvalid, QueryTooLong
from moorage.hub.query.tree import (
    UNDEFINED,
    Aggregate,
    All,
    Any,
    Arithmetic,
    Array,
    Call,
    Comparison,
    Condition,
    Constant,
    Expression,
    Holds,
    Item,
    Membership,
    Negative,
    Not,
    Path,
    Query,
    Scalar,
    Source,
    is_keyword,
)

MAX_LENGTH = 8192  # characters [hub-service 7]
MAX_DEPTH = 64
MAX_OPERATORS = 64  # of arithmetic

_T = TypeVar("_T")

_COMPARISONS = {"=": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_CONSTANTS: dict[str, Scalar] = {"true": True, "false": False, "null": None, "undefined": UNDEFINED}
_AGGREGATES = ("count", "avg", "sum", "min", "max")


def parse(text: str) -> Query:
    """Raises QueryInvalid with the place, and QueryTooLong."""
    if len(text) > MAX_LENGTH:
        raise QueryTooLong(f"a query has at most {MAX_LENGTH} characters, this one {len(text)}")
    return _Parser(text).query()


def parse_condition(text: str) -> Condition:
    """What stands behind WHERE, alone. Raises as `parse`."""
    if len(text) > MAX_LENGTH:
        raise QueryTooLong(f"a condition has at most {MAX_LENGTH} characters, this one {len(text)}")
    return _Parser(text).whole_condition()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(tokens(text))
        self._at = 0
        self._depth = 0
        self._operators = 0

    # Whole texts

    def query(self) -> Query:
        self._expect_word("SELECT")
        top = self._top()
        items = () if self._symbol("*") else tuple(self._listed(self._item))
        self._expect_word("FROM")
        source = self._source()
        where = self._condition() if self._word("WHERE") else None
        group_by: tuple[Path, ...] = ()
        if self._word("GROUP"):
            self._expect_word("BY")
            group_by = tuple(self._listed(self._whole_path))
        self._end("AND, OR, WHERE, GROUP BY")
        return Query(source, items, top, where, group_by)

    def whole_condition(self) -> Condition:
        condition = self._condition()
        self._end("AND, OR")
        return condition

    def _end(self, instead: str) -> None:
        if self._next.sort is not Sort.END:
            raise self._expected(f"{instead} or the end of the query")

    def _top(self) -> int | None:
        if not (self._is_word("TOP") and self._tokens[self._at + 1].sort is Sort.NUMBER):
            return None
        self._at += 1
        token = self._take()
        if not isinstance(token.value, int) or token.value < 1:
            raise self._invalid(token, f"expected a whole number from 1 up, found {token.shown}")
        return token.value

    def _item(self) -> Item:
        value: Expression | Aggregate = self._aggregate() or self._expression()
        alias = None
        if self._word("AS"):
            alias = self._name("a name for the column")
        return Item(value, alias)

    def _aggregate(self) -> Aggregate | None:
        token = self._next
        if token.sort is not Sort.NAME or token.text.lower() not in _AGGREGATES or not self._opens(1):
            return None
        name = token.text.lower()
        self._at += 2
        path = None
        if name != "count":
            path = self._whole_path()
        else:
            self._symbol("*")
        self._expect(")")
        return Aggregate(name, path)

    def _source(self) -> Source:
        token = self._next
        if not self._word("devices"):
            raise self._expected("devices, devices.modules or devices.jobs")
        if not self._symbol("."):
            return Source.DEVICES
        for source in (Source.MODULES, Source.JOBS):
            if self._word(source.value.partition(".")[2]):
                return source
        raise self._invalid(token, "expected devices, devices.modules or devices.jobs")

    # Conditions

    def _condition(self) -> Condition:
        return self._nested(lambda: self._joined("OR", Any, lambda: self._joined("AND", All, self._negation)))

    def _joined(self, word: str, join: type[All] | type[Any], operand: Callable[[], Condition]) -> Condition:
        operands = [operand()]
        while self._word(word):
            operands.append(operand())
        if len(operands) == 1:
            return operands[0]
        flat: list[Condition] = []
        for each in operands:  # `a AND (b AND c)` says what `a AND b AND c` says
            flat += each.operands if isinstance(each, join) else (each,)
        return join(tuple(flat))

    def _negation(self) -> Condition:
        if self._word("NOT"):
            return Not(self._nested(self._negation))
        return self._test()

    def _test(self) -> Condition:
        """A comparison, a membership, a call, or a condition in parentheses."""
        if not (self._opens(0) and self._parenthesized_condition_follows()):
            return self._test_of(self._expression())
        self._take()
        condition = self._condition()
        self._expect(")")
        return condition

    def _parenthesized_condition_follows(self) -> bool:
        """Whether what stands in the parentheses ahead is a condition and no value: it has an operator of one."""
        depth, before = 0, ""
        for token in self._tokens[self._at :]:
            named, before = before == ".", token.text
            if named:
                continue
            if token.sort is Sort.SYMBOL and token.text in "([":
                depth += 1
            elif token.sort is Sort.SYMBOL and token.text in ")]":
                depth -= 1
                if depth == 0:
                    return False
            elif (token.sort is Sort.SYMBOL and token.text in _COMPARISONS) or (
                token.sort is Sort.NAME and token.text.lower() in ("and", "or", "not", "in", "nin")
            ):
                return True
        return False

    def _test_of(self, left: Expression) -> Condition:
        token = self._next
        if token.sort is Sort.SYMBOL and token.text in _COMPARISONS:
            self._at += 1
            return Comparison(_COMPARISONS[token.text], left, self._expression())
        for word, negated in (("IN", False), ("NIN", True)):
            if self._word(word):
                return Membership(left, self._among(), negated)
        if isinstance(left, Path | Call) or (isinstance(left, Constant) and isinstance(left.value, bool)):
            return Holds(left)
        raise self._expected("a comparison, IN or NIN")

    def _among(self) -> Array | Path:
        if self._next.sort is Sort.NAME:
            return self._whole_path()
        if self._next.text == "(":  # Azure takes [ ] alone; nothing else could be meant
            return self._array("(", ")")
        return self._array("[", "]")

    # Values

    def _expression(self) -> Expression:
        return self._nested(
            lambda: self._chain(("+", "-"), lambda: self._chain(("*", "/", "%"), self._signed))
        )

    def _chain(self, operators: Sequence[str], operand: Callable[[], Expression]) -> Expression:
        left = operand()
        while self._next.sort is Sort.SYMBOL and self._next.text in operators:
            self._operators += 1
            if self._operators > MAX_OPERATORS:  # in a row, each one lies around those before it
                raise self._invalid(self._next, f"expected at most {MAX_OPERATORS} of + - * / % in a query")
            left = Arithmetic(self._take().text, left, operand())
        return left

    def _signed(self) -> Expression:
        if not self._symbol("-"):
            return self._value()
        token = self._next
        operand = self._nested(self._signed)
        if token.sort is Sort.NUMBER and isinstance(operand, Constant):
            assert isinstance(operand.value, int | float)
            return Constant(-operand.value)
        return Negative(operand)

    def _value(self) -> Expression:
        token = self._next
        if token.sort in (Sort.STRING, Sort.NUMBER):
            return Constant(self._take().value)
        if token.sort is Sort.SYMBOL and token.text == "[":
            return self._array("[", "]")
        if self._symbol("("):
            inside = self._expression()
            self._expect(")")
            return inside
        if token.sort is not Sort.NAME:
            raise self._expected("a property, a constant or a function")
        if token.text.lower() in _CONSTANTS:
            return Constant(_CONSTANTS[self._take().text.lower()])
        if self._opens(1):
            return self._call()
        return self._whole_path()

    def _call(self) -> Call:
        token = self._take()
        name = token.text.lower()
        if name in _AGGREGATES:
            raise self._invalid(token, f"{token.text} stands only between SELECT and FROM, by itself")
        if name not in FUNCTIONS:
            raise self._invalid(token, f"there is no function {token.text:.40}")
        self._expect("(")
        arguments: tuple[Expression, ...] = ()
        if not self._symbol(")"):
            arguments = tuple(self._listed(self._expression))
            self._expect(")")
        function = FUNCTIONS[name]
        if not function.least <= len(arguments) <= function.most:
            raise self._invalid(token, f"{name} takes {function.takes}, found {len(arguments)}")
        return Call(name, arguments)

    def _array(self, opening: str, closing: str) -> Array:
        self._expect(opening)
        if self._symbol(closing):
            return Array(())
        items = self._listed(self._constant)
        self._expect(closing)
        return Array(tuple(items))

    def _constant(self) -> Constant:
        token = self._next
        value = self._signed()
        if not isinstance(value, Constant):
            raise self._invalid(token, f"expected a constant, found {token.shown}")
        return value

    def _whole_path(self) -> Path:
        token = self._next
        if token.sort is not Sort.NAME or is_keyword(token.text):
            raise self._expected("a property")
        parts: list[str | int] = [self._take().text]
        while True:
            if self._symbol("."):
                parts.append(self._segment())
            elif self._next.sort is Sort.QUOTED_NAME:
                parts.append(str(self._take().value))
            elif self._symbol("["):
                parts.append(self._subscript())
            else:
                break
            if len(parts) > MAX_DEPTH:
                raise self._invalid(token, f"a path has at most {MAX_DEPTH} parts")
        return Path(tuple(parts))

    def _segment(self) -> str:
        if self._next.sort is Sort.QUOTED_NAME:
            return str(self._take().value)
        return self._name("a name or [[name]] behind the point")

    def _subscript(self) -> str | int:
        token = self._take()
        whole = isinstance(token.value, int)
        if not (token.sort is Sort.STRING or (token.sort is Sort.NUMBER and whole)):
            raise self._invalid(token, f"expected a name in quotes or a position, found {token.shown}")
        self._expect("]")
        return token.value if isinstance(token.value, str | int) else ""

    # Tokens

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._next
        if token.sort is not Sort.END:
            self._at += 1
        return token

    def _opens(self, ahead: int) -> bool:
        token = self._tokens[min(self._at + ahead, len(self._tokens) - 1)]
        return token.sort is Sort.SYMBOL and token.text == "("

    def _is_word(self, word: str) -> bool:
        return self._next.sort is Sort.NAME and self._next.text.lower() == word.lower()

    def _word(self, word: str) -> bool:
        found = self._is_word(word)
        self._at += found
        return found

    def _symbol(self, text: str) -> bool:
        found = self._next.sort is Sort.SYMBOL and self._next.text == text
        self._at += found
        return found

    def _name(self, what: str) -> str:
        if self._next.sort is not Sort.NAME:
            raise self._expected(what)
        return self._take().text

    def _expect(self, symbol: str) -> None:
        if not self._symbol(symbol):
            raise self._expected(symbol)

    def _expect_word(self, word: str) -> None:
        if not self._word(word):
            raise self._expected(word)

    def _listed(self, parse_one: Callable[[], _T]) -> list[_T]:
        found = [parse_one()]
        while self._symbol(","):
            found.append(parse_one())
        return found

    def _nested(self, parse_one: Callable[[], _T]) -> _T:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._invalid(self._next, f"nested more than {MAX_DEPTH} deep")
        found = parse_one()
        self._depth -= 1
        return found

    def _expected(self, what: str) -> QueryInvalid:
        return self._invalid(self._next, f"expected {what}, found {self._next.shown}")

    def _invalid(self, token: Token, why: str) -> QueryInvalid:
        return QueryInvalid(self._text, token.position, why)
