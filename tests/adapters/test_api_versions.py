from __future__ import annotations

from collections.abc import Callable

import pytest

from moorage.adapters import api_versions
from moorage.errors import Invalid

NEWEST_DEVICE = api_versions.device("2026-11-15-preview")


def test_the_table_is_in_order() -> None:
    dates = [known.since[:10] for known in api_versions.VERSIONS]
    assert dates == sorted(dates)
    assert len({known.since for known in api_versions.VERSIONS}) == len(api_versions.VERSIONS)


@pytest.mark.parametrize(
    ("text", "reprovisioning", "precise_substatus"),
    [
        ("2017-08-31-preview", False, False),
        ("2018-04-01", False, False),
        ("2018-08-31", False, False),
        ("2018-09-01-preview", True, False),
        ("2019-03-31", True, False),
        ("2021-05-31", True, False),
        ("2021-06-01", True, True),
        ("2026-11-15-preview", True, True),
        ("2031-01-01", True, True),
    ],
)
def test_what_a_device_of_a_version_knows(text: str, reprovisioning: bool, precise_substatus: bool) -> None:
    version = api_versions.device(text)
    assert (version.reprovisioning, version.precise_substatus) == (reprovisioning, precise_substatus)
    assert version.text == text


def test_the_service_learnt_the_precise_substatus_with_its_own_version() -> None:
    assert not api_versions.service("2019-03-31").precise_substatus
    assert api_versions.service("2021-10-01").precise_substatus


def test_spelling_does_not_matter() -> None:
    assert api_versions.service("2018-09-01-PREVIEW") == api_versions.service("2018-09-01-preview")


@pytest.mark.parametrize("parse", [api_versions.device, api_versions.service, api_versions.hub])
@pytest.mark.parametrize(
    "text", [None, "", "latest", "2021", "2021-13-01", "2021-06-32", "20210601", "2021-06-01-", "2021-06-01 "]
)
def test_what_is_no_version(parse: Callable[[str | None], object], text: str | None) -> None:
    with pytest.raises(Invalid, match=r"^api-version: .*20\d\d-\d\d-\d\d"):
        parse(text)


def test_older_than_the_oldest_is_refused_by_dps_alone() -> None:
    with pytest.raises(Invalid, match="2017-08-31-preview"):
        api_versions.device("2016-01-01")
    assert api_versions.hub("2016-02-03") == "2016-02-03"
