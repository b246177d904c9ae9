"""Consumer groups made and deleted while Microsoft's `azure-eventhub` reads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zlib import crc32

import pytest
from azure.eventhub.exceptions import ConnectionLostError, EventHubError

from tests.clients.conftest import EnterShell
from tests.conftest import RunningServer
from tests.support.commands import moorage, refusal, said
from tests.support.events import payload, reading
from tests.support.mqtt_device import device_token, send

pytestmark = pytest.mark.clients

PARTITIONS = 4
GROUP = ("hub", "consumer-group")


@pytest.fixture
def device(server: RunningServer, device_id: str) -> Iterator[str]:
    said(moorage(server, "hub", "device-identity", "create", "-d", device_id))
    yield device_id
    moorage(server, "hub", "device-identity", "delete", "-d", device_id)


@pytest.fixture
def groups(server: RunningServer, device_id: str) -> Iterator[tuple[str, str]]:
    """Two consumer groups of the test's own."""
    names = f"a-{device_id[-20:]}", f"b-{device_id[-20:]}"
    for name in names:
        assert said(moorage(server, *GROUP, "create", "--name", name)) == {"name": name}
    yield names
    for name in names:
        moorage(server, *GROUP, "delete", "-n", name)


def tell(server: RunningServer, device: str, *bodies: bytes) -> None:
    identity = said(moorage(server, "hub", "device-identity", "show", "-d", device))
    key = identity["authentication"]["symmetricKey"]["primaryKey"]
    password = device_token(server.address, device, key)
    messages = [("", body) for body in bodies]
    assert send(server.address, server.env["SSL_CERT_FILE"], device, password, messages) == 0


def test_two_groups_are_read_each_for_itself(
    server: RunningServer, enter_shell: EnterShell, device: str, groups: tuple[str, str]
) -> None:
    """Each from its own place, and an owner of the partitions in one does not disturb the other."""
    env = enter_shell(server)
    bodies = [b"one", b"two", b"three"]
    began = {"starting_position": datetime.now(UTC) - timedelta(seconds=1)}
    tell(server, device, *bodies)
    with reading(env, client={"consumer_group": groups[0]}, owner_level=7, **began) as first:
        assert [payload(event) for event in first.take(3, of=device)] == bodies
        with reading(env, client={"consumer_group": groups[1]}, owner_level=1, **began) as second:
            assert [payload(event) for event in second.take(3, of=device)] == bodies
            tell(server, device, b"four")
            assert payload(first.next(of=device)) == payload(second.next(of=device)) == b"four"


def test_a_group_that_is_deleted_closes_its_readers_and_lets_nobody_in(
    server: RunningServer, enter_shell: EnterShell, device: str, groups: tuple[str, str]
) -> None:
    env = enter_shell(server)
    name = groups[0]
    client = {"consumer_group": name, "retry_total": 0}
    tell(server, device, b"one")
    partition = str(crc32(device.encode()) % PARTITIONS)
    with reading(env, client=client, partition_id=partition, starting_position="-1") as reader:
        assert payload(reader.next(of=device)) == b"one"
        assert moorage(server, *GROUP, "delete", "--name", name).returncode == 0
        with pytest.raises(ConnectionLostError, match=f"the consumer group '{name}' was deleted"):
            reader.next(of="nobody")
    with (
        reading(env, client=client, partition_id=partition, starting_position="-1") as reader,
        pytest.raises(EventHubError, match=f"no consumer group named '{name}'"),
    ):
        reader.next()


def test_the_groups_as_an_operator_sees_them(server: RunningServer, groups: tuple[str, str]) -> None:
    listed = [each["name"] for each in said(moorage(server, *GROUP, "list"))]
    assert listed[0] == "$Default"
    assert set(groups) < set(listed)
    assert said(moorage(server, *GROUP, "show", "-n", groups[0].upper())) == {"name": groups[0]}
    assert said(moorage(server, *GROUP, "create", "-n", groups[0])) == {"name": groups[0]}
    assert "cannot be deleted" in refusal(moorage(server, *GROUP, "delete", "-n", "$Default"))
    assert "HTTP 404" in refusal(moorage(server, *GROUP, "show", "-n", "none"))
