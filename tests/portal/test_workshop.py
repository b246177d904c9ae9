"""Certificates that the portal makes."""

from __future__ import annotations

import io
import zipfile

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.support.visitor import Visitor

ROOT = "/make-certificate"


async def make(visitor: Visitor, **fields: str) -> zipfile.ZipFile:
    page = await visitor.get(ROOT)
    made = await visitor.send(page, ROOT, fields)
    assert made.status == 200, made.text
    assert made.headers["content-type"] == "application/zip"
    return zipfile.ZipFile(io.BytesIO(made.content))


@pytest.mark.parametrize("key_type", ["ec", "rsa"])
async def test_a_device(visitor: Visitor, key_type: str) -> None:
    archive = await make(visitor, kind="device", name="Python-device-01", keyType=key_type)
    certificate = x509.load_pem_x509_certificate(archive.read("Python-device-01.pem"))
    key = load_pem_private_key(archive.read("Python-device-01.key.pem"), None)
    assert certificate.subject.rfc4514_string() == "CN=Python-device-01"
    assert certificate.public_key() == key.public_key()
    assert {"README.txt", "Python-device-01.pfx", "Python-device-01.fullchain.pem"} < set(archive.namelist())


async def test_a_root_and_devices_below_it(visitor: Visitor) -> None:
    archive = await make(visitor, kind="group", name="my root", devices="pump-1\npump-2\n")
    root = x509.load_pem_x509_certificate(archive.read("my_root.pem"))
    for name in ("pump-1", "pump-2"):
        device, above = x509.load_pem_x509_certificates(archive.read(f"{name}.fullchain.pem"))
        assert above == root
        device.verify_directly_issued_by(root)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "pump", "days": "0"}, "days"),
        ({"name": "pump", "days": "many"}, "days"),
        ({"name": "pump", "kind": "else"}, "kind"),
        ({"name": "pump", "kind": "group", "devices": ""}, "devices"),
        ({"name": "pump", "kind": "group", "devices": "a " * 101}, "devices"),
    ],
)
async def test_what_is_wrong_stands_at_its_field(
    visitor: Visitor, fields: dict[str, str | list[str] | None], problem: str
) -> None:
    page = await visitor.get(ROOT)
    refused = await visitor.send(page, ROOT, fields)
    assert refused.status == 400
    assert f'id="problem-{problem}"' in refused.html
