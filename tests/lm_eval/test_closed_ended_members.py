"""Local rows for lm-eval's groups, tags and single tasks: whose a row is, and what is refused in one line."""

import sys
from types import SimpleNamespace

import pytest

from fedloom.base.errors import ConfigError, DataError, FedloomError, UnknownNameError
from fedloom.cli import main as cli
from fedloom.lm_eval import examine as examining
from fedloom.lm_eval import harness
from fedloom.lm_eval.harness import check_name, local_tasks
from fedloom.lm_eval.libraries import libraries
from fedloom.lm_eval.local_data import LocalData
from fedloom.lm_eval.members import leaves_of, rows_by_member
from support.tasks import rows_of, write_lines

pytestmark = pytest.mark.slow  # lm-eval over whole tasks

SPLIT = {"dataset_path": "p", "test_split": "test"}


def data(*rows, shots=()):
    return LocalData(rows_of(*rows), rows_of(*shots), "")


def assigned(members, *rows, **more):
    """The questions' marks that each member got."""
    found = rows_by_member("g", data(*rows, **more), "subset", members)
    return {leaf: [record.values["q"] for record in part.questions] for leaf, part in found.items()}


def index(**entries):
    """An index as lm-eval makes it: a list is a group, a set a tag, anything else a task's settings."""
    kinds = {list: "GROUP", set: "TAG"}
    return {
        name: SimpleNamespace(
            name=name,
            kind=SimpleNamespace(name=kinds.get(type(value), "TASK")),
            cfg={"task": value} if isinstance(value, list) else value,
            tags=value,
        )
        for name, value in entries.items()
    }


# ------------------------------------------------------------------------------------------------------- all of lm-eval


@pytest.fixture(scope="module")
def everything():
    """lm-eval's own index; reading it takes most of this file's time."""
    return harness._manager("").task_index


def local_attempt(name, row):
    try:
        local_tasks(name, data(row), None)
    except FedloomError as error:
        return str(error)
    return "loaded"


@pytest.mark.slow
@pytest.mark.parametrize("row", [{"question": "q", "answer": "a"}, {"subset": "", "question": "q", "answer": "a"}])
def test_every_twentieth_group_and_tag_loads_or_is_refused_in_one_line(everything, row):
    names = sorted(name for name, entry in everything.items() if entry.kind.name in ("GROUP", "TAG"))[::20]
    told = {}
    for name in names:
        try:
            leaf = leaves_of(everything, name)[-1]
        except ConfigError as error:
            told[name] = str(error)
            continue
        told[name] = local_attempt(name, row | {"subset": leaf} if "subset" in row else row)
    assert len(told) > 70 and not [name for name, text in told.items() if "\n" in text]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmlu_pro", "multimedqa", "leaderboard", "anli", "lambada", "pythia"])
def test_group_without_dataset_names_is_asked_for_its_members(name, everything):
    with pytest.raises(DataError, match=rf"row 0: no column 'subset'. .* '{name}' .*, allowed are .* one by one"):
        local_tasks(name, data({"question": "q"}), None)


def test_group_that_defines_its_members_itself_is_refused(everything):
    with pytest.raises(ConfigError, match=r"'flan_held_in': lm-eval's group defines its members itself \(found anli"):
        local_tasks("flan_held_in", data({"question": "q"}), None)


def test_rows_of_a_shared_dataset_name_go_to_every_member_of_truthfulqa():
    entries = harness._manager("truthfulqa").task_index
    members = {leaf: entries[leaf].cfg for leaf in leaves_of(entries, "truthfulqa")}
    found = assigned(members, {"subset": "multiple_choice", "q": 1}, {"subset": "generation", "q": 2})
    assert found == {"truthfulqa_gen": [2], "truthfulqa_mc1": [1], "truthfulqa_mc2": [1]}


@pytest.mark.parametrize("name", ["squadv2", "fda"])
def test_task_by_a_python_class_is_refused_by_name(name, everything):
    with pytest.raises(ConfigError, match=rf"task '{name}': lm-eval defines it by a Python class"):
        check_name(name)


@pytest.mark.parametrize(("name", "near"), [("gsm9k", "gsm8k"), ("fiqa_saa", "fiqa_sa")])
def test_unknown_name_is_told_before_missing_data(name, near, everything, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(examining, "_header", lambda *_: {})
    words = ("evaluate", "tasks", "fedloom-embedded", name, "--data-dir", str(tmp_path), "--out", str(tmp_path / "o"))
    monkeypatch.setattr(sys, "argv", ["fedloom", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr().err
    assert (ended.value.code, told.count("\n")) == (2, 1)
    assert f"no task '{name}' in lm-eval. Did you mean '{near}'" in told


def test_unknown_name_is_an_unknown_name(everything):
    with pytest.raises(UnknownNameError):
        check_name("gsm9k")


# ------------------------------------------------------------------------------------------------------- whose a row is


def test_row_goes_by_the_name_of_a_member():
    found = assigned({"a_x": SPLIT, "a_y": SPLIT}, {"subset": "a_y", "q": 1}, {"subset": "A X", "q": 2})
    assert found == {"a_x": [2], "a_y": [1]}


def test_dataset_name_with_capitals_is_found():
    members = {"easy": SPLIT | {"dataset_name": "ARC-Easy"}, "hard": SPLIT | {"dataset_name": "ARC-Challenge"}}
    assert assigned(members, {"subset": "ARC-Easy", "q": 1}) == {"easy": [1]}


def test_members_that_differ_in_case_are_told_apart():
    assert assigned({"a": SPLIT, "A": SPLIT}, {"subset": "A", "q": 1}) == {"A": [1]}


def test_name_of_a_member_goes_before_a_dataset_name():
    members = {"a": SPLIT, "b": SPLIT | {"dataset_name": "a"}}
    assert assigned(members, {"subset": "a", "q": 1}) == {"a": [1]}


@pytest.mark.parametrize("value", [["a"], {"a": 1}, 3])
def test_member_that_is_no_text_is_refused(value):
    with pytest.raises(DataError, match=r"row 0: subset: found .* It names the member of 'g'"):
        assigned({"a": SPLIT, "b": SPLIT}, {"subset": value, "q": 1})


@pytest.mark.parametrize("change", [{"dataset_path": "other"}, {"test_split": "other"}])
def test_dataset_name_of_different_data_is_refused_with_its_members(change):
    members = {"a": SPLIT | {"dataset_name": "d"}, "b": SPLIT | {"dataset_name": "d"} | change}
    with pytest.raises(DataError, match=r"row 0: subset: found 'd', by which lm-eval knows different data, of a, b"):
        assigned(members, {"subset": "d", "q": 1})


def test_solved_questions_go_to_the_same_member():
    found = rows_by_member("g", data({"subset": "a"}, shots=({"subset": "a"},)), "subset", {"a": SPLIT, "b": SPLIT})
    assert {leaf: len(part.shots) for leaf, part in found.items()} == {"a": 1}


def test_row_without_a_member_is_told_the_first_ones():
    members = {f"m{i}": SPLIT for i in range(9)}
    with pytest.raises(DataError, match=r"no column 'subset'. .*allowed are m0, m1, m2, m3, m4 and 4 more; name it in"):
        assigned(members, {"q": 1})


def test_row_of_an_unknown_member_is_told_the_nearest():
    with pytest.raises(
        DataError, match=r"subset: found 'anatomi'. Did you mean 'anatomy'\? It names the member of 'g'"
    ):
        assigned({"anatomy": SPLIT, "virology": SPLIT}, {"subset": "anatomi", "q": 1})


# -------------------------------------------------------------------------------------------------------------- members


@pytest.mark.parametrize(
    "children",
    [
        ["a", "b"],
        [{"task": "a", "task_alias": "x"}, {"group": "new", "task": ["b", "a"]}],
        ["tag"],
        [{"group": "inner", "task": ["a"]}],
        [{"task": "a", "num_fewshot": 3}, "b"],
    ],
)
def test_members_of_a_group_are_found(children):
    known = index(a={}, b={}, tag={"a", "b"}, inner=["a", "b"], g=children)
    assert leaves_of(known, "g") == ["a", "b"]


@pytest.mark.parametrize(
    "children",
    [
        [],
        [{"dataset_path": "p"}],
        [{"task": "c"}],
        ["g"],
        [{"task": "a", "doc_to_text": "x"}, {"task": "a", "doc_to_text": "y"}],
    ],
)
def test_group_without_members_by_name_is_refused(children):
    with pytest.raises(ConfigError, match=r"task 'g': lm-eval's group defines its members itself"):
        leaves_of(index(a={}, g=children), "g")


# ------------------------------------------------------------------------------------------------------------ libraries


def fails(error):
    with libraries("t"):
        raise error


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("immutabledict", r"needs the library 'immutabledict', .*; pip install 'lm-eval\[ifeval\]' or immutabledict"),
        ("antlr4.error", r"needs the library 'antlr4', .*pip install 'lm-eval\[math\]' or antlr4-python3-runtime"),
        ("no_such_library", r"task 't' needs the library 'no_such_library', .*; pip install no_such_library\."),
    ],
)
def test_missing_library_is_named_with_how_to_get_it(module, told, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)  # whether or not it is installed here
    with pytest.raises(ConfigError, match=told):
        fails(ModuleNotFoundError("gone", name=module))


def test_missing_library_is_found_behind_an_error_without_its_name(monkeypatch):
    outer = ImportError("please install it")
    outer.__cause__ = ModuleNotFoundError("gone", name="no_such_library")
    with pytest.raises(ConfigError, match=r"needs the library 'no_such_library'"):
        fails(outer)


def test_error_without_a_library_is_told_in_its_words():
    with pytest.raises(ConfigError, match=r"needs a library that cannot be imported \(please install it\)"):
        fails(ImportError("please\ninstall it"))


def test_library_of_another_version_is_told():
    with pytest.raises(ConfigError, match=r"needs another version of the library 'json' \(cannot import 'x'\)"):
        fails(ImportError("cannot import 'x'", name="json"))


@pytest.mark.parametrize("name", ["ifeval", "minerva_math_algebra"])
def test_task_that_lacks_a_library_is_refused(name, everything, monkeypatch):
    monkeypatch.setitem(sys.modules, "immutabledict", None)
    monkeypatch.setitem(sys.modules, "antlr4", None)
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(ConfigError, match=rf"task '{name}' needs the library '"):
        local_tasks(name, data({"prompt": "q", "problem": "p", "solution": "s"}), None)


def test_option_out_of_range_is_told_with_its_value(monkeypatch, tmp_path, capsys):
    write_lines(tmp_path / "tfns.jsonl", [{"text": "a", "label": 1}])
    monkeypatch.setattr(sys, "argv", ["fedloom", "evaluate", "tasks", "fedloom-embedded", "tfns", "--limit", "0"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "Invalid value for '--limit'" in capsys.readouterr().err
