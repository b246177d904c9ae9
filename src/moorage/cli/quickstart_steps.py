"""The steps of the quickstart, in order. Each raises when it does not hold."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from azure.eventhub import EventData
from azure.eventhub.aio import EventHubConsumerClient, PartitionContext
from azure.iot.device import X509, Message
from azure.iot.device.aio import IoTHubDeviceClient, ProvisioningDeviceClient
from azure.iot.device.exceptions import ClientError, ServiceError

from moorage.cli.progress import Progress
from moorage.cli.quickstart_device import DESIRED, DeviceCertificate, Operator, make_certificate
from moorage.errors import MoorageError
from moorage.store.folder import RunInfo

MESSAGES = 10
PATIENCE = 30.0  # seconds for one step

T = TypeVar("T")


class DoesNotHold(MoorageError):
    """A step came to an end, and not to the one that it should."""


class Walk:
    """One walk through all steps: what an earlier step found out is here for the later ones."""

    name: str
    certificate: DeviceCertificate
    assigned_hub: str
    device_id: str
    device: IoTHubDeviceClient
    reader: EventHubConsumerClient
    before: dict[str, int]  # the last sequence number of each partition before anything was sent
    sent: dict[str, int]  # message id and number

    def __init__(self, server: RunInfo, folder: Path, progress: Progress) -> None:
        self.server = server
        self.folder = folder
        self.progress = progress
        self.operator = Operator(server)
        self._undo = contextlib.AsyncExitStack()
        self._is_kept = False  # the device and its enrollment stay

    async def run(self, steps: Sequence[Step], *, keep: bool = False) -> bool:
        """Whether every step held. What was made on the server is deleted; with `keep` only where one did not."""
        quiet()
        async with self._undo:
            for title, step in steps:
                if not await self._step(title, step):
                    return False
            self._is_kept = keep
        return True

    async def _step(self, title: str, step: Callable[[Walk], Awaitable[None]]) -> bool:
        try:
            with self.progress.step(title):
                async with asyncio.timeout(PATIENCE):
                    await step(self)
        except TimeoutError:
            await self._say_why(f"not done within {PATIENCE:g} s")
        except (MoorageError, ClientError, ServiceError, OSError) as error:
            await self._say_why(reason(error))
        except Exception as error:  # an SDK may raise anything, and the user is to read why all the same
            await self._say_why(f"{type(error).__name__}: {reason(error)}")
        else:
            return True
        return False

    async def _say_why(self, why: str) -> None:
        self.progress.line(f"         {why}", "red")
        with contextlib.suppress(
            MoorageError, AttributeError
        ):  # the server may be what fails, or no name chosen
            if said := await in_thread(lambda: self.operator.explain(self.name)):
                self.progress.line("         moorage explain says:")
                self.progress.note(said)

    # --- the steps ----------------------------------------------------------------------------------------

    async def make_certificate(self) -> None:
        self.name = await in_thread(self.operator.free_name)
        self.certificate = await in_thread(lambda: make_certificate(self.folder, self.name))
        self.progress.note(f"common name {self.name}, RSA 2048, its key under a pass phrase")
        self.progress.note(f"SHA-256 thumbprint {self.certificate.thumbprint}")

    async def enroll(self) -> None:
        await in_thread(lambda: self.operator.enroll(self.certificate))
        self._undo.push_async_callback(self._delete_enrollment_again)
        self.progress.note(f"registration id {self.name}; the initial twin has {json.dumps(DESIRED)}")

    async def register(self) -> None:
        result = await self._register()
        state = result.registration_state
        if result.status != "assigned" or state is None:
            raise DoesNotHold(f"the registration ended as {result.status}")
        self.assigned_hub, self.device_id = state.assigned_hub, state.device_id
        self._undo.push_async_callback(self._delete_device_again)
        self.progress.note(f"{result.status}: hub {self.assigned_hub}, device {self.device_id}")
        self.progress.note(f"substatus {state.sub_status}")

    async def connect(self) -> None:
        self.device = IoTHubDeviceClient.create_from_x509_certificate(
            x509=self._x509(),
            hostname=self.assigned_hub,
            device_id=self.device_id,
            connection_retry=False,  # so that the device shows when it is dropped
            **self._trust(),
        )
        self._undo.push_async_callback(self.device.shutdown)
        self.device.on_background_exception = lambda error: None
        await self.device.connect()

    async def open_reader(self) -> None:
        """Where the partitions stand now: what comes after that is ours."""
        self.reader = EventHubConsumerClient.from_connection_string(
            self.server.env["EVENTHUB_CONNECTION_STRING"],
            consumer_group="$Default",
            connection_verify=self.server.env.get("SSL_CERT_FILE"),
        )
        self._undo.push_async_callback(self.reader.close)
        partitions = await self.reader.get_partition_ids()
        facts = await asyncio.gather(*map(self.reader.get_partition_properties, partitions))
        self.before = {each["id"]: each["last_enqueued_sequence_number"] for each in facts}
        places = ", ".join(f"{partition} at {last}" for partition, last in self.before.items())
        self.progress.note(f"last sequence number of each partition: {places}")

    async def send(self) -> None:
        self.sent = {str(uuid.uuid4()): number for number in range(1, MESSAGES + 1)}
        await asyncio.gather(*(self._send(message_id, number) for message_id, number in self.sent.items()))

    async def _send(self, message_id: str, number: int) -> None:
        body = json.dumps({"number": number})
        message = Message(body, message_id, "utf-8", "application/json")
        message.custom_properties["temperatureAlert"] = "true" if number % 2 else "false"
        self.progress.note(f"message {number:>2} goes")
        begun = time.perf_counter()
        await self.device.send_message(message)
        self.progress.note(f"message {number:>2} is acknowledged after {time.perf_counter() - begun:.3f} s")

    async def read_back(self) -> None:
        arrived: dict[str, int] = {}
        complete = asyncio.Event()

        async def on_event(partition: PartitionContext, event: EventData | None) -> None:
            found = self._is_ours(event)
            if event is None or found is None:
                return
            if found in arrived:
                raise DoesNotHold(f"message {self.sent[found]} came twice")
            arrived[found] = self.sent[found]
            place = f"partition {partition.partition_id}, sequence number {event.sequence_number}"
            self.progress.note(f"message {self.sent[found]:>2} comes: {event.body_as_str()} from {place}")
            if len(arrived) == len(self.sent):
                complete.set()

        reading = asyncio.create_task(self.reader.receive(on_event, starting_position=self.before))
        try:
            await complete.wait()
        finally:
            reading.cancel()
            await asyncio.wait({reading})

    def _is_ours(self, event: EventData | None) -> str | None:
        """The message id of an event that this walk has sent. Raises DoesNotHold when it is not as it was sent."""
        if event is None or event.message_id not in self.sent:
            return None
        number = self.sent[event.message_id]
        device = event.system_properties.get(b"iothub-connection-device-id")
        if device != self.device_id.encode():
            raise DoesNotHold(f"message {number} says that it comes from {device!r}")
        if json.loads(event.body_as_str()) != {"number": number}:
            raise DoesNotHold(f"message {number} came as {event.body_as_str()}")
        return event.message_id

    async def get_twin(self) -> None:
        twin = await self.device.get_twin()
        self.progress.note(f"desired properties {json.dumps(twin['desired'])}")
        shown = {name: value for name, value in twin["desired"].items() if not name.startswith("$")}
        if shown != DESIRED:
            raise DoesNotHold(f"the initial twin has {json.dumps(DESIRED)}")

    async def show_device(self) -> None:
        found = await in_thread(lambda: self.operator.device(self.device_id))
        if found is None:
            raise DoesNotHold(f"the hub has no device {self.device_id}")
        authentication = found["authentication"]["type"]
        self.progress.note(
            f"{found['deviceId']}: {found['status']}, {authentication}, {found['connectionState']}"
        )
        if found["status"] != "enabled":
            raise DoesNotHold("the device is not enabled")

    async def delete_enrollment(self) -> None:
        await in_thread(lambda: self.operator.delete_enrollment(self.name))
        await self.device.disconnect()
        await self.device.connect()
        self.progress.note("the device connects all the same: its identity is the hub's")

    async def be_refused(self) -> None:
        try:
            result = await self._register()
        except (ClientError, ServiceError) as error:
            self.progress.note(f"refused: {reason(error)}")
        else:
            raise DoesNotHold(f"a device without enrollment was let in: {result.status}")
        self.progress.note(await in_thread(lambda: self.operator.explain(self.name)))

    async def delete_device(self) -> None:
        loop, dropped = asyncio.get_running_loop(), asyncio.Event()
        # The SDK calls it without the argument that its type has.
        self.device.on_connection_state_change = lambda: loop.call_soon_threadsafe(dropped.set)  # type: ignore
        await in_thread(lambda: self.operator.delete_device(self.device_id))
        await dropped.wait()
        if self.device.connected:
            raise DoesNotHold("the device is connected still")
        self.progress.note("its connection is dropped at once")

    # --- what they share ----------------------------------------------------------------------------------

    async def _register(self) -> Any:
        client = ProvisioningDeviceClient.create_from_x509_certificate(
            provisioning_host=self.server.env["PROVISIONING_HOST"],
            registration_id=self.name,
            id_scope=self.server.env["PROVISIONING_IDSCOPE"],
            x509=self._x509(),
            **self._trust(),
        )
        try:
            return await client.register()
        except (ClientError, ServiceError):
            await shut_down(client)
            raise

    def _x509(self) -> X509:
        held = self.certificate
        return X509(str(held.certificate_file), str(held.key_file), held.pass_phrase)

    def _trust(self) -> dict[str, str]:
        """The CA, given by hand: this process was not started with the server's environment."""
        ca_file = self.server.env.get("MOORAGE_CA_FILE")
        return {"server_verification_cert": Path(ca_file).read_text()} if ca_file else {}

    async def _delete_enrollment_again(self) -> None:
        if self._is_kept:
            return
        with contextlib.suppress(MoorageError):  # gone since the step that deletes it
            await in_thread(lambda: self.operator.delete_enrollment(self.name))

    async def _delete_device_again(self) -> None:
        if self._is_kept:
            return
        with contextlib.suppress(MoorageError):
            await in_thread(lambda: self.operator.delete_device(self.device_id))


Step = tuple[str, Callable[[Walk], Awaitable[None]]]

STEPS: tuple[Step, ...] = (
    ("Make the device a certificate", Walk.make_certificate),
    ("Enroll the device", Walk.enroll),
    ("Register the device", Walk.register),
    ("Connect the device to its hub", Walk.connect),
    ("Look where the Event Hubs-compatible endpoint stands", Walk.open_reader),
    (f"Send {MESSAGES} messages in parallel", Walk.send),
    (f"Read the {MESSAGES} messages back from the Event Hubs-compatible endpoint", Walk.read_back),
    ("Get the device's twin", Walk.get_twin),
    ("Look at the device in the hub", Walk.show_device),
)
PARTING: tuple[Step, ...] = (
    ("Delete the enrollment: the device still connects", Walk.delete_enrollment),
    ("Register once more: refused", Walk.be_refused),
    ("Delete the device: its connection is dropped", Walk.delete_device),
)


async def in_thread(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)


def reason(error: BaseException) -> str:
    """The sentence of an error, with that of its cause: the SDKs wrap what they were told."""
    words = str(error) or type(error).__name__
    return f"{words} ({reason(error.__cause__)})" if error.__cause__ is not None else words


async def shut_down(client: ProvisioningDeviceClient) -> None:
    """`register` leaves a client that was refused connected, and offers no way to end it.

    It would go on trying to connect again once the server is gone, and keep this process from ending.
    """
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    client._pipeline.shutdown(callback=lambda **_: loop.call_soon_threadsafe(done.set))
    await done.wait()


def quiet() -> None:
    """The SDKs log what the steps tell already."""
    for name in ("azure", "paho", "uamqp"):
        logger = logging.getLogger(name)
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
