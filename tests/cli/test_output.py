from __future__ import annotations

import json

import pytest

from moorage.cli.output import show

COLUMNS = {
    "DEVICE ID": "deviceId",
    "STATUS": "status",
    "KEY": "authentication.symmetricKey.primaryKey",
    "HUBS": "hubs",
}
DEVICES = [
    {"deviceId": "pump-7", "status": "enabled", "authentication": {"symmetricKey": {"primaryKey": "abc"}}},
    {"deviceId": "lamp", "status": None, "authentication": None, "hubs": ["one", "two"]},
]


def test_a_table_has_a_heading_and_columns_as_wide_as_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    show(DEVICES, "table", COLUMNS)
    assert capsys.readouterr().out.splitlines() == [
        "DEVICE ID  STATUS   KEY  HUBS",
        "pump-7     enabled  abc",
        "lamp                     one, two",
    ]


def test_one_object_is_a_table_of_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    show(DEVICES[0], "table", {"ID": "deviceId"})
    assert capsys.readouterr().out == "ID\npump-7\n"


def test_json_is_the_value_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show([{"deviceId": "pümp"}], "json", COLUMNS)
    written = capsys.readouterr().out
    assert json.loads(written) == [{"deviceId": "pümp"}]
    assert "pümp" in written
