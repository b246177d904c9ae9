from __future__ import annotations

from collections.abc import Callable

from moorage.hub.session import (
    ABSENT,
    DEVICE_DELETED,
    DEVICE_DISABLED,
    TAKEN_OVER,
    Cause,
    Ending,
    MethodAnswer,
    PendingCall,
    Presence,
    Principal,
    Session,
    Sessions,
)
from moorage.interfaces import Clock
from tests.support.sessions import ClosingLink

GONE = Ending(Cause.NETWORK_LOST, "closed by peer")


def open_session(sessions: Sessions, clock: Clock, reasons: list[str], model_id: str = "") -> Session:
    """A session whose end is noted in `reasons`, and which tells `sessions` of it as an adapter does."""

    class TellingLink(ClosingLink):
        def close(self, reason: str) -> None:
            super().close(reason)
            sessions.close(session, GONE)

    session = Session(Principal("d1", "1", "device", "sas"), clock.now(), TellingLink(reasons), model_id)
    sessions.open(session)
    return session


def test_a_newer_connection_ends_the_older(sessions: Sessions, clock: Clock) -> None:
    reasons: list[str] = []
    older = open_session(sessions, clock, reasons)
    newer = open_session(sessions, clock, reasons)
    assert reasons == [TAKEN_OVER]
    assert sessions.connected("d1") is newer
    sessions.close(older, GONE)  # its connection is gone only now
    assert sessions.connected("d1") is newer
    assert len(sessions) == 1


def test_a_dropped_device_is_closed_once_with_the_reason(sessions: Sessions, clock: Clock) -> None:
    reasons: list[str] = []
    open_session(sessions, clock, reasons)
    sessions.drop("d1", "the device was disabled")
    sessions.drop("d1", "again")
    assert reasons == ["the device was disabled"]
    assert sessions.connected("d1") is None
    assert sessions.drops == 2


def test_presence_tells_connection_and_activity(
    sessions: Sessions, clock: Clock, advance: Callable[[float], None]
) -> None:
    start = clock.now()
    assert sessions.presence("d1") == ABSENT
    assert (ABSENT.state, ABSENT.changed_at, ABSENT.last_activity) == ("Disconnected", None, None)
    session = open_session(sessions, clock, [], "dtmi:x;1")
    assert sessions.presence("d1") == Presence(True, start, start, "dtmi:x;1")
    advance(5)
    session.last_activity = clock.now()
    advance(1)
    sessions.close(session, GONE)
    gone = sessions.presence("d1")
    assert gone == Presence(False, start + 6_000_000, start + 5_000_000, "dtmi:x;1")
    assert gone.state == "Disconnected"
    sessions.forget("d1")
    assert sessions.presence("d1") == ABSENT


def test_a_returning_device_is_connected_since_its_return(
    sessions: Sessions, clock: Clock, advance: Callable[[float], None]
) -> None:
    sessions.close(open_session(sessions, clock, []), GONE)
    advance(9)
    open_session(sessions, clock, [])
    presence = sessions.presence("d1")
    assert (presence.state, presence.changed_at) == ("Connected", clock.now())


def test_a_module_and_its_device_have_a_connection_each(sessions: Sessions, clock: Clock) -> None:
    device, module = (Principal("d1", "1", "device", "sas", module_id=module) for module in (None, "m"))
    assert (device.name, module.name) == ("d1", "d1/m")
    links = [ClosingLink(), ClosingLink()]
    for principal, link in zip((device, module), links, strict=True):
        sessions.open(Session(principal, clock.now(), link))
    assert len(sessions) == 2
    sessions.drop("d1/m", "the module was deleted")
    assert (links[0].reasons, links[1].reasons) == ([], ["the module was deleted"])


class Witness:
    """Notes what it is told, as (what, name)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def opened(self, session: Session) -> None:
        self.told.append(("opened", session.name))

    def ended(self, session: Session, ending: Ending) -> None:
        self.told.append((ending.cause, session.name))


def test_beginnings_and_ends_are_told_once_and_in_order(sessions: Sessions, clock: Clock) -> None:
    """Of a takeover the end of the older comes first, so that whoever listens last hears of the newer."""
    witness = Witness()
    sessions.observe(witness)
    for reason in (DEVICE_DISABLED, DEVICE_DELETED, "something else"):
        older = open_session(sessions, clock, [])
        open_session(sessions, clock, [])
        sessions.close(older, GONE)
        sessions.drop("d1", reason)
        sessions.drop("d1", reason)
    assert [what for what, _ in witness.told] == [
        *("opened", "takenOver", "opened", "disabled"),
        *("opened", "takenOver", "opened", "deleted"),
        *("opened", "takenOver", "opened", "endedByHub"),
    ]


def test_a_module_is_told_of_by_its_name(sessions: Sessions, clock: Clock) -> None:
    witness = Witness()
    sessions.observe(witness)
    session = Session(Principal("d1", "1", "module", "sas", module_id="m"), clock.now(), ClosingLink())
    sessions.open(session)
    sessions.close(session, GONE)
    assert witness.told == [("opened", "d1/m"), ("networkLost", "d1/m")]


def test_whoever_waits_for_a_device_to_listen_is_told_until_it_forgets(
    sessions: Sessions, clock: Clock
) -> None:
    told: list[str] = []
    forget_first = sessions.await_listening("d1", lambda: told.append("first"))
    forget_second = sessions.await_listening("d1", lambda: told.append("second"))
    sessions.await_listening("d2", lambda: told.append("other"))
    session = open_session(sessions, clock, [])
    assert (told, sessions.awaited("d1")) == ([], 2)
    sessions.listens(session)
    forget_first()
    sessions.listens(session)
    assert told == ["first", "second", "second"]
    forget_second()
    assert (sessions.awaited("d1"), sessions.awaited("d2")) == (0, 1)


def test_calls_end_with_the_connection_they_were_sent_on(sessions: Sessions, clock: Clock) -> None:
    """Also when it was closed late, and the device has come again by then."""
    ended: list[tuple[str, MethodAnswer | None]] = []
    older, newer = (open_session(sessions, clock, []) for _ in range(2))
    for name, session in (("old", older), ("new", newer)):
        session.calls["1"] = PendingCall(1, lambda answer, name=name: ended.append((name, answer)))  # type: ignore[misc]
    sessions.close(older, GONE)
    assert ended == [("old", None)]
    newer.answered("1", MethodAnswer(200, b"{}"))
    newer.answered("1", MethodAnswer(200, b"{}"))
    newer.answered("2", MethodAnswer(200, b"{}"))
    assert ended[1:] == [("new", MethodAnswer(200, b"{}"))]
