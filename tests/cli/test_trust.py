from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import certifi
import pytest
from click.testing import CliRunner

from moorage.cli import trust as trusting
from moorage.cli.trust import (
    NotPermitted,
    certifi_bundle,
    change_bundle,
    change_system,
    find_ca_file,
    system_store,
    trust,
    with_ca,
    without_ca,
)
from moorage.credentials.authority import LocalAuthority
from moorage.errors import Invalid, Unavailable


class Now:
    def now(self) -> int:
        return 1_790_000_000_000_000

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture
def ca_folder(tmp_path: Path) -> Path:
    LocalAuthority.open(tmp_path / "ca", Now())
    return tmp_path / "ca"


@pytest.fixture
def ca_file(ca_folder: Path) -> Path:
    return ca_folder / "ca.pem"


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter whose certifi is a copy that a test may change, with the bundle where certifi keeps it."""
    bundle = tmp_path / "site-packages" / "certifi" / "cacert.pem"
    bundle.parent.mkdir(parents=True)
    bundle.write_bytes(Path(certifi.where()).read_bytes())
    return interpreter(tmp_path, f"echo {bundle}")


def interpreter(folder: Path, script: str) -> Path:
    file = folder / "python"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


def bundle_of(python: Path) -> Path:
    return certifi_bundle(python)


# --- the bundle of one environment --------------------------------------------------------------------------


def test_the_interpreter_itself_says_where_its_bundle_is() -> None:
    assert certifi_bundle(Path(sys.executable)) == Path(certifi.where())


@pytest.mark.parametrize("script", ["echo no module named certifi >&2; exit 1", "exit 0"])
def test_an_environment_without_certifi_is_said(tmp_path: Path, script: str) -> None:
    with pytest.raises(Invalid, match="does not say where its certifi bundle is"):
        certifi_bundle(interpreter(tmp_path, script))


def test_what_cannot_be_run_is_said(tmp_path: Path) -> None:
    file = tmp_path / "python"
    file.write_bytes(b"\0")
    with pytest.raises(Invalid, match="cannot be run"):
        certifi_bundle(file)


def test_adding_and_removing_leaves_the_bundle_as_it_was(python: Path, ca_folder: Path) -> None:
    bundle = bundle_of(python)
    before = bundle.read_bytes()
    bundle.chmod(0o640)

    added = CliRunner().invoke(trust, ["--python", str(python), "--ca", str(ca_folder)])
    assert added.exit_code == 0
    assert added.output.startswith(f"Added {ca_folder / 'ca.pem'} to {bundle}.")
    assert (ca_folder / "ca.pem").read_bytes().strip() in bundle.read_bytes()
    assert bundle.read_bytes().startswith(before)
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o640

    again = CliRunner().invoke(trust, ["--python", str(python), "--ca", str(ca_folder)])
    assert "already" in again.output
    assert bundle.read_bytes().count(b"moorage local CA") == 2  # the two marks of one block

    removed = CliRunner().invoke(trust, ["--python", str(python), "--ca", str(ca_folder), "--remove"])
    assert removed.output == f"{bundle} is as it was before.\n"
    assert bundle.read_bytes() == before

    nothing = CliRunner().invoke(trust, ["--python", str(python), "--ca", str(ca_folder), "--remove"])
    assert "does not hold" in nothing.output
    assert bundle.read_bytes() == before


@pytest.mark.parametrize("bundle", [b"", b"x", b"x\n", b"\n\n", b"x\r\n", "ü".encode()])
def test_the_block_comes_off_whatever_the_bundle_ends_with(bundle: bytes) -> None:
    assert without_ca(with_ca(bundle, b"-----BEGIN-----\n", "AB")) == bundle


def test_another_ca_takes_the_place_of_the_first() -> None:
    once = with_ca(b"roots\n", b"first", "AA")
    assert with_ca(once, b"second", "BB") == with_ca(b"roots\n", b"second", "BB")


def test_what_others_appended_behind_the_block_stays() -> None:
    bundle = with_ca(b"roots\n", b"first", "AA") + b"somebody else's\n"
    assert without_ca(bundle) == b"roots\nsomebody else's\n"


def test_copies_of_a_bundle_in_other_environments_are_left_alone(
    python: Path, ca_file: Path, tmp_path: Path
) -> None:
    """Installers share one file among environments by hard links."""
    bundle, other = bundle_of(python), tmp_path / "other.pem"
    os.link(bundle, other)
    before = other.read_bytes()
    assert change_bundle(bundle, ca_file, remove=False)
    assert other.read_bytes() == before


def test_a_bundle_of_the_system_is_refused(tmp_path: Path, ca_file: Path) -> None:
    bundle = tmp_path / "ca-certificates.crt"
    bundle.write_bytes(b"roots")
    with pytest.raises(Invalid, match="without --python"):
        change_bundle(bundle, ca_file, remove=False)
    link = tmp_path / "certifi" / "cacert.pem"
    link.parent.mkdir()
    link.symlink_to(bundle)
    with pytest.raises(Invalid, match="that others share"):
        change_bundle(link, ca_file, remove=False)
    assert bundle.read_bytes() == b"roots"


def test_nothing_but_a_certificate_is_added(python: Path, tmp_path: Path) -> None:
    nonsense = tmp_path / "ca.pem"
    nonsense.write_bytes(b"nonsense")
    before = bundle_of(python).read_bytes()
    with pytest.raises(Invalid):
        change_bundle(bundle_of(python), nonsense, remove=False)
    assert bundle_of(python).read_bytes() == before


def test_a_dry_run_changes_nothing(python: Path, ca_folder: Path) -> None:
    before = bundle_of(python).read_bytes()
    result = CliRunner().invoke(trust, ["--python", str(python), "--ca", str(ca_folder), "--dry-run"])
    assert result.output == f"Would add {ca_folder / 'ca.pem'} to {bundle_of(python)}\n"
    assert bundle_of(python).read_bytes() == before


# --- which CA -----------------------------------------------------------------------------------------------


def test_without_a_ca_the_way_to_one_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(Unavailable, match="moorage up"):
        find_ca_file()


# --- the system's store -------------------------------------------------------------------------------------


def commands(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """A machine on which only these commands are found."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name, script in scripts.items():
        file = bin_folder / name.replace("_", "-")
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    monkeypatch.setattr(trusting, "_system_path", lambda: str(bin_folder))


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.mark.usefixtures("linux")
def test_debian(tmp_path: Path, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands(tmp_path, monkeypatch, update_ca_certificates="")
    store = system_store(ca_file)
    anchor = "/usr/local/share/ca-certificates/moorage-local-ca.crt"
    assert store.add == (("install", "-D", "-m", "644", str(ca_file), anchor), ("update-ca-certificates",))
    assert store.remove == (("rm", "-f", anchor), ("update-ca-certificates", "--fresh"))


@pytest.mark.usefixtures("linux")
def test_fedora(tmp_path: Path, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands(tmp_path, monkeypatch, trust="")
    assert system_store(ca_file).add == (("trust", "anchor", "--store", str(ca_file)),)
    assert system_store(ca_file).remove == (("trust", "anchor", "--remove", str(ca_file)),)


@pytest.mark.usefixtures("linux")
def test_an_unknown_system_is_told_what_to_do_by_hand(
    tmp_path: Path, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands(tmp_path, monkeypatch)
    with pytest.raises(Unavailable, match="by hand"):
        system_store(ca_file)


def test_macos_and_windows(ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert system_store(ca_file).add[0][:2] == ("security", "add-trusted-cert")
    assert system_store(ca_file).remove == (("security", "remove-trusted-cert", "-d", str(ca_file)),)
    monkeypatch.setattr(sys, "platform", "win32")
    assert system_store(ca_file).add == (("certutil", "-addstore", "-f", "Root", str(ca_file)),)
    assert len(system_store(ca_file).remove[0][-1]) == 40  # the SHA-1 thumbprint


def test_an_ordinary_user_gets_the_commands_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trusting, "may_change_system", lambda: False)
    with pytest.raises(NotPermitted) as refused:
        change_system((("install", "/home/o'brien/ca.pem"), ("update-ca-certificates",)))
    assert "sudo install '/home/o'\"'\"'brien/ca.pem' && sudo update-ca-certificates" in str(refused.value)


@pytest.mark.usefixtures("linux")
def test_root_runs_them_in_order(tmp_path: Path, ca_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = tmp_path / "done"
    commands(
        tmp_path,
        monkeypatch,
        install=f'echo install "$5" >> {done}',
        update_ca_certificates=f"echo update $1 >> {done}",
        rm=f"echo rm $2 >> {done}",
    )
    monkeypatch.setattr(trusting, "may_change_system", lambda: True)

    added = CliRunner().invoke(trust, ["--ca", str(ca_folder)])
    removed = CliRunner().invoke(trust, ["--ca", str(ca_folder), "--remove"])

    assert (added.exit_code, removed.exit_code) == (0, 0)
    anchor = "/usr/local/share/ca-certificates/moorage-local-ca.crt"
    assert done.read_text().splitlines() == [f"install {anchor}", "update", f"rm {anchor}", "update --fresh"]


def test_a_command_that_fails_is_named_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trusting, "may_change_system", lambda: True)
    failing = tmp_path / "update"
    failing.write_text("#!/bin/sh\necho no space >&2\nexit 3\n")
    failing.chmod(0o755)
    with pytest.raises(Unavailable, match="ended with 3: no space"):
        change_system(((str(failing),),))


def test_dry_run_shows_what_would_be_run(
    tmp_path: Path, ca_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands(tmp_path, monkeypatch, update_ca_certificates="exit 9")
    result = CliRunner().invoke(trust, ["--ca", str(ca_folder), "--dry-run"])
    assert result.exit_code == 0
    assert result.output.splitlines()[1] == "update-ca-certificates"
