from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moorage.credentials.workshop.subject import name_of, read_subject
from moorage.credentials.x509 import name_text
from moorage.errors import Invalid


@pytest.mark.parametrize(
    "text",
    [
        "pump-7",
        "/CN=pump-7",
        "//CN=pump-7",  # as Git Bash wants it
        "C:/Program Files/Git/CN=pump-7",  # what Git Bash makes of /CN=pump-7
        "CN=pump-7",
        "  pump-7\n",
    ],
)
def test_one_name_in_every_spelling(text: str) -> None:
    assert name_text(read_subject(text)) == "CN=pump-7"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/CN=pump-7/O=Contoso", "O=Contoso, CN=pump-7"),
        ("//CN=pump-7/O=Contoso", "O=Contoso, CN=pump-7"),
        ("C:/Program Files/Git/CN=pump-7/O=Contoso", "O=Contoso, CN=pump-7"),
        ("CN=pump-7, O=Contoso", "O=Contoso, CN=pump-7"),
        ("/cn=pump-7/ST=Bern/emailAddress=a@b.test", "E=a@b.test, S=Bern, CN=pump-7"),
        (r"/CN=line\/4", "CN=line/4"),
        (r"CN=Miller\, Ann", 'CN="Miller, Ann"'),
        (r"/CN=a\\b", r"CN=a\b"),
        ("/CN=pump-7/2.5.4.97=x", "OID.2.5.4.97=x, CN=pump-7"),
        ("line 4, pump 7", 'CN="line 4, pump 7"'),
        ("pumpe-zürich", "CN=pumpe-zürich"),
    ],
)
def test_longer_subjects(text: str, shown: str) -> None:
    assert name_text(read_subject(text)) == shown


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "CN has no value"),
        ("/", "it is empty"),
        ("//", "it is empty"),
        ("/CN=", "CN has no value"),
        ("/CN=a/pump", "not of the form CN=name"),
        ("/XY=a", "'XY' is none of C, CN"),
        ("/CN=" + "a" * 65, "not 65"),
        ("a" * 65, "not 65"),
        ("/CN=a/C=Switzerland", "C: "),
    ],
)
def test_what_makes_no_subject(text: str, why: str) -> None:
    with pytest.raises(Invalid) as raised:
        read_subject(text)
    assert why in str(raised.value)


@given(text=st.text(max_size=80))
def test_any_text_is_a_subject_or_refused(text: str) -> None:
    try:
        read_subject(text)
    except Invalid:
        pass


@given(
    name=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"]), min_size=1, max_size=64)
)
def test_a_name_behind_backslashes_comes_through(name: str) -> None:
    assume(len(name.encode()) <= 64)
    escaped = name.replace("\\", "\\\\").replace("/", "\\/")
    assert name_of(read_subject(f"/CN={escaped}")) == name
