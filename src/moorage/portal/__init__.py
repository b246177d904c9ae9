"""The portal: pages for operators, rendered on the server.

    browser → doorkeeper (host, session, same site) → a noun's pages → Api → Azure's data plane and /moorage/v1

No rule lives here: a page asks and tells the same APIs that everybody else does, and shows what they answer. A noun is
a module with a class of its pages, named in `application.py`, templates in a folder of that name, and a table of its
texts in each file of `texts/`. Imported with the first request, so that a start does not wait for it.
"""
