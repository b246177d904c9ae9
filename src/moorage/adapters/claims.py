"""What one AMQP connection may do: the tokens that it has shown, together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moorage.credentials import sas
from moorage.credentials.policy import SharedAccessPolicy
from moorage.errors import Unauthorized

MAX_GRANTS = 1000  # tokens one connection may show [hub-device 4.8]
EXPIRY_GRACE = 300_000_000  # microseconds that a link outlives its token [hub-service 27.34]


@dataclass(frozen=True, slots=True)
class Grant:
    """A token that held: what it covers, and the policy that says what it allows."""

    token: sas.SasToken
    policy: SharedAccessPolicy

    @property
    def ends(self) -> int:
        """Microseconds at which it stops counting."""
        return self.token.expiry * 1_000_000 + EXPIRY_GRACE


class Grants:
    """All that one connection may do; a later token for the same resource replaces the earlier."""

    def __init__(self) -> None:
        self._by_resource: dict[str, Grant] = {}

    def add(self, grant: Grant) -> None:
        """Raises Unauthorized when there are too many."""
        if len(self._by_resource) >= MAX_GRANTS and grant.token.resource not in self._by_resource:
            raise Unauthorized(f"a connection shows at most {MAX_GRANTS} tokens", check="token count")
        self._by_resource[grant.token.resource] = grant

    def policy_changed(self, name: str, changed: SharedAccessPolicy | None) -> bool:
        """Judge again what the policy `name` has signed, by what it is now; whether anything was changed."""
        signed = [(key, grant) for key, grant in self._by_resource.items() if grant.policy.name == name]
        for resource, grant in signed:
            if changed is not None and sas.signed_by(grant.token, changed.keys, text_keys=True):
                self._by_resource[resource] = replace(grant, policy=changed)
            else:
                del self._by_resource[resource]
        return bool(signed)

    def require(self, resources: Sequence[str], right: str, now: int) -> None:
        """Raises Unauthorized unless one token covers one of `resources` and its policy has `right`."""
        why = f"no token was presented for '{resources[0][:300]}'"
        for grant in self._by_resource.values():
            covered = grant.token.resource
            if not any(sas.covers(covered, resource, ignore_case=True) for resource in resources):
                continue
            if grant.ends <= now:
                why = f"the token for '{covered[:300]}' has expired"
            elif not grant.policy.allows(right):
                why = f"shared access policy '{grant.policy.name}' does not have the right {right}"
            else:
                return
        raise Unauthorized(why, check="claims", remedy=f"Present a token of a policy with {right}.")

    def next_end(self, now: int) -> int | None:
        """Microseconds at which the next of the tokens stops counting; None when none is left that could."""
        return min((grant.ends for grant in self._by_resource.values() if grant.ends > now), default=None)
