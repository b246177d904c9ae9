"""A device at its hub over MQTT: user name and topics ⇄ identity, session, telemetry, twin, methods, messages.

The hot path is `HubMqtt.handle`: it does once per read what need not be done per message. All telemetry that one
read brought goes to the log in one append and is acknowledged in one write once it is durable; a topic is taken
apart only when it differs from the one before.

Acknowledgements keep their order by the log, whose callbacks come in the order of its appends: what is no
telemetry but has to wait for it, a request or the answer to a method, waits behind an empty append. Telemetry behind a
request that is not durable yet waits for it in turn, in `Acknowledgements`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

from moorage.adapters import mqtt
from moorage.adapters.commands_mqtt import CommandsMqtt, PacketIds
from moorage.adapters.method_mqtt import MethodMqtt
from moorage.adapters.publishing import Acknowledgements, Publisher, Request
from moorage.adapters.subscriptions import NOTHING_KEPT, KeptSession, Subscriptions, kept_session
from moorage.adapters.twin_mqtt import TwinMqtt
from moorage.credentials.decision import Decisions, Finding
from moorage.errors import (
    Disabled,
    Invalid,
    MoorageError,
    NotFound,
    NotSupported,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.hub.session import TAKEN_OVER, Cause, Ending, Principal, Session
from moorage.hub.telemetry import MAX_MESSAGE, head_size, telemetry_head
from moorage.interfaces import ByteStream, Clock, EventHead, EventLog, PreparedHead
from moorage.wire.errors import Malformed
from moorage.wire.mqtt import packets, topics
from moorage.wire.mqtt.packets import Disconnect, Publish

log = logging.getLogger("moorage.hub")

DISCONNECT = "DISCONNECT"
NOT_GRANTED = "a topic filter that is not for this device, or more filters than a device may have"

TOKEN_GRACE = 300.0  # seconds that a connection outlives its token [hub-device 2.3]
HIGH_WATER = 1 << 20  # bytes taken in and not done with, from which on a connection is not read
LOW_WATER = HIGH_WATER // 2
HIGH_WATER_OF_ALL = 128 << 20  # the same for all connections together: telemetry that waits for a slow disk
MESSAGE_COST = 100  # bytes that a message counts beside its payload, so that empty ones are bounded too
REQUEST_COST = HIGH_WATER // 16  # bytes that a request counts beside its payload, until it is answered
MAX_ID = 128  # characters of a device id and of a module id [hub-device 2.1]
MAX_MODEL_ID = 2048  # characters; it is stamped on every message and not counted in its size

ACCEPTED, SERVER_UNAVAILABLE, NOT_AUTHORIZED = 0, 3, 5  # CONNACK return codes [hub-device 2.5]


@dataclass(frozen=True, slots=True)
class UserName:
    """`{host}/{device}[/{module}]/[?]api-version=…&DeviceClientType=…[&model-id=…]` [hub-device 3.1]."""

    host: str
    device_id: str
    module_id: str | None
    query: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> UserName:
        """Raises Invalid. Segments are taken as they stand: an id may hold `%`, `?` and `#`."""
        segments = text.split("/")
        at = _query_at(segments)
        query: dict[str, str] = {}
        for pair in "/".join(segments[at:]).removeprefix("?").split("&"):
            key, _, value = pair.partition("=")
            query[key.lower()] = unquote(value)
        names = segments[:at]
        if names and not names[-1]:
            names.pop()
        if not 2 <= len(names) <= 3 or not all(names) or max(map(len, names[1:])) > MAX_ID:
            raise Invalid("user name", "expected {hub host}/{device id}/?api-version={version}")
        return cls(names[0], names[1], names[2] if len(names) == 3 else None, query)

    @property
    def client_id(self) -> str:
        return self.device_id if self.module_id is None else f"{self.device_id}/{self.module_id}"


def _query_at(segments: Sequence[str]) -> int:
    """Which of the segments begins the query: the last one, unless that holds slashes that nobody escaped."""
    last = len(segments) - 1
    if _is_query(segments[last]):
        return last
    return next((at for at in range(2, last) if _is_query(segments[at])), len(segments))


def _is_query(segment: str) -> bool:
    return segment.startswith("?") or "api-version=" in segment


class HubMqtt:
    """One device's connection after CONNACK: a `Dialect`."""

    def __init__(
        self,
        door: HubMqttDoor,
        stream: ByteStream,
        hub: Hub,
        identities: Identities,
        principal: Principal,
        model_id: str = "",
        kept: KeptSession = NOTHING_KEPT,
    ) -> None:
        self._door = door
        self._stream = stream
        self._hub = hub
        self._identities = identities
        self._session = Session(
            principal,
            door.clock.now(),
            self,
            model_id=model_id,
            tracking_id=stream.tracking_id,
            peer=stream.peer,
        )
        self._events_topic = f"devices/{principal.resource}/messages/events"
        self._will: tuple[PreparedHead, bytes] | None = None
        publisher = Publisher(stream)
        self._acknowledgements = Acknowledgements(stream)
        self._twin = TwinMqtt(
            publisher,
            identities.twins,
            principal,
            door.clock,
            stream.tracking_id,
            refused=lambda operation, error: door.note_refusal(self._finding(operation), error),
            lost=self._give_up,
        )
        self._methods = MethodMqtt(publisher, self._session)
        self._commands = CommandsMqtt(
            stream,
            publisher,
            identities.queues,
            principal,
            door.clock,
            door.spawn,
            refused=lambda error: door.note_refusal(self._finding("cloud-to-device message"), error),
        )
        self._found = kept
        self._subscriptions = Subscriptions(
            (self._twin, self._methods, self._commands),
            principal,
            identities.stored_sessions,
            clean=kept.clean,
            live=lambda: identities.sessions.connected(principal.name) is self._session,
            spawn=door.spawn,
            lost=lambda error: self._give_up(Unavailable(f"subscriptions not kept: {error}")),
            overtaken=lambda: self._release(REQUEST_COST),
        )
        self._noted = False  # that a subscription was refused has a decision record
        self._topic = ""  # of the last telemetry, with its head prepared and the room it leaves for a payload
        self._retain = False
        self._head: PreparedHead = None
        self._room = 0
        self._unsettled = 0  # bytes handed to the log and not yet durable, and of requests not yet answered
        self._paused = False
        self._ending = False  # nothing is taken in any more
        self._cause: str | MoorageError | None = None  # of that
        self._failed = False  # the log has lost a message: nothing behind it may be acknowledged

    @property
    def holds_back(self) -> bool:
        return self._paused or self._ending

    def handle(self, events: Sequence[packets.Event]) -> None:
        if self._ending:
            return
        self._session.last_activity = self._door.clock.now()
        batch: list[tuple[PreparedHead, bytes]] = []
        acknowledge: list[int] = []
        size = 0
        cause: str | MoorageError | None = None
        try:
            for event in events:
                if type(event) is Publish:
                    topic, payload, qos, retain, _, packet_id = event
                    if qos == 2:
                        raise Invalid("PUBLISH", "QoS 2 is not spoken")
                    if topic is not self._topic or retain is not self._retain:
                        if topic.startswith("$iothub/"):
                            self._append(batch, acknowledge, size)
                            batch, acknowledge, size = [], [], 0
                            self._request(topic, payload, packet_id)
                            continue
                        self._route(topic, retain)
                    if len(payload) > self._room:
                        raise TooLarge("message", f"with its properties it is over {MAX_MESSAGE} bytes")
                    batch.append((self._head, payload))
                    size += len(payload) + MESSAGE_COST
                    if packet_id is not None:
                        acknowledge.append(packet_id)
                elif type(event) is Disconnect:
                    self._will = None  # [MQTT-3.14.4-3]
                    cause = DISCONNECT
                else:
                    self._control(event)
        except MoorageError as error:
            cause = error
        self._append(batch, acknowledge, size)
        if cause is not None:
            self.end(cause)

    def end(self, cause: str | MoorageError) -> None:
        """Close, once all that came before is kept, acknowledged and answered."""
        if self._ending:
            return
        self._ending, self._cause = True, cause
        self._leave_messages()
        if isinstance(cause, MoorageError):
            self._door.note_refusal(self._finding("connection"), cause)
        if self._unsettled:
            self._stream.pause_reading()
        else:
            self._stream.close(str(cause))

    def _finding(self, operation: str) -> Finding:
        stream = self._stream
        finding = Finding.from_peer(
            stream.peer, stream.tracking_id, operation, self._session.name, scope=self._hub.scope
        )
        finding.known = True
        return finding

    # --- telemetry ----------------------------------------------------------------------------------------

    def _append(self, batch: list[tuple[PreparedHead, bytes]], acknowledge: list[int], size: int) -> None:
        if batch:
            if not self._identities.hub.takes_telemetry:
                self._door.dropped += len(batch)
                batch = []  # acknowledged in its turn all the same [hub-service 15]
            self._door.event_log.append(batch, partial(self._kept, acknowledge, size, len(batch)))
            self._door.unsettled += size
            self._hold(size)

    def _kept(self, acknowledge: list[int], size: int, count: int, error: Exception | None) -> None:
        """The log has kept a batch, or could not: MQTT 3.1.1 has no other word for that than to close."""
        self._door.unsettled -= size
        if error is not None:
            self._fail(error)
        elif not self._failed:
            self._door.messages += count
            if acknowledge:
                self._acknowledgements.send(acknowledge)
            self._release(size)

    def _fail(self, error: Exception) -> None:
        """What the log takes behind a lost message is kept, for a device to send again."""
        self._give_up(Unavailable(f"telemetry not kept: {error}"))

    def _give_up(self, cause: MoorageError) -> None:
        """Close over what was not done, and of which the device can be told in no other way."""
        if not self._failed:
            self._failed = self._ending = True
            self._cause = cause
            self._leave_messages()
            self._door.note_refusal(self._finding("connection"), cause)
            self._stream.close(str(cause))

    def _hold(self, size: int) -> None:
        self._unsettled += size
        if not self._paused and (self._unsettled > HIGH_WATER or self._door.unsettled > HIGH_WATER_OF_ALL):
            self._paused = True
            self._stream.pause_reading()

    def _release(self, size: int) -> None:
        self._unsettled -= size
        if self._ending:
            if not self._unsettled:
                self._stream.close(str(self._cause))
        elif self._paused and self._unsettled < LOW_WATER:
            self._paused = False
            self._stream.resume_reading()

    def _route(self, topic: str, retain: bool) -> None:
        """Prepare the head for `topic`. Raises Invalid when it is not for this device to publish there."""
        if topic != self._topic or retain is not self._retain:
            head = self._read_head(topic, retain)
            self._head = self._door.event_log.prepare(head)
            self._room = MAX_MESSAGE - head_size(head)
            self._retain = retain
        self._topic = topic  # the same text may come as another object, behind a twin request

    def _read_head(self, topic: str, retain: bool, *, will: bool = False) -> EventHead:
        """Raises Invalid. The property bag may have `?` before it and a slash behind it [hub-device 3.6].

        Topics are compared as text: an id may hold `+` and `#` [hub-device 16.8].
        """
        own, rest = self._events_topic, topic[len(self._events_topic) :]
        if not topic.startswith(own) or (rest and rest[0] != "/"):
            raise Invalid("topic", f"{topic[:200]!r} is not {own}/")
        try:
            bag = topics.parse_property_bag(rest[1:].removeprefix("?").removesuffix("/"))
        except Malformed as error:
            raise Invalid("property bag", error.reason) from None
        return telemetry_head(self._hub, self._session, bag, retain=retain, will=will)

    # --- everything but telemetry -------------------------------------------------------------------------

    def _control(self, event: packets.Event) -> None:
        """Raises Invalid for what ends the connection."""
        match event:
            case packets.PingReq():
                self._stream.write(packets.encode_pingresp())
            case packets.Subscribe():
                self._subscribe(event)
            case packets.Unsubscribe():
                self._unsubscribe(event)
            case packets.PubAck():
                # What is sent about twins is not sent twice: the device asks again.
                self._commands.acknowledged(event.packet_id)
            case _:
                raise Invalid("packet", f"{type(event).__name__} has no place in QoS 0 and 1")

    def _subscribe(self, subscribe: packets.Subscribe) -> None:
        self._hold(REQUEST_COST)
        self._subscriptions.subscribe(subscribe.filters, partial(self._subscribed, subscribe.packet_id))

    def _subscribed(self, packet_id: int, codes: Sequence[int]) -> None:
        if self._failed:
            return
        self._stream.write(packets.encode_suback(packet_id, codes))
        if packets.REFUSED in codes and not self._noted:
            self._noted = True
            self._door.note_refusal(self._finding("subscribe"), NotSupported(NOT_GRANTED))
        self._listens()
        self._release(REQUEST_COST)

    def _unsubscribe(self, unsubscribe: packets.Unsubscribe) -> None:
        self._hold(REQUEST_COST)
        self._subscriptions.unsubscribe(
            unsubscribe.filters, partial(self._unsubscribed, unsubscribe.packet_id)
        )

    def _unsubscribed(self, packet_id: int) -> None:
        if not self._failed:
            self._stream.write(packets.encode_unsuback(packet_id))
            self._release(REQUEST_COST)

    def _listens(self) -> None:
        """The device knows what it is subscribed to."""
        self._identities.sessions.listens(self._session)
        self._commands.begin()

    def _request(self, topic: str, payload: bytes, packet_id: int | None) -> None:
        """Take a twin request, or the answer to a method. Raises MoorageError for other topics."""
        if self._twin.takes(topic):
            answer = self._twin.answer
        elif self._methods.takes(topic):
            answer = self._methods.answer
        else:
            raise Invalid("topic", f"the hub does not have {topic[:200]!r}")
        self._hold(REQUEST_COST + len(payload))
        self._door.event_log.append((), partial(self._answer, answer, topic, payload, packet_id))

    def _answer(
        self,
        answer: Callable[[Request], None],
        topic: str,
        payload: bytes,
        packet_id: int | None,
        _error: Exception | None,
    ) -> None:
        """PUBACK first, then the response: Python waits for both [hub-device 3.10]."""
        if self._failed:
            return
        acknowledge = _nothing
        if packet_id is not None:
            acknowledge = self._acknowledgements.reserve(packet_id).settle
        answer(Request(topic, payload, acknowledge, partial(self._release, REQUEST_COST + len(payload))))

    def desired_changed(self, change: Mapping[str, Any], version: int) -> None:
        self._twin.desired_changed(change, version)

    def invoke(self, request_id: str, method: str, payload: bytes) -> bool:
        return self._methods.invoke(request_id, method, payload)

    # --- from beginning to end ----------------------------------------------------------------------------

    def leave_will(self, will: packets.Will) -> None:
        """Keep ready the event that the will becomes [hub-device 3.7]. Raises Invalid, TooLarge."""
        if will.qos == 2:
            raise Invalid("will", "QoS 2 is not spoken")
        head = self._read_head(will.topic, will.retain, will=True)
        if len(will.payload) > MAX_MESSAGE - head_size(head):
            raise TooLarge("will", f"with its properties it is over {MAX_MESSAGE} bytes")
        self._will = self._door.event_log.prepare(head), will.payload

    def open(self) -> None:
        """Become the device's connection, which ends an older one, and say so [MQTT-3.1.4-2]."""
        self._identities.sessions.open(self._session)
        self._subscriptions.resume(self._found.subscriptions)
        present = len(self._subscriptions) > 0
        self._stream.write(packets.encode_connack(ACCEPTED, session_present=present))
        self._resume_messages()
        log.info(
            "device connected",
            extra={
                "tracking_id": self._stream.tracking_id,
                "device_id": self._session.name,
                "address": self._stream.peer.address,
                "door": self._stream.peer.door,
            },
        )
        self._check_token()

    def _resume_messages(self) -> None:
        """What waits follows CONNACK, ahead of any SUBSCRIBE [hub-device 3.2]."""
        ids = self._door.packet_ids.take(self._hub.scope, self._session.name)
        if not self._found.clean:
            self._commands.resume(ids)
        if self._subscriptions:
            self._listens()

    def _leave_messages(self) -> None:
        ids = self._commands.close()
        if not self._found.clean:
            self._door.packet_ids.keep(self._hub.scope, self._session.name, ids)

    def drained(self) -> None:
        self._commands.messages_waiting()

    def _check_token(self) -> None:
        """End the connection once its token has been expired for the time of grace [hub-device 2.3]."""
        expires_at = self._session.principal.expires_at
        if expires_at is None:
            return
        left = (expires_at - self._door.clock.now()) / 1_000_000 + self._door.token_grace
        if left > 0:
            self._stream.call_later(left, self._check_token)
        else:
            why = "the SAS token has expired while the device was connected"
            self.end(Unauthorized(why, check="expiry", remedy="Connect again with a new token."))

    def close(self, reason: str) -> None:
        """The hub ends the session: the identity is disabled or gone, which is a refusal, or it came again."""
        self.end(reason if reason == TAKEN_OVER else MoorageError(reason))

    def closed(self, reason: str) -> None:
        if not self._ending:
            self._ending = True
            self._leave_messages()
        self._identities.sessions.close(self._session, _ending(self._cause or reason))
        self._twin.close()
        log.info(
            "device disconnected",
            extra={
                "tracking_id": self._stream.tracking_id,
                "device_id": self._session.name,
                "reason": reason,
            },
        )
        if self._will is not None and self._identities.hub.takes_telemetry:  # [MQTT-3.1.2-8]
            self._door.event_log.append([self._will], self._will_kept)

    def _will_kept(self, error: Exception | None) -> None:
        if error is not None:
            log.warning(
                "will not kept",
                extra={
                    "tracking_id": self._stream.tracking_id,
                    "device_id": self._session.name,
                    "reason": str(error),
                },
            )


def _ending(cause: str | MoorageError) -> Ending:
    """`cause` is a text of ours, that of the network, or the refusal that ended the connection."""
    match cause:
        case Unauthorized(check="expiry"):
            return Ending(Cause.TOKEN_EXPIRED, str(cause))
        case Unavailable():
            return Ending(Cause.ENDED_BY_HUB, str(cause))
        case MoorageError():
            return Ending(Cause.RULE_BROKEN, str(cause))
        case text if text == DISCONNECT:
            return Ending(Cause.DISCONNECT, "the device sent DISCONNECT")
        case mqtt.SERVER_STOP:
            return Ending(Cause.SERVER_STOP, "the server stops")
        case text if text.startswith(mqtt.KEEP_ALIVE_MISSED):
            return Ending(Cause.KEEP_ALIVE_MISSED, text)
        case text if text.startswith(("over ", "internal error")):
            return Ending(
                Cause.ENDED_BY_HUB, text
            )  # the device does not read what is sent to it; our own fault
    return Ending(Cause.NETWORK_LOST, cause)


def _nothing() -> None:
    """What QoS 0 has for an acknowledgement."""


class HubMqttDoor:
    """Answers a CONNECT that speaks to a hub."""

    def __init__(
        self,
        *,
        event_log: EventLog,
        clock: Clock,
        decisions: Decisions,
        hub_by_host: Callable[[str], tuple[Hub, Identities] | None],
        token_grace: float = TOKEN_GRACE,
    ) -> None:
        self.event_log = event_log
        self.clock = clock
        self.token_grace = token_grace
        self.messages = 0  # telemetry kept since the start
        self.dropped = 0  # telemetry since the start that no route took
        self.unsettled = 0  # bytes of all connections handed to the log and not yet durable
        self.packet_ids = PacketIds()
        self._underway: set[asyncio.Task[None]] = set()
        self._decisions = decisions
        self._hub_by_host = hub_by_host

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end, which the end of a connection does not cut off."""
        task = asyncio.get_running_loop().create_task(work)
        self._underway.add(task)
        task.add_done_callback(self._underway.discard)

    async def __call__(self, stream: ByteStream, connect: packets.Connect) -> HubMqtt | None:
        finding = Finding.from_peer(stream.peer, stream.tracking_id, "connect", connect.client_id)
        try:
            name, hub, identities = self._address(connect, finding)
            while True:
                drops = identities.sessions.drops
                principal = await identities.authenticate(
                    name.device_id,
                    password=connect.password.decode("utf-8", "replace") if connect.password else None,
                    chain=stream.peer.chain,
                    module_id=name.module_id,
                    finding=finding,
                )
                sessions = identities.stored_sessions
                async with sessions.turn(principal.name):
                    kept = await kept_session(sessions, principal, clean=connect.clean_session)
                    if drops == identities.sessions.drops:  # else somebody was dropped meanwhile: judge again
                        return self._admit(stream, connect, name, hub, identities, principal, kept, finding)
        except MoorageError as error:
            self._refuse(stream, finding, error)
            return None

    def _address(self, connect: packets.Connect, finding: Finding) -> tuple[UserName, Hub, Identities]:
        name = UserName.parse(connect.username or "")
        finding.subject = name.client_id
        found = self._hub_by_host(name.host)
        if found is None:
            raise NotFound("hub", name.host[:300])
        hub, identities = found
        finding.scope = hub.scope
        if connect.client_id != name.client_id:
            raise Invalid(
                "client id", f"is {connect.client_id[:300]!r}, the user name says {name.client_id!r}"
            )
        if len(name.query.get("model-id", "")) > MAX_MODEL_ID:
            raise Invalid("model-id", f"is longer than {MAX_MODEL_ID} characters")
        return name, hub, identities

    def _refuse(self, stream: ByteStream, finding: Finding, error: MoorageError) -> None:
        """3 makes clients try again, 5 makes them give up: a disabled device gets 3 like at Azure [hub-device 2.5]."""
        code = SERVER_UNAVAILABLE if isinstance(error, Disabled | Unavailable) else NOT_AUTHORIZED
        self.note_refusal(finding, error)
        stream.write(packets.encode_connack(code, session_present=False))
        stream.close(str(error))

    def note_refusal(self, finding: Finding, error: MoorageError) -> None:
        """Leave a decision record and a log line."""
        self._decisions.refuse(finding, error, self.clock.now(), log)

    def _admit(
        self,
        stream: ByteStream,
        connect: packets.Connect,
        name: UserName,
        hub: Hub,
        identities: Identities,
        principal: Principal,
        kept: KeptSession,
        finding: Finding,
    ) -> HubMqtt:
        """Raises Invalid for a will that cannot be telemetry of this device."""
        model_id = name.query.get("model-id", "")
        dialect = HubMqtt(self, stream, hub, identities, principal, model_id, kept)
        if connect.will is not None:
            dialect.leave_will(connect.will)
        self._decisions.add(finding.accepted(self.clock.now()))
        dialect.open()
        return dialect
