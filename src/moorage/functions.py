"""Custom allocation by the operator's own Python function: `moorage up --allocation-function NAME=FILE.py`.

An enrollment names it, `python:NAME`; no caller of an API can name a file. The file defines

    def allocate(request: dict) -> dict: ...

which takes and returns the documents that a webhook would [dps 13.2]. Each call has a thread of its own, so that a
function that never returns costs its thread and neither the event loop nor the end of the server.
"""

from __future__ import annotations

import asyncio
import json
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from moorage.errors import Invalid
from moorage.interfaces import AllocatorAnswer

OPTION = "--allocation-function"
TIME_LIMIT = 10.0  # seconds that a call may take, waiting for a free thread included
AT_ONCE = 8  # threads; one that is given up on is not free before its call returns

Function = Callable[[dict[str, Any]], dict[str, Any]]


def load_function(file: Path) -> Function:
    """The function `allocate` that `file` defines. Raises Invalid, the option named."""
    module = ModuleType(f"moorage_allocation_{file.stem}")
    module.__file__ = str(file)
    try:
        # Not by import: that would leave compiled files in the operator's folder.
        exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)
    except OSError as error:
        raise Invalid(OPTION, f"{file} cannot be read: {error.strerror}") from None
    except Exception as error:
        raise Invalid(OPTION, f"{file} does not run: {type(error).__name__}: {error}") from error
    function = getattr(module, "allocate", None)
    if not callable(function):
        raise Invalid(OPTION, f"{file} defines no function 'allocate(request)'")
    found: Function = function
    return found


class AllocationFunctions:
    """A `CustomAllocator`: the functions by the names that enrollments know them by."""

    def __init__(self, functions: Mapping[str, Function], *, time_limit: float = TIME_LIMIT) -> None:
        self._functions = functions
        self._time_limit = time_limit
        self._threads = asyncio.Semaphore(AT_ONCE)

    def check(self, webhook_url: str) -> None:
        name = webhook_url.partition(":")[2]
        if name not in self._functions:
            there = ", ".join(sorted(self._functions)) or "none"
            raise Invalid(
                "customAllocationDefinition.webhookUrl",
                f"there is no allocation function {name!r}; the server was started with: {there}",
            )

    async def ask(self, webhook_url: str, request: bytes) -> AllocatorAnswer:
        name = webhook_url.partition(":")[2]
        function = self._functions.get(name)
        if function is None:
            return AllocatorAnswer(
                failure="the allocation function is not there",
                detail=f"start the server with {OPTION} {name}=FILE.py",
            )
        time = asyncio.get_running_loop().time
        started = time()
        try:
            async with asyncio.timeout(self._time_limit):
                await self._threads.acquire()
                body, failure, detail = await self._begin(function, request)
        except TimeoutError:
            failure = f"no answer within {self._time_limit:g} s"
            return AllocatorAnswer(seconds=time() - started, failure=failure)
        return AllocatorAnswer(body=body, seconds=time() - started, failure=failure, detail=detail)

    def _begin(self, function: Function, request: bytes) -> asyncio.Future[tuple[bytes, str, str]]:
        """A daemon thread: the interpreter does not wait for it at its end."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[tuple[bytes, str, str]] = loop.create_future()

        def tell(outcome: tuple[bytes, str, str]) -> None:
            self._threads.release()
            if not ended.done():
                ended.set_result(outcome)

        def work() -> None:
            outcome = _call(function, request)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(tell, outcome)

        threading.Thread(target=work, name="allocation-function", daemon=True).start()
        return ended


def _call(function: Function, request: bytes) -> tuple[bytes, str, str]:
    """The answer's JSON text; or a sentence for the device, and what the operator needs to mend it."""
    try:
        answer = function(json.loads(request))
        return json.dumps(answer, allow_nan=False).encode(), "", ""
    except BaseException as error:
        inner = error.__traceback__.tb_next if error.__traceback__ else None  # the first frame is this one
        detail = "".join(traceback.format_exception(type(error), error, inner))
        return b"", "the allocation function failed", detail
