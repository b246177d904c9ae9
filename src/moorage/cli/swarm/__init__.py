"""`moorage swarm`: thousands of devices with certificates or keys of their own, to find what a server can bear."""
