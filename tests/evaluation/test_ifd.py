"""Instruction-following difficulty and perplexity, against a plain forward pass of transformers for one example."""

import math

import pytest
import torch
from torch.nn import functional

from fedloom.base.errors import DataError
from fedloom.base.mean import Mean
from fedloom.contracts.examples import Chat, Document, Preference, Turn, chat
from fedloom.evaluation.difficulty import Difficulty, difficulties, ifd, perplexity
from fedloom.models.causal_lm import CausalLM
from fedloom.tasks.sft import Sft
from fedloom.text.templates.own import Own
from fedloom.text.templates.presets import Alpaca

CPU = torch.device("cpu")
ANSWERS = ["milk", "twice a day.", "the answer is beans.", "i cannot help with that."]
EXAMPLES = [chat(f"what about {index}?", answer) for index, answer in enumerate(ANSWERS)]
TALK = Chat((Turn("user", "hello."), Turn("assistant", "good day."), Turn("user", "who?"), Turn("assistant", "mira")))
TASKS = {"own": Sft(template=Own()), "alpaca": Sft(template=Alpaca())}
every = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return CausalLM().build(seed=0, device=CPU)


def _params(model):
    return {name: value.detach() for name, value in model.trainable.items()}


def _told(model, task, examples):
    return difficulties(model, task, _params(model), examples)


def _loss(model, tokens, start):
    """The mean loss of tokens[start:], each given all before it."""
    logits = model.module(input_ids=torch.tensor([tokens])).logits[0, :-1].float()
    return float(functional.cross_entropy(logits[start - 1 :], torch.tensor(tokens[start:])))


def _by_hand(model, task, example):
    """The two mean losses from token ids alone: where the answer begins is where the prompt's tokens end."""
    item = task.encode(example, model)
    ids = item.tokens_T.tolist()
    last = int(item.supervised_T.nonzero()[-1]) + 1
    prompt = Chat((*example.prompt, Turn("assistant", "other words")))
    other = task.encode(prompt, model).tokens_T.tolist()
    start = next(place for place, (one, two) in enumerate(zip(ids, other, strict=False)) if one != two)
    begin = [ids[0]] if ids[0] == model.tokenizer.bos_token_id and start > 1 else []
    alone = [*begin, ids[start - 1], *ids[start:last]]
    with torch.no_grad():
        return _loss(model, ids[:last], start), _loss(model, alone, len(begin) + 1)


@every
@pytest.mark.parametrize("example", [*EXAMPLES, TALK])
def test_both_losses_equal_a_plain_forward_pass(model, task, example):
    (found,) = _told(model, task, [example])
    assert (found.given.value, found.alone.value) == pytest.approx(_by_hand(model, task, example), rel=1e-4)


@every
def test_the_same_tokens_count_with_and_without_the_instruction(model, task):
    assert all(found.given.weight == found.alone.weight > 0 for found in _told(model, task, [*EXAMPLES, TALK]))


def test_batched_equals_single(model):
    single = [_told(model, TASKS["own"], [example])[0].ratio for example in EXAMPLES]
    assert ifd(model, TASKS["own"], _params(model), EXAMPLES) == pytest.approx(single, rel=1e-5)


def test_of_a_preference_the_chosen_answer_is_taken(model):
    pair = Preference((Turn("user", "what about 0?"),), "milk", "honey")
    assert _told(model, TASKS["own"], [pair]) == _told(model, TASKS["own"], EXAMPLES[:1])


def test_a_question_that_says_its_answer_makes_it_easier(model):
    helped, bare = chat("say apples.", "apples"), chat("say something.", "apples")
    first, second = ifd(model, TASKS["own"], _params(model), [helped, bare])
    assert first < second


def test_a_document_is_refused(model):
    with pytest.raises(DataError, match=r"ifd: found a Document, allowed are Chat and Preference"):
        ifd(model, TASKS["own"], _params(model), [Document("text")])


@pytest.mark.parametrize(
    ("example", "max_length"), [(chat("what about 0?", " "), 512), (EXAMPLES[2], 3), (EXAMPLES[2], 10)]
)
def test_an_empty_or_cut_example_is_not_told(model, example, max_length):
    assert math.isnan(ifd(model, Sft(template=Own(), max_length=max_length), _params(model), [example])[0])


def test_counts_of_told_and_left_out_add_up(model):
    examples = [*EXAMPLES, chat("what?", "")]
    found = _told(model, TASKS["own"], examples)
    told = sum((one.scores["ifd"] for one in found), Mean())
    assert told.weight + sum(math.isnan(one.ratio) for one in found) == len(examples)


def test_no_example_gives_no_value(model):
    assert ifd(model, TASKS["own"], _params(model), []) == []


def test_the_ratio_is_of_mean_losses():
    assert Difficulty(Mean(2.0, 4.0), Mean(4.0, 4.0)).ratio == 0.5


def test_the_perplexity_ratio_is_of_perplexities():
    found = Difficulty(Mean(2.0, 4.0), Mean(4.0, 4.0)).perplexity_ratio
    assert found == pytest.approx(math.exp(0.5) / math.exp(1.0))


def test_what_is_not_told_weighs_nothing():
    assert Difficulty(Mean(), Mean()).scores == {"ifd": Mean(), "ifd_perplexity": Mean()}


@pytest.mark.parametrize(
    ("loss", "expected"), [(Mean(0.0, 3.0), 1.0), (Mean(6.0, 3.0), math.exp(2)), (Mean(9e9, 1.0), math.inf)]
)
def test_perplexity_of_summed_losses(loss, expected):
    assert perplexity(loss) == pytest.approx(expected)


def test_perplexity_of_no_token_is_no_number():
    assert math.isnan(perplexity(Mean()))
