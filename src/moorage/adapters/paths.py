"""Which path a request asks for: templates with placeholders, the same for every HTTP face."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from moorage.adapters.http import MethodNotAllowed, Request
from moorage.errors import NotFound


class PathTemplate:
    """`twins/{device}/methods`: `{word}` stands for any one segment, other words match in any case."""

    __slots__ = ("_parts", "fixed", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts = text.split("/")
        self.fixed = tuple(not part.startswith("{") for part in self._parts)
        """Which of its segments are words. Sorted by it, backwards, words come before placeholders."""

    def match(self, segments: Sequence[str]) -> dict[str, str] | None:
        """What the placeholders stand for when `segments` are this path; None when they are another one."""
        if len(self._parts) != len(segments):
            return None
        named: dict[str, str] = {}
        for part, segment, fixed in zip(self._parts, segments, self.fixed, strict=True):
            if not fixed:
                named[part[1:-1]] = segment
            elif part.lower() != segment.lower():
                return None
        return named


class HasMethod(Protocol):
    @property
    def method(self) -> str: ...


R = TypeVar("R", bound=HasMethod)


def find(
    routes: Iterable[R], request: Request, match: Callable[[R], dict[str, str] | None]
) -> tuple[R, dict[str, str]]:
    """The first route that `match` knows the path of, for the request's method, and what its placeholders stand for.

    Raises MethodNotAllowed, with the methods there are, and NotFound.
    """
    methods: list[str] = []
    for route in routes:
        if (named := match(route)) is None:
            continue
        if route.method == request.method:
            return route, named
        methods.append(route.method)
    if methods:
        raise MethodNotAllowed(request.method, methods)
    raise NotFound("path", request.path[:200])
