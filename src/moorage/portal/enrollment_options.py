"""What can be chosen in the form of an enrollment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from moorage.portal.enrollment_form import Noun
from moorage.portal.forms import Form
from moorage.portal.texts import Texts

Record = Mapping[str, Any]
Option = tuple[str, Markup | str]


class Options:
    """Out of what the service has; what is chosen already can be kept, though it is gone there."""

    def __init__(
        self,
        noun: Noun,
        form: Form,
        t: Texts,
        *,
        linked: Sequence[Record],
        authorities: Sequence[Record],
        policies: Sequence[Record],
    ) -> None:
        self._form = form
        self._t = t
        self.mechanisms = [
            (each, t(f"{noun.texts}mechanism_{each.lower()}"), t(f"{noun.texts}hint_{each.lower()}"))
            for each in noun.mechanisms
        ]
        self.hubs = self._known([(each["name"], each["name"]) for each in linked], form.all("hubs"))
        names = [(each["name"], each["name"]) for each in policies]
        self.policies = self._or_none(self._known(names, [form.text("credential_policy")]))
        self.authority_names = [(each["name"], self._authority(each)) for each in authorities]

    def authorities(self, slot: str) -> list[Option]:
        return self._or_none(self._known(self.authority_names, [self._form.text(f"{slot}_ca")]))

    def _authority(self, record: Record) -> Markup:
        key = "enrollments.ca_verified" if record["properties"]["isVerified"] else "enrollments.ca_unverified"
        return self._t(key, name=record["name"], subject=record["properties"]["subject"])

    def _known(self, options: Sequence[Option], chosen: Sequence[str]) -> list[Option]:
        """With what is chosen in the spelling that it is written in, for the case of names does not count."""
        written = {each.lower(): each for each in chosen if each}
        known = [(written.pop(value.lower(), value), label) for value, label in options]
        return [*known, *((each, self._t("enrollments.no_longer", name=each)) for each in written.values())]

    def _or_none(self, options: Sequence[Option]) -> list[Option]:
        return [("", self._t("enrollments.none")), *options]
