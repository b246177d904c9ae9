"""MQTT 3.1.1 without I/O, for both ends of a connection.

`connection` turns received bytes into the events of `packets`, `packets` turns answers into bytes, and
`topics` knows filters and property bags. Nothing here answers by itself: keep-alive, the meaning of a topic,
and what outlives a connection (subscriptions, messages in flight, wills) are the caller's.
"""
