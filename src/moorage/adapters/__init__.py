"""The Azure dialects: topics, addresses, paths and codes on one side, verbs of the domain on the other."""
