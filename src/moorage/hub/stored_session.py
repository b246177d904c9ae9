"""What a device has subscribed to, kept from one connection to the next. [hub-device 3.2]"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moorage.hub.session import Principal
from moorage.interfaces import Kind


@dataclass(frozen=True, kw_only=True)
class StoredSession:
    """`subscriptions` are what the device listens to, in its protocol's words, each with the quality it was granted.

    `generation_id` is that of the device: no later one of its name finds the session.
    """

    name: str
    device_id: str
    generation_id: str
    subscriptions: Mapping[str, int] = field(default_factory=dict)
    etag: str = ""

    @classmethod
    def of(cls, principal: Principal, subscriptions: Mapping[str, int]) -> StoredSession:
        return cls(
            name=principal.name,
            device_id=principal.device_id,
            generation_id=principal.generation_id,
            subscriptions=dict(subscriptions),
        )


KIND: Kind[StoredSession] = Kind(
    name="stored_session",
    key=lambda session: session.name,
    to_document=lambda session: {
        "name": session.name,
        "deviceId": session.device_id,
        "generationId": session.generation_id,
        "subscriptions": dict(session.subscriptions),
    },
    from_document=lambda document: StoredSession(
        name=document["name"],
        device_id=document["deviceId"],
        generation_id=document["generationId"],
        subscriptions=document["subscriptions"],
    ),
    index={"device": lambda session: [session.device_id], "name": lambda session: [session.name]},
)
"""Kept under the scope of the hub, by the name of the device or module."""
