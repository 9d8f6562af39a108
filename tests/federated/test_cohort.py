"""Clients trained together against clients trained one after another: the same numbers for every method and model.

Most comparisons take plain gradient descent or AdamW with a large epsilon: with a small one AdamW's first steps have
the size of the learning rate whatever the gradient's, so that rounding near zero would become a whole step.
"""

from dataclasses import replace

import pytest
import torch

from fedloom.base.plugin import lookup, names
from fedloom.base.tree import flatten
from fedloom.contracts.federated import PrivacyBudget, Rule, ServerOpt, Shard
from fedloom.federated.client import train_clients
from fedloom.federated.engines.cohort import Cohort
from fedloom.federated.engines.sequential import Sequential
from fedloom.federated.privacy.gaussian import Gaussian
from fedloom.federated.ranks import Fit
from fedloom.federated.rounds import begin, step
from fedloom.federated.workspace import Workspace
from support.clients import (
    PLAIN_SGD,
    SMOOTH_ADAMW,
    distance,
    examples,
    jobs_of,
    row,
    shards_of,
    tiny,
    trained,
    work,
)
from support.models import ARCHITECTURES

RULES, SERVER_OPTS = names(Rule), names(ServerOpt)
UNEQUAL = [[5, 9, 7], [21], [4, 4, 4, 4, 6], [12, 3]]
LOCAL = {**SMOOTH_ADAMW, "steps": 2, "batch": 2}
SGD = {**PLAIN_SGD, "steps": 2, "batch": 2}


def plan_of(this, server_opt="sgd", rounds=3):
    return replace(this.plan, server_opt=lookup(ServerOpt, server_opt)(), rounds=rounds)


def after_rounds(this, engine, server_opt="sgd", rounds=3):
    """The state after some rounds."""
    plan, carrier = plan_of(this, server_opt, rounds), engine.start(this)
    state = begin(plan, jobs_of(this)[0].local.anchor[""])
    for _ in range(rounds):
        state, _ = step(plan, state, carrier)
    return state


def change(this, state):
    return state.params_P - jobs_of(this)[0].local.anchor[""]


def check_agrees(this, server_opt="sgd", width=4):
    """After three rounds, what the parameters moved by agrees to 1e-5: more than that the parameters do."""
    together, apart = (after_rounds(this, engine, server_opt) for engine in (Cohort(width=width), Sequential()))
    assert distance(change(this, together), change(this, apart)) < 1e-5


def clients(lengths=UNEQUAL, *, local=LOCAL, model=None, **more):
    return work(model or tiny(), shards_of(lengths, "cohort"), local=local, **more)


# ------------------------------------------------------------------------------------------- agreement with sequential


@pytest.mark.parametrize("server_opt", SERVER_OPTS)
@pytest.mark.parametrize("rule", RULES)
def test_cohort_agrees_with_sequential(rule, server_opt):
    check_agrees(clients(rule=rule), server_opt)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_agrees(architecture):
    check_agrees(clients(model=tiny(architecture)))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_whole_models_agree(architecture, rule):
    check_agrees(clients([[5, 9], [7], [4, 4, 6]], model=tiny(architecture, rank=0), local=SGD, rule=rule))


LOCALS = {
    "sgd with momentum and decay": {**SGD, "momentum": 0.9, "weight_decay": 0.1},
    "a clipped gradient": {**SGD, "clip_norm": 0.05},
    "accumulation": {**SGD, "steps": 1, "batch": 1, "accumulation": 3},
    "adamw with decay": {**LOCAL, "weight_decay": 0.1},
    "a kept optimiser": {**LOCAL, "optimiser_state": "kept"},
    "kept momentum": {**SGD, "momentum": 0.9, "optimiser_state": "kept"},
}


@pytest.mark.parametrize("local", LOCALS.values(), ids=LOCALS)
@pytest.mark.parametrize("rule", ["plain", "scaffold"])
def test_every_local_setting_agrees(rule, local):
    check_agrees(clients(local=local, rule=rule))


@pytest.mark.parametrize("width", [1, 2, 3, 7])
@pytest.mark.parametrize("rule", ["plain", "scaffold"])
def test_waves_agree(rule, width):
    check_agrees(clients(rule=rule, local=SGD), width=width)


@pytest.mark.parametrize("share", ["lora_A", r"layers\.0"])
def test_shared_parameters_beside_private_ones_agree(share):
    check_agrees(clients(share=share, local=SGD))


def test_private_parameters_agree():
    this = clients(share="lora_A", local=SGD)
    together, apart = (after_rounds(this, engine).memory for engine in (Cohort(width=4), Sequential()))
    gaps = [distance(together[client]["private"][""], apart[client]["private"][""]) for client in this.shards]
    assert max(gaps) < 1e-5


@pytest.mark.parametrize("rule", ["scaffold"])
def test_memories_of_clients_agree(rule):
    this = clients(rule=rule, local=SGD)
    together, apart = (after_rounds(this, engine).memory for engine in (Cohort(width=4), Sequential()))
    gaps = [distance(together[client]["control"][""], apart[client]["control"][""]) for client in this.shards]
    assert max(gaps) < 1e-5


@pytest.mark.parametrize("train", ["lora_A", "lora_B"])
def test_one_trained_factor_agrees(train):
    check_agrees(clients(model=tiny(train=train)))


def test_reports_come_in_the_order_of_the_jobs():
    this = clients(local=SGD)
    order = ["client2", "client0", "client3", "client1"]
    assert [report.client for report in Cohort(width=3).start(this)(jobs_of(this, order))] == order


def test_losses_of_clients_agree():
    this = clients(local=SGD)
    together, apart = trained(this), trained(this, width=1)
    for client in this.shards:
        assert together[client].loss.value == pytest.approx(apart[client].loss.value, rel=1e-5)
        assert together[client].loss.weight == apart[client].loss.weight


FAR_APART = [[5, 4], [60, 50, 62], [3, 6, 2], [40, 8]]  # too unlike to be padded to one length


@pytest.mark.parametrize("rule", RULES)
def test_clients_of_very_unlike_sizes_agree(rule):
    check_agrees(clients(FAR_APART, local=SGD, rule=rule))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_clients_of_very_unlike_sizes_and_ranks_agree(dropout):
    ranks = {"client0": 1, "client1": 3, "client2": 2, "client3": 1}
    check_agrees(clients(FAR_APART, local=SGD, model=tiny(rank=3, dropout=dropout), ranks=ranks))


def test_protected_clients_of_very_unlike_sizes_agree():
    budgets = dict.fromkeys((f"client{k}" for k in range(4)), PrivacyBudget(0.7, 0.5, 1e-6, 100))
    check_agrees(clients(FAR_APART, local=SGD, budgets=budgets, mechanism=Gaussian(unit="example", clip=0.5)))


# ------------------------------------------------------------------------------------------ clients that finish early

LONG_ADAMW, LONG_SGD = {**LOCAL, "steps": 3}, {**SGD, "steps": 3}
EARLY = dict(zip((f"client{k}" for k in range(4)), (3, 1, 2, 3), strict=True))


def with_budgets(budgets=EARLY, *, local=LONG_ADAMW, **more):
    """Clients that are allowed so many uses of their examples, each step one; nothing is clipped, no noise added."""
    budgets = {client: PrivacyBudget(1.0, 0.0, 1e-6, allowed) for client, allowed in budgets.items()}
    return clients(budgets=budgets, mechanism=Gaussian(unit="example", clip=1e9), local=local, **more)


@pytest.mark.parametrize(
    "local", [LONG_SGD, LONG_ADAMW, {**LONG_SGD, "momentum": 0.9}], ids=["sgd", "adamw", "momentum"]
)
@pytest.mark.parametrize("rule", RULES)
def test_clients_that_finish_early_agree_with_sequential(rule, local):
    this = with_budgets(rule=rule, local=local)
    together, apart = trained(this), trained(this, width=1)
    assert max(distance(row(this, together[client]), row(this, apart[client])) for client in EARLY) < 1e-5


def test_clients_report_the_steps_they_took():
    reports = trained(with_budgets())
    assert {client: report.steps for client, report in reports.items()} == EARLY


MOST_FIRST = ["client0", "client3", "client2", "client1"]


def places_after(this):
    """Row and moments by client after training together; handed in most steps first, that is their order in place."""
    space = Workspace.of(this, 4)
    train_clients(this, jobs_of(this, MOST_FIRST), space)
    return {
        client: (space.rows_KP[place].clone(), space.moments.saved(place)) for place, client in enumerate(MOST_FIRST)
    }


@pytest.mark.parametrize("local", [LONG_ADAMW, {**LONG_SGD, "momentum": 0.9}], ids=["adamw", "momentum"])
def test_a_client_that_has_finished_does_not_move_while_others_go_on(local):
    """Bit for bit what it is when nobody goes on: the same company, stopped at its own last step."""
    going_on = places_after(with_budgets(local=local))
    stopped = places_after(with_budgets(dict.fromkeys(EARLY, 1), local=local))
    row_P, saved = going_on["client1"]
    assert torch.equal(row_P, stopped["client1"][0])
    assert all(torch.equal(saved[name], tensor) for name, tensor in stopped["client1"][1].items())


def test_a_client_that_goes_on_does_move():
    going_on, stopped = places_after(with_budgets()), places_after(with_budgets(dict.fromkeys(EARLY, 1)))
    assert not torch.equal(going_on["client2"][0], stopped["client2"][0])


def test_a_client_that_has_finished_keeps_the_count_of_its_steps():
    assert {client: int(saved["steps"]) for client, (_, saved) in places_after(with_budgets()).items()} == EARLY


def test_kept_moments_of_clients_with_different_step_counts_agree_over_rounds():
    """Corrections of AdamW's bias differ by client from the second round on."""
    this = with_budgets(local={**LONG_ADAMW, "optimiser_state": "kept"})
    memories = {}
    for width in (4, 1):
        memory = None
        for round in range(3):
            reports = trained(this, jobs_of(this, round=round, memory=memory), width=width)
            memory = {client: report.memory for client, report in reports.items()}
        memories[width] = {
            client: torch.cat([m["optimiser"]["first"], m["optimiser"]["second"]]) for client, m in memory.items()
        }
        counts = {client: int(m["optimiser"]["steps"]) for client, m in memory.items()}
        assert counts == {client: 3 * steps for client, steps in EARLY.items()}
    assert max(distance(memories[4][client], memories[1][client]) for client in EARLY) < 1e-5


# --------------------------------------------------------------------------------------------- who shares a cohort


def even_clients(**more):
    """Four clients with the same number of tokens in every batch, so that all shapes are the same in any company."""
    return clients([[6, 6, 6]] * 4, local=SGD, **more)


def test_a_client_has_the_same_bits_in_the_company_of_others():
    this = even_clients()
    one = trained(this, jobs_of(this, ["client0", "client1"]))["client0"]
    other = trained(this, jobs_of(this, ["client0", "client3"]))["client0"]
    assert torch.equal(one.packet, other.packet)


def test_other_data_of_a_neighbour_leave_a_client_bitwise():
    this = even_clients()
    other = replace(this, shards=this.shards | {"client1": Shard(tuple(examples([6, 6, 6], "other")))})
    one, two = (trained(w, jobs_of(w, ["client0", "client1"]))["client0"].packet for w in (this, other))
    assert torch.equal(one, two)


@pytest.mark.parametrize("company", [["client0"], ["client1", "client0"], ["client3", "client2", "client0", "client1"]])
def test_a_clients_result_does_not_depend_on_its_company(company):
    this = clients(local=SGD)
    found, alone = trained(this, jobs_of(this, company))["client0"], trained(this, width=1)["client0"]
    assert distance(row(this, found), row(this, alone)) < 1e-5


def test_dropout_agrees_with_sequential():
    check_agrees(clients(model=tiny(dropout=0.3), local=SGD))


def test_dropout_changes_the_result():
    (with_it, without) = (trained(clients(model=tiny(dropout=d), local=SGD))["client0"] for d in (0.3, 0.0))
    this = clients(local=SGD)
    assert distance(row(this, with_it), row(this, without)) > 0.01


def test_a_clients_dropout_masks_do_not_depend_on_a_longer_neighbour():
    """A neighbour with more tokens lengthens the padding of the client, which must draw nothing."""
    this = clients([[6, 6, 6], [30, 30, 30]], model=tiny(dropout=0.3), local=SGD)
    found, alone = trained(this)["client0"], trained(this, jobs_of(this, ["client0"]))["client0"]
    assert distance(row(this, found), row(this, alone)) < 1e-5


# ---------------------------------------------------------------------------------------------------------- mixed ranks

RANKS = {"client0": 1, "client1": 3, "client2": 2, "client3": 1}


def of_ranks(**more):
    return clients(model=tiny(rank=3), ranks=RANKS, local=SGD, **more)


@pytest.mark.parametrize("rule", ["plain", "prox"])
def test_mixed_ranks_agree_with_sequential(rule):
    check_agrees(of_ranks(rule=rule))


def test_padding_of_smaller_ranks_stays_exactly_zero():
    this = of_ranks()
    space = Workspace.of(this, 4)
    train_clients(this, jobs_of(this), space)
    for place, client in enumerate(RANKS):
        beyond_P = space.fit(RANKS[client]).keeps_P == 0
        assert beyond_P.any() == (RANKS[client] < 3) and not space.rows_KP[place, beyond_P].any()


def test_a_client_of_a_smaller_rank_trains_as_a_model_built_with_that_rank():
    """Rank 1 in rows of rank 3, and a model of rank 1 with the same alpha that starts from the same first rows."""
    model, small = tiny(rank=3), tiny(rank=1)
    this = clients(model=model, ranks=RANKS, local=SGD)
    layout = this.plan.layout
    fit = Fit.of(layout, 1, torch.device("cpu"))
    sent_P = jobs_of(this)[0].local.anchor[""]
    cut = {n: t[:1] if n.endswith("lora_A") else t[:, :1] for n, t in layout.tree(fit.to_client(sent_P)).items()}
    own = clients(model=replace(small, trainable={n: t.clone() for n, t in cut.items()}), local=SGD)
    expected = own.plan.layout.tree(row(own, trained(own)["client0"]))
    # What the server gets has B times rank over full rank undone; the change of B is that of the client over 1/3.
    found = layout.tree(row(this, trained(this)["client0"]))
    changes = {n: found[n][:1] if n.endswith("lora_A") else found[n][:, :1] / 3 for n in expected}
    assert distance(flatten(changes), flatten(expected)) < 1e-5
