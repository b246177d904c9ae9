"""Error conditions, as they stand in detach, end, close and rejected. [AMQP 2.8.15 to 2.8.18]"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moorage.wire.amqp.performatives import Error
from moorage.wire.amqp.types import UInt

INTERNAL_ERROR = "amqp:internal-error"
NOT_FOUND = "amqp:not-found"
UNAUTHORIZED_ACCESS = "amqp:unauthorized-access"
DECODE_ERROR = "amqp:decode-error"
RESOURCE_LIMIT_EXCEEDED = "amqp:resource-limit-exceeded"
NOT_ALLOWED = "amqp:not-allowed"
INVALID_FIELD = "amqp:invalid-field"
NOT_IMPLEMENTED = "amqp:not-implemented"
RESOURCE_LOCKED = "amqp:resource-locked"
PRECONDITION_FAILED = "amqp:precondition-failed"
RESOURCE_DELETED = "amqp:resource-deleted"
ILLEGAL_STATE = "amqp:illegal-state"
FRAME_SIZE_TOO_SMALL = "amqp:frame-size-too-small"

CONNECTION_FORCED = "amqp:connection:forced"
FRAMING_ERROR = "amqp:connection:framing-error"
CONNECTION_REDIRECT = "amqp:connection:redirect"

WINDOW_VIOLATION = "amqp:session:window-violation"
ERRANT_LINK = "amqp:session:errant-link"
HANDLE_IN_USE = "amqp:session:handle-in-use"
UNATTACHED_HANDLE = "amqp:session:unattached-handle"

DETACH_FORCED = "amqp:link:detach-forced"
TRANSFER_LIMIT_EXCEEDED = "amqp:link:transfer-limit-exceeded"
MESSAGE_SIZE_EXCEEDED = "amqp:link:message-size-exceeded"
LINK_REDIRECT = "amqp:link:redirect"
LINK_STOLEN = "amqp:link:stolen"


def link_redirect(
    *,
    hostname: str,
    address: str,
    port: int = 5671,
    network_host: str | None = None,
    info: Mapping[str, Any] | None = None,
) -> Error:
    """The error of a detach that sends the peer elsewhere; `info` adds entries to its map. [AMQP 2.8.18]"""
    entries = {
        "hostname": hostname,
        "network-host": network_host or hostname,
        "port": UInt(port),
        "address": address,
    }
    return Error(LINK_REDIRECT, f"The link is served at {address}", {**entries, **(info or {})})
