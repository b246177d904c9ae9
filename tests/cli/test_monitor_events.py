from __future__ import annotations

import uuid

import click
import pytest
from click.testing import CliRunner

from moorage.cli.event_reader import EventReceived
from moorage.cli.hub.monitor_events import (
    Wish,
    devices_found,
    event_view,
    id_pattern,
    monitor_events,
    properties_asked,
)
from moorage.cli.rest import Service
from moorage.cli.target import Login
from moorage.wire.amqp import Data, Int, Long, Message, Properties, Symbol, Timestamp

ALL = frozenset(("sys", "app", "anno", "all"))
EVENT = Message(
    message_annotations={
        Symbol("x-opt-sequence-number"): Long(17),
        Symbol("x-opt-offset"): "4311810304",
        Symbol("x-opt-enqueued-time"): Timestamp(1_777_717_230_123),
        Symbol("iothub-connection-device-id"): "pump-7",
        Symbol("dt-dataschema"): "dtmi:com:example:Pump;1",
        Symbol("dt-subject"): b"inlet",
    },
    properties=Properties(
        message_id=uuid.UUID(int=1),
        user_id=b"someone",
        content_type="application/json",
        content_encoding="utf-8",
    ),
    application_properties={"alert": "true", "level": Int(3), "ratio": 0.5, "flag": True, "none": None},
    body=Data((b'{"speed":', b" 12}")),
)


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        ((), ALL),
        (("all",), ALL),
        (("sys", "anno"), {"sys", "anno"}),
        (("sys,app",), {"sys", "app"}),
        (("sys app", "ANNO"), {"sys", "app", "anno"}),
    ],
)
def test_properties_may_be_asked_for_in_every_way(texts: tuple[str, ...], names: set[str]) -> None:
    assert properties_asked(texts) == names


def test_unknown_properties_are_refused() -> None:
    with pytest.raises(click.BadParameter, match="'user' is not one of"):
        properties_asked(("sys,user",))


def test_more_names_may_follow_the_option_but_not_stand_alone() -> None:
    result = CliRunner().invoke(monitor_events, ["app"])
    assert result.exit_code == 2
    assert "unexpected extra argument (app)" in result.stderr


@pytest.mark.parametrize(
    ("pattern", "device_id", "held"),
    [
        (None, "anything", True),
        ("pump-7", "pump-7", True),
        ("pump-7", "pump-77", False),
        ("pump-*", "pump-77", True),
        ("*-7", "pump-7", True),
        ("pump-?", "pump-77", False),
        ("pump.7", "pump-7", False),
        ("p*", "Pump", False),
    ],
)
def test_wildcards(pattern: str | None, device_id: str, held: bool) -> None:
    assert bool(id_pattern(pattern)(device_id)) == held


def test_an_event_has_the_members_that_azure_gives_it() -> None:
    assert event_view(EVENT, ALL, None) == {
        "origin": "pump-7",
        "module": "",
        "interface": "dtmi:com:example:Pump;1",
        "component": "inlet",
        "annotations": {
            "x-opt-sequence-number": 17,
            "x-opt-offset": "4311810304",
            "x-opt-enqueued-time": 1_777_717_230_123,
            "iothub-connection-device-id": "pump-7",
            "dt-dataschema": "dtmi:com:example:Pump;1",
            "dt-subject": "inlet",
        },
        "properties": {
            "system": {
                "message_id": "00000000-0000-0000-0000-000000000001",
                "user_id": "someone",
                "content_type": "application/json",
                "content_encoding": "utf-8",
            },
            "application": {"alert": "true", "level": 3, "ratio": 0.5, "flag": True, "none": None},
        },
        "payload": {"speed": 12},
    }


@pytest.mark.parametrize(
    ("asked", "members", "groups"),
    [
        ({"anno"}, {"annotations"}, set()),
        ({"sys"}, {"properties"}, {"system"}),
        ({"app"}, {"properties"}, {"application"}),
    ],
)
def test_only_what_was_asked_for_is_shown(asked: set[str], members: set[str], groups: set[str]) -> None:
    view = event_view(EVENT, frozenset(asked), None)
    assert set(view) - {"origin", "module", "interface", "component", "payload"} == members
    assert set(view.get("properties", ())) == groups


@pytest.mark.parametrize(
    ("body", "content_type", "shown"),
    [
        (b'{"a": 1}', None, {"payload": '{"a": 1}'}),
        (b'{"a": 1}', "application/json; charset=utf-8", {"payload": {"a": 1}}),
        (b'{"a": 1', "application/json", {"payload": '{"a": 1'}),
        (b"", None, {"payload": ""}),
        (b"\xff\x00", "application/json", {"payload": "/wA=", "payloadEncoding": "base64"}),
    ],
)
def test_payloads(body: bytes, content_type: str | None, shown: dict[str, object]) -> None:
    view = event_view(Message(body=Data((body,))), frozenset(), content_type)
    assert {name: value for name, value in view.items() if name.startswith("payload")} == shown


def test_text_is_for_people() -> None:
    wish = Wish(id_pattern("pump-*"), properties_asked(("sys", "app")), None, "text")
    assert wish.line(EventReceived("2", EVENT)) == "\n".join(
        [
            "pump-7  2026-05-02T10:20:30.123Z  partition 2, sequence number 17",
            '  payload      {"speed": 12}',
            "  system       message_id = 00000000-0000-0000-0000-000000000001",
            "  system       user_id = someone",
            "  system       content_type = application/json",
            "  system       content_encoding = utf-8",
            "  application  alert = true",
            "  application  level = 3",
            "  application  ratio = 0.5",
            "  application  flag = True",
            "  application  none = None",
        ]
    )


def test_other_devices_are_left_out() -> None:
    assert Wish(id_pattern("lamp*"), ALL, None, "json").line(EventReceived("2", EVENT)) is None


def shown(**wish: object) -> bool:
    """Whether EVENT, or a module's, is shown to somebody who wants only this."""
    meant = {"device": id_pattern(None), "properties": ALL, "content_type": None, "output": "json"} | wish
    return Wish(**meant).line(EventReceived("0", EVENT)) is not None  # type: ignore[arg-type]


def test_only_what_is_meant_is_shown() -> None:
    assert shown()
    assert shown(interface="dtmi:com:example:Pump;1")
    assert not shown(interface="dtmi:com:example:Pump;2")
    assert shown(devices=frozenset(("pump-7", "pump-8")))
    assert not shown(devices=frozenset(("pump-8",)))
    assert not shown(devices=frozenset())
    assert not shown(module=id_pattern("camera")), "it is of no module"
    assert shown(module=id_pattern("*"))


def test_a_query_says_whose_events_are_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def pages(self: Service, path: str, body: object, *, top: int | None) -> list[object]:
        asked.append((path, body, top))
        return [{"deviceId": "pump-7", "etag": "x"}, {"DeviceId": "pump-8"}, {"count": 3}, 4]

    monkeypatch.setattr(Service, "pages", pages)
    login = Login("localhost", None, "iothubowner", "", None)
    query = "SELECT deviceId FROM devices WHERE tags.site = 'A'"
    assert devices_found(login, query) == {"pump-7", "pump-8"}
    assert asked == [("/devices/query", {"query": query}, None)]
