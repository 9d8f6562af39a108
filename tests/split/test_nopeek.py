"""The penalty on what states have in common with embeddings: its value, its gradient, and whom it leaves alone."""

import numpy as np
import pytest
import torch

from fedloom.split.cut import Cut
from fedloom.split.defences import Defences, Shield
from fedloom.split.nopeek import distance_correlation
from support.split_models import Halves, examples, model, seeds_of, stacked

CUT, PARTS = Cut(1, 1), [examples(9, 4, 17), examples(6, seed=1)]
WEIGHT = 3.0


def by_hand(first_ND, second_NE):
    """Szekely, Rizzo & Bakirov (2007), sums written out in float64."""

    def centred(rows):
        away = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(-1))
        return away - away.mean(0)[None] - away.mean(1)[:, None] + away.mean()

    first, second = (centred(np.asarray(rows, np.float64)) for rows in (first_ND, second_NE))
    return np.sqrt((first * second).mean() / np.sqrt((first**2).mean() * (second**2).mean()))


def test_distance_correlation_is_that_of_its_definition():
    draw = np.random.default_rng(1)
    first = draw.normal(size=(40, 6))
    for second in (draw.normal(size=(40, 3)), first[:, :2] ** 2, first @ draw.normal(size=(6, 4))):
        found = distance_correlation(torch.tensor(first), torch.tensor(second))
        assert float(found) == pytest.approx(by_hand(first, second), rel=1e-4)


def test_rows_turned_moved_and_scaled_have_everything_in_common():
    draw = torch.Generator().manual_seed(0)
    rows_ND = torch.randn(30, 5, generator=draw)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=draw))
    assert float(distance_correlation(rows_ND, 3 * rows_ND @ turn + 7)) == pytest.approx(1.0, abs=1e-5)


def test_rows_without_spread_have_nothing_in_common_and_no_gradient_that_is_none():
    rows_ND = torch.ones(6, 4).requires_grad_()
    found = distance_correlation(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), rows_ND)
    (grad,) = torch.autograd.grad(found, [rows_ND])
    assert float(found.detach()) < 1e-5
    assert torch.isfinite(grad).all()


def gradients(made, leaves=None, weight=0.0):
    both = Halves(made, CUT, 2, shield=Shield(Defences(nopeek=weight)))
    seeds = seeds_of(both.clients)
    turn = both.turn(PARTS, seeds, leaves=leaves)
    ahead = turn.ahead()
    slopes = turn.loss(both.body.forward(ahead, seeds)[0])
    back, _, _ = both.body.backward(slopes, seeds)
    return turn.back(back), ahead, slopes, turn.loss_2K


def penalty(made, leaves, counts):
    """What is added to each client's summed loss, from the states that leave."""
    table_VD = made.module.get_parameter("model.embed_tokens.weight").detach().double().numpy()
    both = Halves(made, CUT, 2)
    total = 0.0
    for part, message, count in zip(
        PARTS, both.turn(PARTS, seeds_of(both.clients), leaves=leaves).ahead(), counts, strict=True
    ):
        tokens = np.concatenate([item.tokens_T.numpy() for item in part])
        total += (
            WEIGHT * count * by_hand(table_VD[tokens], message.packet.view(torch.float32).view(-1, made.width).numpy())
        )
    return total


def test_its_gradient_is_that_of_finite_differences_and_goes_to_the_input_part_alone():
    made = model()
    plain, ahead, slopes, loss = gradients(made)
    found, same_ahead, same_slopes, _ = gradients(made, weight=WEIGHT)
    for one, other in ((ahead, same_ahead), (slopes, same_slopes)):
        assert all(torch.equal(a.packet, b.packet) for a, b in zip(one, other, strict=True))
    moved = {name for name in plain if not torch.equal(plain[name], found[name])}
    assert moved == {name for name in plain if name.split(".")[2] == "0"}
    draw, step = torch.Generator().manual_seed(2), 2e-3
    for name in sorted(moved)[:3]:
        way = torch.randn(found[name].shape, generator=draw)
        ends = []
        for sign in (1, -1):
            leaves = stacked(made, 2)
            leaves[name] = (leaves[name].detach() + sign * step * way).requires_grad_()
            ends.append(penalty(made, leaves, loss[1].tolist()))
        wanted = (ends[0] - ends[1]) / (2 * step)
        assert float(((found[name] - plain[name]) * way).sum()) == pytest.approx(wanted, rel=0.02, abs=1e-3)


def test_training_on_the_penalty_alone_parts_states_from_embeddings():
    """Plain steps along its gradient, the rest of which is taken off: what is in common becomes less."""
    made, told = model(), []
    leaves = stacked(made, 2)
    for _ in range(5):
        with_it, _, _, loss = gradients(made, leaves, WEIGHT)
        without, *_ = gradients(made, leaves)
        told.append(penalty(made, leaves, loss[1].tolist()))
        leaves |= {
            name: (leaves[name].detach() - 1e-3 * (with_it[name] - without[name])).requires_grad_() for name in with_it
        }
    assert told == sorted(told, reverse=True)
    assert told[-1] < 0.97 * told[0]
