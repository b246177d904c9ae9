"""The composition root: a Config in, a running server out. Only here are concrete classes named and put together."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from moorage.adapters.control.ca_certificates import CaCertificateRoutes
from moorage.adapters.control.decisions import DecisionRoutes
from moorage.adapters.control.gate import Gate
from moorage.adapters.control.handler import ControlHttp
from moorage.adapters.control.policies import PolicyRoutes
from moorage.adapters.dps_device import DeviceApi
from moorage.adapters.dps_device_http import DpsDeviceHttp
from moorage.adapters.dps_http import DpsHttp
from moorage.adapters.dps_mqtt import DpsMqttDoor, is_dps_user_name
from moorage.adapters.http import HttpAdapter
from moorage.adapters.hub_http import HubHttp
from moorage.adapters.hub_mqtt import HubMqttDoor
from moorage.adapters.mqtt import Accepted, MqttConversation
from moorage.adapters.operations_http import Measure, OperationsHttp
from moorage.config import Config
from moorage.credentials import policy
from moorage.credentials.authority import LocalAuthority
from moorage.credentials.decision import Decisions
from moorage.credentials.policy import SharedAccessPolicy
from moorage.errors import Unavailable
from moorage.hub import identity, instance, twin
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.hub.session import Sessions
from moorage.interfaces import ByteStream, Change, Clock, Conversation, CustomAllocator, Expect, Put
from moorage.messaging.embedded import EmbeddedEventLog
from moorage.messaging.files import DiskFiles, MemoryFiles
from moorage.net.background import Tasks
from moorage.net.http import HttpServer, WebSocketDoor
from moorage.net.listener import Address, AddressNotHere, Listeners, PortNotPermitted, PortTaken
from moorage.net.stream import Stream
from moorage.net.tls import TlsContext
from moorage.net.webhook import Webhook
from moorage.provisioning import ca_certificate, enrollment, registration, service
from moorage.provisioning.custom_allocation import PYTHON
from moorage.provisioning.etag import new_etag
from moorage.provisioning.operations import Outside
from moorage.provisioning.provisioner import Provisioner
from moorage.provisioning.service import LinkedHub, ProvisioningService
from moorage.store.folder import DataFolder, RunFile, RunInfo
from moorage.store.sqlite import SqliteStore
from moorage.wire.mqtt.packets import Connect

if TYPE_CHECKING:
    from moorage.adapters.amqp import AmqpServer

log = logging.getLogger("moorage")

KINDS = (
    instance.KIND,
    identity.KIND,
    twin.KIND,
    policy.KIND,
    service.SERVICE_KIND,
    service.LINKED_HUB_KIND,
    enrollment.KIND,
    enrollment.GROUP_KIND,
    registration.KIND,
    ca_certificate.KIND,
)

# The first scopes of a new data folder. All scopes come from one sequence: a DPS instance's is never a hub's.
DPS_SCOPE, FIRST_HUB_SCOPE = 1, 2

WEBSOCKET_PATHS = ("/$iothub/websocket", "/$servicebus/websocket")
WARM_UP_AFTER = 1.0  # seconds
EXPIRE_EVERY = 60.0  # seconds between looks for telemetry past its retention


class SystemClock:
    """The machine's own time, shifted by what the operator asked for."""

    def __init__(self, offset: timedelta = timedelta(0)) -> None:
        self._offset = offset // timedelta(microseconds=1)

    def now(self) -> int:
        return time.time_ns() // 1000 + self._offset

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class Opened:
    """A door that could be opened, and where."""

    name: str
    addresses: tuple[Address, ...]

    @property
    def port(self) -> int:
        return self.addresses[0].port


class Server:
    """Everything that runs. `start` returns when devices can connect, `stop` when nothing is left behind."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self.config = config
        self.clock: Clock = clock or SystemClock(config.clock_offset)
        self.decisions = Decisions()
        self.doors: dict[str, Opened] = {}
        self._run_file = RunFile()
        self.warnings: list[str] = []  # what the operator should read at the end of the start
        self._closers: list[Callable[[], object]] = []  # undone in reverse order
        self._ready = False

    async def start(self) -> None:
        """Raises MoorageError when it cannot; what had been opened by then is closed again."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        config, clock = self.config, self.clock
        self.store = self._open_store()
        await self._found_or_open()
        self.event_log = EmbeddedEventLog(
            MemoryFiles() if self._folder is None else DiskFiles(self._folder.journal),
            clock,
            retention=config.retention,
            max_size=config.retention_bytes,
        )
        self.event_log.start()
        self._closers.append(self.event_log.close)
        self.sessions = Sessions(clock)
        self.identities = Identities(self.hub, self.store, clock, self.sessions)
        self.background = Tasks()
        self._closers.append(self.background.stop)
        self.provisioner = Provisioner(
            self.service,
            store=self.store,
            clock=clock,
            hubs={self.hub.scope: self.identities},
            decisions=self.decisions,
            outside=Outside(allocators=self._allocators(), background=self.background),
        )
        self._wire_faces()
        self.listeners = Listeners(
            TlsContext(*self._certificate()),
            max_connections=config.max_connections,
            max_per_address=config.max_connections_per_address,
            handshake_timeout=config.handshake_timeout,
        )
        self._closers.append(lambda: self.listeners.drain(config.drain_timeout))
        await self._open_doors()
        self._closers.append(self._run_file.remove)
        await self._write_run_file()
        expiry = asyncio.get_running_loop().create_task(self._expire())
        self._closers.append(expiry.cancel)
        await self.provisioner.resume()
        self._ready = True
        # What was left out for a quick start is fetched once the first callers have their answers.
        asyncio.get_running_loop().call_later(WARM_UP_AFTER, self._warm_up)

    def _allocators(self) -> dict[str, CustomAllocator]:
        """Who can be asked for a hub, by scheme. Raises Invalid for a function's file that cannot serve."""
        from moorage.functions import AllocationFunctions, load_function

        config = self.config
        webhook = Webhook(ca_file=config.webhook_ca)
        functions = {name: load_function(file) for name, file in config.allocation_functions.items()}
        return {"https": webhook, "http": webhook, PYTHON: AllocationFunctions(functions)}

    # --- state ------------------------------------------------------------------------------------------

    def _open_store(self) -> SqliteStore:
        self._folder: DataFolder | None = None
        if self.config.data is not None:
            self._folder = DataFolder.open(self.config.data)
            self._closers.append(self._folder.close)
        store = SqliteStore.open(self._folder.records if self._folder is not None else None, kinds=KINDS)
        self._closers.append(store.close)
        return store

    async def _found_or_open(self) -> None:
        """The DPS instance and its hub: those of the folder, or new ones in one commit."""
        found = await self.store.records(service.SERVICE_KIND, 0).page(limit=1)
        if found.records:
            self.service = found.records[0]
            self.hub = (await self.store.records(instance.KIND, 0).page(limit=1)).records[0]
            await self._rename()
        else:
            await self._found()

    async def _found(self) -> None:
        config, now = self.config, self.clock.now()
        self.hub = Hub(
            scope=FIRST_HUB_SCOPE,
            name=config.advertised_hub.partition(".")[0],
            host_names=self._hub_names(()),
            advertised_host=config.advertised_hub.lower(),
            partition_count=config.partitions,
            created=now,
        )
        self.service = ProvisioningService(
            scope=DPS_SCOPE,
            id_scope=service.new_id_scope(),
            host_names=self._dps_names(),
            created=now,
            etag=new_etag(),
        )
        link = LinkedHub(hub=self.hub.scope, host_name=self.hub.advertised_host, etag=new_etag())
        policies = [(DPS_SCOPE, policy.provisioning_policies()), (FIRST_HUB_SCOPE, policy.hub_policies())]
        changes: list[Change] = [
            Put(instance.KIND, 0, self.hub),
            Put(service.SERVICE_KIND, 0, self.service),
            Put(service.LINKED_HUB_KIND, DPS_SCOPE, link),
            *(Put(policy.KIND, scope, each) for scope, made in policies for each in made),
        ]
        await self.store.apply(changes)

    async def _rename(self) -> None:
        """A hub keeps every name it ever had; the one it is advertised under follows the configuration."""
        advertised = self.config.advertised_hub.lower()
        names = self._hub_names(self.hub.host_names)
        if (names, advertised) == (self.hub.host_names, self.hub.advertised_host):
            return
        hub = replace(self.hub, host_names=names, advertised_host=advertised, etag=new_etag())
        links = self.store.records(service.LINKED_HUB_KIND, self.service.scope)
        link = await links.get(str(hub.scope))
        changes: list[Change] = [Put(instance.KIND, 0, hub, Expect.PRESENT)]
        if link is not None:
            renamed = replace(link, host_name=advertised, etag=new_etag())
            changes.append(Put(service.LINKED_HUB_KIND, self.service.scope, renamed, Expect.PRESENT))
        await self.store.apply(changes)
        self.hub = hub

    def _hub_names(self, kept: Sequence[str]) -> tuple[str, ...]:
        config = self.config
        own = (config.advertised_hub.lower(), "localhost", "127.0.0.1", "::1", *config.bind)
        return tuple(dict.fromkeys((*kept, *own)))

    def _dps_names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.config.advertised_dps.lower(), "localhost", "127.0.0.1")))

    def _hub_by_host(self, host: str) -> tuple[Hub, Identities]:
        """An unknown host means the first hub, for as long as that is the only one [design 2]."""
        return self.hub, self.identities

    # --- faces ------------------------------------------------------------------------------------------

    def _wire_faces(self) -> None:
        config = self.config
        self._device_api = DeviceApi(self.provisioner, pace=config.registration_pace)
        self._dps_mqtt = DpsMqttDoor(self._device_api)
        self._hub_mqtt = HubMqttDoor(
            event_log=self.event_log,
            clock=self.clock,
            decisions=self.decisions,
            hub_by_host=self._hub_by_host,
        )
        dps = DpsHttp(self.provisioner)
        hub = HubHttp(self._hub_by_host, store=self.store, clock=self.clock, decisions=self.decisions)
        gate = Gate(
            store=self.store,
            clock=self.clock,
            decisions=self.decisions,
            service=lambda: self.provisioner.service,
            hubs=lambda: (self.hub,),
        )
        self.control = ControlHttp(
            gate,
            self.clock,
            DecisionRoutes(self.decisions),
            PolicyRoutes(store=self.store, dps_scope=self.service.scope, changed=self._policy_changed),
            CaCertificateRoutes(self.provisioner.ca_certificates),
        )
        devices = DpsDeviceHttp(self._device_api)
        self._api = HttpAdapter(self.control, hub, dps, devices, otherwise=dps)

    @cached_property
    def _amqp(self) -> AmqpServer:
        """Made with the first AMQP connection: its modules are a fifth of all that is imported."""
        from moorage.adapters.amqp import AmqpServer
        from moorage.adapters.dps_amqp import DpsAmqp
        from moorage.adapters.event_hubs import EventHubsFace

        registration = DpsAmqp(self._device_api)
        return AmqpServer(
            store=self.store,
            clock=self.clock,
            decisions=self.decisions,
            hub_by_host=lambda host: self._hub_by_host(host)[0],
            faces=[EventHubsFace(self.event_log), registration],
            gates=[registration],
            connect_timeout=self.config.connect_timeout,
        )

    def _open_amqp(self, stream: ByteStream) -> Conversation:
        return self._amqp.open_conversation(stream)

    def _choose_dialect(self, connect: Connect) -> Accepted:
        return self._dps_mqtt if is_dps_user_name(connect.username) else self._hub_mqtt

    def _open_mqtt(self, stream: ByteStream) -> Conversation:
        return MqttConversation(
            stream,
            self._choose_dialect,
            connect_timeout=self.config.connect_timeout,
            note_refusal=self._hub_mqtt.note_refusal,
        )

    # --- doors ------------------------------------------------------------------------------------------

    def _certificate(self) -> tuple[Path, Path]:
        """Chain and key of the server: the operator's own, or one from the local CA, renewed when it must be."""
        config = self.config
        if config.server_certificate is not None and config.server_key is not None:
            self.ca_file, self.bundle_file = None, None
            return config.server_certificate, config.server_key
        # Not by the shifted clock: the CA is the user's, and outlives this server.
        authority = LocalAuthority.open(config.ca, SystemClock())
        folder = config.data
        if folder is None:
            scratch = TemporaryDirectory(prefix="moorage-")
            self._closers.append(scratch.cleanup)
            folder = Path(scratch.name)
        self.ca_file = authority.certificate_file
        self.bundle_file = (folder / "ca-bundle.pem").resolve()
        authority.bundle(self.bundle_file)
        names = (*self.hub.host_names, *self.service.host_names, *self._dps_names(), *self._wildcards())
        file = authority.server_file(folder, tuple(dict.fromkeys(names)), config.server_key_type)
        return file, file

    def _wildcards(self) -> Iterator[str]:
        if self.config.domain:
            yield self.config.domain
            yield f"*.{self.config.domain}"

    async def _open_doors(self) -> None:
        config = self.config
        sockets = {
            "mqtt": WebSocketDoor("mqtt-ws", self._open_mqtt),
            "AMQPWSB10": WebSocketDoor("amqp-ws", self._open_amqp),
        }
        https = HttpServer(
            self._api,
            self.clock,
            door="https",
            websocket_paths=WEBSOCKET_PATHS,
            websockets=sockets,
            request_timeout=config.connect_timeout,
        )
        await self._open("mqtt", config.mqtt_port, lambda: Stream("mqtt", self._open_mqtt))
        await self._open("amqp", config.amqp_port, lambda: Stream("amqp", self._open_amqp))
        try:
            await self._open("https", config.https_port, https)
        except (PortNotPermitted, PortTaken) as error:
            await self._open("https", config.https_fallback_port, https)
            self._warn_of_fallback(error)
        operations = OperationsHttp(ready=lambda: self._ready, measures=self._measures)
        portal = HttpServer(HttpAdapter(operations, otherwise=operations), self.clock, door="http")
        await self._open_portal(portal)

    def _warn_of_fallback(self, error: PortNotPermitted | PortTaken) -> None:
        mend = "stop what holds it"
        if isinstance(error, PortNotPermitted):
            mend = "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=443"
        self.warnings.append(
            f"Port {error.port} could not be opened ({error}). REST is on {self.doors['https'].port} instead; "
            f"WebSocket clients, and SDKs whose port cannot be changed, need {error.port}: {mend}"
        )

    async def _open(
        self, name: str, port: int, protocol: Callable[[], asyncio.Protocol], *, tls: bool = True
    ) -> None:
        """Open a door on every address; `::1` may be missing unless it was asked for by name."""
        opened: list[Address] = []
        for address in self.config.addresses:
            try:
                opened += await self.listeners.open_door(name, address, port, protocol, tls=tls)
            except AddressNotHere:
                if self.config.bind or address != "::1":
                    raise
        self.doors[name] = Opened(name, tuple(opened))

    async def _open_portal(self, portal: HttpServer) -> None:
        """Loopback only, whatever `--bind` says: it is plain HTTP. A port that is taken: the next free one."""
        first = self.config.portal_port
        for port in (*range(first, min(first + 50, 65_536)), 0) if first else (0,):
            with suppress(PortTaken):
                opened = await self.listeners.open_door("portal", "127.0.0.1", port, portal, tls=False)
                self.doors["portal"] = Opened("portal", tuple(opened))
                return

    async def _policy_changed(self, scope: int, name: str, changed: SharedAccessPolicy | None) -> None:
        """HTTP and MQTT look at the record with each token; AMQP remembers what its connections were granted."""
        if "_amqp" in self.__dict__:
            self._amqp.policy_changed(scope, name, changed)
        try:
            await self._write_run_file()
        except Unavailable as error:
            log.warning("moorage env shows old keys until the next start: %s", error)

    # --- what others read of it ---------------------------------------------------------------------------

    @property
    def portal_url(self) -> str:
        return f"http://127.0.0.1:{self.doors['portal'].port}"

    async def _write_run_file(self) -> None:
        """What `moorage env`, `wait` and the commands of this user find."""
        config = self.config
        self._run_file.write(
            RunInfo(
                pid=os.getpid(),
                data=config.data.resolve() if config.data is not None else None,
                endpoints={
                    name: f"{door.addresses[0].host}:{door.port}" for name, door in self.doors.items()
                },
                env=await self.environment(),
            )
        )

    async def environment(self) -> dict[str, str]:
        """What Microsoft's samples and test suites read [design 2]."""
        hub, dps = self.hub.advertised_host, self.config.advertised_dps
        port = self.doors["https"].port
        suffix = "" if port == 443 else f":{port}"
        dps_key = await self._key(DPS_SCOPE, "provisioningserviceowner")
        hub_key = await self._key(self.hub.scope, "iothubowner")
        dps_login = (
            f"HostName={dps}{suffix};SharedAccessKeyName=provisioningserviceowner;SharedAccessKey={dps_key}"
        )
        environment = {
            "PROVISIONING_HOST": dps,
            "PROVISIONING_IDSCOPE": self.service.id_scope,
            "PROVISIONING_DEVICE_ENDPOINT": dps,
            "PROVISIONING_DEVICE_IDSCOPE": self.service.id_scope,
            "PROVISIONING_SERVICE_CONNECTION_STRING": dps_login,
            "IOT_PROVISIONING_DEVICE_ENDPOINT": dps,
            "IOT_PROVISIONING_DEVICE_IDSCOPE": self.service.id_scope,
            "IOT_PROVISIONING_SERVICE_CONNECTION_STRING": dps_login,
            "IOTHUB_HOSTNAME": hub,
            "IOTHUB_CONNECTION_STRING": (
                f"HostName={hub}{suffix};SharedAccessKeyName=iothubowner;SharedAccessKey={hub_key}"
            ),
            "EVENTHUB_CONNECTION_STRING": (
                f"Endpoint=sb://{hub}/;SharedAccessKeyName=iothubowner;SharedAccessKey={hub_key};"
                f"EntityPath={self.hub.entity}"
            ),
            "MOORAGE_PORTAL_URL": self.portal_url,
        }
        if self.ca_file is not None and self.bundle_file is not None:
            environment |= {
                "SSL_CERT_FILE": str(self.bundle_file),
                "REQUESTS_CA_BUNDLE": str(self.bundle_file),
                "NODE_EXTRA_CA_CERTS": str(self.ca_file),
                "MOORAGE_CA_FILE": str(self.ca_file),
            }
        return environment

    async def _key(self, scope: int, name: str) -> str:
        found = await self.store.records(policy.KIND, scope).get(name)
        return found.primary_key if found is not None else ""

    def _measures(self) -> list[Measure]:
        """What `/metrics` shows: read when it is asked for, so that counting costs the hot paths an addition."""
        counters, kept = self.listeners.counters, self.event_log.metrics
        return [
            Measure("connections_accepted_total", "TCP connections taken in", counters.accepted),
            Measure("connections_refused_total", "TCP connections over a limit", counters.refused),
            *(
                Measure("handshake_failures_total", "TLS handshakes that failed", count, {"reason": reason})
                for reason, count in counters.handshake_failures.items()
            ),
            *(
                Measure("connections", "Connections open now", count, {"door": door})
                for door, count in self.listeners.open_connections().items()
            ),
            Measure("devices_connected", "Devices connected now", len(self.sessions)),
            Measure("telemetry_messages_total", "Telemetry messages taken in", self._hub_mqtt.messages),
            Measure("log_events_total", "Events made durable", kept.events),
            Measure("log_bytes_total", "Bytes made durable", kept.bytes),
            Measure("log_commits_total", "Syncs of the log", kept.commits),
            Measure("log_failed_commits_total", "Commits of the log that failed", kept.failed_commits),
            Measure("log_commit_seconds_total", "Time spent in commits of the log", kept.commit_seconds),
            Measure("log_segments_expired_total", "Segments deleted by retention", kept.expired_segments),
        ]

    def _warm_up(self) -> None:
        if self._ready:
            asyncio.get_running_loop().run_in_executor(None, import_module, "moorage.adapters.event_hubs")

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_EVERY)
            self.event_log.expire()

    def reload(self) -> None:
        """Read the server certificate again; connections there are keep the one they have."""
        self.listeners.reload()

    async def stop(self) -> None:
        """Say goodbye to every connection, make durable what was taken in, give the folder free."""
        self._ready = False
        while self._closers:
            closing = self._closers.pop()()
            if isinstance(closing, Awaitable):
                await closing
