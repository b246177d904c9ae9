from __future__ import annotations

from typing import Any

import pytest

from moorage.wire.amqp import (
    ClientSasl,
    Closed,
    Connection,
    Opened,
    SaslChallenge,
    SaslCode,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    SaslResponse,
    ServerSasl,
    conditions,
    frames,
    parse_plain,
)
from moorage.wire.amqp.performatives import Init, Mechanisms, Open, Response, encode_composite
from moorage.wire.errors import Malformed
from tests.wire.amqp.joined import Joined

INIT = encode_composite(Init(mechanism="PLAIN", initial_response=b"\0u\0p"))


def sasl(body: bytes) -> bytes:
    return frames.encode_frame(body, kind=frames.SASL)


def opened_sasl(**options: Any) -> Connection:
    connection = Connection(container_id="hub", **options)
    connection.receive(frames.SASL_HEADER)
    connection.take_output()
    return connection


def test_a_server_offers_all_mechanisms_of_a_hub_together() -> None:
    connection = Connection(container_id="hub")
    assert connection.receive(frames.SASL_HEADER) == []
    offer = Mechanisms(mechanisms=("EXTERNAL", "MSSBCBS", "ANONYMOUS", "PLAIN"))
    assert connection.take_output() == frames.SASL_HEADER + sasl(encode_composite(offer))


def test_the_adapter_gives_the_verdict_and_the_peer_opens() -> None:
    connection = opened_sasl()
    events = connection.receive(sasl(INIT))
    assert events == [SaslInit("PLAIN", b"\0u\0p", None)]
    assert connection.take_output() == b""
    connection.sasl_outcome(SaslCode.OK, b"Welcome!")
    assert (
        connection.take_output()
        == bytes.fromhex("0000001a 02 01 0000 00 53 44 c0 0d 02 50 00 a0 08") + b"Welcome!"
    )
    assert connection.receive(frames.AMQP_HEADER) == []
    assert connection.take_output() == frames.AMQP_HEADER
    assert connection.sasl_mechanism == "PLAIN"


def test_what_is_sent_ahead_of_the_verdict_waits_for_it() -> None:
    connection = opened_sasl()
    remote = Open(container_id="c", hostname="h")
    ahead = frames.AMQP_HEADER + frames.encode_frame(encode_composite(remote))
    assert connection.receive(sasl(INIT) + ahead[:5]) == [SaslInit("PLAIN", b"\0u\0p", None)]
    assert connection.receive(ahead[5:]) == []
    connection.sasl_outcome(SaslCode.OK)
    assert connection.receive(b"") == [Opened(remote)]


def test_too_much_ahead_of_the_verdict_closes() -> None:
    connection = opened_sasl()
    connection.receive(sasl(INIT))
    events = connection.receive(bytes(connection.limits.held + 1))
    assert [type(event) for event in events] == [Closed]
    assert connection.closed


@pytest.mark.parametrize("code", [code for code in SaslCode if code is not SaslCode.OK])
def test_a_refusal_ends_the_connection(code: SaslCode) -> None:
    joined = Joined(sasl=ClientSasl.plain("u", "p"))
    joined.accepting = False
    joined.open()
    joined.server.sasl_outcome(code)
    joined.run()
    assert joined.server.closed
    assert joined.client.closed
    assert joined.seen(SaslOutcome, at="client") == [SaslOutcome(code, None)]
    (closed,) = joined.seen(Closed, at="client")
    assert closed.error is not None
    assert closed.error.condition == conditions.UNAUTHORIZED_ACCESS
    assert [type(event) for event in joined.server.eof()] == [Closed]


def test_challenges_and_responses_as_a_tpm_needs_them() -> None:
    mechanism = "TPM"
    joined = Joined(
        sasl=ClientSasl(mechanism, b"\0scope\0id\0ek", "scope/registrations/id"),
        offer=ServerSasl((mechanism,)),
    )
    joined.accepting = False
    joined.open()
    assert joined.seen(SaslInit) == [SaslInit(mechanism, b"\0scope\0id\0ek", "scope/registrations/id")]
    for challenge, response in (
        (b"\0", b"\0srk"),
        (b"\x80" + bytes(400), b"\0"),
        (b"\xc1" + bytes(400), b"\0token"),
    ):
        joined.server.sasl_challenge(challenge)
        joined.run()
        assert joined.seen(SaslChallenge, at="client")[-1] == SaslChallenge(challenge)
        joined.client.sasl_response(response)
        joined.run()
        assert joined.seen(SaslResponse)[-1] == SaslResponse(response)
    joined.server.sasl_outcome(SaslCode.OK)
    joined.run()
    assert len(joined.seen(Opened, at="client")) == 1
    assert joined.client.sasl_mechanism == mechanism


def test_a_challenge_over_a_sasl_frame_is_refused() -> None:
    connection = opened_sasl()
    connection.receive(sasl(INIT))
    with pytest.raises(ValueError, match="512"):
        connection.sasl_challenge(bytes(500))


def test_a_long_token_in_plain_is_taken() -> None:
    joined = Joined(
        sasl=ClientSasl.plain("service@sas.root.hub", "SharedAccessSignature " + "x" * 2000)
    ).open()
    assert len(joined.seen(Opened)) == 1
    (init,) = joined.seen(SaslInit)
    assert len(parse_plain(init.initial_response).password) == 2022


BROKEN = {
    "a mechanism not offered": sasl(encode_composite(Init(mechanism="GSSAPI"))),
    "a response before init": sasl(encode_composite(Response(response=b""))),
    "mechanisms from a client": sasl(encode_composite(Mechanisms(mechanisms=("PLAIN",)))),
    "open inside SASL": sasl(encode_composite(Open(container_id="c"))),
    "an AMQP frame": frames.encode_frame(INIT),
    "an empty frame": sasl(b""),
    "too large a frame": (1 << 20).to_bytes(4, "big") + b"\x02\x01\x00\x00",
    "garbage": bytes(range(64)),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_broken_exchange_closes(data: bytes) -> None:
    connection = opened_sasl()
    (closed,) = connection.receive(data)
    assert isinstance(closed, Closed)
    assert not closed.by_peer
    assert connection.take_output() == b""


def test_a_second_init_closes() -> None:
    connection = opened_sasl()
    connection.receive(sasl(INIT))
    connection.sasl_challenge(b"")
    assert [type(event) for event in connection.receive(sasl(INIT))] == [Closed]


def test_a_client_whose_mechanism_is_not_offered_gives_up() -> None:
    joined = Joined(sasl=ClientSasl("TPM"), offer=ServerSasl(("PLAIN",))).open()
    (closed,) = joined.seen(Closed, at="client")
    assert closed.error is not None
    assert "not among those offered" in (closed.error.description or "")
    assert joined.seen(SaslMechanisms, at="client") == []


def test_a_verdict_nobody_waits_for_does_nothing() -> None:
    connection = opened_sasl()
    connection.sasl_outcome(SaslCode.OK)
    connection.sasl_challenge(b"")
    Connection(container_id="c").sasl_response(b"")
    assert connection.take_output() == b""


def test_plain_is_three_parts() -> None:
    assert parse_plain(b"z\0policy@sas.root.hub\0tok") == ("z", "policy@sas.root.hub", "tok")
    assert parse_plain(ClientSasl.plain("ü", "p").initial_response) == ("", "ü", "p")
    for broken in (None, b"", b"u\0p", b"\0u\0p\0", b"\0\xff\0p"):
        with pytest.raises(Malformed):
            parse_plain(broken)
