"""Who may connect: each way of proof, each way to fail, and what is told of it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moorage.credentials import policy as policies
from moorage.credentials.decision import Finding
from moorage.credentials.policy import SharedAccessPolicy, hub_policies
from moorage.credentials.sas import make_token, new_key
from moorage.credentials.x509 import read_certificate
from moorage.errors import Disabled, MoorageError, NotFound, Unauthorized
from moorage.hub.admission import Admission
from moorage.hub.authentication import Authentication
from moorage.hub.device_identity import DISABLED, IdentitySettings
from moorage.hub.identity import Identities
from moorage.hub.instance import Hub
from moorage.hub.module_identity import ModuleSettings
from moorage.hub.session import Principal, Sessions
from moorage.interfaces import Clock, Store

CERTIFICATES = Path(__file__).parents[1] / "credentials" / "openssl"
LEAF = read_certificate((CERTIFICATES / "p256.crt").read_text())
OTHER = read_certificate((CERTIFICATES / "ed25519.crt").read_text())
KEYS = Authentication.symmetric()
PRIMARY, SECONDARY = (key or "" for key in KEYS.keys)
POLICIES = {policy.name: policy for policy in hub_policies()}


async def register(
    identities: Identities,
    authentication: Authentication = KEYS,
    device_id: str = "d1",
    status: str = "enabled",
) -> str:
    """A device; its generation id."""
    settings = IdentitySettings(device_id=device_id, authentication=authentication, status=status)
    return (await identities.create(settings)).generation_id


@pytest.fixture
async def owners(store: Store, hub: Hub) -> None:
    """The hub's policies are kept."""
    for policy in POLICIES.values():
        await store.records(policies.KIND, hub.scope).put(policy)


def seconds(clock: Clock, later: int = 3600) -> int:
    return clock.now() // 1_000_000 + later


async def refused(identities: Identities, error: type[MoorageError], **arguments: Any) -> Finding:
    """What was found while the device was turned away."""
    finding = Finding("connect", "d1")
    arguments = {"password": None, "finding": finding} | arguments
    with pytest.raises(error) as raised:
        await identities.authenticate("d1", **arguments)
    assert finding.refused(1, raised.value).remedy
    return finding


async def failed_check(identities: Identities, **arguments: Any) -> str:
    finding = Finding("connect", "d1")
    with pytest.raises(Unauthorized) as raised:
        await identities.authenticate("d1", finding=finding, **({"password": None} | arguments))
    (failed,) = [check for check in finding.refused(1, raised.value).checks if not check.held]
    assert finding.known
    return failed.name


# --- By key ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [PRIMARY, SECONDARY], ids=["primary", "secondary"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "LocalHost"])
@pytest.mark.parametrize("encode", [True, False])
async def test_either_key_proves_a_device(
    identities: Identities, clock: Clock, key: str, host: str, encode: bool
) -> None:
    generation = await register(identities)
    expiry = seconds(clock)
    token = make_token(f"{host}/devices/d1", key, expiry, encode=encode)
    principal = await identities.authenticate("d1", password=token)
    assert principal == Principal("d1", generation, "device", "sas", expiry * 1_000_000)


@pytest.mark.parametrize("resource", ["localhost", "localhost/devices"])
async def test_a_token_for_a_parent_serves(identities: Identities, clock: Clock, resource: str) -> None:
    await register(identities)
    await identities.authenticate("d1", password=make_token(resource, PRIMARY, seconds(clock)))


async def test_ids_are_compared_with_their_case_and_escapes(identities: Identities, clock: Clock) -> None:
    device_id = "Dev%41+#1"
    await register(identities, device_id=device_id)
    token = make_token(f"localhost/devices/{device_id}", PRIMARY, seconds(clock))
    assert (await identities.authenticate(device_id, password=token)).device_id == device_id
    await register(identities)
    assert (
        await failed_check(identities, password=make_token("localhost/devices/D1", PRIMARY, 2**40))
        == "audience"
    )


async def test_the_audience_may_be_narrowed(identities: Identities, clock: Clock) -> None:
    await register(identities)
    token = make_token("localhost/devices/d1", PRIMARY, seconds(clock))
    assert await failed_check(identities, password=token, audience_hosts=["hub.example"]) == "audience"


async def test_each_refusal_of_a_token_names_its_check(identities: Identities, clock: Clock) -> None:
    await register(identities)
    later = seconds(clock)
    resource = "localhost/devices/d1"
    assert await failed_check(identities, password="secret") == "token form"
    assert await failed_check(identities, password=make_token(resource, new_key(), later)) == "signature"
    assert (
        await failed_check(identities, password=make_token("localhost/devices/d2", PRIMARY, later))
        == "audience"
    )
    assert await failed_check(identities, password=make_token("elsewhere", PRIMARY, later)) == "audience"
    modules = make_token(f"{resource}/modules/m", PRIMARY, later)
    assert await failed_check(identities, password=modules) == "audience"
    assert await failed_check(identities, password=None) == "kind of proof"
    assert await failed_check(identities, password="") == "kind of proof"
    assert await failed_check(identities, password=None, chain=[LEAF.der]) == "kind of proof"


async def test_a_token_opens_a_connection_a_little_past_its_expiry(
    hub: Hub,
    store: Store,
    identities: Identities,
    sessions: Sessions,
    clock: Clock,
    advance: Callable[[float], None],
) -> None:
    await register(identities)
    token = make_token("localhost/devices/d1", PRIMARY, seconds(clock, 0))
    advance(299)
    await identities.authenticate("d1", password=token)
    strict = Identities(hub, store, clock, sessions, connect_skew=10)
    assert await failed_check(strict, password=token) == "expiry"
    advance(1)
    assert await failed_check(identities, password=token) == "expiry"


async def test_a_device_with_keys_may_present_a_certificate_beside_its_token(
    identities: Identities, clock: Clock
) -> None:
    await register(identities)
    token = make_token("localhost/devices/d1", PRIMARY, seconds(clock))
    principal = await identities.authenticate("d1", password=token, chain=[LEAF.der])
    assert principal.auth_type == "sas"


# --- By policy -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("owners")
@pytest.mark.parametrize("name", ["device", "iothubowner"])
@pytest.mark.parametrize("resource", ["localhost", "localhost/devices", "localhost/devices/d1"])
async def test_a_policy_that_may_connect_proves_any_device(
    identities: Identities, clock: Clock, name: str, resource: str
) -> None:
    generation = await register(identities)
    expiry = seconds(clock)
    for key in POLICIES[name].keys:
        principal = await identities.authenticate("d1", password=make_token(resource, key, expiry, name))
        assert principal == Principal("d1", generation, "hub", "sas", expiry * 1_000_000)


@pytest.mark.usefixtures("owners")
async def test_each_refusal_of_a_policy_names_its_check(identities: Identities, clock: Clock) -> None:
    await register(identities)
    later = seconds(clock)
    device = POLICIES["device"].primary_key

    def token(policy: SharedAccessPolicy) -> str:
        return make_token("localhost/devices", policy.primary_key, later, policy.name)

    for name in ("service", "registryRead", "registryReadWrite"):
        assert await failed_check(identities, password=token(POLICIES[name])) == "right"
    named = make_token("localhost/devices/d1", device, later, "nobody")
    assert await failed_check(identities, password=named) == "policy known"
    # A device's key does not sign for a policy, nor a policy's key for a device.
    assert (
        await failed_check(identities, password=make_token("localhost", PRIMARY, later, "device"))
        == "signature"
    )
    assert await failed_check(identities, password=make_token("localhost", device, later)) == "signature"


# --- By certificate --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "thumbprints",
    [(LEAF.sha1, None), (LEAF.sha256, None), (OTHER.sha256, LEAF.sha1), (OTHER.sha1, LEAF.sha256.lower())],
)
async def test_a_registered_thumbprint_proves_a_device(
    identities: Identities, thumbprints: tuple[str | None, str | None], advance: Callable[[float], None]
) -> None:
    generation = await register(identities, Authentication.self_signed(*thumbprints))
    advance(100 * 365 * 86_400)  # its dates are no basis of this trust
    for password in (None, ""):
        principal = await identities.authenticate("d1", password=password, chain=[LEAF.der, b"unread"])
        assert principal == Principal("d1", generation, "device", "x509", None)


@pytest.mark.parametrize(
    ("chain", "check"),
    [([], "certificate present"), ([OTHER.der], "thumbprint"), ([OTHER.der, LEAF.der], "thumbprint")],
)
async def test_another_leaf_does_not(identities: Identities, chain: Sequence[bytes], check: str) -> None:
    await register(identities, Authentication.self_signed(LEAF.sha1, LEAF.sha256))
    assert await failed_check(identities, chain=chain) == check


@pytest.mark.usefixtures("owners")
async def test_a_device_with_a_certificate_is_refused_a_token(identities: Identities, clock: Clock) -> None:
    await register(identities, Authentication.self_signed(LEAF.sha256))
    for token in (
        make_token("localhost/devices/d1", PRIMARY, seconds(clock)),
        make_token("localhost/devices", POLICIES["device"].primary_key, seconds(clock), "device"),
    ):
        assert await failed_check(identities, password=token, chain=[LEAF.der]) == "kind of proof"


# --- Neither ---------------------------------------------------------------------------------------------


async def test_an_unknown_device(identities: Identities, clock: Clock) -> None:
    token = make_token("localhost/devices/d1", PRIMARY, seconds(clock))
    finding = await refused(identities, NotFound, password=token)
    assert not finding.known


async def test_a_device_with_no_way_to_authenticate(identities: Identities, clock: Clock) -> None:
    await register(identities, Authentication("none"))
    assert await failed_check(identities, chain=[LEAF.der]) == "kind of proof"
    token = make_token("localhost/devices/d1", PRIMARY, seconds(clock))
    assert await failed_check(identities, password=token) == "kind of proof"


@pytest.mark.usefixtures("owners")
async def test_a_hub_may_take_no_token_of_devices_or_of_modules(identities: Identities, clock: Clock) -> None:
    """Those of policies it takes all the same, and certificates."""
    await register(identities)
    await register(identities, Authentication.self_signed(LEAF.sha1), "x5")
    module = ModuleSettings(device_id="d1", module_id="m", authentication=KEYS)
    await identities.modules.create(module)
    of_device = make_token("localhost/devices/d1", PRIMARY, seconds(clock))
    of_module = make_token("localhost/devices/d1/modules/m", PRIMARY, seconds(clock))
    of_policy = make_token("localhost", POLICIES["device"].primary_key, seconds(clock), "device")

    async def check(device_id: str, module_id: str | None, token: str | None) -> str | None:
        finding = Finding("connect", "d1")
        try:
            await identities.authenticate(
                device_id, module_id=module_id, password=token, chain=[LEAF.der], finding=finding
            )
        except Unauthorized as error:
            return error.check
        return None

    identities.hub = replace(identities.hub, device_sas=False)
    assert await check("d1", None, of_device) == "SAS allowed"
    assert await check("d1", "m", of_module) is None
    identities.hub = replace(identities.hub, device_sas=True, module_sas=False)
    assert await check("d1", None, of_device) is None
    assert await check("d1", "m", of_module) == "SAS allowed"
    identities.hub = replace(identities.hub, device_sas=False)
    assert await check("d1", None, of_policy) is None
    assert await check("d1", "m", of_policy) is None
    assert await check("x5", None, None) is None


@pytest.mark.parametrize("authentication", [KEYS, Authentication.self_signed(LEAF.sha1)])
async def test_a_disabled_device_is_told_so_once_its_proof_holds(
    identities: Identities, clock: Clock, authentication: Authentication
) -> None:
    await register(identities, authentication, status=DISABLED)
    token = make_token("localhost/devices/d1", PRIMARY, seconds(clock))
    good: dict[str, Any] = {"password": token} if authentication is KEYS else {"chain": [LEAF.der]}
    bad: dict[str, Any] = (
        {"password": make_token("localhost", new_key(), 2**40)}
        if authentication is KEYS
        else {"chain": [OTHER.der]}
    )
    await refused(identities, Disabled, **good)
    await refused(identities, Unauthorized, **bad)


async def test_a_device_that_is_disabled_while_it_is_judged_does_not_slip_in(
    hub: Hub, store: Store, identities: Identities, sessions: Sessions, clock: Clock
) -> None:
    await register(identities)
    settings = IdentitySettings(device_id="d1", authentication=KEYS, status=DISABLED)

    class Interrupted(Admission):
        """Somebody disables the device between the look at its record and the answer."""

        async def _prove(self, *arguments: Any) -> Principal:
            principal = await super()._prove(*arguments)
            await identities.update(settings)
            return principal

    token = make_token("localhost/devices/d1", PRIMARY, seconds(clock))
    admission = Interrupted(lambda: hub, store, clock, sessions, connect_skew=0)
    with pytest.raises(Disabled):
        await admission.judge(
            "d1",
            None,
            password=token,
            chain=(),
            hosts=hub.host_names,
            finding=Finding("connect", "d1"),
        )


@pytest.mark.usefixtures("owners")
async def test_what_is_told_of_an_accepted_device(identities: Identities, clock: Clock) -> None:
    await register(identities)
    finding = Finding("connect", "d1")
    expiry = seconds(clock)
    token = make_token("localhost/devices", POLICIES["device"].primary_key, expiry, "device")
    await identities.authenticate("d1", password=token, finding=finding)
    told = finding.accepted(clock.now())
    assert told.known
    assert told.considered == ("device identity d1 (sas)", "shared access policy device")
    assert told.proof == {"token": {"resource": "localhost/devices", "expiry": expiry, "keyName": "device"}}
    assert {check.name for check in told.checks if check.held} == {
        "kind of proof",
        "signature",
        "expiry",
        "audience",
        "right",
        "enabled",
    }
