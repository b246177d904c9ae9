"""How a command that goes on for ever is told to end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable


def stop_on_signals(stop: Callable[[], object]) -> None:
    """`stop` is called for Ctrl-C and SIGTERM, in the running loop. On Windows Ctrl-C stays KeyboardInterrupt."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:
            return
