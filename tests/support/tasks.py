"""Tiny data for every closed-ended task, and task files of every kind of answer."""

import json

from fedloom.data.records import Record
from fedloom.lm_eval.harness import local_tasks, own_harness_task
from fedloom.lm_eval.local_data import local_data
from fedloom.lm_eval.shipped import HARNESS, own_task, own_tasks
from fedloom.lm_eval.task_file import read_task_file
from fedloom.world import World


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def world_rows(count):
    """Questions of the controlled world with the answers to the neighbouring ones as wrong options."""
    chosen = list(World(0).test("public"))[:count]
    answers = [example.reference for example in chosen]
    for i, example in enumerate(chosen):
        wrong = [answer for answer in answers[i + 1 :] + answers if answer != example.reference][:2]
        yield {"question": example.prompt[-1].text, "right": example.reference, "wrong": wrong}


def make_data(made):
    """Tiny data for every shipped task, and task files of each kind over the controlled world; returns the folder."""
    four = {f"ending{j}": str(j) for j in range(4)} | {"label": 2}
    empty = {"number": "", "date": {"day": "", "month": "", "year": ""}, "spans": []}
    validated = {name: [value] for name, value in (empty | {"number": "3"}).items()}
    rows = {
        "mmlu": [
            {"question": f"what is {i}", "choices": list("abcd"), "answer": i % 4, "subject": subject}
            for i, subject in enumerate(["anatomy", "virology", "anatomy", "anatomy"])
        ],
        "bbh": [{"input": f"not True {i}", "target": "False", "subset": "boolean_expressions"} for i in range(2)],
        "drop": [
            {"query_id": "1", "passage": "a b", "question": "c", "answer": empty | {"number": "2"}}
            | {"validated_answers": validated}
        ],
        "gsm8k": [{"question": f"what is {i} and 1", "answer": f"it is\n#### {i + 1}"} for i in range(2)],
        "math": [{"problem": "what is 1", "solution": "it is $\\boxed{1}$", "type": "Counting & Probability"}],
        "medqa": [{"sent1": "what is it", **four}],
        "medmcqa": [{"question": "what is it", "opa": "1", "opb": "2", "opc": "3", "opd": "4", "cop": 1}],
        "pubmedqa": [{"QUESTION": "is it", "CONTEXTS": ["a", "b"], "final_decision": "yes"}],
        "crass": [{"Premise": "a", "QCC": "b", "CorrectAnswer": "c", "Answer1": "d", "Answer2": "e"}] * 3,
        "humaneval": [
            {"prompt": f"def f(x):\n    return {i}\n\n#", "canonical_solution": "", "entry_point": "f"}
            | {"test": "def check(f):\n    assert f(0) == 1"}
            for i in range(2)
        ],
        "mbpp": [{"text": "add", "code": "x = 1", "test_list": ["assert 1", "assert True"]}],
        "tfns": [{"text": f"news {i}", "label": i % 3} for i in range(9)],
        "nwgi": [{"news": "it fell", "label": "mildly negative"}],
        "fpb": [{"sentence": f"news {i}", "label": i % 3} for i in range(8)],
        "fiqa_sa": [{"sentence": f"news {i}", "sentiment_score": i / 4 - 1} for i in range(9)],
        "choice": list(world_rows(12)),
        "text": [{"question": row["question"], "answer": row["right"]} for row in world_rows(12)],
        # The head of a program decides, the completion is a remark.
        "code": [{"head": f"x = {i % 2}", "tests": "assert x == 1"} for i in range(4)],
    }
    for name, lines in rows.items():
        write_lines(made / f"{name}.jsonl", lines)
    (made / "choice.toml").write_text(
        'name = "choice"\nversion = 3\nkind = "choice"\nshuffled = true\n'
        'prompt = "{question}\\n{options}\\nAnswer:"\noptions = ["{right}", "{wrong}"]\n'
    )
    (made / "text.yaml").write_text(
        "name: text\nversion: 1\nkind: text\nprompt: '{question}'\nanswer: answer\nmax_new_tokens: 24\n"
    )
    (made / "code.toml").write_text(
        'name = "code"\nversion = 1\nkind = "code"\nmax_new_tokens = 8\n'
        'prompt = "{head} #"\nprogram = "{head} #{completion}\\n{tests}"\n'
    )
    return made


def load(folder, name):
    data = local_data(folder, name)
    if name in HARNESS:
        return local_tasks(name, data, HARNESS[name])
    if name in own_tasks():
        return own_harness_task(own_task(name), data)
    file = next(path for ending in (".toml", ".yaml") if (path := folder / f"{name}{ending}").is_file())
    return own_harness_task(read_task_file(file), data)


def rows_of(*values):
    return [Record(f"row {i}", value) for i, value in enumerate(values)]
