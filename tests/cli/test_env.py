from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from moorage.cli.env import env, wait
from moorage.cli.target import NoServer
from moorage.shells import FORMATS
from moorage.store.folder import RunFile, RunInfo

AWKWARD = {
    "IOTHUB_CONNECTION_STRING": "HostName=localhost;SharedAccessKeyName=iothubowner;SharedAccessKey=a+b/c==",
    "SSL_CERT_FILE": '/home/o\'brien & sons/$HOME/`id`/"ca".pem',
    "EMPTY": "",
}


def test_a_posix_shell_reads_back_what_was_written() -> None:
    script = (
        FORMATS["shell"](AWKWARD) + '\nprintf "%s\\n" "$IOTHUB_CONNECTION_STRING" "$SSL_CERT_FILE" "$EMPTY"'
    )
    read = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert read.splitlines() == list(AWKWARD.values())


def test_python_reads_back_what_was_written() -> None:
    script = FORMATS["python"](AWKWARD) + "\nimport json\nprint(json.dumps(dict(os.environ)))"
    read = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert AWKWARD.items() <= json.loads(read).items()


def test_javascript_is_json_with_a_word_around_it() -> None:
    written = FORMATS["node"](AWKWARD)
    assert json.loads(written.removeprefix("Object.assign(process.env, ").removesuffix(");")) == AWKWARD


def test_csharp_doubles_double_quotes() -> None:
    assert FORMATS["csharp"]({"A": 'C:\\"x"'}) == 'Environment.SetEnvironmentVariable("A", @"C:\\""x""");'


def test_json_is_an_object_of_all_names() -> None:
    assert json.loads(FORMATS["json"](AWKWARD)) == AWKWARD


def test_powershell_doubles_single_quotes() -> None:
    assert FORMATS["powershell"]({"A": "o'brien $x"}) == "$env:A = 'o''brien $x'"


def test_cmd_quotes_the_assignment_so_that_ampersands_do_no_harm() -> None:
    assert FORMATS["cmd"]({"A": "x & y"}) == 'set "A=x & y"'


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (
            "HostName=localhost:8443;SharedAccessKey=a+b/c==",
            "HostName=localhost:8443;SharedAccessKey=a+b/c==",
        ),
        ("/a b/$c", "'/a b/$c'"),
        ("o'brien", r"'o\'brien'"),
        ("C:\\ca.pem", r"'C:\\ca.pem'"),
        ("", ""),
    ],
)
def test_dotenv_is_bare_where_that_is_safe(value: str, written: str) -> None:
    assert FORMATS["dotenv"]({"A": value}) == f"A={written}"


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which no server runs yet."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_without_a_server_there_is_one_clear_line(runtime: Path) -> None:
    result = CliRunner().invoke(env)
    assert isinstance(result.exception, NoServer)
    assert str(result.exception) == "no server runs here; start one with: moorage up"


def test_of_several_servers_one_has_to_be_named(runtime: Path) -> None:
    files = [RunFile(), RunFile()]
    for number, file in enumerate(files):
        data = runtime / f"data-{number}"
        file.write(RunInfo(pid=number, data=data, endpoints={}, env={"PROVISIONING_IDSCOPE": f"0ne{number}"}))
    try:
        undecided = CliRunner().invoke(env)
        named = CliRunner().invoke(env, ["--data", str(runtime / "data-1"), "--format", "json"])
    finally:
        for file in files:
            file.remove()
    assert isinstance(undecided.exception, NoServer)
    assert "say which with --data" in str(undecided.exception)
    assert json.loads(named.output) == {"PROVISIONING_IDSCOPE": "0ne1"}


def test_wait_gives_up_when_its_time_is_over(runtime: Path) -> None:
    result = CliRunner().invoke(wait, ["--timeout", "0"])
    assert result.exit_code == 1
    assert result.stderr == "moorage: no server runs here; start one with: moorage up\n"


def test_of_several_hubs_the_first_or_the_one_that_is_named(runtime: Path) -> None:
    file = RunFile()
    first, beta = {"IOTHUB_HOSTNAME": "localhost", "A": "1"}, {"IOTHUB_HOSTNAME": "127.0.0.2"}
    file.write(RunInfo(pid=1, data=None, endpoints={}, env=first, hubs={"hub": {}, "beta": beta}))
    try:
        for options, found in (([], first), (["--hub", "BETA"], {**first, **beta})):
            shown = CliRunner().invoke(env, [*options, "--format", "json"])
            assert json.loads(shown.output) == found
        unknown = CliRunner().invoke(env, ["--hub", "gamma"])
    finally:
        file.remove()
    assert str(unknown.exception) == "the server has no hub 'gamma'; it has hub, beta"
