"""Reports: pairs question by question, clients one by one, and damaged directories in one line."""

import json
import math
from dataclasses import replace

import pytest

from fedloom import api
from fedloom.base.errors import RunError
from fedloom.base.mean import Mean
from fedloom.evaluation.held_out import Scored, group_means, score_table
from fedloom.results.estimates import Where, contrast
from fedloom.results.outcome import Asked
from fedloom.results.per_client import models_of_clients
from fedloom.results.show import (
    Outcome,
    compare,
    compare_record,
    compare_table,
    outcome,
    show_record,
    show_table,
)
from fedloom.runs.directory import RunDirectory
from support.small_runs import small_run, write_records


def scored(index, *, owner="", total=1.0, weight=1.0, score="loss", name="test", prompt="", **tags):
    return Scored(name, index, owner, tags, {score: Mean(total, weight)}, prompt or f"q{index}", "answer", "")


def found(final, *, base=None, label="plain", seed=0, complete=True):
    results = {"base": tuple(base or final), "final": tuple(final)}
    return Outcome(f"runs/{label}{seed}", label, seed, 50, complete, results, {"wall_s": 1.0}, {})


def difference(pairs, score, **more):
    """The contrast of runs that are pairs, of the set that they were asked."""
    one, other = (dict(enumerate(side)) for side in zip(*pairs, strict=True))
    return contrast([one], [other], Where(pairs[0][0].results["final"][0].set), score, **more)


SHARED = [scored(i, total=2.0 * (i + 1), weight=i + 1.0, name="validation", client=f"c{i // 3}") for i in range(6)]
OWN = [
    scored(i, owner=f"c{i // 3}", total=6.0, weight=2.0, name="validation", client=f"c{i // 3}")
    for i in reversed(range(6))
]


def test_shared_model_and_local_models_pair_question_by_question():
    assert difference([(found(SHARED), found(OWN, label="local_only"))], "loss").value == 2.0 - 3.0


def test_pair_with_constant_gap_has_an_interval_without_width():
    gap = difference([(found(SHARED), found(OWN, label="local_only"))], "loss")
    assert (gap.low, gap.high) == pytest.approx((-1.0, -1.0))


def test_pair_of_shared_and_many_models_is_the_difference_of_the_means_shown():
    many = [scored(i, owner=o, total=float(i + len(o)), weight=2.0) for o in ("a", "bb", "ccc") for i in range(5)]
    one = [scored(i, total=float(i), weight=i + 1.0) for i in range(5)]
    record = compare_record(compare([found(one), found(many, label="local_only")]))
    values = record["rows"][0]["values"]
    assert record["differences"][0]["value"] == pytest.approx(values["plain"]["value"] - values["local_only"]["value"])


def test_order_of_questions_and_owners_does_not_matter():
    many = [scored(i, owner=o, total=float(3 * i + len(o))) for o in ("a", "bb") for i in range(5)]
    gap = difference([(found(many), found(many[::-1], label="other"))], "loss")
    assert (gap.value, gap.low, gap.high) == (0, 0, 0)


def test_part_of_a_run_is_what_was_chosen_and_is_kept():
    run = found([scored(0, kind="a"), scored(1, kind="b"), scored(0, name="validation", kind="a")])
    assert [one.index for one in run.part(Asked("test")).results["final"]] == [0, 1]
    assert [one.set for one in run.part(Asked("test", (("kind", "a"),))).results["base"]] == ["test"]
    assert run.part(Asked("test")) is run.part(Asked("test"))
    assert run.part(Asked("test")).table("loss").value == 1.0


def test_questions_without_weight_are_not_counted():
    run = found([scored(0), scored(1, total=0.0, weight=0.0), scored(2)])
    (told,) = show_record(run)["rows"]
    assert told["n"] == 2 and told["final"]["standard_error"] == 0


def test_perplexity_stands_beside_the_loss_of_a_token_with_its_interval():
    run = replace(found([scored(i, total=float(i)) for i in range(4)]), settings={"task": {"name": "sft"}})
    loss, perplexity = (row["final"] for row in show_record(run)["rows"])
    assert [perplexity[end] for end in ("value", "low", "high")] == pytest.approx(
        [math.exp(loss[end]) for end in ("value", "low", "high")]
    )


def test_models_of_clients_come_in_the_order_of_the_results():
    owners = [f"client{i}" for i in (3, 1, 4, 0, 5, 2)]
    assert list(models_of_clients(found([scored(0, owner=owner) for owner in owners]))) == owners


def test_models_of_other_clients_are_refused():
    one, other = ([scored(i, owner=o) for o in owners for i in range(3)] for owners in (("a", "b"), ("a", "c")))
    with pytest.raises(RunError, match="models of different clients"):
        difference([(found(one), found(other, label="other"))], "loss")


@pytest.mark.parametrize(
    "other", [[scored(0, prompt="other")], [scored(1)], [scored(0, client="a")], [scored(0), scored(1)]]
)
def test_other_questions_are_refused(other):
    with pytest.raises(RunError, match="asked different questions"):
        difference([(found([scored(0)]), found(other, label="other"))], "loss")


def test_several_seeds_give_students_interval_of_the_differences():
    pairs = [(found([scored(0, total=t)]), found([scored(0, total=0.0)], label="other")) for t in (1.0, 2.0, 3.0)]
    assert difference(pairs, "loss").n == 3


def test_final_is_paired_with_base_of_the_same_run():
    run = found([scored(0, total=3.0)], base=[scored(0, total=1.0)])
    assert difference([(run, run)], "loss", phases=("final", "base")).value == 2.0


def test_runs_of_different_metrics_are_paired_in_what_both_have():
    both = [Scored("test", 0, "", {}, {"loss": Mean(1, 1), "exact_match": Mean(1, 1)}, "q0", "answer")]
    record = compare_record(compare([found([scored(0)]), found(both, label="other")]))
    assert [pair["score"] for pair in record["differences"]] == ["loss"]


def test_score_that_one_run_lacks_leaves_its_cell_empty():
    both = [Scored("test", 0, "", {}, {"loss": Mean(1, 1), "f1": Mean(0.5, 1)}, "q0", "answer")]
    table = compare_table(compare([found([scored(0)]), found(both, label="other")]))[0]
    assert next(row for row in table.rows if row[1] == "f1")[2:] == ("", "", "0.500 [0.500, 0.500]")


def test_unfinished_run_is_not_compared_even_with_final_results():
    with pytest.raises(RunError, match="not complete; `fedloom resume"):
        compare([found([scored(0)], complete=False)])


def test_two_runs_of_a_kind_and_seed_are_refused():
    with pytest.raises(RunError, match="another 'plain' run of seed 0"):
        compare([found([scored(0)]), found([scored(0)])])


def kind(seed, *, base="base", examples=10, **settings):
    """A run whose settings are given, one question each."""
    card = {"base_id": base, "n_examples": examples}
    return replace(found([scored(0)], label="FedAvg", seed=seed), card=card, settings={"seed": seed, **settings})


def test_runs_that_differ_in_seeds_alone_are_one_kind():
    runs = [kind(seed, data={"seed": seed, "name": "world"}, local={"lr": 0.1}) for seed in range(3)]
    assert {label: list(seeds) for label, seeds in compare(runs).groups.items()} == {"FedAvg": [0, 1, 2]}


@pytest.mark.parametrize(
    ("one", "other", "labels"),
    [
        ({"local": {"lr": 0.1}}, {"local": {"lr": 0.2}}, ["FedAvg local.lr=0.1", "FedAvg local.lr=0.2"]),
        ({"model": {"path": "a"}}, {"model": {"path": "b"}}, ["FedAvg model.path=a", "FedAvg model.path=b"]),
        ({"data": {"path": "a"}}, {"data": {"path": "b"}}, ["FedAvg data.path=a", "FedAvg data.path=b"]),
        ({"base": "tiny 1"}, {"base": "tiny 2"}, ["FedAvg base=tiny 1", "FedAvg base=tiny 2"]),
        ({"examples": 5}, {"examples": 6}, ["FedAvg examples=5", "FedAvg examples=6"]),
        ({"rounds": 3}, {"rounds": 4}, ["FedAvg rounds=3", "FedAvg rounds=4"]),
    ],
)
def test_runs_of_other_settings_have_columns_of_their_own(one, other, labels):
    compared = compare([kind(0, **one), kind(1, **one), kind(1, **other)])
    assert {label: list(seeds) for label, seeds in compared.groups.items()} == {labels[0]: [0, 1], labels[1]: [1]}


def test_effective_n_stands_beside_n():
    wordings = [scored(i, total=float(i // 3), score="f1", fact=f"f{i // 3}") for i in range(30)]
    table = show_table(found(wordings))
    shown = dict(zip(table.header, table.rows[0], strict=True))
    assert shown["n"] == "30" and 8 <= int(shown["eff. n"]) <= 12


def test_score_without_weight_has_no_row():
    rows = show_record(found([scored(0, weight=0.0, total=0.0), scored(1, score="exact_match")]))["rows"]
    assert [row["score"] for row in rows] == ["exact_match"]


def test_validation_interval_of_a_shared_model_is_over_clients():
    alike = [scored(i, total=float(i // 10), name="validation", client=f"c{i // 10}") for i in range(100)]
    free = [scored(i, total=float(i // 10), name="validation") for i in range(100)]
    (first,), (second,) = show_record(found(alike))["rows"], show_record(found(free))["rows"]
    widths = [row["final"]["high"] - row["final"]["low"] for row in (first, second)]
    assert widths[0] > 2 * widths[1]


def test_every_client_has_its_own_value():
    assert show_record(found(OWN))["clients"][0]["values"] == {"c0": 3.0, "c1": 3.0}


def test_worst_decile_of_a_loss_is_the_highest():
    losses = [scored(i, total=float(i), name="validation", client=f"c{i}") for i in range(10)]
    assert show_record(found(losses))["clients"][0]["worst_decile"] == 9.0


@pytest.mark.parametrize("score", ["empty_answer", "over_refusal", "answer_loss"])
def test_worst_decile_of_what_should_be_low_is_the_highest(score):
    told = [scored(i, total=float(i), score=score, client=f"c{i}") for i in range(10)]
    assert show_record(found(told))["clients"][0]["worst_decile"] == 9.0


def test_worst_decile_of_a_match_is_the_lowest():
    matches = [scored(i, total=float(i), score="exact_match", client=f"c{i}") for i in range(10)]
    assert show_record(found(matches))["clients"][0]["worst_decile"] == 0.0


def test_test_questions_of_clients_are_scored_per_client_by_its_own_model():
    asked = [scored(i, owner=o, total=float(o == f"c{i}"), client=f"c{i}") for o in ("c0", "c1") for i in range(2)]
    assert show_record(found(asked))["clients"] == [
        {"questions": "test, own", "score": "loss", "values": {"c0": 1.0, "c1": 1.0}, "mean": 1.0, "worst_decile": 1.0}
    ]


def test_common_test_is_scored_per_client_where_each_has_a_model():
    asked = [scored(i, owner=o, total=float(len(o))) for o in ("a", "bb") for i in range(3)]
    assert show_record(found(asked))["clients"][0]["values"] == {"a": 1.0, "bb": 2.0}


def test_score_table_is_sorted_and_has_weight_0_where_nobody_was_asked():
    table = score_table([scored(2, owner="b", total=5.0), scored(1, owner="a", total=4.0)], "loss")
    assert (table.total_CN.tolist(), table.weight_CN.tolist()) == ([[4, 0], [0, 5]], [[1, 0], [0, 1]])


def test_group_means_leave_out_examples_without_the_score():
    assert group_means([scored(0), scored(1, score="f1")], "f1", lambda one: one.set) == {"test": Mean(1, 1)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    list(api.start(small_run(folder, rounds=1), folder / "run"))
    return folder / "run"


@pytest.fixture
def directory(finished, tmp_path):
    for name in ("run.toml", "metrics.jsonl", "ledger.jsonl", "results.jsonl", "report.md"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    return RunDirectory(tmp_path)


def test_record_of_a_run_is_json_with_numbers(directory):
    row = json.loads(json.dumps(show_record(outcome(directory)), allow_nan=False))["rows"][0]
    assert row["final"]["low"] <= row["final"]["value"] <= row["final"]["high"] and row["n"] > 0


def test_table_of_a_run_names_every_row_of_its_record(directory):
    run = outcome(directory)
    shown = {row[:2] for row in show_table(run).rows}
    assert {(row["questions"], row["score"]) for row in show_record(run)["rows"]} < shown


def test_complete_run_without_held_out_examples_says_what_to_set(tmp_path):
    write_records(tmp_path / "data.jsonl")
    list(api.start(small_run(tmp_path, rounds=1, evaluation={"holdout": 0.0}), tmp_path / "run"))
    with pytest.raises(
        RunError, match=r"no held-out examples.*set evaluation\.holdout above 0 or give the data a test"
    ):
        compare([outcome(RunDirectory(tmp_path / "run"))])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"", "seed: it is missing"),
        (b"seed = 1", "evaluation.resamples: it is missing"),
        (b"seed =", "not valid TOML"),
        (b"\xff\xfe", "no UTF-8"),
    ],
)
def test_damaged_run_file_is_refused(directory, text, named):
    (directory.path / "run.toml").write_bytes(text)
    with pytest.raises(RunError, match=rf"run\.toml: .*{named}") as error:
        outcome(directory)
    assert "\n" not in str(error.value)


def test_run_file_with_a_key_of_another_type_is_refused(directory):
    text = directory.read("run.toml").replace("resamples = 20", "resamples = 'many'")
    (directory.path / "run.toml").write_text(text)
    with pytest.raises(RunError, match=r"run\.toml: evaluation\.resamples: found 'many'"):
        outcome(directory)


@pytest.mark.parametrize("log", ["results.jsonl", "metrics.jsonl", "ledger.jsonl"])
@pytest.mark.parametrize("line", ["[]", "5", "null", '"a"', "{}", "{", ""])
def test_line_of_another_shape_is_refused_by_file_and_line(directory, log, line):
    path = directory.path / log
    count = len(path.read_text().splitlines())
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(RunError, match=rf"{log}: line {count + 1}"):
        outcome(directory)


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("results.jsonl", '{"a": 1}'),
        ("metrics.jsonl", '{"a": 1}'),
        ("metrics.jsonl", '{"wall_s": "long"}'),
        ("ledger.jsonl", '{"bytes": "many"}'),
    ],
)
def test_record_of_other_keys_is_refused_by_file_and_line(directory, log, line):
    (directory.path / log).write_text(line + "\n")
    with pytest.raises(RunError, match=rf"{log}: line 1"):
        outcome(directory)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"scores": {"loss": [1]}}, "no pair of total and weight"),
        ({"scores": {"loss": [1, "a"]}}, "no pair of total and weight"),
        ({"scores": {"loss": [float("nan"), 1]}}, "no pair of total and weight"),
        ({"tags": {"client": 3}}, "a tag is no text"),
        ({"tags": []}, "no scored example"),
        ({"index": "0"}, "no scored example"),
    ],
)
def test_scored_example_of_another_shape_is_refused(directory, change, named):
    record = directory.lines("results.jsonl")[0] | change
    (directory.path / "results.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(RunError, match=rf"results\.jsonl: line 1.*{named}"):
        outcome(directory)


def test_repeated_result_is_refused(directory):
    path = directory.path / "results.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n" + path.read_text())
    with pytest.raises(RunError, match=r"results\.jsonl: line 2: repeats question"):
        outcome(directory)


def test_results_without_a_base_are_refused(directory):
    lines = directory.read("results.jsonl").splitlines(keepends=True)
    (directory.path / "results.jsonl").write_text("".join(line for line in lines if '"base"' not in line))
    with pytest.raises(RunError, match="no results of phase 'base'"):
        outcome(directory)


def test_log_that_is_no_text_is_refused(directory):
    (directory.path / "results.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(RunError, match=r"results\.jsonl: is no UTF-8 text"):
        outcome(directory)


def test_without_a_test_of_its_own_a_run_tells_its_questions_once():
    held = [
        scored(i, total=float(i), name=name, client=f"c{i % 3}") for name in ("test", "validation") for i in range(9)
    ]
    told = show_record(found(held))
    assert {row["questions"] for row in told["rows"]} == {"test"}
    assert {one["questions"] for one in told["clients"]} == {"test, own"}
    both = show_record(found([*held[:9], *(replace(one, tags={"client": "c9"}) for one in held[9:])]))
    assert {row["questions"] for row in both["rows"]} == {"test", "validation"}
