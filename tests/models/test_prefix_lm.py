"""Prompts read in both directions: a dense mask over eager attention as an oracle, generation, and what is refused."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from fedloom.base.errors import ConfigError, ModelError
from fedloom.base.tree import flatten, stack
from fedloom.contracts.language import Encoded
from fedloom.contracts.model import ForwardContext
from fedloom.federated.kernels import client_gradients
from fedloom.models.causal_lm import CausalLM
from fedloom.models.decoder import complete
from fedloom.models.lora import install
from fedloom.models.packing import pack
from fedloom.tasks.sft import Sft
from support.clients import CPU, distance
from support.models import model_folder

TASK = Sft()


@cache
def folder(architecture="llama"):
    return model_folder(Path(mkdtemp()) / architecture, architecture, tie_word_embeddings=False)


def family(**settings):
    return CausalLM(**{"path": str(folder()), "lora_rank": 2, "attends": "prefix_lm"} | settings)


@cache
def built(**settings):
    return family(**settings).build(seed=0, device=CPU)


def moved(params, seed=0, by=0.1):
    draw = torch.Generator().manual_seed(seed)
    return {name: one + by * torch.randn(one.shape, generator=draw) for name, one in params.items()}


def item(length, prompt, seed=0):
    """Supervised behind the prompt, with gaps, so that what is not supervised there is no prompt again."""
    draw = torch.Generator().manual_seed(seed)
    supervised_T = torch.arange(length) >= prompt
    supervised_T[prompt + 1 :: 3] = False
    return Encoded(torch.randint(3, 60, (length,), generator=draw, dtype=torch.int32), supervised_T)


PARTS = [[item(9, 4), item(5, 5, 1), item(9, 0, 2)], [item(12, 7, 3)]]


@cache
def oracle():
    """Transformers' own Llama with eager attention, and adapters as ours."""
    module = AutoModelForCausalLM.from_pretrained(folder(), attn_implementation="eager").eval()
    install(module, targets=(), rank=2, alpha=16.0, dropout=0.0, seed=0, context=ForwardContext())
    return module


def dense(module, tokens_T, prompt, params):
    """The logits [T, V] with a mask that is written out, row by row."""
    n = len(tokens_T)
    seen = [[column <= row or (column < prompt and row < prompt) for column in range(n)] for row in range(n)]
    mask_1TT = torch.zeros(1, 1, n, n).masked_fill(~torch.tensor(seen), torch.finfo(torch.float32).min)
    inputs = {"input_ids": tokens_T.long()[None], "attention_mask": mask_1TT}
    return torch.func.functional_call(module, params, kwargs=inputs).logits[0]


def truth(params, part):
    leaves = {name: one.clone().requires_grad_() for name, one in params.items()}
    total = torch.zeros(())
    for one in part:
        prompt = int(one.supervised_T.int().argmax()) if bool(one.supervised_T.any()) else len(one.tokens_T)
        asked_S = one.supervised_T[1:].nonzero().squeeze(1)
        logits_SV = dense(oracle(), one.tokens_T, prompt, leaves)[asked_S]
        targets_S = one.tokens_T.long()[asked_S + 1]
        total = total + torch.nn.functional.cross_entropy(logits_SV, targets_S, reduction="sum")
    grads = torch.autograd.grad(total, list(leaves.values()))
    return float(total.detach()), torch.cat([grad.flatten() for grad in grads])


def gradients(model, own, parts):
    return client_gradients(model, TASK, {name: one.requires_grad_() for name, one in stack(own).items()}, parts)


def test_loss_and_gradients_are_those_of_a_dense_mask():
    model = built()
    own = [moved(model.trainable, k) for k in range(2)]
    found = gradients(model, own, PARTS)
    causal = gradients(built(attends="causal"), own, PARTS)
    for k, (params, part) in enumerate(zip(own, PARTS, strict=True)):
        loss, grad = truth(params, part)
        assert float(found.total_K[k]) == pytest.approx(loss, rel=1e-5)
        assert distance(found.sum_KP[k], grad) < 1e-5
        assert distance(causal.sum_KP[k], grad) > 1e-2


def test_without_prompts_it_is_the_causal_model():
    parts = [[item(9, 0), item(4, 1, 1)]]  # a prompt of one token sees nothing that it did not see before
    own = [moved(built().trainable)]
    found, wanted = (gradients(model, own, parts) for model in (built(), built(attends="causal")))
    assert distance(found.sum_KP, wanted.sum_KP) < 1e-6


def test_a_prompt_is_what_lies_before_the_first_supervised_token():
    batch = pack(PARTS, CPU)
    assert batch.prompt_E.tolist() == [4, 5, 0, 7]


def test_nothing_of_an_answer_reaches_its_own_prediction():
    model, one = built(), item(9, 4)
    params, last = model.trainable, one.tokens_T.clone()
    last[-1] = 3 if int(last[-1]) != 3 else 4
    logits = []
    for tokens_T in (one.tokens_T, last):
        batch = pack([[Encoded(tokens_T, torch.arange(9) >= 4)]], CPU)
        model.context.batch = batch
        logits.append(model.token_logits(params, batch))
    assert torch.equal(*logits)


@pytest.mark.parametrize("prefix", [0, 3])
def test_greedy_answers_read_the_prompt_in_both_directions_and_then_go_on(prefix):
    model = built(prefix=prefix)
    params = moved(model.trainable)
    prompts = [[*range(5, 17), last] for last in (20, 30)] + [[7, 8, 9]]
    found = complete(model, params, prompts, stop=(), max_new_tokens=6)
    for prompt, answer in zip(prompts, found, strict=True):
        tokens = list(prompt)
        for _ in range(6):
            more = torch.tensor([*tokens, 3], dtype=torch.int32)
            batch = pack([[Encoded(more, torch.arange(len(more)) >= len(prompt))]], CPU)
            model.context.batch = batch
            tokens.append(int(model.token_logits(params, batch)[-1].argmax()))
        model.context.batch = None
        assert answer == tokens[len(prompt) :]
    causal = built(prefix=prefix, attends="causal")
    assert complete(causal, params, prompts, stop=(), max_new_tokens=6) != found


def test_owners_answer_together_as_each_does_alone():
    model = built()
    own = [moved(model.trainable, k) for k in range(2)]
    prompts = [[*range(5, 17), 20], [7, 8, 9]]
    together = complete(model, stack(own), prompts * 2, stop=(), max_new_tokens=5, owners=2)
    alone = [complete(model, params, [prompt], stop=(), max_new_tokens=5)[0] for params in own for prompt in prompts]
    assert together == alone


@pytest.mark.parametrize("rank", [0, 2])
def test_what_is_saved_says_how_it_attends_and_is_refused_by_peft_and_other_runs(rank, tmp_path):
    settings = {"lora_rank": rank, "prefix": 2 - rank}
    model, place_of = built(**settings), tmp_path / "adapter"
    params = moved(model.trainable)
    family(**settings).save(model, params, str(place_of))
    assert torch.equal(flatten(family(**settings).load_adapter(model, str(place_of))), flatten(params))
    found = CausalLM.for_adapter(place_of)
    assert (found.attends, found.lora_rank, found.prefix) == ("prefix_lm", rank, 2 - rank)
    again = replace(found, path=str(folder())).build(seed=5, device=CPU)
    assert torch.equal(flatten(again.trainable), flatten(params))
    assert again.both_ways
    with pytest.raises(KeyError, match="FEDLOOM"):
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder()), place_of)
    with pytest.raises(ModelError, match="attends as 'prefix_lm', the run has 'causal'; set"):
        family(**settings, attends="causal").load_adapter(model, str(place_of))
    for write in (found.write_adapter, found.write_merged):
        with pytest.raises(ModelError, match="attends as 'prefix_lm', which others would load as a causal model"):
            write(tmp_path / "out")


def test_a_plain_row_which_tells_no_prompt_is_refused():
    with pytest.raises(ModelError, match="a plain row does not tell where its prompt ends; pass a packed batch"):
        built().module(torch.tensor([[3, 4, 5]]))


@pytest.mark.parametrize(
    "settings", [{"path": "qwen2"}, {"lora_rank": 0}, {"attention": "sdpa"}], ids=["family", "whole", "attention"]
)
def test_models_that_do_not_carry_it_are_refused(settings):
    if "path" in settings:
        settings = {"path": str(folder("qwen2"))}
    with pytest.raises(ConfigError, match="attends: found 'prefix_lm', allowed for plain Llamas with adapters"):
        built(**settings)
