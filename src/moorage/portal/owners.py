"""Whose settings a page shows: those of the provisioning service, or those of a hub, on pages that are alike."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from moorage.portal.api import Api, Refused, Service, segment
from moorage.portal.forms import Form
from moorage.portal.pages import Pages, done, text_of


class Owner:
    """`hub` is None for the provisioning service. Settings are found at `root` here and at `path` in the API."""

    def __init__(self, api: Api, request: Request, noun: str, *, of_service: str) -> None:
        """`noun` is the last part of a path, but in the API that of the service's is `of_service`."""
        self.hub: str | None = request.path_params.get("hub")
        self.service: Service = api.dps if self.hub is None else api.hub(self.hub)
        below = "" if self.hub is None else f"/hubs/{segment(self.hub)}"
        self.root = f"{below}/{noun}"
        self.path = f"/moorage/v1/{of_service}" if self.hub is None else f"/moorage/v1{self.root}"

    def page(self, name: str) -> str:
        return f"{self.root}/{segment(name)}"

    def api_path(self, name: str) -> str:
        return f"{self.path}/{segment(name)}"

    async def delete(
        self, pages: Pages, request: Request, form: Form, name: str, *, title: str, said: str
    ) -> Response:
        """Delete the setting of that name once it is confirmed. `title` asks, `said` tells that it is gone."""
        if not form.flag("confirmed"):
            t = text_of(request)
            return await pages.confirm(
                request, form, title=t(title), names=[name], button=t("page.delete"), back=self.page(name)
            )
        try:
            await self.service.delete(self.api_path(name))
        except Refused as refused:
            if refused.status != 404:  # gone already is what was wanted
                raise
        return done(request, self.root, said, name=name)
