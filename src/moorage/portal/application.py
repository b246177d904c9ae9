"""The portal as one ASGI application: every noun's pages behind the doorkeeper."""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib.resources import files

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from moorage.errors import Invalid, MoorageError, NotFound, TooLarge
from moorage.portal.api import Api, Ask, Refused
from moorage.portal.certificate_upload import CertificateUploads
from moorage.portal.certificates import CertificatePages
from moorage.portal.device import DevicePages
from moorage.portal.device_connections import ConnectionPages
from moorage.portal.device_frame import DeviceStatePages
from moorage.portal.device_messages import MessagePages
from moorage.portal.device_method import MethodPages
from moorage.portal.device_twin import TwinPages
from moorage.portal.devices import DevicesPages
from moorage.portal.doorkeeper import Doorkeeper
from moorage.portal.enrollment_form import GROUP, INDIVIDUAL
from moorage.portal.enrollment_groups import GroupPages
from moorage.portal.enrollments import EnrollmentPages
from moorage.portal.forms import MAX_FORM
from moorage.portal.linked_hubs import LinkedHubPages
from moorage.portal.modules import ModulesPages
from moorage.portal.new_device import NewDevicePages
from moorage.portal.overview import OverviewPages
from moorage.portal.pages import OldForm, Pages, text_of
from moorage.portal.policies import PolicyPages
from moorage.portal.registrations import RegistrationPages
from moorage.portal.sessions import Sessions
from moorage.portal.sign_in import SignInPages
from moorage.portal.telemetry import TelemetryPages
from moorage.portal.texts import Texts
from moorage.portal.workshop import WorkshopPages


def portal(
    ask: Ask,
    sessions: Sessions,
    *,
    now: Callable[[], int],
    port: int,
    host_names: Collection[str],
    secure: bool,
) -> ASGIApp:
    """`ask` reaches this server's APIs, browsers may know it by `host_names`, `now` is in microseconds.

    `port` names the cookie, for browsers keep cookies by host alone and several servers run on one machine.
    """
    api = Api(ask)
    pages = Pages(api)
    cookie = f"moorage_portal_{port}"
    sign_in = SignInPages(pages, sessions, cookie=cookie, secure=secure)
    uploads = CertificateUploads(api, pages)
    groups = (
        sign_in,
        OverviewPages(api, pages),
        uploads,
        EnrollmentPages(api, pages, uploads, INDIVIDUAL),
        EnrollmentPages(api, pages, uploads, GROUP),
        GroupPages(api, pages),
        RegistrationPages(api, pages),
        LinkedHubPages(api, pages),
        CertificatePages(api, pages),
        WorkshopPages(pages, now),
        PolicyPages(api, pages),
        DevicesPages(api, pages),
        NewDevicePages(api, pages, uploads),
        ModulesPages(api, pages, uploads),
        DevicePages(api, pages, uploads),
        DeviceStatePages(api, pages),
        TelemetryPages(api, pages),
        TwinPages(api, pages),
        MethodPages(api, pages),
        MessagePages(api, pages),
        ConnectionPages(api, pages),
    )
    app = Starlette(
        routes=[
            Mount("/static", StaticFiles(directory=str(files("moorage.portal") / "static"))),
            *(route for group in groups for route in group.routes),
        ]
    )

    async def failed(request: Request, error: Exception) -> Response:
        status, what = _status(error, text_of(request))
        tracking_id = getattr(error, "tracking_id", "")
        return await pages.render(request, "error.html", status=status, what=what, tracking_id=tracking_id)

    async def sent_too_late(request: Request, error: Exception) -> Response:
        """Nothing is done, and nothing lost: the reader may send the same once more."""
        assert isinstance(error, OldForm)
        return await pages.render(request, "old_form.html", status=403, form=error.form)

    app.add_exception_handler(OldForm, sent_too_late)
    for kind in (HTTPException, MoorageError, Exception):
        app.add_exception_handler(kind, failed)
    return Doorkeeper(app, sign_in.stranger, sessions=sessions, cookie=cookie, host_names=host_names)


def _status(error: Exception, t: Texts) -> tuple[int, str]:
    """What a page that could not be shown answers, and says."""
    match error:
        case HTTPException(status_code=404 | 405):
            return error.status_code, t.plain("error.not_found")
        case HTTPException():
            return error.status_code, error.detail
        case Refused():
            return error.status, error.message
        case NotFound():
            return 404, str(error)
        case TooLarge():
            return 413, t.plain("error.form_too_long", limit=f"{MAX_FORM // 1024:,}")
        case Invalid():
            return 400, str(error)
        case MoorageError():
            return 503, str(error)
        case _:
            return 500, ""
