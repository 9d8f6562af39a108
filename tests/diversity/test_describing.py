"""Describing a federation: what is measured with, what is written, what never leaves a client."""

import json
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch

from fedloom.base.errors import ConfigError, DataError
from fedloom.contracts.diversity import Instruments
from fedloom.contracts.examples import Preference, Turn, chat
from fedloom.diversity.describe import AXES, describe, describe_run, write
from fedloom.diversity.instruments import hidden_means, instruments, language_of
from fedloom.models.causal_lm import CausalLM
from fedloom.runs.tuning import read_run
from fedloom.tasks.sft import Sft
from support.models import model_folder
from support.small_runs import small_run, small_table

pytestmark = pytest.mark.slow  # seven diversities of whole data sets

CPU = torch.device("cpu")
TOOLS = Instruments(
    language=lambda example: example.tags["language"],
    length=len,
    length_unit="characters",
    vectors=lambda texts: np.array([[float(len(text)), float(text.count("e"))] for text in texts]),
    bandwidth=3.0,
    ifd=lambda examples: [0.5 for _ in examples],
    names={"length": "characters"},
)


def pairs(client, count):
    return [
        Preference((Turn("user", f"write secret{client} {at}"),), f"- hush{client} {at}", "no", {"language": "en"})
        for at in range(count)
    ]


def axis(record, name):
    return next(one for one in record["axes"] if one["name"] == name)


@pytest.fixture(scope="module")
def described():
    return describe({"a": pairs("a", 1), "b": pairs("b", 12), "c": pairs("c", 3)}, TOOLS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("describing")


@pytest.fixture(scope="module")
def ran(folder):
    return describe_run(small_run(folder), with_model=True).record


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request, tmp_path_factory):
    path = model_folder(tmp_path_factory.mktemp(request.param) / "model", request.param)
    return CausalLM(path=str(path), lora_rank=2).build(seed=0, device=CPU)


# --------------------------------------------------------------------------------------------------------- the record


def test_the_seven_axes_stand_in_their_order(described):
    assert tuple(one["name"] for one in described.record["axes"]) == AXES and len(AXES) == 7


def test_every_axis_has_the_documented_keys(described):
    keys = ["name", "title", "measured", "why", "measured_with", "sends", "plot", "figures", "indices", "pool"]
    assert all(list(one) == keys for one in described.record["axes"])


def test_every_index_has_the_documented_keys(described):
    keys = ["label", "unit", "mean", "chance", "highest", "furthest", "clients"]
    assert all(list(index) == keys for one in described.record["axes"] for index in one["indices"])


def test_the_mean_is_that_of_the_clients(described):
    index = axis(described.record, "length")["indices"][0]
    assert index["mean"] == pytest.approx(np.mean(list(index["clients"].values())), rel=1e-5)


def test_the_furthest_client_is_the_one_most_above_chance(described):
    index = axis(described.record, "quantity")["indices"][0]
    assert index["furthest"][0] == ["b", max(index["clients"].values()), None]


def test_the_ledger_has_a_line_per_client_and_measured_axis(described):
    lines = [(line["client"], line["axis"]) for line in described.record["ledger"]]
    assert lines == [(client, name) for name in AXES for client in "abc"]


def test_the_ledger_counts_the_numbers_that_left(described):
    line = next(line for line in described.record["ledger"] if line["axis"] == "embedding")
    assert line["numbers"] == 512 + 1


def test_the_pool_adds_up_what_clients_sent(described):
    assert axis(described.record, "quantity")["pool"] == {"records": {"all": 16.0}}


def test_embeddings_have_no_pool(described):
    assert axis(described.record, "embedding")["pool"] == {}


def test_no_text_of_a_record_is_written(described):
    assert "hush" not in json.dumps(described.record) and "secret" not in json.dumps(described.record)


def test_an_axis_that_nobody_can_measure_says_why():
    record = describe({"a": [chat("write x", "y", language="en")]}, TOOLS).record
    assert axis(record, "preference")["why"] == "no record has what it is measured on"


def test_many_tiny_clients_are_described():
    record = describe({str(number): pairs(number, 1 + number % 3) for number in range(747)}, TOOLS).record
    assert len(axis(record, "language")["indices"][0]["clients"]) == 747


@pytest.mark.parametrize(
    ("data", "message"),
    [({}, "there is no client, allowed"), ({"a": pairs("a", 1), "b": []}, "client 'b' has no examples, allowed")],
)
def test_clients_without_examples_are_refused(data, message):
    with pytest.raises(DataError, match=message):
        describe(data, TOOLS)


# ---------------------------------------------------------------------------------------------------------- the files


def test_the_file_holds_the_record(described, tmp_path):
    assert json.loads(write(described, tmp_path / "new").read_text()) == described.record


def test_each_measured_axis_has_a_plot(described, tmp_path):
    write(described, tmp_path)
    roots = [ET.parse(tmp_path / one["plot"]).getroot().tag for one in described.record["axes"]]
    assert roots == ["{http://www.w3.org/2000/svg}svg"] * 7


def test_equal_data_give_equal_plots(described, tmp_path):
    write(described, tmp_path / "1")
    write(described, tmp_path / "2")
    assert all((tmp_path / "2" / path.name).read_bytes() == path.read_bytes() for path in (tmp_path / "1").iterdir())


def test_one_client_with_one_record_has_plots(tmp_path):
    write(describe({"only": pairs("only", 1)}, TOOLS), tmp_path)
    assert len(list(tmp_path.glob("diversity_*.svg"))) == 7


def test_without_matplotlib_nothing_is_written(described, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"plots of --out: needs matplotlib, .*pip install fedloom\[report\]"):
        write(described, tmp_path / "none")
    assert not (tmp_path / "none").exists()


# ------------------------------------------------------------------------------------------------------ what measures


@pytest.mark.parametrize("name", ["quality", "quantity", "instruction", "length", "embedding", "language"])
def test_a_run_is_measured_on_every_axis_of_its_form(ran, name):
    assert axis(ran, name)["measured"]


def test_lengths_of_a_run_are_tokens_of_its_tokenizer(ran, folder):
    lines = [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]
    words = [len(line["output"].split()) for line in lines]
    assert axis(ran, "length")["figures"]["mean_response"] == pytest.approx(np.mean(words), rel=1e-5)


def test_every_answer_of_a_run_has_a_difficulty(ran):
    assert axis(ran, "quality")["figures"]["records"] == ran["n_records"]


def test_all_training_records_are_described(ran, folder):
    assert ran["n_records"] == len((folder / "data.jsonl").read_text().splitlines())


def test_without_the_model_there_is_no_quality(folder):
    record = describe_run(small_run(folder), with_model=False).record
    assert axis(record, "quality")["why"] == "it needs the run's model; leave out --no-model"


def test_without_the_model_lengths_are_characters(folder):
    record = describe_run(small_run(folder), with_model=False).record
    assert axis(record, "length")["indices"][0]["unit"] == "characters"


def test_preferences_of_a_dpo_run_have_a_difficulty(folder):
    lines = [{"prompt": f"w{at}", "chosen": "w4 w5", "rejected": "w6", "owner": f"c{at % 2}"} for at in range(4, 10)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = small_table(
        folder, task={"name": "dpo", "max_length": 60, "max_prompt_length": 40, "template": {"name": "vicuna"}}
    )
    table["data"] = {
        "name": "file", "path": str(folder / "pairs.jsonl"), "form": "preference", "tags": {"client": "owner"}
    }  # fmt: skip
    record = describe_run(read_run(table), with_model=True).record
    assert axis(record, "quality")["figures"]["records"] == 6


def test_vectors_of_a_batch_are_those_of_each_text_alone(model):
    texts = ["w3 w4 w5", "w6", " ".join(["w7 w8"] * 15)]
    vectors = hidden_means(model)
    assert vectors(texts) == pytest.approx(np.concatenate([vectors([text]) for text in texts]), abs=1e-6)


def test_a_vector_is_the_mean_of_the_last_hidden_states(model):
    tokens = torch.tensor([model.tokenizer("w3 w4 w5")["input_ids"]])
    with torch.no_grad():
        body = model.module.get_submodule(model.module.base_model_prefix)
        states = body(tokens).last_hidden_state[0].double()
    expected = states.mean(0) / states.mean(0).norm()
    assert hidden_means(model)(["w3 w4 w5"])[0] == pytest.approx(expected.numpy(), abs=1e-6)


def test_an_empty_text_has_a_finite_vector(model):
    assert np.isfinite(hidden_means(model)(["", "w3"])).all()


def test_the_bandwidth_does_not_depend_on_the_data():
    one = instruments({"a": [chat("x", "y", language="en")]}, None, Sft())
    other = instruments({"a": [chat("long " * 50, "z", language="de")]}, None, Sft())
    assert one.bandwidth == other.bandwidth > 0


def test_tags_tell_the_language_where_any_record_has_one():
    one, other = chat("x", "y", language="ruvo"), chat("x", "y")
    tools = instruments({"a": [one], "b": [other]}, None, Sft())
    assert [tools.language(one), tools.language(other)] == ["ruvo", "untagged"]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the best way to learn how to cook at home?", "en"),
        ("Wie lerne ich am besten, zu Hause zu kochen und zu backen?", "de"),
        ("12345", "unknown"),
        ("", "unknown"),
    ],
)
def test_an_identifier_tells_the_language_of_untagged_records(text, language):
    assert language_of()(chat(text, "")) == language


@pytest.mark.slow
def test_the_identifier_says_the_same_again():
    identify, texts = language_of(), [chat(f"la casa {word}", "no") for word in ("nova", "bella", "verde", "roma")]
    assert [identify(text) for text in texts] == [language_of()(text) for text in texts]


def test_without_tags_and_identifier_languages_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "langdetect", None)
    with pytest.raises(ConfigError, match=r"no record has the tag 'language' and langdetect is not installed; name"):
        instruments({"a": [chat("x", "y")]}, None, Sft())
