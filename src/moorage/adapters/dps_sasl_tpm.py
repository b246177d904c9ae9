"""A TPM proves itself in SASL, before it says what it wants: the mechanism's steps ⇄ `DeviceApi` [dps 12.3].

Whoever is not enrolled may prove himself all the same: that he is not is told to his register request, as a rejection
with the code that Azure's clients look for.
"""

from __future__ import annotations

from moorage.adapters.amqp import AmqpConversation
from moorage.adapters.dps_device import MAX_ID, DeviceApi
from moorage.adapters.links import Credentials
from moorage.credentials.tpm import StorageKey
from moorage.errors import Invalid
from moorage.provisioning import challenge
from moorage.provisioning.provisioner import SasProof
from moorage.wire.amqp.sasl_tpm import TpmKeys, TpmServer, TpmToken
from moorage.wire.errors import Malformed


class TpmDialogue:
    """The exchange with one device: a `SaslDialogue`."""

    def __init__(self, api: DeviceApi, conversation: AmqpConversation) -> None:
        self._api = api
        self._stream = conversation.stream
        self._exchange: TpmServer | None = None
        self._keys: challenge.TpmKeys | None = None

    def step(self, response: bytes | None) -> bytes | Credentials:
        """The next challenge, or the credentials that hold. Raises MoorageError, which has left a decision."""
        try:
            if self._exchange is None:
                self._exchange = _begin(response)
                return TpmServer.greeting
            said = self._exchange.receive(response or b"")
            if isinstance(said, TpmKeys):
                return self._challenge(self._exchange, said)
        except (Malformed, Invalid) as fault:
            error = fault if isinstance(fault, Invalid) else Invalid("SASL TPM", fault.reason)
            self._api.note_refusal(
                "connect", self._subject, error, self._stream.peer, self._stream.tracking_id
            )
            raise error from None
        return self._judge(self._exchange, said) if isinstance(said, TpmToken) else said

    @property
    def _subject(self) -> str:
        return self._exchange.registration_id if self._exchange is not None else ""

    def _challenge(self, exchange: TpmServer, told: TpmKeys) -> bytes:
        self._keys = challenge.TpmKeys(
            StorageKey.read("endorsement key", told.endorsement_key),
            StorageKey.read("storage root key", told.storage_root_key),
        )
        provisioner = self._api.provisioner
        return exchange.offer(provisioner.challenge(told.id_scope, told.registration_id, self._keys))

    def _judge(self, exchange: TpmServer, token: TpmToken) -> Credentials:
        keys = self._keys
        if keys is None:
            raise LookupError("a token comes after the keys")
        id_scope, registration_id = exchange.id_scope, exchange.registration_id
        self._api.provisioner.check_answer(
            id_scope,
            registration_id,
            keys,
            SasProof(token.text),
            self._stream.tracking_id,
            self._stream.peer,
        )
        return Credentials(f"{id_scope}/registrations/{registration_id}", token.text, keys)


def _begin(init: bytes | None) -> TpmServer:
    """Raises Malformed, Invalid."""
    exchange = TpmServer(init)
    if len(exchange.registration_id) > MAX_ID:
        raise Invalid("registrationId", f"has at most {MAX_ID} characters")
    return exchange
