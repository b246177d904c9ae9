"""Connection strings of devices, modules and policies, taken apart [hub-device 2.1]."""

from __future__ import annotations

from dataclasses import dataclass, field

from moorage.errors import Invalid


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """`key` is None with a certificate; `gateway` is where to connect instead of the hub's host."""

    host: str  # without port
    device_id: str | None = None
    module_id: str | None = None
    policy: str | None = None
    key: str | None = field(default=None, repr=False)
    gateway: str | None = None
    port: int | None = None  # of REST and WebSockets

    @property
    def resource(self) -> str:
        """What a token signed with its key is good for."""
        if self.device_id is None:
            return self.host
        device = f"{self.host}/devices/{self.device_id}"
        return device if self.module_id is None else f"{device}/modules/{self.module_id}"


def read_connection_string(text: str) -> ConnectionString:
    """Raises Invalid."""
    given = dict(part.partition("=")[::2] for part in text.strip().strip('"').split(";") if part)
    parts = {name.lower(): value for name, value in given.items()}
    host, _, port = parts.get("hostname", "").partition(":")
    if not host:
        raise Invalid("--connection-string", "it has no HostName")
    if not (parts.get("sharedaccesskey") or parts.get("x509", "").lower() == "true"):
        raise Invalid("--connection-string", "it has neither SharedAccessKey nor x509=true")
    if not (parts.get("deviceid") or parts.get("sharedaccesskeyname")):
        raise Invalid("--connection-string", "it has neither DeviceId nor SharedAccessKeyName")
    return ConnectionString(
        host=host,
        device_id=parts.get("deviceid") or None,
        module_id=parts.get("moduleid") or None,
        policy=parts.get("sharedaccesskeyname") or None,
        key=parts.get("sharedaccesskey") or None,
        gateway=parts.get("gatewayhostname") or None,
        port=int(port) if port.isdecimal() else None,
    )
