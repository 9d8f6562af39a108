"""FedLLM-Bench's files: the released layouts verbatim, what is refused and how, its released privacy as a pitfall."""

import json
import logging
import re
from fractions import Fraction

import pytest

from fedloom import api
from fedloom.base.config import build, table_of
from fedloom.base.errors import ConfigError, DataError
from fedloom.base.plugin import lookup
from fedloom.benchmark.suite import cells_of, load_suite
from fedloom.cli import main as cli
from fedloom.contracts.examples import Chat, Preference, Turn, chat
from fedloom.contracts.federated import Partition
from fedloom.data.build.recipes import RECIPES as built_by
from fedloom.data.clients import divide
from fedloom.data.holdout import SetAside
from fedloom.data.sources.fedllm_bench import FedllmBench
from support.accounting import RELEASED, released_sigma
from support.paths import ROOT

DOCS = ROOT / "docs"


def said(*turns):
    return {"conversations": [{"from": who, "value": text} for who, text in turns]}


SFT = [{"instruction": f"question {i}", "response": f"answer {i}"} for i in range(4)]
TALK = said(("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d"))
PAIR = {"prompt": "### Instruction:\nhi \n\n### Response: ", "chosen": " yes", "rejected": " no"}

LAYOUTS = {
    "Fed-Aya/aya_38c_25k.json": (SFT[0], chat("question 0", "answer 0", client="u2")),
    "Fed-ChatbotIT/chatbotIT_237c_6k.json": (SFT[1], chat("question 1", "answer 1", client="u2")),
    "Fed-WildChat/single_turn/wildchat_100c_53k.json": (SFT[2], chat("question 2", "answer 2", client="u2")),
    "Fed-WildChat/multi_turn/wildchat_50c.json": (
        TALK,
        Chat((Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d")), {"client": "u2"}),
    ),
    "Fed-ChatbotPA/chatbotPA_747c_10k.json": (
        PAIR,
        Preference((Turn("user", PAIR["prompt"]),), " yes", " no", {"client": "u2"}),
    ),
}
AYA_TEST = {
    language: [{"instruction": f"{language} {i}", "reference": f"reference {i}"} for i in range(2)]
    for language in (
        ["Standard_Arabic", "English", "Simplified_Chinese", "Portuguese", "Telugu", "Russian", "French", "Spanish"]
    )
}
TESTS = {
    "aya": (
        AYA_TEST,
        [chat(r["instruction"], r["reference"], language=key) for key, records in AYA_TEST.items() for r in records],
    ),
    "chatbot": (
        [{"instruction": "z"}, {"instruction": "a"}],
        [chat("z", "", reference="none"), chat("a", "", reference="none")],
    ),
    "wildchat": (
        [{"instruction": "你好", "language": "English"}, {"instruction": "b", "language": "Russian"}],
        [chat("你好", "", language="English", reference="none"), chat("b", "", language="Russian", reference="none")],
    ),
}


@pytest.fixture
def put(tmp_path):
    def write(content, name="users.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return str(path)

    return write


def refusal(**fields):
    with pytest.raises((DataError, ConfigError)) as caught:
        FedllmBench(**fields).load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("name", LAYOUTS)
def test_released_training_layout_loads_verbatim(name, put):
    record, expected = LAYOUTS[name]
    assert FedllmBench(path=put({"u2": [record]}, name)).load()["train"] == [expected]


@pytest.mark.parametrize("name", LAYOUTS)
def test_users_and_records_keep_file_order(name, put):
    record = LAYOUTS[name][0]
    source = FedllmBench(path=put({"u2": [record] * 2, "u10": [record], "u1": [record]}, name))
    assert [example.tags["client"] for example in source.load()["train"]] == ["u2", "u2", "u10", "u1"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_flat_list_is_one_party(name, put):
    assert {e.tags["client"] for e in FedllmBench(path=put([LAYOUTS[name][0]] * 3, name)).load()["train"]} == {"local"}


@pytest.mark.parametrize("name", TESTS)
def test_released_test_layout_loads_verbatim_in_file_order(name, put):
    content, expected = TESTS[name]
    source = FedllmBench(path=put({"u": SFT}), test_path=put(content, "test.json"))
    assert source.load()["test"] == expected


def test_a_leading_turn_that_is_not_human_is_dropped(put):
    talk = said(("gpt", "lost"), ("human", "a"), ("gpt", "b"))
    assert FedllmBench(path=put({"u": [talk]})).load()["train"] == [chat("a", "b", client="u")]


def test_a_leading_system_turn_is_dropped(put):
    talk = said(("system", "be kind"), ("human", "a"), ("gpt", "b"))
    assert FedllmBench(path=put({"u": [talk]})).load()["train"] == [chat("a", "b", client="u")]


def test_without_test_path_there_is_no_test(put):
    assert FedllmBench(path=put({"u": SFT})).load().keys() == {"train"}


def test_users_test_records_keep_their_user(put):
    source = FedllmBench(path=put({"u": SFT[:3]}), test_path=put({"u": SFT[3:]}, "test.json"))
    assert source.load()["test"] == [chat("question 3", "answer 3", client="u")]


def test_validation_records_reach_their_client(put):
    source = FedllmBench(path=put({"u": SFT[:3]}), validation_path=put({"u": SFT[3:]}, "validation.json"))
    division = divide(source, lookup(Partition, "by_key")(), n_clients=0, seed=0, aside=SetAside(0.1))
    assert division.validation == {"u": (chat("question 3", "answer 3", client="u"),)}


def test_fewer_clients_take_their_held_out_records_along(put):
    both = {"a": SFT[:1], "b": SFT[1:2]}
    held = {"a": SFT[2:3], "b": SFT[3:]}
    source = FedllmBench(path=put(both), validation_path=put(held, "validation.json"), clients=1)
    assert source.load()["validation"] == [chat("question 2", "answer 2", client="a")]


@pytest.mark.parametrize(("name", "licence"), [("aya", "Apache-2.0"), ("chatbot", "CC BY-NC 4.0"), ("x", "unknown")])
def test_the_licence_is_logged(put, caplog, name, licence):
    caplog.set_level(logging.INFO)
    FedllmBench(path=put({"u": SFT}, f"{name}.json")).load()
    assert f"licence: {licence}" in caplog.text


# ----------------------------------------------------------------------------------------------------------- languages


def languages_in(splits, split="train"):
    return [example.tags.get("language") for example in splits[split]]


@pytest.mark.parametrize("record", [SFT[0], TALK, PAIR], ids=["instruction", "multi-turn", "preference"])
def test_a_training_record_that_tells_its_language_has_it_as_a_tag(record, put):
    source = FedllmBench(path=put({"u": [record, record | {"language": "Telugu"}]}))
    assert languages_in(source.load()) == [None, "Telugu"]


def test_a_null_language_is_none(put):
    assert languages_in(FedllmBench(path=put({"u": [SFT[0] | {"language": None}]})).load()) == [None]


@pytest.fixture
def told(put):
    """A source whose users' languages stand in a file."""

    def source(languages, users=None, **fields):
        users = users or {"ann": SFT[:2], "bob": SFT[2:]}
        return {"path": put(users), "languages_path": put(languages, "languages.json"), **fields}

    return source


def test_languages_path_tells_the_language_of_each_user(told):
    splits = FedllmBench(**told({"bob": "Telugu", "ann": "English"})).load()
    assert languages_in(splits) == ["English", "English", "Telugu", "Telugu"]


def test_languages_path_tells_the_language_of_held_out_records(told, put):
    held = put({"ann": [SFT[3]]}, "held.json")
    source = told({"ann": "English"}, {"ann": SFT[:3]}, validation_path=held, test_path=held)
    splits = FedllmBench(**source).load()
    assert [languages_in(splits, split) for split in ("validation", "test")] == [["English"], ["English"]]


def test_languages_path_leaves_the_languages_of_a_test_set(told, put):
    source = told({"ann": "Telugu", "bob": "Telugu"}, test_path=put(TESTS["wildchat"][0], "test.json"))
    assert FedllmBench(**source).load()["test"] == TESTS["wildchat"][1]


def test_users_that_are_not_taken_need_no_language(told):
    assert languages_in(FedllmBench(**told({"ann": "English"}, clients=1)).load()) == ["English"] * 2


def test_a_user_without_a_language_is_refused_with_file_and_user(told):
    assert "languages.json, user 'bob': has no language; name one for every user" in refusal(**told({"ann": "English"}))


@pytest.mark.parametrize(("value", "found"), [(3, "found int"), (None, "found null"), (" ", "found empty text")])
def test_a_language_that_is_no_text_is_refused_with_file_and_user(value, found, told):
    assert f"languages.json, user 'bob': {found}" in refusal(**told({"ann": "English", "bob": value}))


def test_languages_that_are_no_object_are_refused(told):
    assert "languages.json: found list, allowed is {user: language}" in refusal(**told(["English"]))


def test_a_missing_languages_file_is_refused(told):
    message = refusal(**told({}) | {"languages_path": "absent.json"})
    assert message == "absent.json: no such file; give the path of a JSON file {user: language}."


def test_a_record_of_another_language_than_the_file_says_is_refused(told):
    users = {"ann": [SFT[0] | {"language": "English"}, SFT[1] | {"language": "French"}]}
    message = refusal(**told({"ann": "English"}, users))
    assert "user 'ann', record 2: tells the language 'French', languages_path says 'English'; mend one" in message


@pytest.mark.parametrize(("language", "found"), [(5, "found int"), ("", "found empty text"), (["x"], "found list")])
def test_a_language_of_a_record_that_is_no_text_is_refused(language, found, put):
    message = refusal(path=put({"u": [SFT[0] | {"language": language}]}))
    assert f"user 'u', record 1, column 'language': {found}" in message


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("name", "found"), [("\\ud800", "character 0 is half a surrogate pair"), (" ", "an empty name")]
)
def test_a_user_name_that_names_nobody_is_refused_with_file_and_number(name, found, tmp_path):
    (tmp_path / "a.json").write_text(f'{{"ann": [{{}}], "{name}": [{{}}]}}', encoding="utf-8")
    message = refusal(path=str(tmp_path / "a.json"))
    assert "a.json, name of user 2: " in message and found in message


def test_a_folder_is_said_to_be_one(tmp_path):
    assert f"{tmp_path}: is a folder, allowed is one file; give the JSON file in it" in refusal(path=str(tmp_path))


def test_an_empty_file_is_said_to_be_empty(tmp_path):
    (tmp_path / "a.json").write_text(" \n")
    assert "a.json: is empty" in refusal(path=str(tmp_path / "a.json"))


@pytest.mark.parametrize("role", [["human"], {"a": 1}])
def test_a_role_that_is_no_text_is_refused(role, put):
    message = refusal(path=put({"u": [said((role, "a"), ("gpt", "b"))]}))
    assert "user 'u', record 1, column 'conversations'[0].from: found" in message


MISSING = {  # a missing file: the data set it is taken for
    "data/Fed-Aya/aya_38c_25k.json": "aya",
    "data/Fed-ChatbotIT/chatbotIT_237c_6k.json": "chatbot_it",
    "data/Fed-ChatbotPA/chatbotPA_747c_10k.json": "chatbot_pa",
    "data/Fed-WildChat/single_turn/wildchat_100c_53k.json": "wildchat",
    "data/Fed-WildChat/multi_turn/wildchat_50c.json": "wildchat_multi",
}


@pytest.mark.parametrize("path", MISSING)
def test_a_missing_data_set_is_told_how_to_build_it(path):
    recipe = built_by[MISSING[path]]
    message = refusal(path=f"absent/{path}")
    wanted = (recipe.upstream, recipe.licence, f"fedloom data build {MISSING[path]} --from FOLDER --out FOLDER")
    assert [part for part in wanted if part not in message] == []


@pytest.mark.parametrize("path", MISSING)
def test_a_missing_data_set_is_told_its_place_in_the_release(path):
    assert f"put the released file there (in the release it is {path})" in refusal(path=f"absent/{path}")


@pytest.mark.parametrize("name", ["users.json", "himalaya.json"])
def test_another_missing_file_is_told_the_layouts(name):
    assert refusal(path=name) == f"{name}: no such file; give the path of a JSON file in a layout of FedLLM-Bench."


def test_a_test_set_for_training_is_refused_by_its_layout(put):
    message = refusal(path=put(AYA_TEST))
    assert (
        "user 'Standard_Arabic', record 1: found the layout 'test with references' (instruction, reference)" in message
    )


def test_a_refused_layout_is_told_what_is_allowed(put):
    assert "allowed here are 'instruction' (instruction, response); 'multi-turn' (conversations);" in refusal(
        path=put(AYA_TEST)
    )


def test_alpaca_columns_are_refused_with_what_was_found(put):
    message = refusal(path=put({"u": [{"instruction": "a", "output": "b"}]}))
    assert "user 'u', record 1: found the layout 'test' (instruction), allowed here are" in message


def test_records_of_a_messages_file_are_refused_with_their_fields(put):
    message = refusal(path=put([{"messages": []}]))
    assert "user 'local', record 1: found the fields messages, allowed is exactly one of the layouts" in message


def test_two_layouts_in_a_file_are_refused(put):
    message = refusal(path=put({"u": [SFT[0]], "v": [PAIR]}))
    assert "user 'v', record 1: no column 'instruction'; present: prompt, chosen, rejected; all records" in message


def test_a_test_list_with_references_is_refused(put):
    message = refusal(path=put({"u": SFT}), test_path=put(AYA_TEST["English"], "t.json"))
    assert (
        "t.json: found records of the layout 'test with references' (instruction, reference), allowed around" in message
    )


def test_test_questions_by_user_are_refused(put):
    message = refusal(path=put({"u": SFT}), test_path=put({"u": [{"instruction": "a"}]}, "t.json"))
    assert (
        "t.json: found records of the layout 'test' (instruction), allowed around them is a list of records" in message
    )


def test_json_lines_are_refused(put, tmp_path):
    (tmp_path / "a.json").write_text("".join(json.dumps(record) + "\n" for record in SFT), encoding="utf-8")
    assert "a.json: not valid JSON: Extra data: line 2" in refusal(path=str(tmp_path / "a.json"))


def test_a_number_in_place_of_users_is_refused(put):
    assert "users.json: found no user, allowed is {user: [records]} or a list of records, found int" in refusal(
        path=put(3)
    )


def test_a_user_twice_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"ann": [{}], "bob": [{}], "ann": [{}]}', encoding="utf-8")
    assert "a.json: not valid JSON: the key 'ann' occurs twice in one object" in refusal(path=str(tmp_path / "a.json"))


def test_a_user_with_one_example_is_refused_on_demand(put):
    message = refusal(path=put({"ann": SFT, "bob": SFT[:1]}), min_records=2)
    assert "users.json, user 'bob': found 1 record, allowed is at least min_records = 2 (1 users have fewer)" in message


def test_a_user_with_one_example_trains_on_it_and_is_listed(put):
    source = FedllmBench(path=put({"ann": SFT[1:], "bob": SFT[:1]}))
    division = divide(source, lookup(Partition, "by_key")(), n_clients=0, seed=0, aside=SetAside(0.3))
    assert division.card["without_validation"] == ["bob"]


def test_mixed_encodings_are_refused(tmp_path):
    content = '{"ann": [{"instruction": "naïve", "response": "'.encode() + "é".encode("latin-1") + b'"}]}'
    (tmp_path / "a.json").write_bytes(content)
    assert re.search(r"a\.json: byte \d+ is 0xe9, not UTF-8; convert the file", refusal(path=str(tmp_path / "a.json")))


def test_half_a_surrogate_pair_is_refused_with_user_and_record(tmp_path):
    (tmp_path / "a.json").write_text('{"ann": [{"instruction": "\\ud83d", "response": "x"}]}', encoding="utf-8")
    message = refusal(path=str(tmp_path / "a.json"))
    assert "user 'ann', record 1, column 'instruction': character 0 is half a surrogate pair" in message


def test_an_answer_that_is_no_text_is_refused(put):
    message = refusal(path=put({"ann": [SFT[0], {"instruction": "a", "response": None}]}))
    assert "user 'ann', record 2, column 'response': found null, allowed is text" in message


def test_two_human_turns_in_a_row_are_refused(put):
    message = refusal(path=put({"ann": [TALK, said(("human", "a"), ("human", "b"), ("gpt", "c"))]}))
    assert "users.json, user 'ann', record 2: turn 1 has role 'user', allowed is 'assistant'" in message


def test_a_dialogue_without_an_answer_is_refused(put):
    assert "user 'ann', record 1: a conversation of 1 turns must end" in refusal(
        path=put({"ann": [said(("human", "a"))]})
    )


def test_too_few_clients_are_refused(put):
    assert "found 1 users, asked for clients = 38" in refusal(path=put({"ann": SFT}), clients=38)


@pytest.mark.parametrize("size", ["53k", "6_166", "25k"])
def test_a_size_in_words_is_refused(size):
    with pytest.raises(ConfigError, match=f"clients: found '{size}', allowed is a whole number"):
        build(FedllmBench, {"path": "a.json", "clients": size})


def test_a_stranger_among_held_out_users_is_refused(put):
    message = refusal(path=put({"ann": SFT}), validation_path=put({"bob": SFT}, "v.json"))
    assert "v.json, user 'bob': found a user without training records" in message


def test_held_out_users_of_another_build_are_refused(put):
    message = refusal(path=put({"ann": SFT}), validation_path=put({"bob": SFT}, "v.json"), clients=1)
    assert "v.json: found none of the 1 users of" in message


# ------------------------------------------------------------------------------------------------------------ pitfalls


def test_pitfalls_list_the_released_deviations():
    text = (DOCS / "pitfalls.md").read_text()
    found = [float(number) for number in re.findall(r"7\.28e-\d", text)]
    assert found == pytest.approx([released_sigma(epsilon) for epsilon, _ in RELEASED], rel=1e-3)


# ------------------------------------------------------------------------------------------------------------- recipes

RECIPES = {  # data set: clients, sampled, rounds, steps, batch, accumulation, length, rank, alpha, first and last rate
    "aya": (38, 4, 200, 10, 4, 4, 1024, 16, 32, 2e-5, 1e-6),
    "chatbot_it": (237, 10, 100, 5, 4, 4, 1024, 16, 32, 2e-5, 1e-6),
    "wildchat": (100, 5, 100, 10, 4, 4, 1024, 16, 32, 2e-5, 1e-6),
    "wildchat_multi": (50, 3, 100, 10, 4, 4, 2048, 16, 32, 2e-5, 1e-6),
    "chatbot_pa": (747, 10, 200, 10, 8, 1, 512, 8, 16, 1e-4, 1e-5),
}
ROOT = DOCS.parent
FOLDER = ROOT / "experiments" / "fedllm_bench"
METHODS = ["local", "fedavg", "fedprox", "scaffold", "fedavgm", "fedadagrad", "fedyogi", "fedadam"]
each_recipe = pytest.mark.parametrize("dataset", RECIPES)


@pytest.fixture(scope="module")
def suite():
    return load_suite(FOLDER / "suite.toml", quick=False)


@each_recipe
def test_a_recipe_is_the_published_one(dataset):
    run = api.load_run(FOLDER / f"{dataset}.toml", [])
    data, model, local = vars(run.data), vars(run.model), run.local
    numbers = (data["clients"], run.clients_per_round, run.rounds, local.steps, local.batch, local.accumulation)
    length = vars(run.task)["max_length"]
    assert (*numbers, length, model["lora_rank"], model["lora_alpha"], local.lr, local.lr_final) == RECIPES[dataset]


def test_preference_steps_follow_the_data_as_published():
    run = api.load_run(FOLDER / "chatbot_pa.toml", [])
    assert [run.local.steps_of(n, selections=Fraction(200 * 10, 747)) for n in (13, 154)] == [2, 22]


@each_recipe
def test_the_suite_has_the_recipe_of_the_run_file(dataset, suite):
    cell = next(cell for cell in cells_of(suite) if cell.key == (dataset, "fedavg", 0))
    assert cell.run == api.load_run(FOLDER / f"{dataset}.toml", [])


@pytest.mark.parametrize("dataset", RECIPES)
def test_local_training_takes_as_long_as_a_federated_client_is_expected_to(dataset, suite):
    runs = {cell.method: cell.run for cell in cells_of(suite) if (cell.data, cell.seed) == (dataset, 0)}
    expected = runs["fedavg"].rounds * runs["fedavg"].clients_per_round / runs["fedavg"].data.clients
    assert expected <= runs["local"].rounds < expected + 1


def test_the_suite_has_every_data_set_by_every_published_method(suite):
    assert (list(suite.data), list(suite.methods)) == (list(RECIPES), METHODS)


@pytest.mark.parametrize("method", ["fedavgm", "fedyogi", "fedadam"])
def test_beta_is_the_one_released_with_the_benchmark(method, suite):
    server = next(cell.run.server_opt for cell in cells_of(suite) if cell.method == method)
    assert vars(server).get("beta1", vars(server).get("momentum")) == 0.5


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_has_a_header(file):
    header = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert any("fedloom" in line for line in header) and any("Expected:" in line for line in header)


def small_users(dataset):
    kinds = {
        "wildchat_multi": lambda text: said(("human", text), ("gpt", "b"), ("human", "c"), ("gpt", "d")),
        "chatbot_pa": lambda text: PAIR | {"prompt": f"{text}:"},
    }
    record = kinds.get(dataset, lambda text: {"instruction": text, "response": "yes"})
    return {f"u{u}": [record(f"question {i} of {u}") for i in range(4)] for u in range(3)}


@pytest.mark.slow
@each_recipe
@pytest.mark.parametrize("protocol", ["federated", "local_only"])
def test_a_recipe_ends_on_small_files_and_the_embedded_model(dataset, protocol, put, tmp_path):
    path = put(small_users(dataset))
    small = [
        "rounds=2",
        "local.steps=1",
        "local.batch=2",
        "local.accumulation=1",
        "clients_per_round=2",
        "data.clients=3",
    ]
    shared = [
        "model.path=''",
        "model.quantise=none",
        f"data.path='{path}'",
        f"protocol={protocol}",
        "task.max_length=400",
    ]
    extra = ["task.max_prompt_length=32"] if dataset == "chatbot_pa" else []
    for _ in api.start(api.load_run(FOLDER / f"{dataset}.toml", small + shared + extra), tmp_path / "run"):
        pass
    assert (tmp_path / "run" / "report.md").exists()


def test_the_recipe_by_language_ends_on_small_files_of_the_released_layout(put, tmp_path):
    spoken = {"u0": "English", "u1": "Telugu", "u2": "English"}
    small = ["rounds=2", "local.steps=1", "local.batch=2", "local.accumulation=1", "clients_per_round=2"]
    model = ["model.path=''", "model.quantise=none", "task.max_length=400"]
    files = [f"path='{put(small_users('aya'))}'", f"languages_path='{put(spoken, 'languages.json')}'", "clients=3"]
    words = [*small, *model, *(f"data.{word}" for word in files)]
    run = api.load_run(FOLDER / "aya_by_language.toml", words)
    for _ in api.start(run, tmp_path / "run"):
        pass
    assert sorted(path.name for path in (tmp_path / "run/adapters").iterdir()) == ["English", "Telugu"]


def test_the_recipe_by_language_differs_from_that_of_one_federation_in_who_trains_together():
    one, many = (table_of(api.load_run(FOLDER / f"{name}.toml", [])) for name in ("aya", "aya_by_language"))
    assert {key for key in one if one[key] != many[key]} == {"protocol", "data"}
    assert {key for key in one["data"] if one["data"][key] != many["data"][key]} == {"languages_path"}


@pytest.mark.parametrize("clients", ["53k", "'53k'"])
def test_a_size_in_words_ends_a_run_before_anything_is_loaded(clients, monkeypatch, capsys):
    arguments = ["fedloom", "run", str(FOLDER / "wildchat.toml"), f"data.clients={clients}"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, "data.clients: found '53k', allowed is a whole number" in capsys.readouterr().err) == (
        2,
        True,
    )
