"""How much one peer may ask of us, at every door of the engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    links: int = 8_192  # attached at a time, over all sessions; one more ends its session
    name: int = 1_024  # characters of a link name, container id or host name
    idle_time_out: int = 500  # milliseconds; a peer that wants signs of life more often is refused
    sasl_frame: int = 8_192  # bytes; the specification says 512, a token in PLAIN can be longer
    held: int = 262_144  # bytes that a peer may send ahead while its SASL verdict is not known
    reassembly: int = 16 * 1_048_576  # bytes of deliveries begun and not finished, over all links
    posted: int = 1_024  # messages of `Sender.post` that wait for credit on one link
