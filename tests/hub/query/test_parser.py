from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.hub.query.parser import MAX_DEPTH, MAX_LENGTH, MAX_OPERATORS, parse, parse_condition
from moorage.hub.query.refusals import QueryInvalid, QueryTooLong
from moorage.hub.query.tree import (
    Aggregate,
    All,
    Any,
    Arithmetic,
    Array,
    Call,
    Comparison,
    Condition,
    Constant,
    Holds,
    Item,
    Membership,
    Negative,
    Not,
    Path,
    Query,
    Source,
)
from tests.support import queries

A, B, C = Path(("a",)), Path(("b",)), Path(("c",))


@given(queries.queries)
def test_what_is_printed_parses_to_the_same(query: Query) -> None:
    assert parse(str(query)) == query


@given(queries.conditions)
def test_a_condition_that_is_printed_parses_to_the_same(condition: Condition) -> None:
    assert parse_condition(str(condition)) == condition


words = "SELECT * FROM devices WHERE GROUP BY AND OR NOT IN NIN TOP AS a.b [[ ]] [ ] ( ) = <> < + - * / % , . 'x' 1 0x"
texts = st.text() | st.lists(
    st.sampled_from([*words.split(), "'", '"', "\\", "COUNT(", "is_defined(", "[[a-b]]", "1e9", "\n", "é"])
).map(" ".join)


@given(texts | texts.map(lambda text: f"SELECT * FROM devices WHERE {text}"))
def test_any_text_parses_or_is_refused_with_a_place(text: str) -> None:
    refused: QueryInvalid | None = None
    try:
        query = parse(text)
    except QueryTooLong:
        return
    except QueryInvalid as error:
        refused = error
    if refused is None:
        assert parse(str(query)) == query
        return
    lines = text.split("\n")
    assert 1 <= refused.line <= len(lines)
    assert 1 <= refused.column <= len(lines[refused.line - 1]) + 1
    assert f"Line {refused.line}:{refused.column} " in str(refused)


SENT_BY_TOOLS = [
    "SELECT * FROM devices",
    "SELECT deviceId FROM devices",
    "SELECT * FROM devices WHERE deviceId IN ['a','b']",
    "select * from devices.modules where devices.deviceId = 'x'",
    "select deviceId from devices.modules where moduleId = '$edgeAgent' and configurations.[[id]].status = 'Applied'",
    "select deviceId from devices.modules where moduleId = '$edgeAgent' and "
    "properties.desired.$version = properties.reported.lastDesiredVersion and "
    "properties.reported.lastDesiredStatus.code = 200",
    "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'j'",
    "SELECT COUNT() AS n FROM devices",
    "select * from devices where capabilities.iotEdge = true",
    "select deviceId from devices where array_contains(parentScopes, 'ms-azure-iot-edge://gw-1-6388')",
    "SELECT status, COUNT() AS n FROM devices GROUP BY status",
]


@pytest.mark.parametrize("text", SENT_BY_TOOLS)
def test_what_the_tools_really_send(text: str) -> None:
    """[hub-service 8.3, 5.3]"""
    assert parse(text)


def test_a_whole_query() -> None:
    text = """select top 5 tags.site as place, Count(), MAX(tags.n) from devices
              where is_defined(tags.site) and not (tags.a = 1 or tags.b in ["x", -2]) group by tags.site"""
    assert parse(text) == Query(
        Source.DEVICES,
        (
            Item(Path(("tags", "site")), "place"),
            Item(Aggregate("count")),
            Item(Aggregate("max", Path(("tags", "n")))),
        ),
        5,
        All(
            (
                Holds(Call("is_defined", (Path(("tags", "site")),))),
                Not(
                    Any(
                        (
                            Comparison("=", Path(("tags", "a")), Constant(1)),
                            Membership(Path(("tags", "b")), Array((Constant("x"), Constant(-2)))),
                        )
                    )
                ),
            )
        ),
        (Path(("tags", "site")),),
    )


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("a = 1 or b = 2 and c = 3", "a = 1 OR (b = 2 AND c = 3)"),
        ("not a = 1 and b = 2", "(NOT a = 1) AND b = 2"),
        ("a + b * c > 1", "a + (b * c) > 1"),
        ("a - b - c > 1", "(a - b) - c > 1"),
        ("(a + b) * c > 1", "((a + b)) * c > 1"),
        ("((a = 1))", "a = 1"),
        ("(is_defined(a))", "is_defined(a)"),
        ("a <> 1", "a != 1"),
        ("a IN (1, 2)", "a IN [1, 2]"),
        ("a = 0x1F", "a = 31"),
        ("a = .5", "a = 0.5"),
        (r"a = 'it\'s \u00e9\ud83d\udc0b'", 'a = "it\'s é\U0001f40b"'),
    ],
)
def test_two_ways_to_say_the_same(text: str, condition: str) -> None:
    assert parse_condition(text) == parse_condition(condition)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("tags.a.b", ("tags", "a", "b")),
        ("tags.[[a.b-c]]", ("tags", "a.b-c")),
        ("tags[[a b]].c", ("tags", "a b", "c")),
        ("tags['a\"b'][2]", ("tags", 'a"b', 2)),
        ("tags.in.select", ("tags", "in", "select")),
        ("tags.a-b", ("tags", "a-b")),
        ("properties.desired.$version", ("properties", "desired", "$version")),
        ("tags.größe", ("tags", "größe")),
    ],
)
def test_paths(text: str, parts: tuple[str | int, ...]) -> None:
    assert parse_condition(text) == Holds(Path(parts))


def test_a_minus_before_a_number_belongs_to_it() -> None:
    assert parse_condition("a > -1") == Comparison(">", A, Constant(-1))
    assert parse_condition("a > -b") == Comparison(">", A, Negative(B))
    assert parse_condition("a -1 > b") == Comparison(">", Arithmetic("-", A, Constant(1)), B)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", "1:1", "expected SELECT, found the end of the query"),
        ("SELECT FROM devices", "1:8", "expected a property, found FROM"),
        ("SELECT * FROM device", "1:15", "expected devices, devices.modules or devices.jobs, found device"),
        ("SELECT * FROM devices.foo", "1:15", "expected devices, devices.modules or devices.jobs"),
        (
            "SELECT *\nFROM devices\n WHERE a ==1",
            "3:11",
            "expected a property, a constant or a function, found =",
        ),
        ("SELECT * FROM devices WHERE", "1:28", "found the end of the query"),
        ("SELECT * FROM devices WHERE a = 'x", "1:33", "does not end"),
        ("SELECT * FROM devices WHERE a = 1 ORDER BY a", "1:35", "expected AND, OR"),
        ("SELECT * FROM devices WHERE foo(a)", "1:29", "there is no function foo"),
        ("SELECT * FROM devices WHERE is_defined()", "1:29", "is_defined takes one argument, found 0"),
        ("SELECT * FROM devices WHERE count() > 1", "1:29", "stands only between SELECT and FROM"),
        ("SELECT * FROM devices WHERE a IN [b]", "1:35", "expected a constant, found b"),
        ("SELECT * FROM devices WHERE a", "1:30", ""),
        ("SELECT * FROM devices WHERE a + 1", "1:34", "expected a comparison, IN or NIN"),
        ("SELECT TOP 0 * FROM devices", "1:12", "from 1 up"),
        ("SELECT * FROM devices WHERE a = 1e999", "1:33", "larger than any number"),
        (r"SELECT * FROM devices WHERE a = '\x'", "1:34", "is no escape"),
        (r"SELECT * FROM devices WHERE a = '\ud83d'", "1:33", "half of a surrogate pair"),
        ("SELECT * FROM devices; DROP TABLE twin", "1:22", "has no meaning here"),
        ("SELECT * FROM devices WHERE a LIKE 'x'", "1:31", "expected"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, place: str, words: str) -> None:
    if not words:
        assert parse(text)
        return
    with pytest.raises(QueryInvalid) as refused:
        parse(text)
    assert f"failed due to following errors: Line {place} " in str(refused.value)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 3000 + "a = 1" + ")" * 3000,
        "NOT " * 1500 + "a = 1",
        "a = " + "-" * 5000 + "b",
        "a = " + "abs(" * 1500 + "1" + ")" * 1500,
        "a = " + " + ".join("b" * 1500),
        "tags" + ".a" * 3000,
        "a = " + "9" * 5000,
    ],
)
def test_what_is_nested_too_deep_is_refused_and_costs_no_stack(text: str) -> None:
    with pytest.raises(QueryInvalid):
        parse_condition(text)


def test_many_of_one_kind_are_no_depth() -> None:
    assert parse_condition(" OR ".join(f"a={n}" for n in range(900)))
    assert parse_condition(f"a IN [{','.join('1' * 2000)}]")
    assert parse_condition("a = " + " + ".join("b" * (MAX_OPERATORS + 1)))
    assert parse_condition("(" * (MAX_DEPTH // 2) + "a = 1" + ")" * (MAX_DEPTH // 2))


def test_a_query_that_is_too_long() -> None:
    with pytest.raises(QueryTooLong):
        parse("SELECT * FROM devices".ljust(MAX_LENGTH + 1))
    assert parse("SELECT * FROM devices".ljust(MAX_LENGTH))
