"""Who reads a partition beside whom: epochs, and the limit on readers without one [hub-service 13.2]."""

from __future__ import annotations

from typing import Protocol

from moorage.errors import MoorageError, NotFound

READERS_WITHOUT_EPOCH = 5  # per consumer group and partition


class ReaderDisplaced(MoorageError):
    """Another receiver has the partition, by its epoch."""


class TooManyReaders(MoorageError):
    """The consumer group has no place left on this partition."""


class GroupDeleted(NotFound):
    """The consumer group that a receiver reads in was deleted."""

    def __init__(self, name: str) -> None:
        super().__init__("consumer group", name)
        self.args = (f"the consumer group {name!r} was deleted",)


class Reader(Protocol):
    """One receiver on one partition. A receiver with an epoch wants the partition for itself."""

    @property
    def epoch(self) -> int | None: ...

    def displace(self, error: ReaderDisplaced) -> None:
        """Stop reading: another one has taken the partition."""
        ...

    def refuse(self, error: MoorageError) -> None:
        """Stop reading, by the operator's will."""
        ...


class Seats:
    """Those who read one partition in one consumer group."""

    def __init__(self) -> None:
        self._readers: set[Reader] = set()

    def __len__(self) -> int:
        return len(self._readers)

    def take(self, newcomer: Reader) -> None:
        """Let `newcomer` read, in place of others if its epoch says so. Raises ReaderDisplaced, TooManyReaders."""
        highest = max((reader.epoch for reader in self._readers if reader.epoch is not None), default=None)
        if newcomer.epoch is None:
            self._check_room(highest)
        elif highest is not None and highest > newcomer.epoch:
            raise ReaderDisplaced(
                f"a receiver with the higher epoch {highest} reads this partition, {newcomer.epoch} may not join it"
            )
        else:
            error = ReaderDisplaced(f"a receiver with the epoch {newcomer.epoch} has taken the partition")
            for reader in list(self._readers):
                self._readers.discard(reader)
                reader.displace(error)
        self._readers.add(newcomer)

    def leave(self, reader: Reader) -> None:
        self._readers.discard(reader)

    def clear(self, error: MoorageError) -> None:
        """Nobody reads here any more."""
        for reader in list(self._readers):
            self._readers.discard(reader)
            reader.refuse(error)

    def _check_room(self, highest: int | None) -> None:
        if highest is not None:
            raise ReaderDisplaced(
                f"a receiver with epoch {highest} reads this partition, one without epoch may not join it"
            )
        if len(self._readers) >= READERS_WITHOUT_EPOCH:
            raise TooManyReaders(
                f"{READERS_WITHOUT_EPOCH} receivers read this partition in this consumer group already"
            )
