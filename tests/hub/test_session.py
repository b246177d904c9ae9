from __future__ import annotations

from collections.abc import Callable

from moorage.hub.session import ABSENT, TAKEN_OVER, Presence, Principal, Session, Sessions
from moorage.interfaces import Clock


def open_session(sessions: Sessions, clock: Clock, reasons: list[str], model_id: str = "") -> Session:
    """A session whose end is noted in `reasons`, and which tells `sessions` of it as an adapter does."""

    def close(reason: str) -> None:
        reasons.append(reason)
        sessions.close(session)

    session = Session(Principal("d1", "1", "device", "sas"), clock.now(), close, model_id)
    sessions.open(session)
    return session


def test_a_newer_connection_ends_the_older(sessions: Sessions, clock: Clock) -> None:
    reasons: list[str] = []
    older = open_session(sessions, clock, reasons)
    newer = open_session(sessions, clock, reasons)
    assert reasons == [TAKEN_OVER]
    assert sessions.connected("d1") is newer
    sessions.close(older)  # its connection is gone only now
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
    sessions.close(session)
    gone = sessions.presence("d1")
    assert gone == Presence(False, start + 6_000_000, start + 5_000_000, "dtmi:x;1")
    assert gone.state == "Disconnected"
    sessions.forget("d1")
    assert sessions.presence("d1") == ABSENT


def test_a_returning_device_is_connected_since_its_return(
    sessions: Sessions, clock: Clock, advance: Callable[[float], None]
) -> None:
    sessions.close(open_session(sessions, clock, []))
    advance(9)
    open_session(sessions, clock, [])
    presence = sessions.presence("d1")
    assert (presence.state, presence.changed_at) == ("Connected", clock.now())
