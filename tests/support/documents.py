"""The pages in `docs/`, as a reader types them in."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
_BASH = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def bash_blocks(page: str) -> list[str]:
    """What stands in the page's ```bash blocks, in order."""
    return _BASH.findall((DOCS / page).read_text("utf-8"))
