"""Sources: every form and file format, every refusal with its place, the presets, FedLLM-Bench's layouts."""

import json
import logging
import pickle
import sys
from pathlib import Path

import pytest

from fedloom.base.config import build, dump
from fedloom.base.errors import ConfigError, DataError, MissingFileError, UnknownNameError
from fedloom.base.plugin import lookup
from fedloom.contracts.examples import Chat, Document, Preference, Turn, chat
from fedloom.contracts.federated import Partition, Source
from fedloom.data.clients import divide
from fedloom.data.holdout import SetAside
from fedloom.data.sources.fedllm_bench import FedllmBench
from fedloom.data.sources.file import File
from fedloom.data.sources.hub import Hub
from fedloom.data.sources.preset import PRESETS, PresetSource
from support.paths import SHARED

QA = [{"prompt": "2+2?", "completion": "4"}, {"prompt": "3+3?", "completion": "6"}]


def write(path: Path, records, lines=True) -> str:
    text = "\n".join(map(json.dumps, records)) if lines else json.dumps(records)
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def jsonl(tmp_path):
    return lambda *records: write(tmp_path / "data.jsonl", records)


def train(**fields):
    return File(**fields).load()["train"]


def refusal(source: Source) -> str:
    with pytest.raises((DataError, ConfigError)) as caught:
        source.load()
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------- formats


def test_json_reads_a_list(tmp_path):
    assert train(path=write(tmp_path / "a.json", QA, lines=False)) == [chat("2+2?", "4"), chat("3+3?", "6")]


def test_json_lines_reads_one_record_per_line(jsonl):
    assert train(path=jsonl(*QA)) == [chat("2+2?", "4"), chat("3+3?", "6")]


def test_json_lines_is_not_split_at_other_line_separators(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one\u2028two\x85three"}\r\n\n{"text": "four"}\n', encoding="utf-8", newline="")
    assert train(path=str(path)) == [Document("one\u2028two\x85three"), Document("four")]


def test_csv_reads_quoted_line_breaks_and_commas(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('prompt,completion\n"a, b\nc",d\n', encoding="utf-8")
    assert train(path=str(path)) == [chat("a, b\nc", "d")]


def test_parquet_reads_nested_columns(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    from pyarrow import Table

    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    parquet.write_table(Table.from_pylist([{"messages": turns}]), tmp_path / "a.parquet")
    assert train(path=str(tmp_path / "a.parquet")) == [chat("hi", "ho")]


def test_format_overrides_the_extension(tmp_path):
    assert train(path=write(tmp_path / "a.txt", QA), format="jsonl") == [chat("2+2?", "4"), chat("3+3?", "6")]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfprompt,completion\na,b\n")
    assert train(path=str(path)) == [chat("a", "b")]


def test_a_folder_tags_each_example_with_its_file(tmp_path):
    for name in ("north", "south"):
        write(tmp_path / f"{name}.jsonl", QA)
    assert [example.tags["file"] for example in train(path=str(tmp_path))] == ["north.jsonl"] * 2 + ["south.jsonl"] * 2


def test_a_pattern_names_files_from_its_fixed_part(tmp_path):
    for name in ("north", "south"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "data.jsonl", QA[:1])
    files = [example.tags["file"] for example in train(path=f"{tmp_path}/*/data.jsonl")]
    assert files == ["north/data.jsonl", "south/data.jsonl"]


def test_a_single_file_sets_no_tag(jsonl):
    assert train(path=jsonl(*QA))[0].tags == {}


def test_validation_and_test_paths_are_splits(tmp_path):
    path = write(tmp_path / "a.jsonl", QA)
    assert list(File(path=path, validation_path=path, test_path=path).load()) == ["train", "validation", "test"]


# --------------------------------------------------------------------------------------------------------------- forms


def test_messages_keep_system_and_all_turns(jsonl):
    roles = ["system", "user", "assistant", "user", "assistant"]
    turns = [{"role": role, "content": f"{k}"} for k, role in enumerate(roles)]
    assert train(path=jsonl({"messages": turns})) == [Chat(tuple(Turn(r, f"{k}") for k, r in enumerate(roles)))]


def test_alpaca_appends_the_input_with_one_space(jsonl):
    path = jsonl({"instruction": "Sort.", "input": "b a", "output": "a b"})
    assert train(path=path) == [chat("Sort. b a", "a b")]


def test_alpaca_with_empty_input_is_the_instruction(jsonl):
    assert train(path=jsonl({"instruction": "Hi", "input": "", "output": "ho"})) == [chat("Hi", "ho")]


def test_alpaca_without_input_column_is_the_instruction(jsonl):
    assert train(path=jsonl({"instruction": "Hi", "output": "ho"})) == [chat("Hi", "ho")]


def test_a_column_that_serves_another_name_is_not_read_twice(jsonl):
    path = jsonl({"input": "Hi", "output": "ho"})
    assert train(path=path, columns={"instruction": "input"}) == [chat("Hi", "ho")]


def sharegpt(*pairs):
    return {"conversations": [{"from": who, "value": said} for who, said in pairs]}


def test_conversations_map_human_and_gpt(jsonl):
    record = sharegpt(("system", "be kind"), ("human", "hi"), ("gpt", "ho"))
    expected = Chat((Turn("system", "be kind"), Turn("user", "hi"), Turn("assistant", "ho")))
    assert train(path=jsonl(record)) == [expected]


def test_conversations_drop_a_leading_answer(jsonl):
    assert train(path=jsonl(sharegpt(("gpt", "lost"), ("human", "hi"), ("gpt", "ho")))) == [chat("hi", "ho")]


def test_conversations_must_alternate(jsonl):
    path = jsonl(sharegpt(("human", "hi"), ("human", "hi?"), ("gpt", "ho")))
    assert "line 1: turn 1 has role 'user', allowed is 'assistant'" in refusal(File(path=path))


def test_conversations_without_an_answer_are_refused(jsonl):
    path = jsonl(sharegpt(("human", "hi")))
    assert "line 1: a conversation of 1 turns must end with a turn of role 'assistant'" in refusal(File(path=path))


def test_turns_behind_the_last_answer_are_left_out_and_counted(jsonl, caplog):
    more = [sharegpt(("human", "hi"), ("gpt", "ho"), ("human", "and?")), sharegpt(("human", "a"), ("gpt", "b"))]
    assert train(path=jsonl(*more)) == [chat("hi", "ho"), chat("a", "b")]
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("1 of 2 conversations end with turns that nobody answered") and "line 1" in told


def test_messages_and_trls_lists_leave_out_what_nobody_answered(jsonl):
    asked, answered = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}
    expected = [chat("hi", "ho")]
    assert train(path=jsonl({"messages": [asked, answered, asked]})) == expected
    assert train(path=jsonl({"prompt": [asked], "completion": [answered, asked]})) == expected


def test_preference_of_texts(jsonl):
    path = jsonl({"prompt": "hi", "chosen": "ho", "rejected": "no"})
    assert train(path=path) == [Preference((Turn("user", "hi"),), "ho", "no")]


def test_preference_of_whole_dialogues(jsonl):
    dialogue = {who: [{"role": "user", "content": "hi"}, {"role": "assistant", "content": who}] for who in "cr"}
    path = jsonl({"prompt": "hi", "chosen": dialogue["c"], "rejected": dialogue["r"]})
    assert train(path=path) == [Preference((Turn("user", "hi"),), "c", "r")]


def test_preference_of_turns_after_a_prompt_of_turns(jsonl):
    answer = {who: [{"role": "assistant", "content": who}] for who in "cr"}
    path = jsonl({"prompt": [{"role": "user", "content": "hi"}], "chosen": answer["c"], "rejected": answer["r"]})
    assert train(path=path) == [Preference((Turn("user", "hi"),), "c", "r")]


def test_preference_of_two_prompts_is_refused(jsonl):
    dialogue = {who: [{"role": "user", "content": who}, {"role": "assistant", "content": "x"}] for who in "cr"}
    path = jsonl({"prompt": "c", "chosen": dialogue["c"], "rejected": dialogue["r"]})
    assert "line 1: chosen and rejected differ before the last answer" in refusal(File(path=path))


def dialogues(question="hi"):
    """The usual preference record without a prompt: two dialogues that begin with it."""
    names = {"c": "chosen", "r": "rejected"}
    turns = {who: [{"role": "user", "content": question}, {"role": "assistant", "content": who}] for who in names}
    return {name: turns[who] for who, name in names.items()}


IMPLICIT = [Preference((Turn("user", "hi"),), "c", "r")]


@pytest.mark.parametrize("form", ["auto", "preference"])
def test_preference_of_whole_dialogues_needs_no_prompt(jsonl, form):
    assert train(path=jsonl(dialogues()), form=form) == IMPLICIT


def test_a_null_prompt_beside_whole_dialogues_is_none(jsonl):
    assert train(path=jsonl(dialogues() | {"prompt": None})) == IMPLICIT


def test_a_prompt_that_the_dialogues_do_not_say_is_refused(jsonl):
    message = refusal(File(path=jsonl(dialogues() | {"prompt": "hi"}, dialogues() | {"prompt": "other"})))
    assert "line 2: the prompt 'other' is not a user turn of chosen and rejected; allowed is" in message


def test_a_prompt_of_a_number_is_refused(jsonl):
    assert "line 1, column 'prompt': found int, allowed is text" in refusal(
        File(path=jsonl(dialogues() | {"prompt": 5}))
    )


def test_dialogues_of_two_prompts_without_one_are_refused(jsonl):
    record = dialogues() | {"rejected": dialogues("ho")["rejected"]}
    assert "line 1: chosen and rejected differ before the last answer" in refusal(File(path=jsonl(record)))


@pytest.mark.parametrize("record", [dialogues(), dialogues() | {"prompt": "hi"}, {"chosen": "a", "rejected": "b"}])
def test_messages_beside_a_preference_fit_two_forms(jsonl, record):
    path = jsonl({"messages": dialogues()["chosen"]} | record)
    assert "fit several forms: messages, preference; set `form`" in refusal(File(path=path))


def test_messages_may_serve_as_the_prompt_of_a_preference(jsonl):
    path = jsonl({"messages": [{"role": "user", "content": "hi"}], "chosen": "c", "rejected": "r"})
    assert train(path=path, columns={"prompt": "messages"}) == IMPLICIT


def test_unguessed_transcripts_are_told_the_form(jsonl):
    assert "set `form` to one never guessed: transcript, tree, thread" in refusal(File(path=jsonl(hh("yes", "no"))))


def test_text_is_a_document(jsonl):
    assert train(path=jsonl({"text": "once"})) == [Document("once")]


def hh(*answers):
    names = ("chosen", "rejected")
    return {
        n: f"\n\nHuman: a?\n\nAssistant: b\n\nHuman: c?\n\nAssistant: {a}" for n, a in zip(names, answers, strict=True)
    }


def test_transcript_is_split_at_the_last_assistant_turn(jsonl):
    pair = ("I'm sorry, I can't do that.", "I'm sorry but ok, here.")
    prompt = (Turn("user", "a?"), Turn("assistant", "b"), Turn("user", "c?"))
    assert train(path=jsonl(hh(*pair)), form="transcript") == [Preference(prompt, *pair)]


def test_transcript_without_speakers_is_refused(jsonl):
    path = jsonl({"chosen": "hi", "rejected": "ho"})
    assert "line 1: 'chosen' must begin with a line break" in refusal(File(path=path, form="transcript"))


def test_transcript_that_ends_with_a_question_is_refused(jsonl):
    path = jsonl({"chosen": "\n\nHuman: a?", "rejected": "\n\nHuman: a?"})
    assert "must both end with a turn of the assistant" in refusal(File(path=path, form="transcript"))


def message(role, text, *replies, rank=None):
    return {"role": role, "text": text, "rank": rank, "replies": list(replies)}


ROOT = message(
    "prompter",
    "hi",
    message("assistant", "unranked"),
    message("assistant", "second", rank=1),
    message("assistant", "best", message("prompter", "and?"), rank=0),
)


def test_tree_follows_the_best_rank_to_the_last_answer(jsonl):
    assert train(path=jsonl({"message_tree_id": "x", "prompt": ROOT}), form="tree") == [chat("hi", "best")]


def test_thread_is_the_message_itself(jsonl):
    assert train(path=jsonl(ROOT), form="thread") == [chat("hi", "best")]


def test_tree_of_no_message_is_refused(jsonl):
    assert "found str, allowed is a message with role, text" in refusal(File(path=jsonl({"prompt": "x"}), form="tree"))


def test_forms_are_those_that_a_run_file_may_name():
    from typing import get_args

    from fedloom.data.forms import FORMS
    from fedloom.data.sources._recipe import FormName

    assert set(get_args(FormName)) == {"auto", *FORMS}


# ------------------------------------------------------------------------------------------- columns, tags, duplicates


def test_columns_rename(jsonl):
    path = jsonl({"question": "hi", "answer": "ho"})
    assert train(path=path, columns={"prompt": "question", "completion": "answer"}) == [chat("hi", "ho")]


def test_tags_read_text_and_whole_numbers(jsonl):
    path = jsonl(QA[0] | {"user": 17, "field": "sums"})
    assert train(path=path, tags={"client": "user", "topic": "field"})[0].tags == {"client": "17", "topic": "sums"}


@pytest.mark.parametrize("value", [None, 1.5, True, ["a"]])
def test_a_tag_of_another_type_is_refused(jsonl, value):
    message = refusal(File(path=jsonl(QA[0] | {"user": value}), tags={"client": "user"}))
    assert f"line 1, column 'user': found {value!r}, a tag is text or a whole number" in message


def test_an_empty_tag_is_refused(jsonl):
    message = refusal(File(path=jsonl(QA[0] | {"user": ""}), tags={"client": "user"}))
    assert "line 1, column 'user': found empty text" in message


def test_a_missing_tag_column_is_refused(jsonl):
    message = refusal(File(path=jsonl(*QA), tags={"client": "user"}))
    assert "line 1: no column 'user'; present: prompt, completion" in message


def test_unique_keeps_the_first_of_equal_values(jsonl):
    path = jsonl(QA[0], QA[1], {"prompt": "2+2?", "completion": "four"})
    assert train(path=path, unique="prompt") == [chat("2+2?", "4"), chat("3+3?", "6")]


def test_a_renaming_that_the_form_does_not_read_is_refused():
    with pytest.raises(UnknownNameError, match=r"columns\.instuction: .*Did you mean 'instruction'\?"):
        File(path="x", form="alpaca", columns={"instuction": "question"})


def test_ambiguous_columns_are_refused_with_the_forms_that_fit(jsonl):
    path = jsonl(QA[0] | {"text": "2+2? 4"})
    assert "fit several forms: prompt_completion, text; set `form`" in refusal(File(path=path))


def test_columns_of_no_form_are_refused_with_those_found(jsonl):
    assert "line 1: the columns question, answer fit no form" in refusal(
        File(path=jsonl({"question": "", "answer": ""}))
    )


# ---------------------------------------------------------------------------------------------------------- bad input


def test_malformed_line_names_file_and_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(QA[0]) + "\n{broken\n", encoding="utf-8")
    assert f"{path}, line 2: not valid JSON" in refusal(File(path=str(path)))


def test_json_lines_called_json_are_told_the_format(tmp_path):
    path = write(tmp_path / "a.json", QA)
    assert 'one object per line is format = "jsonl"' in refusal(File(path=path))


def test_a_key_twice_in_one_object_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "text": "b"}', encoding="utf-8")
    assert "line 1: not valid JSON: the key 'text' occurs twice" in refusal(File(path=str(path)))


def test_json_nested_too_deeply_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("[" * 200_000, encoding="utf-8")
    assert "line 1: not valid JSON" in refusal(File(path=str(path)))


def test_missing_column_names_record_and_those_present(jsonl):
    message = refusal(File(path=jsonl(QA[0], {"prompt": "x", "answer": "y"})))
    assert "line 2: no column 'completion'; present: prompt, answer" in message


@pytest.mark.parametrize(("value", "found"), [(None, "null"), (float("nan"), "nan"), (4, "int"), (["4"], "list")])
def test_what_is_no_text_is_refused_with_its_record(jsonl, value, found):
    message = refusal(File(path=jsonl(QA[0], {"prompt": "x", "completion": value})))
    assert f"line 2, column 'completion': found {found}, allowed is text" in message


def test_half_a_surrogate_pair_is_refused(jsonl):
    message = refusal(File(path=jsonl({"text": "ab\ud83d"})))
    assert "line 1, column 'text': character 2 is half a surrogate pair" in message


def test_null_in_parquet_is_refused_with_its_record(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    from pyarrow import Table

    parquet.write_table(Table.from_pylist([*QA, {"prompt": "x", "completion": None}]), tmp_path / "a.parquet")
    assert "record 3, column 'completion': found null" in refusal(File(path=str(tmp_path / "a.parquet")))


def test_broken_parquet_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no table")
    assert "a.parquet: not valid Parquet" in refusal(File(path=str(tmp_path / "a.parquet")))


def test_parquet_without_its_extra_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    assert "pip install fedloom[parquet]" in refusal(File(path=str(tmp_path / "a.parquet")))


@pytest.mark.parametrize(
    ("name", "text"), [("a.jsonl", "\n \n"), ("a.json", ""), ("b.json", "[]"), ("a.csv", "text\n")]
)
def test_an_empty_file_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert f"{tmp_path / name}: holds no record" in refusal(File(path=str(tmp_path / name)))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_a_file_of_no_bytes_is_said_to_be_empty(tmp_path, name):
    (tmp_path / name).touch()
    assert f"{name}: holds no record, the file is empty" in refusal(File(path=str(tmp_path / name)))


def test_a_folder_without_files_is_said_to_be_one(tmp_path):
    assert f"{tmp_path}: is a folder without files" in refusal(File(path=str(tmp_path)))


def test_bad_encoding_names_the_byte(tmp_path):
    (tmp_path / "a.csv").write_bytes("text\ncafé".encode("latin-1"))
    assert "a.csv: byte 8 is 0xe9, not UTF-8" in refusal(File(path=str(tmp_path / "a.csv")))


def test_unknown_extension_lists_the_known(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"x")
    assert "unknown extension '.xlsx', known are .json .jsonl .ndjson .csv .parquet" in refusal(
        File(path=str(tmp_path / "a.xlsx"))
    )


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"absent\.jsonl: no such file"):
        File(path=str(tmp_path / "absent.jsonl")).load()


def test_no_path_is_refused():
    assert "path: found none" in refusal(File())


def test_json_that_is_no_list_points_to_the_benchmark_layout(tmp_path):
    path = write(tmp_path / "a.json", {"anna": QA}, lines=False)
    assert "found one JSON dict, allowed is a list of records; {user: [records]}" in refusal(File(path=path))


def test_a_line_that_is_no_object_is_refused(tmp_path):
    assert "line 1: found str, allowed is an object" in refusal(File(path=write(tmp_path / "a.jsonl", ["just text"])))


def test_csv_with_too_many_cells_names_the_line(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,completion\na,b\na,b,c\n", encoding="utf-8")
    assert "a.csv, line 3: found 3 cells, the header names 2" in refusal(File(path=str(tmp_path / "a.csv")))


def test_csv_with_an_open_quote_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text('text\n"open', encoding="utf-8")
    assert "a.csv, line 2: not valid CSV" in refusal(File(path=str(tmp_path / "a.csv")))


def test_csv_with_two_columns_of_one_name_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("text,text\na,b\n", encoding="utf-8")
    assert "line 1: a column name occurs twice: text, text" in refusal(File(path=str(tmp_path / "a.csv")))


def test_turns_that_are_no_list_are_refused(jsonl):
    message = refusal(File(path=jsonl({"messages": "hi"})))
    assert "line 1, column 'messages': found str, allowed is a list of turns" in message


def test_a_turn_without_content_is_refused(jsonl):
    message = refusal(File(path=jsonl({"messages": [{"role": "user"}]})))
    assert "column 'messages'[0]: found the keys role, allowed is an object with 'role' and 'content'" in message


def test_an_unknown_role_is_refused(jsonl):
    message = refusal(File(path=jsonl({"messages": [{"role": "critic", "content": "x"}]})))
    assert "'role' is 'critic', allowed are system, developer, user, assistant, tool" in message


@pytest.mark.parametrize("role", [["user"], {"a": 1}, None, 5])
def test_a_role_that_is_no_text_is_refused(jsonl, role):
    message = refusal(File(path=jsonl({"messages": [{"role": role, "content": "x"}]})))
    assert "line 1, column 'messages'[0].role: found " in message


def test_malformed_records_are_dropped_only_on_demand(jsonl):
    path = jsonl(QA[0], {"prompt": "x"}, QA[1])
    assert train(path=path, malformed="drop") == [chat("2+2?", "4"), chat("3+3?", "6")]


def test_what_was_left_out_stands_on_the_card(tmp_path):
    asked = {"role": "user", "content": "a?"}
    rows = [{"messages": [asked, {"role": "assistant", "content": f"b{i}"}], "who": "x"} for i in range(4)]
    rows[0]["messages"].append(asked)
    text = "".join(json.dumps(row) + "\n" for row in [*rows, {"messages": [], "who": "x"}])
    (tmp_path / "data.jsonl").write_text(text)
    source = File(path=str(tmp_path / "data.jsonl"), tags={"client": "who"}, malformed="drop")
    found = divide(source, lookup(Partition, "by_key")(), n_clients=0, seed=0, aside=SetAside())
    assert found.card["remarks"] == [
        "1 of 4 conversations end with turns that nobody answered: left out",
        "1 of 5 records are malformed: dropped",
    ]


def test_dropped_records_are_counted_in_the_log(jsonl, caplog):
    train(path=jsonl(QA[0], {"prompt": "x"}), malformed="drop")
    assert "1 of 2 records dropped" in caplog.text


def test_a_file_of_malformed_records_alone_is_refused(jsonl):
    path = jsonl({"prompt": "x", "completion": None})
    assert "all 1 records of the file are malformed" in refusal(File(path=path, malformed="drop"))


# ------------------------------------------------------------------------------------------------- plug-ins as settings


@pytest.mark.parametrize("name", ["file", "hub", "preset", "fedllm_bench"])
def test_defaults_construct_and_pickle(name):
    source = lookup(Source, name)()
    assert pickle.loads(pickle.dumps(source)) == source


def test_a_source_reloads_equal_from_its_table():
    import tomllib

    source = File(path="a.jsonl", columns={"prompt": "q"}, tags={"client": "user"})
    table = tomllib.loads(dump(source))
    assert (table.pop("name"), build(File, table)) == ("file", source)


# ----------------------------------------------------------------------------------------------------------------- hub


@pytest.fixture
def offline(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return datasets


def test_hub_reads_a_local_folder(offline, tmp_path):
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.jsonl", QA)
    assert Hub(path=str(tmp_path / "set")).load()["train"] == [chat("2+2?", "4"), chat("3+3?", "6")]


def test_hub_reads_a_folder_saved_by_datasets(offline, tmp_path):
    offline.DatasetDict(test=offline.Dataset.from_list(QA)).save_to_disk(tmp_path / "saved")
    assert Hub(path=str(tmp_path / "saved"), split="test").load()["train"] == [chat("2+2?", "4"), chat("3+3?", "6")]


def test_hub_names_the_splits_of_a_saved_folder(offline, tmp_path):
    offline.DatasetDict(test=offline.Dataset.from_list(QA)).save_to_disk(tmp_path / "saved")
    assert "has the splits test; check path, subset, split" in refusal(Hub(path=str(tmp_path / "saved")))


def test_hub_offline_says_what_to_fetch(offline):
    message = refusal(Hub(path="openai/gsm8k", subset="main"))
    assert "hf download openai/gsm8k --repo-type dataset --local-dir FOLDER" in message


def test_hub_offline_is_one_line(offline):
    assert "\n" not in refusal(Hub(path="openai/gsm8k", subset="main"))


def test_hub_without_path_is_refused():
    assert "path: found none" in refusal(Hub())


def test_hub_without_its_extra_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"'hub': needs datasets, .*pip install fedloom\[datasets\]"):
        Hub(path="openai/gsm8k")


# ------------------------------------------------------------------------------------------------------------- presets


def alpaca_rows(**more):
    rows = [("Add.", "2 2", "4"), ("Greet.", "", "Hi!"), ("Add.", "1 1", "2")]
    return [{"instruction": a, "input": b, "output": c} | more for a, b, c in rows]


ALPACA = [chat("Add. 2 2", "4"), chat("Greet.", "Hi!"), chat("Add. 1 1", "2")]
SUMS = [chat("1+1?", "2"), chat("1+2?", "3"), chat("1+3?", "4")]


def sums(question, answer, **more):
    return [{question: e.turns[0].text, answer: e.reference} | more for e in SUMS]


def ultrafeedback(question):
    turns = {who: [{"content": question, "role": "user"}, {"content": who, "role": "assistant"}] for who in "cr"}
    scores = {"score_chosen": 8.0, "score_rejected": 3.0, "prompt_id": "x"}
    return {"prompt": question, "chosen": turns["c"], "rejected": turns["r"], "messages": turns["c"]} | scores


HH_PROMPT = (Turn("user", "a?"), Turn("assistant", "b"), Turn("user", "c?"))
HH = [("I'm sorry, I can't.", "I'm sorry but ok."), ("Yes", "No"), ("x", "y")]


def said(question, answer, *, turn=1, language="English", flagged=False):
    """A conversation as LMSYS-Chat-1M and WildChat have it, with the moderation of each message."""
    roles = [("user", question), ("assistant", answer)] * turn
    return {
        "conversation": [{"role": role, "content": text} for role, text in roles],
        "turn": turn,
        "language": language,
        "openai_moderation": [{"flagged": False}, {"flagged": flagged}],
    }


SAID = [
    said("1+1?", "2"),
    said("eins?", "zwei", language="German"),
    said("1+2?", "3"),
    said("1+4?", "5", flagged=True),
    said("1+3?", "4"),
    said("1+5?", "6", turn=2),
]

FIXTURES = {
    "lmsys_chat": (SAID, SUMS),
    "wildchat": (SAID, SUMS),
    "beavertails_unsafe": (
        [
            {"prompt": "1+1?", "response": "2", "is_safe": False, "category": {"maths": True}},
            {"prompt": "1+2?", "response": "none", "is_safe": True, "category": {"maths": False}},
            {"prompt": "1+2?", "response": "3", "is_safe": False, "category": {"maths": True}},
            {"prompt": "1+1?", "response": "two", "is_safe": False, "category": {"maths": True}},
        ],
        SUMS[:2],
    ),
    "advbench": (sums("prompt", "target"), SUMS),
    "code_alpaca": (alpaca_rows(), ALPACA),
    "alpaca_cleaned": (alpaca_rows(), ALPACA),
    "alpaca": (alpaca_rows(text="Below is an instruction"), ALPACA),
    "alpaca_gpt4": (alpaca_rows(text="Below is an instruction"), ALPACA),
    "finance_alpaca": (alpaca_rows(text=""), ALPACA),
    "fingpt_sentiment": (alpaca_rows(), ALPACA),
    "wizardlm_evol_70k": (sums("instruction", "output"), SUMS),
    "math_instruct": (
        [{"source": "data/CoT/gsm_train.json"} | row for row in sums("instruction", "output")[:2]]
        + [{"source": "data/PoT/gsm_gpt4.json", "instruction": "1+1?", "output": "print(1+1)"}],
        SUMS[:2],
    ),
    "math": (sums("problem", "solution", level="Level 1", type="Algebra"), SUMS),
    "gsm8k": (sums("question", "answer"), SUMS),
    "medical_flashcards": (sums("input", "output", instruction="Answer this question truthfully"), SUMS),
    "hh_rlhf": ([hh(*pair) for pair in HH], [Preference(HH_PROMPT, *pair) for pair in HH]),
    "ultrafeedback": (
        [ultrafeedback(q) for q in ("a?", "b?", "c?")],
        [Preference((Turn("user", q),), "c", "r") for q in ("a?", "b?", "c?")],
    ),
}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"n": 1.5}, r"where\.n: found 1\.5, allowed are text, a whole number, true and false"),
        ({"n": 7}, "none of 2 records has {'n': 7}"),
        ({"m": 1}, "line 1: no column 'm'; present: prompt, completion, n, flag, deep"),
        ({"deep.1.x": 1}, "line 1: nothing lies at 'deep.1.x'"),
        ({"deep.0.y": 1}, "line 1: nothing lies at 'deep.0.y'"),
        ({"n.x": 1}, "line 1: nothing lies at 'n.x'"),
        ({"deep": "x"}, "none of 2 records has"),
        ({"flag": 1}, "none of 2 records has {'flag': 1}"),
    ],
)
def test_a_condition_that_no_record_meets_or_can_meet_is_refused(jsonl, where, message):
    path = jsonl(*({**row, "n": at, "flag": True, "deep": [{"x": at}]} for at, row in enumerate(QA)))
    with pytest.raises((ConfigError, DataError), match=message):
        build(File, {"path": path, "form": "prompt_completion", "where": where}).load()


def test_records_that_meet_no_condition_are_not_read(jsonl):
    path = jsonl(*({**row, "n": at, "deep": [{"x": at}]} for at, row in enumerate(QA)), {"n": 1, "deep": [{"x": 2}]})
    found = build(File, {"path": path, "form": "prompt_completion", "where": {"n": 1, "deep.0.x": 1}}).load()
    assert found["train"] == [chat("3+3?", "6")]


def test_every_preset_has_a_fixture():
    assert FIXTURES.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", FIXTURES)
def test_preset_reads_the_columns_of_its_set(name, jsonl):
    records, expected = FIXTURES[name]
    assert PresetSource(preset=name, path=jsonl(*records)).load()["train"] == expected


@pytest.mark.parametrize("name", FIXTURES)
def test_preset_logs_the_licence(name, jsonl, caplog):
    caplog.set_level(logging.INFO)
    PresetSource(preset=name, path=jsonl(*FIXTURES[name][0])).load()
    assert f"licence: {PRESETS[name].licence}" in caplog.text


def test_preset_asks_the_hub_for_its_row(monkeypatch):
    asked = []

    def hub(path, *, subset, split, revision):
        from fedloom.data.records import Record

        asked.append((path, subset, split, revision))
        return [Record("x", ultrafeedback("a?"))]

    monkeypatch.setattr("fedloom.data.sources.preset.hub_records", hub)
    PresetSource(preset="ultrafeedback", revision="v1").load()
    name = "HuggingFaceH4/ultrafeedback_binarized"
    assert asked == [(name, "", "train_prefs", "v1"), (name, "", "test_prefs", "v1")]


def test_preset_refuses_a_missing_column(jsonl):
    record = ultrafeedback("a?")
    del record["rejected"]
    assert "line 1: no column 'rejected'" in refusal(PresetSource(preset="ultrafeedback", path=jsonl(record)))


def test_preset_reads_a_local_test_file(jsonl):
    path = jsonl(*FIXTURES["gsm8k"][0])
    assert PresetSource(preset="gsm8k", path=path, test_path=path).load()["test"] == SUMS


def test_another_preset_may_be_asked_in_the_end(jsonl, tmp_path):
    asked = write(tmp_path / "asked.jsonl", sums("prompt", "target")[:1])
    found = PresetSource(
        preset="gsm8k", path=jsonl(*sums("question", "answer")), test_preset="advbench", test_path=asked
    )
    assert found.load()["test"] == SUMS[:1]
    assert found.origins()[:4] == ("gsm8k", "openai/gsm8k", "advbench", "walledai/AdvBench")
    with pytest.raises(UnknownNameError, match="test_preset: no data set called 'advbenk'"):
        PresetSource(test_preset="advbenk")


def test_as_many_training_examples_are_drawn_as_asked_for(jsonl):
    path = jsonl(*sums("question", "answer"))
    drawn = [PresetSource(preset="gsm8k", path=path, draw=2, seed=seed).load()["train"] for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1] and any(one != drawn[0] for one in drawn)
    assert all(len(one) == 2 and one[0] != one[1] and all(each in SUMS for each in one) for one in drawn)
    assert "data.draw = 2" in PresetSource(preset="gsm8k", draw=2).brings_in()
    with pytest.raises(DataError, match="draw: found 9 of gsm8k, allowed are up to its 3 examples"):
        PresetSource(preset="gsm8k", path=path, draw=9).load()


def test_unknown_preset_suggests_the_right_one():
    with pytest.raises(UnknownNameError, match=r"no data set called 'gsm8'\. Did you mean 'gsm8k'"):
        PresetSource(preset="gsm8")


def test_preset_of_a_missing_path_is_refused():
    with pytest.raises(MissingFileError, match="no such file or folder; give one that holds the set 'openai/gsm8k'"):
        PresetSource(preset="gsm8k", path="absent").load()


# -------------------------------------------------------------------------------------------------------- FedLLM-Bench

SFT = {"instruction": "hi", "response": "ho"}
PAIR = {"prompt": "### Instruction:\nhi\n\n### Response:", "chosen": " ho", "rejected": " no"}
DIALOGUE = sharegpt(("gpt", "lost"), ("human", "hi"), ("gpt", "ho"))


@pytest.fixture
def bench(tmp_path):
    def load(content, name="users.json", **fields):
        return FedllmBench(path=write(tmp_path / name, content, lines=False), **fields)

    return load


def test_bench_keeps_file_order_of_users_and_records(bench):
    content = {"zoe": [SFT, SFT | {"response": "hey"}], "adam": [SFT]}
    expected = [chat("hi", "ho", client="zoe"), chat("hi", "hey", client="zoe"), chat("hi", "ho", client="adam")]
    assert bench(content).load()["train"] == expected


def test_bench_drops_a_leading_answer(bench):
    assert bench({"zoe": [DIALOGUE]}).load()["train"] == [chat("hi", "ho", client="zoe")]


def test_bench_keeps_a_preference_verbatim(bench):
    expected = Preference((Turn("user", PAIR["prompt"]),), " ho", " no", {"client": "zoe"})
    assert bench({"zoe": [PAIR]}).load()["train"] == [expected]


def test_bench_reads_the_flat_local_list(bench):
    assert bench([SFT]).load()["train"] == [chat("hi", "ho", client="local")]


def test_bench_takes_the_first_users(bench):
    content = {name: [SFT] for name in ("zoe", "adam", "eve")}
    assert [e.tags["client"] for e in bench(content, clients=2).load()["train"]] == ["zoe", "adam"]


def test_bench_refuses_too_few_users(bench):
    assert "found 1 users, asked for clients = 2" in refusal(bench({"zoe": [SFT]}, clients=2))


def test_bench_refuses_a_missing_field_with_file_user_and_record(bench):
    message = refusal(bench({"zoe": [SFT], "adam": [SFT, {"instruction": "hi"}]}))
    assert "users.json, user 'adam', record 2: no column 'response'" in message


def test_bench_refuses_roles_that_do_not_alternate(bench):
    message = refusal(bench({"zoe": [sharegpt(("human", "a"), ("human", "b"))]}))
    assert "users.json, user 'zoe', record 1: turn 1 has role 'user'" in message


def test_bench_refuses_an_unknown_layout(bench):
    assert "user 'zoe', record 1: found the fields question" in refusal(bench({"zoe": [{"question": "hi"}]}))


def test_bench_refuses_a_user_without_records(bench):
    assert "user 'adam': found no record" in refusal(bench({"zoe": [SFT], "adam": []}))


def test_bench_refuses_a_record_that_is_no_object(bench):
    assert "user 'zoe', record 1: found str, allowed is an object" in refusal(bench({"zoe": ["hi"]}))


def test_bench_refuses_a_user_twice(tmp_path):
    (tmp_path / "a.json").write_text('{"zoe": [], "zoe": []}', encoding="utf-8")
    assert "the key 'zoe' occurs twice" in refusal(FedllmBench(path=str(tmp_path / "a.json")))


def test_bench_refuses_what_is_no_layout(bench):
    assert "found no user, allowed is {user: [records]}" in refusal(bench({}))


def test_bench_refuses_a_missing_file(tmp_path):
    with pytest.raises(MissingFileError, match="no such file"):
        FedllmBench(path=str(tmp_path / "absent.json")).load()


def test_bench_without_path_is_refused():
    assert "path: found none" in refusal(FedllmBench())


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("aya_38c_25k.json", "Apache-2.0"),
        ("chatbotPA_747c_10k.json", "CC BY-NC 4.0"),
        ("wildchat_50c.json", "ODC-BY"),
        ("mine.json", "unknown"),
    ],
)
def test_bench_logs_the_licence(bench, caplog, name, licence):
    caplog.set_level(logging.INFO)
    bench({"zoe": [SFT]}, name=name).load()
    assert f"licence: {licence}" in caplog.text


# --------------------------------------------------------------------------------------------------------- shared data


@pytest.mark.shared
def test_medquad_loads_with_seven_sources():
    columns = {"prompt": "question", "completion": "answer"}
    examples = train(
        path=str(SHARED / "medicine-medquad/medquad-dev.jsonl"), columns=columns, tags={"client": "source"}
    )
    assert (len(examples), len({example.tags["client"] for example in examples})) == (1774, 7)


@pytest.mark.shared
def test_instructions_load_as_alpaca():
    assert len(train(path=str(SHARED / "instructions-rasbt/instruction-data.json"))) == 1100


@pytest.mark.shared
def test_instructions_with_preference_load_as_preferences():
    path = str(SHARED / "instructions-rasbt/instruction-data-with-preference.json")
    columns = {"prompt": "instruction", "input": "input"}
    first = train(path=path, form="preference", columns=columns)[0]
    assert first.prompt[0].text.endswith("into the spelling given. freind --> friend")


@pytest.mark.shared
def test_gsm8k_loads_as_its_preset():
    assert len(PresetSource(preset="gsm8k", path=str(SHARED / "math-gsm8k/train.jsonl")).load()["train"]) == 7473


@pytest.mark.shared
@pytest.mark.parametrize(("name", "form"), [("en_100_tree", "tree"), ("en_100_message", "thread")])
def test_conversation_trees_load_as_chats(name, form):
    examples = train(path=str(SHARED / f"conversations-oasst/{name}.jsonl"), form=form)
    assert sorted({len(example.turns) for example in examples}) == [2, 4]
