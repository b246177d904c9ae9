"""What a server starts with: the provisioning service and the hubs of its records, or the first of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moorage.credentials import policy
from moorage.credentials.etag import new_etag
from moorage.errors import Unavailable
from moorage.hub.hubs import Hubs, founding
from moorage.hub.instance import Hub
from moorage.interfaces import Change, Put, Store
from moorage.provisioning.linked_hubs import LinkedHubs
from moorage.provisioning.service import SERVICE_KIND, ProvisioningService, new_id_scope

DPS_SCOPE = 1  # the first of the sequence; the first hub has the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the first hub and the provisioning service are called now, by the operator's options."""

    hub: str
    hub_also: Sequence[str]
    dps: str
    dps_also: Sequence[str]

    @property
    def of_hub(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.hub, *self.hub_also)))

    @property
    def of_dps(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.dps, *self.dps_also)))


async def provisioning_service(
    store: Store, names: Names, *, partition_count: int, now: int
) -> ProvisioningService:
    """The service of the records; where there is none, one with its first hub linked, in one commit."""
    found = (await store.records(SERVICE_KIND, 0).page(limit=1)).records
    if found:
        return found[0]
    service = ProvisioningService(
        scope=DPS_SCOPE, id_scope=new_id_scope(), host_names=names.of_dps, created=now, etag=new_etag()
    )
    hub = Hub(
        scope=DPS_SCOPE + 1,
        name=_hub_name(names.hub),
        host_names=names.of_hub,
        advertised_host=names.hub,
        partition_count=partition_count,
        created=now,
    )
    changes: list[Change] = [
        Put(SERVICE_KIND, 0, service),
        *(Put(policy.KIND, DPS_SCOPE, each) for each in policy.provisioning_policies()),
        *founding(hub),
        *await LinkedHubs(store, DPS_SCOPE).linking(hub),
    ]
    await store.apply(changes)
    return service


async def follow_names(hubs: Hubs, linked: LinkedHubs, names: Names) -> None:
    """The first hub keeps every name it ever had; the one it is advertised under follows the options.

    A name that has become another hub's stays with that one. Raises Unavailable where it would be advertised.
    """
    hub = hubs.first.hub
    held = {name for other in hubs if other is not hub for name in other.host_names}
    if names.hub in held:
        raise Unavailable(f"{names.hub} is the host name of another hub; start the server under another name")
    of_hub = tuple(name for name in dict.fromkeys((*hub.host_names, *names.of_hub)) if name not in held)
    if (of_hub, names.hub) != (hub.host_names, hub.advertised_host):
        renamed = replace(hub, host_names=of_hub, advertised_host=names.hub)
        await hubs.put(renamed, beside=await linked.renaming(renamed))


def _hub_name(host: str) -> str:
    """`hub.example.org` → `hub`; an address has no name in it."""
    return "hub" if host[-1:].isdigit() else host.partition(".")[0]
