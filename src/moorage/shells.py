"""An environment as shells and languages write it down: to be pasted, or evaluated."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping


def _shell(environment: Mapping[str, str]) -> str:
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment.items())


def _powershell(environment: Mapping[str, str]) -> str:
    return "\n".join(
        f"$env:{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in environment.items()
    )


def _cmd(environment: Mapping[str, str]) -> str:
    return "\n".join(f'set "{name}={value}"' for name, value in environment.items())


def _dotenv(environment: Mapping[str, str]) -> str:
    return "\n".join(f"{name}={_dotenv_value(value)}" for name, value in environment.items())


def _dotenv_value(value: str) -> str:
    """Bare where that is safe: `docker run --env-file` takes quotes for a part of the value."""
    if re.fullmatch(r"[\w@%+=:;,./-]*", value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _json(environment: Mapping[str, str]) -> str:
    return json.dumps(dict(environment), indent=2)


def _python(environment: Mapping[str, str]) -> str:
    lines = (f"    {name!r}: {value!r}," for name, value in environment.items())
    return "\n".join(("import os", "", "os.environ.update({", *lines, "})"))


def _node(environment: Mapping[str, str]) -> str:
    """JSON is JavaScript."""
    return f"Object.assign(process.env, {_json(environment)});"


def _csharp(environment: Mapping[str, str]) -> str:
    """Verbatim strings, in which a double quote is written twice."""
    return "\n".join(
        f'Environment.SetEnvironmentVariable("{name}", @"{value.replace(chr(34), chr(34) * 2)}");'
        for name, value in environment.items()
    )


FORMATS: dict[str, Callable[[Mapping[str, str]], str]] = {
    "shell": _shell,
    "powershell": _powershell,
    "cmd": _cmd,
    "json": _json,
    "dotenv": _dotenv,
    "python": _python,
    "node": _node,
    "csharp": _csharp,
}
