"""The hubs linked to one provisioning service, and how each takes part in allocation [dps 13.1, 18]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from moorage.credentials import policy as policies
from moorage.credentials.connection_string import ConnectionString
from moorage.credentials.etag import Condition, expectation, new_etag
from moorage.errors import Conflict, Invalid, NotFound, PreconditionFailed, TooLarge, Unavailable
from moorage.hub.instance import Hub
from moorage.hub.scopes import next_scope
from moorage.interfaces import Change, Delete, Expect, Put, Store
from moorage.provisioning.service import LINKED_HUB_KIND, MAX_LINKED_HUBS, LinkedHub

NOUN = "linked hub"
ATTEMPTS = 20  # at an internal id; each time it is lost, somebody else has taken it


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTerms:
    """What an operator decides about a linked hub; see `LinkedHub`."""

    weight: int = 1
    eligible: bool = True
    location: str | None = None
    latency_ms: float | None = None

    @classmethod
    def of(cls, linked: LinkedHub) -> LinkTerms:
        return cls(
            weight=linked.weight,
            eligible=linked.eligible,
            location=linked.location,
            latency_ms=linked.latency_ms,
        )


class LinkedHubs:
    """What a verb returns is durable, and holds for the next registration."""

    def __init__(self, store: Store, scope: int) -> None:
        """`scope` is that of the provisioning service."""
        self._store = store
        self._records = store.records(LINKED_HUB_KIND, scope)
        self._scope = scope

    async def all(self) -> Sequence[LinkedHub]:
        return (await self._records.page(limit=MAX_LINKED_HUBS)).records

    async def get(self, host_name: str) -> LinkedHub:
        """Raises NotFound."""
        found = await self._records.find("host_name", host_name.lower())
        if not found:
            raise NotFound(NOUN, host_name[:300])
        return found[0]

    async def of(self, hub: Hub) -> LinkedHub | None:
        return await self._records.get(str(hub.scope))

    async def link(self, hub: Hub, terms: LinkTerms) -> LinkedHub:
        """Raises Conflict, Invalid, TooLarge."""
        await self.check_room(hub.advertised_host)
        linked = _link(hub, terms)
        try:
            return await self._records.put(linked)
        except Conflict:
            raise Conflict(NOUN, linked.host_name) from None

    async def link_distant(self, login: ConnectionString, terms: LinkTerms) -> LinkedHub:
        """Link a hub of another server. Whether it is there is seen when the first device is assigned.

        Raises Conflict, Invalid, TooLarge.
        """
        for _ in range(ATTEMPTS):
            await self.check_room(login.host)
            scope, taken = await next_scope(self._store)
            linked = LinkedHub(hub=scope, host_name=login.host, login=login, **asdict(terms), etag=new_etag())
            try:
                await self._store.apply([taken, Put(LINKED_HUB_KIND, self._scope, linked)])
            except (Conflict, PreconditionFailed):
                continue
            return linked
        raise Unavailable("too many hubs are being linked at once; try again")

    async def check_room(self, host_name: str) -> None:
        """Raises Conflict, TooLarge where one more of that name cannot be linked."""
        linked = await self.all()
        if any(other.host_name.lower() == host_name.lower() for other in linked):
            raise Conflict(NOUN, host_name)
        if len(linked) >= MAX_LINKED_HUBS:
            raise TooLarge("linkedHubs", f"a service has at most {MAX_LINKED_HUBS} linked hubs")

    async def check_ours(self, hub: Hub, login: ConnectionString) -> None:
        """Raises Invalid unless `login`, which bears a name of `hub`, is by one of its policies."""
        held = await self._store.records(policies.KIND, hub.scope).get(login.policy)
        if held is None or login.key not in held.keys:
            raise Invalid(
                "connectionString",
                f"{login.host} is a name of the hub {hub.name!r} of this server, and the key is none of its policy's; "
                "a hub of another server needs a host name of its own",
            )

    async def change(
        self,
        host_name: str,
        terms: LinkTerms,
        condition: Condition | None = None,
        *,
        login: ConnectionString | None = None,
    ) -> LinkedHub:
        """`login` replaces that of a hub of another server. Raises NotFound, Invalid, PreconditionFailed."""
        held = await self.get(host_name)
        if login is not None and (held.login is None or held.login.host != login.host):
            raise Invalid("connectionString", f"is not one of {host_name}, or that is a hub of this server")
        if condition is not None:
            condition.check(held, NOUN, host_name)
        changed = replace(held, **asdict(terms), login=login or held.login, etag=new_etag())
        return await self._records.put(changed, expect=held.etag)

    async def unlink(self, host_name: str, condition: Condition | None = None) -> None:
        """Devices assigned to the hub stay in it until they register again. Raises NotFound, PreconditionFailed."""
        held = await self.get(host_name)
        expect = expectation(held, condition, NOUN, host_name)
        await self._records.delete(str(held.hub), expect=expect)

    # For the commits of others

    async def linking(self, hub: Hub) -> list[Change]:
        """Link a hub that is being made. Raises Conflict, TooLarge."""
        await self.check_room(hub.advertised_host)
        return [Put(LINKED_HUB_KIND, self._scope, _link(hub, LinkTerms()))]

    async def unlinking(self, hub: Hub) -> list[Change]:
        """Unlink a hub that is being deleted."""
        return [Delete(LINKED_HUB_KIND, self._scope, str(hub.scope), Expect.ANY)]

    async def renaming(self, hub: Hub) -> list[Change]:
        """Tell devices the hub's new name, if it is linked."""
        held = await self.of(hub)
        if held is None:
            return []
        renamed = replace(held, host_name=hub.advertised_host, etag=new_etag())
        return [Put(LINKED_HUB_KIND, self._scope, renamed, held.etag)]


def _link(hub: Hub, terms: LinkTerms) -> LinkedHub:
    return LinkedHub(hub=hub.scope, host_name=hub.advertised_host, **asdict(terms), etag=new_etag())
