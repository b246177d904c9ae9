"""What a route of the control API is, and what its verb gets to work with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from moorage.adapters.control import ROOT
from moorage.adapters.http import Request, Response, json_response
from moorage.adapters.paths import PathTemplate
from moorage.credentials.etag import Condition
from moorage.credentials.policy import SharedAccessPolicy
from moorage.hub.instance import Hub


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Whose policy lets a caller in, each with all the rights named; None where no policy of that side does.

    `dps` are rights of a policy of the provisioning service. `hub` are those of a policy of the hub that the path
    names as `{hub}`, or, where it names none, of any hub.
    """

    dps: tuple[str, ...] | None = None
    hub: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to a route. `named` holds what the path had for its placeholders, decoded; `hub` is `{hub}`.

    `caller` is the policy that lets it in, `scope` the internal id of the service, or of the hub, whose policy that is.
    """

    request: Request
    named: Mapping[str, str]
    caller: SharedAccessPolicy
    scope: int
    hub: Hub | None = None

    @property
    def condition(self) -> Condition | None:
        """What the caller asks of the version in place with `If-Match`."""
        return Condition.read(self.request.headers.get("if-match"))

    @property
    def the_hub(self) -> Hub:
        """The hub of a route below `hubs/{hub}`."""
        if self.hub is None:
            raise LookupError("the route's path has no {hub}")
        return self.hub


Verb = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """What one method does on one path below the root.

    `{word}` stands for any one segment, the others match in any case, and they win over a placeholder.
    """

    method: str
    path: str
    needs: Needs
    verb: Verb

    @property
    def template(self) -> str:
        """The whole path, as the description writes it."""
        return "/" + "/".join((*ROOT, self.path))

    def match(self, segments: Sequence[str]) -> dict[str, str] | None:
        """What the placeholders stand for when the path is this one; `segments` come after the root."""
        return PathTemplate(self.path).match(segments)


class RouteGroup(Protocol):
    """All routes about one noun."""

    @property
    def routes(self) -> Sequence[Route]: ...


def record_response(document: Mapping[str, Any], etag: str, status: int = 200) -> Response:
    """A record as it stands now, its etag in the header and in the body."""
    return json_response({**document, "etag": etag}, status, headers=[("etag", f'"{etag}"')])
