"""A provisioning service with one linked hub, in memory, at a clock that the test sets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moorage.app import KINDS
from moorage.credentials.decision import Decisions
from moorage.credentials.etag import new_etag
from moorage.credentials.x509 import Certificate
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.hub.session import Sessions
from moorage.interfaces import Clock, Store
from moorage.provisioning.provisioner import Provisioner
from moorage.provisioning.service import SERVICE_KIND, LinkedHub, ProvisioningService
from moorage.store.sqlite import SqliteStore

MORNING = datetime(2026, 3, 2, 8, 15, 30, 123456, tzinfo=UTC)
DPS, HUB_A, HUB_B = 1, 7, 8


class SetClock:
    def __init__(self) -> None:
        self.time = MORNING

    def now(self) -> int:
        return round(self.time.timestamp() * 1_000_000)

    def monotonic(self) -> float:
        return self.time.timestamp()


@pytest.fixture
def clock() -> Clock:
    return SetClock()


@pytest.fixture
def after(clock: SetClock) -> Callable[[timedelta], None]:
    """Let time pass."""

    def pass_by(span: timedelta) -> None:
        clock.time += span

    return pass_by


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    records = SqliteStore.open(None, kinds=KINDS)
    yield records
    await records.close()


@pytest.fixture
def decisions() -> Decisions:
    return Decisions()


def _hub(scope: int, name: str, store: Store, clock: Clock) -> Identities:
    host = f"{name}.example.net"
    hub = Hub(scope=scope, name=name, host_names=(host,), advertised_host=host, created=clock.now())
    return Identities(hub, store, clock, Sessions(clock))


@pytest.fixture
def hub_a(store: Store, clock: Clock) -> Identities:
    return _hub(HUB_A, "hub-a", store, clock)


@pytest.fixture
def hub_b(store: Store, clock: Clock) -> Identities:
    """Served, and not linked until a test links it."""
    return _hub(HUB_B, "hub-b", store, clock)


@pytest.fixture
def service(clock: Clock) -> ProvisioningService:
    return ProvisioningService(
        scope=DPS,
        id_scope="0ne00ABCDEF",
        host_names=("dps.example.net",),
        created=clock.now(),
        etag=new_etag(),
    )


@pytest.fixture
async def provisioner(
    service: ProvisioningService,
    store: Store,
    clock: Clock,
    decisions: Decisions,
    hub_a: Identities,
    hub_b: Identities,
) -> Provisioner:
    await store.records(SERVICE_KIND, 0).put(service)
    hubs = {HUB_A: hub_a, HUB_B: hub_b}
    made = Provisioner(service, store=store, clock=clock, hubs=hubs, decisions=decisions)
    await made.link_hub(LinkedHub(hub=HUB_A, host_name="hub-a.example.net", etag=new_etag()))
    return made


@pytest.fixture(scope="session")
def certify() -> Callable[..., Certificate]:
    """A self-signed certificate, valid from a month before the morning of the tests to a year after it."""
    key = ec.generate_private_key(ec.SECP256R1())

    def make(
        common_name: str | None = "pump-7",
        *,
        start: timedelta = timedelta(days=-30),
        end: timedelta = timedelta(days=365),
    ) -> Certificate:
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Contoso")]
        if common_name is not None:
            names.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
        name = x509.Name(names)
        signed = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before((MORNING + start).replace(microsecond=0))
            .not_valid_after((MORNING + end).replace(microsecond=0))
            .sign(key, hashes.SHA256())
        )
        return Certificate(signed.public_bytes(serialization.Encoding.DER))

    return make
