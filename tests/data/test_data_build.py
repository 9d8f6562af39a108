"""Building FedLLM-Bench's data sets: layouts, filters, splits that never meet, equal bytes, changed bytes found."""

import hashlib
import json
import sys

import pytest

from fedloom.base.errors import ConfigError, DataError, MissingFileError, RunError
from fedloom.base.plugin import lookup
from fedloom.cli import main as cli
from fedloom.contracts.examples import Chat, Preference, Turn
from fedloom.contracts.federated import Template
from fedloom.data.build.building import build, verify
from fedloom.data.build.recipes import RECIPES
from fedloom.data.build.splitting import split_users
from fedloom.data.build.upstream import open_upstream
from fedloom.data.holdout import question_key
from fedloom.data.sources.fedllm_bench import FedllmBench
from support.tokenizers import tokenizer

LANGUAGES = ("English", "Standard Arabic", "Telugu")


def aya_row(user, i, language="English", **more):
    return {"user_id": user, "inputs": f"{user} asks {i}", "targets": f"answer {i}", "language": language} | more


def turns(*texts):
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


def arena_row(user, i, winner="model_a", **more):
    question = f"{user} asks {i}"
    row = {"judge": user, "winner": winner, "turn": 1}
    return row | {"conversation_a": turns(question, "yes"), "conversation_b": turns(question, "no")} | more


def chat_row(user, i, n_turns=1, **more):
    texts = [f"{user} {'asks' if at % 2 == 0 else 'is told'} {i} {at}" for at in range(2 * n_turns)]
    return {"hashed_ip": user, "conversation": turns(*texts), "language": "English", "toxic": False} | more


ROWS = {
    "aya": lambda: [aya_row(f"u{u}", i, LANGUAGES[u]) for i in range(12) for u in range(3)],
    "chatbot_it": lambda: [arena_row(f"u{u}", i) for i in range(12) for u in range(3)],
    "chatbot_pa": lambda: [arena_row(f"u{u}", i) for i in range(12) for u in range(3)],
    "wildchat": lambda: [chat_row(f"u{u}", i) for i in range(12) for u in range(3)],
    "wildchat_multi": lambda: [chat_row(f"u{u}", i, 2) for i in range(12) for u in range(3)],
}
each_set = pytest.mark.parametrize("dataset", ROWS)


@pytest.fixture
def make(tmp_path):
    """Build from rows; the folder of the build, made anew for each call."""
    made = []

    def run(dataset, rows=None, form="jsonl", *, min_records=3, clients=None, seed=0):
        source = tmp_path / f"up{len(made)}"
        source.mkdir()
        rows = ROWS[dataset]() if rows is None else rows
        if form == "jsonl":
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (source / "part.jsonl").write_text(text, encoding="utf-8")
        else:
            arrow = pytest.importorskip("pyarrow")
            from pyarrow import parquet

            parquet.write_table(arrow.Table.from_pylist(rows), source / "part.parquet")
        out = tmp_path / f"out{len(made)}"
        made.append(out)
        build(dataset, open_upstream(str(source)), out, min_records=min_records, clients=clients, seed=seed)
        return out

    return run


def content(folder, name):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def card(folder):
    return content(folder, "build")


def rule(folder, name):
    return next(row for row in card(folder)["filters"] if row["name"] == name)


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# ------------------------------------------------------------------------------------------------------------- layouts


def first(folder):
    return next(iter(content(folder, "train").values()))[0]


def test_aya_becomes_instructions_in_a_language(make):
    assert first(make("aya")).keys() == {"instruction", "response", "language"}


def test_chatbot_it_keeps_the_preferred_answer(make):
    rows = [arena_row("u", i, winner="model_b") for i in range(4)]
    assert first(make("chatbot_it", rows))["response"] == "no"


def test_chatbot_pa_has_the_preferred_answer_chosen(make):
    record = first(make("chatbot_pa"))
    assert (record["chosen"], record["rejected"]) == (" yes", " no")


def test_chatbot_pa_prompts_are_the_alpaca_template(make):
    rows = [arena_row("u", i) for i in range(4)]
    record = first(make("chatbot_pa", rows))
    question = record["prompt"].split("### Instruction:\n")[1].split(" \n")[0]
    pieces = lookup(Template, "alpaca")().pieces((Turn("user", question),), tokenizer("llama2"))
    assert record["prompt"] == "".join(piece.text for piece in pieces)


def test_wildchat_becomes_instructions_in_a_language(make):
    assert first(make("wildchat")).keys() == {"instruction", "response", "language"}


def test_wildchat_multi_becomes_dialogues_in_a_language(make):
    assert first(make("wildchat_multi")).keys() == {"conversations", "language"}


@pytest.mark.parametrize("dataset", ["chatbot_it", "chatbot_pa"])
def test_records_of_a_set_without_languages_tell_none(dataset, make):
    assert "language" not in first(make(dataset))


def test_languages_reach_the_examples(make):
    splits = FedllmBench(path=str(make("aya") / "train.json")).load()
    found = {example.tags["client"]: example.tags["language"] for example in splits["train"]}
    assert found == {f"u{u}": language for u, language in enumerate(LANGUAGES)}


@pytest.mark.parametrize("language", [None, " "])
def test_rows_without_a_language_train_and_tell_none(make, language):
    out = make("wildchat", [chat_row("u", i, language=language) for i in range(12)])
    assert (rule(out, "records of a user")["rows_dropped"], "language" in first(out)) == (0, False)


def test_rows_without_a_language_stay_out_of_the_common_test(make):
    rows = [chat_row(f"u{u}", i, language=("English", None)[u]) for i in range(12) for u in range(2)]
    asked = [record["instruction"].split()[0] for record in content(make("wildchat", rows), "common_test")]
    assert asked == ["u0"]


def test_one_record_labelled_with_two_languages_is_a_repeated_one(make):
    rows = [*ROWS["wildchat"](), chat_row("u0", 3, language="Latin")]
    assert rule(make("wildchat", rows), "repeated")["rows_dropped"] == 1


def test_wildchat_multi_becomes_dialogues(make):
    assert [turn["from"] for turn in first(make("wildchat_multi"))["conversations"]] == ["human", "gpt"] * 2


@each_set
def test_the_source_reads_what_was_built(dataset, make):
    out = make(dataset)
    paths = {f"{name}path": str(out / f"{file}.json") for name, file in (("", "train"), ("validation_", "validation"))}
    splits = FedllmBench(**paths, test_path=str(out / "test.json"), min_records=2).load()
    assert {split: len(examples) for split, examples in splits.items()} == {"train": 30, "validation": 3, "test": 3}


@each_set
def test_the_source_reads_the_common_test(dataset, make):
    out = make(dataset)
    test = FedllmBench(path=str(out / "train.json"), test_path=str(out / "common_test.json")).load()["test"]
    assert len(test) == 3


def test_the_common_test_of_aya_is_by_language_with_references(make):
    common = content(make("aya"), "common_test")
    assert {key: [set(r) for r in records] for key, records in common.items()} == {
        language: [{"instruction", "reference"}] for language in ("English", "Standard_Arabic", "Telugu")
    }


def test_the_common_test_of_wildchat_has_languages(make):
    assert [record["language"] for record in content(make("wildchat"), "common_test")] == ["English"] * 3


def test_the_common_test_of_preferences_has_bare_instructions(make):
    assert all("###" not in record["instruction"] for record in content(make("chatbot_pa"), "common_test"))


@each_set
def test_parquet_gives_the_same_files_as_json_lines(dataset, make):
    one, other = make(dataset), make(dataset, form="parquet")
    assert card(one)["outputs"] == card(other)["outputs"]


# ------------------------------------------------------------------------------------------------------------- filters


def test_rows_of_other_languages_are_dropped_and_counted(make):
    out = make("aya", [*ROWS["aya"](), aya_row("u0", 99, "Igbo")])
    assert rule(out, "language")["rows_dropped"] == 1


def test_empty_answers_are_dropped_and_counted(make):
    out = make("aya", [*ROWS["aya"](), aya_row("u0", 99, targets=" \n")])
    assert rule(out, "not empty")["rows_dropped"] == 1


def test_ties_are_dropped_and_counted(make):
    out = make("chatbot_it", [*ROWS["chatbot_it"](), arena_row("u0", 98, "tie"), arena_row("u0", 99, "tie (bothbad)")])
    assert rule(out, "winner")["rows_dropped"] == 2


def test_comparisons_of_several_turns_are_dropped(make):
    longer = arena_row("u0", 99, conversation_a=turns("q", "a", "q", "a"), conversation_b=turns("q", "b", "q", "b"))
    assert rule(make("chatbot_pa", [*ROWS["chatbot_pa"](), longer]), "single turn")["rows_dropped"] == 1


def test_equal_answers_are_no_preference(make):
    same = arena_row("u0", 99, conversation_b=turns("u0 asks 99", "yes"))
    assert rule(make("chatbot_pa", [*ROWS["chatbot_pa"](), same]), "different")["rows_dropped"] == 1


def test_toxic_dialogues_are_dropped(make):
    assert (
        rule(make("wildchat", [*ROWS["wildchat"](), chat_row("u0", 99, toxic=True)]), "not toxic")["rows_dropped"] == 1
    )


def test_dialogues_of_several_turns_are_no_single_turns(make):
    assert rule(make("wildchat", [*ROWS["wildchat"](), chat_row("u0", 99, 2)]), "single turn")["rows_dropped"] == 1


def test_dialogues_that_do_not_alternate_are_dropped(make):
    odd = chat_row("u0", 99, conversation=[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    assert rule(make("wildchat", [*ROWS["wildchat"](), odd]), "single turn")["rows_dropped"] == 1


def test_rows_without_a_user_are_dropped_and_counted(make):
    assert rule(make("wildchat", [*ROWS["wildchat"](), chat_row(None, 99)]), "user")["rows_dropped"] == 1


def test_repeated_records_are_dropped_and_counted(make):
    assert rule(make("aya", [*ROWS["aya"](), aya_row("u0", 3)]), "repeated")["rows_dropped"] == 1


def test_small_users_are_dropped_and_counted(make):
    out = make("aya", ROWS["aya"]() + [aya_row("small", i) for i in range(2)])
    assert (rule(out, "records of a user")["users_dropped"], "small" in content(out, "train")) == (1, False)


def test_the_users_with_the_most_records_are_kept(make):
    rows = [row for row in ROWS["aya"]() if row["user_id"] != "u1" or row["inputs"].endswith(("1", "2", "3"))]
    assert sorted(content(make("aya", rows, clients=2), "train")) == ["u0", "u2"]


def test_an_overridden_threshold_is_marked_as_given(make):
    assert rule(make("aya"), "records of a user")["origin"] == "given"


@each_set
def test_every_filter_says_where_it_comes_from(dataset):
    assert {rule.origin for rule in RECIPES[dataset].rules} <= {"published", "unverified", "chosen"}


def test_the_card_has_counts_before_and_after(make):
    found = card(make("aya", [*ROWS["aya"](), aya_row("u0", 99, "Igbo")]))
    assert found["rows"] == {"read": 37, "kept": 36}


def test_the_card_has_the_released_sizes(make):
    assert card(make("chatbot_pa"))["released"] == {"users": 747, "records": 9508}


def test_the_card_has_the_licence(make):
    assert "CC BY-NC 4.0" in card(make("chatbot_it"))["upstream"]["licence"]


def test_the_card_has_the_checksums_of_the_input(make, tmp_path):
    out = make("aya")
    data = (tmp_path / "up0" / "part.jsonl").read_bytes()
    expected = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert card(out)["upstream"]["inputs"] == {"part.jsonl": expected}


def test_the_card_holds_no_path(make, tmp_path):
    assert str(tmp_path) not in (make("aya") / "build.json").read_text()


def unreadable(content):
    return [{"role": "user", "content": content}, {"role": "assistant", "content": content}]


@pytest.mark.parametrize("said", [5, ["x"], {"a": 1}, True, None])
@pytest.mark.parametrize(
    ("dataset", "column", "row"), [("wildchat", "conversation", chat_row), ("chatbot_it", "conversation_a", arena_row)]
)
def test_a_dialogue_with_a_turn_that_is_no_text_is_dropped_and_counted(dataset, column, row, said, make):
    out = make(dataset, [*ROWS[dataset](), row("u0", 99, **{column: unreadable(said)})])
    assert rule(out, "single turn")["rows_dropped"] == 1


# -------------------------------------------------------------------------------------------------------------- splits


def questions(folder, dataset, split):
    return {
        question_key(RECIPES[dataset].question(record))
        for records in content(folder, split).values()
        for record in records
    }


@each_set
@pytest.mark.parametrize("split", ["validation", "test"])
def test_no_held_out_question_occurs_in_any_training_split(dataset, split, make):
    rows = ROWS[dataset]()
    twin = json.loads(json.dumps(rows[:6]).replace("u0 asks", "U0  ASKS").replace('"u0"', '"u1"'))
    out = make(dataset, rows + twin)
    assert not questions(out, dataset, split) & questions(out, dataset, "train")


def test_a_question_of_two_users_is_never_held_out():
    users = {user: [({"q": f"{i}"}, ("", {})) for i in range(20)] for user in ("a", "b")}
    assert split_users(users, lambda record: record["q"], 0)["test"] == {}


def test_equal_questions_of_a_user_stay_together():
    users = {"a": [({"q": f"{i % 10}", "n": i}, ("", {})) for i in range(20)]}
    splits = split_users(users, lambda record: record["q"], 0)
    held = {record["q"] for record, _ in splits["test"]["a"]}
    assert len(splits["test"]["a"]) == 2 * len(held) > 0


def test_a_tenth_is_held_out_for_each():
    users = {"a": [({"q": f"{i}"}, ("", {})) for i in range(50)]}
    parts = split_users(users, lambda record: record["q"], 0)
    assert {split: len(part["a"]) for split, part in parts.items()} == {"train": 40, "validation": 5, "test": 5}


def test_no_record_is_lost():
    users = {user: [({"q": f"{user}{i}"}, ("", {})) for i in range(17)] for user in "abc"}
    parts = split_users(users, lambda record: record["q"], 0)
    assert sorted(r["q"] for part in parts.values() for entries in part.values() for r, _ in entries) == sorted(
        r["q"] for entries in users.values() for r, _ in entries
    )


def test_every_user_trains():
    users = {"a": [({"q": "1"}, ("", {})), ({"q": "2"}, ("", {}))]}
    assert len(split_users(users, lambda record: record["q"], 0)["train"]["a"]) == 2


def test_a_user_too_small_to_hold_out_is_listed(make):
    rows = [*ROWS["aya"](), aya_row("a", 1), aya_row("a", 2)]
    assert card(make("aya", rows, min_records=2))["users"]["without_test"] == ["a"]


# --------------------------------------------------------------------------------------------------------------- bytes


@each_set
def test_two_builds_are_byte_identical(dataset, make):
    assert bytes_of(make(dataset)) == bytes_of(make(dataset))


def test_the_order_of_users_plays_no_part(make):
    rows = sorted(ROWS["aya"](), key=lambda row: row["user_id"], reverse=True)
    assert card(make("aya"))["outputs"] == card(make("aya", rows))["outputs"]


def test_another_seed_holds_out_other_records(make):
    assert content(make("aya"), "test") != content(make("aya", seed=1), "test")


@pytest.mark.parametrize("name", ["train", "validation", "test", "common_test"])
def test_a_changed_byte_is_detected(name, make):
    out = make("aya")
    path = out / f"{name}.json"
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
    with pytest.raises(DataError, match=rf"{name}\.json: has SHA-256 .* it has been changed; build the data set anew"):
        verify(out)


def test_a_changed_card_is_detected(make):
    out = make("aya")
    path = out / "build.json"
    path.write_text(path.read_text().replace('"read": 36', '"read": 37'))
    with pytest.raises(DataError, match=r"build\.json: has been changed since the build"):
        verify(out)


def test_a_missing_file_is_detected(make):
    out = make("aya")
    (out / "test.json").unlink()
    with pytest.raises(MissingFileError, match=r"test\.json: is missing"):
        verify(out)


def test_other_input_is_detected(make, tmp_path):
    out = make("aya")
    (tmp_path / "up0" / "part.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="was built from other input"):
        verify(out, open_upstream(str(tmp_path / "up0")))


def test_an_untouched_build_is_verified(make, tmp_path):
    out = make("aya")
    assert verify(out, open_upstream(str(tmp_path / "up0")))["dataset"] == "aya"


# ------------------------------------------------------------------------------------------------------------ refusals


def test_a_missing_column_is_refused_with_those_present(make):
    with pytest.raises(DataError, match=r"part\.jsonl, line 1: no column 'user_id'; present: inputs, targets; needed"):
        make("aya", [{"inputs": "a", "targets": "b"}])


def test_a_missing_parquet_column_is_refused(make):
    with pytest.raises(DataError, match=r"part\.parquet: no column 'user_id'; present: inputs, targets"):
        make("aya", [{"inputs": "a", "targets": "b"}], form="parquet")


def test_too_small_users_alone_are_refused(make):
    with pytest.raises(
        DataError, match=r"aya: found no user with 100 records, but 3 users in 36 rows \(the largest has 12"
    ):
        make("aya", min_records=100)


def test_an_output_that_is_there_is_refused(make, tmp_path):
    (tmp_path / "out0").mkdir()
    (tmp_path / "out0" / "mine.txt").write_text("keep")
    with pytest.raises(RunError, match="exists and is not empty; choose another --out"):
        make("aya")


@pytest.mark.parametrize("inside", ["out", "deep/er", "."])
def test_an_output_in_the_input_is_refused(inside, tmp_path):
    source = tmp_path / "up"
    source.mkdir()
    (source / "a.jsonl").write_text("{}")
    with pytest.raises(RunError, match=r"is in the folder .*up that is read; choose an --out outside --from"):
        build("aya", open_upstream(str(source)), source / inside, min_records=3, clients=None, seed=0)


def test_a_set_of_which_nothing_is_left_names_the_filter_that_dropped_most(make):
    rows = [aya_row("u", i, "Igbo") for i in range(5)] + [aya_row("u", 9, targets="")]
    with pytest.raises(DataError, match=r"aya: the filters dropped all 6 rows, most of them, 5, the filter 'language'"):
        make("aya", rows)


def test_a_set_without_rows_is_refused(make):
    with pytest.raises(DataError, match=r"aya: found no row, the files are empty; give the files of CohereForAI/aya"):
        make("aya", [])


@pytest.mark.parametrize("toxic", ["false", None, 0])
def test_a_flag_that_is_not_true_or_false_is_refused_with_its_row(toxic, make):
    with pytest.raises(DataError, match=r"part\.jsonl, line 2, column 'toxic': found .*, allowed is true or false"):
        make("wildchat", [chat_row("u", 0), chat_row("u", 1, toxic=toxic)])


HALF = "\\ud800"


@pytest.mark.parametrize(
    ("dataset", "row"),
    [
        ("aya", aya_row("ann", 0) | {"user_id": "HALF"}),
        ("wildchat", chat_row("ann", 0) | {"hashed_ip": "HALF"}),
        ("wildchat", chat_row("ann", 0, language="HALF")),
        ("wildchat_multi", chat_row("ann", 0, 2, language="HALF")),
    ],
)
def test_half_a_surrogate_pair_is_refused_with_its_row_and_column(dataset, row, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(row).replace("HALF", HALF))
    column = next(key for key, value in row.items() if value == "HALF")
    upstream = open_upstream(str(tmp_path / "a.jsonl"))
    with pytest.raises(DataError, match=rf"a\.jsonl, line 1, column '{column}': character 0 is half a surrogate pair"):
        build(dataset, upstream, tmp_path / "out", min_records=3, clients=None, seed=0)


def test_a_language_that_is_no_text_is_refused_with_its_row(make):
    with pytest.raises(DataError, match=r"part\.jsonl, line 1, column 'language': found int, allowed is text"):
        make("wildchat", [chat_row("u", 0, language=5)])


def test_a_byte_order_mark_is_skipped(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"user_id": "ann"}\n{"user_id": "bob"}\n')
    rows = open_upstream(str(tmp_path / "a.jsonl")).rows(("user_id",))
    assert [row.values["user_id"] for row in rows] == ["ann", "bob"]


def test_a_folder_called_like_a_file_is_not_read_as_one(tmp_path):
    (tmp_path / "set" / "train.parquet").mkdir(parents=True)
    (tmp_path / "set" / "train.parquet" / "part.jsonl").write_text("{}")
    assert list(open_upstream(str(tmp_path / "set")).files) == ["train.parquet/part.jsonl"]


def test_a_refused_build_leaves_nothing(make, tmp_path):
    with pytest.raises(DataError):
        make("aya", min_records=100)
    assert not (tmp_path / "out0").exists()


def test_one_json_array_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[{}]")
    with pytest.raises(DataError, match=r"a\.json, line 1: found list, allowed is an object with named columns"):
        list(open_upstream(str(tmp_path / "a.json")).rows(("user_id",)))


def test_bytes_that_are_no_utf8_are_refused_with_their_place(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"user_id": "\xe9"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl: byte 13 is 0xe9, not UTF-8"):
        list(open_upstream(str(tmp_path / "a.jsonl")).rows(("user_id",)))


def test_broken_parquet_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"a\.parquet: not valid Parquet"):
        list(open_upstream(str(tmp_path / "a.parquet")).rows(("user_id",)))


def test_parquet_without_its_extra_names_it(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install fedloom\[parquet\]"):
        list(open_upstream(str(tmp_path / "a.parquet")).rows(("user_id",)))


def test_a_csv_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("user_id\n1\n")
    with pytest.raises(DataError, match=r"found 'a\.csv', allowed are files of the kinds \.parquet \.jsonl"):
        open_upstream(str(tmp_path / "a.csv"))


def test_a_folder_without_data_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"holds no file of the kinds \.parquet \.jsonl"):
        open_upstream(str(tmp_path))


def test_a_hub_name_needs_its_revision():
    with pytest.raises(ConfigError, match="'allenai/WildChat-1M' is a hub name; give its --revision"):
        open_upstream("allenai/WildChat-1M")


def test_a_hub_name_is_asked_at_its_revision(monkeypatch):
    from fedloom.data.records import Record

    def hub(path, *, subset, split, revision):
        return [Record(f"{path}@{revision}[{split}]{subset}", {"user_id": "u"})]

    monkeypatch.setattr("fedloom.data.build.upstream.hub_records", hub)
    assert [row.where for row in open_upstream("a/b", "v1").rows(("user_id",))] == ["a/b@v1[train]"]


# --------------------------------------------------------------------------------------------------------- command line


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["fedloom", "data", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_the_commands_build_and_verify(make, tmp_path, monkeypatch, capsys):
    make("aya")
    out = tmp_path / "built"
    codes = [
        command(monkeypatch, "build", "aya", "--from", tmp_path / "up0", "--out", out, "--min-records", "3"),
        command(monkeypatch, "verify", out, "--from", tmp_path / "up0"),
    ]
    assert (codes, capsys.readouterr().out.splitlines()[-1]) == ([0, 0], f"{out}: 4 files as built")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("build", "ayaa", "--from", "x", "--out", "y"), "no data set called 'ayaa'. Did you mean 'aya'"),
        (("build", "wildchat", "--from", "x", "--out", "y", "--clients", "53k"), "should be a valid integer"),
        (("build", "wildchat", "--from", "absent.jsonl", "--out", "y"), "absent.jsonl: no such file"),
        (("verify", "absent"), "build.json: no such file; give a folder that `fedloom data build` has made"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(arguments, message, monkeypatch, capsys):
    code = command(monkeypatch, *arguments)
    lines = capsys.readouterr().err.splitlines()
    assert (code, len(lines), message in lines[0]) == (2, 1, True)


def test_the_built_preferences_load_as_preferences(make):
    examples = FedllmBench(path=str(make("chatbot_pa") / "train.json")).load()["train"]
    assert {type(example) for example in examples} == {Preference}


def test_the_built_dialogues_load_as_chats(make):
    examples = FedllmBench(path=str(make("wildchat_multi") / "train.json")).load()["train"]
    assert {(type(example), len(example.turns)) for example in examples} == {(Chat, 4)}
