"""Registration over AMQP, frame by frame, as each of Microsoft's device programs does it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest

from moorage.adapters.dps_amqp import MAX_IN_FLIGHT, MAX_LINKS
from moorage.credentials.sas import make_token, new_key
from moorage.credentials.x509 import Certificate
from moorage.errors import NotFound, Throttled, Unavailable
from moorage.provisioning.attestation import proof
from moorage.provisioning.throttle import RateLimits
from moorage.wire.amqp import (
    ACCEPTED,
    AmqpValue,
    ClientSasl,
    Data,
    DeliveryReceived,
    Int,
    Message,
    Outcome,
    Properties,
    Receiver,
    Rejected,
    Sender,
    Symbol,
    UInt,
    ULong,
)
from moorage.wire.amqp.events import DispositionReceived
from tests.support.amqp_peer import AmqpPeer, Refused
from tests.support.site import (
    ID_SCOPE,
    NEWEST,
    POLLED_OUT,
    Site,
    certificate,
    enroll_certificate,
    failed_checks,
)

Call = Callable[..., AmqpPeer]
PUMP = f"{ID_SCOPE}/registrations/pump-7"
VERSION: dict[str, Any] = {Symbol("com.microsoft:api-version"): "2019-03-31"}
REGISTER = {"iotdps-operation-type": "iotdps-register"}
AN_ID = "0c0f3f0e-6a1f-4c75-9d55-0a6e1a4b9b77"


class Links(NamedTuple):
    """A device's two links, and the way to ask over them."""

    peer: AmqpPeer
    requests: Sender
    answers: Receiver

    async def ask(
        self,
        asked: Mapping[str, Any],
        body: Data | AmqpValue | None = None,
        *,
        correlation_id: Any = None,
    ) -> Message:
        """The answer to a request that is accepted."""
        outcome = await self.send(asked, body, correlation_id=correlation_id)
        assert outcome == ACCEPTED
        (answer,) = await self.peer.messages(self.answers, 1)
        assert isinstance(answer.body, Data), "C and Node take nothing else [dps trap 18]"
        assert len(answer.body.sections) == 1
        return answer

    async def refused(self, asked: Mapping[str, Any], body: Data | AmqpValue | None = None) -> Refused:
        """Why a request is rejected; no message follows."""
        outcome = await self.send(asked, body)
        assert isinstance(outcome, Rejected)
        assert self.peer.waiting(self.answers) == []
        refusal = Refused(outcome.error)
        detail = json.loads(refusal.description)
        assert detail["trackingId"] == "ab" * 16
        assert not {"status", "operationId"} & set(detail)
        return refusal

    async def send(
        self, asked: Mapping[str, Any], body: Data | AmqpValue | None, *, correlation_id: Any = None
    ) -> Outcome | None:
        request = Message(
            properties=Properties(correlation_id=correlation_id),
            application_properties=asked,
            body=body,
        )
        self.requests.send(request.encode(), settled=False)
        told = await self.peer.find(DispositionReceived)
        assert told.state is not None
        return told.state  # type: ignore[return-value]

    async def operation(self) -> str:
        operation_id: str = content(await self.ask(REGISTER))["operationId"]
        return operation_id

    async def poll(self, operation_id: str, body: Data | AmqpValue | None = None) -> Message:
        return await self.ask(poll(operation_id), body)


def poll(operation_id: str) -> dict[str, Any]:
    return {
        "iotdps-operation-type": "iotdps-get-operationstatus",
        "iotdps-operation-id": operation_id,
    }


def content(answer: Message) -> Any:
    return json.loads(answer.payload)


async def attached(peer: AmqpPeer, address: str = PUMP, properties: Any = VERSION) -> Links:
    """The receiver first, as Node and C# do it [dps 9.2]."""
    answers = await peer.attach_receiver(address, properties=properties, credit=10)
    requests = await peer.attach_sender(address, properties=properties)
    await peer.may_send(requests)
    return Links(peer, requests, answers)


@pytest.fixture
async def leaf(site: Site) -> Certificate:
    """Enrolled as pump-7."""
    return await enroll_certificate(site, "pump-7")


@pytest.fixture
async def pump(call: Call, leaf: Certificate) -> Links:
    """A device with its certificate, that has come without SASL and attached its links."""
    peer = call(chain=[leaf.der])
    await peer.open()
    return await attached(peer)


async def enroll_key(site: Site, registration_id: str = "pump-7") -> str:
    key = new_key()
    keys = {"primaryKey": key, "secondaryKey": new_key()}
    document = {
        "registrationId": registration_id,
        "attestation": {"type": "symmetricKey", "symmetricKey": keys},
    }
    await site.provisioner.enrollments.put(document, if_match=None, api_version=NEWEST)
    return key


def token(site: Site, key: str, resource: str = PUMP, *, lifetime: int = 600) -> str:
    return make_token(resource, key, site.seconds + lifetime, "registration")


# --- Registration -------------------------------------------------------------------------------------------


async def test_register_and_poll(site: Site, pump: Links, leaf: Certificate) -> None:
    first = await pump.ask(REGISTER, Data.of(b'{"registrationId":"pump-7"}'), correlation_id=AN_ID)
    operation_id = content(first)["operationId"]
    assert content(first) == {"operationId": operation_id, "status": "assigning"}
    wait = (first.application_properties or {})["retry-after"]
    assert (wait, type(wait)) == (1, Int)

    polled = await pump.poll(operation_id, AmqpValue(""))

    assert "retry-after" not in (polled.application_properties or {})
    state = content(polled)["registrationState"]
    assert (content(polled)["status"], state["assignedHub"], state["deviceId"]) == (
        "assigned",
        "localhost",
        "pump-7",
    )
    assert (await site.identities.get("pump-7")).authentication.primary_thumbprint == leaf.sha256
    assert site.refusals() == []


@pytest.mark.parametrize("mechanism", ["EXTERNAL", "ANONYMOUS"])
async def test_a_certificate_counts_however_sasl_was_passed(
    call: Call, leaf: Certificate, mechanism: str
) -> None:
    peer = call(chain=[leaf.der], sasl=ClientSasl(mechanism, b""))
    await peer.open()
    await (await attached(peer)).operation()


@pytest.mark.parametrize(
    "address",
    [
        f"/{PUMP}",
        f"amqps://localhost/{PUMP}",
        f"amqps://localhost:5671/{PUMP}/",
        f"{ID_SCOPE.lower()}/Registrations/PUMP-7",
    ],
)
async def test_addresses_of_all_clients(call: Call, leaf: Certificate, address: str) -> None:
    """Bare from Node and C#, with a slash from Java, a whole URL from C [dps trap 21]."""
    peer = call(chain=[leaf.der])
    await peer.open()
    links = await attached(peer, address)
    answer = await links.poll(await links.operation())
    assert content(answer)["registrationState"]["registrationId"] == "pump-7"


async def test_the_two_links_may_spell_their_address_differently(call: Call, leaf: Certificate) -> None:
    peer = call(chain=[leaf.der])
    await peer.open()
    requests = await peer.attach_sender(f"amqps://localhost/{PUMP}", properties=VERSION)
    answers = await peer.attach_receiver(f"/{PUMP}", credit=10)
    await peer.may_send(requests)
    await Links(peer, requests, answers).operation()


@pytest.mark.parametrize(
    "correlation_id", [AN_ID, uuid.UUID(AN_ID), ULong(7), b"\x00\xff", "", None], ids=repr
)
async def test_a_correlation_id_comes_back_with_its_type(pump: Links, correlation_id: Any) -> None:
    """And none is made up: C and Java take the next message there is [dps trap 19]."""
    answer = await pump.ask(REGISTER, correlation_id=correlation_id)
    assert answer.properties is not None
    told = answer.properties.correlation_id
    assert (told, type(told)) == (correlation_id, type(correlation_id))


@pytest.mark.parametrize(
    "body",
    [
        None,
        Data.of(b""),
        Data.of(b" "),
        Data.of(b'{"payload":{"a":1}}'),
        Data((b'{"registrationId":', b'"PUMP-7"}')),
        AmqpValue(""),
        AmqpValue('{"registrationId":"pump-7"}'),
        AmqpValue(b"{}"),
        AmqpValue(None),
    ],
    ids=repr,
)
async def test_bodies_of_all_clients(pump: Links, body: Data | AmqpValue | None) -> None:
    answer = await pump.ask({**REGISTER, "iotdps-forceRegistration": False}, body)
    await pump.poll(content(answer)["operationId"], body)


async def test_a_device_looks_itself_up(pump: Links) -> None:
    """A constant of three clients that none of them sends [dps 9.3]."""
    asked = {"iotdps-operation-type": "iotdps-get-registration"}
    assert (await pump.refused(asked)).condition == "amqp:not-found"
    await pump.operation()
    assert content(await pump.ask(asked))["assignedHub"] == "localhost"


async def test_a_disabled_enrollment_is_an_outcome(site: Site, call: Call) -> None:
    peer = call(chain=[(await enroll_certificate(site, "pump-7", provisioningStatus="disabled")).der])
    await peer.open()
    links = await attached(peer)
    assert content(await links.poll(await links.operation()))["status"] == "disabled"


async def test_an_answer_waits_for_credit(call: Call, leaf: Certificate) -> None:
    peer = call(chain=[leaf.der])
    await peer.open()
    answers = await peer.attach_receiver(PUMP, properties=VERSION)
    requests = await peer.attach_sender(PUMP, properties=VERSION)
    await peer.may_send(requests)
    links = Links(peer, requests, answers)
    assert await links.send(REGISTER, None) == ACCEPTED
    assert peer.seen(DeliveryReceived) == []
    answers.flow(1)
    (answer,) = await peer.messages(answers, 1)
    assert content(answer)["status"] == "assigning"


# --- Keys ---------------------------------------------------------------------------------------------------


async def test_sasl_plain_with_a_device_s_token(site: Site, call: Call) -> None:
    key = await enroll_key(site)
    peer = call(
        sasl=ClientSasl.plain(PUMP, token(site, key)), hostname="global.azure-devices-provisioning.net"
    )
    await peer.open()
    links = await attached(peer)
    state = content(await links.poll(await links.operation()))["registrationState"]
    assert (state["deviceId"], "x509" in state) == ("pump-7", False)
    assert site.refusals() == []


async def test_a_bad_token_is_told_at_register(site: Site, call: Call) -> None:
    """Of a refusal in SASL's outcome Node makes "not connected"; a rejection says why, in JSON too."""
    key = await enroll_key(site)
    await enroll_certificate(site, "valve")
    cases = [
        (PUMP, token(site, new_key()), "signature"),
        (PUMP, token(site, key, lifetime=-600), "expiry"),
        (PUMP, token(site, key, f"{ID_SCOPE}/registrations/other"), "audience"),
        (PUMP, "rubbish", "token form"),
        (f"{ID_SCOPE}/registrations/nobody", token(site, key), proof.ENROLLED),
        (f"{ID_SCOPE}/registrations/valve", token(site, key), proof.PRESENTED),
        ("0ne00000000/registrations/pump-7", token(site, key), proof.ID_SCOPE),
    ]
    for user, password, check in cases:
        before = len(site.refusals())
        peer = call(sasl=ClientSasl.plain(user, password))
        await peer.open()
        links = await attached(peer, user)
        for asked in (REGISTER, {"iotdps-operation-type": "iotdps-get-operationstatus"}):
            refusal = await links.refused(asked)
            assert refusal.condition == "amqp:unauthorized-access"
            assert json.loads(refusal.description)["errorCode"] // 1000 == 401
        decision, poll = site.refusals()[before:]
        assert (decision.operation, poll.operation) == ("register", "poll")
        assert (decision.door, decision.tracking_id) == ("amqp", "ab" * 16)
        assert decision.subject == user.rpartition("/")[2]
        assert check in failed_checks(decision)


async def test_a_token_speaks_for_one_registration_id(site: Site, call: Call) -> None:
    """Whatever links are opened behind it."""
    key, _ = await enroll_key(site), await enroll_key(site, "valve")
    peer = call(sasl=ClientSasl.plain(PUMP, token(site, key)))
    await peer.open()
    links = await attached(peer, f"{ID_SCOPE}/registrations/valve")
    assert (await links.refused(REGISTER)).condition == "amqp:unauthorized-access"
    with pytest.raises(NotFound):
        await site.provisioner.registration("valve")


async def test_a_key_that_is_changed_meanwhile_counts_no_longer(site: Site, call: Call) -> None:
    key = await enroll_key(site)
    peer = call(sasl=ClientSasl.plain(PUMP, token(site, key)))
    await peer.open()
    links = await attached(peer)
    await site.provisioner.enrollments.delete("pump-7")
    await enroll_key(site)
    assert (await links.refused(REGISTER)).condition == "amqp:unauthorized-access"


# --- Refusals -----------------------------------------------------------------------------------------------


async def test_bad_certificates_are_told_at_register(site: Site, call: Call, leaf: Certificate) -> None:
    cases = [
        (None, PUMP, proof.PRESENTED),
        (certificate("pump-7"), PUMP, proof.MATCHES),
        (leaf, f"{ID_SCOPE}/registrations/nobody", proof.ENROLLED),
        (leaf, "0ne00000000/registrations/pump-7", proof.ID_SCOPE),
    ]
    for shown, address, check in cases:
        before = len(site.refusals())
        peer = call(chain=[shown.der] if shown else [])
        await peer.open()
        refusal = await (await attached(peer, address)).refused(REGISTER)
        assert refusal.condition == "amqp:unauthorized-access"
        assert json.loads(refusal.description)["errorCode"] == 401002
        assert not refusal.info
        (decision,) = site.refusals()[before:]
        assert (decision.operation, failed_checks(decision)) == ("register", [check])


@pytest.mark.parametrize(
    ("asked", "body", "condition", "code"),
    [
        (poll("5.0.0"), None, "amqp:not-found", 404203),
        (poll(""), None, "amqp:not-found", 404203),
        ({"iotdps-operation-type": "iotdps-get-operationstatus"}, None, "amqp:not-found", 404203),
        (REGISTER, Data.of(b"{"), "com.microsoft:argument-error", 400000),
        (REGISTER, AmqpValue(UInt(7)), "com.microsoft:argument-error", 400000),
        (REGISTER, Data.of(b'{"registrationId":"pump-8"}'), "com.microsoft:argument-error", 400000),
        (REGISTER, Data.of(b'{"csr":"AAAA"}'), "com.microsoft:argument-error", 400000),
        ({"iotdps-operation-type": "iotdps-reboot"}, None, "com.microsoft:argument-error", 400000),
        ({}, None, "com.microsoft:argument-error", 400000),
    ],
)
async def test_requests_that_are_refused(
    site: Site, pump: Links, asked: dict[str, Any], body: Any, condition: str, code: int
) -> None:
    refusal = await pump.refused(asked, body)
    assert (refusal.condition, json.loads(refusal.description)["errorCode"]) == (condition, code)
    assert site.refusal().subject == "pump-7"
    await pump.operation()


async def test_an_api_version_has_to_be_told_on_one_of_the_links(
    site: Site, call: Call, leaf: Certificate
) -> None:
    peer = call(chain=[leaf.der])
    await peer.open()
    links = await attached(peer, properties=None)
    assert "api-version" in json.loads((await links.refused(REGISTER)).description)["message"]
    assert failed_checks(site.refusal()) == ["api-version"]


async def test_a_request_without_a_link_for_its_answer(site: Site, call: Call, leaf: Certificate) -> None:
    peer = call(chain=[leaf.der])
    await peer.open()
    answers = await peer.attach_receiver(f"{ID_SCOPE}/registrations/other", properties=VERSION, credit=1)
    requests = await peer.attach_sender(PUMP, properties=VERSION)
    await peer.may_send(requests)
    refusal = await Links(peer, requests, answers).refused(REGISTER)
    assert "receiver" in refusal.description
    with pytest.raises(NotFound):
        await site.provisioner.registration("pump-7")


async def test_when_to_try_again_is_told_to_node_and_to_c_sharp(
    site: Site, pump: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one reads `retry-after`, the other `Retry-After`; both ask again after these conditions alone."""
    cases = [
        (Throttled("too many", retry_after=7), "com.microsoft:device-container-throttled", 7),
        (Unavailable("the disk is slow"), "amqp:internal-error", 2),
    ]
    for error, condition, wait in cases:

        async def fail(*asked: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(site.provisioner, "register", fail)
        refusal = await pump.refused(REGISTER)
        assert refusal.condition == condition
        assert refusal.info == {"retry-after": wait, "Retry-After": wait}


@pytest.mark.parametrize("limits", [POLLED_OUT])
async def test_too_many_polls(site: Site, pump: Links, limits: RateLimits) -> None:
    operation_id = await pump.operation()
    await pump.poll(operation_id)
    refusal = await pump.refused(poll(operation_id))
    assert refusal.condition == "com.microsoft:device-container-throttled"
    assert refusal.info == {"retry-after": 10, "Retry-After": 10}
    assert json.loads(refusal.description)["errorCode"] == 429001


async def test_more_links_than_a_device_needs(site: Site, call: Call, leaf: Certificate) -> None:
    peer = call(chain=[leaf.der])
    await peer.open()
    for number in range(MAX_LINKS):
        await peer.attach_sender(f"{ID_SCOPE}/registrations/pump-{number}")
    with pytest.raises(Refused, match="no more than"):
        await peer.attach_sender(PUMP)
    assert site.refusal().subject == "pump-7"


async def test_more_requests_than_a_device_can_have(pump: Links) -> None:
    assert pump.requests.sendable == MAX_IN_FLIGHT
    message = Message(application_properties=REGISTER).encode()
    pump.requests.send_many([message] * MAX_IN_FLIGHT, settled=True)
    assert len(await pump.peer.messages(pump.answers, MAX_IN_FLIGHT)) == MAX_IN_FLIGHT
