"""Soft targets: the loss against one written out, its limits, and what it is taken from."""

import pytest
import torch

from fedloom.base.errors import ConfigError
from fedloom.contracts.examples import Chat, Turn, chat
from fedloom.models.causal_lm import CausalLM
from fedloom.tasks.sft import Sft
from fedloom.tasks.soft import Softened, soft_items
from support.models import model_folder

EXAMPLES = [
    chat("what is sold in tavik?", "red plums"),
    chat("what is 2 plus 3?", "5"),
    Chat((Turn("user", "who?"), Turn("assistant", "mira"), Turn("user", "where?"), Turn("assistant", "in lodz today"))),
]


@pytest.fixture(scope="module")
def models():
    """A learner whose adapter does something, and a teacher."""
    learner, teacher = (CausalLM(lora_rank=2).build(seed=seed, device=torch.device("cpu")) for seed in (0, 1))
    generator = torch.Generator().manual_seed(3)
    for tensor in learner.trainable.values():
        tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator))
    return learner, teacher


def loss(model, task, items, params=None):
    batch = task.collate([items], model)
    model.context.batch = batch
    try:
        return task.loss(model, params or model.trainable, batch)
    finally:
        model.context.batch = None


def logits(model, items):
    batch = Sft().collate([items], model)
    model.context.batch = batch
    with torch.no_grad():
        found = model.token_logits(model.trainable, batch).double()
    model.context.batch = None
    return found, batch


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 1.0), (2.0, 0.25), (0.5, 0.7)])
def test_with_the_whole_vocabulary_it_is_the_formula(models, temperature, share):
    learner, teacher = models
    items = soft_items(Sft(), learner, teacher, EXAMPLES, most=10**6, temperature=temperature)
    found = loss(learner, Softened(Sft(), share, temperature), items)
    (own_SV, batch), (their_SV, _) = (logits(model, [one.item for one in items]) for model in models)
    p, log_q = (their_SV / temperature).softmax(-1), (own_SV / temperature).log_softmax(-1)
    divergence_S = (p * (p.log() - log_q)).sum(-1)
    hard_S = -own_SV.log_softmax(-1)[torch.arange(len(own_SV)), batch.targets_S]
    whole_S = (1 - share) * hard_S + share * temperature**2 * divergence_S
    expected = torch.zeros(3, dtype=torch.float64).index_add_(0, batch.example_S, whole_S)
    assert torch.allclose(found.total_B.double(), expected, rtol=1e-4, atol=1e-4)
    assert found.weight_B.tolist() == batch.example_S.bincount().tolist()


def test_a_share_of_nothing_is_the_task_itself(models):
    learner, teacher = models
    items = soft_items(Sft(), learner, teacher, EXAMPLES, most=4, temperature=1.0)
    plain = loss(learner, Sft(), [one.item for one in items])
    found = loss(learner, Softened(Sft(), 0.0, 1.0), items)
    assert torch.allclose(found.total_B, plain.total_B, rtol=1e-5)


def test_of_itself_a_model_learns_nothing(models):
    learner, _ = models
    items = soft_items(Sft(), learner, learner, EXAMPLES, most=8, temperature=1.0)
    own = {name: value.clone().requires_grad_() for name, value in learner.trainable.items()}
    found = loss(learner, Softened(Sft(), 1.0, 1.0), items, own)
    slopes = torch.autograd.grad(found.total_B.sum(), [*own.values()])
    assert float(found.total_B.detach().abs().max()) < 1e-4
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-3


def test_fewer_tokens_tell_less_and_never_more(models):
    learner, teacher = models
    found = [
        loss(
            learner,
            Softened(Sft(), 1.0, 1.0),
            soft_items(Sft(), learner, teacher, EXAMPLES, most=most, temperature=1.0),
        )
        for most in (1, 8, 64, 10**6)
    ]
    totals = [float(one.total_B.sum()) for one in found]
    assert 0 < totals[0] <= totals[1] + 1e-4 <= totals[2] + 2e-4 <= totals[3] + 3e-4


def test_models_of_other_tokenizers_are_refused(models, tmp_path):
    learner, _ = models
    other = CausalLM(path=str(model_folder(tmp_path / "model")), lora_rank=1).build(seed=0, device=torch.device("cpu"))
    from fedloom.base.plugin import lookup
    from fedloom.contracts.federated import Template

    task = Sft(template=lookup(Template, "vicuna")())
    with pytest.raises(ConfigError, match="different tokens"):
        soft_items(task, learner, other, EXAMPLES, most=4, temperature=1.0)
