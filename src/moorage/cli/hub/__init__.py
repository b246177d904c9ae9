"""`moorage hub`: the IoT hub, with the nouns and flags of `az iot hub`."""

import click

from moorage.cli import LazyGroup


@click.command(
    cls=LazyGroup,
    lazy={
        "create": ("moorage.cli.hub.hubs:create", "Make a hub."),
        "list": ("moorage.cli.hub.hubs:list_", "All hubs of the server."),
        "show": ("moorage.cli.hub.hubs:show_", "One hub."),
        "update": (
            "moorage.cli.hub.hubs:update",
            "Change how a hub keeps messages, and which SAS tokens it takes.",
        ),
        "delete": ("moorage.cli.hub.hubs:delete", "Delete a hub and everything in it."),
        "device-identity": ("moorage.cli.hub.device_identity:device_identity", "Devices that may connect."),
        "module-identity": (
            "moorage.cli.hub.module_identity:module_identity",
            "Parts of devices that connect by themselves.",
        ),
        "device-twin": ("moorage.cli.hub.twin:device_twin", "The JSON state kept for each device."),
        "module-twin": ("moorage.cli.hub.twin:module_twin", "The JSON state kept for each module."),
        "invoke-device-method": (
            "moorage.cli.hub.invoke_method:invoke_device_method",
            "Ask something of a connected device.",
        ),
        "invoke-module-method": (
            "moorage.cli.hub.invoke_method:invoke_module_method",
            "Ask something of a connected module.",
        ),
        "generate-sas-token": (
            "moorage.cli.hub.sas_token:generate_sas_token",
            "A token for a back end, a device or a module.",
        ),
        "certificate": (
            "moorage.cli.hub.certificate:certificate",
            "CA certificates whose devices connect.",
        ),
        "query": ("moorage.cli.hub.query:query", "Ask for twins by what is in them."),
        "policy": ("moorage.cli.hub.policy:policy", "Shared access policies."),
        "connection-string": (
            "moorage.cli.hub.connection_string:connection_string",
            "What back ends and tools are configured with.",
        ),
        "consumer-group": (
            "moorage.cli.hub.consumer_group:consumer_group",
            "Named views of the telemetry, for readers of their own.",
        ),
        "message-route": (
            "moorage.cli.hub.message_route:message_route",
            "Which events readers get beside telemetry.",
        ),
        "monitor-feedback": (
            "moorage.cli.hub.monitor_feedback:monitor_feedback",
            "Show what becomes of cloud-to-device messages.",
        ),
        "monitor-events": ("moorage.cli.hub.monitor_events:monitor_events", "Show telemetry as it comes in."),
    },
)
def hub() -> None:
    """The IoT hub."""
