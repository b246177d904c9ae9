"""Who a swarm is made of: devices that DPS lets in through a group, or that stand in the hub already.

All of it is made through the public APIs, and taken away again afterwards: the group, the registration records, the
identities with their twins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import quote

from moorage.cli.rest import DPS_API_VERSION, HUB_API_VERSION, Refused, Service
from moorage.cli.swarm.device import Member
from moorage.cli.target import Login
from moorage.credentials.issuing import common_name
from moorage.credentials.sas import derive_key, new_key
from moorage.credentials.workshop.credential import Wish, make_device, make_root, pem

AT_ONCE = 100  # identities in one request [hub-service 5.5]
CALLERS = 4  # connections over which records are deleted
DAYS = 7  # that certificates are valid

Made = Callable[[int], None]
"""Told of how many devices have been made, from time to time."""


class Population(Protocol):
    registers: bool

    def make(self, names: Sequence[str], made: Made) -> list[Member]:
        """Raises Refused, Unavailable."""
        ...

    def clear(self, names: Sequence[str]) -> None:
        """Take away what stands of them. Raises Refused, Unavailable."""
        ...


class _Group:
    """Devices of an enrollment group that leads to one hub."""

    registers = True

    def __init__(self, name: str, dps: Login, hub: Login) -> None:
        self._name = name
        self._dps = dps
        self._hub = hub

    def clear(self, names: Sequence[str]) -> None:
        _delete(Service(self._dps, DPS_API_VERSION), f"/enrollmentGroups/{quote(self._name, safe='')}")
        with ThreadPoolExecutor(CALLERS) as callers:
            for done in [callers.submit(self._forget, names[start::CALLERS]) for start in range(CALLERS)]:
                done.result()
        _delete_identities(self._hub, names)

    def _forget(self, names: Sequence[str]) -> None:
        with Service(self._dps, DPS_API_VERSION).kept_open() as service:
            for name in names:
                _delete(service, f"/registrations/{quote(name, safe='')}")

    def _enroll(self, attestation: dict[str, Any]) -> dict[str, Any]:
        document = {
            "enrollmentGroupId": self._name,
            "attestation": attestation,
            "allocationPolicy": "static",
            "iotHubs": [self._hub.host],
        }
        path = f"/enrollmentGroups/{quote(self._name, safe='')}"
        enrolled: dict[str, Any] = Service(self._dps, DPS_API_VERSION).put(path, document)
        return enrolled


class X509Group(_Group):
    """Each device has a key and a certificate of its own, signed by a CA made for the swarm."""

    def make(self, names: Sequence[str], made: Made) -> list[Member]:
        now = datetime.now(UTC).replace(microsecond=0)
        ca = make_root(Wish(common_name(f"{self._name} CA"), now, DAYS))
        certificate = {"certificate": pem([ca.certificate]).decode()}
        self._enroll({"type": "x509", "x509": {"signingCertificates": {"primary": certificate}}})
        members = []
        for number, name in enumerate(names, 1):
            issued = make_device(Wish(common_name(name), now, DAYS), ca)
            members.append(Member(name=name, credential=(issued.certificate, issued.key)))
            if number % 50 == 0:
                made(number)
        return members


class SymmetricKeyGroup(_Group):
    """Each device's key is derived from the group's."""

    def make(self, names: Sequence[str], made: Made) -> list[Member]:
        group_key = new_key()
        keys = {"primaryKey": group_key, "secondaryKey": new_key()}
        self._enroll({"type": "symmetricKey", "symmetricKey": keys})
        made(len(names))
        return [Member(name=name, key=derive_key(group_key, name)) for name in names]


class InTheHub:
    """Identities with keys, made in bulk; nobody registers."""

    registers = False

    def __init__(self, hub: Login) -> None:
        self._hub = hub

    def make(self, names: Sequence[str], made: Made) -> list[Member]:
        members = []
        with Service(self._hub, HUB_API_VERSION).kept_open() as service:
            for some in _lots(names):
                keys = {name: new_key(32) for name in some}
                service.call("POST", "/devices", [_identity(name, key) for name, key in keys.items()])
                members += [Member(name=name, key=key) for name, key in keys.items()]
                made(len(members))
        return members

    def clear(self, names: Sequence[str]) -> None:
        _delete_identities(self._hub, names)


def population(attestation: str, name: str, dps: Login | None, hub: Login) -> Population:
    if attestation == "none":
        return InTheHub(hub)
    assert dps is not None
    return (X509Group if attestation == "x509-group" else SymmetricKeyGroup)(name, dps, hub)


def _identity(name: str, key: str) -> dict[str, Any]:
    keys = {"primaryKey": key, "secondaryKey": new_key(32)}
    authentication = {"type": "sas", "symmetricKey": keys}
    return {"id": name, "importMode": "create", "status": "enabled", "authentication": authentication}


def _delete_identities(hub: Login, names: Sequence[str]) -> None:
    """Those that are there; an answer of 400 says which were not."""
    with Service(hub, HUB_API_VERSION).kept_open() as service:
        for some in _lots(names):
            service.call(
                "POST", "/devices", [{"id": name, "importMode": "delete"} for name in some], accepted=(400,)
            )


def _delete(service: Service, path: str) -> None:
    try:
        service.delete(path, if_match="*")
    except Refused as refused:
        if refused.status != 404:  # never made
            raise


def _lots(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), AT_ONCE):
        yield names[start : start + AT_ONCE]
