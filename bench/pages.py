"""How long the server takes for a page of the portal, beside 100,000 devices and as many enrollments, without a socket.

    python bench/pages.py [--devices 100000] [--runs 9]

Fills the records of a server of its own with identities, twins of about 1.4 KB and individual enrollments, signs in and
asks for pages.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import queries

from moorage.app import Server
from moorage.config import Config
from moorage.portal.api import Api

HOST = "localhost"
LIST = "/hubs/hub/devices"
NOWHERE = "SELECT * FROM devices WHERE properties.reported.battery > 100"
WANTED = 50.0  # milliseconds


class Asked(NamedTuple):
    name: str
    target: str
    wanted: float | None = WANTED


ENROLLED_AT_A_TIME = 1000

PAGES = (
    Asked("overview", "/"),
    Asked("its counts", "/overview/counts"),
    Asked("enrollments, first page", "/enrollments"),
    Asked("enrollments, a later page", "/enrollments?after=pump-050000"),
    Asked("enrollments, ids that begin with the last one", "/enrollments?search=pump-09999"),
    Asked("enrollments, the same list again", "/enrollments/rows?seen=x"),
    Asked("an enrollment", "/enrollments/pump-050000"),
    Asked("its state", "/enrollments/pump-050000/state"),
    Asked("the form of a new one", "/enrollments/new"),
    Asked("enrollment groups", "/enrollment-groups"),
    Asked("registrations", "/registrations"),
    Asked("linked hubs", "/linked-hubs"),
    Asked("certificates", "/certificates"),
    Asked("make a certificate", "/make-certificate"),
    Asked("policies", "/policies"),
    Asked("a policy", "/policies/provisioningserviceowner"),
    Asked("devices, first page", LIST),
    Asked("devices, ids that begin with the last one", f"{LIST}?device_id=device-09999"),
    Asked("devices, ids that begin as none does", f"{LIST}?device_id=nobody"),
    Asked("devices, disabled ones", f"{LIST}?status=disabled"),
    Asked("devices, connected ones, nobody is", f"{LIST}?connection=Connected"),
    Asked("devices, a query that finds nothing", f"{LIST}?query={quote(NOWHERE)}", None),
    Asked("a device", f"{LIST}/device-050000"),
    Asked("its state", f"{LIST}/device-050000/state"),
    Asked("its method", f"{LIST}/device-050000/method"),
    Asked("its modules", f"{LIST}/device-050000/modules"),
    Asked("its twin", f"{LIST}/device-050000/twin"),
    Asked("its messages", f"{LIST}/device-050000/messages"),
    Asked("its connections", f"{LIST}/device-050000/connections"),
    Asked("the form of a new device", f"{LIST}/~new"),
    Asked("telemetry, nothing yet", "/hubs/hub/telemetry"),
)


class Browser:
    """Somebody who is signed in at the portal of `server`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._cookie = ""

    async def sign_in(self) -> None:
        await self.get(self._server.portal_link())

    async def get(self, target: str) -> int:
        """The status of the answer."""
        parts = urlsplit(target)
        headers = [(b"host", HOST.encode()), (b"cookie", self._cookie.encode())]
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": unquote(parts.path),
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "headers": headers,
            "extensions": {},
        }
        status = 0

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            for name, value in message.get("headers", ()):
                if name == b"set-cookie":
                    self._cookie = value.decode().partition(";")[0]

        await self._server._at_portal(scope, receive, send)
        return status


async def enroll(server: Server, count: int) -> None:
    """As many individual enrollments, by symmetric key."""
    dps = Api(server.inside_api()).dps
    for first in range(0, count, ENROLLED_AT_A_TIME):
        numbers = range(first, min(count, first + ENROLLED_AT_A_TIME))
        wanted = [
            {"registrationId": f"pump-{number:06}", "attestation": {"type": "symmetricKey"}}
            for number in numbers
        ]
        answer = await dps.post("/moorage/v1/enrollments", {"enrollments": wanted})
        assert not answer["errors"], answer


async def measure(folder: Path, count: int, runs: int) -> None:
    config = Config(
        data=folder / "data", bind=("127.9.0.4",), hub_host="127.9.0.4", portal_port=0, ca=folder / "ca"
    )
    server = Server(config)
    await server.start()
    try:
        seconds = await queries.fill(server.store, count, server.hubs.named("hub").hub.scope)
        await enroll(server, count)
        browser = Browser(server)
        await browser.sign_in()
        print(
            f"{count:,} devices, filled in {seconds:.1f} s, and as many enrollments; medians of {runs} runs\n"
        )
        print("| page | server time | CPU | wanted | held |")
        print("|---|---|---|---|---|")
        for page in PAGES:
            print(await line(browser, page, runs))
    finally:
        await server.stop()


async def line(browser: Browser, page: Asked, runs: int) -> str:
    await browser.get(page.target)
    wall, processor = [], []
    for _ in range(runs):
        begun = time.perf_counter(), time.process_time()
        status = await browser.get(page.target)
        wall.append((time.perf_counter() - begun[0]) * 1e3)
        processor.append((time.process_time() - begun[1]) * 1e3)
        assert status == 200, f"{page.target}: {status}"
    median = statistics.median(wall)
    held = "" if page.wanted is None else "yes" if median <= page.wanted else "no"
    wanted = "" if page.wanted is None else f"≤ {page.wanted:g} ms"
    return f"| {page.name} | {median:,.1f} ms | {statistics.median(processor):,.1f} ms | {wanted} | {held} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument(
        "--folder", type=Path, help="where the records are put; a temporary folder unless given"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        asyncio.run(measure(Path(folder), asked.devices, asked.runs))


if __name__ == "__main__":
    main()
