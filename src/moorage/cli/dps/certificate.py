"""`moorage dps certificate`: CA certificates that enrollments can refer to."""

from __future__ import annotations

from moorage.cli.certificate import Owner, certificate_group
from moorage.cli.rest import DPS_API_VERSION
from moorage.cli.target import DPS_VARIABLES, login_options

OWNER = Owner(
    variables=DPS_VARIABLES,
    api_version=DPS_API_VERSION,
    path=lambda login: "/moorage/v1/caCertificates",
    login_options=login_options,
)

certificate = certificate_group(OWNER)
