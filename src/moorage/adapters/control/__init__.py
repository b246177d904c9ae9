"""Our own control API under `/moorage/v1`: what Azure does through its resource manager, and what only we have.

    segments → route (who may, verb) → SAS token of such a policy → verb → JSON

A group of routes is a module here with a class of that one noun, named in `app.py`, and a fragment of the description
beside it: `policies.py`, `policies.json`. A test compares the two: each route is described, and nothing else is.
"""

ROOT = ("moorage", "v1")


def is_control(segments: tuple[str, ...]) -> bool:
    return tuple(segment.lower() for segment in segments[:2]) == ROOT
