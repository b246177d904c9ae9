"""Places in a row that only grows, as callers see them: `{run}-{number}`, for numbers begin anew with each start."""

from __future__ import annotations

import re
import secrets

from moorage.adapters.http import Request, whole_number
from moorage.errors import Invalid

MAX_ITEMS = 1000

_PLACE = re.compile(r"([0-9a-f]{8})-([0-9]{1,18})")


class Places:
    def __init__(self) -> None:
        self._run = secrets.token_hex(4)

    def write(self, number: int) -> str:
        return f"{self._run}-{number}"

    def read(self, text: str, newest: int) -> int:
        """0 for a place of an earlier run: of this one the caller has seen nothing. Raises Invalid."""
        found = _PLACE.fullmatch(text)
        if found is None:
            raise Invalid("since", "is not a place that an answer has named in x-ms-continuation")
        return min(int(found[2]), newest) if found[1] == self._run else 0


def count_asked(request: Request) -> int:
    """How many items a caller wants at the most. Raises Invalid."""
    count = whole_number(request.query.get("top", "100"))
    if count is None or not 1 <= count <= MAX_ITEMS:
        raise Invalid("top", f"is a number from 1 to {MAX_ITEMS}")
    return count
