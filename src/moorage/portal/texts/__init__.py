"""What the portal says, a file for each language: a table for each noun, a line for each text, `{name}` for a value."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from string import Formatter
from typing import Any

from markupsafe import Markup, escape

LANGUAGES = {"en": "English", "ko": "한국어"}
"""By the tag that browsers ask for. English comes first, and has every text."""


class Texts:
    """One language. Values are escaped, texts hold no markup; a value that is Markup stays as it is."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts: dict[str, str] = {}
        for tag in dict.fromkeys(("en", language)):
            self._texts |= read(tag)

    def __call__(self, key: str, /, **values: object) -> Markup:
        """Raises KeyError for a text there is not in English: a page is wrong then, and its test says so."""
        text: Markup = escape(self._texts[key])
        return text.format(**values) if values else text

    def plain(self, key: str, /, **values: object) -> str:
        """For what is not HTML."""
        return self._texts[key].format(**values)


def read(language: str) -> dict[str, str]:
    """The texts of one file, by `table.name`."""
    tables: Mapping[str, Mapping[str, Any]] = tomllib.loads(
        files(__package__).joinpath(f"{language}.toml").read_text("utf-8")
    )
    return {f"{noun}.{name}": text for noun, table in tables.items() for name, text in table.items()}


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def choose(accept_language: str) -> str:
    """The first language of ours in a browser's `Accept-Language`, by its weights; English without one."""
    wishes: list[tuple[float, str]] = []
    for wish in accept_language.split(",")[:50]:
        tag, _, weight = wish.partition(";q=")
        try:
            wishes.append((float(weight or 1), tag.strip().lower().partition("-")[0]))
        except ValueError:
            continue
    wishes.sort(key=lambda wish: -wish[0])
    return next((tag for weight, tag in wishes if weight > 0 and tag in LANGUAGES), "en")
