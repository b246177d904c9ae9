"""The SASL mechanism TPM of the Device Provisioning Service, both sides, as steps over the responses [dps 12.3].

    device   init        0 · id scope · 0 · registration id · 0 · endorsement key
    server   challenge   0
    device   response    0 · storage root key
    server   challenge   control byte · segment of the activation blob       in turns with
    device   response    0                                                  but after the last segment
    device   response    0 · SAS token

A control byte says that a segment follows (bit 7), that it is the last (bit 6), and which it is (bits 0 and 1, from 0
on). What the keys and the token are worth is not judged here.
"""

from __future__ import annotations

from typing import NamedTuple

from moorage.wire.amqp.sasl import ClientSasl
from moorage.wire.errors import Malformed

TPM = "TPM"

SEGMENT = 470  # bytes that the C client takes in one challenge
_PRESENT, _LAST, _NUMBER = 0x80, 0x40, 0x03
_LEAST_SEGMENTS, _MOST_SEGMENTS = 2, 4  # Java expects two, bits 0 and 1 count four


class TpmKeys(NamedTuple):
    """What a device has presented: whom it calls itself, and its marshalled keys. Answer with `TpmServer.offer`."""

    id_scope: str
    registration_id: str
    endorsement_key: bytes
    storage_root_key: bytes


class TpmToken(NamedTuple):
    """The SAS token that the device has signed with the key in the blob. Give the verdict."""

    text: str


class TpmServer:
    """A server's side. Each step takes a response and gives the next challenge, or what is to be judged."""

    def __init__(self, init: bytes | None) -> None:
        """`init` is the initial response. Raises Malformed."""
        parts = (init or b"").split(b"\0", 3)
        if len(parts) != 4 or parts[0] or not all(parts[1:]):
            raise Malformed("a TPM init has an id scope, a registration id and an endorsement key")
        try:
            self.id_scope, self.registration_id = parts[1].decode(), parts[2].decode()
        except UnicodeDecodeError:
            raise Malformed("the id scope and the registration id in a TPM init are UTF-8") from None
        self._endorsement_key = parts[3]
        self._keys: TpmKeys | None = None
        self._segments: list[bytes] = []  # those not sent yet

    greeting = b"\0"  # the first challenge, which asks for the storage root key

    def receive(self, response: bytes) -> bytes | TpmKeys | TpmToken:
        """A challenge to send, or what has come. Raises Malformed for what it is not the turn of."""
        if response[:1] != b"\0":
            raise Malformed("a TPM response begins with a zero byte")
        said = response[1:]
        if self._keys is None:
            if not said:
                raise Malformed("a TPM response without the storage root key")
            self._keys = TpmKeys(self.id_scope, self.registration_id, self._endorsement_key, said)
            return self._keys
        if self._segments:
            if said:
                raise Malformed("a TPM response before the last segment holds nothing but a zero byte")
            return self._segments.pop(0)
        try:
            return TpmToken(said.decode())
        except UnicodeDecodeError:
            raise Malformed("the SAS token in a TPM response is not UTF-8") from None

    def offer(self, blob: bytes) -> bytes:
        """The challenge with the first segment of `blob`; `receive` gives the others in their turn."""
        self._segments = segments(blob)
        return self._segments.pop(0)


def segments(blob: bytes) -> list[bytes]:
    """`blob` in equal parts, each behind its control byte. Raises ValueError when it takes too many."""
    count = max(_LEAST_SEGMENTS, -(-len(blob) // SEGMENT))
    if count > _MOST_SEGMENTS:
        raise ValueError(f"an activation blob of {len(blob)} bytes")
    size = -(-len(blob) // count)
    parts = [blob[number * size : (number + 1) * size] for number in range(count)]
    return [
        bytes([_PRESENT | (_LAST if number == count - 1 else 0) | number]) + part
        for number, part in enumerate(parts)
    ]


class TpmClient:
    """A device's side: `credentials` open the exchange, each challenge gives a response or completes the blob."""

    def __init__(
        self, id_scope: str, registration_id: str, endorsement_key: bytes, storage_root_key: bytes
    ) -> None:
        init = b"\0".join((b"", id_scope.encode(), registration_id.encode(), endorsement_key))
        self.credentials = ClientSasl(TPM, init, f"{id_scope}/registrations/{registration_id}")
        self.blob: bytes | None = None  # once it is whole: answer with `token_response`
        self._storage_root_key = storage_root_key
        self._received: list[bytes] = []

    def receive(self, challenge: bytes) -> bytes | None:
        """The response; None when the blob has become whole. As strict as the strictest of Azure's clients."""
        if not self._received and challenge == TpmServer.greeting:
            return b"\0" + self._storage_root_key
        control = challenge[0] if challenge else 0
        if self.blob is not None or not control & _PRESENT or control & _NUMBER != len(self._received):
            raise Malformed(f"control byte {control:#04x} out of turn")
        self._received.append(challenge[1:])
        if not control & _LAST:
            return b"\0"
        self.blob = b"".join(self._received)
        return None


def token_response(token: str) -> bytes:
    return b"\0" + token.encode()
