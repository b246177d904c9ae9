"""Register devices in FOLDER, many at once, while their hubs change, and append to SAID what each was told.

    told NAME OPERATION HUB

Devices come by certificate and by key, enrolled each by itself or by a group. Everything about them follows from
their names, so that whoever looks at the folder afterwards can come as the same device.

With a third argument for SQLite's `synchronous` other than FULL, the promises are hollow.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from moorage.app import KINDS
from moorage.credentials.decision import Decisions
from moorage.credentials.etag import new_etag
from moorage.credentials.sas import derive_key, make_token
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.hub.session import Sessions
from moorage.provisioning.attestation.proof import Proof, SasProof, X509Proof
from moorage.provisioning.provisioner import Provisioner, RegistrationRequest
from moorage.provisioning.service import SERVICE_KIND, ApiVersion, LinkedHub, ProvisioningService
from moorage.store import commit, database
from moorage.store.folder import DataFolder
from moorage.store.sqlite import SqliteStore

ROUNDS = 12  # that each device registers; between two of them its hub may change
KINDS_OF_DEVICE = ("certificate", "key", "line", "plant")  # the last two belong to groups
DEVICES = [f"{kind}-{number}" for kind in KINDS_OF_DEVICE for number in range(3)]

DPS, HUBS = 1, (2, 3)
ID_SCOPE = "0ne00ABCDEF"
NEWEST = ApiVersion("2021-10-01", reprovisioning=True, precise_substatus=True)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
KEY = base64.b64encode(bytes(range(32))).decode()
RESET = {"updateHubAssignment": True, "migrateDeviceData": False}


class Noon:
    def now(self) -> int:
        return round(NOON.timestamp() * 1_000_000)

    def monotonic(self) -> float:
        return 0.0


@cache
def certificate(common_name: str, issuer: str | None = None) -> x509.Certificate:
    """The same in each process: of Ed25519, whose keys are any bytes and whose signatures do not vary."""
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (common_name, issuer) if each
    ]
    usage = x509.KeyUsage(
        digital_signature=issuer is not None,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issuer is None,
        crl_sign=issuer is None,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(names[0])
        .issuer_name(names[-1])
        .public_key(_key(common_name).public_key())
        .serial_number(1 + sum(common_name.encode()))
        .not_valid_before(NOON.replace(year=2025))
        .not_valid_after(NOON.replace(year=2027))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(_key(issuer or common_name), None)
    )


def _key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b"."))


def proof(name: str) -> Proof:
    kind = name.partition("-")[0]
    if kind in ("certificate", "plant"):
        leaf = certificate(name, "plant CA" if kind == "plant" else None)
        return X509Proof((leaf.public_bytes(Encoding.DER),))
    key = derive_key(KEY, name) if kind == "line" else KEY
    return SasProof(make_token(f"{ID_SCOPE}/registrations/{name}", key, 4_102_444_800))


def request(name: str) -> RegistrationRequest:
    return RegistrationRequest(id_scope=ID_SCOPE, registration_id=name, api_version=NEWEST)


def provisioner_of(store: SqliteStore) -> Provisioner:
    clock = Noon()
    hubs = {}
    for scope in HUBS:
        host = host_of(scope)
        hub = Hub(scope=scope, name=f"hub-{scope}", host_names=(host,), advertised_host=host, created=0)
        hubs[scope] = Identities(hub, store, clock, Sessions(clock))
    service = ProvisioningService(
        scope=DPS, id_scope=ID_SCOPE, host_names=("dps.example.net",), created=0, etag=new_etag()
    )
    return Provisioner(service, store=store, clock=clock, hubs=hubs, decisions=Decisions())


def host_of(scope: int) -> str:
    return f"hub-{scope}.example.net"


def link(scope: int, *, weight: int) -> LinkedHub:
    return LinkedHub(hub=scope, host_name=host_of(scope), weight=weight, etag=new_etag())


def enrollments() -> Iterator[dict[str, Any]]:
    for name in DEVICES:
        kind, _, number = name.partition("-")
        members: dict[str, Any] = {"registrationId": name, "initialTwin": {"tags": {"name": name}}}
        if number == "0":
            members["reprovisionPolicy"] = RESET
        if kind == "certificate":
            pem = certificate(name).public_bytes(Encoding.PEM).decode()
            x509 = {"clientCertificates": {"primary": {"certificate": pem}}}
            yield {**members, "attestation": {"type": "x509", "x509": x509}}
        elif kind == "key":
            keys = {"primaryKey": KEY, "secondaryKey": KEY}
            yield {**members, "attestation": {"type": "symmetricKey", "symmetricKey": keys}}


def groups() -> Iterator[dict[str, Any]]:
    keys = {"primaryKey": KEY, "secondaryKey": KEY}
    yield {"enrollmentGroupId": "line", "attestation": {"type": "symmetricKey", "symmetricKey": keys}}
    pem = certificate("plant CA").public_bytes(Encoding.PEM).decode()
    x509 = {"signingCertificates": {"primary": {"certificate": pem}}}
    yield {"enrollmentGroupId": "plant", "attestation": {"type": "x509", "x509": x509}}


async def set_up(store: SqliteStore, provisioner: Provisioner) -> None:
    await store.records(SERVICE_KIND, 0).put(provisioner.service)
    for scope in HUBS:
        await provisioner.link_hub(link(scope, weight=1))
    for enrollment in enrollments():
        await provisioner.enrollments.put(enrollment, if_match=None, api_version=NEWEST)
    for group in groups():
        await provisioner.groups.put(group, if_match=None, api_version=NEWEST)


async def come_again_and_again(provisioner: Provisioner, name: str, said: int) -> None:
    for _ in range(ROUNDS):
        state = await provisioner.register(request(name), proof(name))
        os.write(said, f"told {name} {state.operation_id} {state.assigned_hub}\n".encode())


async def move_them(provisioner: Provisioner) -> None:
    """Weigh the hubs anew, again and again: devices go from one to the other and back."""
    for number in range(1, 2 * ROUNDS):
        weights = (1, 1000) if number % 2 else (1000, 1)
        for scope, weight in zip(HUBS, weights, strict=True):
            await provisioner.link_hub(link(scope, weight=weight))


async def main(path: Path, said: Path, synchronous: str = "FULL") -> None:
    database.SYNCHRONOUS = synchronous
    commit.CHECKPOINT_AFTER = 40  # often enough for a cut to fall within one
    folder = DataFolder.open(path)
    store = SqliteStore.open(folder.records, kinds=KINDS)
    promises = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    provisioner = provisioner_of(store)
    await set_up(store, provisioner)
    devices = (come_again_and_again(provisioner, name, promises) for name in DEVICES)
    await asyncio.gather(move_them(provisioner), *devices)
    await store.close()
    folder.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
