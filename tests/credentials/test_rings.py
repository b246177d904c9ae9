from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moorage.credentials.rings import Rings


def test_a_subject_keeps_its_newest_in_order() -> None:
    rings: Rings[str, int] = Rings(per_subject=3, in_all=100)
    for number in range(5):
        rings.add("a", number)
    rings.add("b", 9)
    assert (rings.of("a"), rings.of("b"), rings.of("c")) == ([2, 3, 4], [9], [])


@given(st.lists(st.integers(0, 9), max_size=60))
def test_the_bounds_hold_and_the_newest_of_all_is_there(subjects: list[int]) -> None:
    rings: Rings[int, int] = Rings(per_subject=3, in_all=7)
    for number, subject in enumerate(subjects):
        rings.add(subject, number)
        assert rings.of(subject)[-1] == number
        kept = [rings.of(each) for each in range(10)]
        assert sum(map(len, kept)) <= 7
        assert all(len(ring) <= 3 and ring == sorted(ring) for ring in kept)
