"""Rounds under protection: who is sampled, what is clipped, the fixed denominator, budgets, and what is refused.

Clients here are rows of the test's choice: what a round does with rows does not depend on where they come from.
"""

import json
from dataclasses import replace

import pytest
import torch

from fedloom import api
from fedloom.base.errors import ConfigError, DataError
from fedloom.base.mean import Mean
from fedloom.base.plugin import lookup
from fedloom.base.tree import Layout
from fedloom.contracts.federated import Aggregator, Codec, Mechanism, PrivacyBudget, Report, Rule, ServerOpt
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.engines import cohort
from fedloom.federated.engines.cohort import Cohort
from fedloom.federated.privacy.gaussian import Gaussian
from fedloom.federated.rounds import Plan, begin, exhausted, sample_clients, step
from fedloom.runs.arrangements.centralised import Centralised
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import TuningRun
from support.clients import PLAIN_SGD, distance, jobs_of, row, shards_of, tiny, trained, work
from support.small_runs import small_run, train

SIZE = 4
LAYOUT = Layout.of({"delta": {"": torch.zeros(SIZE)}})
NAMES = tuple(f"client{k}" for k in range(5))
ROWS = {name: torch.tensor([k + 1.0, -2.0, 0.5 * k, 3.0]) for k, name in enumerate(NAMES)}


def budget(rate=1.0, noise=0.0, allowed=1000):
    return PrivacyBudget(rate, noise, 1e-6, allowed)


def plan(unit="client", *, budgets=None, clip=1e9, clients=NAMES, per_round=None, seed=0, server_opt=None, **more):
    """A plan in which clients' rows are protected, if nothing else is said by budgets without noise."""
    mechanism = Gaussian(unit=unit, clip=clip, **more) if unit else lookup(Mechanism, "none")()
    shared = {"": budget()} if unit == "client" else dict.fromkeys(clients, budget()) if unit else {}
    return Plan(
        rule=lookup(Rule, "plain")(),
        server_opt=server_opt or lookup(ServerOpt, "sgd")(),
        aggregator=lookup(Aggregator, "mean")(),
        local=LocalSettings(steps=3),
        clients=clients,
        clients_per_round=per_round or len(clients),
        rounds=100,
        seed=seed,
        mechanism=mechanism,
        budgets=shared if budgets is None else budgets,
        weighting="uniform",
        codec=lookup(Codec, "float32")(),
        layout=Layout.of_tree({"w": torch.zeros(SIZE)}),
        stream=seed,
    )


def carrier(rows=ROWS, *, n_examples=0, weight=1.0, steps=3, asked=None, forged=None):
    """Reports each client's row; `asked` collects who is asked, `forged` has weights that clients claim."""

    def carry(jobs):
        for job in jobs:
            if asked is not None:
                asked.append(job.client)
            packet = lookup(Codec, "float32")().encode(rows[job.client])
            yield Report(
                job.client, packet, LAYOUT, (forged or {}).get(job.client, weight), n_examples, 3, Mean(), {}, steps
            )

    return carry


def change(plan, carry=None, state=None):
    state = state or begin(plan, torch.zeros(SIZE))
    after, _ = step(plan, state, carry or carrier())
    return after.params_P - state.params_P


def after(plan, rounds, carry=None):
    state = begin(plan, torch.zeros(SIZE))
    for _ in range(rounds):
        state, _ = step(plan, state, carry or carrier())
    return state


def nobody(plan):
    """The plan with draws by which nobody comes in the first round."""
    return next(p for p in (replace(plan, stream=stream) for stream in range(1000)) if not sample_clients(p, 0))


# ------------------------------------------------------------------------------------------------------- who is sampled


def test_clients_come_at_the_rate_of_the_guard():
    drawn = plan(budgets={"": budget(rate=0.3)})
    came = [client for round in range(4000) for client in sample_clients(drawn, round)]
    # Five standard deviations of 4,000 draws: sqrt(4000 * 0.3 * 0.7) = 29.
    assert all(abs(came.count(client) - 1200) < 5 * 29 for client in NAMES)


def test_two_clients_come_independently():
    drawn = plan(budgets={"": budget(rate=0.3)})
    both = sum({NAMES[0], NAMES[1]} <= set(sample_clients(drawn, round)) for round in range(4000))
    assert abs(both - 360) < 5 * (4000 * 0.09 * 0.91) ** 0.5


def test_protected_clients_come_in_client_order():
    drawn = plan(budgets={"": budget(rate=0.7)})
    found = [sample_clients(drawn, round) for round in range(50)]
    assert all(clients == [c for c in NAMES if c in clients] for clients in found)


def test_protected_clients_are_drawn_anew_in_each_round_and_by_each_seed():
    drawn = plan(budgets={"": budget(rate=0.5)}, clients=tuple(map(str, range(60))))
    other = replace(drawn, stream=1)
    assert len({tuple(sample_clients(p, round)) for p in (drawn, other) for round in range(3)}) == 6


def test_at_rate_one_everybody_comes():
    assert sample_clients(plan(), 7) == list(NAMES)


def test_without_protection_of_clients_as_many_come_as_are_to():
    assert len(sample_clients(plan("example", per_round=3), 0)) == 3


# --------------------------------------------------------------------------------------- the sum and its denominator


def test_without_noise_and_clip_a_full_round_is_the_mean_of_the_rows():
    torch.testing.assert_close(change(plan()), torch.stack(list(ROWS.values())).mean(0))


def test_the_sum_is_divided_by_the_expected_number_whoever_comes():
    drawn = plan(budgets={"": budget(rate=0.4)})
    counts = set()
    for stream in range(8):
        this = replace(drawn, stream=stream)
        came = sample_clients(this, 0)
        counts.add(len(came))
        torch.testing.assert_close(change(this), sum((ROWS[c] for c in came), torch.zeros(SIZE)) / (0.4 * 5))
    assert len(counts) > 2


@pytest.mark.parametrize("counts", [{"n_examples": 1}, {"n_examples": 1000}, {"steps": 1}])
def test_what_a_client_says_of_itself_does_not_alter_the_denominator(counts):
    assert torch.equal(change(plan(), carrier(**counts)), change(plan()))


def test_each_row_is_clipped_at_the_server():
    found = change(plan(clip=1.5))
    clipped = [row * min(1.0, 1.5 / float(row.norm())) for row in ROWS.values()]
    torch.testing.assert_close(found, torch.stack(clipped).mean(0))


def test_a_boundless_row_moves_the_result_by_no_more_than_the_clip():
    wild = ROWS | {"client2": torch.full((SIZE,), 1e6)}
    moved = change(plan(clip=1.5), carrier(wild)) - change(
        plan(clip=1.5), carrier(ROWS | {"client2": torch.zeros(SIZE)})
    )
    assert float(moved.norm()) <= 1.5 / 5 * (1 + 1e-5)


@pytest.mark.parametrize("unit", ["example", "client", "client_local"])
def test_a_weight_that_a_client_claims_for_itself_does_not_lift_its_row(unit):
    assert torch.equal(change(plan(unit), carrier(forged={"client3": 1e6})), change(plan(unit)))


def test_noise_of_a_round_is_multiplier_times_clip_over_the_expected_number():
    loud, quiet = (plan(clip=1.5, budgets={"": budget(noise=noise)}) for noise in (2.0, 0.0))
    noise_P = loud.mechanism.source("noise", 0, 0)(SIZE)
    torch.testing.assert_close(change(loud) - change(quiet), 2.0 * 1.5 * noise_P / 5)


def test_noise_differs_from_round_to_round():
    loud = plan(budgets={"": budget(noise=1.0)}, clip=1.0)
    state = begin(loud, torch.zeros(SIZE))
    first, _ = step(loud, state, carrier())
    second, _ = step(loud, replace(state, round=1), carrier())
    assert not torch.equal(first.params_P, second.params_P)


def test_an_empty_round_is_noise_alone():
    empty = nobody(plan(clip=1.5, budgets={"": budget(rate=0.2, noise=2.0)}))
    noise_P = empty.mechanism.source("noise", empty.stream, 0)(SIZE)
    torch.testing.assert_close(change(empty), 2.0 * 1.5 * noise_P / (0.2 * 5))


def test_an_empty_round_counts_as_a_use():
    empty = nobody(plan(budgets={"": budget(rate=0.2, noise=2.0)}, clip=1.0))
    assert after(empty, 1).spent == {"": 1}


def test_an_empty_round_has_a_record_without_clients():
    empty = nobody(plan(budgets={"": budget(rate=0.2, noise=2.0)}, clip=1.0))
    _, record = step(empty, begin(empty, torch.zeros(SIZE)), carrier())
    assert record.clients == () and record.delta_norm > 0


def test_a_round_that_nobody_may_join_changes_nothing_where_examples_are_protected():
    spent = plan("example", budgets=dict.fromkeys(NAMES, budget(allowed=0)))
    assert not change(spent).any()


# ----------------------------------------------------------------------------------------------------------- budgets


def test_a_client_without_budget_is_not_asked():
    asked = []
    budgets = {name: budget(allowed=3 if name == "client1" else 9) for name in NAMES}
    after(plan("example", budgets=budgets), 2, carrier(asked=asked))
    assert asked == [*NAMES, "client0", "client2", "client3", "client4"]


def test_uses_of_examples_are_the_steps_that_a_client_took():
    assert after(plan("example"), 2, carrier(steps=3)).spent == dict.fromkeys(NAMES, 6)


def test_uses_of_a_clients_own_rows_are_its_rows():
    assert after(plan("client_local"), 2).spent == dict.fromkeys(NAMES, 2)


def test_uses_of_all_clients_are_the_rounds():
    assert after(plan(), 3).spent == {"": 3}


def test_nothing_is_spent_where_nothing_is_protected():
    assert after(plan(""), 1, carrier(n_examples=2)).spent == {}


def test_a_client_is_told_what_has_been_spent():
    seen = []

    def carry(jobs):
        for job in jobs:
            seen.append(job.spent)
            yield from carrier()([job])

    after(plan("example", clients=("client0",)), 3, carry)
    assert seen == [0, 3, 6]


@pytest.mark.parametrize("unit", ["example", "client", "client_local"])
def test_a_training_is_exhausted_when_every_budget_is_spent(unit):
    uses = 3 if unit == "example" else 1
    budgets = {"": budget(allowed=2)} if unit == "client" else dict.fromkeys(NAMES, budget(allowed=2 * uses))
    limited = plan(unit, budgets=budgets)
    assert [exhausted(limited, after(limited, rounds)) for rounds in (0, 1, 2)] == [False, False, True]


def test_a_training_goes_on_while_one_client_has_budget():
    budgets = dict.fromkeys(NAMES, budget(allowed=3)) | {"client3": budget(allowed=4)}
    assert not exhausted(plan("example", budgets=budgets), after(plan("example", budgets=budgets), 1))


def test_a_training_without_protection_is_never_exhausted():
    assert not exhausted(plan(""), after(plan(""), 3, carrier(n_examples=1)))


def test_a_client_takes_no_more_steps_than_its_budget_allows():
    shards = shards_of([[5, 9, 7]], "budget")
    budgets = {"client0": budget(allowed=2)}
    this = work(tiny(), shards, local={**PLAIN_SGD, "steps": 5}, budgets=budgets, mechanism=Gaussian(unit="example"))
    assert trained(this)["client0"].steps == 2


@pytest.mark.parametrize("left", [1, 2, 3])
def test_the_budget_of_a_clients_rows_does_not_shorten_its_rounds(left):
    """A use is a row there: with one left, the last round has all its steps."""
    one, other = (
        work(
            tiny(),
            shards_of([[5, 9, 7]], "budget"),
            local={**PLAIN_SGD, "steps": 3},
            budgets={"client0": budget(allowed=allowed)},
            mechanism=Gaussian(unit="client_local", noise_multiplier=1.0),
        )
        for allowed in (left, 1000)
    )
    assert torch.equal(row(one, trained(one)["client0"]), row(other, trained(other)["client0"]))


def test_a_protected_clients_report_tells_no_steps_though_they_follow_from_its_size():
    budgets = {"client0": budget(allowed=5)}
    mechanism = Gaussian(unit="client_local", noise_multiplier=1.0)
    this = work(tiny(), shards_of([[5, 9, 7]], "told"), local=PLAIN_SGD, budgets=budgets, mechanism=mechanism)
    report = trained(replace(this, plan=replace(this.plan, steps={"client0": 7})))["client0"]
    assert (report.steps, report.samples_seen, report.n_examples) == (0, 0, 0)


# ------------------------------------------------------------------------------------------------------- whole runs

EXAMPLES = {"name": "gaussian", "unit": "example", "epsilon": 8.0, "delta": 1e-2, "clip": 0.5}
PRIVATE = {"weighting": "uniform", "privacy": EXAMPLES}


def lines_of(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def finished(run, folder):
    for _ in api.start(run, folder):
        pass
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rounds")


@pytest.mark.parametrize("codec", ["float32", "bfloat16", "int8", "int4", "top_k"])
def test_bytes_on_the_ledger_are_those_of_the_packets(folder, tmp_path, codec):
    run, sizes = small_run(folder, codec={"name": codec}, rounds=1), []
    for _ in api.start(run, tmp_path / "run", on_report=lambda report: sizes.append(report.packet.nbytes)):
        pass
    rows = [line for line in lines_of(tmp_path / "run", "ledger.jsonl") if line["what"].startswith("row")]
    assert [row["bytes"] for row in rows] == sizes


def test_a_coarser_codec_sends_fewer_bytes(folder):
    sent = [train(small_run(folder, codec={"name": name}), rounds=1)[1][0] for name in ("float32", "bfloat16", "int8")]
    sizes = [record.clients[0].upload_bytes for record in sent]
    assert sizes == sorted(sizes, reverse=True) and sizes[1] * 2 == sizes[0]


def test_what_encoding_lost_is_kept_by_the_client(folder):
    state, _ = train(small_run(folder, codec={"name": "top_k", "share": 0.1}), rounds=1)
    assert all(float(slots["lost"][""].norm()) > 0 for slots in state.memory.values())


def test_an_exact_codec_leaves_no_memory(folder):
    state, _ = train(small_run(folder), rounds=1)
    assert state.memory == {}


def test_what_was_lost_is_added_to_the_next_row():
    """What arrives and what is still held back add up to what was trained."""
    shards = shards_of([[5, 9, 7]], "feedback")
    exact, coarse = (work(tiny(), shards, local=PLAIN_SGD, codec=codec) for codec in ("float32", "top_k"))
    held = trained(coarse)["client0"].memory
    again = trained(coarse, jobs_of(coarse, round=1, memory={"client0": held}))["client0"]
    true_P = row(exact, trained(exact, jobs_of(exact, round=1))["client0"])
    found = row(coarse, again) + again.memory["lost"][""] - held["lost"][""]
    assert distance(found, true_P) < 1e-5


def test_a_run_ends_when_all_budgets_are_spent(folder, tmp_path):
    privacy = {
        "name": "gaussian",
        "unit": "example",
        "epsilon": 9.0,
        "delta": 1e-2,
        "noise_multiplier": 0.9,
        "clip": 0.5,
    }
    evaluation = {"holdout": 0.1, "metrics": [], "resamples": 20}
    run = small_run(folder, weighting="uniform", privacy=privacy, rounds=40, evaluation=evaluation)
    ledger = lines_of(finished(run, tmp_path / "run"), "ledger.jsonl")
    rows = [line for line in ledger if line["what"].startswith("row")]
    last = {row["client"]: row for row in rows}
    assert max(row["round"] for row in rows) < 39
    assert all(row["uses"] == row["uses_allowed"] for row in last.values())


def test_no_epsilon_on_the_ledger_is_above_the_budget(folder, tmp_path):
    ledger = lines_of(finished(small_run(folder, **PRIVATE), tmp_path / "run"), "ledger.jsonl")
    spent = [line["epsilon"]["pld"] for line in ledger if line["what"].startswith("privacy spent")]
    # All clients come in every round, and the noise is made for just that.
    assert max(spent) <= 8.0 and max(spent) == pytest.approx(8.0, rel=0.01)


def test_a_protected_clients_ledger_tells_no_size_and_no_loss(folder, tmp_path):
    ledger = lines_of(finished(small_run(folder, rounds=1, **PRIVATE), tmp_path / "run"), "ledger.jsonl")
    rows = [line for line in ledger if line["what"].startswith("row")]
    assert rows and not {"examples", "train_loss", "samples_seen", "epochs"} & {key for row in rows for key in row}


def test_a_guard_counts_the_rounds_that_a_client_is_drawn_in(folder):
    ready = prepare(small_run(folder, clients_per_round=2, rounds=6, **PRIVATE))
    drawn = ready.stages[0].plan
    came = [client for round in range(6) for client in sample_clients(drawn, round)]
    steps = ready.run.local.steps
    assert {c: g.max_uses for c, g in drawn.budgets.items()} == {
        c: max(1, steps * came.count(c)) for c in drawn.clients
    }


# ------------------------------------------------------------------------------------------------------ what is refused


class Hidden(Aggregator):
    """An aggregator that sees no rows."""

    name = "hidden"
    sum_only = True

    def __call__(self, rows_NP, weight_N, frame):
        return rows_NP.sum(0)

    def accumulator(self, frame):
        return lookup(Aggregator, "mean")().accumulator(frame)


class Median(Hidden):
    name = "median"
    sum_only = False


CLIENT = Gaussian(unit="client")
CONTRADICTIONS = {
    "weights": ({"privacy": Gaussian()}, r"weighting: found 'samples' with privacy, .* allowed is 'uniform'"),
    "tokens": ({"privacy": CLIENT, "weighting": "tokens"}, r"weighting: found 'tokens' with privacy"),
    "a baseline": (
        {"privacy": Gaussian(), "weighting": "uniform", "protocol": Centralised()},
        r"protocol: found 'centralised' with privacy, which it does not account for",
    ),
    "parameters that clients keep": (
        {"privacy": CLIENT, "weighting": "uniform", "share": "lora_A"},
        r"share: found 'lora_A' with privacy of unit 'client', which covers what is shared",
    ),
    "controls": (
        {"privacy": CLIENT, "weighting": "uniform", "rule": lookup(Rule, "scaffold")()},
        r"privacy: unit 'client' bounds one row, but rule 'scaffold' uploads \['control'\] besides",
    ),
    "controls of local noise": (
        {"privacy": Gaussian(unit="client_local"), "weighting": "uniform", "rule": lookup(Rule, "scaffold")()},
        r"privacy: unit 'client_local' bounds one row",
    ),
    "aggregator": (
        {"privacy": CLIENT, "weighting": "uniform", "aggregator": Median()},
        r"unit 'client' adds noise to a sum, found aggregator 'median'; allowed is 'mean'",
    ),
    "codec": (
        {"aggregator": Hidden(), "codec": lookup(Codec, "int8")()},
        r"codec: found 'int8' with aggregator 'hidden', which adds rows unseen; allowed are exact codecs",
    ),
    "ranks and controls": ({"ranks": (2, 4), "rule": lookup(Rule, "scaffold")()}, "ranks: clients of several ranks"),
    "ranks and share": ({"ranks": (2, 4), "share": "lora_A"}, "ranks: clients of several ranks need a rule"),
    "ranks and train": ({"ranks": (2, 4), "train": "lora_B"}, "both factors trained and shared"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_settings_that_contradict_each_other_are_refused(case):
    settings, message = CONTRADICTIONS[case]
    with pytest.raises(ConfigError, match=message):
        TuningRun(**settings)


def test_an_exact_codec_goes_with_rows_unseen():
    assert TuningRun(aggregator=Hidden()).codec.exact


def test_examples_may_be_protected_under_any_rule():
    run = TuningRun(privacy=Gaussian(), weighting="uniform", rule=lookup(Rule, "scaffold")())
    assert run.privacy.covers().per_example


def test_dropout_with_protected_examples_is_refused(folder):
    model = {"name": "causal_lm", "path": str(folder / "model"), "lora_rank": 2, "lora_dropout": 0.3}
    with pytest.raises(ConfigError, match=r"model: found a dropout of 0.3 with privacy of examples; allowed is 0"):
        prepare(small_run(folder, model=model, **PRIVATE))


def test_a_rank_above_the_models_is_refused(folder):
    with pytest.raises(ConfigError, match="ranks: found 4, allowed is at most the model's rank 2"):
        prepare(small_run(folder, ranks=[1, 4]))


def test_a_cohort_larger_than_memory_is_refused_with_the_largest_that_fits(monkeypatch):
    this = work(tiny(), shards_of([[5]] * 9, "room"), local=PLAIN_SGD)
    monkeypatch.setattr(cohort, "room_for", lambda work: (4, 2))
    with pytest.raises(ConfigError, match=r"engine.width: found 8, the largest that fits into the free memory is 4"):
        Cohort(width=8).resolved(this, n_clients=9)


# Nine clients four at a time would come as 4, 4 and 1: three waves of three are as many, and alike.
WIDTHS = [(4, 9, 8, 4), (4, 9, 9, 3), (9, 3, 9, 3), (9, 9, 2, 2), (1, 1, 9, 1)]


@pytest.mark.parametrize(("fits", "pays", "n_clients", "width"), WIDTHS)
def test_a_width_is_chosen_by_memory_use_and_clients(monkeypatch, fits, pays, n_clients, width):
    this = work(tiny(), shards_of([[5]] * 9, "room"), local=PLAIN_SGD)
    monkeypatch.setattr(cohort, "room_for", lambda work: (fits, pays))
    assert Cohort().resolved(this, n_clients=n_clients).width == width


def test_fewer_clients_fit_into_less_memory(monkeypatch):
    from fedloom.federated.engines import _memory

    this, found = work(tiny(), shards_of([[5] * 20], "room"), local=PLAIN_SGD), []
    for n_bytes in (2**20, 2**24, 2**28):
        monkeypatch.setattr(_memory, "free_bytes", lambda device, n=n_bytes: n)
        found.append(_memory.room_for(this)[0])
    assert found == sorted(found) and found[-1] > 10 * found[0]


@pytest.mark.parametrize(("checkpointing", "again"), [("auto", True), (False, False), (True, True)])
def test_blocks_are_computed_again_where_one_client_would_not_fit(monkeypatch, checkpointing, again):
    from fedloom.federated.engines import _memory

    model = tiny(checkpointing=checkpointing, num_hidden_layers=6)
    this = work(model, shards_of([[60] * 20], "room"), local=PLAIN_SGD)
    monkeypatch.setattr(_memory, "free_bytes", lambda device: 2**30)
    plenty, _ = _memory.room_for(this)
    assert model.context.recompute is (checkpointing is True) and plenty > 1
    monkeypatch.setattr(_memory, "free_bytes", lambda device: 2**30 // plenty // 2)
    assert _memory.room_for(this)[0] == 1 and model.context.recompute is again
    monkeypatch.setattr(_memory, "free_bytes", lambda device: 2**30)
    assert (_memory.room_for(this)[0] > 1.5 * plenty) is (checkpointing == "auto")


def test_a_packet_of_another_size_is_refused():
    def carry(jobs):
        for report in carrier()(jobs):
            yield replace(report, packet=report.packet[:-4])

    with pytest.raises(DataError, match="codec 'float32'"):
        change(plan(), carry)


def test_a_weight_of_zero_is_refused():
    with pytest.raises(DataError, match=r"round 0, client 'client0': reports 1 examples and weight 0"):
        change(plan(""), carrier(n_examples=1, weight=0.0))


def test_a_client_without_examples_is_refused_where_nothing_is_protected():
    with pytest.raises(DataError, match=r"client 'client0': reports 0 examples and weight 1"):
        change(plan(""), carrier(n_examples=0))
