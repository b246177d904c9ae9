"""Every row of a checklist and every trap has its proof: tests that are there, and that pytest collects."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

from moorage.adapters import faults
from moorage.coverage import ROWS, Area, Standing
from tests.hub_proofs import CODES, NOT_MET
from tests.proofs import PROOFS, TRAPS

TESTS = Path(__file__).parent
TRAPS_TOLD = {Area.DPS: 50, Area.HUB_DEVICE: 51, Area.HUB_SERVICE: 39}
UNMET = {code for codes in NOT_MET.values() for code in codes}
DONE = (Standing.EXACT, Standing.APPROXIMATE)


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
    rows = {row.number: row.standing for row in ROWS if row.area is area}
    assert [
        number for number, standing in rows.items() if standing in DONE and number not in PROOFS[area]
    ] == []
    assert list(PROOFS[area]) == [number for number in rows if number in PROOFS[area]]
    assert not list(lacking(PROOFS[area]))


@pytest.mark.parametrize("area", TRAPS)
def test_every_trap_has_a_proof(area: Area) -> None:
    assert list(TRAPS[area]) == list(range(1, TRAPS_TOLD[area] + 1))
    assert not list(lacking(TRAPS[area]))


def test_every_code_of_the_hub_has_a_proof() -> None:
    assert list(CODES) == sorted({fault.code for fault in faults.HUB.values()} - UNMET)
    assert not list(lacking(CODES))
