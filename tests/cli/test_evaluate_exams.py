"""`fedloom evaluate exam` as a user meets it, and the judge behind a real server with all its failures."""

import contextlib
import json
import sys

import pytest
import tomli_w

from fedloom.base import config
from fedloom.base.plugin import lookup
from fedloom.cli import main as cli
from fedloom.contracts.evaluation import Completer, Completion, Exam
from fedloom.judged.grading import Examination
from support.exam_files import AYA, SHIPPED, as_lines, write
from support.models import model_folder
from support.small_runs import write_records, write_run_file

pytestmark = pytest.mark.slow  # whole exams


def fedloom(*words):
    """Run the command line; return its exit code."""
    given = sys.argv
    sys.argv = ["fedloom", *map(str, words)]
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code or 0
    finally:
        sys.argv = given
    return 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run in the template 'vicuna'."""
    folder = tmp_path_factory.mktemp("exams")
    model_folder(folder / "model", max_position_embeddings=512)
    write_records(folder / "data.jsonl")
    assert fedloom("run", write_run_file(folder, rounds=1), "--quiet", "--out", folder / "run") == 0
    return folder / "run"


class Judge:
    """Grades by a function of the request."""

    def __init__(self, say=lambda _: "Fine. Grade: [[7]]"):
        self.say = say

    @contextlib.contextmanager
    def opened(self):
        yield lambda prompts, _: ((i, Completion(self.say(prompt[-1].text), 3, 9)) for i, prompt in enumerate(prompts))


def instructions(folder, count=6):
    records = [{"instruction": f"w{3 + index} w{4 + index}", "reference": f"w{index}"} for index in range(count)]
    return write(folder / "instructions.json", records)


def exam_file(folder, url="", *, judge=None, **table):
    judge = judge or {"name": "openai", "url": url, "model": "judge", "retries": 0, "parallel": 1}
    exams = table.pop("exams", None) or [{"name": "quality_judge", "path": instructions(folder), "max_new_tokens": 2}]
    written = {"exams": exams, "judge": judge, "resamples": 50, **table}
    path = folder / "exam.toml"
    path.write_text(tomli_w.dumps({key: value for key, value in written.items() if value != "none"}))
    return path


def record(out):
    return json.loads((out / "exam.json").read_text())


def overall(out, score, model="candidate"):
    return next(row for row in record(out)["scores"][model] if row["score"] == score and row["group"] == "")


# -------------------------------------------------------------------------------------------------------- a completer


def completer_file(folder, **table):
    path = folder / "served.toml"
    path.write_text(tomli_w.dumps({"completer": table}))
    return path


def test_a_served_model_is_examined_by_a_file_that_names_it(run, tmp_path, openai_server):
    served = completer_file(
        tmp_path, name="openai", url=openai_server(Judge(lambda _: "w4"), model="mine").url, model="mine"
    )
    file = exam_file(tmp_path, judge={"name": "canned", "patterns": {".": "Grade: [[8]]"}})
    assert fedloom("evaluate", "exam", served, file, "--out", tmp_path / "out", "--against", run) == 0
    assert (overall(tmp_path / "out", "quality")["value"], overall(tmp_path / "out", "quality")["n"]) == (8, 6)
    assert set(record(tmp_path / "out")["models"]) == {"candidate", "against"}


@pytest.mark.parametrize(
    ("table", "said"),
    [({"name": "opnai"}, "opnai"), ({"name": "openai", "url": "http://localhost/v1", "modle": "x"}, "modle")],
)
def test_a_completer_file_with_a_wrong_word_is_refused(tmp_path, capsys, table, said):
    file = exam_file(tmp_path, judge={"name": "canned", "patterns": {".": "Grade: [[8]]"}})
    assert fedloom("evaluate", "exam", completer_file(tmp_path, **table), file, "--out", tmp_path / "out") == 2
    told = capsys.readouterr().err.strip()
    assert said in told and "\n" not in told and not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------------- a server


def test_grades_come_from_the_server(run, tmp_path, openai_server):
    file = exam_file(tmp_path, openai_server(Judge()).url)
    assert fedloom("evaluate", "exam", run, file, "--out", tmp_path / "out", "--quiet") == 0
    assert (overall(tmp_path / "out", "quality")["value"], overall(tmp_path / "out", "quality")["n"]) == (7, 6)


def test_judge_that_fails_at_item_17_is_asked_34_times_more(run, tmp_path, openai_server, capsys):
    server, out = openai_server(Judge(), failures={17: "server_error"}), tmp_path / "out"
    exams = [{"name": "quality_judge", "path": instructions(tmp_path, 50), "max_new_tokens": 2}]
    file = exam_file(tmp_path, server.url, exams=exams)
    assert fedloom("evaluate", "exam", run, file, "--out", out) == 2
    assert "what was answered is kept" in capsys.readouterr().err
    assert fedloom("evaluate", "exam", run, file, "--out", out) == 0
    assert len(server.prompts) == 17 + 34


def test_resumed_examination_finds_what_an_unbroken_one_does(run, tmp_path, openai_server):
    server = openai_server(Judge(lambda text: f"[[{1 + len(text) % 10}]]"), failures={2: "closed"})
    exams = [{"name": "quality_judge", "path": instructions(tmp_path, 5), "max_new_tokens": 2}]
    file = exam_file(tmp_path, server.url, exams=exams)
    codes = [fedloom("evaluate", "exam", run, file, "--out", tmp_path / out) for out in ("broken", "broken", "whole")]
    assert codes == [2, 0, 0]
    for name in ("exam.json", "scores.jsonl", "report.md"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_garbage_verdicts_are_counted_and_not_scored(run, tmp_path, openai_server):
    said = iter(["[[8]]", "no grade at all", "[[6]]"])
    exams = [{"name": "quality_judge", "path": instructions(tmp_path, 3), "max_new_tokens": 2}]
    file = exam_file(tmp_path, openai_server(Judge(lambda _: next(said))).url, exams=exams)
    fedloom("evaluate", "exam", run, file, "--out", tmp_path / "out", "--quiet")
    assert overall(tmp_path / "out", "quality")["value"] == 7
    assert [record(tmp_path / "out")["exams"][0][key] for key in ("unparsed", "verdicts")] == [1, 3]


def test_judge_that_cannot_be_reached_is_one_line_and_keeps_the_answers(run, tmp_path, capsys):
    file, out = exam_file(tmp_path, "http://127.0.0.1:9/v1"), tmp_path / "out"
    assert fedloom("evaluate", "exam", run, file, "--out", out) == 2
    error = capsys.readouterr().err
    assert "cannot be reached" in error and error.count("\n") == 1
    assert len((out / "answers.jsonl").read_text().splitlines()) == 6 and not (out / "exam.json").exists()


@pytest.mark.parametrize("failure", ["filtered", "too_long"])
def test_verdict_that_is_refused_for_good_is_counted_and_paid_once(run, tmp_path, openai_server, failure, capsys):
    server, out = openai_server(Judge(), failures={2: failure}), tmp_path / "out"
    file = exam_file(tmp_path, server.url)
    assert fedloom("evaluate", "exam", run, file, "--out", out) == 0
    assert "1 answers or verdicts are unanswered" in capsys.readouterr().out.replace("\n", " ")
    assert [record(out)["exams"][0][key] for key in ("unanswered", "unparsed", "verdicts")] == [1, 0, 5]
    assert overall(out, "quality")["n"] == 5 and "1 answers or verdicts unanswered" in (out / "report.md").read_text()
    (out / "exam.json").unlink()
    assert fedloom("evaluate", "exam", run, file, "--out", out) == 0
    assert len(server.prompts) == 6


def test_question_longer_than_the_models_context_stops_nothing(run, tmp_path, openai_server):
    records = [{"instruction": "w3 w4"}, {"instruction": "w3 " * 600}]
    exams = [{"name": "quality_judge", "path": write(tmp_path / "q.json", records), "max_new_tokens": 2}]
    server, out = openai_server(Judge()), tmp_path / "out"
    assert fedloom("evaluate", "exam", run, exam_file(tmp_path, server.url, exams=exams), "--out", out, "--quiet") == 0
    assert (len(server.prompts), record(out)["exams"][0]["unanswered"], overall(out, "quality")["n"]) == (1, 1, 1)


def test_used_up_quota_is_told(run, tmp_path, openai_server, capsys):
    file = exam_file(tmp_path, openai_server(Judge(), failures=lambda _: "quota").url)
    assert fedloom("evaluate", "exam", run, file, "--out", tmp_path / "out") == 2
    assert "quota of this key is used up" in capsys.readouterr().err


def test_budget_ends_an_examination_that_a_larger_one_completes(run, tmp_path, openai_server, capsys):
    server, out = openai_server(Judge()), tmp_path / "out"
    file = exam_file(tmp_path, server.url)
    assert fedloom("evaluate", "exam", run, file, "budget.max_requests=2", "--out", out) == 2
    assert "budget of 2 requests" in capsys.readouterr().err
    assert fedloom("evaluate", "exam", run, file, "budget.max_requests=2", "--out", out) == 2
    assert "raise max_requests to go on" in capsys.readouterr().err and len(server.prompts) == 2
    assert fedloom("evaluate", "exam", run, file, "budget.max_requests=6", "--out", out) == 0
    assert len(server.prompts) == 6


def test_finished_examination_asks_nobody_again(run, tmp_path, openai_server):
    server = openai_server(Judge())
    exams = [{"name": "quality_judge", "path": instructions(tmp_path, 5), "max_new_tokens": 2}]
    file = exam_file(tmp_path, server.url, exams=exams)
    for _ in range(2):
        assert fedloom("evaluate", "exam", run, file, "--out", tmp_path / "out") == 0
    assert len(server.prompts) == 5


# ------------------------------------------------------------------------------------------------------------ all exams


JUDGE = {"name": "canned", "patterns": {"harmless": "[[harmless]]", "verdict": "[[A]]", ".": "Grade: [[6]]"}}
TWO_TURNS = {
    "name": "mt_bench",
    "path": str(SHIPPED / "two_turns.jsonl"),
    "references": str(SHIPPED / "two_turns_answers.jsonl"),
    "max_new_tokens": 2,
}


@pytest.fixture(scope="module")
def compared(run, tmp_path_factory):
    """The run against the model that it started from, over several exams and two seeds."""
    folder = tmp_path_factory.mktemp("compared")
    vicuna = [{"question_id": index, "text": f"w{index + 3}", "category": "generic"} for index in range(12)]
    exams = [
        TWO_TURNS,
        {"name": "vicuna", "path": write(folder / "v.jsonl", as_lines(vicuna)), "max_new_tokens": 2},
        {"name": "ref_judge", "path": write(folder / "aya.json", AYA), "max_new_tokens": 2},
        {"name": "pairwise", "of": {"name": "world_exam", "test": "entities", "per_task": 3, "max_new_tokens": 2}},
    ]
    path = folder / "exam.toml"
    path.write_text(tomli_w.dumps({"exams": exams, "judge": JUDGE, "seeds": [0, 1], "resamples": 50}))
    out = folder / "out"
    assert fedloom("evaluate", "exam", run, path, "--out", out, "--against", run / "adapter", "--quiet") == 0
    return out


def test_every_exam_has_scores(compared):
    assert {row["exam"] for row in record(compared)["scores"]["candidate"]} == {
        "mt_bench",
        "vicuna",
        "ref_judge",
        "pairwise",
    }


def test_mt_bench_has_a_row_for_each_category_and_turn(compared):
    rows = [row for row in record(compared)["scores"]["candidate"] if row["exam"] == "mt_bench"]
    assert len(rows) == 3 * (1 + 8)


def test_languages_have_a_mean_that_counts_them_alike(compared):
    groups = [row["group"] for row in record(compared)["scores"]["candidate"] if row["exam"] == "ref_judge"]
    assert groups == ["", "language: English", "language: Spanish", "mean over languages"]


def test_equal_models_win_half_of_their_games(compared):
    assert overall(compared, "win_rate")["value"] == 0.5


def test_one_model_against_itself_is_not_told_apart(compared):
    verdicts = {one["verdict"] for one in record(compared)["differences"] if one["n"] >= 10}
    assert verdicts == {"not told apart"}


def test_scores_are_written_for_both_models_and_seeds(compared):
    lines = [json.loads(line) for line in (compared / "scores.jsonl").read_text().splitlines()]
    mt_bench = [(line["model"], line["seed"]) for line in lines if line["set"] == "mt_bench"]
    assert {pair: mt_bench.count(pair) for pair in mt_bench} == {
        (model, seed): 40 for model in ("candidate", "against") for seed in (0, 1)
    }


def test_record_holds_hashes_versions_and_judge(compared):
    found = record(compared)
    assert "weights" in found["models"]["candidate"]["identity"] and found["judge"].startswith("canned sha256:")
    assert [one["version"] for one in found["exams"]] == [
        lookup(Exam, name).version for name in ("mt_bench", "vicuna", "ref_judge", "pairwise")
    ]
    assert all(len(one["questions_sha256"]) == 64 for one in found["exams"])


def test_few_questions_are_warned_of_in_the_report(compared):
    assert "mt_bench: 40 questions, fewer than 200" in (compared / "report.md").read_text()


def test_json_is_the_record(run, tmp_path, capsys):
    file = exam_file(tmp_path, judge=JUDGE)
    fedloom("evaluate", "exam", run, file, "--out", tmp_path / "out", "--json")
    assert json.loads(capsys.readouterr().out) == record(tmp_path / "out")


def test_quiet_prints_nothing(run, tmp_path, capsys):
    fedloom("evaluate", "exam", run, exam_file(tmp_path, judge=JUDGE), "--out", tmp_path / "out", "--quiet")
    assert capsys.readouterr().out == ""


def test_table_is_printed(run, tmp_path, capsys):
    fedloom("evaluate", "exam", run, exam_file(tmp_path, judge=JUDGE), "--out", tmp_path / "out")
    assert "6.000 [6.000, 6.000]" in capsys.readouterr().out


def test_embedded_model_judges_behind_a_server_and_its_talk_is_scored_nowhere(run, tmp_path, openai_server):
    exams = [{"name": "world_exam", "test": "talk", "per_task": 1, "max_new_tokens": 2}]
    server = openai_server(lookup(Completer, "model")())
    file = exam_file(tmp_path, server.url, exams=exams)
    assert fedloom("evaluate", "exam", run, file, "--out", tmp_path / "out", "--quiet") == 0
    assert {row["score"] for row in record(tmp_path / "out")["scores"]["candidate"]} == {"correct"}
    assert [record(tmp_path / "out")["exams"][0][key] for key in ("unparsed", "verdicts")] == [1, 1]


# ------------------------------------------------------------------------------------------------------------ templates


def test_template_of_the_run_is_used(compared):
    assert record(compared)["models"]["candidate"]["template"] == "vicuna"


def test_another_template_than_the_runs_is_refused(run, tmp_path, capsys):
    file = exam_file(tmp_path, judge=JUDGE, template="alpaca")
    assert fedloom("evaluate", "exam", run, file, "--out", tmp_path / "out") == 2
    assert "template: found {'name': 'alpaca'}, but" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_adapter_in_a_run_has_the_runs_template(run, tmp_path, capsys):
    file = exam_file(tmp_path, judge=JUDGE, template="alpaca")
    assert fedloom("evaluate", "exam", run / "adapter", file, "--out", tmp_path / "out") == 2
    assert "was trained with {'name': 'vicuna'}" in capsys.readouterr().err


def test_model_from_elsewhere_needs_a_template(run, tmp_path, capsys):
    file = exam_file(tmp_path, judge=JUDGE)
    assert fedloom("evaluate", "exam", run.parent / "model", file, "--out", tmp_path / "out") == 2
    assert "template: missing; " in capsys.readouterr().err


def test_model_from_elsewhere_is_examined_in_the_given_template(run, tmp_path):
    file = exam_file(tmp_path, judge=JUDGE, template="alpaca")
    assert fedloom("evaluate", "exam", run.parent / "model", file, "--out", tmp_path / "out", "--quiet") == 0
    assert record(tmp_path / "out")["models"]["candidate"]["template"] == "alpaca"


# ------------------------------------------------------------------------------------------------------------- refusals


def test_missing_reference_is_refused_before_anything_is_asked(run, tmp_path, capsys):
    path = write(tmp_path / "bare.json", [{"instruction": "w3"}])
    file = exam_file(tmp_path, judge=JUDGE, exams=[{"name": "ref_judge", "path": path}])
    assert fedloom("evaluate", "exam", run, file, "--out", tmp_path / "out") == 2
    assert "1 of 1 records have no reference" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_missing_judge_is_refused(run, tmp_path, capsys):
    file = exam_file(tmp_path, judge="none")
    assert fedloom("evaluate", "exam", run, file, "--out", tmp_path / "out") == 2
    assert "judge: missing, and the exam 'quality_judge' needs one" in capsys.readouterr().err


def test_missing_key_of_the_judge_is_refused_before_anything_is_asked(run, tmp_path, capsys):
    judge = {"name": "openai", "url": "http://127.0.0.1:9/v1", "model": "judge", "key_variable": "NO_SUCH_KEY"}
    assert fedloom("evaluate", "exam", run, exam_file(tmp_path, judge=judge), "--out", tmp_path / "out") == 2
    assert "no key in the environment variable NO_SUCH_KEY" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_comparison_without_against_is_refused(run, tmp_path, capsys):
    file = exam_file(tmp_path, judge=JUDGE, exams=[{"name": "pairwise"}])
    assert fedloom("evaluate", "exam", run, file, "--out", tmp_path / "out") == 2
    assert "pairwise: compares two models, found one" in capsys.readouterr().err


def test_unknown_exam_is_refused_by_its_path(run, tmp_path, capsys):
    file = exam_file(tmp_path, judge=JUDGE, exams=[{"name": "mt_bensh"}])
    assert fedloom("evaluate", "exam", run, file, "--out", tmp_path / "out") == 2
    assert "exams[0].name: no Exam called 'mt_bensh'. Did you mean 'mt_bench'?" in capsys.readouterr().err


def test_folder_without_a_model_is_refused(tmp_path, capsys):
    file = exam_file(tmp_path, judge=JUDGE)
    assert fedloom("evaluate", "exam", tmp_path, file, "--out", tmp_path / "out") == 2
    assert "neither a run directory with a result" in capsys.readouterr().err


def test_another_examination_is_not_written_over(run, tmp_path, capsys):
    out = tmp_path / "out"
    fedloom("evaluate", "exam", run, exam_file(tmp_path, judge=JUDGE), "--out", out, "--quiet")
    assert fedloom("evaluate", "exam", run, exam_file(tmp_path, judge=JUDGE), "resamples=60", "--out", out) == 2
    assert "holds a finished examination that differs in examination.resamples" in capsys.readouterr().err


def test_folder_of_something_else_is_not_written_into(run, tmp_path, capsys):
    file = exam_file(tmp_path, judge=JUDGE)
    assert fedloom("evaluate", "exam", run, file, "--out", tmp_path) == 2
    assert "exists and is not empty; choose another --out" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------- shipped files


FILES = sorted(SHIPPED.glob("*.toml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_file_is_an_examination(file):
    assert config.build(Examination, config.read_toml(file)).judge is not None


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_file_has_a_header(file):
    header = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert any("fedloom evaluate exam" in line for line in header) and any("Expected:" in line for line in header)


def test_shipped_examination_of_the_world_runs_without_a_network(tmp_path, monkeypatch):
    monkeypatch.chdir(SHIPPED.parents[1])
    fewer = 'exams=[{name = "world_exam", test = "talk", per_task = 20}]'
    words = [SHIPPED / "world.toml", "--out", tmp_path / "out", "--quiet", "resamples=50", fewer]
    assert fedloom("evaluate", "exam", "src/fedloom/embedded/model", *words) == 0
    assert overall(tmp_path / "out", "correct")["value"] > 0.8 and overall(tmp_path / "out", "grade")["value"] > 8
