"""Decisions: complete when a caller was refused, cheap when he was let in, bounded always."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.credentials.decision import Decision, Decisions, Exchange, Finding
from moorage.credentials.sas import make_token, new_key, parse_token
from moorage.credentials.x509 import read_certificate
from moorage.errors import Disabled, Invalid, NotFound, NotSupported, Throttled, Unauthorized

LEAF = (Path(__file__).parent / "openssl" / "p256.crt").read_text()
DER = read_certificate(LEAF).der
NOW = 1_800_000_000_000_000


def decision(subject: str = "d1", *, known: bool = True, time: int = 0) -> Decision:
    finding = Finding("connect", subject)
    finding.known = known
    return finding.accepted(time)


def test_a_refusal_tells_all_that_was_presented_and_checked() -> None:
    finding = Finding("register", "pump-7", scope=3, tracking_id="ab" * 16, door="mqtt", address="192.0.2.1")
    finding.known = True
    finding.present_chain([DER])
    finding.consider("individual enrollment pump-7")
    finding.hold("enabled")
    error = Unauthorized("not the enrolled one", check="thumbprint", remedy="Enrol it.")
    told = finding.refused(NOW, error)._asdict()
    (certificate,) = told.pop("proof")["chain"]
    assert told == {
        "time": NOW,
        "tracking_id": "ab" * 16,
        "operation": "register",
        "scope": 3,
        "subject": "pump-7",
        "known": True,
        "accepted": False,
        "error": "not the enrolled one",
        "door": "mqtt",
        "address": "192.0.2.1",
        "considered": ("individual enrollment pump-7",),
        "checks": (("enabled", True, ""), ("thumbprint", False, "not the enrolled one")),
        "exchange": None,
        "remedy": "Enrol it.",
    }
    assert certificate["subject"] == certificate["issuer"] == "CN=pump-7"
    assert (len(certificate["sha1Thumbprint"]), len(certificate["sha256Thumbprint"])) == (40, 64)
    assert certificate["notAfter"] > certificate["notBefore"]


def test_neither_key_nor_signature_of_a_token_is_kept() -> None:
    key = new_key()
    text = make_token("hub.local/devices/d1", key, 1_900_000_000)
    signature = text.partition("sig=")[2].partition("&")[0]
    finding = Finding("connect", "d1")
    finding.present_token(parse_token(text))
    for closed in (finding.accepted(NOW), finding.refused(NOW, Unauthorized("no", check="signature"))):
        kept = json.dumps(closed._asdict())
        assert '"resource": "hub.local/devices/d1", "expiry": 1900000000, "keyName": null' in kept
        assert signature not in kept
        assert key not in kept


def test_an_accepted_chain_is_told_by_its_thumbprint() -> None:
    finding = Finding("connect", "d1")
    finding.present_chain([DER, b"never looked at"])
    assert finding.accepted(NOW).proof == {"thumbprint": read_certificate(LEAF).sha256}


def test_a_chain_that_cannot_be_read_is_told_too() -> None:
    finding = Finding("connect", "d1")
    finding.present_chain([b"garbage"] * 50)
    chain = finding.refused(NOW, Unauthorized("no")).proof["chain"]
    assert len(chain) == 10
    assert "cannot be parsed" in chain[0]["unreadable"]


@pytest.mark.parametrize(
    ("error", "check"),
    [
        (Unauthorized("no", check="signature"), "signature"),
        (Invalid("registrationId", "too long"), "registrationId"),
        (Disabled("device", "d1"), "enabled"),
        (NotFound("device", "d1"), "known"),
        (NotSupported("modules"), "possible"),
        (Throttled("slowly"), "rate"),
        (RuntimeError("bug"), "internal error"),
    ],
)
def test_every_error_becomes_a_failed_check(error: Exception, check: str) -> None:
    closed = Finding("connect", "d1").refused(NOW, error)
    assert closed.checks == ((check, False, str(error)),)
    assert closed.error == str(error)


@pytest.mark.parametrize("error", [Disabled("device", "d1"), NotFound("device", "d1")])
def test_facts_about_records_have_a_remedy(error: Exception) -> None:
    assert Finding("connect", "d1").refused(NOW, error).remedy


def test_a_check_noted_as_failed_is_not_noted_twice() -> None:
    finding = Finding("register", "d1")
    finding.fail("signature", "by the keys of group a")
    closed = finding.refused(NOW, Unauthorized("no key fits", check="signature"))
    assert closed.checks == (("signature", False, "by the keys of group a"),)


def test_what_a_caller_wrote_is_cut() -> None:
    finding = Finding("connect", "x" * 10_000)
    closed = finding.refused(NOW, Unauthorized("y" * 10_000))
    assert len(closed.subject) == len(closed.error) == 500


def test_a_subject_keeps_its_newest_in_order() -> None:
    decisions = Decisions(per_subject=3)
    for time in range(5):
        decisions.add(decision(time=time))
    assert [kept.time for kept in decisions.of("d1")] == [2, 3, 4]
    assert decisions.of("d2") == []


def test_subjects_without_a_record_share_one_ring() -> None:
    decisions = Decisions(per_subject=3)
    decisions.add(decision("d1", time=1))
    for time in range(2, 12):
        decisions.add(decision(f"guess-{time % 2}", known=False, time=time))
    decisions.add(decision("d1", known=False, time=12))
    assert [kept.time for kept in decisions.of("d1")] == [1, 12]
    assert [kept.time for kept in decisions.of("guess-0")] == [10]
    assert [kept.time for kept in decisions.of("guess-1")] == [11]


def test_when_all_is_full_the_subject_silent_for_longest_loses_its_oldest() -> None:
    decisions = Decisions(per_subject=10, in_all=4)
    for time, subject in enumerate(["a", "b", "a", "b", "a", "c", "c"]):
        decisions.add(decision(subject, time=time))
    kept = {subject: [each.time for each in decisions.of(subject)] for subject in "abc"}
    assert kept == {"a": [2, 4], "b": [], "c": [5, 6]}


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=200))
def test_the_bounds_hold(calls: list[tuple[str, bool]]) -> None:
    decisions = Decisions(per_subject=5, in_all=12, latest=7)
    for time, (subject, known) in enumerate(calls):
        decisions.add(decision(subject, known=known, time=time))
        newest = decision(subject, known=known, time=time)
        assert decisions.of(subject)[-1] == newest
        assert decisions.latest(1) == [newest]
    kept = [each for subject in "abcdefgh" for each in decisions.of(subject)]
    assert sum(each.known for each in kept) <= 12
    assert all(len(decisions.of(subject)) <= 10 for subject in "abcdefgh")
    assert sum(not each.known for each in kept) <= 5
    assert len(decisions.latest(100)) == min(7, len(calls))


def test_the_latest_come_first() -> None:
    decisions = Decisions()
    for time in range(4):
        decisions.add(decision(f"d{time}", known=time % 2 == 0, time=time))
    assert [each.time for each in decisions.latest(3)] == [3, 2, 1]


def exchanged(number: int) -> Exchange:
    return Exchange(
        asked=f"https://alloc.example.net/{number}", request="{}", status=200, answer="{}", seconds=0.1
    )


def test_what_was_asked_outside_is_kept_in_full_of_the_newest_and_in_numbers_of_all() -> None:
    decisions = Decisions(exchanges=2)
    for number in range(3):
        finding = Finding("register", "pump-7")
        finding.known = True
        finding.exchange = exchanged(number)
        decisions.add(finding.accepted(NOW + number))
    kept = [decision.exchange for decision in decisions.of("pump-7")]
    assert [(each.asked[-1], each.request, each.answer, each.status) for each in kept if each] == [
        ("0", "", "", 200),
        ("1", "{}", "{}", 200),
        ("2", "{}", "{}", 200),
    ]


def test_what_came_since_a_place() -> None:
    decisions = Decisions(latest=3)

    def since(place: int) -> tuple[list[int], int]:
        found, missed = decisions.since(place)
        return [each.time for each in found], missed

    assert (since(0), decisions.added) == (([], 0), 0)
    for time in range(5):
        decisions.add(decision(f"d{time}", known=time % 2 == 0, time=time))
    assert decisions.added == 5
    assert since(5) == ([], 0)
    assert since(3) == ([3, 4], 0)
    assert since(2) == ([2, 3, 4], 0)
    assert since(0) == ([2, 3, 4], 2)
