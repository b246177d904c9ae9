"""Messages in motion: the embedded event log.

From the outside in: `embedded` keeps the promise `EventLog` on an event loop (who waits for which write),
`journal` knows what is kept where, `recovery` opens a folder that a crash may have left, `segment` reads one
file, `segment_format` and `event_format` are the bytes, `files` is all that is asked of the disk.
"""
