"""Generation: drawing against the definition and against transformers, independence of neighbours, how answers end."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from fedloom.base import rng
from fedloom.base.errors import ModelError
from fedloom.base.plugin import lookup
from fedloom.contracts.evaluation import Completion, Sampling
from fedloom.contracts.examples import Turn
from fedloom.contracts.federated import Template
from fedloom.models.causal_lm import CausalLM
from fedloom.models.decoder import complete
from fedloom.models.generation import (
    complete_tokens,
    complete_with,
    draw,
    opening,
    prompt_tokens,
    stop_tokens,
)
from support.models import VOCABULARY, model_folder

PROMPTS = [[5, 9, 33], [7], [12, 13, 14, 15, 16, 17, 18], [40, 41], [5, 9, 34]]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random llama with a context of 64 tokens; its logits are flat enough for draws to differ."""
    folder = model_folder(tmp_path_factory.mktemp("generation") / "model")
    return CausalLM(path=str(folder), lora_rank=1).build(seed=0, device=torch.device("cpu"))


def answers(model, prompts=PROMPTS, *, stop=(), stop_texts=(), batch=8, **sampling):
    drawn = Sampling(**{"max_new_tokens": 12, "stop": stop_texts} | sampling)
    found = dict(complete_tokens(model, model.trainable, prompts, drawn, stop=stop, batch=batch))
    return [found[place] for place in range(len(prompts))]


def some_logits(rows=50, vocabulary=40):
    return 3 * torch.randn(rows, vocabulary, generator=rng.generator("logits"))


# ------------------------------------------------------------------------------------------------------------- drawing


def by_definition(logits, *, temperature, top_p):
    """The distribution of one token, step by step as in the paper, in Python numbers."""
    weights = [math.exp((value - max(logits)) / temperature) for value in logits]
    shares = sorted(((weight / sum(weights), token) for token, weight in enumerate(weights)), reverse=True)
    nucleus, together = {}, 0.0
    for share, token in shares:
        if together >= top_p and nucleus:
            break
        nucleus[token] = share
        together += share
    return {token: share / together for token, share in nucleus.items()}


def drawn_shares(logits, *, temperature, top_p, points=20_000):
    """The shares of tokens over evenly spaced numbers from [0, 1)."""
    uniform = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    tokens = draw(torch.tensor([logits]).expand(points, -1), uniform, temperature=temperature, top_p=top_p)
    counts = torch.bincount(tokens, minlength=len(logits)) / points
    return {token: share for token, share in enumerate(counts.tolist()) if share}


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 1.0])
def test_tokens_are_drawn_with_the_shares_of_the_definition(temperature, top_p):
    for logits in some_logits(5).tolist():
        found = drawn_shares(logits, temperature=temperature, top_p=top_p)
        expected = by_definition(logits, temperature=temperature, top_p=top_p)
        # Counting points misses a share by at most one point at each of its two ends.
        assert all(abs(found.get(token, 0) - share) <= 2 / 20_000 for token, share in expected.items())


@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_the_nucleus_is_the_one_of_transformers(top_p):
    logits_BV = some_logits()
    warped_BV = TopPLogitsWarper(top_p)(None, TemperatureLogitsWarper(0.8)(None, logits_BV))
    uniform_U = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    for logits_V, expected_V in zip(logits_BV, warped_BV, strict=True):
        tokens = draw(logits_V.expand(4000, -1), uniform_U, temperature=0.8, top_p=top_p)
        likely = torch.softmax(expected_V, -1) > 1 / 2000  # so that no token falls between two points
        assert set(tokens.tolist()) <= set(expected_V.isfinite().nonzero()[:, 0].tolist())
        assert set(likely.nonzero()[:, 0].tolist()) <= set(tokens.tolist())


@pytest.mark.parametrize("settings", [{"temperature": 1e-9, "top_p": 1.0}, {"temperature": 1.0, "top_p": 0.0}])
def test_the_limits_of_temperature_and_nucleus_are_greedy(settings):
    logits_BV = some_logits()
    uniform_B = torch.rand(50, generator=rng.generator("uniform"), dtype=torch.float64)
    assert torch.equal(draw(logits_BV, uniform_B, **settings), logits_BV.argmax(-1))


@pytest.mark.parametrize("number", [0.0, 1 - 2.0**-53])
def test_the_ends_of_the_unit_interval_draw_tokens_of_the_nucleus(number):
    logits_BV = some_logits(500)
    tokens_B = draw(logits_BV, torch.full((500,), number, dtype=torch.float64), temperature=1.0, top_p=0.5)
    order_BV = logits_BV.sort(-1, descending=True).indices[:, :20]
    assert bool((order_BV == tokens_B[:, None]).any(-1).all())


def test_a_masked_token_is_never_drawn():
    logits_BV = some_logits(500)
    logits_BV[:, ::2] = -math.inf
    uniform_B = torch.rand(500, generator=rng.generator("uniform"), dtype=torch.float64)
    assert bool((draw(logits_BV, uniform_B, temperature=5.0, top_p=1.0) % 2 == 1).all())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.5])
def test_many_answers_have_the_frequencies_of_the_temperature(model, temperature):
    prompts = torch.randint(3, VOCABULARY, (2000, 3), generator=rng.generator("prompts"))
    found = answers(model, prompts.tolist(), max_new_tokens=1, temperature=temperature, batch=2000)
    with torch.no_grad():
        expected_V = torch.softmax(model.module(prompts).logits[:, -1].double() / temperature, -1).sum(0)
    words = [model.tokenizer.decode([token], skip_special_tokens=True) for token in range(VOCABULARY)]
    counts = {word: [answer.text for answer in found].count(word) for word in set(words)}
    # Special tokens all decode to nothing and make one class.
    sums = {
        word: sum(expected_V[token].item() for token, other in enumerate(words) if other == word) for word in counts
    }
    # Pearson's statistic of at most 63 degrees of freedom exceeds 121 by chance once in 10^5.
    assert sum((counts[word] - total) ** 2 / total for word, total in sums.items()) < 121


# ----------------------------------------------------------------------------------------------- what answers depend on


def test_temperature_0_is_greedy(model):
    expected = complete(model, model.trainable, PROMPTS, stop=(), max_new_tokens=12)
    decoded = [model.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in expected]
    assert [answer.text for answer in answers(model)] == decoded


def test_a_vanishing_temperature_is_greedy(model):
    assert answers(model, temperature=1e-6) == answers(model)


def test_greedy_answers_depend_on_no_seed(model):
    assert answers(model, seed=1) == answers(model, seed=2)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_drawn_answer_does_not_depend_on_its_neighbours(model, batch):
    together = answers(model, temperature=1.0, top_p=0.95, seed=4)
    assert answers(model, temperature=1.0, top_p=0.95, seed=4, batch=batch) == together


def test_a_drawn_answer_does_not_depend_on_its_place(model):
    backwards = answers(model, PROMPTS[::-1], temperature=1.0, seed=4)
    assert backwards[::-1] == answers(model, temperature=1.0, seed=4)


def test_a_drawn_answer_begins_as_a_longer_one_does(model):
    short = answers(model, temperature=1.0, max_new_tokens=5)
    long = answers(model, temperature=1.0, max_new_tokens=12)
    assert all(one.text.startswith(other.text) for one, other in zip(long, short, strict=True))


def test_equal_prompts_get_equal_answers(model):
    first, second = answers(model, [PROMPTS[0], PROMPTS[0]], temperature=1.0)
    assert first == second


def test_other_seeds_give_other_answers(model):
    found = {tuple(answer.text for answer in answers(model, temperature=1.0, seed=seed)) for seed in range(5)}
    assert len(found) == 5


def test_other_prompts_draw_other_numbers(model):
    # Two prompts alike but for the last token, at a temperature that makes all tokens alike likely.
    first, second = answers(model, [PROMPTS[0], PROMPTS[4]], temperature=1e6)
    assert first.text != second.text


def test_the_global_generator_is_left_alone(model):
    before = torch.random.get_rng_state()
    answers(model, temperature=1.0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_logits_that_are_not_finite_are_refused(model):
    broken = {name: torch.full_like(tensor, math.nan) for name, tensor in model.trainable.items()}
    with pytest.raises(ModelError, match="the model's logits are not finite"):
        list(complete_tokens(model, broken, PROMPTS, Sampling(), stop=(), batch=4))


# ----------------------------------------------------------------------------------------------------- how answers end


FREE = {"temperature": 1.0, "seed": 3}


def free(model):
    """A drawn answer without an end, of words that differ."""
    return answers(model, PROMPTS[:1], **FREE)[0].text.split()


def until(model, *texts, stop=()):
    return answers(model, PROMPTS[:1], **FREE, stop_texts=texts, stop=stop)[0]


def test_an_answer_ends_at_a_stop_token_that_counts_but_is_not_in_the_text(model):
    third = model.tokenizer.get_vocab()[free(model)[2]]
    stopped = until(model, stop=[third])
    assert (stopped.text.split(), stopped.n_tokens) == (free(model)[:2], 3)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_an_answer_ends_before_a_stop_text_of_several_tokens(model, length):
    words = free(model)
    assert until(model, " ".join(words[4 : 4 + length])).text.split() == words[:4]


def test_nothing_is_generated_behind_a_stop_text(model):
    assert until(model, free(model)[4]).n_tokens == 5


def test_a_stop_text_that_does_not_come_changes_nothing(model):
    assert until(model, "never").text.split() == free(model)


def test_of_several_stop_texts_the_first_to_come_ends_the_answer(model):
    words = free(model)
    assert until(model, words[8], words[3]).text.split() == words[:3]


def test_a_stop_text_that_is_a_special_token_ends_an_answer(model):
    raised = dict(model.trainable)
    head = model.module.get_parameter("lm_head.weight").clone()
    head[2] = 100 * head.abs().amax(0) * torch.sign(hidden_of(model, PROMPTS[0]))
    raised["lm_head.weight"] = raised["model.embed_tokens.weight"] = head
    [(_, found)] = complete_tokens(model, raised, PROMPTS[:1], Sampling(stop=("</s>",)), stop=(), batch=1)
    assert (found.text, found.n_tokens) == ("", 1)


def hidden_of(model, prompt):
    return model.module.model(torch.tensor([prompt])).last_hidden_state[0, -1]


def test_an_answer_ends_where_the_context_is_full(model):
    prompts = [[5] * 60, [5] * 10]
    assert [answer.n_tokens for answer in answers(model, prompts, max_new_tokens=30)] == [4, 30]


def test_a_prompt_that_leaves_no_room_is_refused_beside_the_others(model):
    found = dict(complete_tokens(model, model.trainable, [[5], [5] * 64, [6]], Sampling(), stop=(), batch=1))
    assert found[1] == Completion("", 0, 64, refused="64 tokens, where the model takes fewer than 64")
    assert all(found[place].text and not found[place].refused for place in (0, 2))


def test_the_context_is_the_one_of_the_configuration(model):
    assert model.context_size == 64


def test_tokens_of_prompt_and_answer_are_counted(model):
    assert [(one.prompt_tokens, one.n_tokens) for one in answers(model)] == [(len(p), 12) for p in PROMPTS]


def test_no_prompts_give_no_answers(model):
    assert answers(model, []) == []


# ------------------------------------------------------------------------------------------------------ in a template


def vicuna():
    return lookup(Template, "vicuna")()


def test_a_prompt_in_a_template_gives_the_answer_to_its_tokens(model):
    prompt = (Turn("user", "w3 w4"),)
    tokens = prompt_tokens(vicuna(), prompt, model.tokenizer)
    [expected] = answers(model, [tokens], stop=stop_tokens(vicuna(), model.tokenizer))
    [(_, found)] = complete_with(model, model.trainable, vicuna(), [prompt], Sampling(max_new_tokens=12))
    assert (found.text, found.n_tokens) == (expected.text.strip(), expected.n_tokens)


def test_the_end_of_the_template_ends_an_answer(model):
    assert stop_tokens(vicuna(), model.tokenizer) == {model.tokenizer.eos_token_id}


# ----------------------------------------------------------------------------------------------------------- questions


def embedded():
    return CausalLM().build(seed=0, device=torch.device("cpu"))


@pytest.mark.parametrize("name", ["own", "alpaca", "vicuna"])
def test_a_question_begins_where_the_template_puts_one(name):
    model, template = embedded(), lookup(Template, name)()
    begun, end = opening(template, model.tokenizer)
    asked = prompt_tokens(template, (Turn("user", "what is sold?"),), model.tokenizer)
    whole, start = model.tokenizer.decode(asked), model.tokenizer.decode(begun)
    assert begun and whole.startswith(start) and end.strip() in whole.removeprefix(start)
    assert asked[: len(begun)] == begun  # the very tokens that training has


def test_an_empty_prompt_is_answered_by_a_question_of_its_own_seed():
    model, own = embedded(), lookup(Template, "own")()
    drawn = Sampling(max_new_tokens=24, temperature=1.0)
    prompts, seeds = [(), (Turn("user", "what is 2 plus 3?"),), ()], [7, 8, 9]
    together = dict(complete_with(model, model.trainable, own, prompts, drawn, seeds))
    alone = [
        dict(complete_with(model, model.trainable, own, [p], drawn, [s]))[0]
        for p, s in zip(prompts, seeds, strict=True)
    ]
    assert [together[place] for place in range(3)] == alone
    questions = {together[0].text, together[2].text}
    assert len(questions) == 2 and "" not in questions and not any("<|" in text for text in questions)
    seeded = Sampling(max_new_tokens=24, temperature=1.0, seed=9)
    assert dict(complete_with(model, model.trainable, own, [()], seeded))[0] == together[2]


def test_a_template_that_rewrites_questions_opens_none():
    class Shouting(type(lookup(Template, "own")())):
        def pieces(self, turns, tokenizer):
            return [replace(piece, text=piece.text.upper()) for piece in super().pieces(turns, tokenizer)]

    with pytest.raises(ModelError, match="nothing tells where a question begins"):
        opening(Shouting(), embedded().tokenizer)


def test_what_follows_a_question_ends_it(monkeypatch):
    from fedloom.models import generation

    stops = []

    def recorded(model, params, prompts, sampling, **_):
        stops.append(sampling.stop)
        return iter(())

    monkeypatch.setattr(generation, "complete_tokens", recorded)
    model, alpaca = embedded(), lookup(Template, "alpaca")()
    list(complete_with(model, model.trainable, alpaca, [(), (Turn("user", "why?"),)], Sampling(stop=("x",))))
    assert stops == [("x",), ("x", opening(alpaca, model.tokenizer)[1])] and "### Response:" in stops[1][1]
