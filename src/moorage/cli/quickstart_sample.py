"""`moorage quickstart --sample`: somebody else's device program, unchanged, against a fresh server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from moorage.cli.event_reader import open_reader
from moorage.cli.progress import Progress
from moorage.cli.quickstart_device import Operator, make_certificate
from moorage.credentials.sas import new_key
from moorage.errors import MoorageError
from moorage.store.folder import RunInfo

KEY_SIZE = 32  # bytes


class SampleFailed(MoorageError):
    """The program did not do what such a program is for."""


class SampleRun:
    """One run: the program gets what Microsoft's samples read from the environment.

    A program that reads a name with SYMMETRIC_KEY in it proves itself by a key, any other by a certificate.
    """

    proof: dict[str, str]  # in the names that the program reads
    device_id: str

    def __init__(self, server: RunInfo, file: Path, folder: Path, progress: Progress) -> None:
        self.server = server
        self.file = file
        self.folder = folder
        self.progress = progress
        self.operator = Operator(server)
        self.name = self.operator.free_name()

    def run(self) -> bool:
        for title, step in STEPS:
            try:
                with self.progress.step(title):
                    step(self)
            except MoorageError as error:
                self.progress.line(f"         {error}", "red")
                if said := self.operator.explain(self.name):
                    self.progress.line("         moorage explain says:")
                    self.progress.note(said)
                return False
        return True

    def enroll(self) -> None:
        if b"SYMMETRIC_KEY" in self.file.read_bytes():
            key = new_key(KEY_SIZE)
            self.operator.enroll_with_key(self.name, key)
            self.progress.note(f"{self.name}, by a symmetric key")
            self.proof = {
                f"PROVISIONING_{name}{suffix}": value
                for name, value in (("REGISTRATION_ID", self.name), ("SYMMETRIC_KEY", key))
                for suffix in ("", "_PAYLOAD")
            }
        else:
            held = make_certificate(self.folder, self.name)
            self.operator.enroll(held)
            self.progress.note(f"{self.name}, by a certificate of its own; the key is under a pass phrase")
            self.proof = {
                "DPS_X509_REGISTRATION_ID": self.name,
                "X509_CERT_FILE": str(held.certificate_file),
                "X509_KEY_FILE": str(held.key_file),
                "PASS_PHRASE": held.pass_phrase,
                "X509_PASS_PHRASE": held.pass_phrase,
            }

    def run_file(self) -> None:
        """Its lines are shown as they come."""
        process = subprocess.Popen(
            [sys.executable, str(self.file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | self.environment(),
            text=True,
            errors="replace",
        )
        try:
            for line in process.stdout or ():
                self.progress.note(line.rstrip("\n"))
        finally:
            if process.poll() is None:
                process.terminate()
            code = process.wait()
        if code != 0:
            raise SampleFailed(f"{self.file.name} ended with exit code {code}")

    def environment(self) -> dict[str, str]:
        return {**self.server.env, **self.proof, "PYTHONUNBUFFERED": "1"}

    def look_at_registration(self) -> None:
        state = self.operator.registration(self.name)
        if state is None or state["status"] != "assigned":
            raise SampleFailed(f"{self.name} is not registered")
        self.device_id = state["deviceId"]
        self.progress.note(f"{state['status']} to {state['assignedHub']}, substatus {state['substatus']}")

    def look_at_device(self) -> None:
        found = self.operator.device(self.device_id)
        if found is None or found["status"] != "enabled":
            raise SampleFailed(f"the hub has no enabled device {self.device_id}")
        self.progress.note(f"{found['deviceId']}: {found['status']}")

    def count_messages(self) -> None:
        self.progress.note(f"{asyncio.run(self._count())} messages came")

    async def _count(self) -> int:
        """All that a fresh server has was sent by the program."""
        async with open_reader(self.operator.hub_login) as reader:
            last = [await reader.last_sequence_number(each) for each in await reader.partitions()]
        return sum(last) + len(last)


STEPS: tuple[tuple[str, Callable[[SampleRun], None]], ...] = (
    ("Enroll the device", SampleRun.enroll),
    ("Run the program", SampleRun.run_file),
    ("Look at the registration", SampleRun.look_at_registration),
    ("Look at the device in the hub", SampleRun.look_at_device),
    ("Count its messages at the Event Hubs-compatible endpoint", SampleRun.count_messages),
)
