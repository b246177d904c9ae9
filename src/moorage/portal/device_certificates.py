"""Certificates of devices that prove themselves by thumbprint: a file in, its thumbprint out; the file is not kept."""

from __future__ import annotations

from moorage.portal.certificate_upload import BadUpload, CertificateUploads, certificate_text
from moorage.portal.forms import Form
from moorage.portal.texts import Texts


async def read_thumbprints(form: Form, uploads: CertificateUploads, t: Texts) -> dict[str, str]:
    """Both, as the registry takes them."""
    return {
        f"{which}Thumbprint": await _thumbprint(form, which, uploads, t) for which in ("primary", "secondary")
    }


async def _thumbprint(form: Form, which: str, uploads: CertificateUploads, t: Texts) -> str:
    """What its field says or, where a file was chosen, the SHA-256 of that; what is wrong with it becomes a problem."""
    upload = form.upload(f"{which}_certificate")
    if upload is None:
        return "".join(form.text(f"{which}_thumbprint").replace(":", " ").split())
    try:
        decoded = await uploads.decoded(certificate_text(upload), "client")
    except BadUpload as error:
        form.problems[f"{which}_certificate"] = t.plain(error.key, **error.values)
        return ""
    return str(decoded["certificates"][0]["sha256Thumbprint"])
