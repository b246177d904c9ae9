"""Direct methods over one MQTT connection: calls out, answers in [hub-device 3.11]."""

from __future__ import annotations

from moorage.adapters.http import whole_number
from moorage.adapters.mqtt import request_id
from moorage.adapters.publishing import Publisher, Request
from moorage.errors import Invalid
from moorage.hub.session import MethodAnswer, Session

CALLS = "$iothub/methods/POST/"
ANSWERS = "$iothub/methods/res/"
_ALL = "#"


class MethodMqtt:
    """A device listens to all methods, or by a filter for each to some of them."""

    def __init__(self, publisher: Publisher, session: Session) -> None:
        self._publisher = publisher
        self._session = session
        self._listens: set[str] = set()  # names of methods, and _ALL

    def subscribe(self, topic_filter: str, qos: int) -> int | None:
        """The QoS granted; None for a filter that is not about methods. Calls come with QoS 0 whatever it is."""
        method = _method_of(topic_filter)
        if method is None:
            return None
        self._listens.add(method)
        return min(qos, 1)

    def unsubscribe(self, topic_filter: str) -> None:
        self._listens.discard(_method_of(topic_filter) or "")

    def invoke(self, request_id: str, method: str, payload: bytes) -> bool:
        """Nothing follows the request id: .NET takes all that is behind `?$rid=` for it [hub-device 16.6]."""
        if not self._listens & {method, _ALL}:
            return False
        self._publisher.publish(f"{CALLS}{method}/?$rid={request_id}", payload, 0)
        return True

    def takes(self, topic: str) -> bool:
        """Whether `topic` is that of an answer. Raises Invalid for one that says no status, or of no call."""
        if not topic.startswith(ANSWERS):
            return False
        if request_id(topic) is None or whole_number(_status_of(topic)) is None:
            raise Invalid("topic", f"{topic[:200]!r} is not {ANSWERS}{{status}}/?$rid={{request id}}")
        return True

    def answer(self, request: Request) -> None:
        """Hand on an answer that `takes` knows."""
        status, rid = whole_number(_status_of(request.topic)), request_id(request.topic)
        if status is not None and rid is not None:
            self._session.answered(rid, MethodAnswer(status, request.payload))
        request.acknowledge()
        request.done()


def _method_of(topic_filter: str) -> str | None:
    """Whose calls a filter is for; None when it is not for calls."""
    if not topic_filter.startswith(CALLS):
        return None
    method = topic_filter[len(CALLS) :]
    if method == _ALL:
        return method
    name, slash, rest = method.partition("/")
    return name if name and slash and rest == "#" and "+" not in name else None


def _status_of(topic: str) -> str:
    return topic[len(ANSWERS) :].partition("/")[0]
