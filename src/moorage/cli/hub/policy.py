"""`moorage hub policy`: who may administer, serve and read the hub."""

from __future__ import annotations

from moorage.cli.policy import Owner, policy_group
from moorage.cli.target import HUB_VARIABLES, hub_login_options_of_named

OWNER = Owner(
    variables=HUB_VARIABLES,
    # A hub answers to its host name there as well as to its name.
    path=lambda login: f"/moorage/v1/hubs/{login.host}",
    default_policy="iothubowner",
    rights_option=("--permissions", "--rights"),
    rights="RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect",
    login_options=hub_login_options_of_named,
)

policy = policy_group(OWNER)
