"""What a route of the service API is, and what its verb gets to work with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from moorage.adapters.http import Request, Response
from moorage.adapters.paths import PathTemplate
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub

ANY = "*"


def etag_condition(header: str | None) -> str | None:
    """What `If-Match` asks: None without one, `*` for any, else the bare etag [hub-service 3].

    Seen are `*`, `"*"`, `W/"*"`, `"etag"` and `etag`. An empty one in quotes is that of no identity.
    """
    if header is None or not header.strip():
        return None
    return header.strip().removeprefix("W/").strip().strip('"')


@dataclass(frozen=True, slots=True, kw_only=True)
class HubCall:
    """One request to one hub. `named` holds what the path had for its placeholders, decoded."""

    request: Request
    hub: Hub
    identities: Identities
    named: Mapping[str, str]

    @property
    def condition(self) -> str | None:
        """What `If-Match` asks."""
        return etag_condition(self.request.headers.get("if-match"))


Verb = Callable[[HubCall], Awaitable[Response]]


class Route:
    """What one method does on one path, and the right that it takes [hub-service 2.3]."""

    __slots__ = ("method", "path", "right", "verb")

    def __init__(self, method: str, path: str, right: str, verb: Verb) -> None:
        self.method = method
        self.path = PathTemplate(path)
        self.right = right
        self.verb = verb


class RouteGroup(Protocol):
    """All routes about one noun."""

    @property
    def routes(self) -> Sequence[Route]: ...
