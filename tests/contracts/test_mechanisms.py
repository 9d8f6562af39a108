"""What every privacy mechanism must hold, at its defaults and in the variants below."""

import math
import pickle
from dataclasses import FrozenInstanceError, fields
from itertools import pairwise

import pytest
import torch

from fedloom.base import rng
from fedloom.base.config import build
from fedloom.base.plugin import lookup, names
from fedloom.contracts.federated import Mechanism, PrivacyBudget
from fedloom.contracts.messages import WholeSum
from fedloom.contracts.privacy import UNITS

VARIANTS = [
    *((name, {}) for name in names(Mechanism)),
    ("gaussian", {"unit": "client"}),
    ("gaussian", {"unit": "client_local", "accountant": "rdp"}),
    ("gaussian", {"clipping": "per_matrix", "noise": "system"}),
    ("gaussian", {"clip_quantile": 0.5, "clip_count_noise": 10.0}),
    ("gaussian", {"noise_multiplier": 1.5, "epsilon": 0}),
    ("skellam", {"noise_multiplier": 6.0, "noise": "system"}),
]
every = pytest.mark.parametrize(("name", "settings"), VARIANTS)
shapes = pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (5, 7), (3, 0)])
WHOLE = WholeSum(numbers=500, clients=20, least=15, bits=12, clip=1.0, norm=1.0)
BUDGET = PrivacyBudget(0.1, 2.0, 1e-3, 100, WHOLE)


def make(name, settings):
    return lookup(Mechanism, name)(**settings)


def draw_norms(shape):
    """Norms from 0 to about a hundred."""
    norms_LE = torch.rand(shape, generator=rng.generator("norms", *shape)).pow(3) * 100
    return norms_LE * (norms_LE > 0.5)


def release(mechanism, sum_P):
    return mechanism.release(
        sum_P,
        inside=3.0,
        total=5,
        expected=4.0,
        budget=BUDGET,
        state=mechanism.init(),
        noise=rng.system_normal,
    )


@every
def test_pickle_round_trip_is_equal(name, settings):
    mechanism = make(name, settings)
    assert pickle.loads(pickle.dumps(mechanism)) == mechanism


@every
def test_equal_settings_are_equal_mechanisms(name, settings):
    assert make(name, settings) == make(name, settings)


@every
def test_fields_cannot_be_changed(name, settings):
    mechanism = make(name, settings)
    with pytest.raises(FrozenInstanceError):
        mechanism.anything = 1


@every
def test_fields_build_the_mechanism_again(name, settings):
    mechanism = make(name, settings)
    table = {item.name: vars(mechanism)[item.name] for item in fields(mechanism)}
    assert build(type(mechanism), table, "privacy") == mechanism


@every
def test_unit_is_one_that_is_known(name, settings):
    assert make(name, settings).covers() in UNITS.values()


@every
@shapes
def test_scales_have_the_shape_of_the_norms(name, settings, shape):
    mechanism = make(name, settings)
    assert mechanism.scales(draw_norms(shape), mechanism.init()).shape == shape


@every
@shapes
def test_scales_lie_between_zero_and_one(name, settings, shape):
    mechanism = make(name, settings)
    scales_LE = mechanism.scales(draw_norms(shape), mechanism.init())
    assert bool(((scales_LE >= 0) & (scales_LE <= 1)).all())


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_scales_have_the_dtype_of_the_norms(name, settings, dtype):
    mechanism = make(name, settings)
    assert mechanism.scales(draw_norms((5, 7)).to(dtype), mechanism.init()).dtype == dtype


@every
def test_contribution_of_norm_zero_is_left_alone(name, settings):
    mechanism = make(name, settings)
    assert torch.equal(mechanism.scales(torch.zeros(5, 7), mechanism.init()), torch.ones(5, 7))


@every
def test_contribution_is_scaled_whoever_else_is_there(name, settings):
    mechanism = make(name, settings)
    norms_LE = draw_norms((5, 7))
    alone_LE = mechanism.scales(norms_LE[:, 2:3], mechanism.init())
    assert torch.equal(mechanism.scales(norms_LE, mechanism.init())[:, 2:3], alone_LE)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_released_row_is_like_the_sum(name, settings, dtype):
    released_P, _ = release(make(name, settings), torch.ones(11, dtype=dtype))
    assert (released_P.shape, released_P.dtype) == ((11,), dtype)


@every
def test_releasing_leaves_the_sum_alone(name, settings):
    sum_P = torch.ones(11)
    release(make(name, settings), sum_P)
    assert torch.equal(sum_P, torch.ones(11))


@every
def test_what_is_kept_has_the_names_and_shapes_of_the_start(name, settings):
    mechanism = make(name, settings)
    _, kept = release(mechanism, torch.ones(11))
    assert {k: (v.shape, v.dtype) for k, v in kept.items()} == {
        k: (v.shape, v.dtype) for k, v in mechanism.init().items()
    }


@every
def test_releasing_leaves_what_was_kept_alone(name, settings):
    mechanism = make(name, settings)
    kept = mechanism.init()
    before = {key: tensor.clone() for key, tensor in kept.items()}
    mechanism.release(
        torch.ones(3), inside=0.0, total=5, expected=4.0, budget=BUDGET, state=kept, noise=rng.system_normal
    )
    assert all(torch.equal(kept[key], before[key]) for key in before)


@every
def test_guard_is_a_function_of_its_arguments(name, settings):
    mechanism = make(name, settings)
    planned = {"population": 1000, "expected": 20, "uses": 5, "of_sum": WHOLE}
    assert mechanism.budget(**planned) == mechanism.budget(**planned)


@every
def test_guard_lets_the_planned_uses_pass(name, settings):
    assert make(name, settings).budget(population=1000, expected=20, uses=5, of_sum=WHOLE).max_uses >= 5


@every
def test_sampling_rate_is_a_probability(name, settings):
    assert 0 < make(name, settings).budget(population=1000, expected=2000, uses=5, of_sum=WHOLE).rate <= 1


@every
def test_nothing_is_spent_before_the_first_use(name, settings):
    assert set(make(name, settings).spent(BUDGET, 0).values()) <= {0.0}


@every
def test_spending_grows_with_the_uses(name, settings):
    mechanism = make(name, settings)
    costs = [mechanism.spent(BUDGET, uses) for uses in range(4)]
    assert all(one[kind] < more[kind] for one, more in pairwise(costs) for kind in one)


@every
def test_spending_is_a_finite_number(name, settings):
    assert all(math.isfinite(cost) for cost in make(name, settings).spent(BUDGET, 50).values())
