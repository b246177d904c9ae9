"""The composition root: a Config in, a running server out. Only here are concrete classes named and put together."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from moorage.adapters import environment as env
from moorage.adapters.control import is_control
from moorage.adapters.dps_device import DeviceApi
from moorage.adapters.dps_device_http import DpsDeviceHttp
from moorage.adapters.dps_http import DpsHttp
from moorage.adapters.dps_mqtt import DpsMqttDoor, is_dps_user_name
from moorage.adapters.http import Deferred, HttpAdapter
from moorage.adapters.hub_mqtt import HubMqttDoor
from moorage.adapters.hub_service.groups import groups
from moorage.adapters.hub_service.handler import HubHttp
from moorage.adapters.mqtt import Accepted, MqttConversation
from moorage.adapters.operations_http import Measure, OperationsHttp, is_operation, registration_measures
from moorage.adapters.resource_manager import ResourceManagerHttp
from moorage.config import Config
from moorage.credentials import ca_certificate, policy
from moorage.credentials.authority import LocalAuthority
from moorage.credentials.ca_certificates import CaCertificates
from moorage.credentials.decision import Decisions
from moorage.credentials.policy import SharedAccessPolicy
from moorage.credentials.server_certificate import (
    IssuedCertificate,
    OperatorCertificate,
    ServerCertificate,
)
from moorage.errors import Unavailable
from moorage.hub import (
    authority,
    cloud_to_device,
    device_identity,
    feedback,
    instance,
    module_identity,
    presence,
    scopes,
    stored_session,
    twin,
)
from moorage.hub.consumer_group import ConsumerGroups
from moorage.hub.hubs import Hubs
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.hub.lifecycle import LifecycleStore
from moorage.hub.method import Methods
from moorage.hub.notifier import Notifiers
from moorage.hub.timeline import Timeline, TimelineOfHub
from moorage.interfaces import ByteStream, Clock, Conversation, CustomAllocator
from moorage.messaging.embedded import EmbeddedEventLog
from moorage.messaging.files import DiskFiles, MemoryFiles
from moorage.net.background import Tasks
from moorage.net.doors import DoorOffer, Doors, is_loopback
from moorage.net.frontage import LocalFrontage
from moorage.net.http import AsgiApp, HttpServer, Receive, Scope, Send, WebSocketDoor
from moorage.net.latency import Latencies, Place
from moorage.net.listener import Address, AddressNotHere, Listeners, PortNotPermitted, PortTaken
from moorage.net.stream import Stream, new_tracking_id
from moorage.net.tls import TlsContext
from moorage.net.waiting import LoopWaiting
from moorage.net.webhook import Webhook
from moorage.portal import sessions as portal_session
from moorage.portal.sessions import Sessions
from moorage.provisioning import (
    credential_policy,
    enrollment,
    founding,
    issuance,
    registration,
    service,
)
from moorage.provisioning.custom_allocation import PYTHON
from moorage.provisioning.linked_hubs import LinkedHubs
from moorage.provisioning.operations import Outside
from moorage.provisioning.provisioner import Provisioner
from moorage.provisioning.throttle import AZURE_LIMITS, NO_LIMITS
from moorage.store.folder import DataFolder, RunFile, RunInfo
from moorage.store.sqlite import SqliteStore
from moorage.wire.mqtt.packets import Connect

if TYPE_CHECKING:
    from moorage.adapters.amqp import AmqpServer
    from moorage.adapters.control.handler import ControlHttp
    from moorage.adapters.inside import InsideApi
    from moorage.adapters.remote_hub import RemoteHubs
    from moorage.adapters.samples import Counted, Samples
    from moorage.credentials.connection_string import ConnectionString
    from moorage.provisioning.hub_registry import HubRegistry

log = logging.getLogger("moorage")

KINDS = (
    portal_session.KIND,
    instance.KIND,
    scopes.KIND,
    device_identity.KIND,
    twin.KIND,
    module_identity.KIND,
    twin.MODULE_KIND,
    presence.KIND,
    policy.KIND,
    service.SERVICE_KIND,
    service.LINKED_HUB_KIND,
    enrollment.KIND,
    enrollment.GROUP_KIND,
    registration.KIND,
    ca_certificate.KIND,
    credential_policy.KIND,
    issuance.CA_KIND,
    authority.KIND,
    cloud_to_device.KIND,
    cloud_to_device.BODY_KIND,
    feedback.KIND,
    stored_session.KIND,
)

WEBSOCKET_PATHS = ("/$iothub/websocket", "/$servicebus/websocket")
AMQP_PLAIN = "amqp-plain"  # the door without TLS
DEVICE_PORT = 8883  # at every hub: device clients cannot change it
LEFT_OUT = (
    "moorage.adapters.event_hubs",
    "moorage.adapters.control.handler",
    "moorage.provisioning.simulation",
)
WARM_UP_AFTER = 1.0  # seconds
EXPIRE_QUEUES_EVERY = 5.0  # seconds between looks for messages and feedback that nobody took in time
SAMPLE_EVERY = 2.0  # seconds between looks at what is counted
KEEP_PRESENCES_EVERY = 5.0  # seconds
MAX_UPLOAD = 64 << 20  # bytes; the portal takes that much of a form too long, for its answer to be read
EXPIRE_EVERY = 60.0  # seconds between looks for telemetry past its retention


class SystemClock:
    """The machine's own time, shifted by what the operator asked for."""

    def __init__(self, offset: timedelta = timedelta(0)) -> None:
        self._offset = offset // timedelta(microseconds=1)

    def now(self) -> int:
        return time.time_ns() // 1000 + self._offset

    def monotonic(self) -> float:
        return time.monotonic()


class Server:
    """Everything that runs. `start` returns when devices can connect, `stop` when nothing is left behind."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self.config = config
        self.clock: Clock = clock or SystemClock(config.clock_offset)
        self.decisions = Decisions()
        self.timeline = Timeline()
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
        self._portal_sessions = Sessions(clock, self.store.records(portal_session.KIND, 0))
        names = self._names()
        self.service = await founding.provisioning_service(
            self.store, names, partition_count=config.partitions, now=clock.now()
        )
        self.linked_hubs = LinkedHubs(self.store, self.service.scope)
        self.event_log = EmbeddedEventLog(
            MemoryFiles() if self._folder is None else DiskFiles(self._folder.journal),
            clock,
            retention=config.retention,
            max_size=config.retention_bytes,
        )
        self.event_log.start()
        self._closers.append(self.event_log.close)
        self.notifiers = Notifiers(self.event_log, clock)
        store = LifecycleStore(self.store, self.notifiers.watching)
        self.hubs = Hubs(store=store, clock=clock, reserved=self.service.host_names)
        self.hubs.at_begin(self._observe)
        self.hubs.at_end(self.notifiers.end)
        await self.hubs.open()
        self._closers.append(self._keep_presences_once)
        await founding.follow_names(self.hubs, self.linked_hubs, names)
        self.background = Tasks()
        self._closers.append(self._forget_remote_hubs)
        self._closers.append(self.background.stop)
        self._latencies = latencies = Latencies(self._places)
        self.provisioner = Provisioner(
            self.service,
            limits=AZURE_LIMITS if config.limits == "azure" else NO_LIMITS,
            store=store,
            clock=clock,
            hubs=self.hubs.by_scope,
            decisions=self.decisions,
            outside=Outside(allocators=self._allocators(), background=self.background, reach=self._reach_hub),
            latencies=latencies.known,
        )
        self._wire_faces()
        certificate = self._certificate(names)
        self.listeners = Listeners(
            TlsContext(certificate.chain_file, certificate.key_file),
            max_connections=config.max_connections,
            max_per_address=config.max_connections_per_address,
            handshake_timeout=config.handshake_timeout,
        )
        self._closers.append(lambda: self.listeners.drain(config.drain_timeout))
        self.doors = Doors(self.listeners, self._offers())
        await self._open_doors()
        frontage = LocalFrontage(self.doors, self.listeners, certificate, config.domain)
        await self._open_further_doors(frontage)
        self.hubs.attach(frontage)
        self.ca_file, self.bundle_file = certificate.ca_file, certificate.bundle_file
        self._closers.append(self._run_file.remove)
        await self._write_run_file()
        self.hubs.on_change(self._rewrite_run_file)
        for work in (self._expire(), self._expire_queues(), self._keep_presences(), self._keep_samples()):
            self._closers.append(asyncio.get_running_loop().create_task(work).cancel)
        await self.provisioner.resume()
        self.background.start(latencies.keep_looking())
        self._ready = True
        # What was left out for a quick start is fetched once the first callers have their answers.
        asyncio.get_running_loop().call_later(WARM_UP_AFTER, self._warm_up)

    def _observe(self, identities: Identities) -> None:
        """What is to be known of each hub as it goes."""
        scope = identities.hub.scope
        identities.sessions.observe(TimelineOfHub(self.timeline, scope, self.clock))
        self.notifiers.begin(identities)

    @cached_property
    def _remote_hubs(self) -> RemoteHubs:
        from moorage.adapters.remote_hub import RemoteHubs

        # Another server of this user shows certificates of the same CA. Not by the shifted clock: it is another's.
        return RemoteHubs(SystemClock(), [self.ca_file] if self.ca_file is not None else [])

    def _forget_remote_hubs(self) -> None:
        if "_remote_hubs" in self.__dict__:
            self._remote_hubs.close()

    def _reach_hub(self, login: ConnectionString) -> HubRegistry:
        """A linked hub of another server; its module is imported with the first device that goes there."""
        return self._remote_hubs.registry(login)

    async def _places(self) -> list[Place]:
        """The linked hubs, where devices enter, if there is one of another server among them."""
        linked = await self.linked_hubs.all()
        here = self.hubs.by_scope
        if all(each.hub in here for each in linked):
            return []
        return [Place(each.hub, each.host_name, DEVICE_PORT, each.hub in here) for each in linked]

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

    def _names(self) -> founding.Names:
        config = self.config
        return founding.Names(
            hub=config.advertised_hub.lower(),
            hub_also=("localhost", "127.0.0.1", "::1", *config.bind),
            dps=config.advertised_dps.lower(),
            dps_also=("localhost", "127.0.0.1"),
        )

    # --- faces ------------------------------------------------------------------------------------------

    def _wire_faces(self) -> None:
        config = self.config
        self._device_api = DeviceApi(self.provisioner, pace=config.registration_pace)
        self._dps_mqtt = DpsMqttDoor(self._device_api)
        self._hub_mqtt = HubMqttDoor(
            event_log=self.event_log,
            clock=self.clock,
            decisions=self.decisions,
            hub_by_host=self.hubs.by_host,
        )
        dps = DpsHttp(self.provisioner)
        hub = HubHttp(
            self.hubs.by_host,
            *groups(methods=Methods(LoopWaiting())),
            store=self.store,
            clock=self.clock,
            decisions=self.decisions,
        )
        self.consumer_groups = ConsumerGroups(hub=self.hubs.of_scope, put=self.hubs.put)
        control = Deferred(is_control, lambda: self.control)
        devices = DpsDeviceHttp(self._device_api)
        self._api = HttpAdapter(control, hub, dps, devices, ResourceManagerHttp(), otherwise=dps)

    @cached_property
    def control(self) -> ControlHttp:
        """Made with the first call of our own API: the start needs nothing of it."""
        from moorage.adapters.control.allocation import AllocationRoutes
        from moorage.adapters.control.authority import AuthorityRoutes
        from moorage.adapters.control.ca_certificates import CaCertificateRoutes
        from moorage.adapters.control.certificate_preview import CertificatePreviewRoutes
        from moorage.adapters.control.consumer_groups import ConsumerGroupRoutes
        from moorage.adapters.control.credential_policies import CredentialPolicyRoutes
        from moorage.adapters.control.decisions import DecisionRoutes
        from moorage.adapters.control.device_messages import DeviceMessageRoutes
        from moorage.adapters.control.enrollment_lists import EnrollmentListRoutes
        from moorage.adapters.control.enrollments import EnrollmentRoutes
        from moorage.adapters.control.environment import EnvironmentRoutes
        from moorage.adapters.control.events import EventRoutes
        from moorage.adapters.control.gate import Gate
        from moorage.adapters.control.handler import ControlHttp
        from moorage.adapters.control.hubs import HubRoutes
        from moorage.adapters.control.linked_hubs import LinkedHubRoutes
        from moorage.adapters.control.message_routes import MessageRouteRoutes
        from moorage.adapters.control.policies import PolicyRoutes
        from moorage.adapters.control.portal import PortalRoutes
        from moorage.adapters.control.service import ServiceRoutes
        from moorage.adapters.control.statistics import StatisticsRoutes
        from moorage.adapters.control.timelines import TimelineRoutes
        from moorage.hub.routing import MessageRoutes
        from moorage.provisioning.settings import ServiceSettings
        from moorage.provisioning.simulation import Simulation

        gate = Gate(
            store=self.store,
            clock=self.clock,
            decisions=self.decisions,
            service=lambda: self.provisioner.service,
            hubs=lambda: tuple(self.hubs),
        )
        return ControlHttp(
            gate,
            self.clock,
            CredentialPolicyRoutes(self.provisioner.credential_policies),
            DecisionRoutes(self.decisions),
            TimelineRoutes(self.timeline),
            EventRoutes(self.event_log),
            DeviceMessageRoutes(self.hubs.by_scope.__getitem__),
            PolicyRoutes(store=self.store, dps_scope=self.service.scope, changed=self._policy_changed),
            CaCertificateRoutes(
                self.provisioner.ca_certificates,
                lambda hub: CaCertificates(self.store, hub.scope, self.clock),
            ),
            HubRoutes(self.hubs, self.linked_hubs),
            LinkedHubRoutes(self.hubs, self.linked_hubs),
            EnrollmentRoutes(self.provisioner.enrollments, self.provisioner.transfer),
            EnrollmentListRoutes(self.provisioner),
            CertificatePreviewRoutes(self.clock),
            ServiceRoutes(ServiceSettings(self.service.scope, self.store), self.config.advertised_dps),
            ConsumerGroupRoutes(self.consumer_groups),
            MessageRouteRoutes(MessageRoutes(hub=self.hubs.of_scope, put=self.hubs.put)),
            PortalRoutes(self.portal_link),
            EnvironmentRoutes(self.environment),
            AuthorityRoutes(lambda: self.ca_file),
            StatisticsRoutes(self._samples, lambda: tuple(self.hubs)),
            AllocationRoutes(Simulation(self.store, self.service.scope, self._latencies.known)),
        )

    @cached_property
    def _amqp(self) -> AmqpServer:
        """Made with the first AMQP connection: its modules are a fifth of all that is imported."""
        from moorage.adapters.amqp import AmqpServer
        from moorage.adapters.cloud_to_device_amqp import DeviceboundFace
        from moorage.adapters.dps_amqp import DpsAmqp
        from moorage.adapters.dps_sasl_tpm import TpmDialogue
        from moorage.adapters.event_hubs import EventHubsFace
        from moorage.adapters.feedback_amqp import FeedbackFace
        from moorage.wire.amqp.sasl_tpm import TPM

        event_hubs = EventHubsFace(self.event_log, find_group=self.consumer_groups.get)
        self.consumer_groups.at_end(event_hubs.end_group)
        registration = DpsAmqp(self._device_api)
        server = AmqpServer(
            store=self.store,
            clock=self.clock,
            decisions=self.decisions,
            hub_by_host=lambda host: found[0] if (found := self.hubs.by_host(host)) else None,
            faces=[
                event_hubs,
                DeviceboundFace(self.hubs.by_scope),
                FeedbackFace(self.hubs.by_scope),
                registration,
            ],
            gates=[registration],
            dialogues={TPM: lambda conversation: TpmDialogue(self._device_api, conversation)},
            connect_timeout=self.config.connect_timeout,
        )
        self.hubs.at_end(server.end)
        return server

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

    def _certificate(self, names: founding.Names) -> ServerCertificate:
        """The operator's own, or one from the local CA, renewed when it must be."""
        config = self.config
        if config.server_certificate is not None and config.server_key is not None:
            return OperatorCertificate(config.server_certificate, config.server_key)
        # Not by the shifted clock: the CA is the user's, and outlives this server.
        authority = LocalAuthority.open(config.ca, SystemClock())
        folder = config.data
        if folder is None:
            scratch = TemporaryDirectory(prefix="moorage-")
            self._closers.append(scratch.cleanup)
            folder = Path(scratch.name)
        of_hubs = [host for hub in self.hubs for host in hub.host_names]
        covered = (*of_hubs, *self.service.host_names, *names.of_dps, *self._wildcards())
        return IssuedCertificate(authority, folder, covered, config.server_key_type)

    def _wildcards(self) -> Iterator[str]:
        if self.config.domain:
            yield self.config.domain
            yield f"*.{self.config.domain}"

    def _offers(self) -> list[DoorOffer]:
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
        offers = [
            DoorOffer("mqtt", config.mqtt_port, lambda: Stream("mqtt", self._open_mqtt)),
            DoorOffer("amqp", config.amqp_port, lambda: Stream("amqp", self._open_amqp)),
            DoorOffer("https", config.https_port, https, otherwise=config.https_fallback_port),
        ]
        if config.amqp_plain_port is not None:
            plain = DoorOffer(
                AMQP_PLAIN,
                config.amqp_plain_port,
                lambda: Stream(AMQP_PLAIN, self._open_amqp),
                tls=False,
                loopback_only=not config.amqp_plain_anywhere,
            )
            offers.append(plain)
        return offers

    async def _open_doors(self) -> None:
        """On every address; `::1` may be missing unless it was asked for by name."""
        for address in self.config.addresses:
            try:
                await self.doors.open(address)
            except AddressNotHere:
                if self.config.bind or address != "::1":
                    raise
        if self.doors.displaced:
            self._warn_of_fallback(self.doors.displaced[0])
        if exposed := [each.host for each in self.amqp_plain if not is_loopback(each.host)]:
            self.warnings.append(
                f"AMQP without TLS is open at {', '.join(exposed)}: whoever sees the traffic can take the tokens."
            )
        operations = OperationsHttp(ready=lambda: self._ready, measures=self._measures)
        self._operations = HttpAdapter(operations, otherwise=operations)
        await self._open_portal(HttpServer(self._at_portal, self.clock, door="http", max_body=MAX_UPLOAD))

    async def _open_further_doors(self, frontage: LocalFrontage) -> None:
        """At the addresses of the hubs made later. One that is not to be had does not keep the others waiting."""
        for hub in self.hubs:
            try:
                await frontage.listen([] if hub is self.hubs.first.hub else hub.host_names)
            except Unavailable as error:
                self.warnings.append(f"The hub {hub.name} cannot be reached: {error}")

    def _warn_of_fallback(self, error: PortNotPermitted | PortTaken) -> None:
        mend = "stop what holds it"
        if isinstance(error, PortNotPermitted):
            mend = "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=443"
        self.warnings.append(
            f"Port {error.port} could not be opened ({error}). REST is on {self.port('https')} instead; "
            f"WebSocket clients, and SDKs whose port cannot be changed, need {error.port}: {mend}"
        )

    async def _at_portal(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What a supervisor asks is answered to anybody, the rest by the portal."""
        if is_operation(scope["path"]):
            await self._operations(scope, receive, send)
            return
        if "_portal_pages" not in self.__dict__:
            # In a thread: devices need not wait while it is imported.
            await asyncio.to_thread(import_module, "moorage.portal.application")
        await self._portal_pages(scope, receive, send)

    @cached_property
    def _portal_pages(self) -> AsgiApp:
        """Made with the first page that is asked for: a start needs nothing of it."""
        from moorage.portal.application import portal

        config = self.config
        names = {"localhost", "127.0.0.1", "::1", *config.portal_hosts, *filter(None, [config.portal_bind])}
        return portal(
            self.inside_api(),
            self._portal_sessions,
            now=self.clock.now,
            port=self._portal.port,
            host_names=names,
            secure=not config.portal_is_local,
        )

    def inside_api(self) -> InsideApi:
        """The APIs, called from within this process."""
        from moorage.adapters.inside import InsideApi

        return InsideApi(self._api, self.clock, self._owner, new_tracking_id)

    async def _owner(self, hub: str | None) -> tuple[str, policy.SharedAccessPolicy]:
        """Host and owner policy of the hub of a name, or of the provisioning service."""
        if hub is None:
            found = await self._policy(self.service.scope, policy.PROVISIONING_RULES.owner)
            host = self.config.advertised_dps
        else:
            known = self.hubs.named(hub).hub
            found = await self._policy(known.scope, policy.HUB_RULES.owner)
            host = known.advertised_host
        if found is None:
            raise Unavailable("the owner policy is missing from the records")
        return host, found

    async def _open_portal(self, portal: HttpServer) -> None:
        """Loopback only unless told otherwise, whatever `--bind` says. A port that is taken: the next free one."""
        config = self.config
        first = config.portal_port
        for port in (*range(first, min(first + 50, 65_536)), 0) if first else (0,):
            with suppress(PortTaken):
                self._portal = await self._open_portal_at(port, portal)
                return

    async def _open_portal_at(self, port: int, portal: HttpServer) -> Address:
        """On IPv6 too where there is any, for browsers may take `localhost` for either."""
        open_door, bind = self.listeners.open_door, self.config.portal_bind
        if bind is not None:
            return (await open_door("portal", bind, port, portal, tls=not self.config.portal_is_local))[0]
        try:
            return (await open_door("portal", ["127.0.0.1", "::1"], port, portal, tls=False))[0]
        except AddressNotHere:
            return (await open_door("portal", "127.0.0.1", port, portal, tls=False))[0]

    async def _policy_changed(self, scope: int, name: str, changed: SharedAccessPolicy | None) -> None:
        """HTTP and MQTT look at the record with each token; AMQP remembers what its connections were granted."""
        if "_amqp" in self.__dict__:
            self._amqp.policy_changed(scope, name, changed)
        await self._rewrite_run_file()

    async def _rewrite_run_file(self) -> None:
        """What was changed is so whether or not the run file says it."""
        try:
            await self._write_run_file()
        except Unavailable as error:
            log.warning("moorage env shows what was until the next start: %s", error)

    # --- what others read of it ---------------------------------------------------------------------------

    @property
    def portal_url(self) -> str:
        config = self.config
        scheme = "http" if config.portal_is_local else "https"
        host = "localhost" if config.portal_bind is None else (config.portal_hosts or [config.portal_bind])[0]
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._portal.port}"

    def portal_link(self) -> str:
        """A new link into the portal, good for one sign-in."""
        return f"{self.portal_url}/sign-in?code={self._portal_sessions.new_code()}"

    def port(self, door: str, hub: Hub | None = None) -> int:
        """Where `door` is open: at the address of `hub` where it has one of its own, else at the server's first."""
        open_at = self.doors.open_at
        own = next((open_at[host] for host in hub.host_names if host in open_at), None) if hub else None
        return (own or next(iter(open_at.values())))[door].port

    @property
    def amqp_plain(self) -> list[Address]:
        """Where AMQP is spoken without TLS."""
        return [doors[AMQP_PLAIN] for doors in self.doors.open_at.values() if AMQP_PLAIN in doors]

    async def environment(self, hub: str | None = None) -> dict[str, str]:
        """For the hub of a name, or for the first [design 2]. Raises NotFound."""
        config = self.config
        dps_owner = await self._policy(self.service.scope, "provisioningserviceowner")
        environment = {
            **env.of_dps(config.advertised_dps, self.port("https"), self.service.id_scope, dps_owner),
            **await self._hub_environment((self.hubs.named(hub) if hub else self.hubs.first).hub),
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

    async def _hub_environment(self, hub: Hub) -> dict[str, str]:
        owner = await self._policy(hub.scope, "iothubowner")
        return env.of_hub(hub.advertised_host, self.port("https", hub), hub.entity, owner)

    async def _policy(self, scope: int, name: str) -> policy.SharedAccessPolicy | None:
        return await self.store.records(policy.KIND, scope).get(name)

    async def _write_run_file(self) -> None:
        """What `moorage env`, `wait` and the commands of this user find."""
        open_at = list(self.doors.open_at.items())
        endpoints = {name: f"{at.host}:{at.port}" for name, at in open_at[0][1].items()}
        endpoints["portal"] = f"{self._portal.host}:{self._portal.port}"
        for host, doors in open_at[1:]:
            endpoints |= {f"{name} at {host}": f"{at.host}:{at.port}" for name, at in doors.items()}
        self._run_file.write(
            RunInfo(
                pid=os.getpid(),
                data=self.config.data.resolve() if self.config.data is not None else None,
                endpoints=endpoints,
                env=await self.environment(),
                hubs={hub.name: await self._hub_environment(hub) for hub in self.hubs},
            )
        )

    def _measures(self) -> list[Measure]:
        """What `/metrics` shows: read when it is asked for, so that counting costs the hot paths an addition."""
        counters, kept, told = self.listeners.counters, self.event_log.metrics, self.notifiers.metrics
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
            *(
                Measure(
                    "devices_connected", "Devices connected now", len(each.sessions), {"hub": each.hub.name}
                )
                for each in self.hubs.by_scope.values()
            ),
            *registration_measures(self.provisioner.counts),
            Measure("telemetry_messages_total", "Telemetry messages taken in", self._hub_mqtt.messages),
            Measure("telemetry_dropped_total", "Telemetry that no route took", self._hub_mqtt.dropped),
            Measure("hub_events_total", "Events beside telemetry made durable", told.kept),
            Measure("hub_events_lost_total", "Events beside telemetry that the log did not keep", told.lost),
            Measure("log_events_total", "Events made durable", kept.events),
            Measure("log_bytes_total", "Bytes made durable", kept.bytes),
            Measure("log_commits_total", "Syncs of the log", kept.commits),
            Measure("log_failed_commits_total", "Commits of the log that failed", kept.failed_commits),
            Measure("log_commit_seconds_total", "Time spent in commits of the log", kept.commit_seconds),
            Measure("log_segments_expired_total", "Segments deleted by retention", kept.expired_segments),
        ]

    def _warm_up(self) -> None:
        if self._ready:
            for name in LEFT_OUT:
                asyncio.get_running_loop().run_in_executor(None, import_module, name)

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_EVERY)
            self.event_log.expire()

    async def _keep_presences(self) -> None:
        while True:
            await asyncio.sleep(KEEP_PRESENCES_EVERY)
            await self._keep_presences_once()

    async def _keep_presences_once(self) -> None:
        try:
            await self.hubs.keep_presences()
        except Unavailable as error:
            log.warning("when devices connected waits to be kept: %s", error)

    @cached_property
    def _samples(self) -> Samples:
        from moorage.adapters.samples import Samples

        return Samples(self._count, self.clock.monotonic)

    def _count(self) -> Counted:
        from moorage.adapters.samples import Counted, HubCounted

        registrations = self.provisioner.counts.registrations
        assigned = sum(count for (_, outcome), count in registrations.items() if outcome == "assigned")
        doors = self.listeners.open_connections().items()
        return Counted(
            assigned,
            registrations.total() - assigned,
            sum(count for door, count in doors if door != "portal"),
            {
                scope: HubCounted(len(each.sessions), self._events_of(each.hub))
                for scope, each in self.hubs.by_scope.items()
            },
        )

    def _events_of(self, hub: Hub) -> int:
        """All that its log ever took in."""
        states = (self.event_log.state(hub.scope, number) for number in range(hub.partition_count))
        return sum(state.last_sequence_number + 1 for state in states)

    async def _keep_samples(self) -> None:
        await asyncio.sleep(WARM_UP_AFTER)
        while True:
            self._samples.take()
            await asyncio.sleep(SAMPLE_EVERY)

    async def _expire_queues(self) -> None:
        while True:
            await asyncio.sleep(EXPIRE_QUEUES_EVERY)
            for identities in list(self.hubs.by_scope.values()):
                try:
                    await identities.queues.expire()
                    await identities.feedback.expire()
                except Unavailable as error:
                    log.warning("messages that have expired wait to be deleted: %s", error)

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
