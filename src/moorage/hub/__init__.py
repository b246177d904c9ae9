"""IoT Hub in its own words: hubs, device identities, twins, sessions and telemetry."""
