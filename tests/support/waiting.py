"""Waiting for what happens elsewhere: a condition, a deadline, and no fixed pause."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_EVERY = 0.02  # seconds


def eventually(look: Callable[[], T], *, what: str, within: float = 10.0) -> T:
    """The first true value that `look` returns; fails, saying `what` was waited for, after `within` seconds."""
    pause = threading.Event()
    deadline = time.monotonic() + within
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        pause.wait(LOOK_EVERY)
    return seen
