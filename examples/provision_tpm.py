"""A device that provisions itself with a TPM, connects to its hub by the key in it and sends ten messages.

The TPM does its part through tpm2-tools, a command a step, so that one can see what is asked of it. Telemetry goes by
Microsoft's `azure-iot-device`. It runs unchanged against Azure, and reads:

    PROVISIONING_HOST, PROVISIONING_IDSCOPE     where the Device Provisioning Service is (`moorage env` sets both)
    DPS_TPM_REGISTRATION_ID                     the registration id; without it a hash of the endorsement key
    TPM2TOOLS_TCTI                              where the TPM is, as tpm2-tools want it; without it the machine's own

    python provision_tpm.py [--messages N]
"""

import argparse
import asyncio
import base64
import hashlib
import http.client
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from azure.iot.device.aio import IoTHubDeviceClient

API_VERSION = "2019-03-31"
ENDORSEMENT_KEY, STORAGE_ROOT_KEY, IDENTITY_KEY = "0x81010001", "0x81000001", "0x81000100"
CREDENTIAL_MAGIC = bytes.fromhex("badcc0de00000001")  # of the file that tpm2_activatecredential reads


def setting(name: str) -> str:
    return os.environ.get(name) or sys.exit(f"Set {name}.")


class Tpm:
    """The keys of the device's TPM, made beforehand, and the identity key that is put in beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tool(self, *command: str) -> bytes:
        done = subprocess.run(command, cwd=self.folder, capture_output=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: {done.stderr.decode().strip()}")
        return done.stdout

    def public(self, handle: str) -> bytes:
        """A key's TPM2B_PUBLIC, which is what an enrollment names it by."""
        self.tool("tpm2_readpublic", "-c", handle, "-o", "public")
        return (self.folder / "public").read_bytes()

    def activate(self, blob: bytes) -> None:
        """Take the HMAC key out of an activation blob; only the TPM that it was made for can."""
        id_object, credential_seed, private, seed, public, _ = structures(blob)
        files = {"credential": CREDENTIAL_MAGIC + id_object + credential_seed}
        files |= {"private": private, "seed": seed, "identity": public}
        for name, content in files.items():
            (self.folder / name).write_bytes(content)
        self.tool("tpm2_startauthsession", "--policy-session", "-S", "session")
        self.tool("tpm2_policysecret", "-S", "session", "-c", "endorsement")
        keys = ("-c", STORAGE_ROOT_KEY, "-C", ENDORSEMENT_KEY)
        self.tool(
            *("tpm2_activatecredential", *keys, "-P", "session:session"),
            *("-i", "credential", "-o", "wrapping-key"),
        )
        self.tool("tpm2_flushcontext", "session")
        self.tool(
            *("tpm2_import", "-C", STORAGE_ROOT_KEY, "-i", "private", "-u", "identity"),
            *("-s", "seed", "-k", "wrapping-key", "-r", "imported"),
        )
        self.tool("tpm2_load", "-C", STORAGE_ROOT_KEY, "-u", "identity", "-r", "imported", "-c", "loaded")
        # The key of the last time, if there was one, makes room.
        subprocess.run(
            ["tpm2_evictcontrol", "-C", "owner", "-c", IDENTITY_KEY], capture_output=True, check=False
        )
        self.tool("tpm2_evictcontrol", "-C", "owner", "-c", "loaded", IDENTITY_KEY)
        self.tool("tpm2_flushcontext", "--transient-object")

    def token(self, resource: str) -> str:
        """A SAS token for an hour, signed inside the TPM."""
        written, expiry = quote(resource, safe=""), int(time.time()) + 3600
        (self.folder / "content").write_bytes(f"{written}\n{expiry}".encode())
        signature = base64.b64encode(self.tool("tpm2_hmac", "-c", IDENTITY_KEY, "-g", "sha256", "content"))
        self.tool("tpm2_flushcontext", "--transient-object")
        return f"SharedAccessSignature sr={written}&sig={quote(signature, safe='')}&se={expiry}"


def structures(blob: bytes) -> list[bytes]:
    """The six structures of an activation blob, each begins with its size."""
    found = []
    while blob:
        size = 2 + int.from_bytes(blob[:2], "big")
        found.append(blob[:size])
        blob = blob[size:]
    return found


class Provisioning:
    """The device API of the service over HTTPS."""

    def __init__(self, host: str, resource: str) -> None:
        name, _, port = host.partition(":")
        self._connection = http.client.HTTPSConnection(
            name, int(port or 443), context=ssl.create_default_context(), timeout=60
        )
        self._resource = resource
        self.token: str | None = None

    def ask(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        headers = {"Content-Type": "application/json; charset=utf-8"}
        if self.token is not None:
            headers["Authorization"] = self.token
        target = f"/{self._resource}/{path}?api-version={API_VERSION}"
        self._connection.request(method, target, json.dumps(body), headers)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())


def register(tpm: Tpm, id_scope: str, registration_id: str, endorsement_key: bytes) -> dict[str, Any]:
    """The registration state. Asked without a token, the service answers with a challenge for the TPM."""
    resource = f"{id_scope}/registrations/{registration_id}"
    service = Provisioning(setting("PROVISIONING_HOST"), resource)
    keys = {"endorsementKey": endorsement_key, "storageRootKey": tpm.public(STORAGE_ROOT_KEY)}
    told = {name: base64.b64encode(key).decode() for name, key in keys.items()}
    request = {"registrationId": registration_id, "tpm": told}
    status, answer = service.ask("PUT", "register", request)
    if "authenticationKey" not in answer:
        sys.exit(f"The service answered {status}: {answer.get('message')}")
    tpm.activate(base64.b64decode(str(answer["authenticationKey"])))
    print("challenge:       opened by the TPM")
    service.token = tpm.token(resource)
    status, answer = service.ask("PUT", "register", request)
    while status == 202:
        time.sleep(1)
        status, answer = service.ask("GET", f"operations/{answer['operationId']}", {})
    state = answer.get("registrationState")
    if answer.get("status") != "assigned" or not isinstance(state, dict):
        sys.exit(f"The registration ended with {status}: {answer}")
    return state


async def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--messages", type=int, default=10)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tpm = Tpm(Path(folder))
        endorsement_key = tpm.public(ENDORSEMENT_KEY)
        digest = base64.b32encode(hashlib.sha256(endorsement_key).digest()).decode()
        registration_id = os.environ.get("DPS_TPM_REGISTRATION_ID") or digest.rstrip("=").lower()
        state = register(tpm, setting("PROVISIONING_IDSCOPE"), registration_id, endorsement_key)
        tpm.activate(base64.b64decode(state["tpm"]["authenticationKey"]))
        hub, device_id = str(state["assignedHub"]), str(state["deviceId"])
        print(f"registration id: {registration_id}")
        print(f"assigned hub:    {hub}")
        print(f"device id:       {device_id}")
        token = tpm.token(f"{hub}/devices/{device_id}")

    device = IoTHubDeviceClient.create_from_sastoken(token)
    await device.connect()
    for number in range(1, options.messages + 1):
        await device.send_message(json.dumps({"number": number}))
        print(f"sent message {number}")
    await device.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
