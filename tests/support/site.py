"""A hub and a provisioning service as they stand behind the adapters: the real ones, in memory."""

from __future__ import annotations

import datetime
import errno
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from moorage.adapters.http import HttpAdapter
from moorage.adapters.hub_service.groups import groups
from moorage.adapters.hub_service.handler import HubHttp
from moorage.app import KINDS
from moorage.credentials import policy
from moorage.credentials.decision import Decision, Decisions
from moorage.credentials.etag import new_etag
from moorage.credentials.policy import SharedAccessPolicy, provisioning_policies
from moorage.credentials.sas import make_token, new_key
from moorage.credentials.x509 import Certificate
from moorage.hub.authentication import Authentication
from moorage.hub.device_identity import IdentitySettings
from moorage.hub.hubs import Hubs, founding
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.hub.lifecycle import LifecycleStore
from moorage.hub.method import Methods
from moorage.hub.module_identity import ModuleSettings
from moorage.hub.notifier import Notifiers
from moorage.hub.session import Sessions
from moorage.hub.timeline import Timeline, TimelineOfHub
from moorage.interfaces import Start, StartProperty, Store
from moorage.messaging.embedded import EmbeddedEventLog
from moorage.messaging.files import File, MemoryFile, MemoryFiles
from moorage.net.waiting import LoopWaiting
from moorage.provisioning.provisioner import Provisioner
from moorage.provisioning.service import SERVICE_KIND, ApiVersion, LinkedHub, ProvisioningService
from moorage.provisioning.throttle import NO_LIMITS, Rate, RateLimits
from moorage.store.sqlite import SqliteStore
from moorage.wire.amqp import Message
from tests.support.frontage import PaperFrontage
from tests.support.streams import START, ManualTime

HOST = "localhost"
ID_SCOPE = "0ne00ABCDEF"
DPS_SCOPE, HUB_SCOPE = 1, 2
NEWEST = ApiVersion("2021-10-01", reprovisioning=True, precise_substatus=True)
_KEY = ec.generate_private_key(ec.SECP256R1())


class Disk(MemoryFiles):
    """A disk that a test can hold up, fill, or make fail."""

    def __init__(self) -> None:
        super().__init__()
        self.full_for = 0  # so many commits fail, for want of room
        self.reads_fail = False
        self.waiting = False  # a sync has come and is held
        self._free = threading.Event()
        self._free.set()

    def create(self, name: str) -> File:
        super().create(name)
        file = self._files[name] = _DiskFile(self)
        return file

    def hold(self) -> None:
        self._free.clear()

    def release(self) -> None:
        self._free.set()

    def sync_file(self) -> None:
        self.waiting = True
        assert self._free.wait(10), "the disk was held too long"
        self.waiting = False
        if self.full_for:
            self.full_for -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _DiskFile(MemoryFile):
    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self._disk = disk

    def read(self, size: int, position: int) -> bytes:
        if self._disk.reads_fail:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size, position)

    def sync(self) -> None:
        self._disk.sync_file()


@dataclass(kw_only=True)
class Site:
    """`policies` are the hub's, by name; `dps_owner` is the provisioning service's only one."""

    time: ManualTime
    disk: Disk
    store: SqliteStore
    log: EmbeddedEventLog
    hubs: Hubs
    provisioner: Provisioner
    decisions: Decisions
    timeline: Timeline
    notifiers: Notifiers
    telling_store: Store
    dps_owner: SharedAccessPolicy
    methods: Methods
    policies: dict[str, SharedAccessPolicy] = field(default_factory=dict)

    @property
    def hub(self) -> Hub:
        """The first one."""
        return self.identities.hub

    @property
    def identities(self) -> Identities:
        return self.hubs.first

    @property
    def sessions(self) -> Sessions:
        return self.identities.sessions

    @property
    def seconds(self) -> int:
        return self.time.now() // 1_000_000

    def find_hub(self, host: str) -> tuple[Hub, Identities] | None:
        """By its names alone, also while there is one only."""
        found = self.hubs.by_host(host)
        return found if found is not None and found[0].answers_to(host) else None

    async def add_device(self, device_id: str, **settings: Any) -> str:
        """A device with keys, of which this is the primary one."""
        key = new_key(32)
        made = IdentitySettings(device_id=device_id, authentication=Authentication.symmetric(key), **settings)
        await self.identities.create(made)
        return key

    async def add_module(self, device_id: str, module_id: str) -> str:
        """A module of a device that is there, with keys, of which this is the primary one."""
        key = new_key(32)
        made = ModuleSettings(
            device_id=device_id, module_id=module_id, authentication=Authentication.symmetric(key)
        )
        await self.identities.modules.create(made)
        return key

    async def set_status(self, device_id: str, status: str) -> None:
        known = await self.identities.get(device_id)
        settings = IdentitySettings(device_id=device_id, authentication=known.authentication, status=status)
        await self.identities.update(settings)

    def service_api(self) -> HttpAdapter:
        """The hub's REST API for back ends, known by the hub's own names alone."""
        hub = HubHttp(
            self.find_hub,
            *groups(methods=self.methods),
            store=self.store,
            clock=self.time,
            decisions=self.decisions,
        )
        return HttpAdapter(hub, otherwise=hub)

    def device_token(self, device_id: str, key: str, *, lifetime: int = 3600) -> str:
        return make_token(f"{HOST}/devices/{device_id}", key, self.seconds + lifetime)

    def token(
        self, name: str = "iothubowner", resource: str = HOST, *, lifetime: int = 3600, text_key: bool = False
    ) -> str:
        """Signed by a policy of the hub."""
        key = self.policies[name].primary_key
        return make_token(resource, key, self.seconds + lifetime, name, text_key=text_key)

    def dps_token(self, *, lifetime: int = 3600) -> str:
        """Signed by the provisioning service's owner policy."""
        return make_token(HOST, self.dps_owner.primary_key, self.seconds + lifetime, self.dps_owner.name)

    def kept(self) -> list[Message]:
        """All events that the log shows, by partition."""
        messages = []
        for partition in range(self.hub.partition_count):
            cursor = self.log.find(HUB_SCOPE, partition, Start(StartProperty.FIRST))
            while events := self.log.read(HUB_SCOPE, partition, cursor, limit=100):
                found, cursor = events
                if not found:
                    break
                messages += [Message.decode(event.message) for event in found]
        return messages

    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.kept()]

    def refusals(self) -> list[Decision]:
        """Oldest first."""
        return [decision for decision in reversed(self.decisions.latest(1000)) if not decision.accepted]

    def refusal(self) -> Decision:
        """The only one there is."""
        (decision,) = self.refusals()
        return decision


async def enroll_certificate(site: Site, registration_id: str, **members: Any) -> Certificate:
    """An individual enrollment, and the self-signed certificate that it is for."""
    leaf = certificate(registration_id)
    x509 = {"clientCertificates": {"primary": {"certificate": leaf.to_pem()}}}
    document = {
        "registrationId": registration_id,
        "attestation": {"type": "x509", "x509": x509},
        **members,
    }
    await site.provisioner.enrollments.put(document, if_match=None, api_version=NEWEST)
    return leaf


POLLED_OUT = RateLimits(polls=Rate(1, 10))
REGISTERED_OUT = RateLimits(registrations=Rate(1, 60))
"""Limits that the second poll of a device is over, and the second registration of all."""


def failed_checks(decision: Decision) -> list[str]:
    return [check.name for check in decision.checks if not check.held]


@asynccontextmanager
async def open_site(*, limits: RateLimits = NO_LIMITS) -> AsyncIterator[Site]:
    time, decisions, disk = ManualTime(), Decisions(), Disk()
    store = SqliteStore.open(None, kinds=KINDS)
    log = EmbeddedEventLog(disk, time)
    log.start()
    hub = Hub(
        scope=HUB_SCOPE,
        name="hub",
        host_names=(HOST, "127.0.0.1"),
        advertised_host=HOST,
        created=START,
    )
    await store.apply(founding(hub))
    notifiers = Notifiers(log, time)
    telling = LifecycleStore(store, notifiers.watching)
    hubs = Hubs(store=telling, clock=time)
    timeline = Timeline()
    hubs.at_begin(lambda hub: hub.sessions.observe(TimelineOfHub(timeline, hub.hub.scope, time)))
    hubs.at_begin(notifiers.begin)
    await hubs.open()
    hubs.attach(PaperFrontage())
    dps = ProvisioningService(
        scope=DPS_SCOPE, id_scope=ID_SCOPE, host_names=(HOST,), created=START, etag=new_etag()
    )
    provisioner = Provisioner(
        dps, store=telling, clock=time, hubs=hubs.by_scope, decisions=decisions, limits=limits
    )
    await provisioner.link_hub(LinkedHub(hub=HUB_SCOPE, host_name=HOST, etag=new_etag()))
    await store.records(SERVICE_KIND, 0).put(dps)
    (dps_owner,) = provisioning_policies()
    await store.records(policy.KIND, DPS_SCOPE).put(dps_owner)
    site = Site(
        time=time,
        disk=disk,
        store=store,
        log=log,
        hubs=hubs,
        provisioner=provisioner,
        decisions=decisions,
        timeline=timeline,
        notifiers=notifiers,
        telling_store=telling,
        dps_owner=dps_owner,
        methods=Methods(LoopWaiting(time.call_later)),
    )
    for each in (await store.records(policy.KIND, HUB_SCOPE).page(limit=100)).records:
        site.policies[each.name] = each
    try:
        yield site
    finally:
        disk.full_for, disk.reads_fail = 0, False
        disk.release()
        await log.close()
        await store.close()


def certificate(common_name: str, *, valid_until: int = START + 86_400_000_000) -> Certificate:
    """Self-signed, valid from a day before START; all of one key."""
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(_KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(epoch + datetime.timedelta(microseconds=START - 86_400_000_000))
        .not_valid_after(epoch + datetime.timedelta(microseconds=valid_until))
        .sign(_KEY, hashes.SHA256())
    )
    return Certificate(signed.public_bytes(Encoding.DER))
