"""Sockets, TLS, timers and back-pressure: bytes between the network and a conversation.

    listener.py   doors: bind, limit, reload certificates, drain
    connection.py one accepted connection, a protocol towards the socket and a transport towards what serves it
    tls.py        … with TLS in between that accepts every client certificate
    openssl.py    the only module that knows how OpenSSL is called
    stream.py     one conversation over one transport
    http.py       a library's HTTP server protocol on those transports
    websocket.py  a WebSocket unwrapped to a byte stream

Nothing here knows what MQTT, AMQP or Azure are: a door is given what its connections are to be served by.
"""
