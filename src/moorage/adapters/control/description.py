"""The OpenAPI description, put together from `openapi.json` and the fragment of each group of routes.

A fragment holds `paths`, below the root, and the `components` that are its own.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from moorage.adapters.control import ROOT

HEAD = "openapi.json"


@cache
def whole() -> dict[str, Any]:
    """The whole description. Raises ValueError where two fragments describe one thing."""
    folder = resources.files(__package__)
    document: dict[str, Any] = json.loads(folder.joinpath(HEAD).read_bytes())
    names = sorted(
        file.name for file in folder.iterdir() if file.name.endswith(".json") and file.name != HEAD
    )
    for name in names:
        fragment = json.loads(folder.joinpath(name).read_bytes())
        paths = {"/".join(("", *ROOT, path)): described for path, described in fragment["paths"].items()}
        _add(document["paths"], paths, name)
        for kind, components in fragment.get("components", {}).items():
            _add(document["components"].setdefault(kind, {}), components, name)
    return document


def _add(into: dict[str, Any], more: dict[str, Any], name: str) -> None:
    if twice := into.keys() & more.keys():
        raise ValueError(f"{name} describes {min(twice)} again")
    into.update(more)
