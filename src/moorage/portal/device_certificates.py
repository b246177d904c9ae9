"""Certificates of devices that prove themselves by thumbprint: a file in, its thumbprint out; the file is not kept."""

from __future__ import annotations

from moorage.credentials.x509 import read_certificate
from moorage.errors import Invalid
from moorage.portal.forms import Form, Upload
from moorage.portal.texts import Texts

MAX_FILE = 64 * 1024  # bytes


def read_thumbprint(form: Form, thumbprint: str, certificate: str, t: Texts) -> str:
    """What the field `thumbprint` says or, where a file was chosen in `certificate`, the SHA-256 of that.

    What is wrong with the file becomes the problem of its field.
    """
    upload = form.upload(certificate)
    if upload is None:
        return "".join(form.text(thumbprint).replace(":", " ").split())
    try:
        return thumbprint_of(upload, t)
    except Invalid as error:
        form.problems[certificate] = error.why
        return ""


def thumbprint_of(upload: Upload, t: Texts) -> str:
    """SHA-256. Raises Invalid for what is no certificate, a private key for one."""
    if b"PRIVATE KEY" in upload.content:
        raise Invalid("certificate", t.plain("device.private_key"))
    if len(upload.content) > MAX_FILE:
        raise Invalid("certificate", t.plain("page.file_too_large", limit=MAX_FILE // 1024))
    try:
        return read_certificate(upload.content).sha256
    except Invalid as error:
        raise Invalid("certificate", t.plain("device.no_certificate", why=error.why)) from None
