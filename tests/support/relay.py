"""A relay in this process, as Flower is one between processes: one call at a time to each node, one answer to each."""

import itertools
import queue
import threading
from contextlib import contextmanager
from types import SimpleNamespace

from fedloom.network import relay_link, relay_server, server
from fedloom.network.relay_link import relayed


class Relay:
    """Calls and answers by place; what passes can be looked at, changed and lost."""

    where = "a relay"

    def __init__(self, names):
        self.places = {name: place for place, name in enumerate(names, 100)}
        self.waiting = {place: queue.Queue() for place in self.places.values()}
        self.came, self.lock = {}, threading.Lock()
        self.refused, self.count = [], itertools.count()
        self.on_answer = lambda place, data: data
        self.on_call = lambda place, data: data
        self.passed = []

    def nodes(self):
        return list(self.waiting)

    def send(self, node, data):
        call = f"call {next(self.count)}"
        self.passed.append((node, data))
        self.waiting[node].put((call, self.on_call(node, data)))
        return call

    def replies(self, calls):
        with self.lock:
            return {call: self.came.pop(call) for call in calls if call in self.came}

    def taken(self, place, timeout_s):
        try:
            call, data = self.waiting[place].get(timeout=timeout_s)
        except queue.Empty:
            return None

        def answer(said):
            with self.lock:
                self.came[call] = self.on_answer(place, said)

        def refuse(reason):
            self.refused.append(reason)
            with self.lock:
                self.came[call] = None

        return SimpleNamespace(origin=f"relay {place}", data=data, answer=answer, refuse=refuse)

    def calls(self, name):
        place = self.places[name]
        return SimpleNamespace(where=self.where, take=lambda timeout_s: self.taken(place, timeout_s))


@contextmanager
def serving(monkeypatch, relay):
    """Let servers be carried by this relay, at the speed of tests; give what stands for Flower's place."""

    @contextmanager
    def task(place):
        yield relay

    monkeypatch.setattr(server, "serverapp_task", task)
    monkeypatch.setattr(relay_server, "_TURN_S", 0.01)
    monkeypatch.setattr(relay_server, "_LATER_S", 0.1)
    monkeypatch.setattr(relay_link, "_TURN_S", 0.1)
    monkeypatch.setattr(relay_link, "_HOLD_S", 0.02)
    monkeypatch.setattr(relay_link, "_QUIET_S", 1.0)
    yield SimpleNamespace(address="127.0.0.1:1")


def linked(made, relay):
    """What makes each node's link through the relay."""
    return lambda name: relayed(relay.calls(name), made.node(name))
