"""How many devices have asked to be let in since the start, and what became of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Counts:
    """A mechanism is an enrollment's type of attestation; of whoever is turned away, the one that he presented.

    All labels are words of ours but for the host names of linked hubs, so there are never many of them.
    """

    attestations: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By mechanism, door, and `accepted` or `refused`: each time that a proof was judged."""

    registrations: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By mechanism, and `assigned`, `failed` or `disabled` as on the wire, or `refused`."""

    assignments: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By the hub's host name, mechanism and substatus."""
