from __future__ import annotations

from hypothesis import settings

# The disk and the neighbours decide how long an example takes, not the code under test.
settings.register_profile("messaging", deadline=None)
settings.load_profile("messaging")
