"""The one way in which received bytes go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Malformed(Exception):
    """The peer broke its protocol; `str(error)` says how. No more can be read from it: close the connection.

    `events` are those that the same read brought before the fault, in order.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.events: Sequence[Any] = ()
