"""Protocol headers and frames: the outermost layer of the wire. [AMQP 2.2, 2.3]"""

from __future__ import annotations

import struct

AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
HEADER_SIZE = 8

AMQP, SASL = 0, 1  # the type of a frame
MIN_MAX_FRAME_SIZE = 512  # every peer takes frames of this size [AMQP 2.3.1]

FRAME_HEADER = struct.Struct(">IBBH")  # size of all, data offset in words, type, channel
FRAME_HEADER_SIZE = 8
HEARTBEAT = FRAME_HEADER.pack(8, 2, AMQP, 0)  # an empty frame [AMQP 2.4.5]


def encode_frame(body: bytes, *, channel: int = 0, kind: int = AMQP) -> bytes:
    return FRAME_HEADER.pack(FRAME_HEADER_SIZE + len(body), 2, kind, channel) + body
