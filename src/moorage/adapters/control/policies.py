"""Shared access policies: `service/policies` of the provisioning service, `hubs/{hub}/policies` of a hub.

Whoever reads a policy holds its keys, and whoever changes one gives rights: both take an administrator's rights.
"""

from __future__ import annotations

from collections.abc import Iterator

from moorage.adapters.control.routes import Call, Needs, Route, record_response
from moorage.adapters.http import Response, json_response
from moorage.credentials.policies import KeyToRenew, Policies, PolicyChanged, policy_view, read_policy
from moorage.credentials.policy import HUB_RULES, PROVISIONING_RULES, SharedAccessPolicy
from moorage.errors import Invalid
from moorage.interfaces import Store


class PolicyRoutes:
    def __init__(self, *, store: Store, dps_scope: int, changed: PolicyChanged) -> None:
        self._store = store
        self._dps_scope = dps_scope
        self._changed = changed
        self.routes = (
            *self._below("service", Needs(dps=PROVISIONING_RULES.administer)),
            *self._below("hubs/{hub}", Needs(hub=HUB_RULES.administer)),
        )

    def _below(self, owner: str, needs: Needs) -> Iterator[Route]:
        yield Route("GET", f"{owner}/policies", needs, self._list)
        yield Route("GET", f"{owner}/policies/{{policy}}", needs, self._show)
        yield Route("PUT", f"{owner}/policies/{{policy}}", needs, self._put)
        yield Route("DELETE", f"{owner}/policies/{{policy}}", needs, self._delete)
        yield Route("POST", f"{owner}/policies/{{policy}}/renewKey", needs, self._renew_key)

    def _policies(self, call: Call) -> Policies:
        scope, rules = (
            (self._dps_scope, PROVISIONING_RULES) if call.hub is None else (call.hub.scope, HUB_RULES)
        )
        return Policies(scope, rules, store=self._store, changed=self._changed)

    async def _list(self, call: Call) -> Response:
        found = await self._policies(call).list()
        return json_response([{**policy_view(each), "etag": each.etag} for each in found])

    async def _show(self, call: Call) -> Response:
        return _response(await self._policies(call).get(call.named["policy"]))

    async def _put(self, call: Call) -> Response:
        """Create without `If-Match`, change with it, as the data planes of Azure do."""
        policies, name, document = self._policies(call), call.named["policy"], call.request.json_object()
        if call.condition is None:
            return _response(await policies.create(read_policy(name, document, policies.rules)), 201)
        old = await self._meant(call, policies)
        return _response(await policies.replace(old, read_policy(name, document, policies.rules, old)))

    async def _renew_key(self, call: Call) -> Response:
        key = call.request.json_object().get("key")
        if key not in list(KeyToRenew):
            raise Invalid("key", f"is one of {', '.join(KeyToRenew)}")
        policies = self._policies(call)
        return _response(await policies.renew(await self._meant(call, policies), KeyToRenew(key)))

    async def _delete(self, call: Call) -> Response:
        policies = self._policies(call)
        await policies.delete(await self._meant(call, policies))
        return Response(204)

    async def _meant(self, call: Call, policies: Policies) -> SharedAccessPolicy:
        """The policy of the path, at the version that the caller means. Raises NotFound, PreconditionFailed."""
        found = await policies.get(call.named["policy"])
        if call.condition is not None:
            call.condition.check(found, "shared access policy", found.name)
        return found


def _response(found: SharedAccessPolicy, status: int = 200) -> Response:
    return record_response(policy_view(found), found.etag, status)
