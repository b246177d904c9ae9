"""A custom allocation webhook: what it was asked, and the answer that the test gives it."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WebhookServer:
    """`answer` goes to whoever asks, once `open` is set; a request's JSON and path are kept in `asked` and `paths`."""

    def __init__(self, *, trust: ssl.SSLContext | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.status = 200
        self.answer: object = {}
        self.delay = 0.0  # seconds before each answer
        self.open = threading.Event()
        self.open.set()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if trust is not None:
            self._server.socket = trust.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "http" if trust is None else "https"

    def url(self, query: str = "code=s3cret") -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}/api/pick?{query}"

    def definition(self) -> dict[str, str]:
        return {"webhookUrl": self.url(), "apiVersion": "2021-10-01"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.paths.append(self.path)
                webhook.asked.append(json.loads(body))
                webhook.open.wait(60)
                webhook._closing.wait(webhook.delay)
                answer = json.dumps(webhook.answer).encode()
                self.send_response(webhook.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    pass  # the server that asked was killed, or did not trust us

        return Handler

    @contextmanager
    def serving(self) -> Iterator[WebhookServer]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self.open.set()
            self._closing.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()
