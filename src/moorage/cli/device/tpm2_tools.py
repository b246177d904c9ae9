"""The TPM of a device, by tpm2-tools: a command a step.

Keys are where Azure's clients have them [dps 12.1]. A password that guards a hierarchy of the TPM is not asked for: the
tools' refusal is passed on.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import click

from moorage.credentials.tpm import StorageKey, blob_structures, default_registration_id
from moorage.errors import MoorageError, Unavailable

ENDORSEMENT_KEY, STORAGE_ROOT_KEY, HUB_KEY = "0x81010001", "0x81000001", "0x81000100"
_ROOT_ATTRIBUTES = "restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda"
_CREDENTIAL_MAGIC = bytes.fromhex("badcc0de00000001")  # of the file that tpm2_activatecredential reads
PATIENCE = 120.0  # seconds for one command: a slow chip may take most of a minute to make an RSA key

F = TypeVar("F", bound=Callable[..., Any])


def tcti_option(function: F) -> F:
    return click.option(
        "--tcti",
        help="Where the TPM is, as tpm2-tools have it; without it TPM2TOOLS_TCTI, or the machine's own.",
    )(function)


class TpmRefused(MoorageError):
    """The TPM, or the way to it, said no, in the words of the tools."""


class DeviceTpm:
    """Opened by `open_tpm`. Every call raises TpmRefused, and Unavailable where the tools are not there."""

    def __init__(self, folder: Path, tcti: str | None) -> None:
        self._folder = folder
        # The libraries below the tools would tell of the same fault, each in a line of its own.
        self._environment = {"TSS2_LOG": "all+NONE", **os.environ} | (
            {"TPM2TOOLS_TCTI": tcti} if tcti else {}
        )

    @cached_property
    def endorsement_key(self) -> bytes:
        """A TPM2B_PUBLIC."""
        return self._public(ENDORSEMENT_KEY, "endorsement key")

    @cached_property
    def storage_root_key(self) -> bytes:
        """A TPM2B_PUBLIC."""
        return self._public(STORAGE_ROOT_KEY, "storage root key")

    @property
    def keys(self) -> dict[str, str]:
        """The `tpm` member of a register request, or of an enrollment."""
        return {
            "endorsementKey": base64.b64encode(self.endorsement_key).decode(),
            "storageRootKey": base64.b64encode(self.storage_root_key).decode(),
        }

    @property
    def registration_id(self) -> str:
        """The one that Azure's clients give a device without a name."""
        return default_registration_id(StorageKey.read("the TPM's endorsement key", self.endorsement_key))

    def create_keys(self) -> None:
        """Those of the two that are not there. The TPM makes the same ones again, as long as nobody clears it."""
        there = self._persistent()
        if ENDORSEMENT_KEY not in there:
            self._tool("tpm2_createek", "-c", ENDORSEMENT_KEY, "-G", "rsa", "-u", "public")
        if STORAGE_ROOT_KEY not in there:
            self._tool(
                *("tpm2_createprimary", "-C", "owner", "-G", "rsa2048:aes128cfb", "-g", "sha256"),
                *("-a", _ROOT_ATTRIBUTES, "-c", "root"),
            )
            self._tool("tpm2_evictcontrol", "-C", "owner", "-c", "root", STORAGE_ROOT_KEY)
        self._make_room()

    def activate(self, blob: bytes) -> None:
        """Take the HMAC key out of an activation blob made for this TPM, for `sign` and `keep`."""
        id_object, credential_seed, private, seed, public, _ = blob_structures(blob)
        files = {"credential": _CREDENTIAL_MAGIC + id_object + credential_seed}
        files |= {"private": private, "seed": seed, "public": public}
        for name, content in files.items():
            (self._folder / name).write_bytes(content)
        self._take_wrapping_key()
        self._tool(
            *("tpm2_import", "-C", STORAGE_ROOT_KEY, "-i", "private", "-u", "public"),
            *("-s", "seed", "-k", "wrapping-key", "-r", "imported"),
        )
        self._tool("tpm2_load", "-C", STORAGE_ROOT_KEY, "-u", "public", "-r", "imported", "-c", "key")
        self._make_room()

    def sign(self, content: bytes) -> bytes:
        """HMAC-SHA256 with the key activated last."""
        (self._folder / "content").write_bytes(content)
        signature = self._tool("tpm2_hmac", "-c", "key", "-g", "sha256", "content")
        self._make_room()
        return signature

    def keep(self) -> None:
        """Have the TPM keep the key activated last, in place of the one it kept before."""
        if HUB_KEY in self._persistent():
            self._tool("tpm2_evictcontrol", "-C", "owner", "-c", HUB_KEY)
        self._tool("tpm2_evictcontrol", "-C", "owner", "-c", "key", HUB_KEY)
        self._make_room()

    def _take_wrapping_key(self) -> None:
        """Into a file. What it has wrapped is wrapped once more, for the storage root key alone."""
        self._tool("tpm2_startauthsession", "--policy-session", "-S", "session")
        try:
            self._tool("tpm2_policysecret", "-S", "session", "-c", "endorsement")
            self._tool(
                *("tpm2_activatecredential", "-c", STORAGE_ROOT_KEY, "-C", ENDORSEMENT_KEY),
                *("-P", "session:session", "-i", "credential", "-o", "wrapping-key"),
            )
        finally:
            self._tool("tpm2_flushcontext", "session")

    def _public(self, handle: str, name: str) -> bytes:
        if handle not in self._persistent():
            raise TpmRefused(f"the TPM has no {name} at {handle}; to make it: moorage device tpm create")
        self._tool("tpm2_readpublic", "-c", handle, "-o", "public")
        return (self._folder / "public").read_bytes()

    def _persistent(self) -> set[str]:
        """The handles of what the TPM keeps."""
        listed = self._tool("tpm2_getcap", "handles-persistent").decode()
        return {f"0x{handle.lower()}" for handle in re.findall(r"0x([0-9A-Fa-f]+)", listed)}

    def _make_room(self) -> None:
        """A TPM has room for three keys, and without a resource manager it is ours to clear."""
        self._tool("tpm2_flushcontext", "--transient-object")

    def _tool(self, *command: str) -> bytes:
        try:
            done = subprocess.run(
                command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PATIENCE,
            )
        except FileNotFoundError:
            raise Unavailable(
                f"{command[0]} is not installed: it is in Debian's package tpm2-tools"
            ) from None
        except subprocess.TimeoutExpired:
            raise Unavailable(f"the TPM did not answer {command[0]} within {PATIENCE:g} s") from None
        if done.returncode != 0:
            raise TpmRefused(f"{command[0]}: {_reason(done.stderr.decode('utf-8', 'replace'))}")
        return done.stdout


def _reason(complaint: str) -> str:
    """The first of the tool's errors: those behind it tell what it could not do therefore."""
    errors = [line.removeprefix("ERROR: ") for line in complaint.splitlines() if line.startswith("ERROR: ")]
    return errors[0] if errors else complaint.strip().replace("\n", "; ") or "no reason given"


@contextmanager
def open_tpm(tcti: str | None) -> Iterator[DeviceTpm]:
    """The TPM that `tcti` names. Nothing is asked of it yet; the tools' files are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="moorage-tpm-") as folder:
        yield DeviceTpm(Path(folder), tcti)
