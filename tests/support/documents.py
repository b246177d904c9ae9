"""The pages in `docs/`, as a reader types them in."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from tests.support.shell import PATIENCE, Shell, run

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS.parent / "examples"
_BASH = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def bash_blocks(page: str) -> list[str]:
    """What stands in the page's ```bash blocks, in order."""
    return _BASH.findall((DOCS / page).read_text("utf-8"))


def type_in(shell: Shell, page: str, folder: Path, *, patience: float = PATIENCE) -> str:
    """What the page's commands print; every one has to succeed."""
    (folder / "examples").symlink_to(EXAMPLES)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = run(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        "\n".join(bash_blocks(page)),
        env=shell.env | {"PATH": path},
        cwd=folder,
        patience=patience,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
