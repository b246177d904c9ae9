"""Every row of a checklist and every trap has its proof: tests that are there, and that pytest collects."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

from moorage.coverage import ROWS, Area
from tests.proofs import PROOFS, TRAPS

TESTS = Path(__file__).parent
TRAPS_TOLD = {Area.DPS: 50}


@cache
def collected(file: str) -> frozenset[str]:
    """The tests of a file, as pytest finds them: functions of the module whose names begin with `test_`."""
    path = TESTS / file
    assert path.name.startswith("test_"), f"pytest does not look into {file}"
    assert path.is_file(), f"there is no {file}"
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    body = ast.parse(path.read_bytes()).body
    return frozenset(
        each.name for each in body if isinstance(each, functions) and each.name.startswith("test_")
    )


def lacking(proofs: Mapping[int, Sequence[str]]) -> Iterator[str]:
    for number, names in proofs.items():
        if not names:
            yield f"{number}: no proof"
        for name in names:
            file, _, function = name.partition("::")
            if function not in collected(file):
                yield f"{number}: {name}"


@pytest.mark.parametrize("area", PROOFS)
def test_every_row_has_a_proof(area: Area) -> None:
    assert list(PROOFS[area]) == [row.number for row in ROWS if row.area is area]
    assert not list(lacking(PROOFS[area]))


@pytest.mark.parametrize("area", TRAPS)
def test_every_trap_has_a_proof(area: Area) -> None:
    assert list(TRAPS[area]) == list(range(1, TRAPS_TOLD[area] + 1))
    assert not list(lacking(TRAPS[area]))
