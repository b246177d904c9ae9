"""The newest of what is noted about each of many subjects, bounded for each and in all."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Rings(Generic[K, T]):
    """A ring a subject. When there is too much in all, the subject silent for longest loses its oldest."""

    def __init__(self, *, per_subject: int, in_all: int) -> None:
        self._per_subject = per_subject
        self._in_all = in_all
        self._rings: OrderedDict[K, list[T]] = OrderedDict()  # the ring written last comes last
        self._kept = 0

    def add(self, subject: K, item: T) -> None:
        ring = self._rings.get(subject)
        if ring is None:
            self._rings[subject] = [item]  # a deque takes 600 bytes for its first item
        else:
            self._rings.move_to_end(subject)
            ring.append(item)
            if len(ring) > self._per_subject:
                del ring[0]
                return
        self._kept += 1
        if self._kept > self._in_all:
            self._drop_stalest()

    def of(self, subject: K) -> list[T]:
        """Oldest first."""
        return list(self._rings.get(subject, ()))

    def _drop_stalest(self) -> None:
        subject, ring = next(iter(self._rings.items()))
        del ring[0]
        self._kept -= 1
        if not ring:
            del self._rings[subject]
