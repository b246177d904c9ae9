"""Steps shown while they go on: colour and a spinner on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console


class Progress:
    """Each step is a heading, what it has to say, and how it ended with its time."""

    def __init__(self, total: int, file: TextIO | None = None) -> None:
        self._console = Console(file=file, highlight=False, soft_wrap=True)
        self._total = total
        self._number = 0

    def line(self, text: str = "", style: str | None = None) -> None:
        self._console.print(text, style=style, markup=False)

    def note(self, text: str) -> None:
        """Something that happens within a step."""
        for line in text.splitlines():
            self.line(f"         {line}", "dim")

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Whatever is raised within is the step's failure, and goes on."""
        self._number += 1
        self.line(f"{self._number:>3}/{self._total}  {title}", "bold")
        begun = time.perf_counter()
        try:
            with self._busy(title):
                yield
        except BaseException:
            self._end("FAILED", "bold red", begun)
            raise
        self._end("ok", "green", begun)

    def _busy(self, title: str) -> contextlib.AbstractContextManager[object]:
        if self._console.is_terminal:
            return self._console.status(f"       {title} ...", spinner="dots")
        return contextlib.nullcontext()

    def _end(self, verdict: str, style: str, begun: float) -> None:
        self.line(f"         {verdict}, {time.perf_counter() - begun:.3f} s", style)
