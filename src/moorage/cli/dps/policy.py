"""`moorage dps policy`: who may administer and read the provisioning service."""

from __future__ import annotations

from moorage.cli.policy import Owner, policy_group
from moorage.cli.target import DPS_VARIABLES, login_options

OWNER = Owner(
    variables=DPS_VARIABLES,
    path=lambda login: "/moorage/v1/service",
    default_policy="provisioningserviceowner",
    rights_option=("--rights", "-r"),
    rights=(
        "ServiceConfig, EnrollmentRead, EnrollmentWrite, RegistrationStatusRead, RegistrationStatusWrite, "
        "DeviceConnect"
    ),
    login_options=login_options,
)

policy = policy_group(OWNER)
