"""Files of certificates and keys: written whole, and a key readable by its owner alone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

KEY_MODE, CERTIFICATE_MODE = 0o600, 0o644


def create(file: Path, content: bytes, mode: int = KEY_MODE) -> bool:
    """Put `content` at `file` whole; False when there was a file already, which is left as it is."""
    temporary = _written_beside(file, content, mode)
    try:
        os.link(temporary, file)  # unlike a rename it never replaces
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if file.exists():
            return False
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def replace(file: Path, content: bytes, mode: int = KEY_MODE) -> None:
    os.replace(_written_beside(file, content, mode), file)


def _written_beside(file: Path, content: bytes, mode: int) -> Path:
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    return temporary
