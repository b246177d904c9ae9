"""An enrollment's document as a form, and back: what a form does not show stays as it is in the document."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moorage.portal.certificate_upload import BadUpload, Use, certificate_text
from moorage.portal.forms import Form
from moorage.portal.texts import Texts

Document = dict[str, Any]

SLOTS = ("primary", "secondary")
EMPTY_TWIN: Document = {"tags": {}, "properties": {"desired": {}}}
REPROVISION = {
    "migrate": {"updateHubAssignment": True, "migrateDeviceData": True},
    "reset": {"updateHubAssignment": True, "migrateDeviceData": False},
    "never": {"updateHubAssignment": False, "migrateDeviceData": True},
}
DEFAULT_WEBHOOK_VERSION = "2021-10-01"


@dataclass(frozen=True, slots=True)
class Noun:
    """Individual enrollments, or groups. `texts` is how the keys of their own texts begin.

    `member` is that of a document which names it, `certificates` that of `x509` which holds certificates.
    """

    path: str
    api: str
    member: str
    certificates: str
    list_member: str
    mechanisms: tuple[str, ...]
    use: Use
    texts: str

    @property
    def is_group(self) -> bool:
        return self.member == GROUP.member


INDIVIDUAL = Noun(
    path="/enrollments",
    api="/enrollments",
    member="registrationId",
    certificates="clientCertificates",
    list_member="enrollments",
    mechanisms=("x509", "x509ca", "symmetricKey", "tpm"),
    use="client",
    texts="enrollments.individual_",
)
GROUP = Noun(
    path="/enrollment-groups",
    api="/enrollmentGroups",
    member="enrollmentGroupId",
    certificates="signingCertificates",
    list_member="enrollmentGroups",
    mechanisms=("x509", "x509ca", "symmetricKey"),
    use="signing",
    texts="enrollments.group_",
)


def new_form() -> Form:
    return Form.of(
        {
            "mechanism": "x509",
            "enabled": True,
            "generate_keys": True,
            "reprovision": "migrate",
            "webhook_version": DEFAULT_WEBHOOK_VERSION,
            "initial_twin": _pretty(EMPTY_TWIN),
        }
    )


def form_of(document: Mapping[str, Any], noun: Noun) -> Form:
    """The form that shows `document`."""
    attestation = document["attestation"]
    x509, tpm = attestation.get("x509") or {}, attestation.get("tpm") or {}
    references = x509.get("caReferences") or {}
    custom = document.get("customAllocationDefinition") or {}
    information = document.get("optionalDeviceInformation")
    return Form.of(
        {
            "etag": document["etag"],
            "id": document[noun.member],
            "mechanism": mechanism_of(document),
            "primary_ca": references.get("primary"),
            "secondary_ca": references.get("secondary"),
            "endorsement_key": tpm.get("endorsementKey"),
            "storage_root_key": tpm.get("storageRootKey"),
            "enabled": document["provisioningStatus"] == "enabled",
            "reprovision": reprovision_of(document),
            "hubs": hubs_of(document),
            "allocation": document.get("allocationPolicy"),
            "webhook_url": custom.get("webhookUrl"),
            "webhook_version": custom.get("apiVersion") or DEFAULT_WEBHOOK_VERSION,
            "credential_policy": document.get("credentialPolicyName"),
            "device_id": document.get("deviceId"),
            "iot_edge": (document.get("capabilities") or {}).get("iotEdge", False),
            "initial_twin": _pretty(document.get("initialTwin") or EMPTY_TWIN),
            "device_information": None if information is None else _pretty(information),
        }
    )


def mechanism_of(document: Mapping[str, Any]) -> str:
    attestation = document["attestation"]
    if attestation["type"] == "x509" and (attestation.get("x509") or {}).get("caReferences"):
        return "x509ca"
    return str(attestation["type"])


def reprovision_of(document: Mapping[str, Any]) -> str:
    policy = document.get("reprovisionPolicy") or {}
    if not policy.get("updateHubAssignment", True):
        return "never"
    return "migrate" if policy.get("migrateDeviceData", True) else "reset"


def hubs_of(document: Mapping[str, Any]) -> list[str]:
    """Empty allows all of them."""
    if named := document.get("iotHubs"):
        return list(named)
    return [document["iotHubHostName"]] if document.get("iotHubHostName") else []


def held_certificates(document: Mapping[str, Any], noun: Noun) -> dict[str, Document | None]:
    """By slot, the `info` of those that the enrollment has."""
    pair = (document["attestation"].get("x509") or {}).get(noun.certificates) or {}
    return {slot: (pair.get(slot) or {}).get("info") for slot in SLOTS}


def register_command(document: Mapping[str, Any]) -> str:
    """How this machine registers in the place of the device, where it can; else empty."""
    name, command = document["registrationId"], "moorage device registration create"
    match mechanism_of(document):
        case "symmetricKey":
            return f"{command} --registration-id {name}"
        case "x509" | "x509ca":
            return f"{command} --certificate-file-path {name}.pem --key-file-path {name}.key"
    return f"{command} --tpm --registration-id {name}"


def keep_uploads(form: Form, t: Texts) -> Form:
    """`form` with the certificates that were chosen in hidden fields, so that they need not be chosen again.

    What must not be kept is not, and becomes the problem of its field.
    """
    kept: dict[str, str | None] = {}
    for slot in SLOTS:
        if (upload := form.upload(f"{slot}_file")) is None:
            continue
        try:
            kept[f"{slot}_certificate"] = certificate_text(upload)
        except BadUpload as error:
            kept[f"{slot}_certificate"] = None
            form.problems[f"{slot}_file"] = t.plain(error.key, **error.values)
    return form.with_fields(**kept)


def document_of(form: Form, noun: Noun, base: Mapping[str, Any] | None, t: Texts) -> Document:
    """What `form` asks for, over `base`; problems are noted in the form."""
    document: Document = dict(base or {noun.member: form.text("id")})
    document["attestation"] = _attestation(form, noun, base, t)
    document["provisioningStatus"] = "enabled" if form.flag("enabled") else "disabled"
    document["capabilities"] = {**(document.get("capabilities") or {}), "iotEdge": form.flag("iot_edge")}
    if form.text("reprovision") in REPROVISION and form.text("reprovision") != reprovision_of(document):
        document["reprovisionPolicy"] = REPROVISION[form.text("reprovision")]
    _allocation(form, document)
    if "credential_policy" in form.fields or document.get("credentialPolicyName"):
        document["credentialPolicyName"] = form.text("credential_policy") or None
    twin = form.json_object("initial_twin", t)
    if twin != EMPTY_TWIN or document.get("initialTwin") is not None:
        document["initialTwin"] = twin
    if not noun.is_group:
        document["deviceId"] = form.text("device_id") or None
        document["optionalDeviceInformation"] = form.json_object("device_information", t)
    return document


def _attestation(form: Form, noun: Noun, base: Mapping[str, Any] | None, t: Texts) -> Document:
    before: Mapping[str, Any] = base["attestation"] if base else {}
    mechanism = mechanism_of(base) if base else form.text("mechanism")
    if mechanism == "x509":
        held = (before.get("x509") or {}).get(noun.certificates) or {}
        pair = {slot: _certificate(form, slot, held.get(slot)) for slot in SLOTS}
        if not any(pair.values()):
            form.problems.setdefault("primary_file", t.plain("enrollments.no_certificate"))
        return {"type": "x509", "x509": {noun.certificates: pair}}
    if mechanism == "x509ca":
        names = {slot: form.text(f"{slot}_ca") or None for slot in SLOTS}
        if not any(names.values()):
            form.problems["primary_ca"] = t.plain("enrollments.no_ca")
        return {"type": "x509", "x509": {"caReferences": names}}
    if mechanism == "tpm":
        if not form.text("endorsement_key"):
            form.problems["endorsement_key"] = t.plain("enrollments.no_endorsement_key")
        keys = {
            "endorsementKey": form.text("endorsement_key"),
            "storageRootKey": form.text("storage_root_key"),
        }
        return {"type": "tpm", "tpm": {name: key or None for name, key in keys.items()}}
    given = {} if form.flag("generate_keys") else {f"{slot}Key": form.text(f"{slot}_key") for slot in SLOTS}
    return {"type": mechanism, "symmetricKey": {name: key or None for name, key in given.items()}}


def _certificate(form: Form, slot: str, held: object) -> object:
    """One that was chosen now, else the one that the enrollment has, unless that is to go."""
    if text := form.text(f"{slot}_certificate"):
        return {"certificate": text}
    return None if form.flag(f"{slot}_remove") else held


def _allocation(form: Form, document: Document) -> None:
    hubs = form.all("hubs")
    if set(hubs) != set(hubs_of(document)):
        document["iotHubs"], document["iotHubHostName"] = hubs or None, None
    document["allocationPolicy"] = form.text("allocation") or None
    custom = dict(document.get("customAllocationDefinition") or {})
    custom |= {"webhookUrl": form.text("webhook_url"), "apiVersion": form.text("webhook_version")}
    is_asked = form.text("allocation") == "custom" or form.text("webhook_url")
    document["customAllocationDefinition"] = custom if is_asked else None


_FIELDS = {
    "registrationId": "id",
    "enrollmentGroupId": "id",
    "deviceId": "device_id",
    "initialTwin": "initial_twin",
    "optionalDeviceInformation": "device_information",
    "iotHubs": "hubs",
    "iotHubHostName": "hubs",
    "allocationPolicy": "allocation",
    "customAllocationDefinition.apiVersion": "webhook_version",
    "customAllocationDefinition": "webhook_url",
    "credentialPolicyName": "credential_policy",
    "attestation.symmetricKey.primaryKey": "primary_key",
    "attestation.symmetricKey.secondaryKey": "secondary_key",
    "attestation.tpm.endorsementKey": "endorsement_key",
    "attestation.tpm.storageRootKey": "storage_root_key",
    "attestation.x509.caReferences.secondary": "secondary_ca",
    "attestation.x509.caReferences": "primary_ca",
}
_CERTIFICATE = re.compile(r"attestation\.x509\.(?:client|signing)Certificates\.(primary|secondary)")


def place_of(message: str) -> tuple[str, str]:
    """The field of the form that a sentence of the API is about, "" for none, and the rest of the sentence."""
    about, colon, why = message.partition(": ")
    if colon and " " not in about:
        if found := _CERTIFICATE.match(about):
            return f"{found[1]}_file", why
        for member, field in _FIELDS.items():
            if about == member or about.startswith((f"{member}.", f"{member}[")):
                return field, why
    return "", message


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
