"""`/moorage/v1/environment`: what the portal shows for pasting is what `moorage env` prints."""

from __future__ import annotations

import pytest

from moorage.app import Server
from moorage.portal.api import Api, Refused, Service


@pytest.fixture
def dps(server: Server) -> Service:
    return Api(server.inside_api()).dps


async def test_it_is_that_of_the_run_file(server: Server, dps: Service) -> None:
    assert await dps.get("/moorage/v1/environment") == await server.environment()


async def test_of_another_hub(dps: Service) -> None:
    made = await dps.post("/moorage/v1/hubs", {"name": "second"})
    shown = await dps.get("/moorage/v1/environment", hub="second")
    assert shown["IOTHUB_HOSTNAME"] == made["hostName"]
    assert shown["PROVISIONING_IDSCOPE"]


async def test_of_a_hub_there_is_not(dps: Service) -> None:
    with pytest.raises(Refused, match="nowhere") as refused:
        await dps.get("/moorage/v1/environment", hub="nowhere")
    assert refused.value.status == 404
