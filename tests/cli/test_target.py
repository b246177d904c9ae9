from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from moorage.cli.target import HUB_VARIABLES, Login, NoServer, find_login, no_answer
from moorage.errors import Invalid

TEXT = "HostName=hub.example.org:8443;SharedAccessKeyName=iothubowner;SharedAccessKey=a+b/c=="


def test_a_connection_string_is_taken_apart() -> None:
    login = Login.parse(TEXT, "/ca.pem")
    assert login == Login("hub.example.org", 8443, "iothubowner", "a+b/c==", "/ca.pem")


@pytest.mark.parametrize(
    "text",
    [
        "hostname=h;sharedaccesskeyname=n;sharedaccesskey=k",
        ' "HostName=h;SharedAccessKeyName=n;SharedAccessKey=k;" ',
        "SharedAccessKey=k;HostName=h;SharedAccessKeyName=n;DeviceId=d",
    ],
)
def test_spelling_order_and_more_parts_do_not_matter(text: str) -> None:
    assert Login.parse(text, None) == Login("h", None, "n", "k", None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("HostName=h", "has no SharedAccessKeyName and no SharedAccessKey"),
        ("SharedAccessKeyName=n;SharedAccessKey=k", "has no HostName"),
        ("", "has no HostName"),
        ("HostName=h:x;SharedAccessKeyName=n;SharedAccessKey=k", "'x' is not a port"),
    ],
)
def test_what_is_missing_is_named(text: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        Login.parse(text, None)


def test_login_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOTHUB_CONNECTION_STRING", TEXT.replace("hub.example.org", "other.example.org"))
    assert find_login(TEXT, None, HUB_VARIABLES).host == "hub.example.org"
    assert find_login(None, None, HUB_VARIABLES).host == "other.example.org"


def test_data_means_the_server_there_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOTHUB_CONNECTION_STRING", TEXT)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(NoServer, match="no server runs on"):
        find_login(None, tmp_path / "data", HUB_VARIABLES)


def test_an_unknown_authority_is_said_with_what_mends_it() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "unable to get local issuer certificate"
    said = str(no_answer("localhost", 443, error))
    assert said.startswith("the certificate of localhost:443 is not trusted: unable to get local issuer")
    assert 'eval "$(moorage env)"' in said


def test_other_failures_are_said_as_they_are() -> None:
    assert str(no_answer("h", 443, ConnectionRefusedError(111, "refused"))).startswith(
        "h:443 does not answer: "
    )
    assert str(no_answer("h", 443, TimeoutError())) == "h:443 does not answer: no answer in time"
