"""A software TPM of its own for a test: swtpm, driven by tpm2-tools or, through a bridge, by Microsoft's TSS.

TSS speaks the protocol of Microsoft's TPM simulator: commands on one port, power on the next one. swtpm takes bare
commands, so the bridge unwraps the ones and nods to the other.
"""

from __future__ import annotations

import os
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.software_tpm import Refused

PORT, CONTROL_PORT = 2321, 2322
EK, SRK, IDENTITY = "0x81010001", "0x81000001", "0x81000100"  # where Azure's clients keep them
SRK_ATTRIBUTES = "restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda"
START_WITHIN = 10.0  # seconds

_CREDENTIAL_MAGIC = bytes.fromhex("badcc0de00000001")  # of the file that tpm2_activatecredential reads


@dataclass
class Swtpm:
    """`folder` is where the tools' files are; `address` has the TPM on ports 2321 and 2322."""

    folder: Path
    address: str

    @property
    def environment(self) -> dict[str, str]:
        tcti = f"swtpm:host={self.address},port={PORT}"
        return {**os.environ, "TPM2TOOLS_TCTI": tcti, "TSS2_LOG": "all+NONE"}

    def tool(self, *command: str, content: bytes = b"") -> bytes:
        """The output of one of tpm2-tools. Raises Refused with what it said."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, input=content, capture_output=True, timeout=60
        )
        if done.returncode != 0:
            raise Refused(f"{' '.join(command)}: {done.stderr.decode()}")
        return done.stdout

    def flush(self) -> None:
        """Make room: there is no resource manager in front of this TPM."""
        self.tool("tpm2_flushcontext", "--transient-object")

    def create_keys(self) -> None:
        self.tool("tpm2_createek", "-c", EK, "-G", "rsa", "-u", "ek.pub")
        self.tool(
            *("tpm2_createprimary", "-C", "o", "-G", "rsa2048:aes128cfb", "-g", "sha256"),
            *("-a", SRK_ATTRIBUTES, "-c", "srk.ctx"),
        )
        self.tool("tpm2_evictcontrol", "-C", "o", "-c", "srk.ctx", SRK)
        self.tool("tpm2_readpublic", "-c", SRK, "-o", "srk.pub", "-n", "srk.name")
        self.flush()

    @property
    def endorsement_key(self) -> bytes:
        return (self.folder / "ek.pub").read_bytes()

    @property
    def storage_root_key(self) -> bytes:
        return (self.folder / "srk.pub").read_bytes()

    def activate(self, blob: bytes) -> None:
        """What a device does with an activation blob, tool by tool. Raises Refused."""
        id_object, credential_seed, private, seed, public, _ = _structures(blob)
        files = {"credential": _CREDENTIAL_MAGIC + id_object + credential_seed}
        files |= {"private": private, "seed": seed, "public": public}
        for name, content in files.items():
            (self.folder / name).write_bytes(content)
        self.tool("tpm2_startauthsession", "--policy-session", "-S", "session")
        try:
            self.tool("tpm2_policysecret", "-S", "session", "-c", "e")
            self.tool(
                *("tpm2_activatecredential", "-c", SRK, "-C", EK, "-P", "session:session"),
                *("-i", "credential", "-o", "wrapping-key"),
            )
        finally:
            self.tool("tpm2_flushcontext", "session")
        self.tool(
            *("tpm2_import", "-C", SRK, "-i", "private", "-u", "public"),
            *("-s", "seed", "-k", "wrapping-key", "-r", "imported"),
        )
        self.tool("tpm2_load", "-C", SRK, "-u", "public", "-r", "imported", "-c", "key")
        self.flush()

    def sign(self, content: bytes) -> bytes:
        """HMAC-SHA256 inside the TPM, by the key activated last."""
        self.tool("tpm2_load", "-C", SRK, "-u", "public", "-r", "imported", "-c", "key")
        (self.folder / "content").write_bytes(content)
        signature = self.tool("tpm2_hmac", "-c", "key", "-g", "sha256", "content")
        self.flush()
        return signature


@contextmanager
def swtpm(folder: Path, address: str) -> Iterator[Swtpm]:
    """A fresh TPM without keys."""
    folder.mkdir()
    (folder / "state").mkdir()
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder / 'state'}"]
    command += ["--server", f"type=tcp,port={PORT},bindaddr={address}"]
    command += ["--ctrl", f"type=tcp,port={CONTROL_PORT},bindaddr={address}"]
    command += ["--flags", "not-need-init,startup-clear"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_WITHIN
        while not _listens(address):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "swtpm does not listen"
            time.sleep(0.01)
        yield Swtpm(folder, address)
    finally:
        process.terminate()
        process.wait(10)


def _listens(address: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, CONTROL_PORT)) == 0


def _structures(blob: bytes) -> list[bytes]:
    """The structures of an activation blob, each with its size in front, as the tools want them."""
    found = []
    while blob:
        size = 2 + int.from_bytes(blob[:2], "big")
        found.append(blob[:size])
        blob = blob[size:]
    return found


# --- The bridge for TSS ----------------------------------------------------------------------------------

_HANDSHAKE, _SEND_COMMAND, _SESSION_END = 15, 8, 20


class _Commands(socketserver.StreamRequestHandler):
    tpm = ""

    def handle(self) -> None:
        with socket.create_connection((self.tpm, PORT)) as tpm, tpm.makefile("rb") as answers:
            while (order := int.from_bytes(self.rfile.read(4), "big")) not in (0, _SESSION_END):
                if order == _HANDSHAKE:
                    self.rfile.read(4)
                    self.wfile.write(b"\0\0\0\1" + b"\0\0\0\1" + bytes(4))
                elif order == _SEND_COMMAND:
                    self.rfile.read(1)
                    tpm.sendall(self.rfile.read(int.from_bytes(self.rfile.read(4), "big")))
                    head = answers.read(6)
                    answer = head + answers.read(int.from_bytes(head[2:], "big") - 6)
                    self.wfile.write(len(answer).to_bytes(4, "big") + answer + bytes(4))


class _Power(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while self.rfile.read(4):
            self.wfile.write(bytes(4))


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@contextmanager
def simulator(tpm: Swtpm, port: int = 2331) -> Iterator[int]:
    """The same TPM as Microsoft's simulator shows one: the port for `new tss.Tpm(true, address, port)`."""
    handler = type("_CommandsOfOne", (_Commands,), {"tpm": tpm.address})
    with ExitStack() as stack:
        for number, kind in ((port, handler), (port + 1, _Power)):
            server = stack.enter_context(_Server((tpm.address, number), kind))
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
            stack.callback(server.shutdown)
        yield port
