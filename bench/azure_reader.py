"""How fast azure-eventhub itself reads, as its users call it: one JSON line, like the load generator's."""

from __future__ import annotations

import argparse
import json
import threading
import time
from typing import Any

from azure.eventhub import EventHubConsumerClient

TIMEOUT_SECONDS = 240


class Counter:
    """Counts batches from all partitions; the clock runs from the first event to the one that is enough."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.count = wanted, 0
        self.began = self.ended = 0.0
        self.enough = threading.Event()
        self._lock = threading.Lock()

    def add(self, _: Any, events: list[Any]) -> None:
        with self._lock:
            if self.count == 0:
                self.began = time.monotonic()
            self.count += len(events)
            if self.count >= self.wanted and not self.enough.is_set():
                self.ended = time.monotonic()
                self.enough.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connection-string", required=True)
    parser.add_argument("--ca", required=True, help="CA bundle that covers the server")
    parser.add_argument("--messages", type=int, required=True)
    options = parser.parse_args()

    counter = Counter(options.messages)
    client = EventHubConsumerClient.from_connection_string(
        options.connection_string, consumer_group="$Default", connection_verify=options.ca
    )
    receiving = threading.Thread(
        target=client.receive_batch,
        kwargs={"on_event_batch": counter.add, "starting_position": "-1", "max_batch_size": 300},
        daemon=True,
    )
    cpu = time.process_time()
    receiving.start()
    if not counter.enough.wait(TIMEOUT_SECONDS):
        raise SystemExit(f"{counter.count} of {counter.wanted} events within {TIMEOUT_SECONDS} s")
    cpu = time.process_time() - cpu
    count, seconds = counter.count, counter.ended - counter.began
    client.close()
    print(
        json.dumps(
            {
                "command": "azure-eventhub",
                "operations": count,
                "seconds": seconds,
                "per_second": count / seconds,
                "load_cpu_us": cpu / count * 1e6,
            }
        )
    )


if __name__ == "__main__":
    main()
