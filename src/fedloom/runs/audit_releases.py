"""An audit of what is released, step by step: two lower bounds on epsilon by planted canaries, and what they can see.

The bound by many trials (`many_trials_bound`) takes the canaries of one or several trainings as independent trials,
which they are: each has a direction of its own, and noise is independent in each. The bound by one run
(`one_run_bound`) assumes nothing of the kind and is weaker. With the bound by texts (`audit`) these are three tests,
each at a third of 5 %, so that all together refute an honest statement once in twenty audits at most.

Its power is told beside: the least true epsilon at which four audits of five of this size would have refuted. A
statement that is wrong by less passes.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from fedloom.runs.audit_bounds import Shape, best_thresholds, guess_counts, least_leak, many_trials_bound, one_run_bound
from fedloom.runs.planted import Target, Trials, trials

__all__ = ["CONFIDENCE", "audit_releases"]

CONFIDENCE = 1 - 0.05 / 3
"""Of each of the three tests of an audit."""


def audit_releases(target: Target, *, n_trials: int, per_training: int, seed: int) -> dict[str, Any]:
    """Return what the releases of as many trainings as `n_trials` need give away, as JSON values."""
    per_training = min(per_training, n_trials)
    n_trainings = -(-n_trials // per_training)
    found = [trials(target, n_canaries=per_training, seed=seed + 1000 * repeat) for repeat in range(n_trainings)]
    first = max(found, key=lambda one: one.stated)
    scores_M, included_M = (
        np.concatenate(part) for part in zip(*((t.score_M, t.included_M) for t in found), strict=True)
    )
    shapes, delta = sum((Counter(one.shapes) for one in found), Counter()), max(one.delta for one in found)
    thresholds = best_thresholds(shapes, delta=delta, confidence=CONFIDENCE)
    many = many_trials_bound(scores_M, included_M, thresholds=thresholds, delta=delta, confidence=CONFIDENCE)
    one = one_run_bound(
        found[0].score_M, found[0].included_M, delta=delta, guesses=guess_counts(per_training), confidence=CONFIDENCE
    )
    return {
        "unit": target.work.plan.mechanism.covers().name,
        "trials": len(scores_M),
        "trainings": n_trainings,
        "stated": first.stated,
        "delta": delta,
        "uses": first.uses,
        "noise_multiplier": first.budget.noise_multiplier,
        "bounds": {"many trials": asdict(many), "one run": asdict(one)},
        "refuted": max(many.epsilon, one.epsilon) > first.stated,
        "power": _power(target, first, shapes, delta),
    }


def _power(target: Target, first: Trials, shapes: Mapping[Shape, int], delta: float) -> dict[str, float] | None:
    """Return the share of the noise at which the audit would have refuted, and the true epsilon with it."""
    budget = first.budget
    share = least_leak(shapes, stated=first.stated, delta=delta, confidence=CONFIDENCE)
    if not share:
        return None
    true = target.work.plan.mechanism.spent(
        replace(budget, noise_multiplier=share * budget.noise_multiplier), first.uses
    )
    return {"noise": share, "epsilon": next(iter(true.values()))}
