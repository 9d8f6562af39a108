"""The benchmarks' own arithmetic: operations counted, sides in turn, targets, tables. Nothing is timed here."""

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
from benchmarks._report import DOCS, markdown
from benchmarks._shapes import ALL_LINEAR, TINY, Lengths, Shape, base_folder, write_data
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

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
    with pytest.raises(SystemExit, match=r"no benchmark called 'speed'\. Known: a to g, federated"):
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
