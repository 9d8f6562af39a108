"""Fake steps: their score by the formula, what they leave alone, and a server that trains something else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedloom import api
from fedloom.base.errors import ConfigError, TrainingError
from fedloom.split.body import Body
from fedloom.split.cut import Cut
from fedloom.split.defences import LEAST_SCORE, Defences, Shield
from fedloom.split.guard import Guard
from support.paths import ROOT
from support.resuming import adapters, logs, run_to_the_end
from support.split_models import Halves, examples, model, seeds_of

CUT, PARTS = Cut(1, 1), [examples(9, 4, 17), examples(6, seed=1)]


def answers(*rows):
    """A guard that has seen these answers; a row that ends with None is one to a fake."""
    guard = Guard()
    for *row, last in rows:
        fake = last is None
        guard.add(torch.tensor([row if fake else [*row, last]], dtype=torch.float32), 1.0, fake=fake)
    return guard


def angle(a, b):
    return np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_score_is_the_formula():
    """An independent computation in NumPy, of two fakes with the answers before and after them."""
    draw = np.random.default_rng(3)
    steps = [(draw.normal(size=5) * (4 if fake else 1), fake) for fake in (False, True, False, False, True, False)]
    guard = Guard()
    for row, fake in steps:
        guard.add(torch.tensor(np.stack((row, 2 * row)), dtype=torch.float32), 3.0, fake=fake)  # summed, over 3 tokens
    rows = [row for row, _ in steps]
    f, a, b = rows[1] + rows[4], rows[0] + rows[3], rows[2] + rows[5]
    norms = [np.mean([np.linalg.norm(rows[k]) for k in at]) for at in ((1, 4), (0, 3), (2, 5))]
    apart, among = abs(norms[0] - (norms[1] + norms[2]) / 2), abs(norms[1] - norms[2])
    s = (angle(f, a + b) * apart - angle(a, b) * among) / (apart + among)
    assert guard.score() == pytest.approx(1 / (1 + np.exp(-7 * s)), rel=1e-4)
    assert guard.fakes == 2


def test_answers_that_are_all_alike_score_one_half():
    same = [1.0, 2.0]
    assert answers(same, [*same, None], same).score() == pytest.approx(0.5, abs=1e-3)


def test_a_fake_counts_between_two_others_alone_and_the_last_of_several():
    first, large, other = [1.0, 0.0], [0.0, 9.0], [0.5, 0.5]
    assert answers([*large, None], first).fakes == 0
    assert answers(first, [*large, None]).fakes == 0
    once, twice = answers(first, [*large, None], first), answers(first, [*other, None], [*large, None], first)
    assert once.fakes == twice.fakes == 1
    assert once.score() == twice.score() > 0.99


def test_what_is_kept_goes_on_where_it_ended():
    first, large = [1.0, 0.2], [0.0, 9.0]
    whole = answers(first, [*large, None], first, [*large, None], large)
    half = Guard.of(answers(first, [*large, None]).kept())
    for row, fake in ((first, False), (large, True), (large, False)):
        half.add(torch.tensor([row]), 1.0, fake=fake)
    assert half.score() == whole.score() != 0.5


def gradients(made, shield):
    both = Halves(made, CUT, 2, shield=shield)
    seeds = seeds_of(both.clients)
    turn = both.turn(PARTS, seeds)
    slopes = turn.loss(both.body.forward(turn.ahead(), seeds)[0])
    back, _, _ = both.body.backward(slopes, seeds)
    return slopes, turn.back(back), turn.loss_2K


def with_one_fake():
    """Names by which the first of two clients takes a fake step and the second does not."""
    for at in range(100):
        shield = Shield(Defences(guard=0.5), (at,))
        if shield.fake("c0", 0, 0) and not shield.fake("c1", 0, 0):
            return shield
    raise LookupError


def test_a_fake_step_moves_nothing_of_its_client_and_looks_like_any_other():
    made = model()
    slopes, grads, loss = gradients(made, with_one_fake())
    plain, wanted, true = gradients(made, None)
    assert not any(grad[0].any() for grad in grads.values())
    assert all(torch.equal(grad[1], wanted[name][1]) for name, grad in grads.items())
    assert torch.equal(loss, true)  # what is told of the loss is told of the true targets
    assert not torch.equal(slopes[0].packet, plain[0].packet)
    assert torch.equal(slopes[1].packet, plain[1].packet)
    for one, other in zip(slopes, plain, strict=True):
        assert (one.weight, one.lengths, one.n_bytes) == (other.weight, other.lengths, other.n_bytes)


def test_fakes_come_as_often_as_asked_for():
    shield = Shield(Defences(guard=0.2), (0,))
    share = np.mean([shield.fake("a", step, 0) for step in range(2000)])
    assert share == pytest.approx(0.2, abs=0.03)
    assert not any(Shield().fake("a", step, 0) for step in range(100))


def run_of(**protocol):
    changes = [f"protocol.{key}={value}" for key, value in protocol.items()]
    return api.load_run(ROOT / "experiments" / "split.toml", [*changes, "rounds=3", "evaluation.holdout=0.0"])


def hijacking(found):
    """A server that trains the clients' part towards states of its own: FSHA with a squared error for the critic."""
    backward = Body.backward

    def changed(self, arrived, seeds, micro=0):
        (passing,) = self._passing[micro]
        states = dict(zip(passing.clients, passing.arrived, strict=True))
        back, refused, lent = backward(self, arrived, seeds, micro)
        target_D = torch.linspace(-1, 1, self.middle.model.width)
        crafted = [
            replace(one, packet=self._wire.encode(states[one.client].detach() - target_D, one.where)) for one in back
        ]
        found.append(len(crafted))
        return crafted, refused, lent

    return changed


def test_a_server_that_trains_the_clients_for_its_own_end_is_found_out(tmp_path, monkeypatch):
    """T11 of the specification: gradients of another loss do not depend on the targets."""
    found = []
    monkeypatch.setattr(Body, "backward", hijacking(found))
    with pytest.raises(
        TrainingError, match=r"after 5 fake steps the score of what the server sends is 0\..*allowed is 0\.95"
    ):
        run_to_the_end(run_of(guard=0.3), tmp_path / "hijacked")
    assert found
    monkeypatch.undo()


@pytest.mark.slow
def test_an_honest_server_scores_high_and_the_run_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    scores, score = [], Guard.score

    def told(self):
        scores.append(score(self))
        return scores[-1]

    monkeypatch.setattr(Guard, "score", told)
    run_to_the_end(run_of(guard=0.3), tmp_path / "unbroken")
    assert len(scores) >= 5
    assert min(scores) > 0.999 > LEAST_SCORE
    events = api.start(run_of(guard=0.3), tmp_path / "stopped")
    while not (isinstance(event := next(events), api.RoundDone) and event.record.round == 1):
        pass
    events.close()
    list(api.resume(tmp_path / "stopped")[1])
    assert logs(tmp_path / "stopped") == logs(tmp_path / "unbroken")
    assert adapters(tmp_path / "stopped") == adapters(tmp_path / "unbroken")
    assert scores[len(scores) // 2 :] == scores[: len(scores) // 2]


def test_a_guard_with_several_cuts_is_refused():
    with pytest.raises(ConfigError, match=r"guard: found 0\.1 with several cuts"):
        run_of(guard=0.1, cuts='["1:1", "2:1"]')
