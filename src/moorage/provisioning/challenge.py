"""The challenge to a TPM: an HMAC key that it alone can take out of a blob, and that it then signs with [dps 12].

The HMAC key of a challenge is not kept but worked out again: from a secret of this server, the names that the device
gives, its two keys and the time. So challenges, which anybody may ask for, take no memory, and evict nobody's.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections import OrderedDict
from dataclasses import dataclass

from moorage.credentials.tpm import StorageKey, activation_blob
from moorage.errors import Unauthorized

PERIOD = 600_000_000  # microseconds; a key holds for the period it was given out in and the next
REMEMBERED = 1024  # devices of which the storage root key is remembered

KEY_NAME = "registration"  # what clients are told to write as `skn` [dps 5.2]


@dataclass(frozen=True, slots=True)
class TpmKeys:
    """A TPM's public keys as a device tells them, which anybody could; the second may be left out."""

    endorsement_key: StorageKey
    storage_root_key: StorageKey | None


class TpmChallenge(Unauthorized):
    """Let the device's TPM open `blob`, sign a SAS token with the key in it, and ask again.

    `refused` tells what was wrong with the token that came; None where none did, and then nothing was refused.
    """

    def __init__(self, blob: bytes, refused: Unauthorized | None = None) -> None:
        why = (
            refused.why if refused else "Authorization required: sign a SAS token with the authentication key"
        )
        super().__init__(
            why, check=refused.check if refused else "", remedy=refused.remedy if refused else ""
        )
        self.refused = refused
        self.authentication_key = base64.b64encode(blob).decode()


class Challenges:
    """Those of one server, or of all that share `secret`."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._told: OrderedDict[str, StorageKey] = OrderedDict()  # by registration id, the latest last

    def to(self, id_scope: str, registration_id: str, now: int) -> Challenge:
        """For a device that calls itself so, at the time `now` in microseconds."""
        return Challenge(self, id_scope.lower(), registration_id.lower(), now)

    def hmac_key(self, *about: str | int) -> bytes:
        return hmac.digest(self._secret, json.dumps(about).encode(), "sha256")

    def remember(self, registration_id: str, storage_root_key: StorageKey) -> None:
        self._told[registration_id] = storage_root_key
        self._told.move_to_end(registration_id)
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)

    def remembered(self, registration_id: str) -> StorageKey | None:
        return self._told.get(registration_id)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What one device may be asked, or may have been."""

    _challenges: Challenges
    _id_scope: str
    _registration_id: str
    _now: int

    def blob(self, endorsement_key: StorageKey, storage_root_key: StorageKey) -> bytes:
        """The activation blob to send. No two are alike; within a period the key in them is."""
        self._challenges.remember(self._registration_id, storage_root_key)
        key = self._key(endorsement_key, storage_root_key, periods_ago=0)
        return activation_blob(endorsement_key, storage_root_key, key)

    def keys(self, endorsement_key: StorageKey, storage_root_key: StorageKey) -> tuple[str, ...]:
        """Those that an answer may be signed with, base64."""
        both = (self._key(endorsement_key, storage_root_key, periods_ago=ago) for ago in (0, 1))
        return tuple(base64.b64encode(key).decode() for key in both)

    @property
    def storage_root_key(self) -> StorageKey | None:
        """The one of the latest challenge: IoT Edge does not tell it again when it answers [dps 12.2]."""
        return self._challenges.remembered(self._registration_id)

    def _key(self, endorsement_key: StorageKey, storage_root_key: StorageKey, *, periods_ago: int) -> bytes:
        names = endorsement_key.name_text, storage_root_key.name_text
        period = self._now // PERIOD - periods_ago
        return self._challenges.hmac_key(self._id_scope, self._registration_id, *names, period)
