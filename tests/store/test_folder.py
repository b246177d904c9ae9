from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moorage.errors import Unavailable
from moorage.store import folder as folder_module
from moorage.store.folder import DataFolder, RunFile, RunInfo, find_servers


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def info(data: Path | None = None) -> RunInfo:
    return RunInfo(
        pid=os.getpid(),
        data=data,
        endpoints={"mqtt": "localhost:8883"},
        env={"IOTHUB_HOSTNAME": "localhost"},
    )


@contextmanager
def server(code: str, *arguments: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has run `code`; killed in the end if it has not been."""
    imports = "import sys; from pathlib import Path; from moorage.store.folder import *"
    program = f"{imports}; {code}; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "up\n"
            yield process
        finally:
            process.kill()


# --- The data folder ------------------------------------------------------------------------------------------


def test_a_folder_is_made_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    folder = DataFolder.open(path)
    assert (folder.path, folder.records, folder.journal) == (path, path / "records.sqlite3", path / "journal")
    assert [mode(path), mode(folder.journal), mode(path / "FORMAT")] == [0o700, 0o700, 0o600]
    assert (path / "FORMAT").read_text() == "moorage data folder, format 1\n"
    folder.close()


def test_a_folder_is_opened_again_as_it_was_left(tmp_path: Path) -> None:
    DataFolder.open(tmp_path).close()
    (tmp_path / "records.sqlite3").write_text("records")
    DataFolder.open(tmp_path).close()
    assert (tmp_path / "records.sqlite3").read_text() == "records"
    assert {file.name for file in tmp_path.iterdir()} == {"FORMAT", "lock", "journal", "records.sqlite3"}


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = DataFolder.open(Path("data"))
    assert folder.path == tmp_path / "data"
    folder.close()


def test_a_second_server_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    folder = DataFolder.open(tmp_path)
    with pytest.raises(Unavailable) as refused:
        DataFolder.open(tmp_path)
    assert f"in use by the server with process id {os.getpid()}" in str(refused.value)
    assert "\n" not in str(refused.value)
    folder.close()
    folder.close()
    DataFolder.open(tmp_path).close()


def test_a_killed_server_leaves_its_folder_free(tmp_path: Path) -> None:
    with server("folder = DataFolder.open(Path(sys.argv[1]))", tmp_path) as process:
        with pytest.raises(Unavailable, match=f"process id {process.pid}:"):
            DataFolder.open(tmp_path)
        process.kill()
        process.wait()
        DataFolder.open(tmp_path).close()


def test_what_does_not_count_as_content_is_left_alone(tmp_path: Path) -> None:
    """The root of a mounted file system is a fine data folder."""
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".DS_Store").touch()
    DataFolder.open(tmp_path).close()
    assert (tmp_path / "lost+found").exists()


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("thesis.tex", "years of work", "holds other files"),
        ("records.sqlite3", "of something", "holds other files"),
        ("FORMAT", "A4\n", "is not a data folder of Moorage"),
        ("FORMAT", "moorage data folder, format 2\n", "has format 2, this release knows 1: start the newer"),
    ],
)
def test_other_and_newer_content_is_refused_unchanged(
    tmp_path: Path, name: str, content: str, why: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(Unavailable, match=why):
        DataFolder.open(tmp_path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, content)]


def test_what_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(Unavailable, match="cannot be used as data folder"):
            DataFolder.open(path)


def test_a_folder_that_cannot_be_filled_is_let_go(tmp_path: Path) -> None:
    (tmp_path / "FORMAT").write_text("moorage data folder, format 1\n")
    (tmp_path / "journal").write_text("a file where a folder belongs")
    with pytest.raises(Unavailable, match="cannot be used"):
        DataFolder.open(tmp_path)
    (tmp_path / "journal").unlink()
    DataFolder.open(tmp_path).close()


# --- Run files ------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    return path


def test_a_running_server_is_found_until_it_stops(run: Path) -> None:
    file = RunFile(run)
    assert find_servers(folder=run) == []
    file.write(info())
    assert find_servers(folder=run) == [info()]
    file.remove()
    file.remove()
    assert find_servers(folder=run) == []
    assert list(run.iterdir()) == []


def test_what_a_server_tells_may_change(run: Path) -> None:
    file = RunFile(run)
    file.write(info())
    changed = RunInfo(pid=7, data=Path("/data"), endpoints={}, env={"KEY": "é"})
    file.write(changed)
    assert find_servers(folder=run) == [changed]
    file.remove()


def test_only_the_owner_reads_a_run_file(run: Path) -> None:
    file = RunFile(run)
    file.write(info())
    assert {mode(found) for found in run.iterdir()} == {0o600}
    file.remove()


def test_servers_are_told_apart_by_data_folder(run: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tmp_path / "one")
    files = [RunFile(run) for _ in range(3)]
    infos = [info(tmp_path / "one"), info(tmp_path / "two"), info(None)]
    for file, told in zip(files, infos, strict=True):
        file.write(told)
    assert len(find_servers(folder=run)) == 3
    assert find_servers(tmp_path / "two", folder=run) == [infos[1]]
    assert find_servers(tmp_path / "alias", folder=run) == [infos[0]]
    assert find_servers(tmp_path / "three", folder=run) == []
    for file in files:
        file.remove()


def test_a_killed_server_is_not_found_and_its_files_go(run: Path) -> None:
    code = "file = RunFile(Path(sys.argv[1])); file.write(RunInfo(pid=1, data=None, endpoints={}, env={}))"
    with server(code, run) as process:
        assert [found.pid for found in find_servers(folder=run)] == [1]
        process.kill()
        process.wait()
        assert find_servers(folder=run) == []
    assert list(run.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"pid": 1})])
def test_a_run_file_of_another_make_is_passed_over(run: Path, content: str) -> None:
    file = RunFile(run)
    file.write(info())
    [facts] = run.glob("*.json")
    facts.write_text(content)
    assert find_servers(folder=run) == []
    file.remove()


def test_run_files_are_in_the_runtime_folder_of_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    file = RunFile()
    file.write(info())
    assert mode(tmp_path / "moorage") == 0o700
    assert len(list((tmp_path / "moorage").glob("*.json"))) == 1
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    file.remove()
    assert list((tmp_path / "moorage").iterdir()) == []


def test_a_server_of_a_session_without_runtime_folder_is_found_from_one_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    file = RunFile()
    file.write(info())
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "session"))
    assert find_servers() == [info()]
    file.remove()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_a_folder_open_to_others_is_neither_used_nor_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_to_all = tmp_path / f"moorage-{os.getuid()}"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    forged = RunFile(open_to_all)
    forged.write(info())
    assert find_servers() == []
    with pytest.raises(Unavailable, match="with mode 0700"):
        RunFile().write(info())
    forged.remove()


def test_nothing_of_one_system_is_needed_to_import() -> None:
    """fcntl is looked up when a lock is taken, so that the module loads where there is none."""
    assert not {"fcntl", "msvcrt"} & set(vars(folder_module))
