"""The hub's service REST API, for back ends [hub-service 3 to 9].

    host → hub, segments → route (right, verb) → SAS token of a policy with that right → verb → JSON

A group of routes is a module here with a class of that one noun, named in `app.py`. What Azure has and this release
has not stands in `absent.py`: it is known by its path and refused with 501.
"""
