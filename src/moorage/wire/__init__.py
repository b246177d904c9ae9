"""Protocol engines without I/O: bytes in, events out, and back. No clock, no device words, no waiting."""
