"""`renew-key` of devices and modules: new keys made by the hub, many at once [hub-service 5.6]."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from moorage.cli.hub.reach import (
    condition,
    device_id_option,
    device_path,
    etag_option,
    hub_service,
)
from moorage.cli.listed_values import ListedValues, listed
from moorage.cli.output import output_option, show
from moorage.cli.rest import Refused, Service
from moorage.cli.target import hub_login_options
from moorage.errors import Invalid

API_VERSION = "2024-03-31"  # of Azure's, the first that has it
AT_ONCE = 100
ALL = "*"
KEYED = "SELECT deviceId FROM devices WHERE authenticationType = 'sas'"  # page by page; a list of devices ends at 1000
TRIES, PAUSE = 4, 5.0  # of a call that is told to slow down; seconds
COLUMNS = {"DEVICE ID": "id", "MODULE ID": "moduleId", "PRIMARY KEY": "primaryKey"}

key_type_option = click.option(
    "--key-type",
    "--kt",
    "kind",
    required=True,
    type=click.Choice(["primary", "secondary", "both", "swap"]),
    help="Which key to make anew; swap exchanges the two of one identity.",
)


@click.command("renew-key", cls=ListedValues)
@click.option(
    "--device-id", "-d", "device_ids", multiple=True, required=True, help=f"One or several, or {ALL} for all."
)
@key_type_option
@click.option("--include-modules", "--im", is_flag=True, help="The devices' modules too.")
@etag_option
@output_option
@hub_login_options
def renew_device_key(
    device_ids: tuple[str, ...],
    kind: str,
    include_modules: bool,
    etag: str | None,
    output: str,
    login: str | None,
    data: Path | None,
) -> None:
    """Make new keys. A device that is connected stays so until it has to show its key again."""
    service = hub_service(login, data)
    ids = listed(device_ids)
    if kind == "swap":
        show(_swap(service, device_path(_only(ids)), etag), output, {"DEVICE ID": "deviceId"})
        return
    if ids == [ALL]:
        query = {"query": KEYED}
        ids = [device["deviceId"] for device in service.pages("/devices/query", query, top=None)]
    items: list[dict[str, str]] = [{"id": each} for each in ids]
    if include_modules:
        items += [item for each in ids for item in _modules(service, each)]
    elif len(ids) == 1:
        _renewed(service, kind, items)
        show(service.get(device_path(ids[0])), output, {"DEVICE ID": "deviceId"})
        return
    _show_all(service, kind, items, output)


@click.command("renew-key", cls=ListedValues)
@device_id_option
@click.option(
    "--module-id", "-m", "module_ids", multiple=True, required=True, help=f"One or several, or {ALL} for all."
)
@key_type_option
@etag_option
@output_option
@hub_login_options
def renew_module_key(
    device_id: str,
    module_ids: tuple[str, ...],
    kind: str,
    etag: str | None,
    output: str,
    login: str | None,
    data: Path | None,
) -> None:
    """Make new keys. A module that is connected stays so until it has to show its key again."""
    service = hub_service(login, data)
    ids = listed(module_ids)
    if kind == "swap":
        show(_swap(service, device_path(device_id, _only(ids)), etag), output, {"MODULE ID": "moduleId"})
    elif ids == [ALL]:
        _show_all(service, kind, list(_modules(service, device_id)), output)
    else:
        items = [{"id": device_id, "moduleId": each} for each in ids]
        if len(items) > 1:
            _show_all(service, kind, items, output)
            return
        _renewed(service, kind, items)
        show(service.get(device_path(device_id, ids[0])), output, {"MODULE ID": "moduleId"})


def _only(ids: list[str]) -> str:
    if len(ids) != 1 or ids[0] == ALL:
        raise Invalid("--key-type", "the keys of one identity at a time can be swapped")
    return ids[0]


def _swap(service: Service, path: str, etag: str | None) -> Any:
    document = service.get(path)
    keys = document["authentication"]["symmetricKey"]
    if document["authentication"]["type"] != "sas":
        raise Invalid("--key-type", f"it proves itself by {document['authentication']['type']}, not by keys")
    document["authentication"]["symmetricKey"] = {
        "primaryKey": keys["secondaryKey"],
        "secondaryKey": keys["primaryKey"],
    }
    return service.put(path, document, if_match=condition(etag))


def _keyed(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in documents if each["authentication"]["type"] == "sas"]


def _modules(service: Service, device_id: str) -> Iterator[dict[str, str]]:
    for module in _keyed(service.get(f"{device_path(device_id)}/modules")):
        yield {"id": device_id, "moduleId": module["moduleId"]}


def _show_all(service: Service, kind: str, items: list[dict[str, str]], output: str) -> None:
    result = _regenerate(service, kind, items)
    show(result if output == "json" else result["rotatedKeys"], output, COLUMNS)


def _renewed(service: Service, kind: str, items: list[dict[str, str]]) -> None:
    """Of one identity: what the hub says against it is our refusal."""
    for error in _regenerate(service, kind, items)["errors"]:
        raise Refused(400, f"{error['errorStatus']} ({error['errorCode']})")


def _regenerate(service: Service, kind: str, items: list[dict[str, str]]) -> dict[str, Any]:
    policy_key = kind if kind == "both" else f"{kind}Key"
    result: dict[str, Any] = {"policyKey": policy_key, "errors": [], "rotatedKeys": []}
    for start in range(0, len(items), AT_ONCE):
        body = {"policyKey": policy_key, "devices": items[start : start + AT_ONCE]}
        answered = _patiently(service, body)
        for member in ("errors", "rotatedKeys"):
            result[member] += answered.get(member) or []
    return result


def _patiently(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    """An answer of 400 has the same form as one of 200, and says what went wrong with each."""
    for attempt in range(TRIES):
        try:
            answered: dict[str, Any] = service.call(
                "POST", "/devices/keys/regenerate", body, api_version=API_VERSION, accepted=(400,)
            )[0]
        except Refused as refused:
            if refused.status != 429 or attempt == TRIES - 1:
                raise
            time.sleep(PAUSE)
        else:
            if "rotatedKeys" not in answered:
                raise Refused(400, answered.get("Message", str(answered)))
            return answered
    raise AssertionError("unreachable")
