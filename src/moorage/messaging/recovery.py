"""Opening a folder that a crash or a power cut may have left.

Looks before it touches: whatever must keep the log closed (a newer format, damage) is raised while the folder
is as it was. What a crash can leave, and what is done about it:

- records of a commit that was never synced, whole, torn or with holes, at the end of the last segment: the
  whole ones at its front are kept, the rest is cut off;
- a segment file longer than where the next one begins: a commit that failed; what is beyond is no part of the
  log;
- a segment without its index, or with a torn one: the index is made anew;
- a segment that was still being made (`.new`), the index of a segment that is gone: removed.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

from moorage.messaging.files import Files
from moorage.messaging.segment import INDEX_SUFFIX, SEGMENT_SUFFIX, Scanned, Segment, scan_runs, write_index
from moorage.messaging.segment_format import (
    Damaged,
    Numbering,
    PartitionKey,
    SegmentHeader,
    commit_follows,
    indexes,
    read_header,
)

NEW_SUFFIX = ".new"

log = logging.getLogger("moorage.messaging")


@dataclass(frozen=True, slots=True)
class Recovered:
    """The segments, oldest first, none in a new folder; and where every partition stands behind them."""

    segments: list[Segment]
    numbering: dict[PartitionKey, Numbering]


def recover(files: Files) -> Recovered:
    """On return all that the segments hold is durable. Raises NewerFormat, Damaged, OSError."""
    found = _read_headers(files)
    if not found:
        _remove_leftovers(files, [])
        return Recovered([], {})
    segments = _closed_segments(files, found)
    header, size = found[-1]
    scanned = _scan_last(files, header, size)
    rebuilt = [(segment, segment.rebuild_runs()) for segment in segments if not _has_index(files, segment)]
    last = Segment(files, header, end=scanned.end, newest=scanned.newest, runs=scanned.runs)

    # From here on the folder may be changed.
    _make_durable(files, last, size)
    for segment, runs in rebuilt:
        write_index(files, segment, runs)
    segments.append(last)
    _remove_leftovers(files, segments)
    return Recovered(segments, _numbering(header, scanned))


def _read_headers(files: Files) -> list[tuple[SegmentHeader, int]]:
    """Header and size of every segment file, in order."""
    found = []
    for name in sorted(name for name in files.names() if name.endswith(SEGMENT_SUFFIX)):
        with closing(files.open(name)) as file:
            header = read_header(file, name)
            if header.name + SEGMENT_SUFFIX != name:
                raise Damaged(name, f"its header is that of {header.name}{SEGMENT_SUFFIX}")
            found.append((header, file.size()))
    return found


def _closed_segments(files: Files, found: list[tuple[SegmentHeader, int]]) -> list[Segment]:
    """All but the last one; each ends where the next one begins."""
    segments = []
    for (header, size), (following, _) in pairwise(found):
        segment = Segment(files, header, end=following.base - header.base, newest=following.newest_before)
        if size < segment.end:
            raise Damaged(
                segment.name, f"it has {size} bytes of {segment.end}, or a segment behind it is missing"
            )
        segments.append(segment)
    return segments


def _scan_last(files: Files, header: SegmentHeader, size: int) -> Scanned:
    name = header.name + SEGMENT_SUFFIX
    with closing(files.open(name)) as file:
        scanned = scan_runs(file, name, header, size)
        if commit_follows(file, scanned.end, size, header.salt):
            raise Damaged(name, f"the record at byte {scanned.end} fails its checksum, sound ones follow it")
    return scanned


def _has_index(files: Files, segment: Segment) -> bool:
    """Whether there is one, by its first bytes: its checksum is tested when it is read."""
    try:
        file = files.open(segment.index_name)
    except FileNotFoundError:
        return False
    with closing(file):
        return indexes(file, segment.index_name, segment.header.base, segment.end)


def _make_durable(files: Files, last: Segment, size: int) -> None:
    """Cut the torn tail, and sync what a killed process may have left unsynced, before any reader sees it."""
    with closing(files.open(last.name)) as file:
        if last.end < size:
            log.warning(
                "torn tail cut", extra={"segment": last.name, "byte": last.end, "bytes": size - last.end}
            )
            file.truncate(last.end)
        file.sync()
    files.sync()


def _remove_leftovers(files: Files, segments: list[Segment]) -> None:
    kept = {segment.index_name for segment in segments}
    for name in files.names():
        if name.endswith(NEW_SUFFIX) or (name.endswith(INDEX_SUFFIX) and name not in kept):
            files.remove(name)


def _numbering(header: SegmentHeader, scanned: Scanned) -> dict[PartitionKey, Numbering]:
    numbering = dict(header.numbering)
    for key, run in scanned.runs.items():
        last = scanned.last[key]
        numbering[key] = Numbering(run.next_sequence, header.base + last.position, last.time, run.newest_time)
    return numbering
