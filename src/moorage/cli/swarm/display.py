"""How a swarm looks while it runs, and what is said of it afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from moorage.cli.swarm.figures import Figures

TERMINAL_EVERY, PLAIN_EVERY = 0.25, 5.0  # seconds
FULL = 0.9  # of a core, from which on the swarm itself may be the limit


class Display:
    """Live on a terminal, a line every few seconds elsewhere; both on stderr, the summary on stdout."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False)

    async def follow(self, figures: Figures) -> None:
        """Until cancelled."""
        rates = _Rates(figures)
        if self._console.is_terminal:
            with Live(_table(figures, rates), console=self._console, refresh_per_second=4) as live:
                while True:
                    await asyncio.sleep(TERMINAL_EVERY)
                    rates.look()
                    live.update(_table(figures, rates))
        while True:
            await asyncio.sleep(PLAIN_EVERY)
            rates.look()
            self.note(_line(figures, rates))


class _Rates:
    """How fast things have gone since the last look."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._seen = (time.perf_counter(), 0, 0, time.process_time())
        self.connections = self.messages = self.core = 0.0

    def look(self) -> None:
        figures = self._figures
        now = (time.perf_counter(), figures.connections, figures.acknowledged, time.process_time())
        past = now[0] - self._seen[0]
        self.connections, self.messages, self.core = (
            max(0.0, (new - old) / past) for new, old in zip(now[1:], self._seen[1:], strict=True)
        )
        self._seen = now


def _line(figures: Figures, rates: _Rates) -> str:
    said = [
        f"{time.perf_counter() - figures.begun:6.1f} s",
        f"connected {figures.connected} of {figures.devices} (+{rates.connections:.0f}/s)",
        f"acknowledged {figures.acknowledged} ({rates.messages:.0f}/s)",
    ]
    if (p99 := figures.acknowledging.percentile(99)) is not None:
        said.append(f"p99 {p99 / 1000:.1f} ms")
    said += [f"failures {sum(figures.failures.values())}", f"own core {rates.core:.0%}"]
    return "  ".join(said)


def _table(figures: Figures, rates: _Rates) -> Table:
    table = Table(box=None, show_header=False)
    table.add_column(style="dim")
    table.add_column(justify="right", min_width=12)
    table.add_column()
    phase = "holding" if figures.hold_begun is not None else "starting"
    table.add_row("devices", str(figures.devices), f"{phase}, {time.perf_counter() - figures.begun:.0f} s")
    table.add_row("connected", str(figures.connected), f"+{rates.connections:.0f}/s")
    table.add_row("under way", str(figures.under_way), f"{figures.registered} registered")
    table.add_row("acknowledged", str(figures.acknowledged), f"{rates.messages:.0f}/s")
    p50, p99 = (figures.acknowledging.percentile(percent) for percent in (50, 99))
    if p50 is not None and p99 is not None:
        table.add_row("after", f"{p50 / 1000:.1f} ms", f"p99 {p99 / 1000:.1f} ms")
    table.add_row("own core", f"{rates.core:.0%}", "")
    for (stage, reason), count in figures.failures.most_common(5):
        table.add_row(f"[red]{stage}[/red]", str(count), reason[:70])
    return table


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """For people."""
    lines = [
        f"connected     {summary['connected']} of {summary['devices']} at the end, "
        f"{summary['connectionsPerSecond'] or 0:.0f}/s while starting ({summary['rampSeconds']} s)",
        f"messages      {summary['acknowledged']} acknowledged in {summary['holdSeconds']} s, "
        f"{summary['acknowledgedPerSecond'] or 0:.0f}/s",
        "",
        "milliseconds       count       p50       p90       p99     p99.9       max",
    ]
    for name, title in (
        ("registrationMilliseconds", "registered"),
        ("connectionMilliseconds", "connected"),
        ("acknowledgementMilliseconds", "acknowledged"),
    ):
        times = summary[name]
        if times["count"]:
            values = "".join(f"{times[each]:>10.1f}" for each in ("p50", "p90", "p99", "p99.9", "max"))
            lines.append(f"{title:<14}{times['count']:>10}{values}")
    lines.append("")
    for failure in summary["failures"]:
        lines.append(f"FAILED  {failure['count']:>7}  {failure['stage']}: {failure['reason']}")
    if not summary["failures"]:
        lines.append("no failures")
    busiest = max(summary["ownCoreWhileRamping"] or 0, summary["ownCoreWhileHolding"] or 0)
    if busiest > FULL:
        lines.append(
            f"The swarm itself kept {busiest:.0%} of a core busy: it may be the limit, not the server. "
            "Run several, with a --prefix each."
        )
    return lines
