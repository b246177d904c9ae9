"""Connection strings: where a service is, and one of its shared access policies."""

from __future__ import annotations

from dataclasses import dataclass, field

from moorage.credentials.sas import check_key
from moorage.errors import Invalid

_MAX_LENGTH = 2048  # characters
_PARTS = ("HostName", "SharedAccessKeyName", "SharedAccessKey")


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """`HostName=…[:port];SharedAccessKeyName=…;SharedAccessKey=…` [hub-service 2.1]; `host` is in lower case."""

    host: str
    port: int
    policy: str
    key: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> ConnectionString:
        """Names of parts compare without regard to case. Raises Invalid, which shows nothing of the key."""
        if len(text) > _MAX_LENGTH:
            raise Invalid("connectionString", f"is longer than {_MAX_LENGTH} characters")
        given = dict(part.partition("=")[::2] for part in text.strip().strip('"').split(";") if part)
        parts = {name.lower(): value for name, value in given.items()}
        if missing := [name for name in _PARTS if not parts.get(name.lower())]:
            raise Invalid("connectionString", f"has no {' and no '.join(missing)}")
        host, _, port = parts["hostname"].lower().partition(":")
        if port and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65_536):
            raise Invalid("connectionString", f"{port[:20]!r} is not a port")
        check_key("connectionString", parts["sharedaccesskey"])
        return cls(host, int(port or 443), parts["sharedaccesskeyname"], parts["sharedaccesskey"])

    @property
    def text(self) -> str:
        return self._written(self.key)

    @property
    def masked(self) -> str:
        """As it is shown: without the key."""
        return self._written("****")

    def _written(self, key: str) -> str:
        port = "" if self.port == 443 else f":{self.port}"
        return f"HostName={self.host}{port};SharedAccessKeyName={self.policy};SharedAccessKey={key}"
