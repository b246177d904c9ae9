"""What Microsoft's samples and test suites read from the environment, with the values of one server [design 2]."""

from __future__ import annotations

from moorage.credentials.policy import SharedAccessPolicy


def of_dps(host: str, https_port: int, id_scope: str, policy: SharedAccessPolicy | None) -> dict[str, str]:
    """`policy` signs for back ends; None leaves the key empty, where the operator has deleted it."""
    login = _login(host, https_port, policy)
    return {
        "PROVISIONING_HOST": host,
        "PROVISIONING_IDSCOPE": id_scope,
        "PROVISIONING_DEVICE_ENDPOINT": host,
        "PROVISIONING_DEVICE_IDSCOPE": id_scope,
        "PROVISIONING_SERVICE_CONNECTION_STRING": login,
        "IOT_PROVISIONING_DEVICE_ENDPOINT": host,
        "IOT_PROVISIONING_DEVICE_IDSCOPE": id_scope,
        "IOT_PROVISIONING_SERVICE_CONNECTION_STRING": login,
    }


def of_hub(host: str, https_port: int, entity: str, policy: SharedAccessPolicy | None) -> dict[str, str]:
    """`entity` is the Event Hubs-compatible name of the built-in endpoint."""
    return {
        "IOTHUB_HOSTNAME": host,
        "IOTHUB_CONNECTION_STRING": _login(host, https_port, policy),
        "EVENTHUB_CONNECTION_STRING": f"Endpoint=sb://{host}/;{_signed_by(policy)};EntityPath={entity}",
    }


def _login(host: str, https_port: int, policy: SharedAccessPolicy | None) -> str:
    """With the port where it is not the usual one, for the clients that can take it."""
    port = "" if https_port == 443 else f":{https_port}"
    return f"HostName={host}{port};{_signed_by(policy)}"


def _signed_by(policy: SharedAccessPolicy | None) -> str:
    name, key = ("", "") if policy is None else (policy.name, policy.primary_key)
    return f"SharedAccessKeyName={name};SharedAccessKey={key}"
