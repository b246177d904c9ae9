"""Credential policies of the provisioning service: `credentialPolicies` [dps 20.1].

Who sets one decides for how long devices may come with the certificates that they are given, so it takes the right to
enroll them, and that to configure.
"""

from __future__ import annotations

from moorage.adapters.control.routes import Call, Needs, Route, record_response
from moorage.adapters.http import Response, json_response
from moorage.credentials.policy import ENROLLMENT_READ, ENROLLMENT_WRITE, SERVICE_CONFIG
from moorage.provisioning.credential_policy import CredentialPolicy
from moorage.provisioning.issuance import CredentialPolicies

_READ = Needs(dps=(ENROLLMENT_READ,))
_CONFIGURE = Needs(dps=(SERVICE_CONFIG, ENROLLMENT_WRITE))


class CredentialPolicyRoutes:
    def __init__(self, policies: CredentialPolicies) -> None:
        self._policies = policies
        one = "credentialPolicies/{policy}"
        self.routes = (
            Route("GET", "credentialPolicies", _READ, self._list),
            Route("GET", one, _READ, self._show),
            Route("PUT", one, _CONFIGURE, self._put),
            Route("DELETE", one, _CONFIGURE, self._delete),
        )

    async def _list(self, call: Call) -> Response:
        policies = await self._policies.all()
        return json_response([{**policy.to_json(), "etag": policy.etag} for policy in policies])

    async def _show(self, call: Call) -> Response:
        return _response(await self._policies.get(call.named["policy"]))

    async def _put(self, call: Call) -> Response:
        """Create without `If-Match`, replace with it, as the data planes of Azure do."""
        document, condition = call.request.json_object(), call.condition
        policy = await self._policies.put(call.named["policy"], document, condition=condition)
        return _response(policy, 201 if condition is None else 200)

    async def _delete(self, call: Call) -> Response:
        await self._policies.delete(call.named["policy"], condition=call.condition)
        return Response(204)


def _response(policy: CredentialPolicy, status: int = 200) -> Response:
    return record_response(policy.to_json(), policy.etag, status)
