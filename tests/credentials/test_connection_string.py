from __future__ import annotations

import pytest

from moorage.credentials.connection_string import ConnectionString
from moorage.errors import Invalid

KEY = "MDEyMzQ1Njc4OWFiY2RlZg=="


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (f"HostName=Hub.example.net;SharedAccessKeyName=owner;SharedAccessKey={KEY}", "hub.example.net", 443),
        (f"sharedaccesskey={KEY};hostname=127.0.0.2:8443;SHAREDACCESSKEYNAME=owner;", "127.0.0.2", 8443),
        (f'"HostName=h;SharedAccessKeyName=owner;SharedAccessKey={KEY}"\n', "h", 443),
    ],
)
def test_what_it_says(text: str, host: str, port: int) -> None:
    parsed = ConnectionString.parse(text)
    assert (parsed.host, parsed.port, parsed.policy, parsed.key) == (host, port, "owner", KEY)
    assert ConnectionString.parse(parsed.text) == parsed
    assert KEY not in parsed.masked + repr(parsed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "HostName=h",
        f"SharedAccessKeyName=owner;SharedAccessKey={KEY}",
        f"HostName=;SharedAccessKeyName=owner;SharedAccessKey={KEY}",
        f"HostName=h:x;SharedAccessKeyName=owner;SharedAccessKey={KEY}",
        f"HostName=h:0;SharedAccessKeyName=owner;SharedAccessKey={KEY}",
        f"HostName=h:99999999999;SharedAccessKeyName=owner;SharedAccessKey={KEY}",
        "HostName=h;SharedAccessKeyName=owner;SharedAccessKey=not base64",
        f"HostName={'h' * 3000};SharedAccessKeyName=owner;SharedAccessKey={KEY}",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(Invalid) as error:
        ConnectionString.parse(text)
    assert KEY not in str(error.value)
