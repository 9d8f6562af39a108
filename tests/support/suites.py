"""Suite outcomes made by hand: no run behind them, every number known."""

from fedloom.base import config
from fedloom.base.mean import Mean
from fedloom.benchmark.suite import Suite, SuiteOutcome
from fedloom.evaluation.held_out import Scored
from fedloom.results.outcome import Outcome
from support.small_runs import small_table


def answers(values, *, owner="", score="exact_match", name="test", first=0, **tags):
    """One scored question per value; `tags` may hold a list, one value per question."""
    told = []
    for place, value in enumerate(values):
        own = {tag: each[place] if isinstance(each, list) else each for tag, each in tags.items()}
        index = first + place
        told.append(Scored(name, index, owner, own, {score: Mean(float(value), 1.0)}, f"q{index}", "a", ""))
    return told


def made(final, *, seed=0, base=None, card=None, **settings):
    results = {"base": tuple(base or final), "final": tuple(final)}
    card = {"data_sha256": "same", "base_id": "tiny sha256:1", **(card or {})}
    return Outcome("runs/x", "plain", seed, 200, True, results, {"wall_s": 1.0}, {}, card, settings)


def suite_of(cells, *, missing=(), claims=(), score="exact_match", **more):
    """The outcome of cells {(data, method, seed): Outcome}."""
    keys = [*cells, *missing]
    suite = Suite(
        title="by hand",
        seeds=tuple(dict.fromkeys(seed for _, _, seed in keys)),
        score=score,
        data={data: {} for data, _, _ in keys},
        methods={method: {} for _, method, _ in keys},
        claims=tuple(claims),
        **more,
    )
    return SuiteOutcome(suite, cells, tuple(missing))


def by_seed(method_values, *, data="d", n=10):
    """Cells of one data set from {method: [mean of each seed]}: n questions, the same for all methods."""
    return {
        (data, method, seed): made(answers([value] * n), seed=seed)
        for method, values in method_values.items()
        for seed, value in enumerate(values)
    }


def write_suite(folder, methods, **more):
    common = small_table(folder, rounds=2)
    suite = {"title": "tiny", "seeds": [1], "jobs": 1, "score": "loss", "common": common, "data": {"d": {}}, **more}
    path = folder / "suite_file.toml"
    path.write_text(config.tomli_w.dumps({**suite, "methods": methods}))
    return path
