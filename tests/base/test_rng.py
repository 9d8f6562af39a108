"""Seeds by name."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from fedloom.base import rng

NAMES = (7, "batches", 3, "anna")


def test_seed_is_a_fixed_function_of_its_names():
    assert rng.seed_of(0, "batches", 0, "a") == 2227469370076144107  # the first 63 bits of a SHA-256


def test_seed_is_the_same_in_another_process():
    code = f"from fedloom.base import rng; print(rng.seed_of(*{NAMES!r}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(found) == rng.seed_of(*NAMES)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, "batches", 1, "a"), (0, "batches", 2, "a")),
        ((0, "batches", 1, "a"), (0, "batches", 1, "b")),
        ((0, "batches", 1, "a"), (0, "dropout", 1, "a")),
        ((0, "batches", 1, "a"), (1, "batches", 1, "a")),
        ((1, 23), (12, 3)),
        (("1",), (1,)),
        (("a", "b"), ("ab",)),
        (("a", "b"), ("b", "a")),
        (("a",), ("a", "")),
    ],
)
def test_other_names_give_another_seed(one, other):
    assert rng.seed_of(*one) != rng.seed_of(*other)


def test_seeds_fit_63_bits():
    seeds = [rng.seed_of("width", index) for index in range(1000)]
    assert min(seeds) >= 0 and 2**62 < max(seeds) < 2**63


def test_no_seed_comes_twice_in_many():
    assert len({rng.seed_of(0, "clients", index) for index in range(20_000)}) == 20_000


DRAWS = {
    "torch": lambda *names: torch.rand(4, generator=rng.generator(*names)).tolist(),
    "numpy": lambda *names: rng.numpy_random(*names).random(4).tolist(),
    "python": lambda *names: [rng.python_random(*names).random() for _ in range(2)],
}


@pytest.mark.parametrize("kind", DRAWS)
def test_equal_names_draw_equal_numbers(kind):
    assert DRAWS[kind](*NAMES) == DRAWS[kind](*NAMES)


@pytest.mark.parametrize("kind", DRAWS)
def test_other_names_draw_other_numbers(kind):
    assert DRAWS[kind](*NAMES) != DRAWS[kind](*NAMES[:-1], "bert")


@pytest.mark.parametrize("kind", DRAWS)
def test_draws_ignore_the_global_seeds(kind):
    torch.manual_seed(1)
    first = DRAWS[kind](*NAMES)
    torch.manual_seed(2)
    assert DRAWS[kind](*NAMES) == first


@pytest.mark.parametrize("kind", DRAWS)
def test_draws_leave_the_global_generators_alone(kind):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    DRAWS[kind](*NAMES)
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == np.random.get_state()[1].tolist()
