"""An observer of twins that keeps what it is told."""

from __future__ import annotations

from moorage.hub.twin_change import TwinChange


class SeenChanges(list[TwinChange]):
    def changed(self, change: TwinChange) -> None:
        self.append(change)

    async def settled(self) -> None: ...
