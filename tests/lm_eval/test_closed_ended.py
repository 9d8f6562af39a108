"""Closed-ended tasks: the numbers of lm-eval's own model, tasks as data, results in pairs, refusals."""

import json
import logging
import shutil
import socket
import sys
from dataclasses import replace

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedloom.base.errors import ConfigError, DataError, MissingFileError, RunError
from fedloom.base.plugin import lookup
from fedloom.contracts.examples import Turn
from fedloom.contracts.federated import Template
from fedloom.lm_eval import examine as examining
from fedloom.lm_eval.compare import compare_results
from fedloom.lm_eval.examine import Wanted, examine, read_items
from fedloom.lm_eval.harness import own_harness_task, quiet, set_shots
from fedloom.lm_eval.language_model import Scorer, harness_model
from fedloom.lm_eval.local_data import local_data
from fedloom.lm_eval.scores import F1
from fedloom.lm_eval.shipped import own_task
from fedloom.lm_eval.task_file import TaskFile
from fedloom.models.causal_lm import CausalLM
from fedloom.models.generation import prompt_tokens
from support.command import fedloom
from support.small_runs import write_run_file
from support.tasks import load, make_data, world_rows, write_lines

pytestmark = pytest.mark.slow  # lm-eval over whole tasks

NAMES = {"mmlu", "bbh", "drop", "crass", "humaneval", "mbpp", "gsm8k", "math"}
NAMES |= {"medqa", "medmcqa", "pubmedqa", "fpb", "fiqa_sa", "tfns", "nwgi"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """The embedded model with an adapter that changes it, and the folder of the same weights merged."""
    made = tmp_path_factory.mktemp("model")
    family = CausalLM(lora_rank=2, lora_alpha=2.0)
    model = family.build(seed=0, device=torch.device("cpu"))
    random = torch.Generator().manual_seed(7)
    params = {
        name: tensor + 0.22 * torch.randn(tensor.shape, generator=random) for name, tensor in model.trainable.items()
    }
    family.save(model, params, str(made / "adapter"))
    CausalLM.for_adapter(made / "adapter").write_merged(made / "merged")
    return model, params, made


@pytest.fixture(scope="module")
def ours(tuned):
    return Scorer(tuned[0], tuned[1], None, batch=4)


@pytest.fixture(scope="module")
def theirs(tuned):
    """lm-eval's own model over the merged weights."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    merged = AutoModelForCausalLM.from_pretrained(tuned[2] / "merged")
    merged.generation_config.max_new_tokens = None  # else transformers stops there whatever lm-eval asks for
    with quiet():
        return HFLM(
            pretrained=merged,
            tokenizer=AutoTokenizer.from_pretrained(tuned[2] / "merged"),
            device="cpu",
            batch_size=4,
        )


def requests(kind, *arguments):
    return [Instance(request_type=kind, doc={}, arguments=one, idx=0) for one in arguments]


def own(name="own"):
    return lookup(Template, name)()


# -------------------------------------------------------------------------------------------- equal to lm-eval's model


@pytest.fixture(scope="module")
def texts():
    return [row["question"] for row in world_rows(12)]


def likelihoods(ours, theirs, *pairs):
    asked = requests("loglikelihood", *pairs)
    with quiet():
        return harness_model(ours).loglikelihood(asked), theirs.loglikelihood(asked)


def test_log_likelihoods_equal_those_of_lm_eval(ours, theirs, texts):
    pairs = [(text, f" {end}") for text in texts for end in ("A", "the answer is A.", text[:9])]
    mine, hf = likelihoods(ours, theirs, *pairs)
    assert [one[0] for one in mine] == pytest.approx([one[0] for one in hf], abs=2e-4)


def test_greedy_flags_equal_those_of_lm_eval(ours, theirs, texts):
    contexts = [f"<|user|>{text}<|end|><|assistant|>" for text in texts]
    asked = requests("generate_until", *((context, {"until": [], "max_gen_toks": 3}) for context in contexts))
    answers = harness_model(ours).generate_until(asked)
    pairs = [pair for pair in zip(contexts, answers, strict=True) if pair[1]]
    mine, hf = likelihoods(ours, theirs, *pairs, *((text, " zebra") for text in texts))
    flags = [one[1] for one in mine]
    assert flags == [one[1] for one in hf] and True in flags and False in flags


def test_likelihood_without_a_context_equals_that_of_lm_eval(ours, theirs):
    mine, hf = likelihoods(ours, theirs, ("", "hello there"))
    assert mine[0][0] == pytest.approx(hf[0][0], abs=2e-4)


def test_likelihood_after_too_long_a_context_equals_that_of_lm_eval(ours, theirs, texts):
    mine, hf = likelihoods(ours, theirs, (" ".join(texts) * 5, " A b"))
    assert mine[0][0] == pytest.approx(hf[0][0], abs=2e-4)


def test_rolling_likelihoods_equal_those_of_lm_eval(ours, theirs, texts):
    asked = requests("loglikelihood_rolling", (texts[0],), (" ".join(texts) * 5,))
    with quiet():
        hf = theirs.loglikelihood_rolling(asked)
    assert harness_model(ours).loglikelihood_rolling(asked) == pytest.approx(hf, rel=1e-5)


def test_answers_equal_those_of_lm_eval(ours, theirs, texts):
    options = {"until": ["\n", "the"], "max_gen_toks": 20, "do_sample": False, "temperature": 0.0}
    asked = requests("generate_until", *((f"<|user|>{text}<|end|><|assistant|>", options) for text in texts))
    with quiet():
        hf = theirs.generate_until(asked)
    assert harness_model(ours).generate_until(asked) == hf and len(set(hf)) > 2


def test_prompt_in_the_tokenizers_template_equals_that_of_lm_eval(ours, theirs):
    talk = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))]
    assert harness_model(replace(ours, template=own())).apply_chat_template(talk) == theirs.apply_chat_template(talk)


def asked_of(lm, loaded, name, *, chat=False, shots=0):
    set_shots(loaded, shots, name)
    with quiet():
        return evaluate(
            lm=lm,
            task_dict={"tasks": loaded.tasks, "groups": {}, "group_map": {}},
            bootstrap_iters=0,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
        )


def both(name, folder, ours, theirs, *, chat):
    """What lm-eval found of our model and of its own, for one task."""
    scorer = replace(ours, template=own() if chat else None)
    lms = (harness_model(scorer), theirs)
    loaded = [load(folder, name) for _ in lms]
    if name == "gsm8k":  # 256 new tokens as it stands
        for one in loaded:
            one.tasks[name].set_config("generation_kwargs", {"max_gen_toks": 40}, update=True)
    return [asked_of(lm, one, name, chat=chat) for lm, one in zip(lms, loaded, strict=True)]


@pytest.fixture(
    scope="module", params=[("choice", "acc", True), ("text", "exact_match", True), ("code", "pass@1", False)]
)
def found(request, folder, ours, theirs):
    name, metric, chat = request.param
    mine, hf = both(name, folder, ours, theirs, chat=chat)
    return name, f"{metric},none", mine, hf


def test_scores_equal_lm_evals_own_for_the_same_weights(found):
    name, metric, mine, hf = found
    assert mine["results"][name][metric] == hf["results"][name][metric]


def test_items_equal_lm_evals_own_for_the_same_weights(found):
    name, metric, mine, hf = found
    values = [[one[metric.split(",")[0]] for one in found["samples"][name]] for found in (mine, hf)]
    assert values[0] == values[1]


def test_tasks_that_are_compared_have_right_and_wrong_answers(found):
    name, metric, mine, _ = found
    assert 0 < mine["results"][name][metric] < 1


@pytest.mark.parametrize(("name", "metric"), [("mmlu", "acc,none"), ("gsm8k", "exact_match,flexible-extract")])
def test_lm_evals_own_definitions_give_equal_scores(name, metric, folder, ours, theirs):
    mine, hf = both(name, folder, ours, theirs, chat=name == "mmlu")
    assert [one[metric] for one in mine["results"].values()] == [one[metric] for one in hf["results"].values()]


@pytest.mark.parametrize("template", ["own", "alpaca", "vicuna"])
def test_prompt_has_the_tokens_that_training_had(template, ours):
    scorer = replace(ours, template=own(template))
    turns = (Turn("user", "where is it?"),)
    text = scorer.prompt(turns).removesuffix(scorer.blank())
    encoded = harness_model(scorer).tok_encode(text)
    assert encoded == prompt_tokens(scorer.template, turns, ours.model.tokenizer)


def test_blank_before_an_answer_is_the_answers(ours):
    scorer = replace(ours, template=own("alpaca"))
    assert scorer.prompt((Turn("user", "a"),)).endswith("### Response: ")


def test_begun_answer_stands_behind_the_prompt(ours):
    scorer = replace(ours, template=own("alpaca"))
    assert scorer.prompt((Turn("user", "a"), Turn("assistant", "The"))).endswith("### Response: The")


@pytest.mark.parametrize("count", [7, 8, 9])
@pytest.mark.parametrize("kind", ["choice", "label"])
def test_each_item_is_scored_once_at_batch_4(kind, count, tmp_path, ours):
    write_lines(tmp_path / "tfns.jsonl", [{"text": f"news {i}", "label": i % 3} for i in range(count)])
    rows = [{"question": f"q {i}", "right": "a", "wrong": ["b", "c"]} for i in range(count)]
    write_lines(tmp_path / "t.jsonl", rows)
    file = TaskFile(
        name="t", version=1, kind="choice", prompt="{question}", options=("{right}", "{wrong}"), shuffled=True
    )
    data = local_data(tmp_path, "tfns" if kind == "label" else "t")
    loaded = own_harness_task(own_task("tfns") if kind == "label" else file, data)
    (found,) = asked_of(harness_model(ours), loaded, "t")["samples"].values()
    assert sorted(one["doc_id"] for one in found) == list(range(count))


def test_continuations_that_share_a_context_are_scored_as_alone(ours):
    pairs = [([5, 6, 7], [8]), ([5, 6, 7], [9]), ([5, 6], [7, 9]), ([5, 6, 7], [9, 4])]
    alone = [ours.likelihoods([pair])[0][0] for pair in pairs]
    assert [one[0] for one in ours.likelihoods(pairs)] == pytest.approx(alone, abs=1e-5)


def test_continuation_longer_than_the_context_is_refused(ours):
    with pytest.raises(DataError, match=r"an answer has 600 tokens, the model takes 512"):
        ours.likelihoods([([5], [6] * 600)])


def test_task_that_asks_for_more_than_the_context_is_refused(ours):
    asked = requests("generate_until", ("a", {"until": [], "max_gen_toks": 512}))
    with pytest.raises(ConfigError, match=r"asks for 512 new tokens, the model takes 512"):
        harness_model(ours).generate_until(asked)


def test_unknown_generation_option_is_refused(ours):
    with pytest.raises(ConfigError, match=r"generation option 'num_beams'; allowed are do_sample"):
        harness_model(ours).generate_until(requests("generate_until", ("a", {"num_beams": 4})))


def drawn(ours, temperature, *contexts):
    options = {"until": [], "max_gen_toks": 8, "do_sample": True, "temperature": temperature}
    asked = [(f"<|user|>{text}<|end|><|assistant|>", options) for text in contexts]
    return harness_model(ours).generate_until(requests("generate_until", *asked))


def test_repeated_requests_draw_different_answers(ours, texts):
    found = drawn(ours, 2.0, *[texts[0]] * 4)
    assert len(set(found)) > 1


def test_repeated_requests_draw_the_same_in_another_run(ours, texts):
    asked = [texts[0], texts[1], texts[0], texts[0]]
    assert drawn(ours, 2.0, *asked) == drawn(ours, 2.0, *asked)


def test_first_of_repeated_requests_draws_as_it_does_alone(ours, texts):
    assert drawn(ours, 2.0, texts[0], texts[0], texts[1])[::2] == drawn(ours, 2.0, *texts[:2])


def test_repeated_greedy_requests_are_answered_alike(ours, texts):
    assert len(set(drawn(ours, 0.0, *[texts[0]] * 3))) == 1


# ------------------------------------------------------------------------------------------------------ a whole session


def ask(scorer, out, *tasks, **changes):
    return examine(scorer, Wanted(tasks=tasks, **changes), out, report=lambda _: None)


@pytest.fixture(scope="module")
def results(folder, ours, tmp_path_factory):
    """One task per kind of answer, asked of the tuned model and of the untuned one."""
    made = tmp_path_factory.mktemp("results")
    tasks = (str(folder / "choice.toml"), str(folder / "text.yaml"), "tfns", str(folder / "code.toml"))
    for name, params in (("tuned", ours.params), ("base", ours.model.trainable)):
        scorer = replace(ours, params=params, template=own())
        ask(scorer, made / name, *tasks, data_dir=folder, allow_code=True)
    return made


def result(folder, task):
    return json.loads((folder / task / "result.json").read_text())


def test_result_states_version_data_and_definition(results):
    found = result(results / "tuned", "choice")
    assert found["version"] == "3" and len(found["data_sha256"]) == 64 and "sha256" in found["definition"]


def test_header_states_model_template_and_lm_eval(results):
    header = json.loads((results / "tuned" / "evaluation.json").read_text())
    assert "fedloom-embedded sha256:" in header["base"] and header["template"] == {"name": "own"} and header["lm_eval"]


def test_scores_have_error_and_interval(results):
    score = result(results / "base", "text")["scores"][0]
    assert score["low"] <= score["value"] <= score["high"] and score["n"] == 12 and score["standard_error"] >= 0


def test_labels_are_scored_by_accuracy_and_three_f1(results):
    names = [score["metric"] for score in result(results / "tuned", "tfns")["scores"]]
    assert names == ["acc", "unparsed", *F1]


def test_items_add_up_to_the_score(results):
    items = read_items(results / "base" / "code")
    value = next(s["value"] for s in result(results / "base", "code")["scores"] if s["metric"] == "pass@1")
    assert sum(item["scores"]["pass@1"] for item in items) / len(items) == value == 0.5


def test_better_model_is_called_better(results):
    found = {(r["task"], r["metric"]): r["verdict"] for r in compare_results(results / "base", results / "tuned")}
    assert found["text", "exact_match"] == "better"


def test_model_is_no_better_than_itself(results):
    found = compare_results(results / "base", results / "base")
    assert {(r["difference"], r["verdict"]) for r in found} == {(0.0, "no difference shown")}


def test_results_without_a_common_task_are_refused(results, tmp_path):
    with pytest.raises(MissingFileError, match=r"no finished task in common \(found choice, code, text, tfns\)"):
        compare_results(results / "base", tmp_path)


def test_results_over_other_questions_are_refused(results, folder, ours, tmp_path):
    ask(replace(ours, template=own()), tmp_path / "o", str(folder / "text.yaml"), data_dir=folder, limit=3)
    with pytest.raises(RunError, match=r"asked differently \(other questions\)"):
        compare_results(results / "base", tmp_path / "o")


def test_finished_task_is_not_asked_again(results, folder, ours, monkeypatch):
    monkeypatch.setattr(examining, "_ask", lambda *_: pytest.fail("asked again"))
    (found,) = ask(replace(ours, template=own()), results / "tuned", str(folder / "text.yaml"), data_dir=folder)
    assert found == result(results / "tuned", "text")


def test_results_of_another_model_are_refused(results, folder, ours):
    scorer = replace(ours, params=ours.model.trainable, template=own())
    with pytest.raises(RunError, match=r"holds results that differ in trained_sha256; choose another --out"):
        ask(scorer, results / "tuned", "tfns", data_dir=folder)


def test_results_on_other_data_are_refused(results, ours, tmp_path):
    write_lines(tmp_path / "tfns.jsonl", [{"text": "a", "label": 1}])
    with pytest.raises(RunError, match=r"is of another data_sha256; choose another --out"):
        ask(replace(ours, template=own()), results / "tuned", "tfns", data_dir=tmp_path)


def test_folder_of_something_else_is_refused(folder, ours):
    with pytest.raises(RunError, match=r"is not empty; give a new folder"):
        ask(ours, folder, "tfns", data_dir=folder)


def test_damaged_result_is_refused(results, folder, ours, tmp_path):
    (tmp_path / "tfns").mkdir()
    (tmp_path / "tfns" / "result.json").write_text("{")
    (tmp_path / "evaluation.json").write_text((results / "tuned" / "evaluation.json").read_text())
    with pytest.raises(RunError, match=r"result.json: is no JSON"):
        ask(replace(ours, template=own()), tmp_path, "tfns", data_dir=folder)


def test_damaged_items_are_refused(tmp_path):
    (tmp_path / "items.jsonl").write_text("{")
    with pytest.raises(RunError, match=r"items.jsonl: cannot be read"):
        read_items(tmp_path)


def test_result_that_is_no_record_is_refused(tmp_path):
    (tmp_path / "result.json").write_text("[]")
    with pytest.raises(RunError, match=r"result.json: is no record"):
        examining.read_result(tmp_path)


def test_interpreter_that_cannot_run_confined_is_refused(folder, ours, tmp_path, monkeypatch):
    monkeypatch.setattr(examining, "run_program", lambda *_, **__: "failed")
    with pytest.raises(ConfigError, match=r"an empty program does not run confined by"):
        ask(ours, tmp_path / "o", "humaneval", data_dir=folder, allow_code=True)


def test_solved_questions_of_a_task_without_any_are_refused(folder, ours, tmp_path):
    loaded = load(folder, "gsm8k")
    loaded.tasks["gsm8k"].set_config("num_fewshot", 0)
    with pytest.raises(ConfigError, match=r"--shots: found 2, task 'gsm8k' is defined without solved questions"):
        set_shots(loaded, 2, "gsm8k")


def test_interrupted_task_leaves_the_finished_ones(folder, ours, tmp_path, monkeypatch):
    monkeypatch.setattr("fedloom.lm_eval.harness.run_program", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ask(ours, tmp_path / "o", "tfns", str(folder / "code.toml"), data_dir=folder, allow_code=True)
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["evaluation.json", "tfns"]


def test_local_file_needs_no_network(folder, ours, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was tried"))
    (found,) = ask(ours, tmp_path / "o", "mmlu", data_dir=folder)
    assert found["n"] == 4


def test_contexts_that_were_cut_are_counted(ours, tmp_path):
    write_lines(tmp_path / "tfns.jsonl", [{"text": "long news " * n, "label": 1} for n in (1, 900, 900)])
    (found,) = ask(ours, tmp_path / "o", "tfns", data_dir=tmp_path)
    assert (found["contexts_cut"], found["n"]) == (2, 3)


def test_limit_takes_the_first_questions(folder, ours, tmp_path):
    (found,) = ask(ours, tmp_path / "o", "tfns", data_dir=folder, limit=2)
    assert [item["index"] for item in read_items(tmp_path / "o" / "tfns")] == [0, 1] and found["n"] == 2


def test_solved_questions_stand_before_the_question(folder, ours, tmp_path):
    write_lines(tmp_path / "tfns.jsonl", [{"text": "c", "label": 1}])
    write_lines(tmp_path / "tfns_shots.jsonl", [{"text": "a", "label": 1}, {"text": "b", "label": 2}])
    loaded = own_harness_task(own_task("tfns"), local_data(tmp_path, "tfns"))
    found = asked_of(harness_model(ours), loaded, "tfns", shots=2)
    text = found["samples"]["tfns"][0]["arguments"][0][0]
    assert [text.count(f"\n{word}") for word in ("a positive\n\n", "b neutral\n\n")] == [1, 1] and text.endswith("\nc")


# ------------------------------------------------------------------------------------------------------------- refusals


def test_missing_data_say_what_to_fetch_and_where_to_put_it(ours, tmp_path):
    match = (
        r"no .*/gsm8k.jsonl \(nor .json, .parquet, .csv\); fetch the split test of openai/gsm8k, .* columns question"
    )
    with pytest.raises(MissingFileError, match=match):
        ask(ours, tmp_path / "o", "gsm8k", data_dir=tmp_path)


def test_own_task_without_a_folder_of_data_says_what_to_fetch(ours, tmp_path):
    with pytest.raises(MissingFileError, match=r"no DIR/fpb.jsonl .* fetch all rows of financial_phrasebank"):
        ask(ours, tmp_path / "o", "fpb")


def test_missing_folder_of_data_is_refused(ours, tmp_path):
    with pytest.raises(MissingFileError, match=r"--data-dir .*: no such folder"):
        ask(ours, tmp_path / "o", "tfns", data_dir=tmp_path / "none")


def test_missing_column_is_named_with_its_row(ours, tmp_path):
    write_lines(tmp_path / "gsm8k.jsonl", [{"question": "a", "answer": "b"}, {"question": "a"}])
    with pytest.raises(DataError, match=r"gsm8k.jsonl.*2: no column 'answer', task 'gsm8k' needs question, answer"):
        ask(ours, tmp_path / "o", "gsm8k", data_dir=tmp_path)


def test_programs_are_not_run_unless_asked(folder, ours, tmp_path):
    with pytest.raises(ConfigError, match=r"runs programs that the model writes; allowed with --allow-code"):
        ask(ours, tmp_path / "o", "humaneval", data_dir=folder)


def test_refusal_of_one_task_leaves_nothing_asked(folder, ours, tmp_path):
    with pytest.raises(ConfigError):
        ask(ours, tmp_path / "o", "tfns", "humaneval", data_dir=folder)
    assert not (tmp_path / "o").exists()


def test_missing_lm_eval_names_the_extra(folder, ours, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ConfigError, match=r"pip install fedloom\[lm-eval\]"):
        ask(ours, tmp_path / "o", "tfns", data_dir=folder)


def test_task_named_twice_is_refused(folder, ours, tmp_path):
    with pytest.raises(ConfigError, match=r"task 'tfns' was named twice"):
        ask(ours, tmp_path / "o", "tfns", "tfns", data_dir=folder)


# ------------------------------------------------------------------------------------------------------------- commands


def test_command_prints_a_line_per_score(folder, tuned, tmp_path, monkeypatch, capsys):
    words = ("evaluate", "tasks", tuned[2] / "adapter", "tfns", "--data-dir", folder, "--out", tmp_path / "o")
    assert fedloom(monkeypatch, *words) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("acc", "unparsed", *F1)) and "[" in out


def test_command_prints_json(folder, monkeypatch, tmp_path, capsys):
    words = ("fedloom-embedded", "crass", "--data-dir", folder, "--out", tmp_path / "o", "--plain", "--json")
    fedloom(monkeypatch, "evaluate", "tasks", *words)
    assert json.loads(capsys.readouterr().out)[0]["task"] == "crass"


def test_command_without_a_task_lists_them(monkeypatch, capsys):
    fedloom(monkeypatch, "evaluate", "tasks", "fedloom-embedded")
    out = capsys.readouterr().out
    assert all(f"{name}: " in out for name in NAMES)


def test_command_compares_two_folders(results, monkeypatch, capsys):
    fedloom(monkeypatch, "evaluate", "compare", results / "base", results / "tuned", "--json")
    assert {record["task"] for record in json.loads(capsys.readouterr().out)} == {"choice", "text", "tfns", "code"}


def test_model_without_a_chat_template_is_told_of_plain(tuned, folder, monkeypatch, tmp_path, capsys):
    bare = shutil.copytree(tuned[2] / "merged", tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    fedloom(monkeypatch, "evaluate", "tasks", bare, "tfns", "--data-dir", folder, "--out", tmp_path / "o")
    assert "has no chat template" in (told := capsys.readouterr().err) and "--plain asks without" in told


def test_run_directory_is_asked_in_its_own_template(folder, tmp_path, monkeypatch):
    file = write_run_file(tmp_path, rounds=1)
    fedloom(monkeypatch, "run", file, "--quiet", "--out", tmp_path / "run")
    words = (
        "evaluate",
        "tasks",
        tmp_path / "run",
        folder / "choice.toml",
        "--data-dir",
        folder,
        "--out",
        tmp_path / "o",
    )
    assert fedloom(monkeypatch, *words) == 0
    assert json.loads((tmp_path / "o" / "evaluation.json").read_text())["template"] == {"name": "vicuna"}


def test_refusal_of_the_command_is_one_line_and_exit_code_2(monkeypatch, tmp_path, capsys):
    words = ("evaluate", "tasks", "fedloom-embedded", "fpb", "--out", tmp_path / "o")
    assert (fedloom(monkeypatch, *words), capsys.readouterr().err.count("\n")) == (2, 1)
