"""Microsoft's clients for Node in one process that many tests share: tests/clients/node/worker.js."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from queue import Empty, Queue
from typing import Any

from tests.conftest import own_environment
from tests.support.node import FOLDER

PATIENCE = 30.0  # seconds


class NodeError(Exception):
    """What a client called back with: its own `name` for it, and of an HTTP answer `status` and `body`."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(f"{error.get('name')}: {error.get('message')}")
        self.name: str | None = error.get("name")
        self.message: str = error.get("message") or ""
        self.code: str | None = error.get("code")
        self.status: int | None = error.get("status")
        self.body: str | None = error.get("body")

    @property
    def error_code(self) -> int:
        """The number that the provisioning service writes into its errors."""
        assert self.body is not None, self
        code: int = json.loads(self.body)["errorCode"]
        return code


class NodeWorker:
    """Asks for verbs of the modules in tests/clients/node, from any thread, and keeps what the clients were told."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["node", "worker.js"],
            cwd=FOLDER,
            env=own_environment(FOLDER) | {"NODE_EXTRA_CA_CERTS": env["NODE_EXTRA_CA_CERTS"]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._numbers = itertools.count()
        self._answers: dict[int, Future[Any]] = {}
        self._news: defaultdict[tuple[str, str], Queue[Any]] = defaultdict(Queue)
        self._lock = threading.Lock()
        self._reading = threading.Thread(target=self._read, name="node")
        self._reading.start()

    def ask(self, verb: str, *, within: float = PATIENCE, **asked: Any) -> Any:
        """The verb's result. Raises NodeError if the client ended in an error."""
        return self.begin(verb, **asked).result(within)

    def begin(self, verb: str, **asked: Any) -> Future[Any]:
        """Ask now and look at the result later."""
        answer: Future[Any] = Future()
        assert self._process.stdin is not None
        with self._lock:
            number = next(self._numbers)
            self._answers[number] = answer
            self._process.stdin.write(json.dumps({"id": number, "verb": verb, "asked": asked}) + "\n")
            self._process.stdin.flush()
        return answer

    def news(self, name: str, kind: str, *, within: float = PATIENCE) -> Any:
        """The next that the client called `name` was told of this kind."""
        try:
            return self._news[name, kind].get(timeout=within)
        except Empty:
            errors = list(self._news["worker", "error"].queue)
            raise AssertionError(f"no {kind} for {name} within {within:g} s; uncaught: {errors}") from None

    def take(self, name: str, kind: str, count: int, *, within: float = PATIENCE) -> list[Any]:
        deadline = time.monotonic() + within
        return [self.news(name, kind, within=deadline - time.monotonic()) for _ in range(count)]

    def stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._reading.join()
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "news" in said:
                self._news[said["name"], said["news"]].put(said.get("value"))
                continue
            answer = self._answers.pop(said["id"])
            if error := said.get("error"):
                answer.set_exception(NodeError(error))
            else:
                answer.set_result(said.get("result"))
        for answer in self._answers.values():
            answer.set_exception(AssertionError("the worker has ended"))


class NodeClient:
    """One client that lives on in the worker: `device("twin")` asks for that verb of device.js."""

    def __init__(self, worker: NodeWorker, module: str, name: str) -> None:
        self._worker, self._module, self.name = worker, module, name

    def __call__(self, verb: str, **asked: Any) -> Any:
        return self.begin(verb, **asked).result(PATIENCE)

    def begin(self, verb: str, **asked: Any) -> Future[Any]:
        return self._worker.begin(f"{self._module}.{verb}", name=self.name, **asked)

    def told(self, news: str) -> Any:
        """The next that it was told of this kind."""
        return self._worker.news(self.name, news)


class BackEnd:
    """One of the clients that answer by callbacks: `back_end("getTwin", "pump-7")`."""

    def __init__(self, worker: NodeWorker, client: str, login: str) -> None:
        self._ask = partial(worker.ask, client=client, login=login)

    def __call__(self, method: str, *args: Any) -> Any:
        return self._ask("back_end.call", method=method, args=args)

    def pages(self, method: str, *args: Any) -> list[list[Any]]:
        """All pages of the query that `method` makes."""
        pages: list[list[Any]] = self._ask("back_end.pages", method=method, args=args)
        return pages
