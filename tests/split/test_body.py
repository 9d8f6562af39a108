"""The server's half of a step: one batch for several clients, an objective over all tokens, and who is left out."""

import re
from dataclasses import replace

import pytest
import torch

from fedloom.base.tree import Layout
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.kernels import client_gradients
from fedloom.federated.slopes import Step
from fedloom.split.carrier import Here, Session, SplitSettings
from fedloom.split.cut import Cut
from fedloom.split.ends import Ends
from fedloom.split.wire import WIRES
from support.split_models import TASK, Halves, distance, examples, model, stacked, uncut

PARTS = [examples(9, 4, 17), examples(6, seed=1), examples(12, 5, seed=2)]
SGD = LocalSettings(optimiser="sgd", clip_norm=0.0)
CUT = Cut(1, 1)


def halves(made=None, n_clients=3, **kinds):
    return Halves(made or model(), CUT, n_clients, **kinds)


def passed(both, parts, *, spoil=None, drop=()):
    """One micro-batch through the server; `spoil` changes GRAD messages, clients in `drop` send none."""
    seeds = {client: (0, client) for client in both.clients}
    turn = both.turn(parts, seeds)
    slopes = turn.loss(both.body.forward(turn.ahead(), seeds)[0])
    slopes = [spoil(one) if spoil else one for one in slopes if one.client not in drop]
    return both.body.backward(slopes, seeds)


def rows(both):
    return {client: torch.cat([one.flatten() for one in both.body.params(client).values()]) for client in both.clients}


def test_a_batched_step_is_the_steps_of_each_client_alone():
    made = model(dropout=0.2)
    together, _ = Halves(made, CUT, 3).gradients(PARTS)
    for k, part in enumerate(PARTS):
        alone, _ = Halves(made, CUT, 1).gradients([part])
        found, wanted = ({name: g[at] for name, g in grads.items()} for at, grads in ((k, together), (0, alone)))
        assert distance(found, wanted) <= 1e-6


def test_what_a_client_drops_does_not_depend_on_who_shares_the_batch():
    made = model(dropout=0.4)
    both, alone = halves(made), halves(made, 1)
    seeds = {client: (0, client) for client in both.clients}
    turn, single = both.turn(PARTS, seeds, dropout=True), alone.turn(PARTS[:1], {"c0": (0, "c0")}, dropout=True)
    found = both.body.forward(turn.ahead(), seeds)[0][0].packet.view(torch.float32)
    wanted = alone.body.forward(single.ahead(), seeds)[0][0].packet.view(torch.float32)
    assert float((found - wanted).abs().max()) <= 1e-5


def objective(made, parts):
    """The uncut model's gradient, by the middle's parameters, of the summed loss over all tokens of all clients."""
    grads, loss = uncut(made, parts)
    names = [name for name in made.trainable if 1 <= int(name.split(".")[2]) <= 4]
    return torch.cat([grads[name].sum(0).flatten() for name in names]) / loss[1].sum()


def test_a_shared_adapter_moves_along_the_token_weighted_mean_of_unequal_clients():
    made = model()
    both = halves(made, private=False, settings=SGD)
    before = rows(both)["c0"].clone()
    passed(both, PARTS)
    assert both.body.step(lr=0.5) == ["c0", "c1", "c2"]
    wanted = -0.5 * objective(made, PARTS)
    moved = rows(both)["c0"] - before
    assert float((moved - wanted).abs().max() / wanted.abs().max()) <= 1e-4  # of numbers near the rows' own rounding
    counts = [sum(int(item.supervised_T[1:].sum()) for item in part) for part in PARTS]
    assert len(set(counts)) == 3  # else any weights would do


def test_each_clients_gradient_is_clipped_by_itself():
    made, norm = model(), 0.01
    both = halves(made, private=False, settings=replace(SGD, clip_norm=norm))
    before = rows(both)["c0"].clone()
    passed(both, PARTS)
    sums = {client: (one.sum_P, one.weight) for client, one in both.body.gathered.items()}
    both.body.step(lr=1.0)
    total = sum(weight for _, weight in sums.values())
    wanted = torch.zeros_like(before)
    for grad_P, weight in sums.values():
        mean_P = (grad_P / weight).double()
        assert float(mean_P.norm()) > norm
        wanted -= (weight / total * mean_P * norm / mean_P.norm()).float()
    assert float((rows(both)["c0"] - before - wanted).abs().max()) <= 1e-4 * norm


def scaled(factor):
    def spoil(one):
        if one.client != "c1":
            return one
        return replace(one, packet=(one.packet.view(torch.float32) * factor).view(torch.uint8))

    return spoil


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_huge_gradient_leaves_private_peers_bit_unchanged(optimiser):
    found = []
    for factor in (1.0, 1e6):
        both = halves(settings=LocalSettings(optimiser=optimiser))
        passed(both, PARTS, spoil=scaled(factor))
        both.body.step(lr=0.1)
        found.append(rows(both))
    assert torch.equal(found[0]["c0"], found[1]["c0"])
    assert torch.equal(found[0]["c2"], found[1]["c2"])
    assert not torch.equal(found[0]["c1"], found[1]["c1"])


def test_a_huge_gradient_moves_a_shared_adapter_by_its_clip_at_most():
    settings = LocalSettings(optimiser="sgd", clip_norm=0.1)
    both = halves(private=False, settings=settings)
    before = rows(both)["c0"].clone()
    passed(both, PARTS, spoil=scaled(1e6))
    both.body.step(lr=1.0)
    assert float((rows(both)["c0"] - before).norm()) <= 0.1 * (1 + 1e-5)


@pytest.mark.parametrize("wire", WIRES)
def test_a_gradient_of_nan_is_refused_and_costs_nobody_else_anything(wire):
    def broken(one):
        packet = one.packet.clone()
        packet[:4] = 255
        return replace(one, packet=packet) if one.client == "c1" else one

    made, found = model(), []
    for spoil, drop in ((broken, ()), (None, ("c1",))):
        both = halves(made, wire=wire)
        back, refused, _ = passed(both, PARTS, spoil=spoil, drop=drop)
        took_part = both.body.step(lr=0.1)
        found.append(([one.packet for one in back], rows(both), took_part))
        assert list(refused) == (["c1"] if spoil else [])
        assert all("client 'c1', step 0, GRAD: holds NaN or infinity" in told for told in refused.values())
    assert found[0][2] == found[1][2] == ["c0", "c2"]
    assert all(torch.equal(*pair) for pair in zip(found[0][0], found[1][0], strict=True))
    assert all(torch.equal(found[0][1][client], found[1][1][client]) for client in found[0][1])


@pytest.mark.parametrize("private", [True, False])
def test_zero_rows_of_a_missing_client_change_nothing_for_the_others(private):
    """What the others get back is, bit for bit, what they get when it comes; the step is the one of them alone."""
    made = model()
    came, missing, never = (halves(made, n, private=private, settings=SGD) for n in (3, 3, 2))
    packets = {one.client: one.packet for one in passed(came, PARTS)[0]}
    back, _, _ = passed(missing, PARTS, drop=("c2",))
    assert [one.client for one in back] == ["c0", "c1"]
    assert all(torch.equal(one.packet, packets[one.client]) for one in back)
    passed(never, PARTS[:2])
    before = rows(missing)
    before = {client: row.clone() for client, row in before.items()}
    assert missing.body.step(lr=0.5) == never.body.step(lr=0.5) == ["c0", "c1"]
    largest = float((rows(never)["c0"] - before["c0"]).abs().max())
    assert float((rows(missing)["c0"] - rows(never)["c0"]).abs().max()) <= 1e-5 * largest
    if private:
        assert torch.equal(rows(missing)["c2"], before["c2"])


def test_a_client_that_misses_one_micro_batch_has_no_part_in_the_step():
    both = halves(private=False, settings=SGD)
    passed(both, PARTS)
    passed(both, PARTS, drop=("c1",))
    assert both.body.step(lr=0.1) == ["c0", "c2"]


def test_where_all_are_missing_nothing_moves():
    both = halves(private=False)
    before = rows(both)["c0"].clone()
    passed(both, PARTS, drop=both.clients)
    assert both.body.step(lr=0.1) == []
    assert torch.equal(rows(both)["c0"], before)


def test_clients_of_unlike_cuts_share_a_batch_and_each_has_the_uncut_gradients():
    """Blocks that a client keeps it computes; those that others keep too are lent to the server for the rest."""
    made, cuts = model(dropout=0.2), {"c0": Cut(1, 1), "c1": Cut(2, 1), "c2": Cut(1, 3)}
    both = Halves(made, CUT, 3, cuts=tuple(cuts.values()))
    settings = SplitSettings(cuts=tuple(cuts.values()), wire="float32")
    ends = {cut: Ends.of(made, cut) for cut in cuts.values()}
    session = Session(made, TASK, Here(both.body), ends, cuts, settings, (0,))
    names = {name for one in ends.values() for name in one.names}
    leaves = {name: leaf for name, leaf in stacked(made, 3).items() if name in names}
    session_step = step_of(made, tuple(cuts), leaves, PARTS)
    seeds = [(0, 0, client, 0, 0, "dropout") for client in cuts]
    gathered = {}
    both.body.step = lambda lr: gathered.update(both.body.gathered)  # the gradients as they are before a step
    grad_KP, _ = session.slope(session_step)
    found = Layout.of_tree({name: leaf[0] for name, leaf in leaves.items()}).tree(grad_KP)
    middle = Layout.of_tree(both.body.middle.initial)
    assert set(found) | set(both.body.middle.initial) == set(made.trainable)
    assert set(found) & set(both.body.middle.initial) == set()
    for k, client in enumerate(cuts):
        wanted = alone(made, PARTS[k], seeds[k])
        own = {name: grad[k] for name, grad in found.items()}
        own |= middle.tree(gathered[client].sum_P / gathered[client].weight)
        assert distance(own, wanted) <= 1e-6


def step_of(made, clients, leaves, parts):
    return Step(None, clients, 0, 0, 0.1, leaves, [[part] for part in parts], None)


def alone(made, part, seed):
    """The uncut model's mean gradient of one client that drops by these names."""
    made.context.seeds = (seed,)
    found = client_gradients(made, TASK, stacked(made, 1), [part])
    made.context.seeds = ()
    return Layout.of_tree(made.trainable).tree(found.sum_KP[0] / found.weight_K[0])


def test_adapters_and_optimisers_go_on_from_what_was_kept():
    made = model()
    whole, first, second = (halves(made, settings=LocalSettings()) for _ in range(3))
    for _ in range(2):
        passed(whole, PARTS)
        whole.body.step(lr=0.1)
    passed(first, PARTS)
    first.body.step(lr=0.1)
    second.body.load(first.body.kept())
    passed(second, PARTS)
    second.body.step(lr=0.1)
    assert all(torch.equal(rows(second)[client], rows(whole)[client]) for client in whole.clients)


def test_an_answer_beyond_the_wire_costs_its_client_the_step_alone():
    def huge(one):
        largest = torch.full((one.packet.numel() // 2,), 65504.0, dtype=torch.float16)
        return replace(one, packet=largest.view(torch.uint8)) if one.client == "c1" else one

    both = halves(wire="float16")
    back, refused, _ = passed(both, PARTS, spoil=huge)
    assert [one.client for one in back] == ["c0", "c2"]
    assert "client 'c1', step 0, BACK: NaN, infinity or a number beyond what 'float16' carries" in refused["c1"]
    assert both.body.step(lr=0.1) == ["c0", "c2"]


BAD = {
    "a wrong length": (lambda one: replace(one, packet=one.packet[:-4]), "tokens of 32 numbers take"),
    "another type": (lambda one: replace(one, packet=one.packet.float()), "tokens of 32 numbers take"),
    "too large a weight": (
        lambda one: replace(one, weight=1e9),
        "found a weight of 1e[+]09, allowed are 0 to 6 tokens",
    ),
    "a weight below zero": (lambda one: replace(one, weight=-1.0), "found a weight of -1"),
    "no number for a weight": (lambda one: replace(one, weight=float("nan")), "found a weight of nan"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_message_of_another_form_costs_its_client_the_step_and_nobody_else_anything(case):
    spoil, told = BAD[case]
    made = model()
    broken, missing = halves(made), halves(made)
    back, refused, _ = passed(broken, PARTS, spoil=lambda one: spoil(one) if one.client == "c1" else one)
    wanted, _, _ = passed(missing, PARTS, drop=("c1",))
    assert re.search(told, refused["c1"])
    assert all(torch.equal(*pair) for pair in zip((o.packet for o in back), (o.packet for o in wanted), strict=True))
    assert broken.body.step(lr=0.1) == missing.body.step(lr=0.1) == ["c0", "c2"]
    assert all(torch.equal(rows(broken)[client], rows(missing)[client]) for client in broken.clients)


@pytest.mark.parametrize("lengths", [(), (6, 0), (8, -2)], ids=str)
def test_states_with_lengths_that_are_none_are_refused_and_the_others_pass(lengths):
    both = halves()
    seeds = {client: (0, client) for client in both.clients}
    ahead = [replace(one, lengths=lengths) if one.client == "c1" else one for one in both.turn(PARTS, seeds).ahead()]
    body, refused = both.body.forward(ahead, seeds)
    assert [one.client for one in body] == ["c0", "c2"]
    assert "found sequences of" in refused["c1"]


def states(one, value):
    """What comes of a client that sends a number of its own choice for its first token."""
    if one.client != "c1":
        return one
    numbers = one.packet.view(torch.float32).clone()
    numbers[:32] = value
    return replace(one, packet=numbers.view(torch.uint8))


def stepped(both, value=None):
    """A step of which c1 may send odd states: what went back, where adapters are, who was refused, who took part."""
    seeds = {client: (0, client) for client in both.clients}
    turn = both.turn(PARTS, seeds)
    ahead = turn.ahead()
    body, refused = both.body.forward([states(one, value) for one in ahead] if value else ahead, seeds)
    blank = [replace(one, kind="BODY") for one in ahead]  # for whom got no answer: it sends no gradient
    slopes = turn.loss([next((one for one in body if one.client == other.client), other) for other in blank])
    back, _, _ = both.body.backward([one for one in slopes if one.client not in refused], seeds)
    took_part = both.body.step(lr=0.1)
    return {one.client: one.packet for one in back}, rows(both), refused, took_part


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_states_that_are_not_finite_are_refused_and_the_step_is_that_of_the_others(value, private):
    """T10 of the specification."""
    made = model()
    packets, moved, refused, took_part = stepped(halves(made, private=private), value)
    assert took_part == ["c0", "c2"] == list(packets)
    assert re.search("client 'c1', step 0, FWD: holds NaN or infinity", refused["c1"])
    missing = halves(made, private=private)
    passed(missing, PARTS, drop=("c1",))
    missing.body.step(lr=0.1)
    wanted = rows(missing)
    assert all(float((moved[client] - wanted[client]).abs().max()) <= 1e-5 for client in wanted)


@pytest.mark.parametrize("value", [1e6, 3e38])
def test_huge_states_leave_private_peers_bit_unchanged(value):
    made = model()
    (packets, moved, _, _), (wanted, there, _, _) = stepped(halves(made), value), stepped(halves(made))
    for client in ("c0", "c2"):
        assert torch.equal(packets[client], wanted[client])
        assert torch.equal(moved[client], there[client])
    assert not torch.equal(packets["c1"], wanted["c1"])


def test_a_gradient_of_one_who_sent_no_states_is_refused():
    both = halves()
    seeds = {client: (0, client) for client in both.clients}
    turn = both.turn(PARTS, seeds)
    slopes = turn.loss(both.body.forward(turn.ahead(), seeds)[0])
    stranger = replace(slopes[0], client="c9")
    _, refused, _ = both.body.backward([*slopes, stranger], seeds)
    assert list(refused) == ["c9"]
    assert both.body.step(lr=0.1) == ["c0", "c1", "c2"]


@pytest.mark.parametrize("recompute", [False, True])
def test_clients_of_like_length_pass_together_where_tokens_are_bounded(recompute):
    made = model(dropout=0.2)
    parts = [*PARTS, examples(30, seed=3)]
    whole, bounded = Halves(made, CUT, 4), Halves(made, CUT, 4, recompute=recompute, tokens=60)
    wanted, _ = whole.gradients(parts)
    found, _ = bounded.gradients(parts)
    assert distance(found, wanted) <= 1e-6
    seeds = {client: (0, client) for client in bounded.clients}
    bounded.body.forward(bounded.turn(parts, seeds).ahead(), seeds)
    assert [one.clients for one in bounded.body._passing[0]] == [("c0", "c3"), ("c1", "c2")]
    assert all(bool(one.left) is not recompute for one in bounded.body._passing[0])


def test_gradients_that_come_one_after_another_make_the_same_step_in_recompute_mode():
    made = model(dropout=0.2)
    both, apart = (halves(made, recompute=True, settings=SGD) for _ in range(2))
    seeds = {client: (0, client) for client in both.clients}
    passed(both, PARTS)
    turn = apart.turn(PARTS, seeds)
    ahead = turn.ahead()
    body = [apart.body.forward([one], seeds)[0][0] for one in ahead]  # who passed with whom does not matter either
    slopes = turn.loss(body)
    first, *_ = apart.body.backward(slopes[:1], seeds, last=False)
    rest, *_ = apart.body.backward(slopes[1:], seeds, last=False)
    assert [one.client for one in (*first, *rest)] == ["c0", "c1", "c2"]
    assert both.body.step(0.1) == apart.body.step(0.1) == ["c0", "c1", "c2"]
    for client in both.clients:
        assert torch.allclose(rows(both)[client], rows(apart)[client], atol=1e-6)


def test_who_sent_no_gradient_by_the_end_of_the_step_has_no_part_in_it():
    both = halves(recompute=True)
    seeds = {client: (0, client) for client in both.clients}
    before = rows(both)
    slopes = (turn := both.turn(PARTS, seeds)).loss(both.body.forward(turn.ahead(), seeds)[0])
    both.body.backward(slopes[:2], seeds, last=False)
    assert both.body.step(0.1) == ["c0", "c1"]
    assert torch.equal(before["c2"], rows(both)["c2"]) and not both.body._passing


@pytest.mark.parametrize("private", [True, False])
def test_clients_that_are_idle_take_no_room_at_the_server(private):
    made = model()
    both = halves(made)
    names = (*both.clients, *(f"idle{k}" for k in range(10_000)))
    settings = SplitSettings(private=private)
    both.body = settings.body(both.body.middle, dict.fromkeys(names, CUT), SGD, names)
    both.body._wire = both.wire
    passed(both, PARTS)
    assert both.body.step(0.1) == ["c0", "c1", "c2"]
    kept = both.body.kept()
    assert set(kept["rows"]) == ({"c0", "c1", "c2"} if private else {""})
    assert not both.body.gathered and not both.body._passing


def test_a_gradient_missing_of_several_batches_leaves_the_others_theirs():
    """With a window states pass in batches of their own; gradients of kept graphs come together."""
    both, whole = (halves(settings=SGD) for _ in range(2))
    seeds = {client: (0, client) for client in both.clients}
    ahead = (turn := both.turn(PARTS, seeds)).ahead()
    body = [*both.body.forward(ahead[:2], seeds)[0], *both.body.forward(ahead[2:], seeds)[0]]
    slopes = turn.loss(body)
    back, refused, _ = both.body.backward([slopes[0], slopes[2]], seeds)
    assert [one.client for one in back] == ["c0", "c2"] and not refused
    passed(whole, PARTS, drop=("c1",))
    assert both.body.step(0.1) == whole.body.step(0.1) == ["c0", "c2"]
    for client in both.clients:
        assert torch.allclose(rows(both)[client], rows(whole)[client], atol=1e-6)
