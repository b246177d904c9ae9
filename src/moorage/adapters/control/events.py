"""The events of a hub's built-in endpoint, for whoever has no AMQP: `hubs/{hub}/events`."""

from __future__ import annotations

import re

from moorage.adapters.control.event_view import event_view, frame
from moorage.adapters.control.event_walk import Look, Place, Seen, Wanted, first_place, last_place, walk
from moorage.adapters.control.places import count_asked
from moorage.adapters.control.routes import Call, Needs, Route
from moorage.adapters.http import Request, Response, json_response, whole_number
from moorage.credentials.policy import SERVICE_CONNECT
from moorage.errors import Invalid, NotFound
from moorage.hub.instance import Hub
from moorage.hub.telemetry import MAX_MESSAGE
from moorage.interfaces import EventLog, Start, StartProperty
from moorage.wire.amqp import Message

_READ = Needs(hub=(SERVICE_CONNECT,))

FIRST, NOW = "first", "now"
MAX_FILTER = 1_024  # characters
_PLACE = re.compile(r"([0-9a-f]{1,16})-([0-9]{1,18}(?:\.[0-9]{1,18}){0,127})")


class EventRoutes:
    def __init__(self, log: EventLog) -> None:
        self._log = log
        of_hub = "hubs/{hub}/events"
        self.routes = (
            Route("GET", of_hub, _READ, self._list),
            Route("GET", f"{of_hub}/{{partition}}/{{sequenceNumber}}", _READ, self._show),
        )

    async def _list(self, call: Call) -> Response:
        """Oldest first from `after` on; with `before`, or neither, newest first."""
        request, hub = call.request, call.the_hub
        asked_after, asked_before = request.query.get("after"), request.query.get("before")
        backwards = asked_before is not None or asked_after is None
        begin = self._place(hub, "after", asked_after or FIRST)
        end = self._place(hub, "before", asked_before or NOW)
        look = await walk(
            self._log, hub, _wanted(request), begin, end, count=count_asked(request), backwards=backwards
        )
        newer, older = (end, look.place) if backwards else (look.place, begin)
        return json_response(_page(hub, look, newer, older, _max_body(request)))

    async def _show(self, call: Call) -> Response:
        hub, named = call.the_hub, call.named
        seen = self._find(hub, named["partition"], named["sequenceNumber"])
        return json_response(event_view(seen, max_body=MAX_MESSAGE) | {"frame": frame(seen)})

    def _find(self, hub: Hub, partition: str, sequence_number: str) -> Seen:
        """Raises NotFound, also for an event that retention has dropped."""
        number, sequence = whole_number(partition), whole_number(sequence_number)
        if number is not None and sequence is not None and 0 <= number < hub.partition_count:
            state = self._log.state(hub.scope, number)
            if state.begin_sequence_number <= sequence <= state.last_sequence_number:
                start = Start(StartProperty.SEQUENCE_NUMBER, sequence, inclusive=True)
                cursor = self._log.find(hub.scope, number, start)
                events, _ = self._log.read(hub.scope, number, cursor, limit=1)
                if events and events[0].sequence_number == sequence:
                    return Seen(number, events[0], Message.decode(events[0].message))
        raise NotFound(
            "event", f"{partition}/{sequence_number}"[:100], remedy="it is not kept any more, or never was"
        )

    def _place(self, hub: Hub, name: str, text: str) -> Place:
        """What a caller calls a place. Raises Invalid."""
        if text == FIRST:
            return first_place(self._log, hub)
        last = last_place(self._log, hub)
        if text == NOW:
            return last
        found = _PLACE.fullmatch(text)
        place = tuple(map(int, found[2].split("."))) if found is not None else ()
        if found is None or int(found[1], 16) != hub.scope or len(place) != len(last):
            raise Invalid(name, "is neither first nor now, nor a place that an answer has named")
        if any(here > end for here, end in zip(place, last, strict=True)):
            raise Invalid(name, "is a place past the newest event of the hub")
        return place


def _page(hub: Hub, look: Look, newer: Place, older: Place, max_body: int) -> dict[str, object]:
    return {
        "events": [event_view(seen, max_body=max_body) for seen in look.found],
        "after": _written(hub, newer),
        "before": _written(hub, older),
        "remaining": look.remaining,
        "lookedAt": look.looked_at,
    }


def _written(hub: Hub, place: Place) -> str:
    return f"{hub.scope:x}-{'.'.join(map(str, place))}"


def _wanted(request: Request) -> Wanted:
    """Raises Invalid."""
    device, module, wish = (_filter(request, name) for name in ("device", "module", "property"))
    name, equals, value = (wish or "").partition("=")
    if wish is not None and not name:
        raise Invalid("property", "is written as name=value, or as the name alone")
    return Wanted(device=device, module=module, name=name or None, value=value if equals else None)


def _filter(request: Request, name: str) -> str | None:
    text = request.query.get(name)
    if text is not None and len(text) > MAX_FILTER:
        raise Invalid(name, f"has at most {MAX_FILTER} characters")
    return text or None


def _max_body(request: Request) -> int:
    size = whole_number(request.query.get("maxbody", str(MAX_MESSAGE)))
    if size is None or not 0 <= size <= MAX_MESSAGE:
        raise Invalid("maxBody", f"is a number of bytes from 0 to {MAX_MESSAGE}")
    return size
