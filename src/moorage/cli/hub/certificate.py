"""`moorage hub certificate`: CA certificates whose devices and modules connect (type certificateAuthority)."""

from __future__ import annotations

from moorage.cli.certificate import Owner, certificate_group
from moorage.cli.rest import HUB_API_VERSION
from moorage.cli.target import HUB_VARIABLES, hub_login_options_of_named

OWNER = Owner(
    variables=HUB_VARIABLES,
    api_version=HUB_API_VERSION,
    path=lambda login: f"/moorage/v1/hubs/{login.host}/certificates",
    login_options=hub_login_options_of_named,
)

certificate = certificate_group(OWNER)
