"""Which round a run ends with: the best by a score of what clients hold out, and when no better one is waited for.

The questions that choose are never those that are reported: a run without a common test of its own is refused. What
has been chosen so far lies in the state, so that a run that goes on chooses as one that was never stopped.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from fedloom.base.errors import ConfigError
from fedloom.base.tree import Slots, Tree
from fedloom.contracts.federated import Plan
from fedloom.data.clients import Division
from fedloom.federated.rounds import State, ended

if TYPE_CHECKING:
    from fedloom.runs.tuning import TuningRun

__all__ = ["better_end", "chosen", "considered", "is_over", "refuse_unseen_choice"]

_PRIVATE = "private"
"""The slot in which a client's own numbers lie."""


def better_end(run: "TuningRun") -> int:
    """Return 1 if more of the score that chooses is better, -1 if less; 0 where the run does not know it."""
    if run.evaluation.choose_by == "loss":
        return -1
    ends = {metric.name: metric.higher_is_better for metric in run.evaluation.metrics}
    end = ends.get(run.evaluation.choose_by)
    return 0 if end is None else 1 if end else -1


def refuse_unseen_choice(run: "TuningRun", division: Division) -> None:
    """Refuse to choose a round by the questions that are reported, or by none."""
    if run.evaluation.choose_by and not (division.test and any(division.validation.values())):
        raise ConfigError(
            "evaluation.choose_by: rounds are chosen by what clients hold out, and what is chosen by is not reported; "
            "needed are held-out records (evaluation.holdout) and a common test beside them: data.test_path, or "
            "evaluation.absent."
        )


def considered(run: "TuningRun", state: State, means: Mapping[str, float]) -> State:
    """Return the state after an evaluation: with its own parameters as the best if no earlier ones score as well.

    Of a training without held-out examples the last round is kept.
    """
    name = f"validation/{run.evaluation.choose_by}"
    if not any(told.startswith("validation/") for told in means):  # a client alone that holds nothing out
        return state
    if name not in means:
        raise ConfigError(
            f"evaluation.choose_by: nothing that is held out has '{run.evaluation.choose_by}'; choose another."
        )
    score = means[name] * better_end(run)
    before, since = (float(state.best[name]) if state.best else math.nan for name in ("score", "since"))
    # Equal ones do not replace an earlier round; any number replaces none.
    if state.best and not (score > before or (math.isnan(before) and not math.isnan(score))):
        return replace(state, best={**state.best, "since": torch.tensor(since + 1)})
    own = {f"{_PRIVATE}/{client}": slots[_PRIVATE][""] for client, slots in state.memory.items() if _PRIVATE in slots}
    told = {"score": score, "since": 0.0, "round": float(state.round)}
    numbers = {name: torch.tensor(value, dtype=torch.float64) for name, value in told.items()}
    return replace(state, best={"params": state.params_P.clone(), **numbers, **own})


def is_over(run: "TuningRun", plan: Plan, state: State) -> bool:
    """Return whether no round is left, or no better one is waited for any more."""
    patience = run.evaluation.patience
    return ended(plan, state) or bool(patience and state.best and float(state.best["since"]) >= patience)


def chosen(state: State) -> tuple[State, int]:
    """Return the state with the parameters of the best round, and its number, from 1 on; 0 where none was chosen."""
    if not state.best:
        return state, 0
    memory = {client: _with_best(client, slots, state.best) for client, slots in state.memory.items()}
    return replace(state, params_P=state.best["params"], memory=memory), int(state.best["round"])


def _with_best(client: str, slots: Slots, best: Tree) -> Slots:
    own = best.get(f"{_PRIVATE}/{client}")
    # Who had not trained by then has the private part that all begin with, as in that round.
    return {name: tree for name, tree in slots.items() if name != _PRIVATE} | (
        {_PRIVATE: {"": own}} if own is not None else {}
    )
