"""The shared access policies of one service as an operator changes them.

The owner policy stays and keeps its rights: there is always somebody who can administer, and `moorage env` and the
command line have a policy to sign with. Its keys can be made anew like any other's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

from moorage.credentials import policy
from moorage.credentials.policy import PolicyRules, SharedAccessPolicy, new_etag
from moorage.credentials.sas import new_key
from moorage.errors import Invalid, NotFound
from moorage.interfaces import Store

MAX_POLICIES = 100  # of one service
KEY_SIZE = 32  # bytes

_KIND = "shared access policy"
_MEMBERS = frozenset({"keyName", "primaryKey", "secondaryKey", "rights", "etag"})

PolicyChanged = Callable[[int, str, SharedAccessPolicy | None], Awaitable[None]]
"""Told after each change: scope, name, and the policy as it is now, None when it is gone."""


class KeyToRenew(StrEnum):
    PRIMARY = "primary"
    SECONDARY = "secondary"
    SWAP = "swap"


class Policies:
    """The policies of one scope. What a verb returns is durable, and every later look at a token sees it."""

    def __init__(self, scope: int, rules: PolicyRules, *, store: Store, changed: PolicyChanged) -> None:
        self.rules = rules
        self._scope = scope
        self._records = store.records(policy.KIND, scope)
        self._changed = changed

    async def list(self) -> Sequence[SharedAccessPolicy]:
        """By name."""
        return (await self._records.page(limit=MAX_POLICIES)).records

    async def get(self, name: str) -> SharedAccessPolicy:
        """Raises NotFound."""
        found = await self._records.get(name)
        if found is None:
            raise NotFound(_KIND, name[:200])
        return found

    async def create(self, made: SharedAccessPolicy) -> SharedAccessPolicy:
        """Raises Conflict, Invalid."""
        _check_rights(made.rights, self.rules)
        if await self._records.count() >= MAX_POLICIES:
            raise Invalid("keyName", f"a service has at most {MAX_POLICIES} shared access policies")
        return await self._put(made, None)

    async def replace(self, old: SharedAccessPolicy, new: SharedAccessPolicy) -> SharedAccessPolicy:
        """Put `new` where `old` still stands. Raises PreconditionFailed, NotFound, Invalid."""
        _check_rights(new.rights, self.rules)
        if new.name == self.rules.owner and not new.rights >= old.rights:
            raise Invalid("rights", f"{new.name!r} keeps all its rights, so that somebody can administer")
        return await self._put(new, old.etag)

    async def renew(self, old: SharedAccessPolicy, which: KeyToRenew) -> SharedAccessPolicy:
        """A new key in place of one of the two, or the two exchanged. Raises PreconditionFailed, NotFound."""
        match which:
            case KeyToRenew.PRIMARY:
                new = replace(old, primary_key=new_key(KEY_SIZE))
            case KeyToRenew.SECONDARY:
                new = replace(old, secondary_key=new_key(KEY_SIZE))
            case KeyToRenew.SWAP:
                new = replace(old, primary_key=old.secondary_key, secondary_key=old.primary_key)
        return await self._put(replace(new, etag=new_etag()), old.etag)

    async def delete(self, old: SharedAccessPolicy) -> None:
        """Raises PreconditionFailed, NotFound, Invalid."""
        if old.name == self.rules.owner:
            raise Invalid(
                "keyName",
                f"{old.name!r} cannot be deleted, so that somebody can administer; renew its keys instead",
            )
        await self._records.delete(old.name, expect=old.etag)
        await self._changed(self._scope, old.name, None)

    async def _put(self, made: SharedAccessPolicy, expect: str | None) -> SharedAccessPolicy:
        put = await (self._records.put(made) if expect is None else self._records.put(made, expect=expect))
        await self._changed(self._scope, put.name, put)
        return put


def read_policy(
    name: str, document: Mapping[str, Any], rules: PolicyRules, old: SharedAccessPolicy | None = None
) -> SharedAccessPolicy:
    """From JSON, under a new etag. What is absent or null stays as in `old`, or is made. Raises Invalid."""
    if unknown := document.keys() - _MEMBERS:
        raise Invalid(min(unknown)[:100], "is no member of a shared access policy")
    named = document.get("keyName")
    if named is not None and named != name:
        raise Invalid("keyName", "the body names another policy than the path")
    rights = _read_rights(document.get("rights"), rules)
    if rights is None and old is None:
        raise Invalid("rights", f"name at least one of {', '.join(sorted(rules.rights))}")
    return SharedAccessPolicy(
        name=name,
        primary_key=_text(document, "primaryKey") or (old.primary_key if old else new_key(KEY_SIZE)),
        secondary_key=_text(document, "secondaryKey") or (old.secondary_key if old else new_key(KEY_SIZE)),
        rights=rights if rights is not None else old.rights if old else frozenset(),
        etag=new_etag(),
    )


def _read_rights(value: object, rules: PolicyRules) -> frozenset[str] | None:
    """An array of names, or as Azure's resource manager writes it one text with commas; in any case."""
    if value is None:
        return None
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Invalid("rights", "is an array of strings")
    spelled = {right.lower(): right for right in rules.rights}
    rights = frozenset(spelled.get(name.strip().lower(), name.strip()[:100]) for name in names)
    _check_rights(rights, rules)
    return rights


def _check_rights(rights: frozenset[str], rules: PolicyRules) -> None:
    allowed = ", ".join(sorted(rules.rights))
    if not rights:
        raise Invalid("rights", f"a policy has at least one of {allowed}")
    if unknown := rights - rules.rights:
        raise Invalid("rights", f"{min(unknown)!r} is not one of {allowed}")


def _text(document: Mapping[str, Any], member: str) -> str | None:
    value = document.get(member)
    if value is not None and not isinstance(value, str):
        raise Invalid(member, "is a string")
    return value or None


def policy_view(found: SharedAccessPolicy) -> dict[str, Any]:
    """A policy as an operator reads it, keys included."""
    return {
        "keyName": found.name,
        "primaryKey": found.primary_key,
        "secondaryKey": found.secondary_key,
        "rights": sorted(found.rights),
    }
