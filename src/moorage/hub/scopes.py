"""Internal ids. Every hub, provisioning service and linked hub has one of its own, from one sequence.

What was kept under an id may outlive its owner: events in the log, a registration that names the hub. So an id is
never given out again, and the last one given is a record of its own.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from moorage.hub import instance
from moorage.interfaces import Expect, Kind, Put, Store

_KEY = "last"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScopeSequence:
    last: int
    etag: str = field(default_factory=lambda: secrets.token_hex(8))


KIND: Kind[ScopeSequence] = Kind(
    name="scope_sequence",
    key=lambda _: _KEY,
    to_document=lambda sequence: {"last": sequence.last, "etag": sequence.etag},
    from_document=lambda document: ScopeSequence(last=document["last"], etag=document["etag"]),
    index={},
)
"""A single record, under scope 0."""


async def next_scope(store: Store) -> tuple[int, Put[ScopeSequence]]:
    """An id that nobody has had, and the change that takes it, for the commit which uses it.

    That commit raises Conflict or PreconditionFailed when somebody else was faster.
    """
    held = await store.records(KIND, 0).get(_KEY)
    scope = (held.last if held else await _highest(store)) + 1
    return scope, Put(KIND, 0, ScopeSequence(last=scope), held.etag if held else Expect.ABSENT)


async def _highest(store: Store) -> int:
    """Of a folder that is new, or of a release with one hub, whose id came after its provisioning service's."""
    hubs = await store.records(instance.KIND, 0).page(limit=1000)
    return max((hub.scope for hub in hubs.records), default=0)
