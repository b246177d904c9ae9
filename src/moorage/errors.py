"""What can go wrong, in domain words.

The domain raises these facts; `adapters/faults.py` turns each into a number of the protocol that asked.

    MoorageError
    ├── Invalid                 a field of the input breaks a rule
    │   └── TooLarge            … by its size
    ├── Unauthorized            the proof presented does not hold, or gives no right to this
    ├── Disabled                the proof may hold, but the operator has switched the record off
    ├── NotFound                no such record
    ├── Conflict                a record of that key exists already
    ├── InUse                   the record cannot go, for another one counts on it
    ├── PreconditionFailed      the record has changed since its etag was read
    ├── TooMany                 there are as many records of that kind as there may be
    ├── Throttled               too much, too fast; try again later
    ├── NotSupported            Azure does this, Moorage does not (yet)
    └── Unavailable             cannot be done now
        └── StorageFull         … because the disk takes no more writes
"""


class MoorageError(Exception):
    """Any fact that keeps a request from being done."""


class Invalid(MoorageError):
    """`field` of the input breaks a rule; `why` says which, in a sentence fit for the caller."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}" if field else why)
        self.field = field
        self.why = why


class TooLarge(Invalid):
    """`field` is over its size limit."""


class Unauthorized(MoorageError):
    """The proof presented does not hold. `check` names the check that failed, `remedy` what would mend it."""

    def __init__(self, why: str, *, check: str = "", remedy: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.check = check
        self.remedy = remedy


class Disabled(MoorageError):
    """The record of `kind` named `key` is switched off."""

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(f"{kind} {key!r} is disabled")
        self.kind = kind
        self.key = key


class NotFound(MoorageError):
    """There is no `kind` named `key`; `remedy` says what would mend it, where more is known than that."""

    def __init__(self, kind: str, key: str, *, remedy: str = "") -> None:
        super().__init__(f"no {kind} named {key!r}")
        self.kind = kind
        self.key = key
        self.remedy = remedy


class Conflict(MoorageError):
    """A `kind` named `key` exists already."""

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(f"{kind} {key!r} exists already")
        self.kind = kind
        self.key = key


class InUse(MoorageError):
    """The `kind` named `key` cannot be deleted; `why` says what counts on it, and what to do."""

    def __init__(self, kind: str, key: str, why: str) -> None:
        super().__init__(f"{kind} {key!r} cannot be deleted: {why}")
        self.kind = kind
        self.key = key
        self.why = why


class PreconditionFailed(MoorageError):
    """The `kind` named `key` is not at the etag the caller gave."""

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(f"the etag given for {kind} {key!r} is not its current one")
        self.kind = kind
        self.key = key


class TooMany(MoorageError):
    """There are `limit` records of `kind` already, of what `key` names."""

    def __init__(self, kind: str, key: str, limit: int) -> None:
        super().__init__(f"{key!r} has {limit} of {kind}, which is the limit")
        self.kind = kind
        self.key = key
        self.limit = limit


class Throttled(MoorageError):
    """Over a rate limit; `retry_after` is in seconds."""

    def __init__(self, why: str, *, retry_after: int = 1) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class NotSupported(MoorageError):
    """Azure does `what`, Moorage does not; the message says why or since when."""

    def __init__(self, what: str, why: str = "not implemented in this release") -> None:
        super().__init__(f"{what}: {why}")
        self.what = what
        self.why = why


class Unavailable(MoorageError):
    """Cannot be done now; nothing was changed."""


class StorageFull(Unavailable):
    """The disk takes no more writes; reading goes on."""
