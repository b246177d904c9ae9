from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from moorage.cli.up import duration, named_file, size, up
from moorage.errors import Invalid


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("15m", 900), ("36h", 129_600), ("7d", 604_800), ("-2h", -7200), ("0.5s", 0.5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "octets"), [("1048576", 1 << 20), ("64MiB", 64 << 20), ("10gib", 10 << 30), ("0.5KiB", 512)]
)
def test_sizes(text: str, octets: int) -> None:
    assert size(text) == octets


@pytest.mark.parametrize("text", ["", "s", "1w", "one day", "1e999d"])
def test_what_is_no_duration_is_said_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a duration such as 90s"):
        duration(text)


@pytest.mark.parametrize("text", ["", "MiB", "5MB", "much", "infGiB"])
def test_what_is_no_size_is_said_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a size such as 64MiB"):
        size(text)


def test_a_function_is_given_by_name_and_file() -> None:
    assert named_file("by_model=plant/pick=1.py") == ("by_model", Path("plant/pick=1.py"))


@pytest.mark.parametrize(
    "text", ["", "pick.py", "=pick.py", "by model=pick.py", "by_model=", "x" * 65 + "=a.py"]
)
def test_what_is_no_named_file_is_said_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"is not NAME=FILE\.py"):
        named_file(text)


def test_a_function_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    option = f"by_model={tmp_path / 'missing.py'}"
    options = ["--in-memory", "--ca", str(tmp_path / "ca"), "--allocation-function", option]
    result = CliRunner().invoke(up, options)
    assert isinstance(result.exception, Invalid)
    assert "missing.py cannot be read" in str(result.exception)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            ["--amqp-plain-port", "5672", "--bind", "192.0.2.7", "--hub-host", "hub.test"],
            "tokens travel in the clear",
        ),
        (["--amqp-plain-anywhere"], "give --amqp-plain-port"),
    ],
    ids=["where others listen", "nothing to open"],
)
def test_amqp_without_tls_is_for_loopback(options: list[str], why: str) -> None:
    result = CliRunner().invoke(up, ["--in-memory", *options])
    assert isinstance(result.exception, Invalid)
    assert why in str(result.exception)


def test_an_address_that_others_can_reach_needs_a_name() -> None:
    result = CliRunner().invoke(up, ["--in-memory", "--bind", "0.0.0.0"])
    assert isinstance(result.exception, Invalid)
    assert "--hub-host" in str(result.exception)
