"""A hub of another server, told over the registry API: here by the one of a site, on threads as it is in life."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from moorage.adapters import remote_hub
from moorage.adapters.remote_hub import Answer, RemoteHubs, RemoteRegistry
from moorage.credentials.connection_string import ConnectionString
from moorage.credentials.sas import make_token
from moorage.hub.authentication import Authentication
from moorage.hub.twin import EMPTY, InitialTwin, Twin
from moorage.provisioning.hub_registry import HubRefused
from tests.support.asgi import Caller
from tests.support.site import HOST, Site

KEYS = Authentication.symmetric("MDEyMzQ1Njc4OWFiY2RlZg==", "ZmVkY2JhOTg3NjU0MzIxMA==")
OTHER = Authentication.self_signed("AB" * 32)
TWIN = InitialTwin(tags={"site": "dock"}, desired={"interval": 30})


class Wire(RemoteHubs):
    """Carries requests to the site; `lose` is how many of the next answers are lost on the way."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.time)
        self._site = site
        self._caller = Caller(site.service_api())
        self._loop = asyncio.get_running_loop()
        self.asked: list[str] = []
        self.lose = 0
        self.answers: list[Answer] = []  # instead of the site's

    def send(
        self,
        login: ConnectionString,
        method: str,
        target: str,
        content: bytes | None,
        headers: dict[str, str],
    ) -> Answer:
        path, _, query = target.partition("?")
        self.asked.append(f"{method} {path}")
        if self.answers:
            return self.answers.pop(0)
        token = make_token(login.host, login.key, self._site.seconds + 600, login.policy)
        calling = self._caller.call(method, path, content, headers, query=query, token=token)
        answer = asyncio.run_coroutine_threadsafe(calling, self._loop).result(10)
        if self.lose:
            self.lose -= 1
            raise ConnectionResetError("lost")
        return Answer(answer.status, answer.headers.get("iothub-errorcode", ""), answer.body)


@pytest.fixture
async def wire(site: Site, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wire]:
    monkeypatch.setattr(remote_hub, "PAUSE", 0.0)
    made = Wire(site)
    yield made
    made.close()


def login_of(site: Site, policy: str = "iothubowner") -> ConnectionString:
    return ConnectionString(HOST, 443, policy, site.policies[policy].primary_key)


@pytest.fixture
def registry(wire: Wire, site: Site) -> RemoteRegistry:
    return wire.registry(login_of(site))


async def provision(registry: RemoteRegistry, authentication: Authentication = KEYS, **options: Any) -> None:
    given: dict[str, Any] = {
        "iot_edge": False,
        "initial_twin": TWIN,
        "carried": None,
        "reset": False,
        **options,
    }
    assert await registry.provision("pump-7", authentication, **given) == (), "nothing is left to commit"


async def twin_of(site: Site) -> Twin:
    return await site.identities.twin("pump-7")


@pytest.mark.parametrize("lose", [0, 1, 2])
async def test_a_device_is_made_once_whatever_answers_are_lost(
    site: Site, wire: Wire, registry: RemoteRegistry, lose: int
) -> None:
    wire.lose = lose
    await provision(registry, iot_edge=True)

    identity = await site.identities.get("pump-7")
    assert (identity.authentication, identity.status, identity.iot_edge) == (KEYS, "enabled", True)
    twin = await twin_of(site)
    assert (twin.tags, twin.desired.values) == (TWIN.tags, TWIN.desired)
    assert (await site.identities.statistics()).total == 1


async def test_credentials_are_renewed_and_the_twin_is_kept(site: Site, registry: RemoteRegistry) -> None:
    await provision(registry)
    await site.set_status("pump-7", "disabled")
    await site.identities.patch_twin("pump-7", {"tags": {"painted": "red"}})

    await provision(registry, OTHER)

    identity = await site.identities.get("pump-7")
    assert (identity.authentication, identity.status) == (OTHER, "enabled")
    assert (await twin_of(site)).tags == {"site": "dock", "painted": "red"}


async def test_a_twin_is_made_anew(site: Site, registry: RemoteRegistry) -> None:
    await provision(registry)
    await site.identities.patch_twin("pump-7", {"tags": {"painted": "red"}})
    await provision(registry, reset=True)
    assert (await twin_of(site)).tags == {"site": "dock"}


async def test_a_twin_goes_along(site: Site, registry: RemoteRegistry) -> None:
    await provision(registry)
    await site.identities.patch_twin("pump-7", {"tags": {"painted": "red"}})
    data = await registry.read("pump-7")
    assert data is not None
    await registry.delete("pump-7")
    assert await registry.read("pump-7") is None
    await registry.delete("pump-7")

    await provision(registry, initial_twin=EMPTY, carried=data.twin, reset=True)

    twin = await twin_of(site)
    assert (twin.tags, twin.desired.values) == ({"site": "dock", "painted": "red"}, {"interval": 30})
    assert data.twin.desired.metadata["interval"]["$lastUpdatedVersion"] == 1


async def test_the_hubs_own_words_for_a_refusal(site: Site, wire: Wire) -> None:
    with pytest.raises(HubRefused) as error:
        await provision(wire.registry(login_of(site, "service")))
    assert json.loads(str(error.value))["Message"].startswith("ErrorCode:IotHubUnauthorizedAccess;")
    assert len(wire.asked) == 1, "what is refused is not asked again"


async def test_what_may_pass_is_tried_again(wire: Wire, registry: RemoteRegistry) -> None:
    wire.answers = [Answer(503, "ServiceUnavailable", b"busy"), Answer(429, "ThrottlingException", b"slow")]
    await provision(registry)
    wire.lose = 99
    with pytest.raises(HubRefused, match="localhost:443 cannot be reached: lost"):
        await provision(registry)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"x"', b"\xff"])
async def test_an_answer_that_is_none(wire: Wire, registry: RemoteRegistry, body: bytes) -> None:
    wire.answers = [Answer(200, "", body)]
    with pytest.raises(HubRefused, match="no JSON object"):
        await registry.read("pump-7")


@pytest.mark.parametrize("twin", [{}, {"properties": {}}, {"properties": {"desired": [], "reported": {}}}])
async def test_a_twin_that_is_none(wire: Wire, registry: RemoteRegistry, twin: object) -> None:
    wire.answers = [Answer(200, "", b"{}"), Answer(200, "", json.dumps(twin).encode())]
    with pytest.raises(HubRefused, match="a twin that is none"):
        await registry.read("pump-7")


async def test_another_404_is_not_a_device_that_is_missing(wire: Wire, registry: RemoteRegistry) -> None:
    wire.answers = [Answer(404, "", b"not a hub at all")]
    with pytest.raises(HubRefused, match="not a hub at all"):
        await provision(registry)


async def test_a_device_that_comes_and_goes(wire: Wire, registry: RemoteRegistry) -> None:
    """Somebody else deletes it between the look and the change, and the next look sees that."""
    await provision(registry)
    wire.answers = [Answer(200, "", b"{}"), Answer(404, "DeviceNotFound", b"{}")]
    await provision(registry, OTHER)
    exists = {"errors": [{"errorStatus": "DeviceAlreadyExists: …"}]}
    wire.answers = [Answer(404, "DeviceNotFound", b"{}"), Answer(400, "", json.dumps(exists).encode())]
    await provision(registry)
