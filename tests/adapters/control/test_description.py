"""The description of the control API holds every route, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage.adapters.control import description
from moorage.app import Server
from moorage.config import Config
from tests.conftest import free_address

METHODS = {"get", "put", "post", "patch", "delete"}


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


async def test_every_route_is_described_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    address = free_address()
    server = Server(
        Config(
            data=None, bind=(address,), hub_host=address, https_port=8443, portal_port=0, ca=tmp_path / "ca"
        )
    )
    await server.start()
    try:
        routes = [(route.method, route.template) for route in server.control.routes]
    finally:
        await server.stop()
    paths = description.whole()["paths"]
    described = [
        (word.upper(), path) for path, operations in paths.items() for word in operations if word in METHODS
    ]
    assert len(set(routes)) == len(routes), "two routes answer the same request"
    assert set(described) == set(routes)


def test_what_a_path_names_is_a_parameter_of_it() -> None:
    document = description.whole()
    for path, operations in document["paths"].items():
        named = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        for word, operation in operations.items():
            shared = operations.get("parameters", [])
            if word in METHODS:
                parameters = [resolve(document, each) for each in [*shared, *operation.get("parameters", [])]]
                assert {each["name"] for each in parameters if each["in"] == "path"} == named, (
                    f"{word} {path}"
                )
                assert operation["summary"]
                assert "Rights: " in operation["description"], f"{word} {path}"
                assert "default" in operation["responses"]


def resolve(document: Any, value: Any) -> Any:
    if "$ref" not in value:
        return value
    for word in value["$ref"].removeprefix("#/").split("/"):
        document = document[word]
    return document


def test_every_reference_leads_somewhere_and_every_component_is_used() -> None:
    document = description.whole()
    used = set(references(document))
    for reference in used:
        assert resolve(document, {"$ref": reference})
    components = {
        f"#/components/{kind}/{name}"
        for kind, named in document["components"].items()
        for name in named
        if kind != "securitySchemes"
    }
    assert components <= used | {"#/components/responses/deleted", "#/components/parameters/hub"} | {
        "#/components/parameters/ifMatch"
    }


def test_two_fragments_may_not_describe_the_same() -> None:
    with pytest.raises(ValueError, match=r"x\.json describes /a again"):
        description._add({"/a": {}}, {"/a": {}}, "x.json")
