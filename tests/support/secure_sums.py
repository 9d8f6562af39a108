"""Parties of a secure sum with identities of their own, and a server that a test may bend."""

import hmac
from itertools import count

import numpy as np

from fedloom.secure_sum.collector import Collector
from fedloom.secure_sum.graph import Size
from fedloom.secure_sum.party import Party
from fedloom.secure_sum.terms import Terms


def names_of(n):
    return tuple(f"client-{place:03}" for place in range(n))


def terms_of(n, *, size=4, threshold=3, min_clients=2, round=0, degree=None, run="a run"):
    whole = Size(n - 1 if degree is None else degree, threshold)
    return Terms(run, round, names_of(n), size, whole.degree, whole.threshold, min_clients)


def rows_of(terms, seed=0):
    draws = np.random.default_rng(seed)
    return {name: draws.integers(0, 2**32, terms.size, dtype=np.uint32) for name in terms.clients}


def exact(rows, names, size):
    """The sum modulo 2^32 by whole numbers of any size."""
    return [sum(int(rows[name][place]) for name in names) % 2**32 for place in range(size)]


def signs(name):
    return lambda message: hmac.digest(f"identity of {name}".encode(), message, "sha256")


def verify(name, message, signature):
    return hmac.compare_digest(signs(name)(message), signature)


def seeded(seed):
    """Random bytes that are the same in every run of a test."""
    return np.random.default_rng(seed).bytes


def parties_of(terms, seed=0):
    seeds = count(1000 * seed)
    return {
        name: Party(terms, name, sign=signs(name), verify=verify, random=seeded(next(seeds))) for name in terms.clients
    }


class Table:
    """A sum that has come to the end of a phase: what a test needs to go on, honestly or not."""

    def __init__(self, terms, *, until="mask", lost=(), seed=0):
        self.terms, self.rows = terms, rows_of(terms)
        self.parties, self.collector = parties_of(terms, seed), Collector(terms, verify)
        for party in self.parties.values():
            self.collector.take_advert(party.advertise())
        self.roster = self.collector.roster()
        if until == "advertise":
            return
        self.shares = {name: party.share(self.roster) for name, party in self.parties.items()}
        for one in self.shares.values():
            self.collector.take_shares(one)
        self.boxes = self.collector.boxes()
        if until == "share":
            return
        self.left = {name: one for name, one in self.parties.items() if name not in lost}
        self.masked = {name: one.mask(self.boxes[name], self.rows[name]) for name, one in self.left.items()}
        for one in self.masked.values():
            self.collector.take_row(one)
        self.survivors = self.collector.survivors()
        if until == "mask":
            return
        self.confirmed = {name: one.confirm(self.survivors) for name, one in self.left.items()}
        for one in self.confirmed.values():
            self.collector.take_confirmation(one)
        self.confirmations = self.collector.confirmations()
