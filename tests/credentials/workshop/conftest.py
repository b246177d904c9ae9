from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from moorage.credentials.keys import KeyType
from moorage.credentials.workshop.credential import Wish
from moorage.credentials.workshop.subject import read_subject

MakeWish = Callable[..., Wish]
OpenSsl = Callable[..., str]


@pytest.fixture
def wish() -> MakeWish:
    """`wish("pump-7", days=3)`; from the system's time, by which openssl goes too."""
    now = datetime.now(UTC).replace(microsecond=0)

    def make(subject: str, *, days: int = 30, key_type: KeyType = "ec") -> Wish:
        return Wish(read_subject(subject), now, days, key_type)

    return make


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSsl:
    """Runs openssl in `tmp_path`; what it printed, on either stream. `ok` says whether it has to succeed."""

    def run(*arguments: str, ok: bool = True) -> str:
        done = subprocess.run(
            ["openssl", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode == 0) is ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run
