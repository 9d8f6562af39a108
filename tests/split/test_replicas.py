"""Replicas of the server's part: averaged every E steps; one step apart they are one server."""

from dataclasses import replace

import pytest
import torch

from fedloom.contracts.local_settings import LocalSettings
from fedloom.split.cut import Cut
from support.split_models import Halves, examples, model

PARTS = [examples(9, 4, 17), examples(6, seed=1), examples(12, 5, seed=2)]
SGD = LocalSettings(optimiser="sgd", clip_norm=0.0)


def stepped(both, steps, lr=0.5):
    for _ in range(steps):
        seeds = dict.fromkeys(both.clients, (0,))
        turn = both.turn(PARTS, seeds)
        both.body.backward(turn.loss(both.body.forward(turn.ahead(), seeds)[0]), seeds)
        both.body.step(lr)
    return both


def row(both, client):
    return torch.cat([one.flatten() for one in both.body.params(client).values()]).clone()


def halves(**kinds):
    return Halves(model(), Cut(1, 1), 3, **{"settings": SGD} | kinds)


def test_replicas_averaged_after_every_step_of_sgd_are_one_server():
    one, two = stepped(halves(private=False), 3), stepped(halves(replicas=2, replicas_every=1), 3)
    start = row(halves(), "c0")
    moved = row(one, "c0") - start
    assert float((row(two, "c0") - start - moved).abs().max() / moved.abs().max()) <= 1e-4


def test_between_averages_a_replica_learns_from_its_own_clients_alone():
    apart = stepped(halves(replicas=2), 1)
    alone = Halves(model(), Cut(1, 1), 3, settings=SGD, private=False)
    seeds = dict.fromkeys(alone.clients, (0,))
    turn = alone.turn(PARTS, seeds)
    slopes = turn.loss(alone.body.forward(turn.ahead(), seeds)[0])
    alone.body.backward([one for one in slopes if one.client != "c1"], seeds)  # c0 and c2 share the first replica
    alone.body.step(0.5)
    assert torch.equal(row(apart, "c0"), row(apart, "c2"))
    assert torch.equal(row(apart, "c0"), row(alone, "c0"))
    assert not torch.equal(row(apart, "c1"), row(apart, "c0"))


def test_the_average_weighs_by_tokens_and_ends_every_round():
    apart = stepped(halves(replicas=2), 2)
    first, second = row(apart, "c0"), row(apart, "c1")
    tokens = [sum(int(item.supervised_T[1:].sum()) for item in part) for part in PARTS]
    wanted = (first * (tokens[0] + tokens[2]) + second * tokens[1]) / sum(tokens)
    kept = apart.body.kept()
    assert list(kept["rows"]) == [""]
    assert sorted(kept["steps"]) == ["replica 0", "replica 1"]
    assert float((kept["rows"][""] - wanted).abs().max()) <= 1e-6
    assert torch.equal(row(apart, "c0"), row(apart, "c1"))


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_replicas_go_on_from_what_was_kept(optimiser):
    settings = replace(LocalSettings(), optimiser=optimiser)
    whole, first, second = (halves(replicas=2, settings=settings) for _ in range(3))
    stepped(whole, 1, 0.01).body.kept()
    stepped(whole, 1, 0.01).body.kept()
    second.body.load(stepped(first, 1, 0.01).body.kept())
    stepped(second, 1, 0.01).body.kept()
    assert all(torch.equal(row(second, client), row(whole, client)) for client in whole.clients)
