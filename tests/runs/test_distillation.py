"""A trained model asks, a professional answers, the model learns: KnowledgeSG from end to end, offline and tiny."""

import json
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file

from fedloom import api
from fedloom.base.errors import CompletionError, ConfigError, DataError, FedloomError, RunError
from fedloom.completers.candidates import BuiltModel
from fedloom.completers.canned import Canned
from fedloom.completers.openai import OpenAIServer
from fedloom.contracts.evaluation import Completion
from fedloom.contracts.examples import chat
from fedloom.contracts.local_settings import LocalSettings
from fedloom.federated.alone import tuned_alone
from fedloom.models.causal_lm import CausalLM
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import read_run
from fedloom.synthesis.questioning import teaching
from fedloom.tasks.sft import Sft
from support.command import fedloom
from support.resuming import adapters, kill_and_resume, logs, run_to_the_end

pytestmark = pytest.mark.slow  # whole runs, each with a generator, a teacher and two tunings

TEACHER = {"name": "canned", "patterns": {".": "ask the doctor in northgate"}}
KNOWLEDGE = {
    "name": "knowledge",
    "questions": 8,
    "keep": 4,
    "max_question_tokens": 16,
    "max_answer_tokens": 8,
    "teacher": TEACHER,
    "local": {"steps": 2, "batch": 2},
}
TABLE = {
    "rounds": 1,
    "weighting": "uniform",
    "task": {"name": "sft", "learn": "all"},
    "data": {"name": "world", "n_clients": 2, "records": 10},
    "local": {"steps": 1, "batch": 4},
    "evaluation": {"holdout": 0.0, "limit": 2, "max_new_tokens": 4, "resamples": 20},
}
SEEDS = [{"instruction": f"What is sold in {town}?", "response": goods} for town, goods in (
    ("Tavik", "plums"), ("Lodz", "figs"), ("Orsk", "salt"), ("Bree", "wool"))]  # fmt: skip


def run_of(changes=None, **settings):
    return read_run(TABLE | {"refine": [KNOWLEDGE | settings]} | (changes or {}))


def ended(run, folder):
    run_to_the_end(run, folder)
    return folder


def folder_of(run_folder, round=1):
    return run_folder / "refined" / f"shared_{round:05d}_0_knowledge"


def lines(run_folder, round=1):
    return [json.loads(line) for line in (folder_of(run_folder, round) / "pairs.jsonl").read_text().splitlines()]


def told(run_folder):
    found = logs(run_folder)["metrics.jsonl"]
    return {line["name"]: line for line in found if line["phase"] == "refine"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody stopped."""
    return ended(run_of(), tmp_path_factory.mktemp("knowledge") / "whole")


@pytest.fixture
def seeds(tmp_path):
    """A file of public instructions with responses."""
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in SEEDS))
    return str(path)


# --------------------------------------------------------------------------------------------------- what is made


def test_every_question_is_accounted_for(whole):
    counts = {name.removeprefix("knowledge/"): line["total"] for name, line in told(whole).items()}
    rejected = [n for name, n in counts.items() if name.startswith("questions_rejected")]
    dropped = [n for name, n in counts.items() if name.startswith("answers_rejected")]
    assert counts["questions"] == 8 == len(lines(whole))
    assert counts["questions"] == sum(rejected) + counts["surplus"] + counts["answers"]
    assert counts["answers"] == sum(dropped) + counts["kept"] and 0 < counts["kept"] <= 4
    reasons = [line["reason"] for line in lines(whole)]
    assert reasons.count("") == counts["kept"] and reasons.count("surplus") == counts["surplus"]
    assert counts["question_tokens"] > 0


def test_a_record_tells_where_a_pair_comes_from(whole):
    kept = [line for line in lines(whole) if not line["reason"]]
    assert {line["response"] for line in kept} == {"ask the doctor in northgate"}
    assert all(line["instruction"] and line["prompt"].startswith("sha256:") for line in kept)
    assert all(line["question_filters"].keys() == {"form", "duplicate"} for line in kept)
    assert all(line["filters"].keys() == {"form"} for line in kept)


def test_the_generator_is_the_base_with_the_adapter_that_came(whole, tmp_path):
    unrefined = ended(run_of({"refine": []}), tmp_path / "unrefined")
    model = CausalLM.for_adapter(unrefined / "adapter").build(seed=0, device=torch.device("cpu"))
    received = BuiltModel(model=model, params=model.trainable, template=Sft().template)
    assert {line["generator"] for line in lines(whole)} == {received.identity()}
    before, after = (load_file(one / "adapter" / "adapter_model.safetensors") for one in (unrefined, whole))
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)


def test_the_base_may_ask_for_comparison(tmp_path):
    found = ended(run_of(generator="base"), tmp_path / "run")
    model = CausalLM().build(seed=0, device=torch.device("cpu"))
    base = BuiltModel(model=model, params=model.trainable, template=Sft().template)
    assert {line["generator"] for line in lines(found)} == {base.identity()}


def test_scores_before_refining_are_shown_beside_the_last(whole, monkeypatch, capsys):
    assert fedloom(monkeypatch, "show", whole) == 0
    shown = capsys.readouterr().out
    assert "before refining" in shown and "8 questions" in shown and "kept" in shown
    assert fedloom(monkeypatch, "show", whole, "--json") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert all(list(row)[2:5] == ["base", "tuned", "final"] for row in rows)


def test_how_much_questions_help_is_told_of_answers_alone(whole):
    found = told(whole)
    ifd, dropped = (found[f"knowledge/{name}"] for name in ("ifd", "ifd_dropped"))
    assert ifd["mean"] and ifd["total"] / ifd["weight"] != 1.0
    assert dropped["weight"] == found["knowledge/kept"]["total"]


def test_a_cycle_repeats_and_asks_with_the_model_of_its_round(tmp_path):
    found = ended(run_of({"rounds": 2, "refine_every": 1}), tmp_path / "run")
    generators = [{line["generator"] for line in lines(found, round)} for round in (1, 2)]
    assert generators[0] != generators[1]
    assert len(list((found / "refined").iterdir())) == 2


def test_drafts_and_answers_of_the_generator_ask_no_teacher(tmp_path, seeds, monkeypatch):
    written = "What is sold in Elst?\n##output\nrye, by the river"

    def answer(prompts, *_):
        for place, prompt in enumerate(prompts):
            yield place, Completion(written.replace("Elst", f"Elst {place}") if prompt else "")

    monkeypatch.setattr(BuiltModel, "opened", lambda self: nullcontext(answer))
    gone = {"name": "canned", "answers": {}}
    settings = {"questioner": "icl", "seeds": seeds, "teacher": gone, "question_filters": ["form"], "questions": 4}
    found = ended(run_of(answers="draft", **settings), tmp_path / "draft")
    assert {line["response"] for line in lines(found) if not line["reason"]} == {"rye, by the river"}
    assert all(len(line["examples"]) == 3 for line in lines(found))
    found = ended(run_of(answers="generator", **settings), tmp_path / "generator")
    assert all("##output" in line["response"] for line in lines(found))


def test_a_teachers_probabilities_are_learnt_besides_its_words(tmp_path):
    teacher = {"name": "model", "model": {"name": "causal_lm"}}
    hard, soft = (ended(run_of(teacher=teacher, soft=share), tmp_path / str(share)) for share in (0.0, 0.5))
    assert lines(hard) == lines(soft) and adapters(hard) != adapters(soft)
    assert told(soft)["knowledge/last_loss"]["total"] < told(hard)["knowledge/last_loss"]["total"]


def test_seeds_are_asked_as_they_stand(tmp_path, seeds):
    found = ended(run_of(questioner="seeds", seeds=seeds, questions=3, keep=3), tmp_path / "run")
    asked = {line["instruction"] for line in lines(found)}
    assert len(asked) == 3 and asked <= {row["instruction"] for row in SEEDS}
    assert {line["prompt"] for line in lines(found)} == {""}


# ------------------------------------------------------------------------------------------------------------- privacy


def private(**changes):
    return {"privacy": {"name": "gaussian", "noise_multiplier": 1.0, "epsilon": 0.0, "delta": 1e-3}} | changes


def test_what_is_stated_of_privacy_is_that_of_the_training(tmp_path):
    runs = [ended(run_of(private(**changes)), tmp_path / str(at)) for at, changes in enumerate(({}, {"refine": []}))]
    cards = [json.loads((folder / "privacy.json").read_text()) for folder in runs]
    assert cards[0] == cards[1]


def test_other_records_change_nothing_that_leaves_but_the_row(whole, tmp_path):
    other = ended(run_of({"data": TABLE["data"] | {"seed": 3}}), tmp_path / "other")

    def kinds(folder):
        left = logs(folder)["ledger.jsonl"]
        return [(line["client"], line["what"]) for line in left if line.get("bytes") is not None]

    assert kinds(whole) == kinds(other)
    lines_of = [line for line in logs(whole)["ledger.jsonl"] if not line["client"]]
    assert [line["what"] for line in lines_of] == ["nothing: the server refines (knowledge)"]
    assert lines_of[0]["bytes"] == 0 and lines_of[0]["download_bytes"] > 0


def owned(folder, goods):
    """The settings of data of two clients with eight records each, which are about those goods."""
    rows = [
        {
            "instruction": f"Who sells {goods} in town {at}?",
            "output": f"{goods} are sold by {at}",
            "owner": f"c{at % 2}",
        }
        for at in range(16)
    ]
    path = folder / f"{goods}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    test = folder / "test.jsonl"
    asked = [{"instruction": row["instruction"], "output": row["response"], "owner": "public"} for row in SEEDS]
    test.write_text("".join(json.dumps(row) + "\n" for row in asked))
    tags = {"client": "owner"}
    return {"data": {"name": "file", "path": str(path), "test_path": str(test), "form": "alpaca", "tags": tags}}


def test_whose_row_is_the_same_lets_out_the_same_whatever_the_records(tmp_path):
    """At a rate that moves nothing: what is generated is made of the row alone."""
    still = {"local": TABLE["local"] | {"lr": 1e-60}}
    one, other = (ended(run_of(still | owned(tmp_path, goods)), tmp_path / goods) for goods in ("plums", "wool"))
    names = {path.name for path in folder_of(one).iterdir() if path.suffix == ".jsonl"}
    assert {"pairs.jsonl", "questions.jsonl", "answers.jsonl"} <= names
    assert all((folder_of(one) / name).read_bytes() == (folder_of(other) / name).read_bytes() for name in names)
    assert adapters(one) == adapters(other)
    left = [[{**line, "train_loss": 0} for line in logs(folder)["ledger.jsonl"]] for folder in (one, other)]
    assert left[0] == left[1]


def test_of_a_private_run_the_ledger_is_the_same_whatever_the_records(tmp_path):
    folders = [ended(run_of(private() | owned(tmp_path, goods)), tmp_path / goods) for goods in ("plums", "wool")]
    ledgers = [logs(folder)["ledger.jsonl"] for folder in folders]
    assert ledgers[0] == ledgers[1] and not any("train_loss" in line for line in ledgers[0])


@pytest.mark.parametrize("clients", [1, 4])
def test_one_run_tells_all_of_it_for_one_owner_and_for_four(tmp_path, monkeypatch, capsys, clients):
    folder = ended(run_of(private() | {"data": TABLE["data"] | {"n_clients": clients}}), tmp_path / "run")
    assert fedloom(monkeypatch, "show", folder) == 0
    shown = capsys.readouterr().out
    for what in ("epsilon", "8 questions", "kept", "ifd", "ifd_dropped", "base", "before refining", "upload_bytes"):
        assert what in shown, what
    assert len({line["client"] for line in logs(folder)["ledger.jsonl"] if line["client"]}) == clients


def test_a_teacher_on_another_machine_is_refused_unless_it_is_allowed(tmp_path, monkeypatch):
    far = {"name": "openai", "url": "http://models.example/v1", "model": "judge", "key_variable": ""}
    with pytest.raises(ConfigError, match="answers on models"):
        run_of(teacher=far)
    answer = Canned(patterns={".": "north"})
    monkeypatch.setattr(OpenAIServer, "opened", lambda self: answer.opened())
    found = ended(run_of(teacher=far, allow_remote=True), tmp_path / "run")
    told = {line["what"]: line["bytes"] for line in logs(found)["ledger.jsonl"] if "server, " in line["what"]}
    asked = [json.loads(one) for one in (folder_of(found) / "answers.jsonl").read_text().splitlines()]
    sizes = {one["key"][:16]: sum(len(text.encode()) for _, text in one["prompt"]) for one in asked}
    assert told == {f"server, knowledge: prompt {key} to models.example": n for key, n in sizes.items()}
    assert len(told) == 4


def test_no_prompt_holds_a_private_record(tmp_path, seeds):
    """The server has no record to show: prompts are made of public seeds and of what the model wrote."""
    run = run_of(questioner="self_instruct", seeds=seeds, questions=4, keep=4, question_filters=[], filters=[])
    found = ended(run, tmp_path / "run")
    asked = [json.loads(line) for line in (folder_of(found) / "questions.jsonl").read_text().splitlines()]
    owned = [one.turns[0].text for part in prepare(run).division.train.values() for one in part]
    texts = [text for one in asked for _, text in one["prompt"]]
    assert len(texts) == 4 and not any(record in text for record in owned for text in texts)
    assert all(sum(row["instruction"] in text for row in SEEDS) == 3 for text in texts)


def test_files_of_another_run_change_nothing_and_its_own_folder_is_refused(whole, tmp_path, monkeypatch):
    """A7: they lie in the folder above and in the one that the run is started from."""
    here = tmp_path / "here"
    ended(run_of({"seed": 5}, questions=6), here)
    monkeypatch.chdir(here)
    mine = ended(run_of(), here / "mine")
    assert adapters(mine) == adapters(whole) != adapters(here)
    assert (logs(mine), lines(mine)) == (logs(whole), lines(whole))
    with pytest.raises(RunError, match=r"is not empty|already"):
        ended(run_of(), here)


# -------------------------------------------------------------------------------------------------------------- stops


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_killed_run_ends_as_if_it_had_not_been(whole, tmp_path, seed):
    kill_and_resume(run_of(), tmp_path / "killed", kills=10, longest_s=0.8, seed=seed)
    assert adapters(tmp_path / "killed") == adapters(whole) != {}
    assert logs(tmp_path / "killed") == logs(whole)
    for name in ("questions.jsonl", "answers.jsonl"):
        keys = [
            [json.loads(line)["key"] for line in (folder_of(one) / name).read_text().splitlines()]
            for one in (tmp_path / "killed", whole)
        ]
        assert sorted(keys[0]) == sorted(keys[1]) and len(set(keys[0])) == len(keys[0])
    assert lines(tmp_path / "killed") == lines(whole)


def test_a_teacher_that_is_gone_keeps_what_was_asked(tmp_path, openai_server):
    server = openai_server(Canned(patterns={".": "north"}), failures={2: "closed"})
    teacher = {"name": "openai", "url": server.url, "model": "judge", "retries": 0, "parallel": 1}
    run = run_of(teacher=teacher)
    with pytest.raises(CompletionError):
        run_to_the_end(run, tmp_path / "run")
    assert len((folder_of(tmp_path / "run") / "questions.jsonl").read_text().splitlines()) == 8
    kept = len((folder_of(tmp_path / "run") / "answers.jsonl").read_text().splitlines())
    list(api.resume(tmp_path / "run")[1])
    cost = json.loads((folder_of(tmp_path / "run") / "cost.json").read_text())
    assert kept >= 1 and cost["calls"] == 4 - kept and cost["cached"] == kept


@pytest.mark.parametrize("every", [0, 1])
def test_a_round_that_privacy_paid_for_is_refined_after_a_stop_and_not_made_again(tmp_path, openai_server, every):
    """With noise that nobody can draw again, the uses of a lost round would be spent and its row be gone."""
    server = openai_server(Canned(patterns={".": "north"}), failures={2: "closed"})
    teacher = {"name": "openai", "url": server.url, "model": "judge", "retries": 0, "parallel": 1}
    noise = {"name": "gaussian", "noise_multiplier": 1.0, "epsilon": 0.0, "delta": 1e-3, "noise": "system"}
    run = run_of({"privacy": noise, "rounds": 2, "refine_every": every}, teacher=teacher)
    with pytest.raises(CompletionError):
        run_to_the_end(run, tmp_path / "run")
    list(api.resume(tmp_path / "run")[1])
    found = logs(tmp_path / "run")["metrics.jsonl"]
    refined = [line["round"] for line in found if line["name"] == "knowledge/done"]
    assert refined == ([0, 1] if every else [1])
    assert [line["round"] for line in found if line["name"] == "train_loss"] == [0, 1]
    assert {line["phase"] for line in found} == {"base", "train", "tuned", "refine", "final"}
    uses = [line for line in logs(tmp_path / "run")["ledger.jsonl"] if line.get("uses")]
    assert max(line["uses"] for line in uses) == 2 and (tmp_path / "run" / "adapter").is_dir()


def test_a_teacher_over_its_budget_stops_before_it(tmp_path):
    with pytest.raises(CompletionError, match="budget of 3 requests"):
        run_to_the_end(run_of(max_requests=3), tmp_path / "run")
    assert len((folder_of(tmp_path / "run") / "answers.jsonl").read_text().splitlines()) == 3
    file = tmp_path / "run" / "run.toml"
    file.write_text(file.read_text().replace("max_requests = 3", "max_requests = 4"))
    list(api.resume(tmp_path / "run")[1])
    cost = json.loads((folder_of(tmp_path / "run") / "cost.json").read_text())
    assert (cost["calls"], cost["cached"]) == (1, 3)
    file.write_text(file.read_text().replace("questions = 8", "questions = 9"))
    (tmp_path / "run" / "report.md").unlink()
    with pytest.raises(RunError, match="Allowed is to raise max_requests"):
        list(api.resume(tmp_path / "run")[1])


def test_other_prompts_on_resume_are_refused(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('question = "Briefly: {question}"\n')
    run = run_of(teaching=str(own), max_requests=2)
    with pytest.raises(CompletionError):
        run_to_the_end(run, tmp_path / "run")
    own.write_text('question = "At length: {question}"\n')
    with pytest.raises(RunError, match="other files or prompts"):
        list(api.resume(tmp_path / "run")[1])


# ----------------------------------------------------------------------------------------------------------- bad input

BAD = {
    "samples": ({"samples": 2}, "answer_temperature"),
    "keep": ({"keep": 9}, "at most questions = 8"),
    "seeds": ({"questioner": "icl"}, "seeds: missing"),
    "shown": ({"shown": 2}, "seeds: missing"),
    "draft": ({"answers": "draft"}, "does not write"),
    "teaching": ({"teaching": "astrology"}, "allowed are finance, medicine, plain"),
    "questioner": ({"questioner": "guesses"}, "Known: free, icl"),
    "filter": ({"filters": ["guesses"]}, "no Filter called 'guesses'"),
    "questions": ({"questions": 0}, "questions"),
    "soft": ({"soft": 0.5}, "allowed is 0, or the teacher 'model'"),
    "agreement": ({"filters": ["form", "agreement"]}, "filters: 'agreement' looks at others"),
    "grounding": ({"filters": ["grounding"]}, "filters: 'grounding' looks at document"),
    "quality": ({"question_filters": ["quality"]}, "question_filters: 'quality' looks at response"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused_before_anything_is_loaded(name):
    settings, message = BAD[name]
    with pytest.raises(ConfigError, match=message):
        run_of(**settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": -1.0}, "epsilon"),
        ({"delta": 0.5}, "delta"),
        ({"epsilon": 0.0, "noise_multiplier": 0.0}, "epsilon"),
    ],
)
def test_budgets_that_promise_nothing_are_refused_with_one_line(tmp_path, monkeypatch, capsys, changes, message):
    file = tmp_path / "run.toml"
    told = "".join(f"{name} = {value}\n" for name, value in changes.items())
    file.write_text(f'weighting = "uniform"\n[privacy]\nname = "gaussian"\n{told}')
    assert fedloom(monkeypatch, "run", file, "--out", tmp_path / "run") == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.count("\n") == 0 and not (tmp_path / "run" / "checkpoint").exists()


def test_a_run_without_a_surviving_pair_says_what_became_of_them(tmp_path):
    with pytest.raises(DataError, match=r"left without a pair \(.*answers_rejected_no_pair 4"):
        run_to_the_end(run_of(teacher={"name": "canned", "patterns": {".": ""}}), tmp_path / "run")


@pytest.mark.parametrize("answer", ["", "garbage \x00\x01", "Это другой язык", "half a pair:"])
def test_whatever_a_teacher_says_is_kept_or_counted(tmp_path, answer):
    run = run_of(teacher={"name": "canned", "patterns": {"who|what": answer, ".": "plainly"}})
    found = ended(run, tmp_path / "run")
    assert sum(line["reason"] == "" for line in lines(found)) == told(found)["knowledge/kept"]["total"]


def test_too_few_seeds_are_refused(tmp_path, seeds):
    with pytest.raises(DataError, match="has 4 rows, 5 are shown"):
        prepare(run_of(shown=5, seeds=seeds))
    with pytest.raises(ConfigError, match="found 8, the seeds have 4"):
        prepare(run_of(questioner="seeds", seeds=seeds))


def test_seeds_that_are_measured_by_are_refused(tmp_path):
    question = prepare(run_of({"refine": []})).division.test[0]
    path = tmp_path / "seeds.jsonl"
    row = {"id": "s1", "instruction": question.turns[0].text, "response": question.reference}
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match="pool row 's1' and held-out example"):
        prepare(run_of(seeds=str(path)))


def test_parts_that_clients_keep_are_no_model_to_refine(tmp_path):
    with pytest.raises(ConfigError, match="allowed is share"):
        prepare(run_of({"share": "layers.0"}))
    with pytest.raises(ConfigError, match="the teacher has template 'alpaca', the task 'own'"):
        prepare(run_of(soft=0.5, teacher={"name": "model", "template": "alpaca"}))


def test_a_teacher_that_is_not_there_is_refused_before_anything_is_trained():
    with pytest.raises(FedloomError, match="nowhere"):
        prepare(run_of(teacher={"name": "model", "model": {"name": "causal_lm", "path": "/nowhere"}}))


# ------------------------------------------------------------------------------------------------- prompts, tuning


def test_a_question_is_put_as_its_domain_says():
    plain, medicine = teaching("plain"), teaching("medicine")
    assert [turn.text for turn in plain.prompt("Why {question}?")] == ["Why {question}?"]
    assert [turn.role for turn in medicine.prompt("Why?")] == ["system", "user"]
    assert plain.sha256 != medicine.sha256


def test_tuning_on_pairs_is_plain_gradient_descent(tmp_path):
    model, task = CausalLM(lora_rank=2).build(seed=0, device=torch.device("cpu")), Sft()
    examples = [chat("what is sold in tavik?", "plums"), chat("and in lodz?", "red figs")]
    local = LocalSettings(lr=0.1, steps=1, batch=2, optimiser="sgd", clip_norm=0.0)
    items = [task.encode(one, model) for one in examples]
    found, losses = tuned_alone(model, task, model.trainable, items, local, rounds=1, seed=0)
    own = {name: value.clone().requires_grad_() for name, value in model.trainable.items()}
    batch = task.collate([items], model)
    model.context.batch = batch
    loss = task.loss(model, own, batch)
    mean = loss.total_B.sum() / loss.weight_B.sum()
    expected = float(mean.detach())
    for (name, value), slope in zip(own.items(), torch.autograd.grad(mean, [*own.values()]), strict=True):
        assert torch.allclose(found[name], value.detach() - 0.1 * slope, atol=1e-6)
    assert losses[0].value == pytest.approx(expected, rel=1e-5)
    model.context.batch = None


def test_nothing_to_learn_from_is_refused(tmp_path):
    model = CausalLM(lora_rank=2).build(seed=0, device=torch.device("cpu"))
    task = Sft(max_length=3)
    items = [task.encode(chat("a long question that fills it all", "x"), model)]
    with pytest.raises(DataError, match=r"raise task\.max_length"):
        tuned_alone(model, task, model.trainable, items, LocalSettings(), rounds=1, seed=0)


# ------------------------------------------------------------------------------------------------- examples before


def test_answers_are_written_after_public_examples_and_losses_are_of_the_question_alone(tmp_path, seeds):
    plain, shown = (
        ended(
            run_of({"refine": [], "evaluation": TABLE["evaluation"] | {"limit": 20} | changes}),
            tmp_path / str(len(changes)),
        )
        for changes in ({}, {"shown": 3, "shown_from": seeds})
    )
    results = [logs(folder)["results.jsonl"] for folder in (plain, shown)]
    assert [one["prompt"] for one in results[0]] == [one["prompt"] for one in results[1]]
    losses = [[one["scores"]["loss"] for one in found] for found in results]
    assert losses[0] == losses[1]
    assert [one["prediction"] for one in results[0]] != [one["prediction"] for one in results[1]]
    ready = prepare(run_of({"refine": [], "evaluation": TABLE["evaluation"] | {"shown": 3, "shown_from": seeds}}))
    assert [turn.role for turn in ready.shown] == ["user", "assistant"] * 3


def test_examples_that_leave_no_room_are_refused_before_training(tmp_path, seeds):
    asked = TABLE["evaluation"] | {"shown": 3, "shown_from": seeds}
    run = run_of({"refine": [], "evaluation": asked, "task": {"name": "sft", "max_length": 40}})
    with pytest.raises(DataError, match=r"too long with 3 examples before them; show fewer, or raise task\.max_length"):
        run_to_the_end(run, tmp_path / "run")


def test_examples_that_are_not_there_are_refused(tmp_path, seeds):
    with pytest.raises(ConfigError, match="allowed are both or none"):
        run_of({"evaluation": TABLE["evaluation"] | {"shown": 2}})
    with pytest.raises(ConfigError, match=r"found 9, .* has 4 rows"):
        prepare(run_of({"evaluation": TABLE["evaluation"] | {"shown": 9, "shown_from": seeds}}))


def test_held_out_losses_are_of_answers_whatever_is_learnt():
    everything, answers = (
        prepare(run_of({"refine": [], "task": {"name": "sft", "learn": what}})) for what in ("all", "answers")
    )
    for one, other in zip(everything.held, answers.held, strict=True):
        assert [item.supervised_T.tolist() for item in one.items] == [i.supervised_T.tolist() for i in other.items]
    own, less = (ready.shards["c00"].items[0].supervised_T.sum() for ready in (everything, answers))
    assert own > less
