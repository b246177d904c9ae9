"""CA certificates: uploaded, proven to be held, replaced, deleted."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from moorage.credentials.ca_certificate import KIND
from moorage.credentials.ca_certificates import MAX_CA_CERTIFICATES, CaCertificates
from moorage.credentials.etag import Condition
from moorage.errors import Conflict, Invalid, NotFound, PreconditionFailed, TooLarge
from moorage.interfaces import Clock, Store
from moorage.store.sqlite import SqliteStore
from tests.support.authorities import root

ROOT = root("plant root")
OTHER = root("plant root", number=1)
ANY = Condition("*")


MORNING = datetime(2026, 3, 2, 8, 15, 30, tzinfo=UTC)


class SetClock:
    def __init__(self) -> None:
        self.time = MORNING

    def now(self) -> int:
        return round(self.time.timestamp() * 1_000_000)

    def monotonic(self) -> float:
        return self.time.timestamp()


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def after(clock: SetClock) -> Callable[[timedelta], None]:
    """Let time pass."""

    def pass_by(span: timedelta) -> None:
        clock.time += span

    return pass_by


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    records = SqliteStore.open(None, kinds=[KIND])
    yield records
    await records.close()


@pytest.fixture
def authorities(store: Store, clock: Clock) -> CaCertificates:
    return CaCertificates(store, 1, clock)


async def test_an_upload_is_not_verified(authorities: CaCertificates, clock: Clock) -> None:
    uploaded = await authorities.upload("Plant-Root", ROOT.pem, condition=None)
    assert (uploaded.name, uploaded.subject, uploaded.sha1) == (
        "Plant-Root",
        "CN=plant root",
        ROOT.certificate.sha1,
    )
    assert (uploaded.is_verified, uploaded.created, uploaded.updated) == (False, clock.now(), clock.now())
    assert uploaded.certificate == ROOT.certificate
    assert await authorities.get("plant-ROOT") == uploaded
    assert await authorities.all() == [uploaded]


async def test_each_service_and_each_hub_has_its_own(
    authorities: CaCertificates, store: Store, clock: Clock
) -> None:
    await authorities.upload("root", ROOT.pem, condition=None)
    elsewhere = CaCertificates(store, 2, clock)
    assert await elsewhere.all() == []
    await elsewhere.upload("root", OTHER.pem, condition=None)
    assert (await authorities.get("root")).certificate == ROOT.certificate


async def test_each_form_of_a_certificate_is_taken(authorities: CaCertificates) -> None:
    forms: tuple[str | bytes, ...] = (
        ROOT.der,
        ROOT.pem,
        pkcs7.serialize_certificates([ROOT.certificate.parsed], Encoding.DER),
        pkcs7.serialize_certificates([ROOT.certificate.parsed], Encoding.PEM).decode(),
    )
    for number, form in enumerate(forms):
        uploaded = await authorities.upload(f"ca-{number}", form, condition=None)
        assert uploaded.certificate == ROOT.certificate


async def test_possession_is_proven_by_a_certificate_named_after_the_code(
    authorities: CaCertificates, after: Callable[[timedelta], None]
) -> None:
    await authorities.upload("root", ROOT.pem, condition=None)
    asked = await authorities.generate_verification_code("root", condition=ANY)
    code = asked.verification_code
    assert code is not None
    assert re.fullmatch("[0-9A-F]{48}", code)
    after(timedelta(minutes=1))

    verified = await authorities.verify("root", ROOT.issue(code).pem, condition=Condition(asked.etag))

    assert verified.is_verified
    assert verified.verification_code is None
    assert verified.etag != asked.etag
    assert verified.updated > verified.created
    assert await authorities.get("root") == verified
    with pytest.raises(Invalid, match="generate one first"):
        await authorities.verify("root", ROOT.issue(code).pem, condition=None)


async def test_what_proves_nothing_is_told_why(authorities: CaCertificates) -> None:
    await authorities.upload("root", ROOT.pem, condition=None)
    code = (await authorities.generate_verification_code("root", condition=None)).verification_code or ""
    proofs = {
        "not the verification code": ROOT.issue("another name"),
        "is issued by": root("elsewhere").issue(code),
        "not signed by the key": OTHER.issue(code),
        "it is valid from": ROOT.issue(code, end=ROOT.certificate.parsed.not_valid_before_utc + timedelta(1)),
    }
    for why, proof in proofs.items():
        with pytest.raises(Invalid, match=why):
            await authorities.verify("root", proof.pem, condition=None)
    with pytest.raises(Invalid, match="neither PEM nor DER"):
        await authorities.verify("root", "proof", condition=None)
    assert not (await authorities.get("root")).is_verified


async def test_a_new_code_takes_the_place_of_the_old(authorities: CaCertificates) -> None:
    await authorities.upload("root", ROOT.pem, condition=None)
    first = (await authorities.generate_verification_code("root", condition=None)).verification_code or ""
    await authorities.generate_verification_code("root", condition=None)
    with pytest.raises(Invalid, match="not the verification code"):
        await authorities.verify("root", ROOT.issue(first).pem, condition=None)


async def test_an_upload_that_is_declared_verified_is(authorities: CaCertificates) -> None:
    uploaded = await authorities.upload("root", ROOT.pem, is_verified=True, condition=None)
    assert uploaded.is_verified
    asked = await authorities.generate_verification_code("root", condition=None)
    assert asked.is_verified


async def test_uploading_again_starts_verification_over(
    authorities: CaCertificates, after: Callable[[timedelta], None]
) -> None:
    first = await authorities.upload("Root", ROOT.pem, is_verified=True, condition=None)
    after(timedelta(days=1))
    again = await authorities.upload("root", OTHER.pem, condition=Condition(first.etag))
    assert not again.is_verified
    assert again.name == "Root"
    assert again.created == first.created
    assert again.updated > first.updated
    assert again.certificate == OTHER.certificate


async def test_writes_are_conditional(authorities: CaCertificates) -> None:
    stale = Condition("another")
    for condition in (None, ANY):
        await authorities.upload(f"root-{condition is None}", ROOT.pem, condition=condition)
    with pytest.raises(Conflict):
        await authorities.upload("root-true", ROOT.pem, condition=None)
    with pytest.raises(PreconditionFailed):
        await authorities.upload("root-true", ROOT.pem, condition=stale)
    with pytest.raises(PreconditionFailed):
        await authorities.upload("new", ROOT.pem, condition=stale)
    with pytest.raises(PreconditionFailed):
        await authorities.generate_verification_code("root-true", condition=stale)
    with pytest.raises(PreconditionFailed):
        await authorities.delete("root-true", condition=stale)
    await authorities.delete("root-true", condition=ANY)
    await authorities.delete("root-false", condition=None)
    assert await authorities.all() == []


async def test_what_is_not_there_is_not_found(authorities: CaCertificates) -> None:
    for attempt in (
        authorities.get("root"),
        authorities.delete("root", condition=None),
        authorities.generate_verification_code("root", condition=None),
        authorities.verify("root", ROOT.pem, condition=None),
    ):
        with pytest.raises(NotFound):
            await attempt


@pytest.mark.parametrize("name", ["", "a" * 65, "a b", "a/b", "ä"])
async def test_names_are_those_of_azure(authorities: CaCertificates, name: str) -> None:
    with pytest.raises(Invalid) as refusal:
        await authorities.upload(name, ROOT.pem, condition=None)
    assert refusal.value.field == "name"


async def test_there_are_25_at_the_most(authorities: CaCertificates) -> None:
    for number in range(MAX_CA_CERTIFICATES):
        await authorities.upload(f"ca-{number}", ROOT.pem, condition=None)
    with pytest.raises(TooLarge):
        await authorities.upload("one-more", ROOT.pem, condition=None)
    await authorities.upload("ca-1", ROOT.pem, condition=ANY)
    assert len(await authorities.all()) == MAX_CA_CERTIFICATES
