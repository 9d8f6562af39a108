"""Answers of several runs to the same questions, side by side: what scores are about, to be read."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedloom.base.errors import RunError
from fedloom.base.rng import python_random
from fedloom.evaluation.held_out import Scored
from fedloom.results.outcome import Outcome
from fedloom.results.show import Comparison

__all__ = ["answer_lines", "answers_of", "side_by_side"]


def side_by_side(compared: Comparison, count: int) -> list[dict[str, Any]]:
    """Return questions of the common test, drawn from it, with the reference and what each model answered.

    Of several seeds the first one answers; where clients have models of their own one of them does, drawn too and
    named, but not that of whose question it is. Raises RunError where there is no common test, no answers or no text
    of them.
    """
    return answers_of({label: next(iter(seeds.values())) for label, seeds in compared.groups.items()}, count)


def answers_of(first: Mapping[str, Outcome], count: int) -> list[dict[str, Any]]:
    """Return `side_by_side` of runs by what they are called."""
    told = {label: _answers(run.results["final"], run.path) for label, run in first.items()}
    run = next(iter(first.values()))
    told = {"base": _answers(run.results["base"], run.path)} | told
    common = sorted(set.intersection(*({*answers} for answers in told.values())))
    if not common:
        raise RunError(f"{run.path}: the runs answer no question in common; compare runs with one test set.")
    chosen = sorted(python_random("answers side by side").sample(common, min(count, len(common))))
    return [_question({label: answers[at] for label, answers in told.items()}) for at in chosen]


def _answers(results: Sequence[Scored], path: str) -> Mapping[int, Sequence[Scored]]:
    """Return by question the answers of models that are not of the question's own client."""
    found: dict[int, list[Scored]] = {}
    for one in results:
        if one.set == "test" and one.prompt and (not one.owner or one.owner != one.tags.get("client")):
            found.setdefault(one.index, []).append(one)
    if any(one.prompt.startswith("sha256:") for told in found.values() for one in told):
        raise RunError(f"{path}: holds hashes for texts; allowed are runs with evaluation.keep_text = true.")
    if not found:
        raise RunError(
            f"{path}: no answers to a common test; give the data a test file whose records have no tag 'client', for "
            "texts of clients are not written down, and set evaluation.metrics."
        )
    return found


def _question(answers: Mapping[str, Sequence[Scored]]) -> dict[str, Any]:
    one = answers["base"][0]
    said: dict[str, str] = {}
    for label, told in answers.items():
        drawn = python_random("answers side by side", label, one.index).choice(told)
        said[f"{label} ({drawn.owner})" if drawn.owner else label] = drawn.prediction
    return {"index": one.index, "question": one.prompt, "reference": one.reference, "answers": said}


def answer_lines(questions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the questions and answers as lines, each on one."""
    lines: list[str] = []
    for one in questions:
        lines += ["", f"question {one['index']}: {_on_one(one['question'])}"]
        said = {"reference": one["reference"], **one["answers"]}
        lines += [f"  {name}: {_on_one(text)}" for name, text in said.items()]
    return lines


def _on_one(text: str) -> str:
    return " ".join(text.split()) or "(nothing)"
