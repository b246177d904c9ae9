"""What device and module identities have in common: the rules of their ids, etags, generation ids."""

from __future__ import annotations

import base64
import re
import secrets

from moorage.errors import Invalid
from moorage.interfaces import Clock

ANY_ETAG = "*"
"""In place of an etag: whichever there is."""

_ID = re.compile(r"[A-Za-z0-9\-:.+%_#*?!(),=@$';]{1,128}")
_TICKS_AT_1970 = 621_355_968_000_000_000  # of 100 ns, since the year 1


def check_id(text: object, field: str) -> str:
    """`text` itself. Raises Invalid when it breaks the rules of ids. [hub-device 2.1]"""
    if not isinstance(text, str) or not _ID.fullmatch(text):
        raise Invalid(field, "an id has 1 to 128 ASCII letters, digits and characters of -:.+%_#*?!(),=@$';")
    return text


def new_etag() -> str:
    """Base64 of a decimal number. [hub-service 5.2]"""
    return base64.b64encode(str(secrets.randbelow(9 * 10**11) + 10**11).encode()).decode()


class GenerationIds:
    """Each tells an identity from an earlier one of the same id: now, in .NET's unit, never the same twice."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def new(self) -> str:
        self._last = max(self._last + 1, _TICKS_AT_1970 + self._clock.now() * 10)
        return str(self._last)
