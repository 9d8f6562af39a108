"""What every attack must hold: it sends a row like any other, honest clients are left alone, a seed is a draw."""

import pickle

import pytest
import torch

from fedloom.base.errors import ConfigError, DataError
from fedloom.base.plugin import lookup, names
from fedloom.contracts.attack import Attack, Moment
from fedloom.contracts.federated import Aggregator
from fedloom.federated.attackers import drawn_attackers
from fedloom.federated.rounds import begin, step
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import read_run
from support import numbers
from support.plugins import without_settings
from support.small_runs import small_run

pytestmark = pytest.mark.slow  # whole runs under each attack

ATTACKS = names(Attack)
OF_TEXTS = {"label_flip"}
"""Those that exchange answers, which numbers have not."""
every = pytest.mark.parametrize("name", ATTACKS)
PAIRS = {"pairs": {"name": "points", "n_clients": 1, "records": 40}, "licence": "made for tests"}


CHANGES = {"norm_bounded": {"max_norm": 0.01}}
"""Settings under which the short rows of these runs are changed."""


def settings(name, **more):
    pairs = PAIRS if lookup(Attack, name).needs_pairs else {}
    return {"name": name, "clients": 2, **pairs, **CHANGES.get(name, {}), **more}


def run_of(**changes):
    return read_run(numbers.TABLE | changes)


def sent(run, rounds=1):
    """The rows that clients send, by round and client, and the last state."""
    ready = prepare(run)
    plan, carrier = ready.stages[0].plan, run.engine.start(ready.stages[0].work)
    state, rows = begin(plan, ready.layout.row({"": ready.shared})), {}

    def recorded(jobs):
        for report in carrier(jobs):
            if not plan.aggregator.sum_only:  # of rows that enter a sum nobody sees one
                rows[state.round, report.client] = plan.codec.decode(report.packet, report.layout.size)
            yield report

    for _ in range(rounds):
        state, _ = step(plan, state, recorded)
    return rows, state, ready.malicious


@every
def test_pickle_round_trip_is_equal(name):
    attack = run_of(attack=settings(name)).attack
    assert pickle.loads(pickle.dumps(attack)) == attack


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - OF_TEXTS))
def test_honest_clients_send_what_they_send_without_an_attack(name):
    honest, _, nobody = sent(run_of())
    rows, _, malicious = sent(run_of(attack=settings(name)))
    assert len(malicious) == 2 and not nobody
    assert [key for key, row_P in rows.items() if not torch.equal(row_P, honest[key])] == [
        (0, one) for one in malicious
    ]


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - OF_TEXTS))
def test_an_attack_made_again_is_the_same_bit_for_bit(name):
    first, again = (sent(run_of(attack=settings(name)), rounds=2)[0] for _ in range(2))
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - OF_TEXTS))
def test_an_attack_needs_no_engine_of_its_own(name):
    one, many = (sent(run_of(attack=settings(name), engine=engine))[0] for engine in ("sequential", "cohort"))
    for key in one:
        torch.testing.assert_close(one[key], many[key])


@pytest.mark.slow
@pytest.mark.parametrize("rule", without_settings(Aggregator))
def test_every_attack_meets_every_rule(rule):
    """Two rounds of each: nothing is refused but rows that are no factors."""
    for name in sorted(set(ATTACKS) - OF_TEXTS):
        table = {"attack": settings(name), "aggregator": rule, "data": {"name": "points", "n_clients": 7}}
        if lookup(Aggregator, rule).sum_only:  # a sum that is not told of weights has all rows count alike
            table["weighting"] = "uniform"
        if lookup(Aggregator, rule).changes_basis:
            with pytest.raises(ConfigError, match=r"^aggregator: none of 2 trained tensors ends in"):
                sent(run_of(**table), rounds=2)
            return
        _, state, _ = sent(run_of(**table), rounds=2)
        assert bool(torch.isfinite(state.params_P).all())


def test_rows_are_clipped_and_encoded_like_all_others():
    """An attacker sends its row through the client's own clip and codec."""
    private = {"name": "gaussian", "unit": "client_row", "epsilon": 8.0, "delta": 1e-3, "clip": 0.5}
    with pytest.raises(ConfigError):
        run_of(attack=settings("scaled_row", factor=1e6), privacy=private)
    rows, _, malicious = sent(run_of(attack=settings("scaled_row", factor=1e6), codec="bfloat16"))
    row_P = rows[0, malicious[0]]
    assert torch.equal(row_P, row_P.bfloat16().float())


# ------------------------------------------------------------------------------------------------------- each by itself


def honest_rows(**changes):
    return sent(run_of(**changes))[0]


def attacked(name, **more):
    rows, _, malicious = sent(run_of(attack=settings(name, **more)))
    return rows[0, malicious[0]], honest_rows()[0, malicious[0]], malicious


def test_sign_flip_turns_the_row_round():
    row_P, own_P, _ = attacked("sign_flip", factor=2.0)
    assert torch.equal(row_P, -2 * own_P)


def test_scaled_row_is_as_many_times_as_long():
    row_P, own_P, _ = attacked("scaled_row", factor=7.0)
    assert torch.equal(row_P, 7 * own_P)


@pytest.mark.parametrize(("bound", "length"), [(0.01, 0.01), (1e6, None)])
def test_norm_bounded_is_no_longer_than_allowed(bound, length):
    row_P, own_P, _ = attacked("norm_bounded", max_norm=bound)
    torch.testing.assert_close(float(row_P.norm()), length or float(own_P.norm()))
    torch.testing.assert_close(row_P / row_P.norm(), own_P / own_P.norm())


def test_gaussian_row_is_as_large_as_it_says():
    rows_CP = torch.full((1, 20_000), 0.5)
    row_P = lookup(Attack, "gaussian_row")(factor=3.0).row(Moment("a", 0, 0, rows_CP))
    assert float(row_P.std()) == pytest.approx(1.5, rel=0.03) and abs(float(row_P.mean())) < 0.05


@pytest.mark.parametrize("std", [0.0, 0.25])
def test_lazy_has_learnt_nothing(std):
    rows_CP = torch.full((1, 20_000), 9.0)
    row_P = lookup(Attack, "lazy")(std=std).row(Moment("a", 0, 0, rows_CP))
    assert float(row_P.std()) == pytest.approx(std, rel=0.03) and abs(float(row_P.mean())) < 0.01


def test_sybils_send_the_first_ones_row_with_noise():
    rows, _, malicious = sent(run_of(attack=settings("sybils", clients=3, jitter=0.0)))
    first_P = honest_rows()[0, malicious[0]]
    assert all(torch.equal(rows[0, one], first_P) for one in malicious)
    rows, _, malicious = sent(run_of(attack=settings("sybils", clients=3, jitter=0.01)))
    sent_NP = torch.stack([rows[0, one] for one in malicious])
    assert 0 < float((sent_NP - first_P).abs().max()) < 0.1 * float(first_P.abs().max())
    assert not torch.equal(sent_NP[0], sent_NP[1])


def test_a_little_is_enough_sends_the_mean_of_the_colluders_rows_and_some_of_their_spread():
    """By hand from what the colluders would have sent by themselves (Baruch et al., algorithm 3)."""
    rows, _, malicious = sent(run_of(attack=settings("alie", clients=3, z=-1.5)))
    own = [honest_rows()[0, one].tolist() for one in malicious]
    by_hand = []
    for column in zip(*own, strict=True):
        mean = sum(column) / 3
        by_hand.append(mean - 1.5 * (sum((one - mean) ** 2 for one in column) / 3) ** 0.5)
    for one in malicious:
        torch.testing.assert_close(rows[0, one], torch.tensor(by_hand))


def test_colluders_repeat_those_who_are_not_asked_too():
    table = {"data": {"name": "points", "n_clients": 6}, "clients_per_round": 2}
    rows, _, malicious = sent(run_of(**table, attack=settings("sybils", clients=5, jitter=0.0)))
    first_P = honest_rows(**{**table, "clients_per_round": 6})[0, malicious[0]]
    asked = [client for _, client in rows if client in malicious]
    assert asked and all(torch.equal(rows[0, client], first_P) for client in asked)


def test_unaligned_data_is_training_as_usual_on_the_pairs():
    rows, _, malicious = sent(run_of(attack=settings("unaligned_data")))
    own = honest_rows()
    assert all(not torch.equal(rows[0, one], own[0, one]) for one in malicious)


def test_mixed_data_of_pairs_alone_are_unaligned_data():
    drawn, own = [f"p{k}" for k in range(8)], [f"o{k}" for k in range(8)]
    mixed = lookup(Attack, "mixed_data")
    pairs = run_of(attack=settings("mixed_data")).attack.pairs
    some = {share: mixed(pairs=pairs, licence="-", share=share).examples(own, drawn, "a", 0) for share in (0, 0.25, 1)}
    assert [sorted(one) for one in (some[0], some[1])] == [own, drawn]
    assert len(some[0.25]) == 8 and sum(one in drawn for one in some[0.25]) == 2


def test_a_sleeper_is_honest_until_it_wakes():
    honest = sent(run_of(), rounds=3)[0]
    rows, _, malicious = sent(run_of(attack=settings("sleeper", first=1, last=1)), rounds=3)
    awake, _, _ = sent(run_of(attack=settings("unaligned_data")), rounds=2)
    assert all(torch.equal(rows[0, one], honest[0, one]) for one in malicious)
    assert all(not torch.equal(rows[1, one], honest[1, one]) for one in malicious)
    assert not torch.equal(awake[0, malicious[0]], honest[0, malicious[0]])


def test_label_flip_gives_each_question_another_answer(tmp_path):
    run = small_run(tmp_path, attack={"name": "label_flip", "clients": 1})
    own = prepare(small_run(tmp_path)).division.train
    (client,) = prepare(run).malicious
    flipped = run.attack.examples(own[client], (), client, 0)
    assert [one.prompt for one in flipped] == [one.prompt for one in own[client]]
    assert all(one.reference != other.reference for one, other in zip(flipped, own[client], strict=True))
    assert {one.reference for one in flipped} <= {one.reference for one in own[client]}


# ------------------------------------------------------------------------------------------------------------- refusals


def test_attackers_are_drawn_by_their_seed_alone():
    clients = [f"c{k}" for k in range(10)]
    assert drawn_attackers(clients, 3, 7) == drawn_attackers(clients, 0.3, 7)
    assert {drawn_attackers(clients, 3, seed) for seed in range(20)} != {drawn_attackers(clients, 3, 7)}
    assert set(drawn_attackers(clients[::-1], 3, 7)) == set(drawn_attackers(clients, 3, 7))


@pytest.mark.parametrize("clients", [5, 2.5])
def test_more_attackers_than_clients_and_half_ones_are_refused(clients):
    with pytest.raises(ConfigError, match=r"^clients: found [25]"):
        prepare(run_of(attack=settings("sign_flip", clients=clients)))


def test_pairs_without_terms_of_use_are_refused():
    with pytest.raises(ConfigError, match=r"^attack\.licence: found none, and the pairs are real ones; name the terms"):
        run_of(attack={**settings("unaligned_data"), "licence": " "})


@pytest.mark.parametrize("name", ["unaligned_data", "mixed_data", "sleeper"])
def test_an_attack_on_pairs_without_pairs_is_refused(name):
    with pytest.raises(ConfigError, match=rf"^attack\.pairs: found none, '{name}' trains on some; name a source"):
        run_of(attack={"name": name})


def test_a_sleeper_that_never_wakes_is_refused():
    with pytest.raises(ConfigError, match=r"^attack\.last: found 1, allowed is first = 2 at least\.$"):
        run_of(attack=settings("sleeper", first=2, last=1))


def test_a_lone_colluder_is_refused():
    with pytest.raises(
        ConfigError, match=r"^attack\.clients: found 1, allowed are 2 or more: one row has no spread\.$"
    ):
        run_of(attack=settings("alie", clients=1))


def test_answers_that_are_all_alike_cannot_be_flipped(tmp_path):
    run = small_run(tmp_path, attack={"name": "label_flip", "clients": 1})
    (own, *_) = prepare(small_run(tmp_path)).division.train.values()
    with pytest.raises(DataError, match=r"^attack: 'label_flip' found 1 different answers in 3 conversations"):
        run.attack.examples([own[0]] * 3, (), "a", 0)


def test_more_values_than_the_pairs_have_are_refused():
    narrow = {"client": 2}
    with pytest.raises(
        DataError, match=r"^attack\.narrow: found 2 values of the tag 'client', of which the pairs have 1"
    ):
        prepare(run_of(attack=settings("unaligned_data", narrow=narrow)))


def test_baselines_have_no_attackers():
    assert not prepare(run_of(protocol="local_only", attack=settings("sign_flip"))).malicious
