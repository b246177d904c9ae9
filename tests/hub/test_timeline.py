from __future__ import annotations

from collections.abc import Callable

from moorage.hub.session import Cause, Ending, Principal, Session, Sessions
from moorage.hub.timeline import Timeline, TimelineOfHub
from moorage.interfaces import Clock, Peer
from tests.support.sessions import ClosingLink

SCOPE = 2
LOST = Ending(Cause.NETWORK_LOST, "closed by peer")


def session(clock: Clock, device_id: str = "d1") -> Session:
    principal = Principal(device_id, "1", "device", "sas")
    peer = Peer("192.0.2.7", "mqtt")
    return Session(principal, clock.now(), ClosingLink(), tracking_id="ab", peer=peer)


def test_a_connection_from_beginning_to_end(
    sessions: Sessions, clock: Clock, advance: Callable[[float], None]
) -> None:
    timeline = Timeline()
    sessions.observe(TimelineOfHub(timeline, SCOPE, clock))
    one = session(clock)
    sessions.open(one)
    advance(2.5)
    sessions.close(one, LOST)
    began, ended = timeline.of(SCOPE, "d1")
    assert (began.connected, ended.connected) == (True, False)
    assert (ended.time - began.time, ended.seconds, ended.ending) == (2_500_000, 2.5, LOST)
    assert {(each.tracking_id, each.door, each.address) for each in (began, ended)} == {
        ("ab", "mqtt", "192.0.2.7")
    }
    assert timeline.of(SCOPE + 1, "d1") == []


def test_what_is_kept_is_bounded_and_told_from_a_place_on(sessions: Sessions, clock: Clock) -> None:
    timeline = Timeline(per_name=2, latest=4)
    hub = TimelineOfHub(timeline, SCOPE, clock)
    for number in range(6):
        hub.opened(session(clock, f"d{number % 2}"))
    assert len(timeline.of(SCOPE, "d0")) == 2
    assert [change.name for change in timeline.latest(SCOPE, 3)] == ["d1", "d0", "d1"]
    assert timeline.latest(SCOPE + 1, 3) == []
    assert len(list(timeline.since(0))) == 4  # the first two are forgotten
    assert len(list(timeline.since(5))) == 1
    assert not list(timeline.since(timeline.added))
