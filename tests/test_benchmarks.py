"""The benchmarks' own arithmetic: operations counted, sides in turn, targets, tables, sides that learn the same.

No figure is judged here."""

import ast
import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from benchmarks.__main__ import ENTRIES, main
from benchmarks._common import Figure, Sample, Settings, Target, alternate, figure_of, ratio
from benchmarks._flops import attention_flops, step_flops
from benchmarks._learnt import HeldOutLoss
from benchmarks._ours import Rounds
from benchmarks._pictures import PictureShape, drawn_pictures, picture_table, picture_tensors
from benchmarks._plain_rounds import PlainRounds, shuffled
from benchmarks._report import DOCS, machine, markdown
from benchmarks._shapes import ALL_LINEAR, TINY, Lengths, Shape, base_folder, write_data
from benchmarks.images import compare
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from fedloom.federated.batching import batches
from fedloom.text.pretrained import quiet
from support.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"
SHAPE = replace(TINY, depth=3, rank=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    with quiet():
        base_folder(SHAPE, folder)
    return folder


def counted_by_torch(shape: Shape, folder, *, length, supervised):
    """What torch counts of a step of peft's model on one example; its eager attention takes all pairs of tokens."""
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(folder / f"model_{shape.name}", attn_implementation="eager")
        model = get_peft_model(base, LoraConfig(r=shape.rank, target_modules=list(shape.targets)))
    with FlopCounterMode(display=False) as counter:
        logits = model(torch.arange(length)[None] + 4, use_cache=False, logits_to_keep=supervised).logits
        logits.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "targets",
    [ALL_LINEAR, ("q_proj", "v_proj"), ("k_proj",), ("v_proj",), ("o_proj",), ("gate_proj",), ("down_proj",)],
    ids="-".join,
)
def test_operations_of_a_step_are_those_that_torch_counts(folder, targets):
    shape, length, supervised = replace(SHAPE, targets=targets), 12, 5
    causal = attention_flops(shape, pairs=length * (length + 1) // 2)
    rest = step_flops(shape, lengths=[length], supervised=supervised) - causal
    ours = rest + attention_flops(shape, pairs=length * length)
    assert ours == counted_by_torch(shape, folder, length=length, supervised=supervised)


def test_operations_of_two_examples_add_up():
    both = step_flops(SHAPE, lengths=[5, 9], supervised=6)
    assert both == sum(step_flops(SHAPE, lengths=[length], supervised=3) for length in (5, 9))


def test_sides_take_turns_after_warming_up():
    order = []
    sides = {name: lambda name=name: order.append(name) for name in "ab"}
    alternate(sides, repeats=2, warm=1, settings=Settings())
    assert "".join(order) == "ababab"


def test_a_warm_run_is_not_counted():
    assert len(alternate({"a": lambda: None}, repeats=2, warm=1, settings=Settings())["a"].values) == 2


def test_the_spread_is_the_range_over_the_median():
    assert Sample((4.0, 5.0, 7.0)).spread == pytest.approx(0.6)


def test_a_ratio_is_that_of_the_medians():
    figure = ratio("a", "what", ours=Sample((1.0, 2.0, 9.0)), other=Sample((6.0, 7.0, 8.0)))
    assert figure.value == 3.5


@pytest.mark.parametrize(("sign", "value", "met"), [(">=", 2.0, True), (">=", 1.9, False), ("<=", 2.1, False)])
def test_a_target_is_met_on_its_side(sign, value, met):
    assert Target(sign, 2.0).met(value) is met


@pytest.mark.parametrize(("sign", "value"), [(">=", 3.0), ("<=", 0.75)])
def test_reaching_a_target_counts_in_its_multiples(sign, value):
    assert Target(sign, 1.5).reached(value) == 2.0


FIGURE = Figure(
    entry="b",
    what="one over the other",
    value=1.5,
    target=Target(">=", 2.0),
    ours=Sample((1.0, 2.0), "ms"),
    other=Sample((3.0,), "ms"),
    work={"steps": 4},
    note="short for a reason",
)


def test_a_figure_survives_json():
    assert figure_of(json.loads(json.dumps(asdict(FIGURE)))) == FIGURE


@pytest.mark.parametrize(("value", "word"), [(1.5, "MISSED"), (2.5, "met")])
def test_a_line_says_whether_the_target_is_met(value, word):
    assert f"target >= 2 {word}" in replace(FIGURE, value=value).lines()


def results(*figures):
    tables = [{"module": "cohort", **asdict(figure)} for figure in figures]
    return {"figures": tables, "failed": {}, "seconds": {"cohort": 60.0}, "machine": {"cores": 2}}


def test_the_table_marks_what_is_short():
    assert "| b | one over the other | ≥ 2 | 1.5 x | short |" in markdown(results(FIGURE))


def test_the_table_names_what_failed():
    assert "- flower failed: no Ray" in markdown({**results(FIGURE), "failed": {"flower": "no Ray"}})


def test_an_unknown_entry_is_refused():
    with pytest.raises(SystemExit, match=r"no benchmark called 'speed'\. Known: a to k, federated"):
        main(["--only", "speed"])


def test_every_entry_is_a_module_with_a_main():
    def functions(name):
        return {node.name for node in ast.parse((BENCHMARKS / f"{name}.py").read_text()).body if is_function(node)}

    assert [name for name in ENTRIES if "main" not in functions(name)] == []


def is_function(node):
    return isinstance(node, ast.FunctionDef)


def test_every_benchmark_is_an_entry():
    modules = {path.stem for path in BENCHMARKS.glob("*.py") if not path.stem.startswith("_")}
    assert modules == set(ENTRIES)


def test_data_have_the_lengths_asked_for(tmp_path):
    shape = replace(TINY, lengths=Lengths(prompt=(5, 5), answer_median=7.0, answer_sigma=0.0, longest=12))
    records = [json.loads(line) for line in write_data(shape, tmp_path).read_text().splitlines()]
    assert {(len(one["instruction"].split()), len(one["output"].split())) for one in records} == {(5, 7)}


def test_every_owner_has_one_epoch_of_a_round(tmp_path):
    owners = [json.loads(line)["owner"] for line in write_data(TINY, tmp_path).read_text().splitlines()]
    assert [owners.count(owner) for owner in sorted(set(owners))] == [TINY.steps * TINY.batch] * TINY.clients


def test_peak_memory_grows_with_what_is_held():
    # In a process of its own: in this one an earlier test may have held more.
    code = (
        "import torch; from benchmarks._common import Settings, peak_bytes; before = peak_bytes(Settings()); "
        "held = torch.ones(200_000_000 // 4); print((peak_bytes(Settings()) - before) / held.nbytes)"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=BENCHMARKS.parent, capture_output=True, text=True, check=True)
    assert float(done.stdout) > 0.9


def test_the_page_quotes_the_measured_tables():
    measured = [path for path in (BENCHMARKS / "results").glob("*.json") if not path.stem.endswith("_quick")]
    page = DOCS.read_text()
    assert [path.name for path in measured if markdown(json.loads(path.read_text())) not in page] == []


def test_only_libraries_that_are_installed_are_named(monkeypatch):
    monkeypatch.setattr("benchmarks._report._LIBRARIES", ("torch", "no_such_library"))
    assert [name for name in machine("cpu") if name in ("torch", "no_such_library")] == ["torch"]


# ------------------------------------------------------------------------------------------------------- pictures

PICTURES = PictureShape(name="tiny", model={"name": "mlp", "hidden": [8]}, clients=3, steps=4, batch=8)


def loaders_in_our_order(rounds: Rounds):
    """Each client's pictures, in the batches in which a fedloom client meets them in the first round."""
    for client, name in enumerate(rounds.plan.clients):
        inputs, label_N = picture_tensors(PICTURES, PICTURES.examples, client)
        drawn = batches(len(label_N), rounds.plan.local, rounds.plan.seed, 0, name)
        yield DataLoader(TensorDataset(inputs, label_N), batch_sampler=[micro for (micro,) in drawn])


@pytest.mark.parametrize(
    "model", [PICTURES.model, {"name": "small_cnn", "channels": 2, "hidden": 8}], ids=["mlp", "cnn"]
)
def test_the_plain_loop_is_our_round_where_batches_are_the_same(tmp_path, model):
    rounds = Rounds(picture_table(replace(PICTURES, model=model), tmp_path, Settings(), engine={"name": "cohort"}))
    plain = PlainRounds(rounds.work.model.module, list(loaders_in_our_order(rounds)), lr=PICTURES.lr)
    before = {name: value.clone() for name, value in plain.params.items()}
    rounds()
    plain()
    assert rounds.examples == plain.examples == PICTURES.clients * PICTURES.examples
    for name, value in plain.params.items():
        assert not torch.equal(value, before[name])
        torch.testing.assert_close(rounds.params[name], value, rtol=1e-4, atol=1e-6)


def test_a_plain_client_sees_each_picture_once_a_round():
    inputs, label_N = picture_tensors(PICTURES, 10, 0)
    seen = torch.cat([part for part, _ in shuffled(inputs, label_N, batch=4)])
    assert sorted(seen.flatten(1).tolist()) == sorted(inputs.flatten(1).tolist())


def test_no_two_clients_own_the_same_picture():
    drawn = [drawn_pictures(PICTURES, PICTURES.examples, client)[0] for client in (0, 1, "held out")]
    pictures = [one.tobytes() for part in drawn for one in part]
    assert len(set(pictures)) == len(pictures)


def test_pictures_tell_their_class():
    """Means of a client's pictures by class, as a classifier of another client's."""
    (ours, our_N), (theirs, their_N) = (picture_tensors(PICTURES, 500, client) for client in (0, 1))
    mean_KD = torch.stack([ours[our_N == label].mean(0).flatten() for label in range(10)])
    nearest_N = torch.cdist(theirs.flatten(1), mean_KD).argmin(1)
    assert 0.85 < float((nearest_N == their_N).float().mean()) < 1


def test_sides_of_small_classifiers_are_compared(tmp_path):
    figures = compare(PICTURES, tmp_path, Settings(quick=True))
    assert [figure.what for figure in figures] == [
        f"round, tiny, 3 clients: {name} over cohort" for name in ("sequential", "plain torch loop")
    ]


@pytest.mark.parametrize("losses", [{"a": 1.0, "b": 1.2}, {"a": 2.4, "b": 2.4}], ids=["apart", "no gain"])
def test_sides_that_did_not_learn_the_same_are_refused(losses):
    held_out = HeldOutLoss(PICTURES, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)))
    held_out.start = 2.3
    held_out.check({"a": 1.0, "b": 1.1})
    with pytest.raises(RuntimeError, match=r"did not learn the same from a loss of 2\.300"):
        held_out.check(losses)
