"""Etags of records, and the condition that a caller puts on a write [dps 16.3]."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from moorage.errors import PreconditionFailed
from moorage.interfaces import Expect, Record


def new_etag() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Condition:
    """An `If-Match`, bare: seen are `abc`, `"abc"`, `W/"abc"`, and for any version `*` and `"*"`."""

    etag: str

    @classmethod
    def read(cls, if_match: str | None) -> Condition | None:
        """None where the caller sets none."""
        return None if if_match is None else cls(_bare(if_match))

    @property
    def any(self) -> bool:
        return self.etag == "*"

    def check(self, record: Record | None, noun: str, key: str) -> None:
        """Raises PreconditionFailed unless `record`, which may be missing, is what the caller means."""
        if not self.any and (record is None or _bare(record.etag) != self.etag):
            raise PreconditionFailed(noun, key)


def expectation(record: Record, condition: Condition | None, noun: str, key: str) -> Expect | str:
    """What a delete of `record` expects to find. Raises PreconditionFailed."""
    if condition is None or condition.any:
        return Expect.PRESENT
    condition.check(record, noun, key)
    return record.etag


def _bare(etag: str) -> str:
    return etag.strip().removeprefix("W/").strip('"')
