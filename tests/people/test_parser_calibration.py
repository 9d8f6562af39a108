import numpy as np
import pytest

from fedloom.people.calibration import Fit, chosen, surprise

SCALES, WRONG = (0.25, 0.5, 1.0), (0.02, 0.05, 0.1, 0.2, 0.3, 0.45)


def slowly(evidence, prior, labels, counted):
    """The least of the mean -log of each view's label under the others, over scale and share of wrong labels."""
    n_views, n_points, n_classes = evidence.shape
    tried = []
    for scale in SCALES:
        for wrong in WRONG:
            total = weight = 0.0
            for view in range(n_views):
                for point in range(n_points):
                    odds = prior + scale * sum(evidence[v, point] for v in range(n_views) if v != view)
                    share = np.exp(odds[labels[view, point]]) / np.exp(odds).sum()
                    total -= counted[view, point] * np.log((1 - wrong) * share + wrong / n_classes)
                    weight += counted[view, point]
            tried.append(total / weight)
    return min(tried)


def test_surprise_is_that_of_a_loop_over_views_and_points():
    random = np.random.default_rng(0)
    evidence, prior = random.normal(size=(3, 7, 4)), np.log([0.4, 0.3, 0.2, 0.1])
    labels, counted = random.integers(4, size=(3, 7)), random.uniform(size=(3, 7))
    assert surprise(evidence, prior, labels, counted) == pytest.approx(slowly(evidence, prior, labels, counted))


def test_one_view_alone_is_foretold_by_the_prior():
    labels, prior = np.array([[0, 1, 1, 1]]), np.log([0.25, 0.75])
    told = surprise(np.random.default_rng(0).normal(size=(1, 4, 2)), prior, labels, np.ones((1, 4)))
    frequent = min(-np.log((1 - wrong) * np.array([0.25, 0.75, 0.75, 0.75]) + wrong / 2).mean() for wrong in WRONG)
    assert told == pytest.approx(frequent)


def parsers(seed, n_views=6, n_points=3000, n_classes=5, rate=0.35):
    """What parsers say of points, and where they are right: each errs by itself."""
    random = np.random.default_rng(seed)
    true = random.integers(n_classes, size=n_points)
    said = np.tile(true, (n_views, 1))
    wrong = random.uniform(size=said.shape) < rate
    said[wrong] = random.integers(n_classes, size=int(wrong.sum()))
    return said, said == true


@pytest.mark.parametrize("seed", range(3))
def test_weights_that_know_where_parsers_err_foretell_better_and_those_that_do_not_worse(seed):
    said, right = parsers(seed)
    votes = np.log(0.9 * np.eye(5)[said] + 0.02)
    knowing = np.where(right, 1.0, 0.2)
    shuffled = np.random.default_rng(9).permuted(knowing, axis=1)
    even, knows, guesses = (
        surprise(weight[..., None] * votes, np.zeros(5), said, np.ones(said.shape))
        for weight in (np.full(said.shape, knowing.mean()), knowing, shuffled)
    )
    assert knows < even < guesses


def test_of_fits_the_least_surprising_is_chosen_and_of_equals_the_first():
    fits = [Fit(temperature, 0.03, True) for temperature in (0.5, 1.0, 2.0)]
    best = chosen(iter(fits), lambda fit: {0.5: 3.0, 1.0: 2.0, 2.0: 2.0}[fit.temperature])
    assert (best.temperature, best.surprise, best.confident) == (1.0, 2.0, True)
