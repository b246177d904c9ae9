"""The hubs of one server: found by host name, made and deleted while it runs."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from moorage.credentials import policy
from moorage.credentials.sas import host_name
from moorage.errors import Conflict, InUse, Invalid, NotFound, PreconditionFailed, Unavailable
from moorage.hub.identity import Identities
from moorage.hub.instance import KIND, Hub
from moorage.hub.scopes import next_scope
from moorage.hub.session import HUB_DELETED, Sessions
from moorage.interfaces import Change, Clear, Clock, Delete, Expect, Frontage, Put, Store

MAX_HUBS = 100

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{1,48})[A-Za-z0-9]")  # as Azure has it
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_MAX_HOST = 253
_ATTEMPTS = 20  # at an internal id; each time it is lost, somebody else has taken it

Beside = Callable[[Hub], Awaitable[Sequence[Change]]]
"""What else is to be in the commit that makes a hub."""


async def _nothing(_: Hub) -> Sequence[Change]:
    return ()


class Hubs:
    """All hubs that are served here. The first one answers to the server's own names and stays for good."""

    def __init__(self, *, store: Store, clock: Clock, reserved: Collection[str] = ()) -> None:
        """`reserved` are host names that no further hub may have."""
        self.by_scope: dict[int, Identities] = {}
        self._by_host: dict[str, Identities] = {}
        self._store = store
        self._clock = clock
        self._attached: Frontage | None = None
        self._reserved = frozenset(reserved)
        self._making: set[str] = set()  # names and host names of hubs that are just being made
        self._at_begin: list[Callable[[Identities], object]] = []
        self._at_end: list[Callable[[Hub], object]] = []
        self._on_change: list[Callable[[], Awaitable[object]]] = []

    async def open(self) -> None:
        """Take up the hubs that are kept; that they can be reached is for the caller to see to."""
        for hub in (await self._store.records(KIND, 0).page(limit=MAX_HUBS)).records:
            await self._serve(hub).open()

    async def keep_presences(self) -> None:
        """Make durable who has connected, gone away and been heard of. Raises Unavailable, StorageFull."""
        for identities in list(self.by_scope.values()):
            await identities.presences.keep()

    def attach(self, frontage: Frontage) -> None:
        """By what further hubs are reached. It shows what is served here, so it comes after."""
        self._attached = frontage

    @property
    def _frontage(self) -> Frontage:
        if self._attached is None:
            raise Unavailable("the server is just starting; try again")
        return self._attached

    def on_change(self, act: Callable[[], Awaitable[object]]) -> None:
        """`act` is called whenever a hub was made, changed or deleted."""
        self._on_change.append(act)

    def at_begin(self, act: Callable[[Identities], object]) -> None:
        """`act` is told of each hub before anybody can reach it; so it is to be named before `open`."""
        self._at_begin.append(act)

    def at_end(self, act: Callable[[Hub], object]) -> None:
        """`act` is told of each hub that was deleted, to end the connections it knows of."""
        self._at_end.append(act)

    # Finding

    def __iter__(self) -> Iterator[Hub]:
        """By age."""
        return (self.by_scope[scope].hub for scope in sorted(self.by_scope))

    def __len__(self) -> int:
        return len(self.by_scope)

    @property
    def first(self) -> Identities:
        return self.by_scope[min(self.by_scope)]

    def by_host(self, host: str) -> tuple[Hub, Identities] | None:
        """The hub that answers to `host`. While there is one only, it answers to any name [design 2]."""
        found = self._by_host.get(host_name(host))
        if found is None and len(self.by_scope) == 1:
            found = self.first
        return None if found is None else (found.hub, found)

    def of_scope(self, scope: int) -> Hub:
        """As it is now. Raises NotFound once it was deleted."""
        found = self.by_scope.get(scope)
        if found is None:
            raise NotFound("hub", str(scope))
        return found.hub

    def named(self, name: str) -> Identities:
        """By its name, in any case. Raises NotFound."""
        for identities in self.by_scope.values():
            if identities.hub.name.lower() == name.lower():
                return identities
        raise NotFound("hub", name[:300])

    # Making and deleting

    async def create(
        self,
        name: str,
        *,
        host_names: Sequence[str] = (),
        partition_count: int = 4,
        beside: Beside = _nothing,
    ) -> Hub:
        """A new hub with policies of its own, reachable and durable on return.

        Without `host_names` it gets one. Raises Invalid, Conflict, Unavailable; then there is no trace of it.
        """
        hosts = [check_host(host) for host in host_names]
        self._check_new(name, hosts)
        with self._reserve(name.lower(), *hosts):
            taken = {*self._by_host, *self._reserved, *self._making}
            admitted = await self._frontage.admit(name, hosts, taken)
            with self._reserve(*admitted):
                try:
                    hub = await self._keep(
                        Hub(
                            scope=0,
                            name=name,
                            host_names=admitted,
                            advertised_host=admitted[0],
                            partition_count=partition_count,
                            created=self._clock.now(),
                        ),
                        beside,
                    )
                except BaseException:
                    await self._frontage.dismiss(admitted)
                    raise
                self._serve(hub)
        await self._changed()
        return hub

    def _check_new(self, name: str, hosts: Sequence[str]) -> None:
        if not _NAME.fullmatch(name):
            raise Invalid("name", "a hub's name has 3 to 50 letters, digits and inner dashes")
        if any(hub.name.lower() == name.lower() for hub in self) or name.lower() in self._making:
            raise Conflict("hub", name)
        if len(self) >= MAX_HUBS:
            raise Invalid("name", f"a server has at most {MAX_HUBS} hubs")
        for host in hosts:
            if host in self._by_host or host in self._reserved or host in self._making:
                raise Invalid("hostNames", f"{host} is in use already; give the hub another name")

    @contextmanager
    def _reserve(self, *names: str) -> Iterator[None]:
        """Keep others from taking `names` while a hub is being made under them."""
        mine = set(names) - self._making
        self._making |= mine
        try:
            yield
        finally:
            self._making -= mine

    async def _keep(self, wanted: Hub, beside: Beside) -> Hub:
        for _ in range(_ATTEMPTS):
            scope, taken = await next_scope(self._store)
            hub = replace(wanted, scope=scope)
            changes: list[Change] = [taken, *founding(hub), *await beside(hub)]
            try:
                await self._store.apply(changes)
            except (Conflict, PreconditionFailed):
                continue
            return hub
        raise Unavailable("too many hubs are being made at once; try again")

    async def put(self, hub: Hub, beside: Sequence[Change] = ()) -> Hub:
        """Replace what is kept of a hub, read from here; its etag is renewed. Raises PreconditionFailed."""
        identities = self.by_scope[hub.scope]
        renewed = replace(hub, etag=Hub.new_etag())
        await self._store.apply([Put(KIND, 0, renewed, hub.etag), *beside])
        self._withdraw(identities)
        identities.hub = renewed
        self._show(identities)
        await self._changed()
        return renewed

    async def delete(self, name: str, beside: Sequence[Change] = ()) -> None:
        """The hub and everything kept under its id; its connections end. Events in the log expire in their time.

        Raises NotFound, and InUse for the first hub.
        """
        identities = self.named(name)
        hub = identities.hub
        self.check_may_go(hub)
        self._withdraw(identities)  # nobody comes in any more
        identities.presences.paused = True
        try:
            await self._store.apply([Delete(KIND, 0, str(hub.scope)), Clear(hub.scope), *beside])
        except BaseException:
            identities.presences.paused = False
            self._show(identities)
            raise
        identities.sessions.drop_all(HUB_DELETED)
        for act in self._at_end:
            act(hub)
        await self._frontage.dismiss(hub.host_names)
        await self._changed()

    def check_may_go(self, hub: Hub) -> None:
        """Raises InUse for the first hub."""
        if hub.scope == self.first.hub.scope:
            raise InUse(
                "hub", hub.name, "it is the server's first, which answers to the server's own host names"
            )

    async def _changed(self) -> None:
        for act in self._on_change:
            await act()

    def _serve(self, hub: Hub) -> Identities:
        identities = Identities(hub, self._store, self._clock, Sessions(self._clock))
        for act in self._at_begin:
            act(identities)
        self._show(identities)
        return identities

    def _show(self, identities: Identities) -> None:
        hub = identities.hub
        self.by_scope[hub.scope] = identities
        for host in hub.host_names:
            self._by_host.setdefault(host, identities)

    def _withdraw(self, identities: Identities) -> None:
        del self.by_scope[identities.hub.scope]
        self._by_host = {host: held for host, held in self._by_host.items() if held is not identities}


def founding(hub: Hub) -> list[Change]:
    """What makes a hub: its record, and the policies that each starts with."""
    policies = [Put(policy.KIND, hub.scope, each) for each in policy.hub_policies()]
    return [Put(KIND, 0, hub, Expect.ABSENT), *policies]


def check_host(text: str) -> str:
    """A host name or an address as a hub may have it, in lower case. Raises Invalid."""
    host = text.lower()
    with suppress(ValueError):
        return str(ipaddress.ip_address(host))
    if len(host) > _MAX_HOST or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise Invalid(
            "hostNames", f"{text[:300]!r} is neither a host name, without scheme and port, nor an address"
        )
    return host
