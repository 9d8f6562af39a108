"""What is merged of clients' own parts: of unlike ranks, and under masks of which the sum alone is seen."""

import numpy as np
import pytest
import torch

from fedloom.base.tree import Layout
from fedloom.federated.kernels import client_gradients
from fedloom.federated.rounds import begin, step
from fedloom.federated.slopes import Step
from fedloom.runs.measure import models_of
from fedloom.runs.prepared import prepare
from fedloom.secure_sum.numbers import row_of
from fedloom.split.carrier import Here, Session, SplitSettings
from fedloom.split.cut import Cut
from fedloom.split.ends import Ends
from support.models import model_folder
from support.secure_sums import Table, exact, terms_of
from support.small_runs import small_run, write_records
from support.split_models import TASK, Halves, distance, examples, model, stacked
from support.whole_sum import simulate

PARTS = [examples(9, 4, 17), examples(6, seed=1), examples(12, 5, seed=2)]


@pytest.fixture
def made(tmp_path):
    model_folder(tmp_path / "model", num_hidden_layers=5)
    write_records(tmp_path / "data.jsonl")
    return tmp_path


def run_of(folder, **changes):
    protocol = {"name": "split", "wire": "float32"} | changes.pop("protocol", {})
    return small_run(folder, protocol=protocol, **changes)


def reports_of(run):
    """What the clients of a first round send."""
    ready = prepare(run)
    stage = ready.stages[0]
    carrier, found = run.protocol.carried_by(run.engine).start(stage.work), []

    def carried(jobs):
        for report in carrier(jobs):
            found.append(report)
            yield report

    anchor_P = ready.layout.row({"": ready.shared})
    state, _ = step(stage.plan, begin(stage.plan, anchor_P), carried)
    return stage.plan, found, anchor_P, state


# ------------------------------------------------------------------------------------------------------------ ranks


def test_a_client_of_a_smaller_rank_has_its_own_scale_in_blocks_that_are_lent_too():
    """Gradients are those of an uncut model whose factors B of the client's blocks are larger by R / r."""
    made, cuts, scaling_K = model(), {"c0": Cut(1, 1), "c1": Cut(2, 1), "c2": Cut(1, 3)}, torch.tensor([2.0, 1.0, 2.0])
    both = Halves(made, Cut(1, 1), 3, cuts=tuple(cuts.values()))
    ends = {cut: Ends.of(made, cut) for cut in cuts.values()}
    session = Session(
        made, TASK, Here(both.body), ends, cuts, SplitSettings(cuts=tuple(cuts.values()), wire="float32"), (0,)
    )
    own = {name for one in ends.values() for name in one.names}
    leaves = {name: leaf for name, leaf in stacked(made, 3).items() if name in own}
    both.body.step = lambda lr: []
    asked = Step(None, tuple(cuts), 0, 0, 0.1, leaves, [[part] for part in PARTS], scaling_K)
    found = Layout.of_tree({name: leaf[0] for name, leaf in leaves.items()}).tree(session.slope(asked)[0])
    for k, scale in enumerate(scaling_K.tolist()):
        larger = {name: scale if name in own and name.endswith("lora_B") else 1.0 for name in made.trainable}
        scaled = {name: leaf.detach()[:1] * larger[name] for name, leaf in stacked(made, 3).items()}
        alone = client_gradients(made, TASK, {n: t.requires_grad_() for n, t in scaled.items()}, [PARTS[k]])
        wanted = Layout.of_tree(made.trainable).tree(alone.sum_KP[0] / alone.weight_K[0])
        assert distance({n: g[k] for n, g in found.items()}, {n: wanted[n] * larger[n] for n in found}) <= 1e-6


def test_what_lies_beyond_a_clients_rank_is_exactly_zero_when_it_comes_back(made):
    """Zero padding, as HetLoRA averages: the factors of rank 1 fill the first of two, those of rank 2 both."""
    plan, reports, anchor_P, _ = reports_of(run_of(made, ranks=[1, 2], protocol={"cuts": ["1:1", "2:1"]}))
    assert plan.ranks == {"client0": 1, "client1": 2, "client2": 1, "client3": 2}
    for report in reports:
        change = plan.layout.slots(plan.codec.decode(report.packet, plan.layout.size))
        anchor = plan.layout.slots(anchor_P)
        for slot, tree in change.items():
            for name, part in tree.items():
                came = anchor[slot][name] + part
                beyond = came[1:] if name.endswith("lora_A") else came[:, 1:]
                assert bool(beyond.any()) == (plan.ranks[report.client] == 2), name


# ------------------------------------------------------------------------------------------------------- secure sum


def test_the_servers_sum_of_client_parts_is_exact_and_its_mean_that_of_the_rows(made):
    """T7 of the specification: in one process what would be masked is added without masks, which cancel."""
    summed = run_of(made, aggregator={"name": "secure_sum", "clip": 0.25}, weighting="uniform")
    plan, reports, _, state = reports_of(summed)
    mean, rows, _, plain = reports_of(run_of(made, weighting="uniform"))
    rows_NP = torch.stack([mean.codec.decode(one.packet, mean.layout.size) for one in rows])
    step_size = 0.25 / 2**20
    assert float(rows_NP.abs().max()) < 0.25
    assert float((state.params_P - plain.params_P).abs().max()) <= step_size + 1e-7
    terms = terms_of(len(reports), size=plan.aggregator.numbers.size(plan.layout.size), threshold=3)
    own = dict(zip(terms.clients, (row_of(one.packet.numpy()) for one in reports), strict=True))
    opened = simulate(own, terms)
    assert opened.sum_S.tolist() == exact(own, terms.clients, terms.size)


def test_a_single_masked_client_part_is_uniform(made):
    """Bytes of what one of three clients sends under masks, over 256 values: the row itself is nothing like it."""
    plan, reports, *_ = reports_of(run_of(made, aggregator={"name": "secure_sum", "clip": 0.25}, weighting="uniform"))
    row_S = row_of(reports[0].packet.numpy())
    terms = terms_of(3, size=len(row_S), threshold=2)
    table = Table(terms, until="share")
    name = terms.clients[0]
    masked_S = table.parties[name].mask(table.boxes[name], row_S).row_S
    assert plan.layout.size < len(row_S)
    for shift in (0, 8, 16, 24):
        assert chi_square(masked_S, shift) < 370  # 255 degrees of freedom: mean 255, deviation 22.6
    assert chi_square(row_S, 24) > 10_000


def chi_square(row_S, shift):
    counts = np.bincount((row_S >> np.uint32(shift)) & np.uint32(255), minlength=256)
    return float(((counts - len(row_S) / 256) ** 2 / (len(row_S) / 256)).sum())


# ------------------------------------------------------------------------------------------------------ private parts


def test_the_input_part_may_stay_with_each_client_while_the_output_part_is_merged(made):
    """`share` says which of the clients' own parts are merged, as in every federation."""
    run = run_of(made, share=r"layers\.4\.")
    ready = prepare(run)
    plan, reports, _, state = reports_of(run)
    assert {name.split(".")[2] for _, name, _ in plan.layout.entries} == {"4"}
    assert all(report.layout.size == plan.layout.size for report in reports)
    models = dict(models_of(ready, state, ready.stages[0]))
    first, second = models["client0"], models["client1"]
    unlike = {name.split(".")[2] for name in first if not torch.equal(first[name], second[name])}
    assert unlike == {"0"}
