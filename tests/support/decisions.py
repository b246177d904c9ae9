"""What the server says about its decisions, read as an operator's program reads it: `/moorage/v1`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tests.support.services import Hub


def decisions(hub: Hub, subject: str) -> list[dict[str, Any]]:
    """The decisions about one registration id or device id, oldest first; of the hub and of all else."""
    found: list[dict[str, Any]] = hub.operator.get(f"/moorage/v1/decisions/{quote(subject, safe='')}")
    return found


def refusal(hub: Hub, subject: str) -> dict[str, Any]:
    """The newest decision about `subject`, which has to be a refusal."""
    found = decisions(hub, subject)
    assert found, f"no decision about {subject}"
    assert not found[-1]["accepted"], found[-1]
    return found[-1]


def failed_checks(decision: Mapping[str, Any]) -> list[str]:
    return [check["name"] for check in decision["checks"] if not check["held"]]
