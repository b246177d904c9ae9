"""Why a query is refused."""

from __future__ import annotations

from moorage.errors import Invalid, MoorageError


class QueryTooLong(MoorageError):
    """Azure fails such a query's precondition, of all things. [hub-service 7]"""


class QueryInvalid(Invalid):
    """A query that cannot be understood; `line` and `column` count from 1."""

    def __init__(self, text: str, position: int, why: str) -> None:
        before = text[:position]
        self.line = before.count("\n") + 1
        self.column = position - (before.rfind("\n") + 1) + 1
        self.position = position
        said = f"SQL query parse failed due to following errors: Line {self.line}:{self.column} {why}"
        super().__init__("query", said)
