"""What is done to several identities in one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moorage.portal.api import Refused, Service

MAX_BULK = 100  # items in one request [hub-service 5.5]


async def bulk(service: Service, items: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Why items were not done, by the id of the module or device that each is about."""
    failed: dict[str, str] = {}
    for at in range(0, len(items), MAX_BULK):
        try:
            await service.post("/devices", items[at : at + MAX_BULK])
        except Refused as refused:  # 400 has a result of the same shape [hub-service 5.5]
            if not isinstance(refused.document, dict) or "errors" not in refused.document:
                raise
            for error in refused.document["errors"]:
                failed[error["moduleId"] or error["deviceId"]] = error["errorStatus"]
    return failed
