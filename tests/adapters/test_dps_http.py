"""The service API through the whole ASGI application, by hand and with Microsoft's own client."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from provisioningserviceclient import (  # type: ignore[import-untyped]
    ProvisioningServiceClient,
    ProvisioningServiceError,
    QuerySpecification,
)
from provisioningserviceclient import models as sdk

from moorage.adapters.dps_http import DpsHttp
from moorage.adapters.http import HttpAdapter
from moorage.app import KINDS
from moorage.credentials import policy
from moorage.credentials.decision import Decisions
from moorage.credentials.etag import new_etag
from moorage.credentials.policy import ENROLLMENT_READ, SharedAccessPolicy, provisioning_policies
from moorage.credentials.sas import make_token, new_key
from moorage.credentials.x509 import Certificate
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.hub.session import Sessions
from moorage.interfaces import Peer
from moorage.provisioning.provisioner import Provisioner, RegistrationRequest, X509Proof
from moorage.provisioning.registration import RegistrationState
from moorage.provisioning.service import (
    ApiVersion,
    LinkedHub,
    ProvisioningService,
)
from moorage.store.sqlite import SqliteStore

NOW = datetime(2024, 5, 2, 10, 20, 30, tzinfo=UTC)
SECOND = round(NOW.timestamp())
VERSION = "api-version=2021-10-01"
TRACKING_ID = "5d1f0c6a8e7b4c34a0b1c2d3e4f50617"
KEY = ec.generate_private_key(ec.SECP256R1())


class StoppedClock:
    def now(self) -> int:
        return SECOND * 1_000_000

    def monotonic(self) -> float:
        return 0.0


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json; charset=utf-8"
        return json.loads(self.body)


@dataclass
class Site:
    """A service with the default policy and a reading one, and a caller of it."""

    app: HttpAdapter
    provisioner: Provisioner
    decisions: Decisions
    owner: SharedAccessPolicy
    reader: SharedAccessPolicy

    def token(self, resource: str = "dps.example.net", *, by: SharedAccessPolicy | None = None) -> str:
        signer = by or self.owner
        return make_token(resource, signer.primary_key, SECOND + 3600, signer.name)

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        query: str = VERSION,
        token: str | None = "",
    ) -> Answer:
        """`body` is sent as JSON unless it is bytes; `token` None leaves the header out."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        sent = {"host": "dps.example.net", "content-length": str(len(content))} | dict(headers or {})
        if token is not None:
            sent.setdefault("authorization", token or self.token())
        scope = {
            "type": "http",
            "method": method,
            "path": "not looked at",
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
            "extensions": {
                "moorage.tracking_id": TRACKING_ID,
                "moorage.peer": Peer("192.0.2.7", "https"),
            },
        }
        return await ask(self.app, scope, content)

    async def put(
        self, leaf: Certificate, headers: Mapping[str, str] | None = None, **members: Any
    ) -> Answer:
        body = individual(leaf, **members)
        return await self.call("PUT", f"/enrollments/{body['registrationId']}", body, headers)

    async def register(self, leaf: Certificate) -> RegistrationState:
        request = RegistrationRequest(
            id_scope="0ne00ABCDEF",
            registration_id="pump-7",
            api_version=ApiVersion("2019-03-31", reprovisioning=True, precise_substatus=False),
        )
        return await self.provisioner.register(request, X509Proof((leaf.der,)))


async def ask(app: HttpAdapter, scope: dict[str, Any], content: bytes) -> Answer:
    """Send in pieces, as a network would."""
    pieces = [content[at : at + 30_000] for at in range(0, len(content), 30_000)] or [b""]
    unread = iter(pieces)
    left = len(pieces)
    answered: list[Any] = []

    async def receive() -> dict[str, Any]:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": next(unread), "more_body": left > 0}

    async def send(message: Any) -> None:
        answered.append(message)

    await app(scope, receive, send)
    start, end = answered
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    if start["status"] != 204:
        assert int(headers.pop("content-length")) == len(end["body"])
    return Answer(start["status"], headers, end["body"])


def certificate(common_name: str = "pump-7") -> Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .sign(KEY, hashes.SHA256())
    )
    return Certificate(signed.public_bytes(Encoding.DER))


def individual(leaf: Certificate, **members: Any) -> dict[str, Any]:
    attestation = {
        "type": "x509",
        "x509": {"clientCertificates": {"primary": {"certificate": leaf.to_pem()}}},
    }
    return {"registrationId": "pump-7", "attestation": attestation, **members}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    clock, decisions = StoppedClock(), Decisions()
    store = SqliteStore.open(None, kinds=KINDS)
    host = "hub-a.example.net"
    hub = Hub(scope=7, name="hub-a", host_names=(host,), advertised_host=host, created=clock.now())
    service = ProvisioningService(
        scope=1, id_scope="0ne00ABCDEF", host_names=("dps.example.net",), created=clock.now(), etag=new_etag()
    )
    identities = Identities(hub, store, clock, Sessions(clock))
    provisioner = Provisioner(service, store=store, clock=clock, hubs={7: identities}, decisions=decisions)
    await provisioner.link_hub(LinkedHub(hub=7, host_name=host, etag=new_etag()))
    [owner] = provisioning_policies()
    reader = SharedAccessPolicy(
        name="reader", primary_key=new_key(), secondary_key=new_key(), rights=frozenset({ENROLLMENT_READ})
    )
    for each in (owner, reader):
        await store.records(policy.KIND, 1).put(each)
    handler = DpsHttp(provisioner)
    yield Site(HttpAdapter(handler, otherwise=handler), provisioner, decisions, owner, reader)
    await store.close()


def refused(answer: Answer, status: int, code: int, *words: str) -> None:
    """The error body of the service, whole."""
    assert answer.status == status, answer.body
    body = answer.json()
    assert body.pop("message"), "an error says what to do"
    assert body == {
        "errorCode": code,
        "trackingId": TRACKING_ID,
        "timestampUtc": "2024-05-02T10:20:30.0000000Z",
    }
    assert answer.headers["x-ms-error-code"] == str(code)
    assert answer.headers["x-ms-request-id"] == TRACKING_ID
    for word in words:
        assert word in answer.json()["message"]


# --- Individual enrollments ------------------------------------------------------------------------------


async def test_put_get_delete(site: Site) -> None:
    leaf = certificate()
    created = await site.put(leaf, deviceId="line4-robot7")
    assert created.status == 200
    assert created.headers["x-ms-request-id"] == TRACKING_ID
    assert created.headers["etag"] == created.json()["etag"]
    shown = await site.call("GET", "/enrollments/PUMP-7")
    assert shown.status == 200
    assert shown.json() == created.json()
    gone = await site.call("DELETE", "/enrollments/pump-7")
    assert (gone.status, gone.body) == (204, b"")
    assert "content-type" not in gone.headers
    refused(await site.call("GET", "/enrollments/pump-7"), 404, 404201, "pump-7")
    refused(await site.call("DELETE", "/enrollments/pump-7"), 404, 404201)


async def test_the_registration_stands_in_get_and_not_in_query(site: Site) -> None:
    leaf = certificate()
    await site.put(leaf)
    state = await site.register(leaf)
    shown = (await site.call("GET", "/enrollments/pump-7")).json()
    assert shown["registrationState"] == {
        "registrationId": "pump-7",
        "createdDateTimeUtc": "2024-05-02T10:20:30.0000000Z",
        "assignedHub": "hub-a.example.net",
        "deviceId": "pump-7",
        "status": "assigned",
        "substatus": "initialAssignment",
        "lastUpdatedDateTimeUtc": "2024-05-02T10:20:30.0000000Z",
        "etag": state.etag,
    }
    [found] = (await site.call("POST", "/enrollments/query", {"query": "*"})).json()
    assert "registrationState" not in found
    assert found["attestation"] == shown["attestation"]


async def test_conditional_writes(site: Site) -> None:
    leaf = certificate()
    etag = (await site.put(leaf)).json()["etag"]
    refused(await site.put(leaf), 409, 409001, "exists already")
    refused(await site.put(leaf, {"If-Match": "badetag"}), 412, 412001)
    updated = await site.put(leaf, {"If-Match": etag}, provisioningStatus="disabled")
    assert (updated.status, updated.json()["provisioningStatus"]) == (200, "disabled")
    refused(await site.put(leaf, {"If-Match": etag}), 412, 412001)
    assert (await site.put(leaf, {"If-Match": '"*"'})).status == 200
    refused(await site.call("DELETE", "/enrollments/pump-7", headers={"if-match": etag}), 412, 412001)
    assert (await site.call("DELETE", "/enrollments/pump-7", headers={"if-match": "*"})).status == 204


async def test_get_modify_put_without_the_certificate(site: Site) -> None:
    await site.put(certificate())
    shown = (await site.call("GET", "/enrollments/pump-7")).json()
    assert shown["attestation"]["x509"]["clientCertificates"]["primary"]["certificate"] is None
    changed = await site.call(
        "PUT", "/enrollments/pump-7", {**shown, "deviceId": "d"}, {"if-match": shown["etag"]}
    )
    assert changed.status == 200
    assert changed.json()["attestation"] == shown["attestation"]
    assert changed.json()["deviceId"] == "d"


@pytest.mark.parametrize(
    ("path", "registration_id"),
    [
        ("/enrollments/a%3Ab", "a:b"),
        ("/enrollments/a:b", "a:b"),
        ("/Enrollments/pump-7/", "pump-7"),
        ("/ENROLLMENTS/PUMP-7", "pump-7"),
        ("/enrollments/query", "query"),
    ],
)
async def test_ways_to_write_a_path(site: Site, path: str, registration_id: str) -> None:
    body = individual(certificate(), registrationId=registration_id)
    assert (await site.call("PUT", path, body)).status == 200
    assert (await site.call("GET", path)).json()["registrationId"] == registration_id


async def test_an_escaped_slash_is_part_of_the_id(site: Site) -> None:
    refused(await site.call("GET", "/enrollments/a%2Fattestationmechanism"), 404, 404201, "a/attestation")
    refused(await site.call("GET", "/enrollments/%ff"), 400, 400000, "UTF-8")
    refused(await site.call("GET", "/enrollments/a%252Fb"), 404, 404201, "a%2Fb")


async def test_attestation_mechanism(site: Site) -> None:
    leaf = certificate()
    put = await site.put(leaf)
    answer = await site.call(
        "POST", "/enrollments/pump-7/AttestationMechanism", b"", {"content-type": "application/json"}
    )
    assert answer.status == 200
    assert answer.json() == put.json()["attestation"]
    info = answer.json()["x509"]["clientCertificates"]["primary"]["info"]
    assert info == {
        "subjectName": "CN=pump-7",
        "sha1Thumbprint": leaf.sha1,
        "sha256Thumbprint": leaf.sha256,
        "issuerName": "CN=pump-7",
        "notBeforeUtc": "2024-05-01T10:20:30Z",
        "notAfterUtc": "2024-05-03T10:20:30Z",
        "serialNumber": leaf.serial,
        "version": 3,
    }
    refused(await site.call("POST", "/enrollments/nobody/attestationmechanism"), 404, 404201)


async def test_older_versions_see_what_they_know(site: Site) -> None:
    await site.put(certificate())
    old = await site.call("GET", "/enrollments/pump-7", query="api-version=2018-04-01")
    assert not {"reprovisionPolicy", "allocationPolicy", "iotHubs"} & set(old.json())
    preview = await site.call("GET", "/enrollments/pump-7", query="API-Version=2018-09-01-Preview")
    assert preview.json()["reprovisionPolicy"] == {"updateHubAssignment": True, "migrateDeviceData": True}


# --- Bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "api-version=", "api-version=latest", "api-version=2016-01-01"])
async def test_a_version_that_is_missing_or_unknown(site: Site, query: str) -> None:
    refused(await site.call("GET", "/enrollments/a", query=query), 400, 400000, "api-version", "20")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "JSON object"),
        (b"{", "not JSON"),
        (b"[]", "JSON object"),
        (b'"text"', "JSON object"),
        (b'{"registrationId": NaN}', "NaN"),
        (b"\xff\xfe", "not JSON"),
        (b'{"registrationId":"pump-7","deviceId":"\\ud800"}', "surrogate"),
        (b"[" * 50_000, "not JSON"),
        (b'{"registrationId":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"registrationId":"other"}', "other"),
        (b'{"attestation":{}}', "registrationId"),
        (b'{"registrationId":"pump-7"}', "attestation"),
    ],
)
async def test_bodies_that_are_refused(site: Site, body: bytes, words: str) -> None:
    refused(await site.call("PUT", "/enrollments/pump-7", body), 400, 400000, words)


async def test_a_certificate_that_is_none(site: Site) -> None:
    body = individual(certificate())
    body["attestation"]["x509"]["clientCertificates"]["primary"]["certificate"] = "not PEM"
    where = "attestation.x509.clientCertificates.primary.certificate"
    refused(await site.call("PUT", "/enrollments/pump-7", body), 400, 400000, where)


async def test_an_id_with_a_character_that_is_not_allowed(site: Site) -> None:
    body = individual(certificate(), registrationId="pump 7")
    refused(await site.call("PUT", "/enrollments/pump%207", body), 400, 400000, "letters")


async def test_a_body_that_is_too_long_is_refused_unread(site: Site) -> None:
    padded = json.dumps(individual(certificate())).encode() + b" " * 96 * 1024
    answer = await site.call("PUT", "/enrollments/pump-7", padded)
    refused(answer, 400, 400000, "98304")
    assert answer.headers["connection"] == "close"
    undeclared = await site.call("PUT", "/enrollments/pump-7", padded, {"content-length": ""})
    refused(undeclared, 400, 400000, "98304")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "application/json"},
        {"content-type": "Application/JSON; Charset=utf-8; odata=none"},
        {"content-type": "application/json", "content-encoding": "utf-8"},
        {"accept-language": "en", "x-ms-client-request-id": "1", "cache-control": "no-cache"},
    ],
)
async def test_headers_that_are_tolerated(site: Site, headers: dict[str, str]) -> None:
    assert (await site.put(certificate(), headers)).status == 200


async def test_a_media_type_that_is_not_json(site: Site) -> None:
    refused(await site.put(certificate(), {"content-type": "text/xml"}), 415, 415000, "application/json")
    assert (await site.call("GET", "/enrollments/x", headers={"content-type": "text/xml"})).status == 404


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PATCH", "POST"])
async def test_methods_that_a_path_does_not_have(site: Site, method: str) -> None:
    answer = await site.call(method, "/enrollments/pump-7")
    refused(answer, 405, 405000, "DELETE or GET or PUT")
    assert answer.headers["allow"] == "DELETE, GET, PUT"


@pytest.mark.parametrize(
    "path", ["/", "", "/nothing", "/enrollments/a/b", "/enrollments/a/b/c", "/registrations"]
)
async def test_paths_that_do_not_exist(site: Site, path: str) -> None:
    refused(await site.call("GET", path), 404, 404000)


async def test_attestation_and_allocation_that_come_later(site: Site) -> None:
    leaf = certificate()
    refused(await site.put(leaf, attestation={"type": "none"}), 501, 501000, "x509, symmetricKey")
    refused(await site.put(leaf, allocationPolicy="custom"), 400, 400000, "webhookUrl and apiVersion")
    refused(await site.call("GET", "/enrollments/pump-7"), 404, 404201)


async def test_an_error_nobody_foresaw(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(registration_id: str) -> None:
        raise RuntimeError("never shown to callers")

    monkeypatch.setattr(site.provisioner.enrollments, "get", fail)
    with caplog.at_level(logging.ERROR):
        answer = await site.call("GET", "/enrollments/pump-7")
    refused(answer, 500, 500000)
    assert b"never shown" not in answer.body
    assert caplog.records[-1].__dict__["tracking_id"] == TRACKING_ID


async def test_a_caller_that_leaves_in_the_middle_is_answered_nothing(site: Site) -> None:
    messages: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "method": "PUT", "raw_path": b"/enrollments/pump-7", "headers": []}
    await site.app(scope, receive, send)
    await site.app({"type": "lifespan"}, receive, send)


# --- Authorization ---------------------------------------------------------------------------------------


async def test_a_missing_token(site: Site) -> None:
    refused(await site.call("GET", "/enrollments/a", token=None), 401, 401000, "EnrollmentRead")
    [decision] = site.decisions.latest(5)
    assert (decision.tracking_id, decision.operation) == (TRACKING_ID, "GET enrollments")
    assert decision.subject == "a"


@pytest.mark.parametrize(
    "resource",
    [
        "dps.example.net",
        "DPS.example.net:8443",
        "https://dps.example.net",
        "dps.example.net/enrollments",
        "dps.example.net/enrollments/pump-7",
    ],
)
async def test_resources_that_a_token_may_name(site: Site, resource: str) -> None:
    await site.put(certificate())
    assert (await site.call("GET", "/enrollments/pump-7", token=site.token(resource))).status == 200


async def test_the_token_may_name_the_service_while_the_request_goes_through_another_host(site: Site) -> None:
    answer = await site.call("GET", "/enrollments/a", headers={"host": "proxy.example.net:8443"})
    assert answer.status == 404
    token = site.token("proxy.example.net")
    answer = await site.call("GET", "/enrollments/a", headers={"host": "proxy.example.net:8443"}, token=token)
    assert answer.status == 404


async def test_tokens_that_are_refused(site: Site) -> None:
    owner = site.owner
    late = make_token("dps.example.net", owner.primary_key, SECOND - 301, owner.name)
    foreign = make_token("dps.example.net", new_key(), SECOND + 60, owner.name)
    for token, word in (
        (late, "expired 301 seconds ago"),
        (foreign, "signature"),
        (make_token("dps.example.net", owner.primary_key, SECOND + 60, "nobody"), "nobody"),
        (make_token("dps.example.net", owner.primary_key, SECOND + 60), "skn"),
        (site.token("other.example.net"), "does not cover"),
        (site.token("dps.example.net/registrations"), "does not cover"),
        ("Bearer abc", "SharedAccessSignature"),
        ("SharedAccessSignature sr=a", "missing"),
    ):
        refused(await site.call("GET", "/enrollments/a", token=token), 401, 401000, word)


async def test_the_secondary_key_is_as_good(site: Site) -> None:
    token = make_token("dps.example.net", site.owner.secondary_key, SECOND + 60, site.owner.name)
    assert (await site.call("GET", "/enrollments/a", token=token)).status == 404


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("PUT", "/enrollments/a", "EnrollmentWrite"),
        ("DELETE", "/enrollments/a", "EnrollmentWrite"),
        ("POST", "/enrollments", "EnrollmentWrite"),
        ("PUT", "/enrollmentGroups/a", "EnrollmentWrite"),
        ("GET", "/registrations/a", "RegistrationStatusRead"),
        ("DELETE", "/registrations/a", "RegistrationStatusWrite"),
    ],
)
async def test_a_policy_without_the_right(site: Site, method: str, path: str, right: str) -> None:
    token = site.token(by=site.reader)
    refused(await site.call(method, path, b"{}", token=token), 401, 401000, right, "reader")


async def test_a_policy_that_may_only_read_reads(site: Site) -> None:
    await site.put(certificate())
    token = site.token(by=site.reader)
    for method, path in (
        ("GET", "/enrollments/pump-7"),
        ("POST", "/enrollments/query"),
        ("POST", "/enrollments/pump-7/attestationmechanism"),
    ):
        assert (await site.call(method, path, token=token)).status == 200


# --- Query -----------------------------------------------------------------------------------------------


async def fill(site: Site, count: int) -> None:
    leaf = certificate()
    for number in range(count):
        await site.put(leaf, registrationId=f"Device-{number:02}")


async def test_pages(site: Site) -> None:
    await fill(site, 5)
    seen: list[str] = []
    headers = {"x-ms-max-item-count": "2"}
    for left in (2, 1, 0):
        answer = await site.call(
            "POST", "/enrollments/query", {"query": "SELECT * FROM enrollments"}, headers
        )
        assert answer.status == 200
        assert answer.headers["x-ms-item-type"] == "enrollment"
        assert answer.headers["x-ms-max-item-count"] == "2"
        seen += [found["registrationId"] for found in answer.json()]
        assert ("x-ms-continuation" in answer.headers) == bool(left)
        headers["x-ms-continuation"] = answer.headers.get("x-ms-continuation", "")
    assert seen == [f"Device-{number:02}" for number in range(5)]


async def test_a_full_last_page_has_no_continuation(site: Site) -> None:
    await fill(site, 2)
    answer = await site.call("POST", "/enrollments/query", headers={"x-ms-max-item-count": "2"})
    assert len(answer.json()) == 2
    assert "x-ms-continuation" not in answer.headers
    empty = await site.call("POST", "/enrollments/QUERY/", headers={"x-ms-continuation": ""})
    assert len(empty.json()) == 2


async def test_deleting_between_pages_does_not_break_the_walk(site: Site) -> None:
    await fill(site, 4)
    first = await site.call("POST", "/enrollments/query", headers={"x-ms-max-item-count": "2"})
    for number in (0, 1, 2):
        await site.call("DELETE", f"/enrollments/device-{number:02}")
    second = await site.call(
        "POST", "/enrollments/query", headers={"x-ms-continuation": first.headers["x-ms-continuation"]}
    )
    assert [found["registrationId"] for found in second.json()] == ["Device-03"]


@pytest.mark.parametrize(
    "body",
    [
        None,
        b" ",
        {},
        {"query": None},
        {"query": ""},
        {"query": "*"},
        {"query": "select *"},
        {"query": " SELECT  *  FROM  enrollments "},
    ],
)
async def test_queries_for_everything(site: Site, body: object) -> None:
    answer = await site.call("POST", "/enrollments/query", body)
    assert (answer.status, answer.json()) == (200, [])


@pytest.mark.parametrize("query", ["SELECT registrationId", "SELECT * FROM enrollments WHERE 1=1", 7, "drop"])
async def test_queries_that_are_not_understood(site: Site, query: object) -> None:
    refused(await site.call("POST", "/enrollments/query", {"query": query}), 400, 400000, "SELECT *")


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ms-max-item-count": "0"},
        {"x-ms-max-item-count": "-1"},
        {"x-ms-max-item-count": "many"},
        {"x-ms-continuation": "!"},
        {"x-ms-continuation": base64.urlsafe_b64encode(b"\xff\xff").decode()},
    ],
)
async def test_paging_headers_that_are_refused(site: Site, headers: dict[str, str]) -> None:
    refused(await site.call("POST", "/enrollments/query", headers=headers), 400, 400000, next(iter(headers)))


async def test_a_page_is_never_larger_than_the_largest(site: Site) -> None:
    answer = await site.call("POST", "/enrollments/query", headers={"x-ms-max-item-count": "99999"})
    assert answer.headers["x-ms-max-item-count"] == "1000"


# --- Bulk and registration records -----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/enrollments", "/enrollments/"])
async def test_bulk(site: Site, path: str) -> None:
    leaf = certificate()
    bodies = [individual(leaf, registrationId=registration_id) for registration_id in ("a", "b")]
    created = await site.call("POST", path, {"mode": "create", "enrollments": bodies})
    assert (created.status, created.json()) == (200, {"isSuccessful": True, "errors": []})
    again = await site.call("POST", path, {"mode": "create", "enrollments": [bodies[0]]})
    assert again.status == 200
    [error] = again.json()["errors"]
    assert error["registrationId"] == "a"
    assert error["errorCode"] == 409001
    assert error["errorStatus"].startswith("Conflict: ")
    later = {"registrationId": "c", "attestation": {"type": "none"}}
    result = await site.call("POST", path, {"mode": "create", "enrollments": [later]})
    assert result.json()["errors"][0]["errorCode"] == 501000
    refused(await site.call("POST", path, {"mode": "create", "enrollments": bodies * 6}), 400, 400000, "10")
    refused(await site.call("POST", path, {"mode": "upsert", "enrollments": bodies}), 400, 400000, "update")


def group(group_id: str, **members: Any) -> dict[str, Any]:
    return {"enrollmentGroupId": group_id, "attestation": {"type": "symmetricKey"}, **members}


@pytest.mark.parametrize("path", ["/enrollmentGroups", "/enrollmentgroups/"])
async def test_bulk_of_groups(site: Site, path: str) -> None:
    async def run(mode: str, *groups: dict[str, Any]) -> dict[str, Any]:
        answer = await site.call("POST", path, {"mode": mode, "enrollmentGroups": groups})
        assert answer.status == 200, answer.body
        done: dict[str, Any] = answer.json()
        return done

    assert await run("create", group("a"), group("b")) == {"isSuccessful": True, "errors": []}
    [error] = (await run("create", group("A"), group("c")))["errors"]
    assert (error["enrollmentGroupId"], error["errorCode"]) == ("A", 409001)
    shown = (await site.call("GET", "/enrollmentGroups/b")).json()
    assert (await run("update", group("a", provisioningStatus="disabled")))["isSuccessful"]
    assert (await run("updateIfMatchETag", {**shown, "provisioningStatus": "disabled"}))["isSuccessful"]
    [stale] = (await run("updateIfMatchETag", shown))["errors"]
    assert stale["errorCode"] == 412001
    assert (await run("delete", {"enrollmentGroupId": "a"}, {"enrollmentGroupId": "c"}))["isSuccessful"]
    left = (await site.call("POST", "/enrollmentGroups/query")).json()
    assert [(each["enrollmentGroupId"], each["provisioningStatus"]) for each in left] == [("b", "disabled")]


async def test_queries_of_groups_and_of_registrations(site: Site) -> None:
    """C# throws without the type of the items or without an attestation in them, Java without the former [dps 16]."""
    for name in ("a", "b"):
        assert (await site.call("PUT", f"/enrollmentGroups/{name}", group(name))).status == 200
    await site.put(certificate())

    for path, kind in (("/enrollments", "enrollment"), ("/enrollmentGroups", "enrollmentGroup")):
        found = await site.call("POST", f"{path}/query", {"query": "SELECT * FROM enrollmentGroups"})
        assert found.headers["x-ms-item-type"] == kind
        assert all(each["attestation"]["type"] for each in found.json())
        assert len(found.json()) == {"enrollment": 1, "enrollmentGroup": 2}[kind]
    first = await site.call("POST", "/enrollmentGroups/query", headers={"x-ms-max-item-count": "1"})
    going_on = {"x-ms-continuation": first.headers["x-ms-continuation"]}
    rest = await site.call("POST", "/enrollmentGroups/query", headers=going_on)
    assert [each["enrollmentGroupId"] for each in (*first.json(), *rest.json())] == ["a", "b"]
    registrations = await site.call("POST", "/registrations/a/query")
    assert (registrations.status, registrations.json()) == (200, [])
    assert registrations.headers["x-ms-item-type"] == "deviceRegistration"
    refused(await site.call("POST", "/registrations/never/query"), 404, 404201)


async def test_registration_records(site: Site) -> None:
    leaf = certificate()
    await site.put(leaf)
    refused(await site.call("GET", "/registrations/pump-7"), 404, 404202)
    state = await site.register(leaf)
    again = await site.register(leaf)
    shown = (await site.call("GET", "/Registrations/PUMP-7")).json()
    assert shown["substatus"] == "reprovisionedToInitialAssignment"
    assert shown["etag"] == again.etag
    assert "x509" not in shown
    old = await site.call("GET", "/registrations/pump-7", query="api-version=2019-03-31")
    assert old.json()["substatus"] == "initialAssignment"
    stale = {"if-match": f'"{state.etag}"'}
    refused(await site.call("DELETE", "/registrations/pump-7", headers=stale), 412, 412001)
    current = {"if-match": shown["etag"]}
    assert (await site.call("DELETE", "/registrations/pump-7", headers=current)).status == 204
    refused(await site.call("DELETE", "/registrations/pump-7"), 404, 404202)


# --- Microsoft's own client ------------------------------------------------------------------------------


class IntoTheApp(requests.adapters.BaseAdapter):
    """Hands the requests of a thread to the ASGI application on its loop."""

    def __init__(self, app: HttpAdapter, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.app = app
        self.loop = loop

    def send(self, request: requests.PreparedRequest, *unused: Any, **options: Any) -> requests.Response:
        path, _, query = request.path_url.partition("?")
        content = request.body or b""
        assert isinstance(content, (str, bytes))
        scope = {
            "type": "http",
            "method": request.method,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [
                (name.lower().encode(), value.encode() if isinstance(value, str) else value)
                for name, value in request.headers.items()
            ]
            + [(b"host", b"dps.example.net")],
        }
        asked = ask(self.app, scope, content.encode() if isinstance(content, str) else content)
        answer = asyncio.run_coroutine_threadsafe(asked, self.loop).result(30)
        response = requests.Response()
        response.status_code, response.request, response.url = answer.status, request, request.url or ""
        response.headers.update(answer.headers)
        response._content = answer.body
        return response

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
async def client(site: Site) -> ProvisioningServiceClient:
    made = ProvisioningServiceClient.create_from_connection_string(
        f"HostName=dps.example.net;SharedAccessKeyName={site.owner.name};SharedAccessKey={site.owner.primary_key}"
    )
    adapter = IntoTheApp(site.app, asyncio.get_running_loop())

    def mount(session: requests.Session, *unused: Any, **options: Any) -> None:
        session.mount("https://", adapter)

    made._runtime_client.config.session_configuration_callback = mount
    return made


def sdk_enrollment(leaf: Certificate, registration_id: str = "pump-7") -> Any:
    return sdk.IndividualEnrollment.create(
        registration_id,
        sdk.AttestationMechanism.create_with_x509_client_certs(leaf.to_pem()),
        device_id="line4-robot7",
        initial_twin=sdk.InitialTwin.create(tags={"site": "north"}, desired_properties={"interval": 30}),
    )


async def test_the_sdk_creates_reads_updates_and_deletes(
    site: Site, client: ProvisioningServiceClient
) -> None:
    leaf = certificate()

    def story() -> None:
        made = client.create_or_update(sdk_enrollment(leaf))
        assert made.registration_id == "pump-7"
        assert made.device_id == "line4-robot7"
        assert made.provisioning_status == "enabled"
        assert made.initial_twin.tags == {"site": "north"}
        assert made.created_date_time_utc == NOW
        info = made.attestation.x509.client_certificates.primary.info
        assert info.sha256_thumbprint == leaf.sha256
        assert info.not_after_utc == NOW + timedelta(days=1)
        assert info.version == 3

        with pytest.raises(ProvisioningServiceError, match="409"):
            client.create_or_update(sdk_enrollment(leaf))
        made.provisioning_status = "disabled"
        updated = client.create_or_update(made)
        assert updated.provisioning_status == "disabled"
        assert updated.etag != made.etag
        with pytest.raises(ProvisioningServiceError, match="412"):
            client.create_or_update(made)

        mechanism = client.get_individual_enrollment_attestation_mechanism("pump-7")
        assert mechanism.type == "x509"
        assert mechanism.x509.client_certificates.primary.info.sha1_thumbprint == leaf.sha1
        client.delete(client.get_individual_enrollment("pump-7"))
        with pytest.raises(ProvisioningServiceError, match="404"):
            client.get_individual_enrollment("pump-7")

    await asyncio.to_thread(story)


async def test_the_sdk_reads_what_became_of_a_device(site: Site, client: ProvisioningServiceClient) -> None:
    leaf = certificate()
    await site.put(leaf)
    await site.register(leaf)

    def story() -> None:
        state = client.get_registration_state("pump-7")
        assert state.status == "assigned"
        assert state.substatus == "initialAssignment"
        assert state.assigned_hub == "hub-a.example.net"
        assert state.device_id == "pump-7"
        assert state.last_updated_date_time_utc == NOW
        assert client.get_individual_enrollment("pump-7").registration_state.etag == state.etag
        client.delete(state)
        with pytest.raises(ProvisioningServiceError, match="404"):
            client.get_registration_state("pump-7")

    await asyncio.to_thread(story)


async def test_the_sdk_runs_bulk_operations_and_pages_through_a_query(
    site: Site, client: ProvisioningServiceClient
) -> None:
    leaf = certificate()

    def story() -> None:
        wanted = [sdk_enrollment(leaf, f"d{number}") for number in range(5)]
        made = client.run_bulk_operation(sdk.BulkEnrollmentOperation(mode="create", enrollments=wanted))
        assert made.is_successful
        again = client.run_bulk_operation(sdk.BulkEnrollmentOperation(mode="create", enrollments=wanted[:1]))
        assert not again.is_successful
        assert (again.errors[0].registration_id, again.errors[0].error_code) == ("d0", 409001)
        query = client.create_individual_enrollment_query(QuerySpecification(query="*"), 2)
        pages = [[found.registration_id for found in page] for page in query]
        assert pages == [["d0", "d1"], ["d2", "d3"], ["d4"]]

    await asyncio.to_thread(story)


async def test_the_sdk_reads_the_error_body(site: Site, client: ProvisioningServiceClient) -> None:
    def story() -> None:
        with pytest.raises(ProvisioningServiceError) as caught:
            client.get_enrollment_group("plant")
        details = caught.value.cause.error
        assert details.error_code == 404201
        assert details.timestamp_utc == NOW
        assert "plant" in details.message

    await asyncio.to_thread(story)


async def test_its_paths_and_nobody_else_s(site: Site) -> None:
    handler = DpsHttp(site.provisioner)
    for mine in (("enrollments",), ("EnrollmentGroups", "x"), ("registrations", "x")):
        assert handler.matches(mine)
    for foreign in (
        (),
        ("0ne1", "registrations", "pump-7"),
        ("devices", "pump-7"),
        ("twins", "pump-7"),
        ("moorage", "v1"),
        ("statistics",),
    ):
        assert not handler.matches(foreign)
