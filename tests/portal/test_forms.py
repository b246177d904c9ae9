"""Forms as they are read."""

from __future__ import annotations

from moorage.portal.forms import Form


def test_json_that_is_none_names_the_line() -> None:
    form = Form.of({"twin": '{\n  "a": 1,\n  b: 2\n}'})
    assert form.json_object("twin") is None
    assert "line 3, column 3" in form.problems["twin"]


def test_only_an_object_will_do() -> None:
    form = Form.of({"twin": "[1]", "empty": None})
    assert form.json_object("twin") is None
    assert form.problems == {"twin": "must be a JSON object"}
    assert form.json_object("empty") is None


def test_a_form_is_filled_in_from_values() -> None:
    form = Form.of({"id": "pump-7", "on": True, "off": False, "none": None, "hubs": ["a", "b"], "weight": 0})
    assert form.text("id") == "pump-7"
    assert form.flag("on")
    assert not form.flag("off")
    assert form.text("none") == ""
    assert form.all("hubs") == ["a", "b"]
    assert form.text("weight") == "0"
