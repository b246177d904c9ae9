"""Who may call the control API: the one place that judges its tokens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from moorage.adapters.control.routes import Needs
from moorage.adapters.http import Request
from moorage.credentials import policy
from moorage.credentials.decision import Decisions, Finding
from moorage.credentials.policy import SharedAccessPolicy
from moorage.errors import NotFound, Unauthorized
from moorage.hub.instance import Hub
from moorage.interfaces import Clock, Store
from moorage.provisioning.service import ProvisioningService

log = logging.getLogger("moorage.operator")

# In the order of the checks: who got further is more likely to have been meant.
_CHECKS = ("token present", "policy known", "signature", "expiry", "audience", "right")


class _Side(NamedTuple):
    """A service whose policies count, and what such a policy has to grant."""

    scope: int
    host_names: Sequence[str]
    rights: tuple[str, ...]


class Gate:
    """Judges tokens by the policies as they are now: a change of a policy holds for the next request."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        decisions: Decisions,
        service: Callable[[], ProvisioningService],
        hubs: Callable[[], Sequence[Hub]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._decisions = decisions
        self._service = service
        self._hubs = hubs

    def hub(self, name: str) -> Hub:
        """The hub of that name, or that answers to that host name; in any case. Raises NotFound."""
        hubs = self._hubs()
        for hub in hubs:
            if hub.name.lower() == name.lower():
                return hub
        for hub in hubs:
            if hub.answers_to(name):
                return hub
        raise NotFound("hub", name[:200])

    async def authorize(
        self, request: Request, needs: Needs, hub: Hub | None
    ) -> tuple[int, SharedAccessPolicy]:
        """The policy that lets the caller in, behind the scope of what it is a policy of.

        Raises Unauthorized, with a decision record of the likeliest refusal.
        """
        refusals: list[tuple[Finding, Unauthorized]] = []
        for side in self._sides(needs, hub):
            policies = (await self._store.records(policy.KIND, side.scope).page(limit=1000)).records
            asked = f"{request.method} {request.path}"
            finding = Finding.from_peer(
                request.peer, request.tracking_id, "operator request", asked, scope=side.scope
            )
            try:
                caller = policy.authorize(
                    request.headers.get("authorization"),
                    resource=[
                        f"{host}{request.path}" for host in dict.fromkeys((request.host, *side.host_names))
                    ],
                    right=side.rights,
                    policies=policies,
                    now=self._clock.now(),
                    finding=finding,
                )
            except Unauthorized as error:
                refusals.append((finding, error))
            else:
                return side.scope, caller
        finding, refusal = max(refusals, key=lambda each: _progress(each[1]))
        self._refused(finding, refusal)
        raise refusal

    def _sides(self, needs: Needs, hub: Hub | None) -> Iterator[_Side]:
        if needs.dps is not None:
            service = self._service()
            yield _Side(service.scope, service.host_names, needs.dps)
        if needs.hub is not None:
            for each in [hub] if hub is not None else self._hubs():
                yield _Side(each.scope, each.host_names, needs.hub)

    def _refused(self, finding: Finding, refusal: Unauthorized) -> None:
        self._decisions.refuse(finding, refusal, self._clock.now(), log)


def _progress(refusal: Unauthorized) -> int:
    return _CHECKS.index(refusal.check) if refusal.check in _CHECKS else 0
