"""The server's own HTTP API, called from within its process: the portal is a caller like any other, without a socket.

Each call carries a SAS token of the owner policy of the service that it is for, and passes the same gates.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from moorage.adapters.http import HttpAdapter, Message
from moorage.credentials.policy import SharedAccessPolicy
from moorage.credentials.sas import make_token
from moorage.interfaces import Clock, Peer

TOKEN_LIFETIME = 60  # seconds

FindOwner = Callable[[str | None], Awaitable[tuple[str, SharedAccessPolicy]]]
"""The host name and the owner policy of the hub of a name, or of the provisioning service. Raises NotFound."""


class InsideApi:
    def __init__(
        self, app: HttpAdapter, clock: Clock, find_owner: FindOwner, new_tracking_id: Callable[[], str]
    ) -> None:
        self._app = app
        self._clock = clock
        self._find_owner = find_owner
        self._new_tracking_id = new_tracking_id

    async def __call__(
        self, hub: str | None, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (names in lower case) and body of the answer to `method` on `target`, a path with its query.

        `hub` names the hub that is asked; None is the provisioning service. Raises NotFound for a hub there is not.
        """
        host, policy = await self._find_owner(hub)
        expiry = self._clock.now() // 1_000_000 + TOKEN_LIFETIME
        sent = {
            "host": host,
            "authorization": make_token(host, policy.primary_key, expiry, policy.name),
            "content-length": str(len(body)),
            **headers,
        }
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()],
            "extensions": {
                "moorage.tracking_id": self._new_tracking_id(),
                "moorage.peer": Peer(address="", door="portal"),
            },
        }
        answered: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            answered.append(message)

        await self._app(scope, receive, send)
        return _whole(answered)


def _whole(answered: list[Message]) -> tuple[int, dict[str, str], bytes]:
    start: Any = answered[0]
    names = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
    return start["status"], names, b"".join(message.get("body", b"") for message in answered[1:])
