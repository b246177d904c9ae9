"""`kill -9` while identities are made, changed and deleted: devices with their modules, twins and keys, all or none."""

from __future__ import annotations

import asyncio
import http.client
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.support.services import Answer, Hub

KILLS = 8
WRITERS = 3
LOAD = (0.3, 0.8)  # seconds between the first request and the kill


@dataclass
class Life:
    """What one device was told. `state` is what the last acknowledged request left, None while one is under way."""

    device_id: str
    state: str | None = "absent"
    keys: tuple[str, str] | None = None


@dataclass
class Writer:
    """Lives through devices until the server is gone: made with two modules, new keys for one, then deleted."""

    prefix: str
    lives: list[Life] = field(default_factory=list)

    def run(self, hub: Hub) -> None:
        try:
            while True:
                self._live(hub, Life(f"{self.prefix}-{len(self.lives)}"))
        except (OSError, http.client.HTTPException):
            return

    def _live(self, hub: Hub, life: Life) -> None:
        self.lives.append(life)
        path = f"/devices/{life.device_id}"
        edge = {"deviceId": life.device_id, "capabilities": {"iotEdge": True}}
        self._told(life, hub, "PUT", path, edge, state="edge device")
        module = self._told(life, hub, "PUT", f"{path}/modules/m", {"moduleId": "m"}, state="with module")
        life.keys = keys_of(module.body)
        devices = [{"id": life.device_id, "moduleId": "m"}]
        life.keys = None
        renewed = self._told(
            life,
            hub,
            "POST",
            "/devices/keys/regenerate",
            {"policyKey": "both", "devices": devices},
            state="renewed",
        )
        (rotated,) = renewed.body["rotatedKeys"]
        life.keys = rotated["primaryKey"], rotated["secondaryKey"]
        if len(self.lives) % 2:
            self._told(life, hub, "DELETE", path, None, state="deleted")

    def _told(self, life: Life, hub: Hub, method: str, path: str, body: Any, *, state: str) -> Answer:
        life.state = None
        answer = hub.call(method, path, body, headers={"If-Match": "*"} if method == "DELETE" else {})
        assert answer.status in (200, 201, 204), answer
        life.state = state
        return answer


def keys_of(module: Any) -> tuple[str, str]:
    keys = module["authentication"]["symmetricKey"]
    return keys["primaryKey"], keys["secondaryKey"]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.timeout(240)
async def test_identities_are_what_was_acknowledged_and_never_half(start_server: StartServer) -> None:
    chance = random.Random(2026)
    server = start_server("--log-level", "warning")
    writers = [Writer(f"w{number}") for number in range(WRITERS)]
    for _ in range(KILLS):
        env = server.env
        running = [asyncio.create_task(asyncio.to_thread(writer.run, Hub(env))) for writer in writers]
        await asyncio.sleep(chance.uniform(*LOAD))  # the load lasts a random while: the kill hits anywhere
        server.kill()
        await asyncio.gather(*running)
        server = await asyncio.to_thread(
            start_server, "--log-level", "warning", data=server.data, address=server.address
        )

    hub, lives = Hub(server.env), [life for writer in writers for life in writer.lives]
    assert len(lives) > KILLS * WRITERS, "the load was no load"
    assert {"renewed", "deleted"} <= {life.state for life in lives}
    for life in lives:
        look_at(hub, life)


def look_at(hub: Hub, life: Life) -> None:
    path = f"/devices/{life.device_id}"
    there = hub.call("GET", path).status == 200
    modules = hub.call("GET", f"{path}/modules")
    if life.state == "deleted":
        assert not there, f"{life.device_id} is back"
    elif life.state not in (None, "absent"):
        assert there, f"{life.device_id} was acknowledged and is lost"
    if not there:
        assert modules.status == 404
        return
    found = {module["moduleId"]: module for module in modules.body}
    assert {"$edgeAgent", "$edgeHub"} <= set(found), "a device is made with its modules or not at all"
    if life.state in ("with module", "renewed"):
        assert "m" in found
    for module_id in found:
        assert hub.call("GET", f"/twins/{life.device_id}/modules/{module_id}").status == 200
    if life.keys is not None and life.state == "renewed":
        assert keys_of(found["m"]) == life.keys
