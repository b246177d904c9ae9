"""How an enrollment says its device proves itself: one module and class a mechanism, all alike.

Each is read from JSON, shown as JSON, kept as a document, and judges a device's claim (`attest`). A further
mechanism is a further module and an entry in `mechanism.MECHANISMS`.
"""
