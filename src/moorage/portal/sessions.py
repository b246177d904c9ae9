"""Who is signed in. A link signs in once; what a browser keeps is a cookie, and of both only hashes are kept here.

In memory: a restart ends every session, and `moorage up` prints a new link.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, TypeVar

from moorage.interfaces import Clock

LINK_LIFETIME = 3600  # seconds in which a link can be used
IDLE_LIFETIME = 12 * 3600  # seconds without a request after which a session ends
MAX_LINKS = 100
MAX_SESSIONS = 100
MAX_NOTICES = 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence for the next page: what was done, or why it could not be."""

    kind: Literal["success", "warning", "error"]
    text: str


@dataclass(slots=True)
class Session:
    """One browser that is signed in. `csrf` goes into its forms, and nobody else's pages can know it."""

    csrf: str
    seen: float  # by the monotonic clock, seconds
    notices: list[Notice] = field(default_factory=list)

    def tell(self, kind: Literal["success", "warning", "error"], text: str) -> None:
        self.notices = [*self.notices[1 - MAX_NOTICES :], Notice(kind, text)]

    def take_notices(self) -> list[Notice]:
        """Each is shown once."""
        told, self.notices = self.notices, []
        return told

    def owns(self, csrf: str) -> bool:
        return hmac.compare_digest(self.csrf.encode(), csrf.encode())


class Sessions:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._links: dict[bytes, float] = {}  # hash of a code → when it was made
        self._sessions: dict[bytes, Session] = {}  # hash of a cookie → its session

    def new_code(self) -> str:
        """The secret of a link, good for one sign-in within `LINK_LIFETIME`."""
        code = secrets.token_urlsafe(24)
        self._links[_hash(code)] = self._clock.monotonic()
        _keep_newest(self._links, MAX_LINKS)
        return code

    def redeem(self, code: str) -> str | None:
        """The cookie of a new session; None for a code that is not known, was used, or is too old."""
        made = self._links.pop(_hash(code), None)
        if made is None or self._clock.monotonic() - made > LINK_LIFETIME:
            return None
        cookie = secrets.token_urlsafe(32)
        self._sessions[_hash(cookie)] = Session(secrets.token_urlsafe(24), self._clock.monotonic())
        _keep_newest(self._sessions, MAX_SESSIONS)
        return cookie

    def find(self, cookie: str) -> Session | None:
        """The session that `cookie` stands for, seen now."""
        key = _hash(cookie)
        session = self._sessions.get(key)
        if session is None:
            return None
        now = self._clock.monotonic()
        if now - session.seen > IDLE_LIFETIME:
            del self._sessions[key]
            return None
        session.seen = now
        return session

    def end(self, cookie: str) -> None:
        self._sessions.pop(_hash(cookie), None)


def _hash(secret: str) -> bytes:
    return sha256(secret.encode()).digest()


def _keep_newest(kept: MutableMapping[bytes, T], limit: int) -> None:
    while len(kept) > limit:
        del kept[next(iter(kept))]
