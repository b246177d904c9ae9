"""Who is signed in. A link signs in once; what a browser keeps is a cookie, and of both only hashes are kept here.

Sessions are records, so that a page that is open goes on after a restart; links end with the server.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64encode
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Literal

from moorage.errors import Unavailable
from moorage.interfaces import Clock, Expect, Kind, Records

LINK_LIFETIME = 3600  # seconds in which a link can be used
IDLE_LIFETIME = 7 * 24 * 3600  # seconds without a request after which a session ends
NOTED_AFTER = 3600  # seconds after which it is noted anew that somebody is there
MAX_LINKS = 100
MAX_SESSIONS = 100
MAX_NOTICES = 20

_SECOND = 1_000_000  # microseconds


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptSession:
    """`key` is the hash of a cookie, `seen` when its browser was heard of, give or take an hour, in microseconds."""

    key: str
    seen: int
    etag: str = field(default_factory=lambda: secrets.token_hex(8))


KIND: Kind[KeptSession] = Kind(
    name="portal_session",
    key=lambda session: session.key,
    to_document=lambda session: {"key": session.key, "seen": session.seen, "etag": session.etag},
    from_document=lambda document: KeptSession(
        key=document["key"], seen=document["seen"], etag=document["etag"]
    ),
    index={},
    few=True,
)
"""Under scope 0."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence for the next page: what was done, or why it could not be."""

    kind: Literal["success", "warning", "error"]
    text: str


@dataclass(slots=True)
class Session:
    """One browser that is signed in. `csrf` goes into its forms, and nobody else's pages can know it."""

    csrf: str
    kept: KeptSession
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
    def __init__(self, clock: Clock, records: Records[KeptSession]) -> None:
        self._clock = clock
        self._records = records
        self._links: dict[str, float] = {}  # hash of a code → when it was made, by the monotonic clock
        self._open: dict[str, Session] = {}  # hash of a cookie → its session, of those seen since the start

    def new_code(self) -> str:
        """The secret of a link, good for one sign-in within `LINK_LIFETIME`."""
        code = secrets.token_urlsafe(24)
        self._links[_hash(code)] = self._clock.monotonic()
        while len(self._links) > MAX_LINKS:
            del self._links[next(iter(self._links))]
        return code

    async def redeem(self, code: str) -> str | None:
        """The cookie of a new session; None for a code that is not known, was used, or is too old."""
        made = self._links.pop(_hash(code), None)
        if made is None or self._clock.monotonic() - made > LINK_LIFETIME:
            return None
        cookie = secrets.token_urlsafe(32)
        kept = await self._records.put(KeptSession(key=_hash(cookie), seen=self._clock.now()))
        self._open[kept.key] = Session(_csrf(cookie), kept)
        await self._tidy()
        return cookie

    async def find(self, cookie: str) -> Session | None:
        """The session that `cookie` stands for, seen now."""
        key, now = _hash(cookie), self._clock.now()
        session = self._open.get(key)
        if session is None:
            kept = await self._records.get(key) if cookie else None
            if kept is None:
                return None
            session = self._open.setdefault(key, Session(_csrf(cookie), kept))
        idle = now - session.kept.seen
        if idle > IDLE_LIFETIME * _SECOND:
            await self._end(key)
            return None
        if idle > NOTED_AFTER * _SECOND:
            session.kept = replace(session.kept, seen=now)
            with suppress(Unavailable):  # the disk may be full: it is noted the next time
                await self._records.put(session.kept, expect=Expect.ANY)
        return session

    async def end(self, cookie: str) -> None:
        await self._end(_hash(cookie))

    async def _end(self, key: str) -> None:
        await self._records.delete(key, expect=Expect.ANY)
        self._open.pop(key, None)  # not before: who comes meanwhile would find the record, and open it again

    async def _tidy(self) -> None:
        """Those that nobody uses end, and where there are too many the ones not heard of for the longest time."""
        kept = sorted((await self._records.page(limit=2 * MAX_SESSIONS)).records, key=lambda each: -each.seen)
        for number, each in enumerate(kept):
            if number >= MAX_SESSIONS or self._clock.now() - each.seen > IDLE_LIFETIME * _SECOND:
                await self._end(each.key)


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _csrf(cookie: str) -> str:
    """From the cookie, so that nothing more has to be kept, and a form that is open outlives a restart."""
    return urlsafe_b64encode(sha256(b"csrf " + cookie.encode()).digest()[:24]).decode()
