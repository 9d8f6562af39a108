"""Supervised fine-tuning: which tokens are learnt, the loss against a plain one, greedy answers against `generate`."""

import random
import re
import warnings
from dataclasses import replace
from functools import cache

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch.func import functional_call
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    ByT5Tokenizer,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from fedloom.base.errors import ConfigError, DataError, ModelError
from fedloom.base.plugin import lookup
from fedloom.contracts.examples import Chat, Document, Preference, Turn, chat
from fedloom.contracts.federated import ForwardContext, Prediction, Template
from fedloom.contracts.language import LanguageModel
from fedloom.models.causal_lm import CausalLM
from fedloom.models.decoder import complete
from fedloom.models.generation import prompt_tokens
from fedloom.models.packing import pack
from fedloom.tasks.sft import Sft
from support.paths import SHARED as DATA
from support.tokenizers import CHAT_TEMPLATE, KINDS, LOSSLESS, ROLE_TEMPLATE, prefixed, random_text, tokenizer

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 500}
CONFIGS = {
    "llama": LlamaConfig(**SIZES, intermediate_size=48, num_key_value_heads=2, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SIZES, intermediate_size=48, num_key_value_heads=2),
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=500, n_positions=256),
}
FIVE_TYPES = ("llama2", "llama3", "qwen", "mistral", "gemma")
DIALOGUE = Chat(
    (
        Turn("user", "who sells bread?"),
        Turn("assistant", "the baker."),
        Turn("user", "when?"),
        Turn("assistant", "every day"),
    )
)


def _task(template="alpaca", **fields):
    return Sft(template=lookup(Template, template)(), **fields)


def _record(module, trainable, made):
    return LanguageModel(
        module=module,
        trainable=trainable,
        tokenizer=made,
        context=ForwardContext(),
        base_id="test",
        stackable=False,
        passage="row",
    )


def _model(kind="qwen", architecture="llama", made=None):
    """Return a random model whose parameters are all trainable."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(CONFIGS[architecture]).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    trainable = {name: 4 * parameter.detach().clone() for name, parameter in module.named_parameters()}
    return _record(module, trainable, made or tokenizer(kind))


@cache
def _bare(kind):
    """Return a model record for encoding only."""
    return _record(torch.nn.Linear(1, 1), {}, tokenizer(kind))


def _random_chats(n, seed=0):
    rng = random.Random(seed)
    return [chat(random_text(rng), random_text(rng)) for _ in range(n)]


def _prompt(task, example, model):
    return prompt_tokens(task.template, example.prompt, model.tokenizer)


def _tokens(encoded):
    return encoded.tokens_T.tolist()


def _learnt(encoded):
    return encoded.tokens_T[encoded.supervised_T].tolist()


# ----------------------------------------------------------------------------------------------------- what is learnt


@pytest.mark.parametrize("kind", FIVE_TYPES)
def test_every_one_of_a_thousand_random_examples_has_supervised_tokens(kind):
    task = _task(max_length=100_000)
    assert all(task.encode(example, _bare(kind)).supervised_T.any() for example in _random_chats(1000))


@pytest.mark.parametrize("kind", LOSSLESS)
def test_supervised_tokens_decode_to_the_answer_and_its_end(kind):
    task, model = _task(max_length=100_000), _bare(kind)
    eos = model.tokenizer.eos_token
    lead = model.tokenizer("0", add_special_tokens=False).input_ids
    for example in _random_chats(250, seed=1):
        learnt = _learnt(task.encode(example, model))
        # After a digit, so that the decoder has no beginning of a text to strip.
        text = model.tokenizer.decode(lead + learnt, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert text == f"0 {example.reference}{eos}"


@pytest.mark.parametrize("kind", FIVE_TYPES)
@pytest.mark.parametrize("answer", ["\n\nthe baker", "  the baker", "7.", "'tis", "the\n"])
def test_an_answer_that_tokenizers_like_to_join_to_the_prompt_is_kept_apart(kind, answer):
    made = tokenizer(kind, chat_template=CHAT_TEMPLATE)
    learnt = _learnt(_task("chatml").encode(chat("who sells bread?", answer), _model(made=made)))
    lead = made("0", add_special_tokens=False).input_ids
    assert made.decode(lead + learnt, clean_up_tokenization_spaces=False) == f"0{answer}<|im_end|>"


def test_supervised_tokens_of_wordpiece_are_those_of_the_answer_alone():
    task, model = _task(), _bare("wordpiece")
    for example in _random_chats(200, seed=1):
        alone = model.tokenizer(f"{example.reference}[SEP]", add_special_tokens=False).input_ids
        assert _learnt(task.encode(example, model)) == alone


@pytest.mark.parametrize("kind", LOSSLESS)
def test_tokens_decode_to_the_training_text(kind):
    task, model = _task(max_length=100_000), _bare(kind)
    for example in _random_chats(50, seed=2):
        text = "".join(piece.text for piece in task.template.pieces(example.turns, model.tokenizer))
        decoded = model.tokenizer.decode(_tokens(task.encode(example, model)), clean_up_tokenization_spaces=False)
        begin = f"{model.tokenizer.bos_token} " if kind in ("llama2", "mistral") else model.tokenizer.bos_token or ""
        assert decoded.removeprefix(begin) == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", ["alpaca", "vicuna"])
def test_the_prompt_ids_are_a_prefix_of_the_training_ids(kind, template):
    task, model = _task(template, max_length=100_000), _bare(kind)
    for example in _random_chats(50, seed=3):
        prompt = _prompt(task, example, model)
        encoded = task.encode(example, model)
        assert _tokens(encoded)[: len(prompt)] == prompt
        assert encoded.supervised_T.tolist() == [False] * len(prompt) + [True] * (len(_tokens(encoded)) - len(prompt))


@pytest.mark.parametrize("kind", KINDS)
def test_the_prompt_ids_of_a_second_question_are_a_prefix_too(kind):
    prompt = _prompt(_task(), DIALOGUE, _bare(kind))
    assert _tokens(_task().encode(DIALOGUE, _bare(kind)))[: len(prompt)] == prompt


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_begins_as_the_tokenizer_begins_a_text(kind):
    model = _bare(kind)
    text = "".join(piece.text for piece in _task().template.pieces(DIALOGUE.prompt, model.tokenizer))
    assert _tokens(_task().encode(DIALOGUE, model))[:12] == model.tokenizer(text).input_ids[:12]


def test_a_chat_template_that_writes_the_begin_token_gets_no_second_one():
    made = tokenizer("llama3", chat_template="{{ bos_token }}" + CHAT_TEMPLATE)
    encoded = Sft().encode(DIALOGUE, _model(made=made))
    assert _tokens(encoded).count(made.bos_token_id) == 1


def test_a_chat_template_without_the_begin_token_gets_none_as_servers_add_none():
    made = tokenizer("llama3", chat_template=CHAT_TEMPLATE)
    messages = [{"role": turn.role, "content": turn.text} for turn in DIALOGUE.turns]
    served = made.apply_chat_template(messages)["input_ids"]
    found = _tokens(Sft().encode(DIALOGUE, _model(made=made)))
    assert made.bos_token_id not in found
    assert served[: len(found)] == found


def test_answers_that_a_template_rewrites_are_learnt_from_the_tokens_that_servers_send():
    strips = "{% if m.role == 'assistant' and loop.last %}{{ '<think></think>' }}{% endif %}{{ m.content }}"
    rewrites = CHAT_TEMPLATE.replace("{{ m.content }}", strips).replace("assistant\n{%", "assistant\n<think></think>{%")
    made = tokenizer("llama3", chat_template=rewrites)
    encoded = Sft(max_length=10_000).encode(DIALOGUE, _model(made=made))
    parts = [part.tolist() for part in encoded.tokens_T.split(encoded.lengths)]
    messages = [{"role": turn.role, "content": turn.text} for turn in DIALOGUE.turns]
    places = [place for place, turn in enumerate(DIALOGUE.turns) if turn.role == "assistant"]
    served = [made.apply_chat_template(messages[: place + 1])["input_ids"] for place in places]
    assert parts == [tokens[: len(part)] for tokens, part in zip(served, parts, strict=True)]
    assert not encoded.truncated and len(parts) > 1


@pytest.mark.parametrize("made", [prefixed(), tokenizer("stories", chat_template=ROLE_TEMPLATE)])
def test_an_answer_right_after_a_special_token_has_the_tokens_it_has_in_the_whole_text(made):
    made.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>", "<|end|>"]})
    messages = [{"role": turn.role, "content": turn.text} for turn in DIALOGUE.turns]
    whole = made(made.apply_chat_template(messages, tokenize=False)).input_ids
    assert _tokens(Sft().encode(DIALOGUE, _model(made=made))) == whole


@pytest.mark.parametrize("kind", ["llama2", "qwen", "gemma"])
@pytest.mark.parametrize("template", ["own", "chatml"])
def test_added_special_tokens_stay_whole(kind, template):
    made = tokenizer(kind, chat_template=CHAT_TEMPLATE)
    tokens = _tokens(_task(template).encode(DIALOGUE, _model(made=made)))
    start, end = made.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert (tokens.count(start), tokens.count(end)) == (4, 4)


@pytest.mark.parametrize("kind", ["llama2", "qwen", "gemma"])
@pytest.mark.parametrize("template", ["own", "chatml", "alpaca"])
def test_every_answer_of_a_dialogue_is_learnt(kind, template):
    made = tokenizer(kind, chat_template=CHAT_TEMPLATE)
    text = made.decode(_learnt(_task(template).encode(DIALOGUE, _model(made=made))))
    end = made.eos_token if template == "alpaca" else "<|im_end|>"
    assert re.sub(" ", "", text) == f"thebaker.{end}everyday{end}"


def test_a_document_is_learnt_in_full_but_for_its_begin_token():
    encoded = _task().encode(Document("the old baker"), _bare("llama3"))
    text = _bare("llama3").tokenizer.decode(_learnt(encoded))
    assert text == "the old baker<|end_of_text|>" and encoded.supervised_T[1:].all()


def test_the_first_token_of_a_document_is_not_learnt():
    assert not _task().encode(Document("the old baker"), _bare("qwen")).supervised_T[0]


def test_settings_that_an_earlier_call_left_in_the_tokenizer_do_not_cut_examples():
    made = tokenizer("qwen", chat_template=CHAT_TEMPLATE)
    expected = _tokens(_task().encode(DIALOGUE, _model(made=made)))
    made("text", truncation=True, max_length=3, padding="max_length")
    assert _tokens(_task().encode(DIALOGUE, _model(made=made))) == expected


@pytest.mark.shared
def test_the_sentencepiece_tokenizer_of_a_published_model_learns_the_answer():
    made = AutoTokenizer.from_pretrained(DATA / "model-stories260k" / "hf")
    model = _record(torch.nn.Linear(1, 1), {}, made)
    for example in _random_chats(100, seed=4):
        learnt = _learnt(_task(max_length=100_000).encode(example, model))
        lead = made("0", add_special_tokens=False).input_ids
        text = made.decode(lead + learnt, clean_up_tokenization_spaces=False)
        assert text == f"0 {example.reference}</s>"


def test_a_tokenizer_that_joins_an_answer_to_whatever_precedes_it_is_refused():
    backend = Tokenizer(WordLevel({"[UNK]": 0, "[SEP]": 1}, unk_token="[UNK]"))
    made = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", eos_token="[SEP]")
    with pytest.raises(ModelError, match=r"joins ' the baker.\[SEP\]' to every text before it"):
        _task().encode(DIALOGUE, _model(made=made))


# --------------------------------------------------------------------------------------------- what is lost on the way


def test_a_long_answer_is_cut_from_the_right_and_flagged():
    whole = _task().encode(DIALOGUE, _bare("qwen"))
    cut = _task(max_length=len(_tokens(whole)) - 2).encode(DIALOGUE, _bare("qwen"))
    assert (_tokens(cut), cut.truncated, cut.prompt_too_long) == (_tokens(whole)[:-2], True, False)


def test_an_example_that_fits_exactly_is_not_flagged():
    whole = _task().encode(DIALOGUE, _bare("qwen"))
    fitting = _task(max_length=len(_tokens(whole))).encode(DIALOGUE, _bare("qwen"))
    assert (fitting.truncated, fitting.prompt_too_long, fitting.empty_answer) == (False, False, False)


def test_a_prompt_that_leaves_no_room_is_flagged_and_has_nothing_to_learn():
    encoded = _task(max_length=20).encode(DIALOGUE, _bare("qwen"))
    assert (encoded.prompt_too_long, encoded.truncated, int(encoded.supervised_T.sum())) == (True, False, 0)


def test_an_empty_answer_is_flagged_and_its_end_learnt():
    encoded = _task("vicuna").encode(chat("hello", ""), _bare("gpt2"))
    assert encoded.empty_answer and _learnt(encoded)[-1] == _bare("gpt2").tokenizer.eos_token_id


def test_an_empty_document_is_flagged():
    assert _task().encode(Document(" \n"), _bare("qwen")).empty_answer


def test_a_preference_is_refused():
    with pytest.raises(DataError, match="learns from Chat and Document examples, found a Preference"):
        _task().encode(Preference((Turn("user", "a"),), "b", "c"), _bare("qwen"))


def test_a_document_without_an_end_token_to_learn_is_refused():
    made = tokenizer("qwen", chat_template=CHAT_TEMPLATE)
    made.eos_token = None
    with pytest.raises(ModelError, match="no end-of-text token, documents need one"):
        _task().encode(Document("a"), _model(made=made))


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(ModelError, match="tokenizer ByT5Tokenizer is slow"):
        _task().encode(DIALOGUE, _model(made=ByT5Tokenizer()))


# ------------------------------------------------------------------------------------------------------------ batches


EXAMPLES = (*_random_chats(5, seed=5), DIALOGUE)


def _items(model, examples=EXAMPLES, task=None):
    return [(task or _task()).encode(example, model) for example in examples]


def _batch(model, task=None, examples=EXAMPLES):
    return _task().collate([_items(model, examples, task)], model)


def test_a_batch_of_one_client_holds_its_examples_and_nothing_else():
    model = _bare("qwen")
    assert _batch(model).tokens_N.tolist() == [token for item in _items(model) for token in _tokens(item)]


def test_a_batch_asks_for_the_supervised_tokens_and_nothing_else():
    model = _bare("qwen")
    assert _batch(model).targets_S.tolist() == [token for item in _items(model) for token in _learnt(item)]


def test_each_token_is_asked_of_the_one_before_it():
    batch = _batch(_bare("qwen"))
    assert torch.equal(batch.tokens_N[batch.asked_S + 1], batch.targets_S)


def test_padding_behind_a_shorter_client_is_not_asked_for(monkeypatch):
    monkeypatch.setattr("fedloom.models.packing.LEAST_SLACK", 10_000)
    model = _bare("qwen")
    items = _items(model)
    batch = pack([items[:4], items[4:]], model.device)
    assert len(batch.padding_Q) > 0 and not torch.isin(batch.padding_Q, batch.asked_S).any()


@pytest.mark.parametrize("kind", ["gpt2", "llama2", "qwen"])
def test_the_end_token_of_every_example_is_learnt(kind):
    model = _bare(kind)
    batch = _batch(model)
    ends = batch.example_S[batch.targets_S == model.tokenizer.eos_token_id]
    assert set(ends.tolist()) == set(range(6))


def test_batches_are_int64():
    batch = _batch(_bare("qwen"))
    assert (batch.tokens_N.dtype, batch.positions_N.dtype) == (torch.int64, torch.int64)


# --------------------------------------------------------------------------------------------------------------- loss


def _plain_loss(model, params, items):
    """Return the loss of each example from all logits of it alone, one token at a time."""
    totals = []
    for item in items:
        tokens = _tokens(item)
        output = functional_call(model.module, params, kwargs={"input_ids": torch.tensor([tokens])})
        log_probability = torch.log_softmax(output.logits[0], dim=-1)
        wanted = [t for t in range(1, len(tokens)) if item.supervised_T[t]]
        totals.append(-sum((log_probability[t - 1, tokens[t]] for t in wanted), torch.zeros(())))
    return torch.stack(totals)


def _leaves(model):
    return {name: tensor.clone().requires_grad_() for name, tensor in model.trainable.items()}


@pytest.mark.parametrize("architecture", CONFIGS)
def test_the_loss_is_the_plain_cross_entropy(architecture):
    model = _model(architecture=architecture)
    total_B = _task().loss(model, model.trainable, _batch(model)).total_B
    torch.testing.assert_close(total_B, _plain_loss(model, model.trainable, _items(model)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_the_gradients_are_those_of_the_plain_cross_entropy(architecture):
    model = _model(architecture=architecture)
    batch, params = _batch(model), _leaves(model)
    found = torch.autograd.grad(_task().loss(model, params, batch).total_B.sum(), list(params.values()))
    expected = torch.autograd.grad(_plain_loss(model, params, _items(model)).sum(), list(params.values()))
    for name, ours, theirs in zip(params, found, expected, strict=True):
        error = (ours - theirs).norm() / (theirs.norm() + 1e-6 * (params[name].norm() + 1))
        assert error < 1e-5, name


def test_the_weight_is_the_number_of_supervised_tokens():
    model = _model()
    weight_B = _task().loss(model, model.trainable, _batch(model)).weight_B
    assert weight_B.tolist() == [int(item.supervised_T.sum()) for item in _items(model)]


@pytest.mark.parametrize("architecture", CONFIGS)
def test_examples_of_a_batch_do_not_influence_one_another(architecture):
    model, examples = _model(architecture=architecture), [*_random_chats(5, seed=6), DIALOGUE]
    together = _task().loss(model, model.trainable, _batch(model, examples=examples)).total_B
    alone = [_task().loss(model, model.trainable, _batch(model, examples=[e])).total_B for e in examples]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


def _unsupervised(batch):
    none_S = batch.asked_S[:0]
    return replace(batch, asked_S=none_S, targets_S=none_S, example_S=none_S)


def test_a_batch_without_supervised_tokens_weighs_nothing():
    model = _model()
    loss = _task().loss(model, model.trainable, _unsupervised(_batch(model)))
    assert (loss.total_B.tolist(), loss.weight_B.tolist()) == ([0.0] * 6, [0.0] * 6)


def test_a_batch_without_supervised_tokens_has_gradients_of_zero():
    model = _model()
    params = _leaves(model)
    total = _task().loss(model, params, _unsupervised(_batch(model))).total_B.sum()
    gradients = torch.autograd.grad(total, list(params.values()))
    assert all(not gradient.any() for gradient in gradients)


def test_the_loss_of_a_bfloat16_model_is_a_float32_sum():
    model = _model()
    half = _record(model.module.to(torch.bfloat16), {}, model.tokenizer)
    assert _task().loss(half, {}, _batch(half)).total_B.dtype == torch.float32


def test_the_loss_of_a_float64_model_stays_float64():
    model = _model()
    double = _record(model.module.double(), {}, model.tokenizer)
    assert _task().loss(double, {}, _batch(double)).total_B.dtype == torch.float64


# ------------------------------------------------------------------------------------------------------------- answers


def _generated(model, prompt, *, max_new_tokens, stop):
    """Return what `transformers` generates for one prompt alone."""
    config = GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=list(stop), pad_token_id=0)
    module = AutoModelForCausalLM.from_config(model.module.config).eval()
    module.load_state_dict(model.trainable, strict=False)
    module.tie_weights()
    tokens = torch.tensor([prompt])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = module.generate(tokens, attention_mask=torch.ones_like(tokens), generation_config=config)
    return found[0, len(prompt) :].tolist()


@pytest.mark.parametrize("architecture", CONFIGS)
def test_answers_equal_those_of_generate_one_by_one(architecture):
    model = _model(architecture=architecture)
    prompts = [_prompt(_task(), example, model) for example in _random_chats(7, seed=7)]
    free = [_generated(model, prompt, max_new_tokens=12, stop=[499]) for prompt in prompts]
    stop = frozenset({free[0][3], free[1][5]})  # so that rows end at different times
    expected = [_generated(model, prompt, max_new_tokens=12, stop=stop) for prompt in prompts]
    assert complete(model, model.trainable, prompts, stop=stop, max_new_tokens=12) == expected
    assert len({len(answer) for answer in expected}) > 1


def test_predictions_come_in_the_order_of_the_examples():
    model, examples = _model(), _random_chats(9, seed=8)
    (together,) = _task(batch=4).predict(model, model.trainable, [examples], max_new_tokens=5)
    alone = [_task().predict(model, model.trainable, [[example]], max_new_tokens=5)[0][0] for example in examples]
    assert together == alone


def _taught(model, example, template="alpaca", steps=40):
    task = _task(template)
    params, batch = _leaves(model), _batch(model, task, (example,))
    optimiser = torch.optim.Adam(params.values(), lr=5e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        task.loss(model, params, batch).total_B.sum().backward()
        optimiser.step()
    return {name: tensor.detach() for name, tensor in params.items()}


@pytest.mark.parametrize("template", ["alpaca", "chatml"])
def test_a_taught_answer_is_given_and_ended(template):
    made = tokenizer("llama2", chat_template=CHAT_TEMPLATE)
    model, example = _model(made=made), chat("who sells bread?", "the old baker.")
    params = _taught(model, example, template)
    n_learnt = int(_task(template).encode(example, model).supervised_T.sum())
    (predictions,) = _task(template).predict(model, params, [[example]], max_new_tokens=40)
    assert predictions == [Prediction("the old baker.", n_learnt)]


def test_a_prompt_that_is_too_long_is_not_answered():
    model = _model()
    task = _task(max_length=40)
    (predictions,) = task.predict(model, model.trainable, [[chat("the " * 50, "a")]], max_new_tokens=5)
    assert predictions == [Prediction("", 0)]


def test_the_last_question_is_answered_after_the_first_answer():
    prompt = _bare("qwen").tokenizer.decode(_prompt(_task("vicuna"), DIALOGUE, _bare("qwen")))
    assert prompt.endswith("USER: who sells bread? ASSISTANT: the baker.<|im_end|>USER: when? ASSISTANT:")


def test_no_examples_give_no_predictions():
    assert _task().predict(_model(), _model().trainable, [[]], max_new_tokens=5) == [[]]


def test_a_document_is_not_answered():
    with pytest.raises(DataError, match="found a Document to be answered: it has no question"):
        _task().predict(_model(), _model().trainable, [[Document("a")]], max_new_tokens=5)


def test_answers_beyond_the_position_table_are_refused():
    model = replace(_model(architecture="gpt2"), positions=256)
    with pytest.raises(ConfigError, match=r"tokens, the model has 256 positions: lower task\.max_length"):
        _task().predict(model, model.trainable, [[DIALOGUE]], max_new_tokens=250)


def test_whole_conversations_are_learnt_where_that_is_asked_for():
    model = CausalLM().build(seed=0, device=torch.device("cpu"))
    answers, everything = (Sft(learn=what).encode(DIALOGUE, model) for what in ("answers", "all"))
    assert torch.equal(answers.tokens_T, everything.tokens_T)
    assert bool(everything.supervised_T[1:].all()) and not bool(answers.supervised_T.all())
    examined = Sft(learn="all").examining().encode(DIALOGUE, model)
    assert torch.equal(examined.supervised_T, answers.supervised_T)
    batch = Sft().collate([[everything]], model)
    loss = Sft().loss(model, model.trainable, batch)
    assert int(loss.weight_B.sum()) == len(everything.tokens_T) - 1  # the first token has nothing before it
