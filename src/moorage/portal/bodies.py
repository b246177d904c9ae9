"""The body of an event as people read it: JSON with a line for each value, text as it is, bytes as a hex dump."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

BYTES_A_LINE = 16


class Shown(NamedTuple):
    """`cut` says that there is more of it."""

    text: str
    cut: bool


def body_of(event: Mapping[str, Any], *, max_lines: int, max_characters: int) -> Shown:
    """The body of an event as the control API gives it."""
    value, cut = event["body"], bool(event["bodyTruncated"])
    if event["bodyFormat"] == "base64":
        payload = base64.b64decode(value)
        shown = payload[: max_lines * BYTES_A_LINE]
        return Shown(hex_dump(shown), cut or len(shown) < len(payload))
    text = _indented(value) if event["bodyFormat"] == "json" else str(value)
    beginning = "\n".join(text[:max_characters].split("\n")[:max_lines])
    return Shown(beginning, cut or len(beginning) < len(text))


def _indented(value: object) -> str:
    try:
        return json.dumps(value, indent=2, ensure_ascii=False)
    except RecursionError:  # a line for each level asks for more of it than one line for all
        return json.dumps(value, ensure_ascii=False)


def hex_dump(content: bytes) -> str:
    """Sixteen bytes a line: where they are, what they are, and as ASCII."""
    lines = []
    for at in range(0, len(content), BYTES_A_LINE):
        row = content[at : at + BYTES_A_LINE]
        readable = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:06x}  {row[:8].hex(' '):<23}  {row[8:].hex(' '):<23}  {readable}")
    return "\n".join(lines)
