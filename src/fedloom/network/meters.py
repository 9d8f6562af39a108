"""What a server counts of its own work, as text for Prometheus (exposition format 0.0.4).

Names and labels are those of a table, and what stands beside a name is a number: no text, no client, no node and no key
is ever in what is scraped. Counters only rise, so that rates and means come of them: seconds waited by batches made is
the mean wait, batches by their clients how full they were, and K t(1) / t(K) the batch efficiency of 1.7 of the
specification, with t(K) the seconds computed of batches of K clients by how many there were.
"""

import threading
from collections.abc import Iterator, Mapping

__all__ = ["Meters"]

_COUNTERS = {
    "bytes_received": "Bytes of frames from nodes, by call.",
    "bytes_sent": "Bytes of frames to nodes, by call.",
    "joins": "Times that a node said hello and was let in.",
    "rounds": "Rounds that were closed.",
    "reports": "Reports of clients, by what was said to them.",
    "examples": "Examples that were trained on, as far as clients tell.",
    "asked_again": "Times that those who were missing at a deadline were asked again.",
    "repeats": "Messages that had come before and were answered as they had been, by kind.",
    "split_batches": "Batches of split steps, by how many clients were in them.",
    "split_compute_seconds": "Seconds that these batches were computed.",
    "split_wait_seconds": "Seconds that these batches waited for the last of their messages after the first.",
    "split_tokens": "Tokens whose states came.",
    "split_bytes": "Bytes of packets of split steps from clients, by kind.",
}
_GAUGES = {
    "nodes_enrolled": "Nodes that are enrolled.",
    "nodes_present": "Nodes that are connected.",
    "round": "Number of the open round, from 0; -1 before the first.",
    "clients": "Clients of the open round, by what they are at.",
    "ready": "1 where nodes are served and rounds are opened, 0 while the server starts, drains or ends.",
}


class Meters:
    """Counters of one server; any thread may add to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], float] = {}

    def add(self, name: str, value: float = 1, **label: str) -> None:
        """Add to a counter of the table, with at most one label, whose words are the program's own: KeyError."""
        _COUNTERS[name]
        (said,) = [f'{{{key}="{word}"}}' for key, word in label.items()] or [""]
        with self._lock:
            self._counts[name, said] = self._counts.get((name, said), 0) + value

    def text(self, gauges: Mapping[str, Mapping[str, float]]) -> str:
        """Return everything, with what is so at this moment: each gauge's values by the word of its label, or by ""."""
        with self._lock:
            counts = sorted(self._counts.items())
        lines: list[str] = []
        for name, helps in _COUNTERS.items():
            values = {said: value for (whose, said), value in counts if whose == name} or {"": 0.0}
            lines += _lines(f"{name}_total", "counter", helps, values)
        for name, values in gauges.items():
            said = {f'{{phase="{word}"}}' if word else "": value for word, value in values.items()}
            lines += _lines(name, "gauge", _GAUGES[name], said)
        return "\n".join(lines) + "\n"


def _lines(name: str, kind: str, helps: str, values: Mapping[str, float]) -> Iterator[str]:
    yield f"# HELP fedloom_{name} {helps}"
    yield f"# TYPE fedloom_{name} {kind}"
    yield from (f"fedloom_{name}{said} {value:.10g}" for said, value in values.items())
