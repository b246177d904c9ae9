"""Tells the readers of a hub's built-in endpoint what happens in it, as far as a message route takes it.

What is told goes to the log at once, in the order in which it happened, and whoever answers for a change waits until it
is durable there: an acknowledged change is never without its event. One that nobody lived to see acknowledged may be.
Of connections nobody waits for an acknowledgement.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from moorage.hub import notification
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub, partition_of
from moorage.hub.message_route import Source
from moorage.hub.notification import Notification, Whom
from moorage.hub.session import Ending, Session
from moorage.hub.twin import Twin
from moorage.hub.twin_change import TwinChange
from moorage.interfaces import Clock, EventLog

log = logging.getLogger("moorage.hub")


@dataclass(slots=True)
class NotifierMetrics:
    """Counts since the start, of all hubs."""

    kept: int = 0
    lost: int = 0  # events that the log could not keep


class Notifier:
    """Of one hub; `hub` is its record as it is now. An observer of sessions, twins and of the lifecycle."""

    def __init__(
        self, hub: Callable[[], Hub], event_log: EventLog, clock: Clock, metrics: NotifierMetrics
    ) -> None:
        self._hub = hub
        self._log = event_log
        self._clock = clock
        self._epochs: dict[int, int] = {}  # by partition
        self._connections = 0  # changes told since the start
        self._underway = 0  # events that are not durable yet
        self._metrics = metrics

    def takes(self, source: Source) -> bool:
        return source in self._hub().takes

    @property
    def watches(self) -> bool:
        return self.takes(Source.LIFECYCLE) or self.takes(Source.TWIN_CHANGE)

    # What happens

    def created(self, twin: Twin) -> None:
        if self.takes(Source.LIFECYCLE):
            self._tell(notification.identity_created(self._hub(), twin, self._clock.now()))

    def deleted(self, twin: Twin) -> None:
        if self.takes(Source.LIFECYCLE):
            self._tell(notification.identity_deleted(self._hub(), twin, self._clock.now()))

    def replaced(self, twin: Twin) -> None:
        if self.takes(Source.TWIN_CHANGE):
            self._tell(notification.twin_replaced(self._hub(), twin, self._clock.now()))

    def changed(self, change: TwinChange) -> None:
        if self.takes(Source.TWIN_CHANGE):
            self._tell(notification.twin_changed(self._hub(), change, self._clock.now()))

    def opened(self, session: Session) -> None:
        self._connection(session, connected=True)

    def ended(self, session: Session, ending: Ending) -> None:
        self._connection(session, connected=False)

    def _connection(self, session: Session, *, connected: bool) -> None:
        if not self.takes(Source.CONNECTION_STATE):
            return
        hub, whom = self._hub(), Whom(session.device_id, session.principal.module_id)
        self._tell(
            notification.connection_changed(
                hub,
                whom,
                self._clock.now(),
                connected=connected,
                sequence=self._sequence(partition_of(hub, whom.device_id)),
            )
        )

    def _sequence(self, partition: int) -> str:
        """Higher than any before, in earlier runs too, whatever the clock does meanwhile.

        Each run counts from an epoch of its own, which is past every event that the partition had when it began. An
        event with an earlier epoch is one of those, and stands behind that epoch.
        """
        epoch = self._epochs.get(partition)
        if epoch is None:
            state = self._log.state(self._hub().scope, partition)
            epoch = self._epochs[partition] = state.last_sequence_number + 1
        self._connections += 1
        return f"{epoch:032X}{self._connections:032X}"

    # On its way

    def _tell(self, told: Notification) -> None:
        self._underway += 1
        self._log.append([(self._log.prepare(told.head), told.body)], self._done)

    def _done(self, error: Exception | None) -> None:
        self._underway -= 1
        if error is None:
            self._metrics.kept += 1
            return
        self._metrics.lost += 1
        log.warning("event not kept", extra={"hub": self._hub().name, "reason": str(error)})

    async def settled(self) -> None:
        """What was told is durable, or its loss has been noted."""
        if self._underway:
            await self._log.settled()


class Notifiers:
    """Those of all hubs, by scope."""

    def __init__(self, event_log: EventLog, clock: Clock) -> None:
        self._log = event_log
        self._clock = clock
        self._of: dict[int, Notifier] = {}
        self.metrics = NotifierMetrics()

    def begin(self, identities: Identities) -> None:
        """Listen to what happens in a hub, from before anybody can reach it."""
        notifier = Notifier(lambda: identities.hub, self._log, self._clock, self.metrics)
        self._of[identities.hub.scope] = notifier
        identities.sessions.observe(notifier)
        identities.twins.observe(notifier)

    def watching(self, scope: int) -> Notifier | None:
        """The notifier of a hub, if a route takes what a commit can be told by."""
        notifier = self._of.get(scope)
        return notifier if notifier is not None and notifier.watches else None

    def end(self, hub: Hub) -> None:
        self._of.pop(hub.scope, None)
