"""The certificate workshop: test certificates of every kind, good ones and deliberately bad ones.

Bytes in, bytes out; the time is an argument. The command line reads and writes the files.
"""
