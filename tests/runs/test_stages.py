"""What lies before and after training: examples prepared, the model refined, both gone on with after a stop."""

import json

import pytest
import torch
from safetensors.torch import load_file

from fedloom import api
from fedloom.base.errors import ConfigError, DataError, ModelError, RunError
from fedloom.base.files import json_sha256
from fedloom.base.plugin import lookup
from fedloom.contracts.stages import Made, Owner, Preparation
from fedloom.federated.rounds import begin, step
from fedloom.runs.apart import prepare_client
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import read_run
from support.command import fedloom
from support.numbers import TABLE
from support.resuming import adapters, logs

PRIVATE = {"name": "gaussian", "noise_multiplier": 0.3, "epsilon": 0.0, "delta": 0.01}

PLUGINS = '''"""Each point and its mirror image, and a model pulled towards zero."""

import json
import os
from dataclasses import field, replace

from fedloom.base.plugin import plugin
from fedloom.contracts.stages import Made, Preparation, Refined, Refinement

CALLS = []


@plugin("mirrored")
class Mirrored(Preparation):
    """A point gives two."""

    dies_at: str = ""
    keeps: float = 1.0

    def __call__(self, examples, owner):
        CALLS.append(owner.name)
        if self.dies_at == owner.name and not os.environ.get("MENDED"):
            (owner.folder / "half_done").write_text("half")
            raise KeyboardInterrupt
        other = [replace(one, inputs=tuple(-x for x in one.inputs), target=-one.target) for one in examples]
        made = [*examples, *other][: int(self.keeps * 2 * len(examples))]
        return Made(made, {"examples": len(examples), "made": len(other)}, {"prompts to a model": 7})


@plugin("rated")
class Rated(Preparation):
    """Points as they are, and what they are worth."""

    by: dict[str, float] = field(default_factory=dict)

    def __call__(self, examples, owner):
        CALLS.append(owner.name)
        return Made(examples, quality=self.by.get(owner.name, 1.0))


@plugin("shrunk")
class Shrunk(Refinement):
    """All numbers times a factor."""

    by: float = 0.5
    spoils: str = ""

    def __call__(self, trained):
        CALLS.append(trained.round)
        params = {name: self.by * tensor for name, tensor in trained.params.items()}
        params |= {"more": params["bias"]} if self.spoils == "names" else {}
        params |= {"bias": params["bias"] / 0} if self.spoils == "numbers" else {}
        return Refined(params, {"shrunk": len(params)})
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of plug-ins, imported as a run file names it; gives the list of their calls."""
    (tmp_path / "of_mine.py").write_text(PLUGINS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    read_run(TABLE | {"plugins": ["of_mine"], "model": "causal_lm", "task": "sft", "data": "world"})
    import of_mine

    of_mine.CALLS.clear()
    return of_mine.CALLS


def run_of(**changes):
    return read_run(TABLE | {"plugins": ["support.numbers", "of_mine"]} | changes)


def ended(run, folder):
    list(api.start(run, folder))
    return folder


def final(folder):
    return load_file(folder / "adapter" / "line.safetensors")


# ------------------------------------------------------------------------------------------------------- the identities


def test_unchanged_stages_are_no_stages(tmp_path):
    plain = ended(read_run(TABLE), tmp_path / "plain")
    staged = ended(read_run(TABLE | {"prepare": ["unchanged"], "refine": ["unchanged"]}), tmp_path / "staged")
    assert adapters(plain) == adapters(staged) != {}
    both = [logs(folder) for folder in (plain, staged)]
    for name in ("results.jsonl", "metrics.jsonl"):
        assert both[0][name] == [one for one in both[1][name] if one["phase"] not in ("refine", "tuned")]
    tuned, last = (
        [one | {"phase": ""} for one in both[1]["results.jsonl"] if one["phase"] == p] for p in ("tuned", "final")
    )
    assert tuned == last != []


def test_both_stages_are_in_ledger_report_and_show(tmp_path, monkeypatch, capsys):
    folder = ended(read_run(TABLE | {"prepare": ["unchanged"], "refine": ["unchanged"]}), tmp_path / "run")
    told = [line["what"] for line in logs(folder)["ledger.jsonl"]]
    assert told.count("prepare unchanged: counts (partition.json)") == 4
    assert told.count("nothing: the server refines (unchanged)") == 1
    lines = ["prepare unchanged: 4 clients, 49 examples, 0 bytes sent", "refine unchanged: 1 done"]
    assert "## Stages\n\n" + "".join(f"- {line}\n" for line in lines) in (folder / "report.md").read_text()
    assert fedloom(monkeypatch, "show", folder) == 0
    shown = capsys.readouterr().out
    assert all(line in shown for line in lines)
    assert json.loads((folder / "partition.json").read_text())["encoded"]["c0"]["examples"] == 11


# ---------------------------------------------------------------------------------------------------------- preparation


def test_training_is_on_what_was_prepared_and_the_partition_tells_what_was_owned(own, tmp_path):
    ready = prepare(run_of(prepare=["mirrored"]))
    bare = prepare(read_run(TABLE))
    assert [len(shard.items) for shard in ready.shards.values()] == [2 * len(s.items) for s in bare.shards.values()]
    assert ready.division.card["data_sha256"] == bare.division.card["data_sha256"]
    assert ready.division.fingerprints == bare.division.fingerprints and own == ["c0", "c1", "c2", "c3"]


def test_preparations_follow_one_another_and_what_they_send_is_in_the_ledger(own, tmp_path):
    folder = ended(run_of(prepare=["mirrored", {"name": "mirrored", "keeps": 0.5}]), tmp_path / "run")
    sent = [line for line in logs(folder)["ledger.jsonl"] if line["what"] == "prepare mirrored: prompts to a model"]
    assert len(sent) == 8 and sum(line["bytes"] for line in sent) == 56
    for n in (49, 98):
        line = f"- prepare mirrored: 4 clients, {n} examples, {n} made, 28 bytes sent"
        assert line in (folder / "report.md").read_text()


def test_what_was_prepared_before_a_stop_is_not_prepared_again(own, tmp_path, monkeypatch):
    run = run_of(prepare=[{"name": "mirrored", "dies_at": "c2"}])
    with pytest.raises(KeyboardInterrupt):
        list(api.start(run, tmp_path / "stopped"))
    assert own == ["c0", "c1", "c2"]
    monkeypatch.setenv("MENDED", "1")
    list(api.resume(tmp_path / "stopped")[1])
    assert own == ["c0", "c1", "c2", "c2", "c3"]
    assert (tmp_path / "stopped" / "prepared" / "0_mirrored" / "c2" / "half_done").read_text() == "half"
    unbroken = ended(run, tmp_path / "unbroken")
    assert adapters(tmp_path / "stopped") == adapters(unbroken) and logs(tmp_path / "stopped") == logs(unbroken)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (lambda text: text[:-9], "cannot be read"),
        (lambda text: text.replace('"made": 11', '"made": 12'), "content differs from what was written"),
        (lambda text: "[]", "cannot be read"),
    ],
    ids=["cut", "edited", "of another shape"],
)
def test_a_damaged_file_of_prepared_examples_is_refused(own, tmp_path, change, refusal):
    prepare(run_of(prepare=["mirrored"]), tmp_path)
    file = tmp_path / "prepared" / "0_mirrored" / "c0.json"
    assert change(file.read_text()) != file.read_text()
    file.write_text(change(file.read_text()))
    with pytest.raises(RunError, match=refusal + r".*delete it to have it made again\.$"):
        prepare(run_of(prepare=["mirrored"]), tmp_path)


def test_examples_prepared_from_others_are_refused(own, tmp_path):
    prepare(run_of(prepare=["mirrored"]), tmp_path)
    with pytest.raises(RunError, match=r"c0\.json: was made of other examples or settings"):
        prepare(run_of(prepare=["mirrored"], data={"name": "points", "records": 13}), tmp_path)


def test_a_client_left_without_examples_takes_no_part_and_is_named(own, tmp_path):
    ready = prepare(run_of(prepare=[{"name": "mirrored", "keeps": 0.04}]))  # one of the smallest client's is none
    assert ready.division.card["left_out"] == sorted({"c0", "c1", "c2", "c3"} - set(ready.shards)) != []
    assert ready.shards


def test_examples_for_nobody_are_refused(own, tmp_path):
    with pytest.raises(DataError, match="prepare: 'mirrored' made no example for any client"):
        prepare(run_of(prepare=[{"name": "mirrored", "keeps": 0.0}]))


def test_privacy_of_examples_refuses_a_preparation_that_does_not_say_what_one_decides(own):
    with pytest.raises(ConfigError, match=r"prepare: found prepare.name = 'mirrored', a preparation that says nothing"):
        run_of(prepare=["mirrored"], privacy=PRIVATE, weighting="uniform")
    assert run_of(prepare=["mirrored"], privacy=PRIVATE | {"unit": "client"}, weighting="uniform").prepare
    assert run_of(prepare=["unchanged"], privacy=PRIVATE, weighting="uniform").prepare


def test_a_preparation_knows_its_owner_and_nothing_else():
    made = lookup(Preparation, "unchanged")()([], Owner("c0", 0, None))
    assert made.examples == [] and made.sent == {}


# ----------------------------------------------------------------------------------------------------------- refinement


def test_the_result_is_the_refined_model_and_it_is_what_was_measured(own, tmp_path):
    plain, refined = ended(read_run(TABLE), tmp_path / "a"), ended(run_of(refine=["shrunk"]), tmp_path / "b")
    for name, tensor in final(refined).items():
        torch.testing.assert_close(tensor, 0.5 * final(plain)[name])
    assert own == [4] and "refine shrunk: 1 done, 2 shrunk" in (refined / "report.md").read_text()
    losses = [[one for one in logs(f)["results.jsonl"] if one["phase"] == "final"] for f in (plain, refined)]
    assert losses[0] != losses[1]


def test_the_next_rounds_start_from_the_refined_model(own, tmp_path):
    run = run_of(refine=["shrunk"], refine_every=2, evaluation=TABLE["evaluation"] | {"every": 1})
    folder = ended(run, tmp_path / "run")
    assert own == [2, 4] and "refine shrunk: 2 done, 4 shrunk" in (folder / "report.md").read_text()
    steady = {"refine": ["shrunk"], "local": TABLE["local"] | {"schedule": "constant"}}
    first = ended(run_of(rounds=2, **steady), tmp_path / "two")
    events = api.start(run_of(refine_every=2, **steady), tmp_path / "four")
    while not (tmp_path / "four" / "checkpoints" / "round_00002").is_dir():
        next(events)
    events.close()
    state = load_file(tmp_path / "four" / "checkpoints" / "round_00002" / "params.safetensors")
    assert all(torch.equal(state[name], tensor) for name, tensor in final(first).items())


def test_gone_on_with_after_any_round_a_refined_run_has_the_same_bytes(own, tmp_path):
    run = run_of(refine=["shrunk"], refine_every=2, rule="scaffold", server_opt={"name": "adam", "lr": 0.1})
    unbroken = ended(run, tmp_path / "unbroken")
    for n_events in (2, 3, 4, 5):
        events = api.start(run, tmp_path / f"stopped{n_events}")
        for _ in range(n_events):
            next(events)
        events.close()
        list(api.resume(tmp_path / f"stopped{n_events}")[1])
        assert final(tmp_path / f"stopped{n_events}").keys() == final(unbroken).keys()
        assert adapters(tmp_path / f"stopped{n_events}") == adapters(unbroken) != {}
        assert logs(tmp_path / f"stopped{n_events}") == logs(unbroken)


@pytest.mark.parametrize(
    ("spoils", "refusal"), [("names", "other names or shapes of more"), ("numbers", "NaN or infinity in bias")]
)
def test_parameters_that_cannot_take_the_trained_ones_place_are_refused(own, tmp_path, spoils, refusal):
    with pytest.raises(ModelError, match=f"refine: 'shrunk' returned {refusal}"):
        ended(run_of(refine=[{"name": "shrunk", "spoils": spoils}]), tmp_path / "run")


@pytest.mark.parametrize("protocol", ["local_only", "centralised"])
def test_baselines_are_not_refined_but_train_on_what_was_prepared(own, tmp_path, protocol):
    folder = ended(run_of(refine=["shrunk"], prepare=["mirrored"], protocol=protocol), tmp_path / "run")
    assert own == ["c0", "c1", "c2", "c3"]
    assert not [line for line in logs(folder)["metrics.jsonl"] if line["phase"] == "refine"]


def test_each_cluster_has_its_model_refined(own, tmp_path):
    ended(run_of(refine=["shrunk"], protocol={"name": "clustered", "by": "client"}, rounds=1), tmp_path / "run")
    assert own == [1, 1, 1, 1]


def test_a_private_run_spends_the_same_whether_it_is_refined_or_not(own, tmp_path):
    private = {"privacy": PRIVATE | {"unit": "client"}, "weighting": "uniform"}
    plain, refined = (
        ended(run_of(**private), tmp_path / "a"),
        ended(run_of(refine=["shrunk"], **private), tmp_path / "b"),
    )
    cards = [json.loads((folder / "privacy.json").read_text()) for folder in (plain, refined)]
    assert [card["epsilon"] for card in cards] == [cards[0]["epsilon"]] * 2


def test_a_run_refused_after_it_was_prepared_keeps_what_was_prepared(own, tmp_path):
    with pytest.raises(ModelError):
        ended(
            run_of(prepare=["mirrored"], refine=[{"name": "shrunk", "spoils": "numbers"}], rounds=1), tmp_path / "run"
        )
    assert len(list((tmp_path / "run" / "prepared" / "0_mirrored").glob("*.json"))) == 4


# -------------------------------------------------------------------------------------------------------------- quality

WORTH = {"c0": 0.25, "c1": 1.5, "c2": 0.5}


def rated(by=WORTH, **changes):
    return run_of(prepare=[{"name": "rated", "by": by}], weighting="quality", **changes)


def first_round(ready):
    """The reports of a first round and the parameters after it."""
    work, reports = ready.stages[0].work, []
    carrier = ready.run.engine.resolved(work, n_clients=work.plan.clients_per_round).start(work)

    def seen(jobs):
        for report in carrier(jobs):
            reports.append(report)
            yield report

    start_P = ready.layout.row({"": ready.shared})
    state, _ = step(work.plan, begin(work.plan, start_P.clone()), seen)
    return reports, state.params_P - start_P


@pytest.mark.parametrize("per_round", [2, 4])
def test_rows_count_by_number_times_quality_normalised_over_who_was_sampled(own, per_round):
    ready = prepare(rated(clients_per_round=per_round))
    reports, moved_P = first_round(ready)
    sizes = {client: len(shard.items) for client, shard in ready.shards.items()}
    assert len(reports) == per_round
    assert {one.client: one.weight for one in reports} == {
        one.client: sizes[one.client] * WORTH.get(one.client, 1.0) for one in reports
    }
    shares = [one.weight / sum(other.weight for other in reports) for one in reports]
    assert sum(shares) == pytest.approx(1, abs=1e-12)
    codec = ready.stages[0].plan.codec
    rows = [codec.decode(one.packet, len(moved_P)).double() for one in reports]
    mean_P = sum(share * row_P for share, row_P in zip(shares, rows, strict=True))
    torch.testing.assert_close(moved_P.double(), mean_P, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("worth", [1.0, 0.5, 0.0625])
def test_of_equal_quality_it_is_fedavg_bit_for_bit(own, tmp_path, worth):
    """Powers of two: any other factor rounds anew in the sum, in bits that the rows' own precision does not have."""
    plain = ended(read_run(TABLE | {"clients_per_round": 2}), tmp_path / "plain")
    by = dict.fromkeys(("c0", "c1", "c2", "c3"), worth)
    equal = ended(rated(by, clients_per_round=2), tmp_path / "equal")
    assert adapters(equal) == adapters(plain) != {}
    other = ended(rated(dict.fromkeys(by, 0.37), clients_per_round=2), tmp_path / "other")
    for name, tensor in final(plain).items():
        torch.testing.assert_close(final(other)[name], tensor, rtol=1e-6, atol=1e-7)


def test_qualities_of_several_preparations_multiply_and_are_kept_over_a_stop(own, tmp_path):
    steps = [{"name": "rated", "by": {"c0": 0.5}}, "unchanged", {"name": "rated", "by": {"c0": 0.5, "c1": 3.0}}]
    for _ in range(2):
        ready = prepare(run_of(prepare=steps), tmp_path)
        assert {client: shard.quality for client, shard in ready.shards.items()} == {
            "c0": 0.25,
            "c1": 3.0,
            "c2": 1.0,
            "c3": 1.0,
        }
        assert ready.stages[0].work.shard("c0").quality == 0.25
    assert own == ["c0", "c1", "c2", "c3"] * 2


def test_a_client_that_prepares_itself_counts_as_in_a_run_of_one_place(own, tmp_path):
    run = run_of(prepare=[{"name": "rated", "by": WORTH}], evaluation=TABLE["evaluation"] | {"holdout": 0.0})
    assert prepare_client(run, "c1", ["c0", "c1"]).shards["c1"].quality == 1.5


def test_a_prepared_file_of_before_reads_as_of_quality_one(own, tmp_path):
    prepare(run_of(prepare=["mirrored"]), tmp_path)
    file = tmp_path / "prepared" / "0_mirrored" / "c0.json"
    table = json.loads(file.read_text())
    del table["sha256"], table["quality"]
    file.write_text(json.dumps(table | {"sha256": json_sha256(table)}))
    assert prepare(run_of(prepare=["mirrored"]), tmp_path).shards["c0"].quality == 1.0
    assert own == ["c0", "c1", "c2", "c3"]


@pytest.mark.parametrize("quality", [0.0, -1.0, float("nan"), float("inf")])
def test_a_quality_that_no_mean_can_be_weighted_by_is_refused(quality):
    with pytest.raises(DataError, match=r"quality: found .* allowed is a finite number above 0"):
        Made([], quality=quality)


def test_privacy_refuses_weights_by_quality(own):
    with pytest.raises(ConfigError, match=r"weighting: found 'quality' with privacy"):
        run_of(prepare=["unchanged"], privacy=PRIVATE, weighting="quality")


@pytest.mark.parametrize("most", [0, 1, 12, 10**6])
def test_a_client_counts_by_no_more_than_the_most(most):
    """However many examples a preparation makes for one client, it does not decide alone."""
    ready = prepare(read_run(TABLE | {"max_weight": most}))
    work = ready.stages[0].work
    reports = []
    carrier = ready.run.engine.resolved(work, n_clients=4).start(work)

    def seen(jobs):
        for report in carrier(jobs):
            reports.append(report)
            yield report

    step(work.plan, begin(work.plan, ready.layout.row({"": ready.shared})), seen)
    sizes = {client: len(shard.items) for client, shard in ready.shards.items()}
    assert {report.client: report.weight for report in reports} == {
        client: min(size, most or size) for client, size in sizes.items()
    }
