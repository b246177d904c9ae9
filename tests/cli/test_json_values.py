from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest

from moorage.cli.json_values import json_object, json_or_text, json_value

LONG = {"key": "x" * 5000}  # no file can be called so


@pytest.mark.parametrize("value", [None, True, 1.5, "so", [1, "a"], {"a": {"b": None}}, LONG])
def test_json_as_it_stands_and_in_a_file(tmp_path: Path, value: Any) -> None:
    text = json.dumps(value)
    file = tmp_path / "value.json"
    file.write_text(f"{text}\n", "utf-8")
    assert json_value(text) == json_value(str(file)) == value
    assert json_or_text(text) == json_or_text(str(file)) == value


@pytest.mark.parametrize("text", ["so", "", "{'a': 1}", "nowhere/a.json", "\0", '{"a": 1' + "x" * 5000])
def test_what_is_neither_is_refused_or_a_text(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither JSON nor a file"):
        json_value(text)
    assert json_or_text(text) == text


def test_a_file_of_something_else_says_where_it_fails(tmp_path: Path) -> None:
    file = tmp_path / "value.json"
    file.write_text('{\n"a": so}', "utf-8")
    with pytest.raises(click.BadParameter, match="line 2"):
        json_value(str(file))


@pytest.mark.parametrize("text", ["null", "[1]", '"a"', "1"])
def test_an_object_is_an_object(text: str) -> None:
    assert json_object('{"a": 1}') == {"a": 1}
    with pytest.raises(click.BadParameter, match="a JSON object is wanted"):
        json_object(text)
