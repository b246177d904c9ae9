"""Who is connected to this hub, on this node: one live connection an identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from moorage.interfaces import Clock, Peer

TAKEN_OVER = "the device connected again, which ends its older connection"
"""Why a session ends when a newer one opens; on the wire 400027 where there is a word for it."""

DEVICE_DISABLED = "the device was disabled"
DEVICE_DELETED = "the device was deleted"
MODULE_DELETED = "the module was deleted"
NO_EDGE_DEVICE = "the device is no IoT Edge device any more"
HUB_DELETED = "the hub was deleted"


class Cause(StrEnum):
    """What ended a connection."""

    DISCONNECT = "disconnect"  # the device said goodbye
    TAKEN_OVER = "takenOver"
    TOKEN_EXPIRED = "tokenExpired"
    KEEP_ALIVE_MISSED = "keepAliveMissed"
    DISABLED = "disabled"
    DELETED = "deleted"
    RULE_BROKEN = "ruleBroken"  # the device broke a rule, of the protocol or of the hub
    SERVER_STOP = "serverStop"
    NETWORK_LOST = "networkLost"
    ENDED_BY_HUB = "endedByHub"  # for any other reason


class Ending(NamedTuple):
    """Why a connection ended; `detail` is a sentence, which names the rule where one was broken."""

    cause: Cause
    detail: str = ""


_CAUSES = {
    TAKEN_OVER: Cause.TAKEN_OVER,
    DEVICE_DISABLED: Cause.DISABLED,
    DEVICE_DELETED: Cause.DELETED,
    MODULE_DELETED: Cause.DELETED,
    NO_EDGE_DEVICE: Cause.DELETED,
    HUB_DELETED: Cause.DELETED,
}


def ending_by_hub(reason: str) -> Ending:
    """Of a connection that the hub ends for `reason`."""
    return Ending(_CAUSES.get(reason, Cause.ENDED_BY_HUB), reason)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who proved to be whom. `auth_scope` is "device" or "module" (its own proof), or "hub" (a policy).

    `auth_type` is "sas" or "x509". `expires_at` is the expiry of the token in microseconds, None for a
    certificate.
    """

    device_id: str
    generation_id: str
    auth_scope: str
    auth_type: str
    expires_at: int | None = None
    module_id: str | None = None

    @property
    def name(self) -> str:
        return name_of(self.device_id, self.module_id)

    @property
    def resource(self) -> str:
        """The end of `{host}/devices/…`, and the beginning of topics. [hub-device 2.2, 3.6]"""
        return self.device_id if self.module_id is None else f"{self.device_id}/modules/{self.module_id}"


def name_of(device_id: str, module_id: str | None = None) -> str:
    """What a device or module is called where the two stand side by side: `pump-7`, `pump-7/camera`.

    No id holds a slash, so none is mistaken for another. [hub-device 2.1]
    """
    return device_id if module_id is None else f"{device_id}/{module_id}"


class Link(Protocol):
    """The live connection of a device or module as the hub uses it, whatever its protocol.

    Calls come on the event loop's thread; none of them waits for the device.
    """

    def close(self, reason: str) -> None:
        """End the connection; this may call `Sessions.close` in turn."""
        ...

    def desired_changed(self, change: Mapping[str, Any], version: int) -> None:
        """Tell of desired properties, if the device listens to that: what changed, null for what is gone, or all.

        Calls come in the order of their versions.
        """
        ...

    def invoke(self, request_id: str, method: str, payload: bytes) -> bool:
        """Call a direct method; `payload` is a JSON text. False, and nothing sent, if the device does not listen.

        What the device answers goes to `Session.answered`.
        """
        ...


class MethodAnswer(NamedTuple):
    """What a device answers to a call of a direct method; `payload` is as it came, a JSON text or not."""

    status: int
    payload: bytes


class PendingCall(NamedTuple):
    """A call under way. `end` is told the answer, or None when the connection ends before there is one."""

    size: int
    end: Callable[[MethodAnswer | None], object]


@dataclass(slots=True, eq=False)
class Session:
    """One authenticated connection of a device or module. Times are in microseconds.

    `model_id` is the model the device announced, "" without one. The adapter moves `last_activity` on with what
    it receives. `tracking_id` is that of the connection, `peer` its other end. `calls` are those of direct methods
    under way on it, by request id.
    """

    principal: Principal
    connected_at: int
    link: Link
    model_id: str = ""
    last_activity: int = 0
    tracking_id: str = ""
    peer: Peer | None = None
    calls: dict[str, PendingCall] = field(default_factory=dict)
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.principal.name
        self.last_activity = self.last_activity or self.connected_at

    @property
    def device_id(self) -> str:
        return self.principal.device_id

    def answered(self, request_id: str, answer: MethodAnswer) -> None:
        """The device answers a call; one that nobody waits for any more is passed over. [hub-device 3.11]"""
        call = self.calls.pop(request_id, None)
        if call is not None:
            call.end(answer)

    def end_calls(self) -> None:
        """The connection is gone, and with it every answer still out."""
        while self.calls:
            self.calls.popitem()[1].end(None)


class Observer(Protocol):
    """Told of each connection's beginning and, once, of its end; those of one device in order. It may not raise."""

    def opened(self, session: Session) -> None: ...

    def ended(self, session: Session, ending: Ending) -> None: ...


class Queues(Protocol):
    """What waits for devices and modules, by their names."""

    def count(self, name: str) -> int: ...

    def forget(self, name: str) -> None: ...

    def forget_device(self, device_id: str) -> None: ...


class Presence(NamedTuple):
    """What the views of a device tell of its connection and queue; None for a time at which nothing happened yet."""

    connected: bool = False
    changed_at: int | None = None
    last_activity: int | None = None
    model_id: str = ""
    queued: int = 0  # cloud-to-device messages

    @property
    def state(self) -> str:
        return "Connected" if self.connected else "Disconnected"


ABSENT = Presence()


class Sessions:
    """The live sessions of one hub, by the name of the device or module."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._live: dict[str, Session] = {}
        self._ended: dict[str, Presence] = {}  # devices and modules that went away, until that is `written`
        self._observers: list[Observer] = []
        self._modules: dict[str, set[str]] = {}  # names of the modules seen since the start, by device id
        self.changed: set[str] = set()
        """Names whose presence has changed in a way that is to be written; whoever writes takes them out."""
        self.queues: Queues | None = None
        self._awaiting: dict[str, list[Callable[[], object]]] = {}
        self.drops = 0
        """How often a device was dropped; whoever read an identity sees by it whether to read again."""

    def __len__(self) -> int:
        return len(self._live)

    def observe(self, observer: Observer) -> None:
        self._observers.append(observer)

    def open(self, session: Session) -> None:
        """Make `session` the device's connection. An older one is closed."""
        older = self._live.get(session.name)
        self._live[session.name] = session
        self._ended.pop(session.name, None)
        self.changed.add(session.name)
        if session.principal.module_id is not None:
            self._modules.setdefault(session.device_id, set()).add(session.name)
        if older is not None:
            self._tell_end(older, ending_by_hub(TAKEN_OVER))
        for observer in self._observers:
            observer.opened(session)
        if older is not None:
            older.link.close(TAKEN_OVER)
            older.end_calls()

    def close(self, session: Session, ending: Ending) -> None:
        """The connection has ended, and it may not have been the device's current one any more."""
        session.end_calls()
        if self._live.get(session.name) is session:
            del self._live[session.name]
            self._ended[session.name] = Presence(
                connected=False,
                changed_at=self._clock.now(),
                last_activity=session.last_activity,
                model_id=session.model_id,
            )
            self.changed.add(session.name)
            self._tell_end(session, ending)

    def _tell_end(self, session: Session, ending: Ending) -> None:
        for observer in self._observers:
            observer.ended(session, ending)

    def written(self, name: str, presence: Presence) -> None:
        """`presence` is in the records: unless more has happened since, nothing is to be remembered of who is away."""
        ended = self._ended.get(name)
        if ended is not None and ended == (presence._replace(queued=0) if presence.queued else presence):
            del self._ended[name]

    def heard_since(self, time: int) -> list[str]:
        """Names of who is connected and has sent something after `time`, in microseconds."""
        return [name for name, session in self._live.items() if session.last_activity > time]

    def connected(self, name: str) -> Session | None:
        return self._live.get(name)

    def listens(self, session: Session) -> None:
        """The device has begun to listen to direct methods, or to more of them."""
        for act in tuple(self._awaiting.get(session.name, ())):
            act()

    def await_listening(self, name: str, act: Callable[[], object]) -> Callable[[], None]:
        """`act` is called each time that one begins to listen to methods; the function returned ends it."""
        acts = self._awaiting.setdefault(name, [])
        acts.append(act)

        def forget() -> None:
            acts.remove(act)
            if not acts and self._awaiting.get(name) is acts:
                del self._awaiting[name]

        return forget

    def awaited(self, name: str) -> int:
        """How many wait for it to listen."""
        return len(self._awaiting.get(name, ()))

    def connected_names(self) -> list[str]:
        """Of all devices and modules that are connected now."""
        return list(self._live)

    def drop(self, name: str, reason: str) -> None:
        """End the device's connection, if there is one."""
        self.drops += 1
        session = self._live.get(name)
        if session is not None:
            self.close(session, ending_by_hub(reason))
            session.link.close(reason)

    def drop_device(self, device_id: str, reason: str) -> None:
        """End the connections of the device and of all its modules."""
        self.drop(device_id, reason)
        for name in list(self._modules.get(device_id, ())):
            self.drop(name, reason)

    def drop_all(self, reason: str) -> None:
        """End every connection, and that of whoever is just being judged."""
        self.drops += 1
        for name in list(self._live):
            self.drop(name, reason)

    def forget(self, name: str) -> None:
        """The identity is gone: no later one of that name inherits what was seen of it."""
        if self._ended.pop(name, None) is not None:
            self.changed.add(name)
        if self.queues is not None:
            self.queues.forget(name)

    def forget_device(self, device_id: str) -> None:
        """The identity is gone, and with it those of its modules."""
        self.forget(device_id)
        for name in self._modules.pop(device_id, ()):
            self.forget(name)
        if self.queues is not None:
            self.queues.forget_device(device_id)

    def presence(self, name: str) -> Presence:
        """As far as it is known here; what is `written` of who is away is for `Presences` to say."""
        session = self._live.get(name)
        queued = self.queues.count(name) if self.queues is not None else 0
        if session is None:
            ended = self._ended.get(name, ABSENT)
            return ended._replace(queued=queued) if queued else ended
        return Presence(True, session.connected_at, session.last_activity, session.model_id, queued)
