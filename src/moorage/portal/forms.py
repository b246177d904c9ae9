"""What a browser sends: a form within limits, and what is wrong with it, field by field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from moorage.errors import Invalid, TooLarge
from moorage.portal.texts import Texts

MAX_FORM = 1 << 20  # bytes of a whole form with its files; all of it stays in memory
MAX_FIELDS = 2_000
MAX_FILES = 8


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was chosen: its name as the browser gave it, and its bytes."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Form:
    """Fields by name, each with its values, trimmed. `problems` are sentences for the fields that are wrong."""

    fields: Mapping[str, list[str]]
    uploads: Mapping[str, list[Upload]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Form:
        """A form filled in already: None and False leave a field empty, True checks a box."""
        fields: dict[str, list[str]] = {}
        for name, value in values.items():
            if isinstance(value, (list, tuple)):
                fields[name] = [str(each) for each in value]
            elif value is not None and value is not False:
                fields[name] = ["on" if value is True else str(value)]
        return cls(fields)

    def with_fields(self, **values: str | None) -> Form:
        """The same form with other values in some fields, without those that are None. Files are left behind."""
        given = {name: [value] for name, value in values.items() if value is not None}
        kept = {name: each for name, each in self.fields.items() if name not in values}
        return Form({**kept, **given}, problems=self.problems)

    def text(self, name: str) -> str:
        """Empty where there is none."""
        values = self.fields.get(name)
        return values[0] if values else ""

    def all(self, name: str) -> list[str]:
        """What is chosen among several."""
        return list(self.fields.get(name, ()))

    def flag(self, name: str) -> bool:
        return bool(self.text(name))

    def upload(self, name: str) -> Upload | None:
        """The file that was chosen, if one was."""
        found = self.uploads.get(name)
        return found[0] if found else None

    def json_value(self, name: str, t: Texts) -> Any:
        """What JSON a field has, None where it is empty; what is wrong becomes its problem, with the line."""
        text = self.text(name)
        if not text:
            return None
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            where = t.plain("page.json_wrong", line=error.lineno, column=error.colno)
            self.problems[name] = f"{where}: {error.msg}"
        except (RecursionError, ValueError):
            self.problems[name] = t.plain("page.json_unfit")
        return None

    def json_object(self, name: str, t: Texts) -> dict[str, Any] | None:
        """The same where nothing but an object will do."""
        value = self.json_value(name, t)
        if isinstance(value, dict):
            return value
        if self.text(name) and name not in self.problems:
            self.problems[name] = t.plain("page.json_no_object")
        return None

    def hidden(self, *, leave_out: Iterable[str] = ("csrf",)) -> list[tuple[str, str]]:
        """All fields, to be sent once more."""
        out = set(leave_out)
        return [(name, value) for name, values in self.fields.items() if name not in out for value in values]


async def read_form(request: Request) -> Form:
    """Raises Invalid, and TooLarge once all of a form was taken, so that the browser reads the answer."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > MAX_FORM:
        async for _ in request.stream():
            pass
        raise TooLarge("form", f"a form with its files may have {MAX_FORM // 1024:,} KiB")
    try:
        data = await request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=MAX_FORM)
    except MultiPartException as error:
        raise Invalid("form", error.message) from None
    return await _sorted(data)


async def _sorted(data: FormData) -> Form:
    fields: dict[str, list[str]] = {}
    uploads: dict[str, list[Upload]] = {}
    for name, value in data.multi_items():
        if isinstance(value, UploadFile):
            if value.filename:
                uploads.setdefault(name, []).append(Upload(value.filename, await value.read()))
            await value.close()
        else:
            fields.setdefault(name, []).append(value.strip())
    return Form(fields, uploads)
