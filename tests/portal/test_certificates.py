"""CA certificates in the portal, of the provisioning service and of a hub."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from moorage.credentials.issuing import common_name
from moorage.credentials.keys import key_pem
from moorage.credentials.workshop.credential import Credential, Wish, make_proof, make_root, pem
from tests.support.visitor import PageSeen, Visitor

ROOTS = pytest.mark.parametrize("root", ["/certificates", "/hubs/hub/certificates"])


@pytest.fixture(scope="module")
def authority() -> Credential:
    return make_root(Wish(common_name("my-root"), datetime.now(UTC), 30))


def file_of(credential: Credential) -> dict[str, tuple[str, bytes]]:
    return {"file": ("root.pem", pem([credential.certificate]))}


async def upload(visitor: Visitor, root: str, authority: Credential, **fields: str) -> PageSeen:
    page = await visitor.get(root)
    return await visitor.send(page, root, {"name": "my.root", **fields}, files=file_of(authority))


@ROOTS
async def test_without_one_the_page_teaches(visitor: Visitor, root: str) -> None:
    page = await visitor.get(root)
    assert "moorage cert root" in page.text
    assert "/make-certificate" in page.html


@ROOTS
async def test_a_certificate_is_uploaded_proven_downloaded_and_deleted(
    visitor: Visitor, root: str, authority: Credential
) -> None:
    shown = await upload(visitor, root, authority)
    assert shown.title == "my.root"
    assert "Unverified" in shown.text
    one = f"{root}/my.root"
    coded = await visitor.send(shown, f"{one}/code")
    (code,) = re.findall(r"--code ([0-9A-F]+)", coded.text)
    proof = make_proof(code, authority, datetime.now(UTC))
    proven = await visitor.send(coded, f"{one}/verify", files=file_of(proof))
    assert "is verified." in proven.text
    assert "Proof of possession" not in proven.text
    assert "Verified" in (await visitor.get(root)).text
    downloaded = await visitor.get(f"{one}/download")
    assert downloaded.html.encode() == pem([authority.certificate])
    assert "my.root.pem" in downloaded.headers["content-disposition"]
    asked = await visitor.send(proven, f"{one}/delete")
    gone = await visitor.send(asked, f"{one}/delete")
    assert "The certificate my.root was deleted." in gone.text
    assert (await visitor.get(one)).status == 404


@ROOTS
async def test_it_may_be_declared_verified(visitor: Visitor, root: str, authority: Credential) -> None:
    shown = await upload(visitor, root, authority, isVerified="on")
    assert "Verified" in shown.text
    assert "Proof of possession" not in shown.text


@ROOTS
async def test_a_proof_of_another_key_is_refused(visitor: Visitor, root: str, authority: Credential) -> None:
    shown = await upload(visitor, root, authority)
    one = f"{root}/my.root"
    coded = await visitor.send(shown, f"{one}/code")
    (code,) = re.findall(r"--code ([0-9A-F]+)", coded.text)
    other = make_root(Wish(common_name("other-root"), datetime.now(UTC), 30))
    refused = await visitor.send(
        coded, f"{one}/verify", files=file_of(make_proof(code, other, datetime.now(UTC)))
    )
    assert refused.status == 400
    assert 'id="problem-file"' in refused.html
    assert "Unverified" in refused.text


@ROOTS
async def test_what_is_wrong_stands_at_its_field(visitor: Visitor, root: str, authority: Credential) -> None:
    page = await visitor.get(root)
    for fields, files, field in (
        ({"name": ""}, file_of(authority), "name"),
        ({"name": "x"}, {"file": ("", b"")}, "file"),
        ({"name": "x"}, {"file": ("a.pem", b"no certificate")}, "file"),
        ({"name": "x"}, {"file": ("a.pem", b"")}, "file"),
        ({"name": "x"}, {"file": ("key.pem", key_pem(authority.key))}, "file"),
    ):
        refused = await visitor.send(page, root, fields, files=files)
        assert refused.status == 400, fields
        assert f'id="problem-{field}"' in refused.html
    await upload(visitor, root, authority)
    taken = await upload(visitor, root, authority)
    assert taken.status in (400, 409)
    assert 'value="my.root"' in taken.html


async def test_a_private_key_is_kept_nowhere(visitor: Visitor, authority: Credential) -> None:
    secret = key_pem(authority.key)
    page = await visitor.get("/certificates")
    refused = await visitor.send(page, "/certificates", {"name": "x"}, files={"file": ("k.pem", secret)})
    assert "private key" in refused.text
    assert secret.decode().splitlines()[1] not in refused.html
