"""Forms as they are read."""

from __future__ import annotations

from moorage.portal.forms import Form
from moorage.portal.texts import Texts

ENGLISH = Texts("en")


def test_json_that_is_none_names_the_line() -> None:
    form = Form.of({"twin": '{\n  "a": 1,\n  b: 2\n}'})
    assert form.json_object("twin", ENGLISH) is None
    assert "line 3, column 3" in form.problems["twin"]


def test_only_an_object_will_do() -> None:
    form = Form.of({"twin": "[1]", "empty": None})
    assert form.json_object("twin", ENGLISH) is None
    assert form.problems == {"twin": "This must be a JSON object."}
    assert form.json_object("empty", ENGLISH) is None


def test_numbers_and_depths_that_python_gives_up_on_are_said() -> None:
    form = Form.of({"long": "1" * 5_000, "deep": "[" * 200_000})
    assert form.json_value("long", ENGLISH) is None
    assert form.json_value("deep", ENGLISH) is None
    assert form.problems["long"] == form.problems["deep"] == ENGLISH.plain("page.json_unfit")


def test_a_form_is_filled_in_from_values() -> None:
    form = Form.of({"id": "pump-7", "on": True, "off": False, "none": None, "hubs": ["a", "b"], "weight": 0})
    assert form.text("id") == "pump-7"
    assert form.flag("on")
    assert not form.flag("off")
    assert form.text("none") == ""
    assert form.all("hubs") == ["a", "b"]
    assert form.text("weight") == "0"
