"""The TPM mechanism between two engines, and what a server takes and refuses of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.wire.amqp import (
    Connection,
    Opened,
    SaslChallenge,
    SaslCode,
    SaslInit,
    SaslResponse,
    ServerSasl,
    frames,
)
from moorage.wire.amqp.sasl_tpm import (
    SEGMENT,
    TPM,
    TpmClient,
    TpmKeys,
    TpmServer,
    TpmToken,
    segments,
    token_response,
)
from moorage.wire.errors import Malformed

EK, SRK = b"\x01:\x00\x01 endorsement \0 key", b"\x01\x1a\x00\x01 storage \0 root key"
INIT = b"\x000ne00ABCDEF\0press-1\0" + EK


def carry(one: Connection, other: Connection) -> list[object]:
    output = one.take_output()
    for at in range(0, len(output), 7):
        other_events = other.receive(output[at : at + 7])
        if other_events:
            return [*other_events, *other.receive(output[at + 7 :])]
    return []


def test_a_device_and_a_server_go_through_it_to_the_end() -> None:
    blob = bytes(range(256)) * 3
    device = TpmClient("0ne00ABCDEF", "press-1", EK, SRK)
    client = Connection(role="client", container_id="d", hostname="h", sasl=device.credentials)
    server = Connection(container_id="s", sasl=ServerSasl(("PLAIN", TPM)))
    exchange: TpmServer | None = None
    challenges: list[bytes] = []
    told: list[object] = []
    client.open()
    for _ in range(20):
        for event in carry(client, server):
            match event:
                case SaslInit(mechanism="TPM", initial_response=response, hostname=hostname):
                    assert hostname == "0ne00ABCDEF/registrations/press-1"
                    exchange = TpmServer(response)
                    server.sasl_challenge(exchange.greeting)
                case SaslResponse(response=response):
                    assert exchange is not None
                    match exchange.receive(response):
                        case TpmKeys() as keys:
                            told.append(keys)
                            server.sasl_challenge(exchange.offer(blob))
                        case TpmToken() as token:
                            told.append(token)
                            server.sasl_outcome(SaslCode.OK)
                        case segment:
                            server.sasl_challenge(segment)
                case Opened():
                    told.append("opened")
        for event in carry(server, client):
            if isinstance(event, SaslChallenge):
                challenges.append(event.challenge)
                answer = device.receive(event.challenge)
                client.sasl_response(answer if answer is not None else token_response("the token"))
    assert told == [TpmKeys("0ne00ABCDEF", "press-1", EK, SRK), TpmToken("the token"), "opened"]
    assert device.blob == blob
    # Java takes these two control bytes and no others [dps 12.3].
    assert [challenge[0] for challenge in challenges] == [0, 0x80, 0xC1]
    assert challenges[0] == b"\0"


@given(blob=st.binary(min_size=2, max_size=4 * SEGMENT))
def test_a_blob_goes_in_segments_that_fit_a_sasl_frame(blob: bytes) -> None:
    parts = segments(blob)
    assert b"".join(part[1:] for part in parts) == blob
    assert all(len(part) <= 1 + SEGMENT < frames.MIN_MAX_FRAME_SIZE - 24 for part in parts)
    assert [part[0] & 0x03 for part in parts] == list(range(len(parts)))
    assert [part[0] & 0xC0 for part in parts] == [0x80] * (len(parts) - 1) + [0xC0]
    assert len(parts) == 2 or len(blob) > 2 * SEGMENT


def test_a_blob_of_too_many_segments_is_not_begun() -> None:
    with pytest.raises(ValueError, match="1881 bytes"):
        segments(bytes(4 * SEGMENT + 1))


@pytest.mark.parametrize(
    "init",
    [
        None,
        b"",
        b"\0",
        b"\0scope\0id",
        b"\0scope\0id\0",
        b"\0\0id\0ek",
        b"\0scope\0\0ek",
        b"x\0scope\0id\0ek",
        b"\0\xff\0id\0ek",
    ],
)
def test_an_init_without_its_three_parts_is_malformed(init: bytes | None) -> None:
    with pytest.raises(Malformed, match="TPM init"):
        TpmServer(init)


@pytest.mark.parametrize("response", [b"", b"\0", b"key"])
def test_a_response_without_a_storage_root_key_is_malformed(response: bytes) -> None:
    with pytest.raises(Malformed, match="TPM response"):
        TpmServer(INIT).receive(response)


def test_between_two_segments_a_device_says_nothing() -> None:
    exchange = TpmServer(INIT)
    exchange.receive(b"\0" + SRK)
    exchange.offer(bytes(700))
    with pytest.raises(Malformed, match="before the last segment"):
        exchange.receive(b"\0token")


def test_a_token_that_is_no_text_is_malformed() -> None:
    exchange = TpmServer(INIT)
    exchange.receive(b"\0" + SRK)
    exchange.offer(bytes(700))
    assert exchange.receive(b"\0") == b"\xc1" + bytes(350)
    with pytest.raises(Malformed, match="not UTF-8"):
        exchange.receive(b"\0\xff")


@given(said=st.lists(st.binary(max_size=40), max_size=8), init=st.binary(max_size=60))
def test_whatever_a_device_says_is_understood_or_malformed(said: list[bytes], init: bytes) -> None:
    try:
        exchange = TpmServer(init)
        for response in said:
            if isinstance(exchange.receive(response), TpmKeys):
                exchange.offer(bytes(700))
    except Malformed:
        pass


@pytest.mark.parametrize("control", [b"", b"\x40", b"\x81", b"\xc1"])
def test_a_device_refuses_segments_out_of_turn(control: bytes) -> None:
    with pytest.raises(Malformed, match="out of turn"):
        TpmClient("scope", "id", EK, SRK).receive(control + b"xx")
