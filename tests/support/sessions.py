"""A device's connection of which only its end is looked at."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ClosingLink:
    """Keeps the reasons for which it was closed."""

    reasons: list[str] = field(default_factory=list)

    def close(self, reason: str) -> None:
        self.reasons.append(reason)
