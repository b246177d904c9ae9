"""A frontage without sockets: it gives what names it is asked for, and can be made to fail."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from moorage.errors import Unavailable


class PaperFrontage:
    def __init__(self) -> None:
        self.reached: list[str] = []
        self.broken = False

    async def admit(self, name: str, host_names: Sequence[str], taken: Collection[str]) -> tuple[str, ...]:
        if self.broken:
            raise Unavailable("no address is free")
        number = 2
        while (address := f"127.0.0.{number}") in taken:
            number += 1
        admitted = tuple(host_names) or (address,)
        self.reached += admitted
        return admitted

    async def dismiss(self, host_names: Sequence[str]) -> None:
        self.reached = [host for host in self.reached if host not in host_names]
