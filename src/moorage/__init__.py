"""Moorage: Azure IoT Hub and its Device Provisioning Service on your own machine."""

__version__ = "0.1.0"
