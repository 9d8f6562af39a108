"""What turns the meaning of a record is read, or refused by its name; nothing of it is passed over."""

import json

import pytest

from fedloom.base.errors import DataError
from fedloom.base.plugin import lookup
from fedloom.contracts.examples import Chat, Shown, Turn
from fedloom.contracts.federated import Template
from fedloom.data.sources.file import File
from fedloom.tasks.sft import Sft
from support.clients import tiny


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
        ({"role": "tool", "content": "42"}, r"\[1\]: 'role' is 'tool', allowed are system, user, assistant"),
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
