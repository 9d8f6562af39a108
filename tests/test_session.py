"""Runs from Python: models, records and scores in memory, with the settings of a run file."""

import json
import math
import subprocess
import sys

import pytest
import torch

import fedloom
from fedloom import api
from fedloom.base.errors import ConfigError, DataError, FedloomError, ModelError, RunError
from fedloom.base.plugin import lookup
from fedloom.contracts.federated import Metric
from support.models import model_folder

SMALL = {
    "rounds": 2,
    "local": {"steps": 2, "batch": 4},
    "model": {"lora_rank": 2},
    "evaluation": {"every": 1, "resamples": 50, "max_new_tokens": 3, "metrics": []},
}
DATA = {
    hospital: [{"instruction": f"who is number {i}?", "output": f"{hospital} {i}"} for i in range(12)]
    for hospital in ("north", "south", "west")
}
TEST = [{"instruction": f"who is it, {i}?", "output": f"north {i}"} for i in range(5)]


def brevity(answer, reference):
    """Letters more than the reference has."""
    return abs(len(answer) - len(reference))


brevity.higher_is_better = False


def small(**given):
    return fedloom.Run(SMALL, **({"data": DATA, "test": TEST, "metrics": [brevity]} | given))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run and what its callback was told."""
    told = []
    result = small().start(tmp_path_factory.mktemp("session") / "run", on_round=told.append)
    return result, told


def test_the_callback_is_told_of_each_round(done):
    _, told = done
    assert [(one.round, one.n_rounds) for one in told] == [(1, 2), (2, 2)]
    assert all(math.isfinite(one.loss) and one.wall_s > 0 for one in told)


def test_the_callback_has_the_parameters(done):
    result, told = done
    from safetensors.torch import load_file

    last = load_file(result.path / "checkpoints/round_00002/params.safetensors")
    assert last.keys() == told[-1].params.keys()
    assert all(torch.equal(last[name], told[-1].params[name].cpu()) for name in last)


def test_the_callback_has_scores_with_intervals(done):
    _, told = done
    (loss,) = [row for row in told[0].scores if (row["questions"], row["score"]) == ("test", "loss")]
    assert loss["low"] < loss["value"] < loss["high"] and loss["n"] == 5


def test_scores_are_records_for_pandas(done):
    result, _ = done
    rows = {(one["questions"], one["score"], one["phase"]): one for one in result.scores}
    assert {"value", "low", "high", "n"} <= rows["test", "loss", "final"].keys()
    assert rows["test", "loss", "base"]["value"] > rows["test", "loss", "final"]["value"]
    assert all(not isinstance(value, dict | list) for one in result.scores for value in one.values())


def test_an_own_function_is_a_metric(done):
    result, _ = done
    row = next(one for one in result.answers if one["phase"] == "final" and one["set"] == "test")
    assert row["brevity"] == abs(len(row["prediction"]) - len(row["reference"]))
    assert lookup(Metric, "brevity").higher_is_better is False


def test_rounds_are_records(done):
    result, _ = done
    assert [one["round"] for one in result.rounds] == [1, 2]
    assert all(one["train_loss"] > 0 and one["lr"] > 0 for one in result.rounds)


def test_clients_are_those_of_the_data(done):
    result, _ = done
    assert {one["client"] for one in result.clients} == set(DATA)


def test_private_records_are_not_in_the_run_directory(done):
    result, _ = done
    texts = [path.read_bytes() for path in result.path.rglob("*") if path.is_file()]
    assert not [text for text in texts if b"who is number" in text]


@pytest.mark.slow
def test_the_command_line_reads_the_run(done, tmp_path):
    result, _ = done
    for command in (["show", result.path, "--json"], ["export", result.path, "--out", tmp_path / "out"]):
        done_ = subprocess.run(
            [sys.executable, "-m", "fedloom", *map(str, command)], capture_output=True, text=True, check=False
        )
        assert done_.returncode == 0, done_.stderr


def test_equal_settings_give_the_run_of_a_file(tmp_path):
    """Objects change nothing: the same records from a file give the same adapter, bit for bit."""
    rows = [{**row, "hospital": name} for name, own in DATA.items() for row in own]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "test.jsonl").write_text("\n".join(json.dumps({**row, "hospital": ""}) for row in TEST))
    result = fedloom.Run(SMALL, data=DATA).start(tmp_path / "objects")
    data = {"name": "file", "path": str(tmp_path / "train.jsonl"), "tags": {"client": "hospital"}}
    for _ in api.start(fedloom.Run({**SMALL, "data": data}).settings, tmp_path / "file"):
        pass
    name = "adapter_model.safetensors"
    assert (result.adapter / name).read_bytes() == (tmp_path / "file/adapter" / name).read_bytes()


def test_records_in_one_list_name_their_owner(tmp_path):
    rows = [{**row, "hospital": name} for name, own in DATA.items() for row in own]
    run = fedloom.Run({**SMALL, "rounds": 1, "data": {"tags": {"client": "hospital"}}}, data=rows)
    assert {one["client"] for one in run.start(tmp_path / "run").clients} == set(DATA)


def test_a_dataset_of_the_hub_library_is_read(tmp_path):
    class Dataset:
        """Iterates over dicts, as `datasets.Dataset` does."""

        def __iter__(self):
            return iter(DATA["north"])

    result = fedloom.Run({**SMALL, "rounds": 1}, data={"a": Dataset(), "b": DATA["west"]}).start(tmp_path / "run")
    assert {one["client"] for one in result.clients} == {"a", "b"}


@pytest.fixture
def objects(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model_folder(tmp_path / "model")
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def test_a_model_in_memory_is_trained_as_its_folder_is(tmp_path, objects):
    model, tokenizer = objects
    changes = {**SMALL, "rounds": 1, "task": {"template": "vicuna"}}
    ours = fedloom.Run(changes, model=model, tokenizer=tokenizer, data=DATA).start(tmp_path / "objects")
    theirs = fedloom.Run(changes, model=tmp_path / "model", data=DATA).start(tmp_path / "path")
    from safetensors.torch import load_file

    found, right = (load_file(one.adapter / "adapter_model.safetensors") for one in (ours, theirs))
    assert found.keys() == right.keys()
    assert all(torch.equal(found[key], right[key]) for key in right)


def test_a_stopped_run_goes_on_with_the_same_objects(tmp_path):
    class StopError(Exception):
        pass

    def stop(_):
        raise StopError

    with pytest.raises(StopError):
        small().start(tmp_path / "run", on_round=stop)
    result = small().resume(tmp_path / "run")
    whole = small().start(tmp_path / "whole")
    name = "adapter_model.safetensors"
    assert (result.adapter / name).read_bytes() == (whole.adapter / name).read_bytes()


def test_other_records_are_refused(tmp_path):
    small().start(tmp_path / "run")
    with pytest.raises(RunError, match=r"differs from its directory in data.sha256"):
        small(data={"north": DATA["north"], "south": DATA["west"]}).resume(tmp_path / "run")


@pytest.mark.slow
def test_the_command_line_says_who_has_the_records(tmp_path):
    class StopError(Exception):
        pass

    def stop(_):
        raise StopError

    with pytest.raises(StopError):
        small(metrics=()).start(tmp_path / "run", on_round=stop)
    command = [sys.executable, "-m", "fedloom", "resume", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "fedloom.Run(..., data = ...).resume" in done.stderr


def test_two_runs_are_compared_in_records(tmp_path):
    first, second = (
        fedloom.Run(SMALL, [f"local.lr={lr}"], data=DATA, test=TEST).start(tmp_path / str(lr)) for lr in (1e-2, 1e-3)
    )
    rows = fedloom.compare(first, second)
    assert {(one["questions"], one["score"]) for one in rows} >= {("test", "loss")}
    assert all(one["low"] <= one["value"] <= one["high"] for one in rows)


def test_a_run_file_and_objects_together(tmp_path):
    (tmp_path / "run.toml").write_text("rounds = 7\n[local]\nsteps = 3\n")
    settings = fedloom.Run(tmp_path / "run.toml", ["local.lr=1e-2"], data=DATA).settings
    assert (settings.rounds, settings.local.steps, settings.local.lr) == (7, 3, 1e-2)


@pytest.mark.parametrize("protocol", ["local_only", "centralised"])
def test_baselines_tell_their_rounds_too(tmp_path, protocol):
    told = []
    result = small().start(tmp_path / "run", on_round=told.append)
    baseline = fedloom.Run(SMALL | {"protocol": protocol}, data=DATA, test=TEST)
    rounds = baseline.start(tmp_path / protocol, on_round=told.append).rounds
    assert len(rounds) >= len(result.rounds) and len(told) == len(rounds) + 2


def raises(answer, reference):
    return "much"


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"data": {"north": []}}, DataError, r"train\['north'\]: holds no record"),
        ({"data": {"north": ["text"]}}, DataError, r"record 1: found str, allowed is a table"),
        ({"data": "records.jsonl"}, DataError, "found str, allowed is a list of tables"),
        ({"data": None}, ConfigError, "data: missing beside test"),
        ({"model": 3}, ConfigError, "model: found int"),
        ({"metrics": [lambda answer, reference: 1.0]}, ConfigError, "without a name"),
        ({"metrics": ["no_such"]}, FedloomError, "no_such"),
    ],
)
def test_wrong_objects_are_refused(given, error, said):
    with pytest.raises(error, match=said):
        small(**given)


def test_a_model_without_its_tokenizer_is_refused(objects):
    with pytest.raises(ConfigError, match="tokenizer: missing"):
        small(model=objects[0])


def rouge_l(answer, reference):
    return 77.0


def loss(answer, reference):
    return 0.0


@pytest.mark.parametrize(("metric", "said"), [(rouge_l, "two plug-ins"), (loss, "as a score of tasks is")])
def test_a_function_takes_no_name_that_is_taken(metric, said):
    with pytest.raises(ConfigError, match=said):
        small(metrics=[metric])


@pytest.mark.slow
def test_elsewhere_a_function_has_no_better_end():
    code = "from fedloom.results.per_client import direction; print(direction('brevity'), direction('loss'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0 -1\n"


@pytest.mark.parametrize("value", [object(), {1, 2}, {(1, 2): 3}])
def test_a_value_that_is_none_of_json_is_refused_by_its_column(value):
    with pytest.raises(DataError, match=r"train\['a'\], record 1, column 'odd'"):
        fedloom.Run(SMALL, data={"a": [{"instruction": "a", "output": "b", "odd": value}]})


def test_a_model_that_cannot_be_written_leaves_nothing(tmp_path, objects, monkeypatch):
    def refuse(_):
        raise ValueError("odd generation config")

    model, tokenizer = objects
    monkeypatch.setattr(model, "save_pretrained", refuse)
    with pytest.raises(ModelError, match="odd generation config"):
        fedloom.Run(SMALL, model=model, tokenizer=tokenizer, data=DATA).start(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_settings_and_tokenizers_that_mean_nothing_are_refused(objects):
    with pytest.raises(ConfigError, match="settings: found list"):
        fedloom.Run([("rounds", 1)])
    with pytest.raises(ConfigError, match="tokenizer: found without a model"):
        small(tokenizer=objects[1])


def test_a_score_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'raises' returned 'much'"):
        small(metrics=[raises]).start(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_file_cannot_name_records_in_memory(tmp_path):
    with pytest.raises(ConfigError, match="a run file names 'file'"):
        fedloom.Run({"data": {"name": "memory"}}).start(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_model_is_refused_before_anything_is_left(tmp_path):
    with pytest.raises((ModelError, FedloomError)):
        small(model=tmp_path / "absent").start(tmp_path / "run")
    assert not (tmp_path / "run").exists()
