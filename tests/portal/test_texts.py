"""Every language says all of it, with the same values in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markupsafe import Markup

import moorage.portal
from moorage.portal.texts import LANGUAGES, Texts, choose, placeholders, read

FOLDER = Path(moorage.portal.__file__).parent


@pytest.mark.parametrize("language", list(LANGUAGES)[1:])
def test_a_language_has_every_text(language: str) -> None:
    english, other = read("en"), read(language)
    assert other.keys() == english.keys()
    for key, text in english.items():
        assert placeholders(other[key]) == placeholders(text), key


def test_every_text_that_is_named_is_there_and_none_is_forgotten() -> None:
    """Keys are written out where they are used, or begin with what is written there (`"page.theme_" ~ each`)."""
    used = "\n".join(path.read_text("utf-8") for path in FOLDER.rglob("*") if path.suffix in (".html", ".py"))
    named = set(re.findall(r"""["']([a-z_]+\.[a-z0-9_]+)["']""", used))
    english = read("en")
    tables = {key.partition(".")[0] for key in english}
    beginnings = {key for key in named if key.endswith("_") and any(text.startswith(key) for text in english)}
    missing = {key for key in named - english.keys() - beginnings if key.partition(".")[0] in tables}
    files = {path.name for path in FOLDER.rglob("*")}
    assert not missing - files
    forgotten = {key for key in english.keys() - named if not key.startswith(tuple(beginnings))}
    assert not forgotten


def test_values_are_escaped_and_texts_are_no_markup() -> None:
    texts = Texts("en")
    assert texts("page.copy_what", what="<b>") == "Copy &lt;b&gt;"
    assert texts("page.copy_what", what=Markup("<b>")) == "Copy <b>"


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("ko", "ko"),
        ("ko-KR,ko;q=0.9,en;q=0.8", "ko"),
        ("fr-FR,fr;q=0.9,ko;q=0.3,en;q=0.2", "ko"),
        ("en-US,ko;q=0.9", "en"),
        ("ko;q=0, en", "en"),
        ("*;q=nonsense", "en"),
    ],
)
def test_the_browsers_wish_is_followed(header: str, language: str) -> None:
    assert choose(header) == language
