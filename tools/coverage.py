"""How often the intervals of the package hold the true value, and how often its verdicts err: by simulation.

    python tools/coverage.py [--out runs/coverage] [--replicates 500] [--only WORD]

Answers are drawn from a population in which facts, clients, trainings and wordings differ, all of it known; what the
package says of a sample is compared with the truth. An interval of 95 % should hold it in 95 % of the samples, and a
verdict at a true difference of 0 should be given in at most 5 %. Every line is kept in DIR, and the same command goes
on where it was stopped. Exit code 0: every line is within its tolerance; 1: one is not.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fedloom.base import rng
from fedloom.base.mean import Mean
from fedloom.benchmark.claims import decide
from fedloom.benchmark.ranking import pair_rows, rank_rows
from fedloom.benchmark.stated import Claim
from fedloom.benchmark.suite import Suite, SuiteOutcome
from fedloom.benchmark.summary import client_rows
from fedloom.contracts.evaluation import Answered, Question
from fedloom.evaluation.held_out import Scored
from fedloom.evaluation.repetitions import Repetition, mean_interval
from fedloom.evaluation.statistics import Interval, ScoreTable, bootstrap, sign_flip
from fedloom.judged.grading import Graded, differences, rows
from fedloom.lm_eval.scores import Labels, f1_difference, f1_scores, mean_difference, mean_score
from fedloom.results.outcome import Outcome

Array = NDArray[np.float64]
Random = np.random.Generator

RESAMPLES = 400
LEAST_COVERED, MOST_WRONG = 0.92, 0.08
"""Three standard errors of 500 samples from 0.95, and from 0.05."""


@dataclass(frozen=True)
class Population:
    """Standard deviations of what answers have in common, beside the noise of each, which is 1."""

    fact: float = 1.5
    """Of a fact, for all models alike; 1.5 makes wordings of a fact agree about as in the embedded model."""
    own: float = 0.8
    """Of a fact, for one method."""
    client: float = 0.5
    """Of a client's model, for one method."""
    seed: float = 0.3
    """Of a training, on all questions."""
    training: float = 0.5
    """Of a training, on one fact."""

    def threshold(self, share: float) -> float:
        """Return what answers have to pass to be right in that share of the population."""
        spread = math.sqrt(1 + self.fact**2 + self.own**2 + self.client**2 + self.seed**2 + self.training**2)
        return NormalDist(0, spread).inv_cdf(1 - share)

    def draw(
        self,
        random: Random,
        *,
        methods: int = 1,
        seeds: int = 1,
        clients: int = 1,
        facts: int = 60,
        wordings: int = 3,
        fresh: bool = False,
    ) -> Array:
        """Return answers [M, S, C, K, W]; `fresh`: each seed asks of facts, and has clients, of its own."""
        count = seeds if fresh else 1
        return (
            self.fact * random.normal(size=(1, count, 1, facts, 1))
            + self.own * random.normal(size=(methods, count, 1, facts, 1))
            + self.client * random.normal(size=(methods, count, clients, 1, 1))
            + self.seed * random.normal(size=(methods, seeds, 1, 1, 1))
            + self.training * random.normal(size=(methods, seeds, 1, facts, 1))
            + random.normal(size=(methods, seeds, clients, facts, wordings))
        )


def sampled(*, seeds: int = 1, clients: int = 1) -> Population:
    """Return the population whose mean such a sample is about.

    One training says nothing of another one, and one model is no sample of clients: what these have of their own is
    then part of what is measured.
    """
    return replace(Population(), seed=0.3 * (seeds > 1), client=0.5 * (clients > 1))


def table(answers_CKW: Array, threshold: float | None = None) -> ScoreTable:
    """Return the answers of C models to K facts in W wordings, right or wrong if a threshold is given."""
    n_clients, n_facts, n_wordings = answers_CKW.shape
    total_CN = answers_CKW.reshape(n_clients, -1)
    total_CN = total_CN if threshold is None else (total_CN > threshold).astype(np.float64)
    facts = tuple(f"f{k}" for k in range(n_facts) for _ in range(n_wordings)) if n_wordings > 1 else ()
    owners = tuple(f"c{c}" for c in range(n_clients)) if n_clients > 1 else ("",)
    return ScoreTable(total_CN, np.ones_like(total_CN), ("",) * total_CN.shape[1], owners, facts)


def answered(
    random: Random, share: float | None, *, methods: int = 1, fresh: bool = False, **sizes: int
) -> list[list[ScoreTable]]:
    """Return the answers of each method and seed; without a share as they are drawn, of mean 0."""
    population = sampled(seeds=sizes.get("seeds", 1), clients=sizes.get("clients", 1))
    threshold = None if share is None else population.threshold(share)
    drawn = population.draw(random, methods=methods, fresh=fresh, **sizes)
    return [[table(answers, threshold) for answers in method] for method in drawn]


def owned(random: Random, share: float, *, clients: int = 20, knowers: int = 1) -> ScoreTable:
    """Return one model's answers to 20 questions of each client: on 12 facts that `knowers` know, and 8 others."""
    population = Population()
    n_facts = 12 * clients // knowers
    right = population.fact * random.normal(size=n_facts) + population.own * random.normal(size=n_facts)
    of_client = [[(12 * c // knowers + at * 7) % n_facts for at in range(12)] for c in range(clients)]
    spread = math.sqrt(population.fact**2 + population.own**2)
    told, whose, about = [], [], []
    for client, facts in enumerate(of_client):
        latent = np.concatenate([right[facts], spread * random.normal(size=8)]) + random.normal(size=20)
        rest = math.sqrt(population.client**2 + population.seed**2 + population.training**2)
        told.append(latent + rest * random.normal())
        whose += [f"c{client}"] * 20
        about += [f"f{fact}" for fact in facts] + [""] * 8
    total = (np.concatenate(told) > population.threshold(share)).astype(np.float64)[None]
    return ScoreTable(total, np.ones_like(total), tuple(whose), ("",), tuple(about))


def holds(interval: Interval, truth: float) -> bool:
    """Return whether an interval holds the true value."""
    return interval.low <= truth <= interval.high


# ------------------------------------------------------------------------------------------------- intervals of a run


def score(share: float | None, **sizes: int) -> Callable[[Random], bool]:
    """A score of one run."""

    def covered(random: Random) -> bool:
        ((one,),) = answered(random, share, **sizes)
        return holds(bootstrap(one, resamples=RESAMPLES), share or 0.0)

    return covered


def score_of_clients(share: float, knowers: int) -> Callable[[Random], bool]:
    """A score over clients' own questions."""
    return lambda random: holds(bootstrap(owned(random, share, knowers=knowers), resamples=RESAMPLES), share)


def gap(share: float | None, **sizes: int) -> Callable[[Random], bool]:
    """The difference of two methods of which neither is better."""

    def covered(random: Random) -> bool:
        (one,), (other,) = answered(random, share, methods=2, **sizes)
        return holds(bootstrap(one, other, resamples=RESAMPLES), 0.0)

    return covered


def shared_and_local(random: Random) -> bool:
    """The difference of a model that clients share to their own models."""
    population = sampled(clients=20)
    local = population.draw(random, clients=20)[0, 0]
    # One model for all differs from one client to the next in nothing; its answers are as often right.
    shared = replace(population, client=0.0, training=math.hypot(population.training, population.client)).draw(random)[
        0, 0
    ]
    threshold = population.threshold(0.5)
    one, other = table(shared, threshold), table(local, threshold)
    return holds(bootstrap(one, other, resamples=RESAMPLES), 0.0)


def swapped(**sizes: int) -> Callable[[Random], bool]:
    """The p of swapped answers below 0.05 where neither method is better."""

    def wrong(random: Random) -> bool:
        (one,), (other,) = answered(random, 0.5, methods=2, **sizes)
        return sign_flip([(one, other)], resamples=RESAMPLES) < 0.05

    return wrong


# ------------------------------------------------------------------------------------------------------ several seeds


def repeated(share: float | None, *, methods: int = 1, fresh: bool = False, **sizes: int) -> Callable[[Random], bool]:
    """A score over seeds, or the difference of two methods."""

    def covered(random: Random) -> bool:
        told = answered(random, share, methods=methods, fresh=fresh, **sizes)
        truth = 0.0 if methods == 2 else share or 0.0
        names = range(len(told[0])) if fresh else [0] * len(told[0])
        seeds = [Repetition(*both, questions=name, data=name) for *both, name in zip(*told, names, strict=True)]
        return holds(mean_interval([seeds], resamples=RESAMPLES), truth)

    return covered


# --------------------------------------------------------------------------------------------------- suites, verdicts


def suite(
    random: Random, *, methods: int, seeds: int, fresh: bool = False, groups: int = 1, facts: int = 60
) -> SuiteOutcome:
    """Return a suite of methods of which none is better, with so many data sets."""
    names = [f"m{m}" for m in range(methods)]
    cells: dict[tuple[str, str, int], Outcome] = {}
    for data in range(groups):
        answers = sampled(seeds=seeds).draw(random, methods=methods, seeds=seeds, fresh=fresh) > 0
        for m, name in enumerate(names):
            for seed in range(seeds):
                asked = f"{data} {seed if fresh else ''}"
                cells[f"d{data}", name, seed] = outcome(answers[m, seed, 0].astype(np.float64), seed, asked)
    made = Suite(
        title="drawn",
        seeds=tuple(range(seeds)),
        data={f"d{d}": {} for d in range(groups)},
        methods={n: {} for n in names},
    )
    return SuiteOutcome(made, cells, ())


def outcome(answers_KW: Array, seed: int, asked: str) -> Outcome:
    """Return a run with these answers."""
    told = [
        _asked(number, {"fact": f"f{number // answers_KW.shape[1]}"}, float(right), f"{asked} {number}")
        for number, right in enumerate(answers_KW.ravel())
    ]
    card = {"data_sha256": asked}
    return Outcome("drawn", "drawn", seed, RESAMPLES, True, {"base": (), "final": tuple(told)}, {}, {}, card)


def _asked(number: int, tags: Mapping[str, str], right: float, prompt: str) -> Scored:
    return Scored("test", number, "", tags, {"exact_match": Mean(right, 1.0)}, prompt)


def any_verdict(**sizes: int) -> Callable[[Random], bool]:
    """Any pair of methods called better or worse."""

    def wrong(random: Random) -> bool:
        found = suite(random, **sizes)
        return any(row.verdict != "undecided" for row in pair_rows(found, found.data))

    return wrong


def claimed(kind: str, state: str, *, methods: int = 2, **sizes: int) -> Callable[[Random], bool]:
    """A claim that gets a verdict which it should not."""

    def wrong(random: Random) -> bool:
        found = suite(random, methods=methods, **sizes)
        first, *others = found.methods
        every = found.methods if kind == "none_best" else tuple(others)
        claim = Claim(text="", kind=kind, methods=every, than="" if kind == "none_best" else first, over="each")
        return decide(found, claim).state == state

    return wrong


def placed(random: Random) -> bool:
    """The interval of a place, of three methods that are apart by a tenth each."""
    better = np.array([0.0, 0.6, 1.2]).reshape(3, 1, 1, 1, 1)
    right = (sampled(seeds=5).draw(random, methods=3, seeds=5) + better > 0).astype(np.float64)
    cells = {("d0", f"m{m}", s): outcome(right[m, s, 0], s, "0") for m in range(3) for s in range(5)}
    made = Suite(title="drawn", seeds=tuple(range(5)), data={"d0": {}}, methods={f"m{m}": {} for m in range(3)})
    places = {row.method: row.rank for row in rank_rows(SuiteOutcome(made, cells, ()), ("d0",))}
    return all(holds(places[f"m{m}"], 3.0 - m) for m in range(3))


_SPREAD = math.sqrt(1 + 0.3**2)


def fairness(measure: str, truth: float) -> Callable[[Random], bool]:
    """A measure of how clients fare by their loss, over 5 seeds of the same 40 clients."""

    def covered(random: Random) -> bool:
        values_SC = 0.5 + 0.1 * (random.normal(size=(1, 40)) + 0.3 * random.normal(size=(5, 40)))
        return holds(_fares(values_SC)[measure], truth)

    return covered


def worst_of_these(random: Random) -> bool:
    """The worst decile of these 40 clients, over 5 seeds: what other trainings of theirs would give."""
    clients_C = random.normal(size=40)
    often_SC = 0.5 + 0.1 * (clients_C + 0.3 * random.normal(size=(4000, 40)))
    truth = float(np.sort(often_SC, axis=1)[:, -4:].mean())
    return holds(_fares(often_SC[:5])["worst_decile"], truth)


def _fares(values_SC: Array) -> Mapping[str, Interval]:
    cells = {("d0", "m0", seed): _alone(values_C, seed) for seed, values_C in enumerate(values_SC)}
    made = Suite(title="drawn", seeds=tuple(range(5)), data={"d0": {}}, methods={"m0": {}}, score="loss")
    return next(client_rows(SuiteOutcome(made, cells, ()))).measures


def _alone(values_C: Array, seed: int) -> Outcome:
    """Return a run whose clients have one question each."""
    told = [
        Scored("validation", c, "", {"client": f"c{c}"}, {"loss": Mean(float(value), 1.0)})
        for c, value in enumerate(values_C)
    ]
    results = {"base": (), "final": tuple(told)}
    return Outcome("drawn", "drawn", seed, RESAMPLES, True, results, {}, {}, {"data_sha256": "same"})


# ---------------------------------------------------------------------------------------- tasks, labels, examinations


def task_score(random: Random) -> bool:
    """The mean of a task's items."""
    found = mean_score((random.random(100) < 0.9).astype(float).tolist())
    return found.low <= 0.9 <= found.high


def task_gap(random: Random) -> bool:
    """The difference of two models on a task's items."""
    hard = random.normal(size=100)
    one, other = ((hard + random.normal(size=100) > 0).astype(float).tolist() for _ in range(2))
    return holds(mean_difference(one, other), 0.0)


def f1(random: Random) -> bool:
    """F1 of two labels, found right in 0.8 of the items each: 0.8 in the population."""
    found = f1_scores(_labels(random, random.random(200) < 0.5))["f1_macro"]
    return found.low <= 0.8 <= found.high


def f1_gap(random: Random) -> bool:
    """The difference of two models' F1."""
    right = random.random(200) < 0.5
    return holds(f1_difference(_labels(random, right), _labels(random, right))["f1_macro"], 0.0)


def _labels(random: Random, right: NDArray[np.bool_]) -> Labels:
    found = np.where(random.random(len(right)) < 0.8, right, ~right)
    return Labels(("a", "b"), *(tuple("a" if one else "b" for one in side) for side in (right, found)))


def graded(answers_SKW: Array) -> list[Graded]:
    """Return an examination of as many seeds."""
    return [
        Graded("exam", k * len(wordings) + w, seed, _answered(k, w), {}, {"grade": Mean(float(value), 1.0)})
        for seed, facts in enumerate(answers_SKW)
        for k, wordings in enumerate(facts)
        for w, value in enumerate(wordings)
    ]


def _answered(fact: int, wording: int) -> Answered:
    return Answered(Question(f"{fact} {wording}", ("",), tags={"fact": f"f{fact}"}), ("",))


def grade(random: Random) -> bool:
    """The mean grade of an examination."""
    answers = sampled().draw(random, facts=40)[0, :, 0]
    return holds(rows(graded(answers), resamples=RESAMPLES)[0].interval, 0.0)


def grades_apart(random: Random) -> bool:
    """The verdict on two models' grades."""
    one, other = sampled().draw(random, methods=2, facts=40)[:, :, 0]
    (found,) = differences(graded(one), graded(other), resamples=RESAMPLES)
    return found.verdict != "not told apart"


# ------------------------------------------------------------------------------------------------------------ the list

COVERAGE: Mapping[str, Callable[[Random], bool]] = {
    "show: share of 0.5, 60 facts in 3 wordings": score(0.5),
    "show: share of 0.95, 60 facts in 3 wordings": score(0.95),
    "show: share of 0.5, 180 questions, each by itself": score(0.5, facts=180, wordings=1),
    "show: share of 0.95, 60 questions, each by itself": score(0.95, facts=60, wordings=1),
    "show: loss, 60 facts in 3 wordings": score(None),
    "show: loss, 20 facts in 3 wordings": score(None, facts=20),
    "show: mean of 20 clients' models, 60 facts in 3 wordings": score(0.5, clients=20),
    "show: mean of 5 clients' models, 60 facts in 3 wordings": score(0.5, clients=5),
    "show: 20 clients' own questions about facts of their own": score_of_clients(0.5, 1),
    "show: 20 clients' own questions about facts that 4 of them know": score_of_clients(0.5, 4),
    "compare: shares of 0.5, 60 facts in 3 wordings": gap(0.5),
    "compare: shares of 0.95, 60 facts in 3 wordings": gap(0.95),
    "compare: shares of 0.5, 180 questions, each by itself": gap(0.5, facts=180, wordings=1),
    "compare: losses, 60 facts in 3 wordings": gap(None),
    "compare: 20 clients' models each": gap(0.5, clients=20),
    "compare: a shared model with 20 clients' models": shared_and_local,
    "seeds: share of 0.5, 5 seeds ask the same": repeated(0.5, seeds=5),
    "seeds: share of 0.95, 5 seeds ask the same": repeated(0.95, seeds=5),
    "seeds: share of 0.5, 3 seeds ask the same": repeated(0.5, seeds=3),
    "seeds: share of 0.5, 5 seeds ask questions of their own": repeated(0.5, seeds=5, fresh=True),
    "seeds: loss, 5 seeds ask the same": repeated(None, seeds=5),
    "seeds: 20 clients' models, 5 seeds ask the same": repeated(0.5, seeds=5, clients=20),
    "seeds: difference of shares of 0.5, 5 seeds ask the same": repeated(0.5, methods=2, seeds=5),
    "seeds: difference of shares of 0.95, 5 seeds ask the same": repeated(0.95, methods=2, seeds=5),
    "seeds: difference of losses, 3 seeds ask the same": repeated(None, methods=2, seeds=3),
    "seeds: difference of losses, 5 seeds ask questions of their own": repeated(None, methods=2, seeds=5, fresh=True),
    "seeds: difference of 20 clients' models, 5 seeds ask the same": repeated(0.5, methods=2, seeds=5, clients=20),
    "bench: places of three methods, 5 seeds": placed,
    "bench: mean over 40 clients, 5 seeds": fairness("mean", 0.5),
    "bench: tenth percentile over 40 clients, 5 seeds": fairness("tenth_percentile", 0.5 + 0.1 * _SPREAD * 1.2816),
    "bench: worst decile of the same 40 clients, 5 seeds": worst_of_these,
    "bench: standard deviation over 40 clients, 5 seeds": fairness("deviation", 0.1 * _SPREAD),
    "tasks: mean of 100 items": task_score,
    "tasks: difference over 100 items": task_gap,
    "tasks: F1 over 200 items": f1,
    "tasks: difference of F1 over 200 items": f1_gap,
    "exam: mean grade, 40 facts in 3 wordings": grade,
}
"""Whether an interval of 95 % holds the true value."""

ERRORS: Mapping[str, Callable[[Random], bool]] = {
    "p of swapped answers below 0.05, 60 facts in 3 wordings": swapped(),
    "p of swapped answers below 0.05, 180 questions, each by itself": swapped(facts=180, wordings=1),
    "bench: any of 6 pairs is decided, 5 seeds ask the same": any_verdict(methods=4, seeds=5),
    "bench: any of 6 pairs is decided, 5 seeds ask questions of their own": any_verdict(methods=4, seeds=5, fresh=True),
    "claim: above holds": claimed("above", "holds", seeds=5),
    "claim: above of 4 methods does not hold": claimed("above", "does not hold", methods=5, seeds=5),
    "claim: not_above holds": claimed("not_above", "holds", seeds=5),
    "claim: not_above of 4 methods does not hold": claimed("not_above", "does not hold", methods=5, seeds=5),
    "claim: above_somewhere of 4 data sets holds": claimed("above_somewhere", "holds", seeds=3, groups=4),
    "claim: none_best of 3 methods holds": claimed("none_best", "holds", methods=3, seeds=5),
    "claim: none_best of 3 methods does not hold": claimed("none_best", "does not hold", methods=3, seeds=5),
    "exam: one of two models is better, 40 facts in 3 wordings": grades_apart,
}
"""Whether a verdict is given at a true difference of 0."""


def rate(name: str, replicates: int) -> float:
    """Return how often an interval covers, or a verdict errs, over replicates of streams named after them."""
    happened = COVERAGE.get(name) or ERRORS[name]
    return sum(happened(rng.numpy_random("coverage", name, number)) for number in range(replicates)) / replicates


def within(name: str, found: float) -> bool:
    """Return whether a rate is within its tolerance."""
    return found >= LEAST_COVERED if name in COVERAGE else found <= MOST_WRONG


def main(words: Sequence[str] | None = None) -> int:
    """Print every line, those that are known from their file; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/coverage"), help="folder of what was found")
    parser.add_argument("--replicates", type=int, default=500, help="samples of each line (default: 500)")
    parser.add_argument("--only", default="", help="lines that have this word")
    given = parser.parse_args(words)
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / f"rates_{given.replicates}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    bad = 0
    for title, names in (("holds the true value", COVERAGE), ("errs", ERRORS)):
        print(f"| | {title} |\n|---|---|")
        for name in (name for name in names if given.only in name):
            if name not in known:
                known[name] = rate(name, given.replicates)
                path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
            bad += not within(name, known[name])
            print(
                f"| {name} | {known[name]:.3f}{'' if within(name, known[name]) else ' (out of tolerance)'} |",
                flush=True,
            )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
