"""The first page: what is needed to connect, and how the server fares."""

from __future__ import annotations

import re
from html import unescape

import pytest

from moorage.app import Server
from moorage.portal import counts
from moorage.portal.api import Api
from moorage.portal.overview import HIDDEN, STYLES
from moorage.shells import FORMATS
from tests.support.kept_events import keep
from tests.support.visitor import Visitor


async def test_how_devices_and_back_ends_reach_it(visitor: Visitor, server: Server) -> None:
    page = await visitor.get("/")
    environment = await server.environment()
    for value in (
        environment["PROVISIONING_HOST"],
        environment["PROVISIONING_IDSCOPE"],
        environment["IOTHUB_HOSTNAME"],
        environment["MOORAGE_CA_FILE"],
    ):
        assert f'data-copy="{value}"' in page.html


async def test_the_ca_certificate_is_for_download(visitor: Visitor, server: Server) -> None:
    page = await visitor.get("/overview/ca.pem")
    assert page.html.startswith("-----BEGIN CERTIFICATE-----")
    assert "attachment" in page.headers["content-disposition"]


async def test_where_the_operator_brought_a_certificate_there_is_no_ca(
    visitor: Visitor, server: Server
) -> None:
    server.ca_file = None
    assert "/overview/ca.pem" not in (await visitor.get("/")).html
    assert (await visitor.get("/overview/ca.pem")).status == 404


@pytest.mark.parametrize("style", STYLES)
async def test_the_environment_is_what_moorage_env_prints(
    visitor: Visitor, server: Server, style: str
) -> None:
    page = await visitor.get(f"/?env={style}&keys=shown")
    assert FORMATS[style](await server.environment()) in unescape(page.html)


async def test_keys_are_in_the_page_only_when_they_were_asked_for(visitor: Visitor, server: Server) -> None:
    logins = [value for value in (await server.environment()).values() if "SharedAccessKey=" in value]
    keys = {re.findall("SharedAccessKey=([^;]+)", login)[0] for login in logins}
    assert keys
    page = await visitor.get("/?env=dotenv")
    assert not any(key in unescape(page.html) for key in keys)
    assert f"SharedAccessKey={HIDDEN}" in page.text
    shown = unescape((await visitor.get("/?env=dotenv&keys=shown")).html)
    assert all(login in shown for login in logins)


async def test_of_another_hub(visitor: Visitor, server: Server) -> None:
    assert "field-hub" not in (await visitor.get("/")).html
    made = await Api(server.inside_api()).dps.post("/moorage/v1/hubs", {"name": "second"})
    page = await visitor.get("/?hub=second")
    assert f"IOTHUB_HOSTNAME={made['hostName']}" in page.text
    assert "/?env=python&amp;hub=second#environment" in page.html
    assert "Figures of each hub" in page.html
    assert f"IOTHUB_HOSTNAME={made['hostName']}" not in (await visitor.get("/?hub=nowhere")).text


async def test_first_steps_until_something_is_enrolled(visitor: Visitor, server: Server) -> None:
    page = await visitor.get("/")
    assert "First steps" in page.text
    assert "moorage cert device --subject pump-7" in page.text
    enrollment = {"registrationId": "pump-7", "attestation": {"type": "symmetricKey"}}
    await Api(server.inside_api()).dps.put("/enrollments/pump-7", enrollment)
    assert "First steps" not in (await visitor.get("/")).text


async def test_figures_with_plots_that_can_be_read(visitor: Visitor, server: Server) -> None:
    server._samples.take()
    await keep(server.event_log, server.hubs.first.hub, "pump-7", *[b"x"] * 1200)
    server.provisioner.counts.registrations["x509", "failed"] += 2
    page = await visitor.fragment("/overview/counts")
    assert "<html" not in page.html
    assert "Messages 1,200" in page.text
    assert "Registrations failed 2 2 lately" in page.text
    assert 'aria-label="Devices connected in the last five minutes: at most 0, now 0"' in page.html
    assert page.html.count("<svg") == 5


def test_a_rate_is_taken_over_the_last_seconds() -> None:
    assert counts.rate_now([0, 100, 150, 200], [60.0, 10.0, 5.0, 0.0]) == 10
    assert counts.rate_now([0, 100], [60.0, 0.0]) == pytest.approx(100 / 60)
    assert counts.rate_now([7], [0.0]) == 0
    assert counts.rate_now([9, 3], [2.0, 0.0]) == 0  # a hub is gone


def test_rates_between_moments() -> None:
    assert counts.rates([0, 4, 4, 10], [6.0, 4.0, 2.0, 0.0]) == [0, 2, 0, 3]
    assert counts.rates([0, 4, 5], [4.0, 0.1, 0.0]) == [0, pytest.approx(4 / 3.9), pytest.approx(4 / 3.9)]
    assert counts.rates([3], [0.0]) == [0]


def test_a_plot_ends_at_the_right_and_reaches_the_top() -> None:
    drawn = counts.plot([0, 5, 10], [300.0, 150.0, 0.0])
    assert drawn.line == "0.0,34.5 80.0,18.0 160.0,1.5"
    assert (drawn.most, drawn.now) == (10, 10)
    assert counts.plot([0], [0.0]).line == "160.0,34.5"
