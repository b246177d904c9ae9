"""The live feed of attempts, and what explains one."""

from __future__ import annotations

import re

from moorage.credentials.decision import Exchange, Finding
from moorage.errors import Unauthorized
from moorage.portal.registrations import SHOWN
from tests.support.visitor import PageSeen, Visitor


def attempt(
    visitor: Visitor,
    subject: str,
    *,
    refused: bool = False,
    operation: str = "register",
    tracking_id: str = "t1",
) -> None:
    """As a device makes one."""
    server = visitor.server
    finding = Finding(operation, subject, scope=1, tracking_id=tracking_id, door="mqtt", address="192.0.2.7")
    finding.consider(f"individual enrollment {subject}")
    finding.hold("thumbprint", "that of the primary certificate")
    finding.exchange = Exchange(
        asked="https://hooks.example", request='{"a":1}', status=500, answer="<no>", seconds=0.5
    )
    now = server.clock.now()
    if refused:
        error = Unauthorized("the certificate has expired", check="validity", remedy="Make a new one.")
        server.decisions.add(finding.refused(now, error))
    else:
        server.decisions.add(finding.accepted(now))


def live_address(page: PageSeen) -> str:
    (found,) = re.findall(r'data-live="([^"]+)"', page.html)
    return str(found).replace("&amp;", "&")


async def test_nobody_has_come_yet(visitor: Visitor) -> None:
    page = await visitor.get("/registrations")
    assert "No attempt yet" in page.text
    assert "moorage device registration create" in page.text


async def test_attempts_are_shown_newest_first(visitor: Visitor) -> None:
    attempt(visitor, "pump-1")
    attempt(visitor, "pump-2", refused=True)
    attempt(visitor, "pump-3", operation="connect")
    page = await visitor.get("/registrations")
    assert page.text.index("pump-2") < page.text.index("pump-1")
    assert "the certificate has expired" in page.text
    assert "pump-3" not in page.text  # connections are for those who ask for them
    assert "pump-3" in (await visitor.get("/registrations?operation=")).text
    refused = await visitor.get("/registrations?refused=true")
    assert "pump-2" in refused.text
    assert "pump-1" not in refused.text
    assert "pump-1" not in (await visitor.get("/registrations?subject=pump-2")).text


async def test_what_comes_is_added(visitor: Visitor) -> None:
    page = await visitor.get("/registrations?refused=true")
    quiet = await visitor.fragment(live_address(page))
    assert quiet.status == 204
    attempt(visitor, "pump-1")
    attempt(visitor, "pump-2", refused=True)
    attempt(visitor, "pump-3", refused=True)
    seen = await visitor.fragment(quiet.headers["moorage-next"])
    assert seen.status == 200
    assert seen.text.index("pump-3") < seen.text.index("pump-2")
    assert "pump-1" not in seen.text
    assert (await visitor.fragment(seen.headers["moorage-next"])).status == 204


async def test_more_than_fit_are_shown_piece_by_piece(visitor: Visitor) -> None:
    page = await visitor.get("/registrations")
    for number in range(SHOWN + 1):
        attempt(visitor, f"pump-{number}")
    first = await visitor.fragment(live_address(page))
    second = await visitor.fragment(first.headers["moorage-next"])
    assert first.html.count("<tr>") == SHOWN
    assert second.html.count("<tr>") == 1


async def test_an_attempt_is_explained(visitor: Visitor) -> None:
    attempt(visitor, "pump-1", refused=True, tracking_id="aaaa")
    attempt(visitor, "pump-1", tracking_id="bbbb")
    page = await visitor.get("/registrations/attempt?subject=pump-1&tracking_id=aaaa")
    assert page.title == "register pump-1"
    for told in (
        "the certificate has expired",
        "Make a new one.",
        "individual enrollment pump-1",
        "Held thumbprint that of the primary certificate",
        "Failed validity",
        "https://hooks.example",
        "<no>",
        "192.0.2.7",
    ):
        assert told in page.text
    accepted = await visitor.get("/registrations/attempt?subject=pump-1&tracking_id=bbbb")
    assert "Every check held." in accepted.text


async def test_in_a_drawer_there_is_no_page_around_it(visitor: Visitor) -> None:
    attempt(visitor, "pump-1")
    seen = await visitor.fragment("/registrations/attempt?subject=pump-1&tracking_id=t1")
    assert "<html" not in seen.html
    assert seen.title == "register pump-1"


async def test_an_attempt_that_is_not_known(visitor: Visitor) -> None:
    assert (await visitor.get("/registrations/attempt?subject=pump-1&tracking_id=nope")).status == 404


async def test_names_are_shown_as_they_are(visitor: Visitor) -> None:
    name = "<img src=x onerror=alert(1)>&/%2F#"
    attempt(visitor, name, refused=True)
    page = await visitor.get("/registrations")
    assert "<img src=x" not in page.html
    (link,) = re.findall(r'href="(/registrations/attempt[^"]+)"', page.html)
    shown = await visitor.get(link.replace("&amp;", "&"))
    assert shown.status == 200
    assert name in shown.text
    assert "<img src=x" not in shown.html


async def test_a_place_that_was_never_named_is_refused(visitor: Visitor) -> None:
    seen = await visitor.fragment("/registrations/live?since=nonsense")
    assert seen.status == 400
