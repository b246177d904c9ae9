"""Microsoft's device clients for Node, run as programs of their own: tests/clients/node."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import own_environment
from tests.support.certificates import CertificateFiles

FOLDER = Path(__file__).parents[1] / "clients" / "node"
PATIENCE = 60.0  # seconds


class Tpm(NamedTuple):
    """Where a TPM is, as Microsoft's simulator shows one."""

    host: str
    port: int


def missing() -> list[str]:
    """What the clients need and is not here: Node, or packages that npm has not installed yet."""
    if shutil.which("node") is None:
        return ["node"]
    wanted = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    return [name for name in wanted if not (FOLDER / "node_modules" / name).is_dir()]


class Registered(NamedTuple):
    """How a registration went: the registration state, or the error; and each answer on the way there.

    A step is `verb` ("registrationRequest" or "queryOperationStatus"), `status` and `wait`, in milliseconds.
    `signature` is what a TPM made of what it was to sign.
    """

    result: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    steps: list[dict[str, Any]]
    signature: bytes = b""

    @property
    def state(self) -> Mapping[str, Any]:
        assert self.result is not None, self.error
        return self.result

    @property
    def refusal(self) -> str:
        """The client's name for what went wrong."""
        assert self.error is not None, self.result
        name: str = self.error["name"]
        return name


def register(
    env: Mapping[str, str],
    transport: str,
    registration_id: str,
    *,
    certificate: CertificateFiles | None = None,
    symmetric_key: str | None = None,
    tpm: Tpm | None = None,
    sign: str = "",
    id_scope: str | None = None,
    payload: Any = None,
) -> Registered:
    """`transport` is the class of it: Mqtt, MqttWs, Amqp, AmqpWs or Http."""
    asked: dict[str, Any] = {
        "transport": transport,
        "host": env["PROVISIONING_HOST"],
        "idScope": id_scope or env["PROVISIONING_IDSCOPE"],
        "registrationId": registration_id,
    }
    if certificate is not None:
        pem, key = (file.read_text() for file in certificate)
        asked["certificate"] = {"cert": pem, "key": key}
    if symmetric_key is not None:
        asked["symmetricKey"] = symmetric_key
    if tpm is not None:
        asked |= {"tpm": tpm._asdict(), "sign": sign}
    if payload is not None:
        asked["payload"] = payload
    done = subprocess.run(
        ["node", "register.js", json.dumps(asked)],
        cwd=FOLDER,
        env=own_environment(FOLDER) | {"NODE_EXTRA_CA_CERTS": env["NODE_EXTRA_CA_CERTS"]},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    signature = base64.b64decode(said.get("signature") or "")
    return Registered(said.get("result"), said.get("error"), said["steps"], signature)
