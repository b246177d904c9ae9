"""Is the server alive, is it ready, and what does it count: `/healthz`, `/readyz`, `/metrics`, over plain HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from moorage.adapters import faults
from moorage.adapters.http import MethodNotAllowed, Request, Response
from moorage.errors import MoorageError, NotFound
from moorage.provisioning.counts import Counts

if TYPE_CHECKING:
    from prometheus_client.core import Metric

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Measure:
    """One value under `moorage_{name}`; a name that ends in `_total` only grows."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def registration_measures(counts: Counts) -> list[Measure]:
    """What Azure Monitor shows of a provisioning service, with the mechanism beside it."""
    attested, registered = "dps_attestation_attempts_total", "dps_registration_attempts_total"
    assigned = "dps_device_assignments_total"
    return [
        *(
            Measure(attested, "Proofs judged", count, {"mechanism": by, "door": door, "outcome": outcome})
            for (by, door, outcome), count in counts.attestations.items()
        ),
        *(
            Measure(registered, "Registrations that ended", count, {"mechanism": by, "outcome": outcome})
            for (by, outcome), count in counts.registrations.items()
        ),
        *(
            Measure(assigned, "Devices assigned", count, {"hub": hub, "mechanism": by, "substatus": how})
            for (hub, by, how), count in counts.assignments.items()
        ),
    ]


def is_operation(path: str) -> bool:
    return path in ("/healthz", "/readyz", "/metrics")


class OperationsHttp:
    """Answers what a supervisor, a CI job and Prometheus ask."""

    max_body = 0

    def __init__(self, *, ready: Callable[[], bool], measures: Callable[[], Sequence[Measure]]) -> None:
        self._ready = ready
        self._measures = measures

    def matches(self, segments: tuple[str, ...]) -> bool:
        return len(segments) == 1 and segments[0] in ("healthz", "readyz", "metrics")

    async def handle(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(request.method, ("GET", "HEAD"))
        match request.segments[0]:
            case "healthz":
                return plain(200, "alive")
            case "readyz":
                return plain(200, "ready") if self._ready() else plain(503, "not ready")
            case _:
                return self._metrics()

    def _metrics(self) -> Response:
        # Imported on the first look: a server that nobody measures starts without it.
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

        registry = CollectorRegistry()
        registry.register(_Collected(self._measures()))
        return Response(200, (("content-type", CONTENT_TYPE_LATEST),), generate_latest(registry))

    def fault(self, request: Request, error: MoorageError) -> Response:
        if isinstance(error, NotFound):
            return plain(404, "Here are /healthz, /readyz and /metrics.")
        allow = (("allow", ", ".join(error.allow)),) if isinstance(error, MethodNotAllowed) else ()
        return plain(faults.fault(faults.HUB, error).status, str(error), allow)


def plain(status: int, line: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(status, (("content-type", TEXT), *headers), f"{line}\n".encode())


class _Collected:
    """What prometheus-client calls a collector: the measures as its metric families."""

    def __init__(self, measures: Sequence[Measure]) -> None:
        self._by_name: dict[str, list[Measure]] = {}
        for measure in measures:
            self._by_name.setdefault(measure.name, []).append(measure)

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, measures in self._by_name.items():
            labels = list(measures[0].labels)
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = kind(f"moorage_{name}", measures[0].help, labels=labels)
            for measure in measures:
                family.add_metric([measure.labels[label] for label in labels], measure.value)
            yield family
