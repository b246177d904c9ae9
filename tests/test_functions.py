"""Allocation functions: loaded from files of the operator's, called in threads of their own."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from moorage.errors import Invalid
from moorage.functions import AT_ONCE, AllocationFunctions, load_function
from moorage.provisioning.custom_allocation import Chosen, read_answer

QUESTION = b'{"linkedHubs":["hub-a.example.net"]}'


def written(folder: Path, source: str) -> Path:
    file = folder / "pick.py"
    file.write_text(source)
    return file


def first(request: dict[str, Any]) -> dict[str, Any]:
    return {"iotHubHostName": request["linkedHubs"][0]}


async def test_a_function_of_a_file_answers_as_a_webhook_would(tmp_path: Path) -> None:
    file = written(
        tmp_path, "def allocate(request):\n    return {'iotHubHostName': request['linkedHubs'][0]}\n"
    )
    functions = AllocationFunctions({"first": load_function(file)})
    functions.check("python:first")
    answer = await functions.ask("python:first", QUESTION)
    assert json.loads(answer.body) == {"iotHubHostName": "hub-a.example.net"}
    assert (answer.status, answer.failure) == (None, "")


async def test_the_guide_s_function_works(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[1] / "docs" / "allocation.md").read_text("utf-8")
    function = load_function(written(tmp_path, guide.partition("# by_model.py\n")[2].partition("```")[0]))
    asked: dict[str, Any] = {
        "deviceRuntimeContext": {"registrationId": "pump-7"},
        "linkedHubs": ["hub-a.example.net"],
    }
    answer = await AllocationFunctions({"by_model": function}).ask(
        "python:by_model", json.dumps(asked).encode()
    )
    assert isinstance(read_answer(answer, asked["linkedHubs"]), Chosen)


def test_nothing_is_compiled_into_the_operator_s_folder(tmp_path: Path) -> None:
    file = written(tmp_path, "def allocate(request): ...\n")
    load_function(file)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("def allocate(request:\n", "SyntaxError"),
        ("raise RuntimeError('at import')\n", "at import"),
        ("def choose(request): ...\n", "defines no function"),
        ("allocate = 5\n", "defines no function"),
    ],
)
def test_a_file_that_cannot_serve_is_refused_at_the_start(tmp_path: Path, source: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        load_function(written(tmp_path, source))


def test_a_file_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        load_function(tmp_path / "missing.py")


def test_an_enrollment_cannot_name_a_function_that_is_not_there() -> None:
    with pytest.raises(Invalid, match="was started with: first"):
        AllocationFunctions({"first": first}).check("python:../../etc/passwd")


async def test_a_function_that_is_gone_after_a_restart_is_said_to_be() -> None:
    answer = await AllocationFunctions({}).ask("python:first", QUESTION)
    assert answer.failure == "the allocation function is not there"
    assert "--allocation-function first=FILE.py" in answer.detail


async def test_the_operator_gets_the_traceback_and_the_device_does_not(tmp_path: Path) -> None:
    file = written(tmp_path, "def allocate(request):\n    return {}['secret detail']\n")
    answer = await AllocationFunctions({"f": load_function(file)}).ask("python:f", QUESTION)
    assert answer.failure == "the allocation function failed"
    assert "KeyError: 'secret detail'" in answer.detail
    assert f'File "{file}", line 2, in allocate' in answer.detail
    assert "functions.py" not in answer.detail


@pytest.mark.parametrize("value", [{"payload": {1, 2}}, {"payload": float("nan")}])
async def test_what_is_not_json_is_a_failure(value: dict[str, Any]) -> None:
    answer = await AllocationFunctions({"f": lambda request: value}).ask("python:f", QUESTION)
    assert answer.failure == "the allocation function failed"


async def test_a_function_that_ends_the_interpreter_ends_only_its_thread() -> None:
    def leave(request: dict[str, Any]) -> dict[str, Any]:
        raise SystemExit(1)

    answer = await AllocationFunctions({"f": leave}).ask("python:f", QUESTION)
    assert answer.failure == "the allocation function failed"


async def test_calls_that_hang_are_given_up_and_hold_their_threads_until_they_end() -> None:
    let_go = threading.Event()

    def hang(request: dict[str, Any]) -> dict[str, Any]:
        let_go.wait(30)
        return first(request)

    functions = AllocationFunctions({"hang": hang, "first": first}, time_limit=0.1)
    hung = await asyncio.gather(*(functions.ask("python:hang", QUESTION) for _ in range(AT_ONCE)))
    assert {answer.failure for answer in hung} == {"no answer within 0.1 s"}
    assert (await functions.ask("python:first", QUESTION)).failure == "no answer within 0.1 s"
    let_go.set()
    for _ in range(100):
        if not (await functions.ask("python:first", QUESTION)).failure:
            return
    pytest.fail("the threads were not given free")
