from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.hub.query.functions import kind_of
from moorage.hub.query.groups import Groups
from moorage.hub.query.parser import parse
from moorage.hub.query.tree import UNDEFINED
from tests.support import queries

values: st.SearchStrategy[Any] = queries.scalars | st.sampled_from([None, UNDEFINED, [1], [True], {"a": 1}])
TEXT = (
    "SELECT tags.a, COUNT(), AVG(tags.b), SUM(tags.b), MIN(tags.b), MAX(tags.b) FROM devices GROUP BY tags.a"
)
RANK = ("null", "boolean", "number", "string")


def told_apart(value: Any) -> tuple[str, str]:
    """1 and 1.0 are one, true is another."""
    shown = float(value) if kind_of(value) == "number" else value
    return kind_of(value), "" if value is UNDEFINED else json.dumps(shown)


@given(st.lists(st.tuples(values, values), max_size=12), st.integers(0, 12))
def test_groups_are_what_adding_one_by_one_makes(rows: list[tuple[Any, Any]], cut: int) -> None:
    groups = Groups(parse(TEXT))
    for part in (rows[:cut], rows[cut:]):
        for place in range(0, len(part), 2):
            for group in {told_apart(row[0]): row[0] for row in part[place : place + 2]}.values():
                column = [
                    row[1] for row in part[place : place + 2] if told_apart(row[0]) == told_apart(group)
                ]
                groups.add([group], len(column), [column])
    answers = [answer for _, answer in groups.answers(None, 100)]

    by_group: dict[tuple[str, str], list[Any]] = {}
    for group, value in rows:
        by_group.setdefault(told_apart(group), []).append(value)
    assert {told_apart(answer[0]) for answer in answers} == set(by_group)
    assert len(answers) == len(by_group)
    for group, count, mean, total, least, most in answers:
        members = by_group[told_apart(group)]
        assert count == len(members)
        figures = [value for value in members if kind_of(value) == "number"]
        if figures:
            assert total == pytest.approx(sum(figures))
            assert mean == pytest.approx(sum(figures) / len(figures))
        else:
            assert (total, mean) == (UNDEFINED, UNDEFINED)
        comparable = [value for value in members if kind_of(value) in RANK]
        ranked = sorted((RANK.index(kind_of(value)), 0 if value is None else value) for value in comparable)
        if ranked:
            assert told_apart(least)[0] == RANK[ranked[0][0]]
            assert told_apart(most)[0] == RANK[ranked[-1][0]]
            assert least is None or least == ranked[0][1]
            assert most is None or most == ranked[-1][1]
        else:
            assert (least, most) == (UNDEFINED, UNDEFINED)


@given(st.lists(values, max_size=12))
def test_groups_stand_in_one_order_that_json_keeps(column: list[Any]) -> None:
    groups = Groups(parse("SELECT tags.a, COUNT() FROM devices GROUP BY tags.a"))
    for value in column:
        groups.add([value], 1, [])
    order = [placed for placed, _ in groups.answers(None, 100)]
    assert order == sorted(order)
    for size in range(1, len(order) + 1):  # a page at a time there are the same
        assert [placed for placed, _ in groups.answers(order[size - 1], 2)] == order[size : size + 2]
    assert len(set(order)) == len(order)
    assert [tuple(map(tuple, json.loads(json.dumps(placed)))) for placed in order] == order
