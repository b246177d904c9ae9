"""A device's connection of which it is looked at what the hub does with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class ClosingLink:
    """Keeps the reasons for which it was closed, and what the device was told and asked.

    `listens` are the methods that calls are taken of.
    """

    reasons: list[str] = field(default_factory=list)
    listens: set[str] = field(default_factory=set)
    desired: list[tuple[Mapping[str, Any], int]] = field(default_factory=list)
    calls: list[tuple[str, str, bytes]] = field(default_factory=list)

    def close(self, reason: str) -> None:
        self.reasons.append(reason)

    def desired_changed(self, change: Mapping[str, Any], version: int) -> None:
        self.desired.append((change, version))

    def invoke(self, request_id: str, method: str, payload: bytes) -> bool:
        if method in self.listens:
            self.calls.append((request_id, method, payload))
        return method in self.listens
