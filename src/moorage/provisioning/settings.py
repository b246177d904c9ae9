"""What an operator can set of a provisioning service as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from moorage.credentials.etag import Condition, new_etag
from moorage.errors import Invalid, NotFound
from moorage.interfaces import Expect, Store
from moorage.provisioning.service import SERVICE_KIND, AllocationPolicy, ProvisioningService

_KIND = "provisioning service"
_MEMBERS = frozenset({"allocationPolicy", "etag"})


class ServiceSettings:
    """Of one service. What `update` returns is durable, and holds for the next registration."""

    def __init__(self, scope: int, store: Store) -> None:
        self._key = str(scope)
        self._records = store.records(SERVICE_KIND, 0)

    async def get(self) -> ProvisioningService:
        found = await self._records.get(self._key)
        if found is None:
            raise NotFound(_KIND, self._key)
        return found

    async def update(self, document: Mapping[str, Any], condition: Condition | None) -> ProvisioningService:
        """Change what `document` names; the rest stays. Raises Invalid, PreconditionFailed."""
        if unknown := document.keys() - _MEMBERS:
            raise Invalid(min(unknown)[:100], "cannot be changed; only allocationPolicy can")
        old = await self.get()
        if condition is not None:
            condition.check(old, _KIND, old.id_scope)
        policy = document.get("allocationPolicy")
        chosen = old.allocation_policy if policy is None else read_allocation_policy(policy)
        new = replace(old, allocation_policy=chosen, etag=new_etag())
        return await self._records.put(new, expect=Expect.PRESENT if condition is None else old.etag)


def read_allocation_policy(name: object) -> AllocationPolicy:
    """In any case. Raises Invalid; custom allocation is declared by an enrollment alone [dps 13.1]."""
    choices = [each for each in AllocationPolicy if each is not AllocationPolicy.CUSTOM]
    for each in choices:
        if isinstance(name, str) and name.lower() == each.value.lower():
            return each
    raise Invalid("allocationPolicy", f"is one of {', '.join(choices)}")
