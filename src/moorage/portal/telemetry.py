"""What comes in at a hub's built-in endpoint: a list that goes on by itself, and each event whole."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from moorage.portal.api import Api, Refused, segment
from moorage.portal.bodies import Shown, body_of, hex_dump
from moorage.portal.device_address import Address
from moorage.portal.forms import Form
from moorage.portal.pages import Pages, page

ROWS = 50  # events of a page, and of a look of a page that is live
KEEP = 300  # events that stay on a page that is live
LIST_BODY = 4_096  # bytes of a body that a list asks for
LIST_LINES, LIST_CHARACTERS = 12, 800
PAGE_LINES, PAGE_CHARACTERS = 20_000, 300_000
MAX_FRAME = 16 << 10  # bytes of a message that a page shows as a hex dump
CHIPS = 8  # application properties that a list shows of an event
CHIP = 60  # characters of one
MAX_FILTER = 256  # characters of a property by which a link filters

NEWEST, START, NOW = "newest", "start", "now"
FILTERS = ("device", "module", "property")

_SOURCES = {
    "Telemetry": ("telemetry.source_telemetry", "plain"),
    "twinChangeEvents": ("telemetry.source_twin", "good"),
    "deviceLifecycleEvents": ("telemetry.source_lifecycle", "warn"),
    "deviceConnectionStateEvents": ("telemetry.source_connection", "good"),
}


@dataclass(frozen=True, slots=True)
class Chip:
    """An application property: as much of it as there is room for, and the filter for events that have it too."""

    text: str
    filter: str

    @classmethod
    def of(cls, name: str, value: str | None) -> Chip:
        whole = f"{name}={value or ''}"
        return cls(
            whole if len(whole) <= CHIP else f"{whole[:CHIP]}…", whole if len(whole) <= MAX_FILTER else ""
        )


@dataclass(frozen=True, slots=True)
class Row:
    """An event in a list. `chips` are the first of its application properties, `more` how many there are beside."""

    event: Mapping[str, Any]
    source: tuple[str, str]
    body: Shown
    chips: Sequence[Chip]
    more: int


@dataclass(frozen=True, slots=True)
class View:
    """What the address asks for. `before` and `after` are places, as the API names them."""

    hub: str
    show: str
    before: str
    after: str
    filters: Mapping[str, str]

    @classmethod
    def of(cls, request: Request) -> View:
        asked = request.query_params
        show = asked.get("from", "")
        return cls(
            request.path_params["hub"],
            show if show in (START, NOW) else NEWEST,
            asked.get("before", ""),
            asked.get("after", ""),
            {name: asked[name].strip() for name in FILTERS if asked.get(name, "").strip()},
        )

    @property
    def root(self) -> str:
        return f"/hubs/{segment(self.hub)}/telemetry"

    def address(self, **changed: str) -> str:
        """This page with other filters or at another place."""
        asked = {"from": "" if self.show == NEWEST else self.show, **self.filters, **changed}
        query = urlencode({name: value for name, value in asked.items() if value})
        return f"{self.root}?{query}" if query else self.root

    def live(self, after: str) -> str:
        """Where to ask for what comes behind the place `after`."""
        return f"{self.root}/live?{urlencode({'from': self.show, 'after': after, **self.filters})}"


class TelemetryPages:
    def __init__(self, api: Api, pages: Pages) -> None:
        self._api = api
        self._pages = pages
        root = "/hubs/{hub}/telemetry"
        self.routes = (
            page(root, self._list),
            page(f"{root}/live", self._live),
            page(f"{root}/{{partition:int}}/{{number:int}}", self._show),
            page(f"{root}/{{partition:int}}/{{number:int}}/frame", self._frame),
        )

    async def _list(self, request: Request) -> Response:
        view = View.of(request)
        form = Form.of({**view.filters, "from": view.show})
        try:
            found = await self._look(view)
        except Refused as refused:
            found = {"events": [], "remaining": 0, "lookedAt": 0, "before": "now", "after": "now"}
            _put_problem(form, refused)
        events = found["events"]
        is_live = not form.problems and _is_live(view, found)
        return await self._pages.render(
            request,
            "telemetry/list.html",
            status=400 if form.problems else 200,
            view=view,
            form=form,
            rows=[_row(event) for event in events],
            keep=KEEP,
            is_live=is_live,
            live=view.live(found["after"]),
            found=found,
            teaching=await self._teaching(view) if not events and is_live else None,
        )

    async def _look(self, view: View) -> dict[str, Any]:
        match view.show:
            case "start":
                return await self._ask(view, after=view.after or "first")
            case "now" if not view.after:
                return await self._ask(view, after="now")
            case "now":
                return await self._ask(view, after=view.after, before="now")
            case _:
                return await self._ask(view, before=view.before or "now")

    async def _ask(self, view: View, **place: str) -> dict[str, Any]:
        path = f"/moorage/v1/hubs/{segment(view.hub)}/events"
        bounds = {"top": str(ROWS), "maxBody": str(LIST_BODY)}
        found: dict[str, Any] = await self._api.hub(view.hub).get(path, **view.filters, **place, **bounds)
        return found

    async def _live(self, request: Request) -> Response:
        """What has come since, the newest of it where it is too much."""
        view = View.of(request)
        try:
            found = await self._ask(view, after=view.after or "now", before="now")
        except Refused as refused:
            if refused.status != 400:
                raise
            found = await self._ask(view, after="now")  # a place of a log that has begun anew
        headers = {"moorage-next": view.live(found["after"])}
        if not found["events"] and not found["remaining"]:
            return Response(status_code=204, headers=headers)
        rows = [_row(event) for event in found["events"]]
        return self._pages.fragment(
            request,
            "telemetry/news.html",
            headers=headers,
            view=view,
            rows=rows[::-1] if view.show == START else rows,
            passed=found["remaining"],
        )

    async def _teaching(self, view: View) -> dict[str, Any]:
        """What a hub without events needs: a device to send one with, and a route that takes it."""
        hub, root = self._api.hub(view.hub), f"/moorage/v1/hubs/{segment(view.hub)}"
        device = view.filters.get("device")
        devices = [] if device else await hub.get("/devices", top="1")
        routes = [await hub.get(f"{root}/fallbackRoute"), *await hub.get(f"{root}/routes")]
        return {
            "device": device or next((each["deviceId"] for each in devices), None),
            "dropped": not any(each["isEnabled"] and each["source"] == "DeviceMessages" for each in routes),
        }

    async def _show(self, request: Request) -> Response:
        view, event = View.of(request), await self._event(request)
        message = base64.b64decode(event["frame"])
        return await self._pages.render(
            request,
            "telemetry/show.html",
            view=view,
            event=event,
            origin=_origin(view.hub, event),
            source=_source(event),
            body=body_of(event, max_lines=PAGE_LINES, max_characters=PAGE_CHARACTERS),
            frame=Shown(hex_dump(message[:MAX_FRAME]), len(message) > MAX_FRAME),
            frame_size=len(message),
        )

    async def _frame(self, request: Request) -> Response:
        event = await self._event(request)
        name = f"event-{event['partition']}-{event['sequenceNumber']}.amqp"
        return Response(
            base64.b64decode(event["frame"]),
            media_type="application/octet-stream",
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )

    async def _event(self, request: Request) -> dict[str, Any]:
        named = request.path_params
        place = f"events/{named['partition']}/{named['number']}"
        found: dict[str, Any] = await self._api.hub(named["hub"]).get(
            f"/moorage/v1/hubs/{segment(named['hub'])}/{place}"
        )
        return found


def _is_live(view: View, found: Mapping[str, Any]) -> bool:
    """From the start on a page is, once it has come to the newest; a page of what was before is not."""
    return not found["remaining"] if view.show == START else not view.before


def _row(event: Mapping[str, Any]) -> Row:
    properties = event["applicationProperties"]
    return Row(
        event,
        _source(event),
        body_of(event, max_lines=LIST_LINES, max_characters=LIST_CHARACTERS),
        [Chip.of(name, value) for name, value in islice(properties.items(), CHIPS)],
        max(len(properties) - CHIPS, 0),
    )


def _origin(hub: str, event: Mapping[str, Any]) -> Address | None:
    """None for an event of no device."""
    device = event["deviceId"]
    return None if device is None else Address(hub, device, event["moduleId"])


def _source(event: Mapping[str, Any]) -> tuple[str, str]:
    """The text's key and the badge's colour; without a key, what the message says itself."""
    return _SOURCES.get(event["messageSource"], ("", "plain"))


def _put_problem(form: Form, refused: Refused) -> None:
    """Beside the filter that was refused; a place that means nothing (any more) is no filter. Raises Refused."""
    field = refused.message.partition(":")[0]
    if refused.status != 400 or field not in FILTERS:
        raise refused
    form.problems[field] = refused.message
