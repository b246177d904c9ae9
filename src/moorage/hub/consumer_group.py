"""Consumer groups of a hub's built-in endpoint: named views of the log, made and ended while it is read.

They are kept in the hub's own record; `$Default` is always there. Who reads in which group is none of the hub's
business: a reader keeps its own place.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

from moorage.errors import Invalid, NotFound, PreconditionFailed, Unavailable
from moorage.hub.instance import DEFAULT_CONSUMER_GROUP, Hub

MAX_CONSUMER_GROUPS = 20  # of one hub, the default one counted [hub-service 13]

_KIND = "consumer group"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,48}[A-Za-z0-9])?")
_ATTEMPTS = 20  # at one write; each time it is lost, somebody else has changed the hub


class ConsumerGroups:
    """The groups of all hubs. What a verb returns is durable, and holds for the next reader that comes.

    `hub` is the current record of a scope. `put` replaces a record read from there; it raises PreconditionFailed
    when that one is no longer the current.
    """

    def __init__(self, *, hub: Callable[[int], Hub], put: Callable[[Hub], Awaitable[Hub]]) -> None:
        self._hub = hub
        self._put = put
        self._at_end: list[Callable[[int, str], object]] = []

    def at_end(self, act: Callable[[int, str], object]) -> None:
        """`act` is told the scope and the name of each group that was deleted, to close its readers."""
        self._at_end.append(act)

    def list(self, scope: int) -> tuple[str, ...]:
        """In the order in which they were made."""
        return self._hub(scope).consumer_groups

    def get(self, scope: int, name: str) -> str:
        """The group as it was named when it was made. Raises NotFound."""
        found = self._hub(scope).consumer_group(name)
        if found is None:
            raise NotFound(_KIND, name[:300])
        return found

    async def create(self, scope: int, name: str) -> tuple[str, bool]:
        """The group, and whether it is a new one: making it twice is no error. Raises Invalid, Unavailable."""
        for _ in range(_ATTEMPTS):
            hub = self._hub(scope)
            if (known := hub.consumer_group(name)) is not None:
                return known, False
            _check_name(name)
            if len(hub.consumer_groups) >= MAX_CONSUMER_GROUPS:
                raise Invalid("name", f"a hub has at most {MAX_CONSUMER_GROUPS} consumer groups")
            if await self._replace(hub, (*hub.consumer_groups, name)):
                return name, True
        raise Unavailable("the hub is being changed by others; try again")

    async def delete(self, scope: int, name: str) -> None:
        """Its readers are closed. Raises NotFound, Invalid for the default group, Unavailable."""
        for _ in range(_ATTEMPTS):
            hub, known = self._hub(scope), self.get(scope, name)
            if known == DEFAULT_CONSUMER_GROUP:
                raise Invalid("name", f"{DEFAULT_CONSUMER_GROUP} cannot be deleted")
            if await self._replace(hub, tuple(each for each in hub.consumer_groups if each != known)):
                for act in self._at_end:
                    act(scope, known)
                return
        raise Unavailable("the hub is being changed by others; try again")

    async def _replace(self, hub: Hub, groups: tuple[str, ...]) -> bool:
        """Whether nobody was faster."""
        try:
            await self._put(replace(hub, consumer_groups=groups))
        except PreconditionFailed:
            return False
        return True


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise Invalid(
            "name",
            "a consumer group's name has 1 to 50 ASCII letters, digits, '.', '-' and '_', "
            "and begins and ends with a letter or digit",
        )
