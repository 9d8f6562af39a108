"""The nearest-neighbour audit: it flags what returns private examples and passes what has never seen them."""

import numpy as np
import torch

from fedloom.evaluation.nearest import Group, nearest


def points(seed, n, size=4):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, size)))


def test_samples_that_are_private_examples_are_copies():
    private, held = points(0, 20), points(1, 20)
    found = nearest([Group(private[:10].clone(), private, held)], 0)
    assert found.copies == 10 and found.nearer == 1.0 and found.copied


def test_samples_close_to_private_examples_are_flagged_without_a_copy():
    private, held = points(0, 20), points(1, 20)
    found = nearest([Group(private + 0.05 * points(2, 20), private, held)], 0)
    assert found.copies == 0 and found.p_value < 0.01 and found.copied


def test_samples_of_the_same_distribution_are_not():
    found = nearest([Group(points(at, 30), points(100 + at, 20), points(200 + at, 20)) for at in range(5)], 0)
    assert 0.35 < found.nearer < 0.65 and not found.copied


def test_by_chance_one_audit_in_a_hundred_is_wrong():
    flags = [
        nearest([Group(points(3 * at, 15), points(3 * at + 1, 10), points(3 * at + 2, 10))], at) for at in range(60)
    ]
    assert sum(one.p_value < 0.1 for one in flags) <= 13  # of 60 at a level of 0.1: more has a chance of 0.5 %


def test_a_sample_that_both_sides_have_is_no_copy_and_counts_half():
    one = points(0, 1)
    found = nearest([Group(one, one, one)], 0)
    assert (found.copies, found.nearer, found.p_value) == (0, 0.5, 1.0)


def test_without_samples_nothing_is_found():
    found = nearest([], 0)
    assert (found.samples, found.nearer, found.copied) == (0, 0.5, False)


def test_distances_are_the_euclidean_ones():
    sample = torch.tensor([[3.0, 4.0]])  # 5 from the private one; 4.9 by the first number from the other, 5.4 by both
    found = nearest([Group(sample, torch.zeros(1, 2), torch.tensor([[-1.9, 1.7]]))], 0)
    assert found.nearer == 1.0
