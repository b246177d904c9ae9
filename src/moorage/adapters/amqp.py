"""One AMQP connection from its first byte on: SASL, claims-based security, and who answers which link address.

What this room shares among all faces is here: the pump between the sans-I/O engine and the byte stream, and the
judgement of tokens. `$cbs` is answered for everybody; any other address belongs to a face (the Event
Hubs-compatible one, that of devices that register; devices and back ends later), or is refused with the reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from moorage.adapters import faults
from moorage.adapters.claims import Grant, Grants
from moorage.adapters.links import Credentials, Face, Gate, LinkHandler, SaslDialogue, address_path, link_path
from moorage.adapters.request_nodes import CBS, CbsNode
from moorage.credentials import policy, sas
from moorage.credentials.decision import Decisions, Finding
from moorage.errors import Invalid, MoorageError, NotFound, NotSupported, Unauthorized, Unavailable
from moorage.hub.instance import Hub
from moorage.interfaces import ByteStream, Clock, Store, Timer
from moorage.wire.amqp import (
    Closed,
    Connection,
    CreditChanged,
    DeliveryReceived,
    DispositionReceived,
    Error,
    Event,
    Limits,
    LinkAttached,
    LinkDetached,
    Opened,
    Receiver,
    SaslCode,
    SaslInit,
    SaslResponse,
    Sender,
    ServerSasl,
    SessionEnded,
    conditions,
    parse_plain,
)
from moorage.wire.amqp.sasl import HUB_MECHANISMS
from moorage.wire.errors import Malformed

log = logging.getLogger("moorage.amqp")

MAX_CBS_LINKS = 16  # of one connection, whose peer nobody knows yet; clients have two

# What a peer may ask for before anybody knows who it is. A reader has a few links, each in a session at the most.
CHANNEL_MAX = 1023
LIMITS = Limits(links=1024, reassembly=1 << 20)

GOODBYE = 1.0  # seconds that a peer gets to answer the close of a server that stops
SOONEST = 0.05  # seconds between looks at the clock

# Why the engine ends a connection where the peer broke no rule: silence, our own stop; refused SASL is noted before.
_NO_FAULT = frozenset({conditions.CONNECTION_FORCED, conditions.UNAUTHORIZED_ACCESS})

_INSTEAD = "use MQTT or MQTT over WebSockets in this release"


class AmqpServer:
    """What all AMQP connections of this server share."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        decisions: Decisions,
        hub_by_host: Callable[[str], Hub | None],
        faces: Sequence[Face],
        gates: Sequence[Gate] = (),
        dialogues: Mapping[str, Callable[[AmqpConversation], SaslDialogue]] | None = None,
        connect_timeout: float,
    ) -> None:
        self.store = store
        self.clock = clock
        self.decisions = decisions
        self.hub_by_host = hub_by_host
        self.faces = faces
        self.gates = gates
        self.dialogues = dialogues or {}  # by the name of the SASL mechanism
        self.sasl = ServerSasl((*HUB_MECHANISMS, *self.dialogues))
        self.connect_timeout = connect_timeout
        self.policy_changes = 0  # whoever read a policy sees by it whether to read again
        self._conversations: set[AmqpConversation] = set()

    def open_conversation(self, stream: ByteStream) -> AmqpConversation:
        conversation = AmqpConversation(self, stream)
        self._conversations.add(conversation)
        return conversation

    def forget(self, conversation: AmqpConversation) -> None:
        self._conversations.discard(conversation)

    def policy_changed(self, scope: int, name: str, changed: policy.SharedAccessPolicy | None) -> None:
        """Let every connection look again whether what a policy of this hub has granted it still holds."""
        self.policy_changes += 1
        for conversation in list(self._conversations):
            conversation.policy_changed(scope, name, changed)

    def end(self, hub: Hub) -> None:
        """The hub was deleted: end the connections to it."""
        for conversation in list(self._conversations):
            conversation.end_of(hub)


class AmqpConversation:
    """Drives one connection: an `interfaces.Conversation`."""

    def __init__(self, server: AmqpServer, stream: ByteStream) -> None:
        self.server = server
        self.stream = stream
        self.grants = Grants()
        self.credentials: Credentials | None = None  # of SASL, when a gate has let them in
        self._dialogue: SaslDialogue | None = None
        self._hub: Hub | None = None
        self._wire = Connection(
            role="server",
            container_id=f"moorage-{stream.tracking_id}",
            channel_max=CHANNEL_MAX,
            sasl=server.sasl,
            limits=LIMITS,
        )
        self._handlers: dict[Sender | Receiver, LinkHandler] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticker: Timer | None = None
        self._expiry: Timer | None = None
        self._pumping = False
        self._why = ""  # the connection ends
        self._deadline = stream.call_later(server.connect_timeout, lambda: stream.abort("no open in time"))
        self._tick()

    # --- whom the peer talks to ---------------------------------------------------------------------------

    @property
    def hub(self) -> Hub:
        """The hub that `open.hostname` named, or the token of SASL PLAIN. Raises NotFound when there is none."""
        if self._hub is None:
            raise NotFound("hub", self._named or "")
        return self._hub

    @property
    def host(self) -> str:
        """The name under which the peer has reached the hub."""
        return sas.host_name(self._named or self.hub.advertised_host)

    @property
    def hosts(self) -> tuple[str, ...]:
        """All names under which a token may speak of this connection's hub."""
        return tuple(dict.fromkeys((self.host, *self.hub.host_names)))

    @property
    def _named(self) -> str | None:
        remote = self._wire.remote
        return remote.hostname if remote is not None else None

    # --- the pump -----------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        self._pump(lambda: self._dispatch(self._wire.receive(data)))

    def drained(self) -> None:
        def go_on() -> None:
            for handler in list(self._handlers.values()):
                handler.drained()

        self._pump(go_on)

    def stopping(self) -> None:
        self._why = "server stop"
        self.stream.call_later(GOODBYE, lambda: self.stream.close(self._why))
        self._pump(lambda: self._wire.close(Error(conditions.CONNECTION_FORCED, "the server stops")))

    def end_of(self, hub: Hub) -> None:
        """Close, if this is a connection to `hub`, which is no more."""
        if self._hub is not None and self._hub.scope == hub.scope:
            gone = self.error(NotFound("hub", hub.name))
            self._why = "the hub was deleted"
            self.stream.call_later(GOODBYE, lambda: self.stream.close(self._why))
            self._pump(lambda: self._wire.close(gone))

    def closed(self, reason: str) -> None:
        self.server.forget(self)
        self._dispatch(self._wire.eof())
        for task in self._tasks:
            task.cancel()
        log.info(
            "AMQP connection closed",
            extra={
                "tracking_id": self.stream.tracking_id,
                "address": self.stream.peer.address,
                "reason": reason,
            },
        )

    def send(self, work: Callable[[], object]) -> None:
        """Run `work`, which may use any link, and put on the wire what it brought about."""
        self._pump(work)

    def flush(self) -> None:
        """Hand over what is to be sent, so that `stream.pending` counts it."""
        if output := self._wire.take_output():
            self.stream.write(output)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` for as long as the connection lasts, which ends when `work` fails."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("AMQP request failed", exc_info=error, extra={"tracking_id": self.stream.tracking_id})
            self.stream.abort(f"internal error: {type(error).__name__}")

    def _pump(self, work: Callable[[], object]) -> None:
        if self._pumping:  # called from within a handler: the outermost call writes
            work()
            return
        self._pumping = True
        try:
            work()
            if self._wire.closed:
                self._dispatch(self._wire.receive(b""))  # what closing brought about
        finally:
            self._pumping = False
        self.flush()
        if self._wire.closed:
            self.stream.close(self._why)

    def _tick(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        now = self.stream.time()
        due: list[float | None] = []
        self._pump(lambda: due.append(self._wire.tick(now)))
        if due[0] is not None:
            self._ticker = self.stream.call_later(max(due[0] - now, SOONEST), self._tick)

    # --- events -------------------------------------------------------------------------------------------

    def _dispatch(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case DeliveryReceived():
                    if handler := self._handlers.get(event.link):
                        handler.delivery(event)
                case DispositionReceived():
                    if handler := self._handlers.get(event.link):
                        handler.outcome(event)
                case CreditChanged():
                    if handler := self._handlers.get(event.link):
                        handler.credit()
                case LinkAttached():
                    self._attached(event.link)
                case LinkDetached():
                    self._forget(event.link)
                case Opened():
                    self._opened()
                case SaslInit():
                    self._sasl(event)
                case SaslResponse() if self._dialogue is not None:  # no other mechanism asks for one
                    self._answer_sasl(self._dialogue, event.response)
                case SessionEnded(error=Error() as error, by_peer=False) if not self._wire.closed:
                    self._note_fault("session", error)
                case Closed():
                    self._ended(event)

    def _opened(self) -> None:
        self._deadline.cancel()
        if self._hub is None:
            self._hub = self.server.hub_by_host(self._named or "")
        self._tick()  # the peer has told how often it wants to hear from us

    def _attached(self, link: Sender | Receiver) -> None:
        path = link_path(link)
        try:
            self._handlers[link] = self._take(link, path)
        except MoorageError as error:
            self.refuse(self.finding("attach", _subject(path)), error)
            link.refuse(self.error(error))

    def _take(self, link: Sender | Receiver, path: Sequence[str]) -> LinkHandler:
        if [segment.lower() for segment in path] == [CBS]:
            if self.count(CbsNode) >= MAX_CBS_LINKS:
                raise Invalid("links", f"a connection has no more than {MAX_CBS_LINKS} links with {CBS}")
            return CbsNode(self, link)
        for face in self.server.faces:
            if face.takes(path):
                return face.attach(self, link, path)
        raise _absent(path) or NotFound("AMQP address", "/".join(path)[:300])

    def detach(self, link: Sender | Receiver, error: Error) -> None:
        """End a link, and let go at once of what it held: the peer's answer may never come."""
        link.detach(error)
        self._forget(link)

    def count(self, kind: type[LinkHandler]) -> int:
        """Links of the connection that are served in this way."""
        return sum(isinstance(handler, kind) for handler in self._handlers.values())

    def _forget(self, link: Sender | Receiver) -> None:
        if (handler := self._handlers.pop(link, None)) is not None:
            handler.detached()

    def _ended(self, closed: Closed) -> None:
        error = closed.error
        if error is not None and not closed.by_peer and error.condition not in _NO_FAULT:
            self._note_fault("connection", error)
        words = f": {error.condition}: {error.description}" if error is not None else ""
        self._why = self._why or f"AMQP close{words}"

    # --- refusals -----------------------------------------------------------------------------------------

    def error(self, error: MoorageError) -> Error:
        """`error` as it is told on the wire."""
        return Error(*faults.amqp_error(error, self.stream.tracking_id, self.server.clock.now()))

    def finding(self, operation: str, subject: str = "") -> Finding:
        scope = self._hub.scope if self._hub is not None else 0
        return Finding.from_peer(self.stream.peer, self.stream.tracking_id, operation, subject, scope=scope)

    def refuse(self, finding: Finding, error: MoorageError) -> None:
        """Leave a decision record and a log line."""
        self.server.decisions.refuse(finding, error, self.server.clock.now(), log)

    def _note_fault(self, operation: str, error: Error) -> None:
        """The peer broke a rule of AMQP."""
        self.refuse(self.finding(operation), Invalid("", f"{error.condition}: {error.description}"))

    # --- proof --------------------------------------------------------------------------------------------

    def _sasl(self, init: SaslInit) -> None:
        """EXTERNAL, MSSBCBS and ANONYMOUS prove nothing yet: the certificate, or `$cbs`, follows [hub-device 4.1]."""
        if init.mechanism == "PLAIN":
            self.spawn(self._judge_plain(init.initial_response))
        elif (dialogue := self.server.dialogues.get(init.mechanism)) is not None:
            self._dialogue = dialogue(self)
            self._answer_sasl(self._dialogue, init.initial_response)
        else:
            self._tell_verdict(SaslCode.OK)

    def _answer_sasl(self, dialogue: SaslDialogue, response: bytes | None) -> None:
        """One step of a mechanism that has several."""
        try:
            said = dialogue.step(response)
        except MoorageError:  # it has been recorded
            self._tell_verdict(SaslCode.AUTH)
            return
        if isinstance(said, Credentials):
            self.credentials = said
            self._tell_verdict(SaslCode.OK)
        else:
            self._wire.sasl_challenge(said)

    def _tell_verdict(self, code: SaslCode) -> None:
        self._wire.sasl_outcome(code)
        self._dispatch(self._wire.receive(b""))  # what the peer sent ahead of the verdict

    async def _judge_plain(self, response: bytes | None) -> None:
        code = SaslCode.OK
        try:
            await self._admit_plain(response)
        except Unavailable:
            code = SaslCode.SYS_TEMP
        except MoorageError:  # it has been recorded
            code = SaslCode.AUTH
        self._pump(lambda: self._tell_verdict(code))

    async def _admit_plain(self, response: bytes | None) -> None:
        """Raises MoorageError, which has left a decision."""
        finding = self.finding("connect")
        try:
            credentials = _credentials(response)
            gate = next((gate for gate in self.server.gates if gate.knows(credentials.user)), None)
            if gate is None:
                _check_policy_user(credentials.user, finding)
        except MoorageError as error:
            self.refuse(finding, error)
            raise
        if gate is None:
            await self.put_token(credentials.password, "connect")
        else:
            self.credentials = credentials

    async def put_token(self, text: str, operation: str = "put-token") -> None:
        """Judge a token of a hub policy and remember what it grants. Raises Unauthorized, NotSupported, NotFound."""
        finding = self.finding(operation)
        try:
            token = sas.parse_token(text)
            finding.present_token(token)
            host, path = _resource(token)
            hub = self._hub or self.server.hub_by_host(host)
            if hub is None:
                raise NotFound("hub", host[:300])
            if token.key_name is None:
                finding.subject = _subject(path)
                raise NotSupported("devices over AMQP", _INSTEAD)
            finding.scope = hub.scope
            self.grants.add(Grant(token, await self._policy_of(token, hub, finding)))
        except MoorageError as error:
            self.refuse(finding, error)
            raise
        self._hub = hub
        self._watch_expiry()

    async def _policy_of(self, token: sas.SasToken, hub: Hub, finding: Finding) -> policy.SharedAccessPolicy:
        """The policy that signed `token`. Raises Unauthorized."""
        name = token.key_name or ""
        finding.subject = name[:300]
        held, changes = None, -1
        while changes != self.server.policy_changes:
            changes = self.server.policy_changes
            held = await self.server.store.records(policy.KIND, hub.scope).get(name)
        if held is None:
            raise Unauthorized(
                f"there is no shared access policy named '{name[:128]}'",
                check="policy known",
                remedy="Name an existing policy in 'skn'.",
            )
        finding.known = True
        finding.consider(f"shared access policy {held.name}")
        # Event Hubs clients sign with the text of the key, IoT Hub clients with its bytes [hub-service 2.2].
        sas.verify(token, held.keys, self.server.clock.now(), text_keys=True)
        return held

    def _watch_expiry(self) -> None:
        """Look again when the next token ends."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        now = self.server.clock.now()
        if (at := self.grants.next_end(now)) is not None:
            self._expiry = self.stream.call_later((at - now) / 1_000_000, self._expired)

    def policy_changed(self, scope: int, name: str, changed: policy.SharedAccessPolicy | None) -> None:
        """The tokens of a policy hold no longer than its keys, and grant what it grants now."""
        if self._hub is not None and self._hub.scope == scope and self.grants.policy_changed(name, changed):
            self._expired()

    def _expired(self) -> None:
        """Something that was granted has ended: every link has to show that it still may."""

        def recheck() -> None:
            for link, handler in list(self._handlers.items()):
                try:
                    handler.recheck()
                except MoorageError as error:
                    self.refuse(self.finding("link", link.name), error)
                    self.detach(link, self.error(error))

        self._pump(recheck)
        self._watch_expiry()


def _credentials(response: bytes | None) -> Credentials:
    try:
        _, user, password = parse_plain(response)
    except Malformed as fault:
        raise Invalid("SASL PLAIN", fault.reason) from None
    return Credentials(user, password)


def _check_policy_user(user: str, finding: Finding) -> None:
    """`{policy}@sas.root.{hub}` is a policy of a hub, `{device}@sas.{hub}` a device [hub-service 10.1].

    Raises MoorageError for all but the former.
    """
    name, _, realm = user.rpartition("@")
    realm = realm.lower()
    if realm.startswith("sas.root.") or realm in ("sas.root", "sas."):
        return
    finding.subject = (name or user).partition("/")[0][:300]
    if realm.startswith("sas."):
        raise NotSupported("devices over AMQP", _INSTEAD)
    raise Unauthorized(
        "the user name is not that of a shared access policy",
        check="user name",
        remedy="Write it as {policy}@sas.root.{hub}, and give a SAS token as the password.",
    )


def _resource(token: sas.SasToken) -> tuple[str, list[str]]:
    """Host and path that a token speaks of."""
    text = token.resource.partition("://")[2] or token.resource
    host, _, path = text.strip("/").partition("/")
    return sas.host_name(host), address_path(path)


def _subject(path: Sequence[str]) -> str:
    """Whom an address speaks of: the device in it, else the address itself."""
    lowered = [segment.lower() for segment in path]
    if lowered[:1] == ["devices"] and len(path) > 1:
        return path[1][:300]
    if lowered[1:2] == ["registrations"] and len(path) > 2:
        return path[2][:300]
    return "/".join(path)[:300]


def _absent(path: Sequence[str]) -> NotSupported | None:
    """What Azure has at this address and this release has not."""
    match [segment.lower() for segment in path]:
        case ["devices", *_]:
            return NotSupported("devices over AMQP", _INSTEAD)
        case ["messages", "servicebound", "filenotifications" | "fileuploadnotifications"]:
            return NotSupported("file upload and its notifications")
    return None
