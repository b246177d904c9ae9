from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from moorage.cli import doctor as doctoring
from moorage.cli.doctor import OK, PROBLEM, WARNING, Remark, doctor
from moorage.cli.ports import Holder, Port
from moorage.credentials.authority import LocalAuthority
from moorage.store.folder import RunInfo


class Now:
    def now(self) -> int:
        return 1_790_000_000_000_000

    def monotonic(self) -> float:
        return 0.0


def running(endpoints: Mapping[str, str], **env: str) -> RunInfo:
    names = {
        "IOTHUB_HOSTNAME": "localhost",
        "PROVISIONING_HOST": "localhost",
        "MOORAGE_PORTAL_URL": "http://127.0.0.1:1",
    }
    return RunInfo(pid=4711, data=None, endpoints=endpoints, env=names | env)


def only(remarks: Iterator[Remark], word: str) -> Remark:
    found = [remark for remark in remarks if word in remark.text]
    assert len(found) == 1, found
    return found[0]


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int], Port]:
    """What probing a port says; free unless a test says otherwise."""
    states: dict[tuple[str, int], Port] = {}
    monkeypatch.setattr(doctoring, "probe", lambda address, port: states.get((address, port), Port.FREE))
    monkeypatch.setattr(doctoring, "holder", lambda address, port: Holder(12, "mosquitto"))
    return states


# --- ports --------------------------------------------------------------------------------------------------


def test_all_ports_free(states: dict[tuple[str, int], Port]) -> None:
    remarks = list(doctoring.ports([]))
    assert [remark.verdict for remark in remarks] == [OK] * 4
    assert [remark.text for remark in remarks][:2] == ["MQTT: 8883 is free", "AMQP: 5671 is free"]


def test_a_machine_without_ipv6_is_fine(states: dict[tuple[str, int], Port]) -> None:
    for port in (8883, 5671, 443):
        states["::1", port] = Port.NO_ADDRESS
    assert {remark.verdict for remark in doctoring.ports([])} == {OK}


def test_a_taken_mqtt_port_is_a_problem_and_says_who_has_it(states: dict[tuple[str, int], Port]) -> None:
    states["127.0.0.1", 8883] = Port.TAKEN
    remark = only(doctoring.ports([]), "8883")
    assert remark.verdict == PROBLEM
    assert "taken by mosquitto (process id 12)" in remark.text
    assert remark.mend.startswith("stop what holds it")


def test_443_for_an_ordinary_user_is_a_warning_with_the_command(states: dict[tuple[str, int], Port]) -> None:
    states["127.0.0.1", 443] = Port.NOT_PERMITTED
    remark = only(doctoring.ports([]), "443")
    assert (remark.verdict, remark.mend) == (
        WARNING,
        "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=443",
    )
    assert "8443" in remark.text


def test_443_taken_is_a_warning(states: dict[tuple[str, int], Port]) -> None:
    states["::1", 443] = Port.TAKEN
    assert only(doctoring.ports([]), "443 is taken").verdict == WARNING


def test_the_portal_goes_elsewhere(states: dict[tuple[str, int], Port]) -> None:
    states["127.0.0.1", 8080] = Port.TAKEN
    remark = only(doctoring.ports([]), "8080")
    assert remark.verdict == OK
    assert "next free one" in remark.text


def test_without_loopback_nothing_works(states: dict[tuple[str, int], Port]) -> None:
    states["127.0.0.1", 8883] = Port.NO_ADDRESS
    assert only(doctoring.ports([]), "no address 127.0.0.1").verdict == PROBLEM


def test_the_doors_of_a_running_server_are_knocked_at() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        remarks = list(
            doctoring.ports([running({"mqtt": f"127.0.0.1:{port}", "https": f"127.0.0.1:{port}"})])
        )
    assert remarks[0].verdict == OK
    assert "process id 4711" in remarks[0].text
    assert remarks[1].verdict == WARNING  # REST is there, and not on 443
    closed = list(doctoring.ports([running({"mqtt": f"127.0.0.1:{port}"})]))
    assert [remark.verdict for remark in closed] == [PROBLEM]


# --- names --------------------------------------------------------------------------------------------------


def resolve(monkeypatch: pytest.MonkeyPatch, **addresses: list[str]) -> None:
    def getaddrinfo(host: str, *_: object, **__: object) -> list[object]:
        found = addresses.get(host.replace(".", "_"))
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "hosts"
    monkeypatch.setattr(doctoring, "hosts_file", lambda: file)
    return file


def test_names_that_are_well(monkeypatch: pytest.MonkeyPatch, hosts: Path) -> None:
    resolve(monkeypatch, localhost=["127.0.0.1", "::1"])
    hosts.write_text("127.0.0.1 localhost # global.azure-devices-provisioning.net\n")
    remarks = list(doctoring.names([]))
    assert {remark.verdict for remark in remarks} == {OK}
    assert "need a hub name with one" in only(iter(remarks), "no dot").text
    assert only(iter(remarks), "Azure's own").mend.endswith(f"sudo tee -a {hosts}")


def test_a_hub_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch, hosts: Path) -> None:
    resolve(monkeypatch, localhost=["127.0.0.1"])
    remarks = doctoring.names([running({}, IOTHUB_HOSTNAME="hub.example.test")])
    remark = only(remarks, "hub.example.test")
    assert remark.verdict == PROBLEM
    assert "127.0.0.1 hub.example.test" in remark.mend


def test_localhost_that_is_something_else(monkeypatch: pytest.MonkeyPatch, hosts: Path) -> None:
    resolve(monkeypatch, localhost=["10.0.0.1"])
    assert only(doctoring.names([]), "without 127.0.0.1").verdict == PROBLEM


def test_an_alias_for_the_global_endpoint_is_found(monkeypatch: pytest.MonkeyPatch, hosts: Path) -> None:
    resolve(monkeypatch, localhost=["127.0.0.1"])
    hosts.write_text("# comment\n127.0.0.1 alias global.azure-devices-provisioning.net\n")
    remark = only(doctoring.names([]), "global.azure-devices-provisioning.net")
    assert remark == Remark("names", OK, f"{doctoring.GLOBAL_ENDPOINT} is 127.0.0.1 by {hosts}")


# --- trust --------------------------------------------------------------------------------------------------


@pytest.fixture
def ca_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CA that this machine's own store does not know, and a shell with no variables set."""
    LocalAuthority.open(tmp_path / "ca", Now())
    file = tmp_path / "ca" / "ca.pem"
    monkeypatch.setattr(doctoring, "find_ca_file", lambda data: file)
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    return file


def test_a_fresh_shell_is_told_about_the_environment(ca_file: Path) -> None:
    remarks = list(doctoring.trust(None))
    assert only(iter(remarks), "the CA is").verdict == OK
    for word in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"):
        assert only(iter(remarks), word) == Remark(
            "trust", WARNING, only(iter(remarks), word).text, doctoring.ENV
        )
    assert only(iter(remarks), "certifi:").mend == f"moorage trust --python {sys.executable}"


def test_a_shell_with_the_environment_trusts(
    ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(b"other roots\n" + ca_file.read_bytes().replace(b"\n", b"\r\n"))
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"):
        monkeypatch.setenv(name, str(bundle))
        assert only(doctoring.trust(None), name).verdict == OK


def test_variables_that_name_the_wrong_file(
    ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(b"roots")
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    assert only(doctoring.trust(None), "SSL_CERT_FILE").verdict == WARNING
    other.unlink()
    missing = only(doctoring.trust(None), "SSL_CERT_FILE")
    assert missing.verdict == PROBLEM
    assert "every TLS connection fails" in missing.text


def test_without_openssl_the_system_is_passed_over(ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctoring, "system_trusts", lambda ca: None)
    assert not [remark for remark in doctoring.trust(None) if "system's store" in remark.text]


def test_openssl_is_asked_about_the_system_and_not_about_this_shell(
    ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    assert doctoring.system_trusts(ca_file) is False


# --- clock, disk, versions ----------------------------------------------------------------------------------


def test_a_clock_that_was_never_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 86_400.0)
    assert only(doctoring.clock([]), "1970-01-02").verdict == PROBLEM


@pytest.mark.parametrize(
    ("ahead", "verdict", "words"), [(0.4, OK, "agrees"), (7200.0, WARNING, "7200 s ahead")]
)
def test_the_servers_clock(ahead: float, verdict: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctoring, "_ahead", lambda server: ahead)
    assert only(doctoring.clock([running({})]), words).verdict == verdict


def test_a_server_that_does_not_tell_its_time_is_passed_over() -> None:
    assert len(list(doctoring.clock([running({})]))) == 1


class Usage(NamedTuple):
    free: int


@pytest.mark.parametrize(("free", "verdict"), [(50, PROBLEM), (500, WARNING), (5000, OK)])
def test_free_space(free: int, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(free * doctoring.MIB))
    assert only(doctoring.disk(tmp_path / "not" / "there" / "yet"), "MiB free").verdict == verdict


def test_a_disk_is_left_as_it_was(tmp_path: Path) -> None:
    remarks = list(doctoring.disk(tmp_path))
    assert "a synced write takes" in remarks[-1].text
    assert not list(tmp_path.iterdir())


def test_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctoring, "sync_time", lambda folder: 0.1)
    assert only(doctoring.disk(tmp_path), "100.00 ms").verdict == WARNING


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> float:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(doctoring, "sync_time", refuse)
    assert only(doctoring.disk(tmp_path), "Read-only file system").verdict == PROBLEM


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.touch()
    assert [remark.verdict for remark in doctoring.disk(file)] == [PROBLEM]


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {remark.verdict for remark in doctoring.versions()} == {OK}
    monkeypatch.setattr(sys, "version_info", (3, 20, 0))
    assert only(doctoring.versions(), "is not tested").verdict == WARNING
    monkeypatch.setattr(doctoring, "_version", lambda name: None)
    assert only(doctoring.versions(), "quickstart").mend == "pip install 'moorage[quickstart]'"


# --- the command --------------------------------------------------------------------------------------------


def examine_as(monkeypatch: pytest.MonkeyPatch, *remarks: Remark) -> None:
    monkeypatch.setattr(doctoring, "examine", lambda data: iter(remarks))


def test_a_warning_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    examine_as(monkeypatch, Remark("ports", OK, "fine"), Remark("disk", WARNING, "slow", "buy another"))
    result = CliRunner().invoke(doctor)
    assert result.exit_code == 0
    assert (
        result.output
        == "ok       ports     fine\nwarning  disk      slow\n                   -> buy another\n"
    )


def test_a_problem_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    examine_as(monkeypatch, Remark("ports", PROBLEM, "taken"))
    result = CliRunner().invoke(doctor, ["--output", "json"])
    assert result.exit_code == 1
    assert json.loads(result.output) == [{"area": "ports", "verdict": "problem", "text": "taken", "mend": ""}]


def test_everything_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    areas = [remark.area for remark in doctoring.examine(tmp_path / "data")]
    assert list(dict.fromkeys(areas)) == ["server", "ports", "names", "trust", "clock", "disk", "versions"]


def test_the_names_of_all_hubs_are_looked_up() -> None:
    env = {"IOTHUB_HOSTNAME": "127.0.0.1", "PROVISIONING_HOST": "127.0.0.1"}
    hubs = {"hub": env, "beta": {"IOTHUB_HOSTNAME": "beta.invalid"}}
    server = RunInfo(pid=1, data=None, endpoints={}, env=env, hubs=hubs)
    (remark,) = (each for each in doctoring.names([server]) if "beta.invalid" in each.text)
    assert remark.verdict == doctoring.PROBLEM
    assert "127.0.0.1 beta.invalid" in remark.mend
