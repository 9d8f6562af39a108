"""Closed-ended tasks as data, and what their items say together."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from sklearn.metrics import f1_score

from fedloom import lm_eval as closed_ended
from fedloom.base.errors import ConfigError, DataError, MissingFileError, UnknownNameError
from fedloom.evaluation.statistics import Interval
from fedloom.lm_eval.code_answers import program_of
from fedloom.lm_eval.harness import hub_tasks, local_tasks, own_harness_task, set_shots
from fedloom.lm_eval.local_data import local_data
from fedloom.lm_eval.scores import F1, SCORE, Labels, f1_difference, f1_scores, in_words, mean_score
from fedloom.lm_eval.shipped import HARNESS, HarnessTask, own_task, own_tasks, sources
from fedloom.lm_eval.task_file import TaskFile, read_task_file, the_label
from support.tasks import load, make_data, rows_of, write_lines

NAMES = {"mmlu", "bbh", "drop", "crass", "humaneval", "mbpp", "gsm8k", "math"}
NAMES |= {"medqa", "medmcqa", "pubmedqa", "fpb", "fiqa_sa", "tfns", "nwgi"}
LABELS = ("negative", "neutral", "positive")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


def test_all_named_tasks_are_known():
    assert set(sources()) == NAMES


@pytest.mark.parametrize("name", sorted(HARNESS))
def test_lm_evals_tasks_load_from_local_rows(name, folder):
    loaded = load(folder, name)
    data = local_data(folder, name)
    assert sum(len(task.eval_docs) for task in loaded.tasks.values()) == len(data.questions)


@pytest.mark.parametrize("name", own_tasks())
def test_shipped_task_files_load_from_local_rows(name, folder):
    file, data = own_task(name), local_data(folder, name)
    (task,) = own_harness_task(file, data).tasks.values()
    assert len(task.eval_docs) == -(-len(data.questions) * file.test_share // 1)


@pytest.mark.parametrize("name", own_tasks())
def test_shipped_task_files_have_a_header(name):
    text = (Path(closed_ended.__file__).parent / "task_files" / f"{name}.toml").read_text()
    assert "# Run: fedloom evaluate tasks" in text and "Expected:" in text


def test_members_of_a_group_get_their_own_rows(folder):
    sizes = {name: len(task.eval_docs) for name, task in load(folder, "mmlu").tasks.items()}
    assert sizes == {"mmlu_anatomy": 3, "mmlu_virology": 1}


def test_financial_phrasebank_has_the_published_test(tmp_path):
    rows = [{"sentence": str(i), "label": 1} for i in range(4846)]
    write_lines(tmp_path / "fpb.jsonl", rows)
    (task,) = own_harness_task(own_task("fpb"), local_data(tmp_path, "fpb")).tasks.values()
    expected = Dataset.from_list(rows).train_test_split(seed=42)["test"]  # a quarter is the library's default
    asked = [document["prompt"].split("\n")[1] for document in task.eval_docs]
    assert (len(asked), asked) == (1212, expected["sentence"][:])


def test_fiqa_has_the_published_number_of_questions(tmp_path):
    write_lines(tmp_path / "fiqa_sa.jsonl", [{"sentence": str(i), "sentiment_score": 0.5} for i in range(1213)])
    (task,) = own_harness_task(own_task("fiqa_sa"), local_data(tmp_path, "fiqa_sa")).tasks.values()
    assert len(task.eval_docs) == 275


def test_fiqa_labels_change_at_a_tenth():
    scores = (-0.11, -0.1, 0.0, 0.099, 0.1, 1)
    found = own_task("fiqa_sa").documents(rows_of(*({"sentence": "a", "sentiment_score": s} for s in scores)))
    assert [one["answer"] for one in found] == ["negative", "neutral", "neutral", "neutral", "positive", "positive"]


def test_mild_news_are_neutral():
    values = ("severely negative", "moderately negative", "mildly negative", "neutral", "mildly positive")
    found = own_task("nwgi").documents(rows_of(*({"news": "a", "label": value} for value in values)))
    assert [one["answer"] for one in found] == ["negative", "negative", "neutral", "neutral", "neutral"]


def test_finance_tasks_have_one_layout_order_and_stop():
    files = [own_task(name) for name in ("fpb", "fiqa_sa", "tfns", "nwgi")]
    layouts = {file.prompt.partition("this ")[2].partition("?")[2].partition("{")[0] for file in files}
    assert (layouts, {file.labels for file in files}, {file.stop for file in files}) == (
        {" Please choose an answer from "},
        {LABELS},
        {("\n",)},
    )


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (" Positive.", "positive"),
        ("neutral, not negative", "neutral"),
        ("it is good\nnegative", ""),
        ("unpositive", ""),
        ("", ""),
    ],
)
def test_label_is_the_first_that_the_first_line_names(answer, label):
    assert the_label(answer, LABELS) == label


@pytest.mark.parametrize(
    ("answer", "labels", "label"),
    [
        ("NEGATİVE", LABELS, "negative"),
        ("po\u017fitive", LABELS, "positive"),
        ("\uff4e\uff45utral", LABELS, "neutral"),
        ("iyi", ("İyi", "Kötü"), "İyi"),
        ("İYİ", ("iyi", "kötü"), "iyi"),
        ("KOTÜ ya da KÖTÜ", ("iyi", "kötü"), "kötü"),
        ("it is very good", ("very", "very good"), "very good"),
        ("it is very bad", ("very", "very good"), "very"),
        ("very goodness", ("very", "very good"), "very"),
        ("这是正面的", ("正面", "负面"), "正面"),
        ("非常に肯定的です", ("肯定", "否定"), "肯定"),
        ("answer是positive的", LABELS, "positive"),
        ("10 or 1", ("0", "1"), "1"),
        ("non_negative", LABELS, ""),
    ],
)
def test_label_is_found_in_any_case_length_and_script(answer, labels, label):
    assert the_label(answer, labels) == label


def test_answer_without_a_label_is_wrong_and_counted(folder):
    task = own_harness_task(own_task("tfns"), local_data(folder, "tfns")).tasks["tfns"]
    assert task.process_results({"answer": "neutral"}, ["I do not know"]) == {"acc": 0.0, "unparsed": 1.0}


@pytest.mark.parametrize(("name", "metric"), [("tfns", "unparsed"), ("humaneval", "stopped")])
def test_shares_of_what_failed_are_better_low(name, metric, folder):
    (task,) = load(folder, name).tasks.values()
    assert task.higher_is_better()[metric] is False


def test_options_stand_under_letters():
    file = TaskFile(name="t", version=1, kind="choice", prompt="{q}\n{options}\n", options=("{a}",), answer="right")
    (found,) = file.documents(rows_of({"q": "Q", "a": ["x", "y"], "right": "B"}))
    assert found == {"id": "0", "prompt": "Q\nA. x\nB. y\n", "choices": ["A", "B"], "answer": 1}


def test_options_without_letters_are_scored_as_texts():
    file = TaskFile(name="t", version=1, kind="choice", prompt="{q}", options=("yes", "no"), answer="right")
    (found,) = file.documents(rows_of({"q": "Q", "right": "no"}))
    assert (found["choices"], found["answer"]) == (["yes", "no"], 1)


def test_shuffled_options_keep_the_right_one():
    file = own_task("crass")
    row = {"Premise": "a", "QCC": "b", "CorrectAnswer": "right", "Answer1": "x", "Answer2": "y"}
    found = file.documents(rows_of(*[row] * 30))
    assert {one["prompt"].split("\n")[1 + one["answer"]][3:] for one in found} == {"right"}


def test_shuffled_options_stand_in_every_place():
    row = {"Premise": "a", "QCC": "b", "CorrectAnswer": "right", "Answer1": "x", "Answer2": "y"}
    assert {one["answer"] for one in own_task("crass").documents(rows_of(*[row] * 30))} == {0, 1, 2}


def test_values_are_never_read_as_patterns(tmp_path):
    value = "{{ 7 * 7 }} {other} {% raw %} {completion}"
    write_lines(tmp_path / "t.jsonl", [{"q": value, "other": "x"}])
    file = TaskFile(name="t", version=1, kind="text", prompt="{q}", answer="q")
    (task,) = own_harness_task(file, local_data(tmp_path, "t")).tasks.values()
    assert (task.doc_to_text(task.eval_docs[0]), task.doc_to_target(task.eval_docs[0])) == (value, value)


def test_completion_stands_where_the_program_says():
    file = TaskFile(name="t", version=1, kind="code", prompt="{q}", program="{q}{completion}|{q}")
    (found,) = file.documents(rows_of({"q": "{completion}"}))
    assert (found["before"], found["after"]) == ("{completion}", "|{completion}")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kind": "label"}, r"labels: missing; a task of kind 'label' needs it"),
        (
            {"kind": "code", "program": "{q}"},
            r"program: found '\{q\}', allowed is a pattern with '\{completion\}' once",
        ),
        ({"name": "a/b"}, r"name: found 'a/b', allowed are up to 64 letters"),
        ({"version": 0}, r"version: found 0, allowed is a number >= 1"),
        (
            {"kind": "label", "labels": ("a", "b"), "cuts": (1.0, 2.0)},
            r"cuts: found \[1.0, 2.0\], allowed are 1 rising",
        ),
        (
            {"kind": "label", "labels": ("a", " ")},
            r"labels: found ' ' at place 1, allowed are texts that are not empty",
        ),
        ({"kind": "label", "labels": ("a", "b", "A")}, r"labels: found 'A' at place 2, .* differ in more than case"),
        ({"kind": "label", "labels": ("a",), "values": {"0": "c"}}, r"values: found the label 'c', allowed are a"),
    ],
)
def test_contradicting_task_is_refused(change, text):
    with pytest.raises(ConfigError, match=text):
        TaskFile(**({"name": "t", "version": 1, "kind": "text", "prompt": "{q}", "answer": "q"} | change))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"q": "Q"}, r"row 0: no column 'right', task 't' needs q, right; found are q"),
        ({"q": "Q", "right": 2}, r"row 0: right: found 2, allowed is a number from 0 to 1, a letter from A to B or"),
        ({"q": "Q", "right": True}, r"row 0: right: found True"),
    ],
)
def test_row_that_does_not_fit_is_refused(value, text):
    file = TaskFile(name="t", version=1, kind="choice", prompt="{q}", options=("yes", "no"), answer="right")
    with pytest.raises(DataError, match=text):
        file.documents(rows_of(value))


def test_single_option_is_refused():
    file = TaskFile(name="t", version=1, kind="choice", prompt="{q}", options=("yes",), answer="q")
    with pytest.raises(DataError, match=r"found 1 options, allowed are 2 to 26"):
        file.documents(rows_of({"q": "Q"}))


@pytest.mark.parametrize(
    ("column", "name", "text"),
    [
        ({"sentence": "a", "label": 7}, "fpb", r"label: found 7, allowed are 0, 1, 2, negative, neutral, positive"),
        ({"sentence": "a", "sentiment_score": "x"}, "fiqa_sa", r"found 'x', allowed is a number; cuts make labels"),
    ],
)
def test_unknown_label_is_refused(column, name, text):
    with pytest.raises(DataError, match=text):
        own_task(name).documents(rows_of(column))


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("t.yaml", "name: !function utils.f", r"no plain YAML: .*!function are not allowed"),
        ("t.yaml", "- a", r"found no table of keys"),
        ("t.toml", 'nam = "t"', r"t.toml: nam: unknown key. Did you mean 'name'"),
        ("t.toml", 'name = "t"', r"t.toml: version: missing"),
        ("t.py", "", r"found '.py', allowed is a task as .toml, .yaml or .yml"),
    ],
)
def test_file_that_is_no_task_is_refused(name, text, match, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=match):
        read_task_file(tmp_path / name)


def test_missing_task_file_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"no such task file"):
        read_task_file(tmp_path / "t.toml")


def test_numbers_as_keys_of_yaml_are_texts(tmp_path):
    text = "name: t\nversion: 1\nkind: label\nprompt: '{q}'\nanswer: q\nlabels: [a, b]\nvalues: {0: a, 1: b}\n"
    (tmp_path / "t.yaml").write_text(text)
    assert read_task_file(tmp_path / "t.yaml").values == {"0": "a", "1": "b"}


def test_two_files_of_one_task_are_refused(tmp_path):
    for ending in ("jsonl", "csv"):
        (tmp_path / f"tfns.{ending}").touch()
    with pytest.raises(DataError, match=r"tfns.jsonl: tfns.csv lies beside it; keep one"):
        local_data(tmp_path, "tfns")


def test_unknown_member_of_a_group_is_refused(tmp_path):
    row = {"question": "a", "choices": list("abcd"), "answer": 0, "subject": "anatomi"}
    write_lines(tmp_path / "mmlu.jsonl", [row])
    with pytest.raises(DataError, match=r"subject: found 'anatomi'. Did you mean 'anatomy'"):
        load(tmp_path, "mmlu")


def test_rows_that_lm_eval_cannot_read_are_refused(tmp_path):
    row = {"query_id": "1", "passage": "a", "question": "b", "answer": "c", "validated_answers": "d"}
    write_lines(tmp_path / "drop.jsonl", [row])
    with pytest.raises(DataError, match=r"lm-eval cannot read the rows as its task 'drop'"):
        load(tmp_path, "drop")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"choices": ["a", "b"]}, r"lm-eval cannot read the rows as its task 'mmlu'"),
        (
            {"answer": 7},
            r"question 1 of its rows has the right answer 7, allowed are 'A', 'B', 'C', 'D' or their numbers",
        ),
    ],
)
def test_later_row_that_does_not_fit_is_refused(change, match, tmp_path):
    row = {"question": "a", "choices": list("abcd"), "answer": 0, "subject": "anatomy"}
    write_lines(tmp_path / "mmlu.jsonl", [row, row | change])
    with pytest.raises(DataError, match=match):
        load(tmp_path, "mmlu")


def test_rows_of_several_types_are_refused(tmp_path):
    write_lines(tmp_path / "gsm8k.jsonl", [{"question": "a", "answer": "b"}, {"question": 3, "answer": ["b"]}])
    with pytest.raises(DataError, match=r"do not agree in their columns' types"):
        load(tmp_path, "gsm8k")


def test_unknown_task_is_refused_with_the_nearest_one(tmp_path):
    write_lines(tmp_path / "gsm8.jsonl", [{"question": "a", "answer": "b"}])
    task = HarnessTask(task="gsm8", folder="gsm8k", columns=(), source="")
    with pytest.raises(UnknownNameError, match=r"no task 'gsm8' in lm-eval. Did you mean 'gsm8k'"):
        local_tasks("gsm8", local_data(tmp_path, "gsm8"), task)


def test_task_of_lm_eval_that_runs_programs_is_refused(folder):
    task = HarnessTask(task="humaneval", folder="humaneval", columns=(), source="")
    with pytest.raises(ConfigError, match=r"'humaneval' of lm-eval runs programs unconfined"):
        local_tasks("humaneval", local_data(folder, "humaneval"), task)


def test_too_few_solved_questions_are_refused(folder):
    loaded = load(folder, "gsm8k")
    with pytest.raises(DataError, match=r"asks with 5 solved questions, 0 were found; put them as gsm8k_shots.jsonl"):
        set_shots(loaded, None, "gsm8k")


def test_test_part_of_too_few_rows_is_refused(tmp_path):
    write_lines(tmp_path / "fpb.jsonl", [{"sentence": "a", "label": 1}])
    with pytest.raises(DataError, match=r"1 rows have no test part of 0.25"):
        own_harness_task(own_task("fpb"), local_data(tmp_path, "fpb"))


def test_hub_out_of_reach_says_what_to_fetch(tmp_path):
    with pytest.raises(MissingFileError, match=r"neither a local file nor the hub has its data .* DIR/gsm8k.jsonl"):
        hub_tasks("gsm8k", HARNESS["gsm8k"], tmp_path)


# ------------------------------------------------------------------------------------------------- programs in answers

HEAD = "import math\n\n\ndef g(x):\n    return x\n\n\ndef f(x):\n    #"
WHOLE = "def f(x):\n    return g(x) + math.floor(1)"
STOP = ("\ndef", "\n#", "\nprint")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (" one\n    return 2\n", f"{HEAD} one\n    return 2\n"),
        ("\n    return 2\n\ndef h():\n    pass", f"{HEAD}\n    return 2\n"),
        (f"Here:\n```python\n{WHOLE}\n```\nIt adds 1.", HEAD[: HEAD.index("def f")] + WHOLE + "\n"),
        ("```\n\n    return 2\n```\n```\nno\n```", f"{HEAD}\n    return 2\n"),
        ("```py\n\n    return 2\n", f"{HEAD}\n    return 2\n"),
        (f"\n{WHOLE}\n\nprint(f(1))", f"{HEAD[: HEAD.index('def f')]}\n{WHOLE}\n"),
        (f"```python\n{WHOLE}\n\n# a\ny = 1\n```", f"{HEAD[: HEAD.index('def f')]}{WHOLE}\n\n# a\ny = 1\n"),
        ("\n    return `2`\n", f"{HEAD}\n    return `2`\n"),
    ],
)
def test_program_of_an_answer_is_what_was_written(answer, code):
    assert program_of(HEAD, answer, STOP) == code


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("humaneval", "Sure:\n\n```python\ndef f(x):\n    return 1\n```\n"),
        ("humaneval", "\ndef f(x):\n    return 1\n"),
        ("mbpp", "```python\nx = 1\n```\n"),
    ],
)
def test_answers_of_chats_pass(name, answer, folder):
    (task,) = load(folder, name).tasks.values()
    assert task.process_results(task.eval_docs[0], [answer]) == {"pass@1": 1.0, "stopped": 0.0}


@pytest.mark.parametrize(
    ("name", "chat", "until"),
    [
        ("humaneval", False, ["\nclass", "\ndef", "\n#", "\nif", "\nprint"]),
        ("humaneval", True, []),
        ("mbpp", True, ["[DONE]"]),
        ("tfns", True, ["\n"]),
    ],
)
def test_lines_end_no_program_in_a_chat(name, chat, until, folder):
    (task,) = own_harness_task(own_task(name), local_data(folder, name), chat=chat).tasks.values()
    assert task.get_config("generation_kwargs")["until"] == until


# -------------------------------------------------------------------------------------------------------------- scores


@pytest.fixture(scope="module")
def labels():
    draw = np.random.default_rng(3)
    right, one, other = (draw.choice(LABELS, 60) for _ in range(3))
    found = [np.where(draw.random(60) < share, right, guess) for share, guess in ((0.6, one), (0.2, other))]
    found[0][:5] = ""
    return [Labels(LABELS, tuple(map(str, right)), tuple(map(str, answers))) for answers in found]


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_f1_equals_that_of_scikit_learn(average, labels):
    expected = f1_score(labels[0].right, labels[0].found, labels=LABELS, average=average)
    assert f1_scores(labels[0])[f"f1_{average}"].value == pytest.approx(expected)


@pytest.mark.parametrize("name", ["f1_macro"])
def test_f1_interval_agrees_with_resampled_items(name, labels):
    draw = np.random.default_rng(5)
    right, found = np.array(labels[0].right), np.array(labels[0].found)
    values = []
    for _ in range(200):
        chosen = draw.integers(60, size=60)
        average = name.removeprefix("f1_")
        values.append(f1_score(right[chosen], found[chosen], labels=LABELS, average=average, zero_division=0))
    low, high = np.percentile(values, [2.5, 97.5])
    score = f1_scores(labels[0])[name]
    assert (score.low, score.high) == pytest.approx((low, high), abs=0.05)


@pytest.mark.parametrize("name", F1)
def test_difference_of_f1_is_that_of_the_scores(name, labels):
    values = [f1_scores(one)[name].value for one in labels]
    assert f1_difference(*labels)[name].value == pytest.approx(values[0] - values[1])


def test_difference_of_a_model_to_itself_has_no_width(labels):
    difference = f1_difference(labels[0], labels[0])["f1_macro"]
    assert (difference.low, difference.high) == (0, 0)


def test_labels_of_other_items_cannot_be_paired(labels):
    with pytest.raises(DataError, match=r"labels of two models belong to other items"):
        f1_difference(labels[0], replace(labels[1], right=labels[1].found))


def test_standard_error_of_a_mean_is_lm_evals():
    from lm_eval.api.metrics import mean_stderr

    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert mean_score(values).standard_error == pytest.approx(mean_stderr(values))


def test_single_item_has_no_standard_error():
    assert mean_score([1.0]).record(*SCORE)["standard_error"] is None


@pytest.mark.parametrize(
    ("low", "high", "higher", "expected"),
    [
        (0.1, 0.2, True, "better"),
        (0.1, 0.2, False, "worse"),
        (-0.2, -0.1, True, "worse"),
        (0.0, 0.2, True, "no difference shown"),
        (0.1, 0.2, None, "neither is better"),
    ],
)
def test_better_needs_an_interval_without_zero(low, high, higher, expected):
    assert in_words(Interval(0.1, low, high, 9), higher_is_better=higher) == expected
