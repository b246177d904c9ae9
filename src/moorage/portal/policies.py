"""Shared access policies of the provisioning service and of each hub: rights, keys, connection strings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from moorage.credentials.policy import HUB_RULES, PROVISIONING_RULES
from moorage.portal.api import Api, Refused
from moorage.portal.forms import Form
from moorage.portal.owners import Owner
from moorage.portal.pages import Pages, action, done, page, text_of

KEYS = ("primary", "secondary", "swap")


class PolicyPages:
    def __init__(self, api: Api, pages: Pages) -> None:
        self._api = api
        self._pages = pages
        self.routes: tuple[Route, ...] = (*self._below("/policies"), *self._below("/hubs/{hub}/policies"))

    def _below(self, root: str) -> Iterator[Route]:
        yield page(root, self._list)
        yield action(root, self._create)
        yield page(f"{root}/{{policy}}", self._show)
        yield action(f"{root}/{{policy}}", self._change)
        yield action(f"{root}/{{policy}}/renew", self._renew)
        yield action(f"{root}/{{policy}}/delete", self._delete)

    async def _list(self, request: Request) -> Response:
        return await self._render_list(request, Form.of({}))

    async def _render_list(self, request: Request, form: Form, status: int = 200) -> Response:
        owner = PolicyOwner(self._api, request)
        return await self._pages.render(
            request,
            "policies/list.html",
            status=status,
            owner=owner,
            policies=await owner.service.get(owner.path),
            form=form,
        )

    async def _create(self, request: Request, form: Form) -> Response:
        owner, name = PolicyOwner(self._api, request), form.text("keyName")
        if not name:
            form.problems["keyName"] = text_of(request).plain("policies.name_missing")
            return await self._render_list(request, form, 400)
        try:
            await owner.service.put(owner.api_path(name), {"rights": form.all("rights")})
        except Refused as refused:
            form.problems["keyName" if refused.status == 409 else "rights"] = refused.message
            return await self._render_list(request, form, refused.status)
        return done(request, owner.root, "policies.created", name=name)

    async def _show(self, request: Request) -> Response:
        owner = PolicyOwner(self._api, request)
        found = await owner.service.get(owner.api_path(_name(request)))
        return await self._render_one(request, owner, found, Form.of(found))

    async def _render_one(
        self, request: Request, owner: PolicyOwner, found: Mapping[str, Any], form: Form, status: int = 200
    ) -> Response:
        return await self._pages.render(
            request,
            "policies/show.html",
            status=status,
            owner=owner,
            policy=found,
            form=form,
            connection_strings=await owner.connection_strings(found),
        )

    async def _change(self, request: Request, form: Form) -> Response:
        """The rights. What somebody else has changed meanwhile stands beside what was wanted."""
        owner, name = PolicyOwner(self._api, request), _name(request)
        try:
            await owner.service.put(
                owner.api_path(name), {"rights": form.all("rights")}, if_match=f'"{form.text("etag")}"'
            )
        except Refused as refused:
            if refused.status not in (400, 412):
                raise
            found = await owner.service.get(owner.api_path(name))
            form.problems["rights"] = refused.message
            if refused.status == 412:
                now = ", ".join(found["rights"])
                form.problems["rights"] = text_of(request).plain("policies.overtaken", rights=now)
            return await self._render_one(request, owner, found, form, refused.status)
        return done(request, owner.page(name), "policies.changed", name=name)

    async def _renew(self, request: Request, form: Form) -> Response:
        owner, name, key = PolicyOwner(self._api, request), _name(request), form.text("key")
        if key != "swap" and not form.flag("confirmed"):
            t = text_of(request)
            return await self._pages.confirm(
                request,
                form,
                title=t("policies.renew_title"),
                names=[name],
                button=t("policies.renew_primary" if key == "primary" else "policies.renew_secondary"),
                back=owner.page(name),
            )
        await owner.service.post(f"{owner.api_path(name)}/renewKey", {"key": key})
        return done(request, owner.page(name), "policies.renewed", name=name)

    async def _delete(self, request: Request, form: Form) -> Response:
        return await PolicyOwner(self._api, request).delete(
            self._pages, request, form, _name(request), title="policies.delete_title", said="policies.deleted"
        )


class PolicyOwner(Owner):
    def __init__(self, api: Api, request: Request) -> None:
        super().__init__(api, request, "policies", of_service="service/policies")
        self.rules = PROVISIONING_RULES if self.hub is None else HUB_RULES
        self._api = api

    @property
    def rights(self) -> list[str]:
        return sorted(self.rules.rights)

    async def connection_strings(self, policy: Mapping[str, Any]) -> list[str]:
        """With the primary and with the secondary key: that of the environment, in the name of this policy."""
        of_hub = {"hub": self.hub} if self.hub is not None else {}
        environment = await self._api.dps.get("/moorage/v1/environment", **of_hub)
        variable = (
            "PROVISIONING_SERVICE_CONNECTION_STRING" if self.hub is None else "IOTHUB_CONNECTION_STRING"
        )
        host = re.match("HostName=[^;]*", environment[variable])
        keys = (policy["primaryKey"], policy["secondaryKey"])
        return [
            f"{host[0] if host else ''};SharedAccessKeyName={policy['keyName']};SharedAccessKey={key}"
            for key in keys
        ]


def _name(request: Request) -> str:
    return str(request.path_params["policy"])
