"""A linked hub of another server, told of devices over IoT Hub's own registry API [hub-service 3 to 6].

Every verb looks first and then does what is left to do, so that it can be tried again as a whole: when the answer to
a request was lost, the next look shows whether it was done. Another server's hub cannot be given reported properties:
only the device may write those there.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from moorage.credentials.connection_string import ConnectionString
from moorage.credentials.sas import make_token
from moorage.hub.authentication import Authentication
from moorage.hub.twin import InitialTwin, Section, Twin
from moorage.interfaces import Change, Clock
from moorage.provisioning.hub_registry import DeviceData, HubRefused

API_VERSION = "2021-04-12"
TIME_LIMIT = 10.0  # seconds for one request
AT_ONCE = 16  # requests to all hubs together; more of them wait
ATTEMPTS = 3
PAUSE = 0.5  # seconds before the second attempt, twice that before the third
TOKEN_LIFETIME = 600  # seconds
MAX_ANSWER = 256 * 1024  # bytes
MAX_SHOWN = 2000  # characters of an error that a device is told

_PASSING = frozenset({429, 500, 502, 503, 504})

T = TypeVar("T")


class Answer(NamedTuple):
    status: int
    error: str  # the header iothub-errorcode
    body: bytes


class _Passing(Exception):
    """It may work in a moment; `why` if it does not."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class RemoteHubs:
    """Makes the registries of linked hubs; they share the trust in servers, and threads of their own."""

    def __init__(self, clock: Clock, ca_files: Sequence[Path] = ()) -> None:
        """Trusted are the system's roots, OpenSSL's SSL_CERT_FILE, and those in `ca_files`."""
        self._clock = clock
        self._ca_files = ca_files
        self._context: ssl.SSLContext | None = None
        # Not asyncio's own threads: a hub that does not answer would hold up whoever else needs one.
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="moorage-remote-hub")
        self._open: set[http.client.HTTPSConnection] = set()

    def registry(self, login: ConnectionString) -> RemoteRegistry:
        return RemoteRegistry(self, login)

    def close(self) -> None:
        """Give up what is under way: it is in the records, and goes on with the next start."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for connection in list(self._open):
            if (sock := connection.sock) is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    async def run(self, act: Callable[[], T]) -> T:
        """On a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, act)

    # On a thread

    def send(
        self,
        login: ConnectionString,
        method: str,
        target: str,
        content: bytes | None,
        headers: dict[str, str],
    ) -> Answer:
        """Any answer. Raises OSError, HTTPException."""
        expiry = self._clock.now() // 1_000_000 + TOKEN_LIFETIME
        headers["Authorization"] = make_token(login.host, login.key, expiry, login.policy)
        connection = http.client.HTTPSConnection(
            login.host, login.port, context=self._trust(), timeout=TIME_LIMIT
        )
        self._open.add(connection)
        try:
            connection.request(method, target, content, headers)
            response = connection.getresponse()
            body = response.read(MAX_ANSWER)
            return Answer(response.status, response.getheader("iothub-errorcode") or "", body)
        finally:
            self._open.discard(connection)
            connection.close()

    def _trust(self) -> ssl.SSLContext:
        """Loading the roots takes a while."""
        if self._context is None:
            context = ssl.create_default_context()
            for file in self._ca_files:
                context.load_verify_locations(file)
            self._context = context
        return self._context


class RemoteRegistry:
    """A `HubRegistry`."""

    distant = True

    def __init__(self, hubs: RemoteHubs, login: ConnectionString) -> None:
        self._hubs = hubs
        self._login = login

    async def read(self, device_id: str) -> DeviceData | None:
        return await self._attempt(lambda: self._read(device_id))

    async def provision(
        self,
        device_id: str,
        authentication: Authentication,
        *,
        iot_edge: bool,
        initial_twin: InitialTwin,
        carried: Twin | None,
        reset: bool,
    ) -> Sequence[Change]:
        identity = {
            "status": "enabled",
            "authentication": authentication.view(),
            "capabilities": {"iotEdge": iot_edge},
        }
        tags = carried.tags if carried is not None else initial_twin.tags
        desired = carried.desired.values if carried is not None else initial_twin.desired
        twin = {"tags": tags, "properties": {"desired": desired}}
        anew = reset or carried is not None
        await self._attempt(lambda: self._provision(device_id, identity, twin, anew=anew))
        return ()

    async def delete(self, device_id: str) -> Sequence[Change]:
        await self._attempt(lambda: self._delete(device_id))
        return ()

    async def _attempt(self, act: Callable[[], T]) -> T:
        """Run `act` on a thread, again where that may help. Raises HubRefused."""
        pause = PAUSE
        for left in reversed(range(ATTEMPTS)):
            try:
                return await self._hubs.run(act)
            except _Passing as error:
                if not left:
                    raise HubRefused(error.why) from None
            await asyncio.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")

    # On a thread

    def _read(self, device_id: str) -> DeviceData | None:
        identity = self._get(f"/devices/{_escaped(device_id)}")
        twin = self._get(f"/twins/{_escaped(device_id)}") if identity is not None else None
        if identity is None or twin is None:
            return None
        try:
            properties = twin["properties"]
            read = Twin(
                device_id=device_id,
                version=int(twin.get("version", 2)),
                tags=dict(twin.get("tags") or {}),
                desired=_section(properties["desired"]),
                reported=_section(properties["reported"]),
            )
            edge = bool((identity.get("capabilities") or {}).get("iotEdge"))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise HubRefused(f"{self._login.host} answered with a twin that is none") from None
        return DeviceData(iot_edge=edge, twin=read)

    def _provision(
        self, device_id: str, identity: Mapping[str, Any], twin: Mapping[str, Any], *, anew: bool
    ) -> None:
        """`anew`: a twin that is there is not kept."""
        path = f"/devices/{_escaped(device_id)}"
        exists = self._get(path) is not None
        if exists and anew:
            self._delete(device_id)
            exists = False
        if exists:
            answer = self._call("PUT", path, {"deviceId": device_id, **identity}, if_match=True)
            if answer.status == 404:
                raise _Passing(f"{device_id} comes and goes at {self._login.host}")
            self._check(answer)
            return
        # Identity and twin in one request, which does nothing where there is one already.
        item = {"id": device_id, "importMode": "create", **identity, **twin}
        answer = self._call("POST", "/devices", [item])
        if answer.status == 400 and _says(answer.body, "DeviceAlreadyExists"):
            raise _Passing(f"{device_id} comes and goes at {self._login.host}")
        self._check(answer)

    def _delete(self, device_id: str) -> None:
        answer = self._call("DELETE", f"/devices/{_escaped(device_id)}", if_match=True)
        if answer.status != 404 or answer.error != "DeviceNotFound":
            self._check(answer)

    def _get(self, path: str) -> dict[str, Any] | None:
        answer = self._call("GET", path)
        if answer.status == 404 and answer.error == "DeviceNotFound":
            return None
        self._check(answer)
        try:
            document = json.loads(answer.body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise HubRefused(f"{self._login.host} answered with something that is no JSON object")
        return document

    def _check(self, answer: Answer) -> None:
        """Raises HubRefused with the hub's own error JSON [dps 13.1], and _Passing."""
        if answer.status < 300:
            return
        said = (
            answer.body.decode("utf-8", "replace")[:MAX_SHOWN] or f"{self._login.host}: HTTP {answer.status}"
        )
        if answer.status in _PASSING:
            raise _Passing(said)
        raise HubRefused(said)

    def _call(self, method: str, path: str, body: object = None, *, if_match: bool = False) -> Answer:
        """Raises _Passing when there is no answer."""
        login, headers, content = self._login, {}, None
        if body is not None:
            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json; charset=utf-8"
        if if_match:
            headers["If-Match"] = '"*"'
        try:
            return self._hubs.send(login, method, f"{path}?api-version={API_VERSION}", content, headers)
        except ssl.SSLCertVerificationError as error:
            why = f"{error.verify_message}; name its CA in SSL_CERT_FILE"
            raise HubRefused(
                f"The certificate of the linked hub {login.host} is not trusted: {why}"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            why = (
                "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            )
            raise _Passing(f"The linked hub {login.host}:{login.port} cannot be reached: {why}") from None


def _escaped(device_id: str) -> str:
    return quote(device_id, safe="")


def _section(document: Mapping[str, Any]) -> Section:
    values = {key: value for key, value in document.items() if key not in ("$metadata", "$version")}
    return Section(
        values=values, metadata=dict(document["$metadata"]), version=int(document.get("$version", 1))
    )


def _says(body: bytes, name: str) -> bool:
    """Whether a bulk result has an error of that name."""
    try:
        errors = json.loads(body)["errors"]
        return any(str(error["errorStatus"]).startswith(name) for error in errors)
    except (ValueError, KeyError, TypeError):
        return False
