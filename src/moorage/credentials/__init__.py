"""Checks of proof: bytes and a time in, a fact or a refusal out.

Nothing here opens a connection or reads a clock. `authority` alone keeps files, those of the local
certificate authority; `workshop` makes certificates, and leaves it to others where they go.
"""
