"""What turns the meaning of a record is read, or refused by its name; nothing of it is passed over."""

import json
from dataclasses import dataclass, replace

import pytest

from fedloom.base.config import build
from fedloom.base.errors import ConfigError, DataError, ModelError
from fedloom.base.plugin import lookup
from fedloom.contracts.examples import Chat, Shown, Turn
from fedloom.contracts.federated import Source, Template
from fedloom.data.sources.file import File, OneFile
from fedloom.tasks.sft import Sft
from support.clients import tiny
from support.tokenizers import CHAT_TEMPLATE, tokenizer


def read(path, *rows, **settings):
    file = path / "records.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return File(path=str(file), **settings).load()["train"]


def user(text, **more):
    return {"role": "user", "content": text, **more}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def told(example):
    return [(turn.role, turn.text) for turn in getattr(example, "turns", None) or example.prompt]


@dataclass(frozen=True)
class OfSource:
    data: Source


PLAIN = {"prompt": "Is the sky blue?", "completion": "By day."}


# --------------------------------------------------------------------------------------------------- columns


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("label", False),
        ("label", True),
        ("is_rejected", True),
        ("train", False),
        ("weight", 0),
        ("weight", 0.5),
        ("tools", [{"name": "clock"}]),
        ("images", ["a.png"]),
        ("history", [["Who?", "Me."]]),
    ],
)
def test_a_column_that_changes_what_a_record_means_is_refused_by_name(tmp_path, column, value):
    with pytest.raises(DataError, match=rf"line 1, column '{column}': found .*, which changes what the record means"):
        read(tmp_path, PLAIN | {column: value})
    (found,) = read(tmp_path, PLAIN | {column: value}, ignored=(column,))
    assert told(found) == [("user", "Is the sky blue?"), ("assistant", "By day.")]


@pytest.mark.parametrize("value", [None, "", [], {}])
def test_an_empty_column_changes_nothing(tmp_path, value):
    assert len(read(tmp_path, PLAIN | {"tools": value, "images": value, "system": None})) == 1


def test_a_label_that_names_a_class_is_no_verdict(tmp_path):
    assert len(read(tmp_path, PLAIN | {"label": "nature", "weight": 1})) == 1


def test_records_of_one_label_are_chosen_by_where_and_labels_may_be_tags(tmp_path):
    rows = [PLAIN | {"label": True}, PLAIN | {"completion": "Never.", "label": False}]
    (found,) = read(tmp_path, *rows, where={"label": True})
    assert found.reference == "By day."
    tagged = read(tmp_path, PLAIN | {"label": 1}, tags={"liked": "label"})
    assert tagged[0].tags == {"liked": "1"}


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        (PLAIN, [("user", "Is the sky blue?"), ("assistant", "By day.")]),
        ({"instruction": "Add.", "input": "1 2", "output": "3"}, [("user", "Add. 1 2"), ("assistant", "3")]),
        ({"instruction": "Add.", "response": "3"}, [("user", "Add."), ("assistant", "3")]),
        ({"messages": [user("Hi"), assistant("Ho")]}, [("user", "Hi"), ("assistant", "Ho")]),
        (
            {"conversations": [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": "Ho"}]},
            [("user", "Hi"), ("assistant", "Ho")],
        ),
        ({"prompt": "Hi", "chosen": "Ho", "rejected": "Hu"}, [("user", "Hi")]),
        (
            {"prompt": [user("Hi")], "chosen": [assistant("Ho")], "rejected": [assistant("Hu")]},
            [("user", "Hi")],
        ),
    ],
)
def test_a_system_column_opens_the_conversation_in_every_form(tmp_path, row, turns):
    assert told(read(tmp_path, row)[0]) == turns
    assert told(read(tmp_path, row | {"system": "Be brief."})[0]) == [("system", "Be brief."), *turns]


def test_a_system_column_beside_a_system_turn_is_refused(tmp_path):
    row = {"messages": [{"role": "system", "content": "A"}, user("Hi"), assistant("Ho")], "system": "B"}
    with pytest.raises(DataError, match="column 'system': found it beside a system turn; allowed is one of the two"):
        read(tmp_path, row)


def test_earlier_turns_of_alpaca_are_read(tmp_path):
    row = {"instruction": "And his age?", "input": "", "output": "41", "history": [["Who is it?", "Her brother."]]}
    asked = [("user", "Who is it?"), ("assistant", "Her brother."), ("user", "And his age?"), ("assistant", "41")]
    assert told(read(tmp_path, row)[0]) == asked
    for history in ("Who?", [["Who?"]], [["Who?", None]]):
        with pytest.raises(DataError, match=r"column 'history'.*: found"):
            read(tmp_path, row | {"history": history})


def test_prompt_and_completion_may_be_turns(tmp_path):
    row = {"prompt": [{"role": "system", "content": "S"}, user("Hi")], "completion": [assistant("Ho")]}
    assert told(read(tmp_path, row)[0]) == [("system", "S"), ("user", "Hi"), ("assistant", "Ho")]


# ----------------------------------------------------------------------------------------------------- turns


@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}])
def test_an_answer_that_is_left_out_is_read_and_not_learnt(tmp_path, mark):
    row = {"messages": [user("A river?"), assistant("Everest.", **mark), user("Again."), assistant("The Rhine.")]}
    (found,) = read(tmp_path, row)
    assert [type(turn) for turn in found.turns] == [Turn, Shown, Turn, Turn]
    assert "Shown(role='assistant', text='Everest.')" in repr(found)  # which hashes of the data are made of
    row["messages"][1] = assistant("Everest.", weight=1, train=True)
    assert read(tmp_path, row)[0].turns[1].learnt


@pytest.mark.parametrize("template", ["alpaca", "vicuna"])
def test_its_tokens_are_not_supervised(template):
    model = tiny()
    task = Sft(template=lookup(Template, template)())
    turns = [Turn("user", "w3"), Turn("assistant", "w4 w5"), Turn("user", "w6"), Turn("assistant", "w7")]
    whole, shown = _encoded(task, turns, model), _encoded(task, [turns[0], Shown(*_said(turns[1])), *turns[2:]], model)
    assert whole.tokens_T.tolist() == shown.tokens_T.tolist()
    assert int(whole.supervised_T.sum()) - int(shown.supervised_T.sum()) == 3  # two words and the end
    assert shown.supervised_T[-2:].tolist() == [True, True]
    with pytest.raises(DataError, match=r"task\.learn: found 'all' with an answer that its record leaves out"):
        _encoded(Sft(template=task.template, learn="all"), [turns[0], Shown(*_said(turns[1])), *turns[2:]], model)


def _said(turn):
    return turn.role, turn.text


def _encoded(task, turns, model):
    return task.encode(Chat(tuple(turns)), model)


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (assistant("", tool_calls=[{"type": "function"}]), r"\[1\]: found 'tool_calls', which is not read"),
        (assistant("x", refusal="no"), r"\[1\]: found 'refusal', which is not read"),
        (assistant("x", weight=0.5), r"\[1\]: 'weight' is 0.5, allowed are 0 and 1"),
        (assistant("x", weight=True), r"\[1\]: 'weight' is True, allowed are 0 and 1"),
        (assistant("x", train=0), r"\[1\]: 'train' is 0, allowed are False and True"),
        (assistant("x", weight=0), r"no answer is learnt \(weight = 0 or train = false of each\)"),
        (
            assistant([{"type": "image_url"}]),
            r"\[1\].content\[0\]: found a part of type 'image_url', allowed are parts",
        ),
        (assistant(["x"]), r"\[1\].content\[0\]: found a part of type 'str', allowed are parts of text"),
        (assistant([{"type": "text"}]), r"\[1\].content\[0\].text: found null, allowed is text"),
        ({"role": "tool", "content": "42"}, r"turn 1 has role 'tool', allowed is 'assistant'"),
        (user("x", tool_call_id="1"), r"\[1\]: found 'tool_call_id', which is not read"),
    ],
)
def test_what_a_turn_says_besides_text_is_refused(tmp_path, turn, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, {"messages": [user("Hi"), turn]})


def test_content_in_parts_is_their_text(tmp_path):
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert told(read(tmp_path, {"messages": [user(parts), assistant("Ho", name=None, id=3)]})[0])[0] == (
        "user",
        "Hello",
    )


# ------------------------------------------------------------------------------------------------------- CSV


def test_a_long_field_of_a_csv_is_read_as_that_of_json_lines(tmp_path):
    long = "word " * 30_000
    (tmp_path / "long.csv").write_text(f'instruction,output\n"{long}",short\n')
    (found,) = File(path=str(tmp_path / "long.csv")).load()["train"]
    assert found.prompt[0].text == long


def test_what_is_ignored_is_not_read_and_not_needed(tmp_path):
    (found,) = read(tmp_path, PLAIN | {"system": "Be brief."}, ignored=("system",))
    assert told(found)[0] == ("user", "Is the sky blue?")
    with pytest.raises(DataError, match="fit no form"):
        read(tmp_path, PLAIN, ignored=("completion",))
    (found,) = read(tmp_path, PLAIN | {"text": "All of it."}, ignored=("prompt", "completion"))
    assert found.text == "All of it."


# ------------------------------------------------------------------------------------------------------------- tools

ASKED = [user("What is 6 x 7?"), assistant("I ask."), {"role": "tool", "content": "42", "tool_call_id": "c1"}]


def test_what_a_tool_says_is_a_turn_that_is_not_learnt(tmp_path):
    (found,) = read(tmp_path, {"messages": [*ASKED, assistant("It is 42.")]})
    assert [turn.role for turn in found.turns] == ["user", "assistant", "tool", "assistant"]
    model = replace(tiny(), tokenizer=tokenizer("qwen", chat_template=CHAT_TEMPLATE))
    item = Sft(template=lookup(Template, "own")()).encode(found, model)
    said, learnt = (model.tokenizer.decode(tokens) for tokens in (item.tokens_T, item.tokens_T[item.supervised_T]))
    assert "<|im_start|>tool\n42<|im_end|>" in said
    assert learnt == "I ask.<|im_end|>It is 42.<|im_end|>"


def test_two_tools_may_answer_and_a_conversation_may_not_begin_with_one(tmp_path):
    twice = [*ASKED, {"role": "function", "name": "clock", "content": "noon"}, assistant("42 at noon.")]
    assert [role for role, _ in told(read(tmp_path, {"messages": twice})[0])][2:4] == ["tool", "tool"]
    with pytest.raises(DataError, match="turn 0 has role 'tool', allowed is 'user'"):
        read(tmp_path, {"messages": [ASKED[2], assistant("x")]})


@pytest.mark.parametrize("role", ["tool", "function_response", "observation"])
def test_tools_of_sharegpt_are_read(tmp_path, role):
    turns = [("human", "6 x 7?"), ("gpt", "I ask."), (role, "42"), ("gpt", "42.")]
    (found,) = read(tmp_path, {"conversations": [{"from": who, "value": text} for who, text in turns]})
    assert told(found)[2] == ("tool", "42")


def test_a_template_without_a_form_for_tools_refuses_them(tmp_path):
    (found,) = read(tmp_path, {"messages": [*ASKED, assistant("42.")]})
    with pytest.raises(ModelError, match="a tool speaks in a conversation, for which this template has no form"):
        Sft(template=lookup(Template, "vicuna")()).encode(found, tiny())


# --------------------------------------------------------------------------------------------- files of unlike layout


def hospitals(path):
    (path / "north.csv").write_bytes(
        "Frage;Antwort\n".replace(";", ",").encode("cp1252") + "Wo?,Köln\n".encode("cp1252")
    )
    (path / "south.jsonl").write_bytes(
        (json.dumps({"q": "Dove?", "a": "Forlì"}, ensure_ascii=False) + "\n").encode("utf-16")
    )
    (path / "east.json").write_text(json.dumps([{"messages": [user("Where?"), assistant("York")]}]))
    return [
        {
            "path": str(path / "north.csv"),
            "columns": {"instruction": "Frage", "output": "Antwort"},
            "encoding": "cp1252",
        },
        {"path": str(path / "south.jsonl"), "columns": {"instruction": "q", "output": "a"}, "encoding": "utf-16"},
        {"path": str(path / "east.json"), "tags": {"file": "east.json", "kind": "talk"}},
    ]


def test_three_hospitals_with_three_layouts_are_one_source(tmp_path):
    source = build(OfSource, {"data": {"name": "file", "files": hospitals(tmp_path)}}).data
    source.check()
    found = source.load()["train"]
    assert [(one.tags["file"], one.reference) for one in found] == [
        ("north.csv", "Köln"),
        ("south.jsonl", "Forlì"),
        ("east.json", "York"),
    ]
    assert found[2].tags["kind"] == "talk" and len(source.origins()) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "x"}, "path: found one beside `files`"),
        ({"encoding": "hex"}, "encoding: found 'hex', allowed is one of texts"),
        ({"encoding": "latin1,2"}, "encoding: found 'latin1,2'"),
        ({"files": (OneFile(path="a/x.csv"), OneFile(path="b/x.csv"))}, "files: two have one name; tell them apart"),
    ],
)
def test_files_that_cannot_be_told_or_read_are_refused_before_any_is_opened(change, message):
    fields = {"files": (OneFile(path="a.csv"),)} | change
    with pytest.raises(ConfigError, match=message):
        File(**fields).check()


def test_a_wrong_encoding_of_one_file_is_refused_by_its_key(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.files\[0\]\.encoding: found 'utf-99'"):
        build(OfSource, {"data": {"name": "file", "files": [{"path": "a", "encoding": "utf-99"}]}})


def test_a_byte_that_is_none_of_the_encoding_is_refused_with_its_place(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"instruction,output\nHi,\x81\n")
    with pytest.raises(DataError, match=r"a\.csv: byte 22 is 0x81, not cp1252; convert the file to UTF-8"):
        File(path=str(tmp_path / "a.csv"), encoding="cp1252").load()
