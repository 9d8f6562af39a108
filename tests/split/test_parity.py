"""The U-shape against the uncut model: loss and every gradient, to the last bit (4.2 of the specification)."""

import re
from dataclasses import replace

import pytest
import torch

from fedloom.base.errors import ConfigError, ModelError
from fedloom.split.cut import Cut, anatomy_of, segments
from fedloom.split.ends import Ends
from fedloom.split.messages import Tally
from fedloom.split.parts import part_of
from support.split_models import Halves, differences, examples, model, seeds_of, uncut

CUTS = [Cut(1, 1), Cut(2, 1), Cut(1, 3)]
PREFIX = {"prefix": 4}
PROMPTS = {"attends": "prefix_lm"}
CASES = {
    "llama, tied head": {},
    "llama, head of its own": {"tie_word_embeddings": False},
    "llama, dropout": {"dropout": 0.3},
    "llama, all weights, tied": {"rank": 0},
    "llama, all weights, head of its own": {"rank": 0, "tie_word_embeddings": False},
    "smollm2's sizes": {
        **{"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3},
        **{"rope_theta": 100_000.0, "rms_norm_eps": 1e-5, "max_position_embeddings": 8192},
    },
    "qwen2": {"architecture": "qwen2"},
    "qwen2, dropout": {"architecture": "qwen2", "dropout": 0.3},
    "gpt2": {"architecture": "gpt2"},
    "gpt2, all weights": {"architecture": "gpt2", "rank": 0},
    "llama, prefix, tied": {"rank": 0, "settings": PREFIX},
    "llama, prefix, head of its own": {"rank": 0, "settings": PREFIX, "tie_word_embeddings": False},
    "llama, prefix beside factors, dropout": {"settings": PREFIX, "dropout": 0.3},
    "qwen2, prefix": {"architecture": "qwen2", "rank": 0, "settings": PREFIX},
    "gpt2, prefix": {"architecture": "gpt2", "rank": 0, "settings": PREFIX},
    "llama, prompts both ways": {"settings": PROMPTS, "dropout": 0.3},
    "llama, prompts both ways behind a prefix": {"rank": 0, "settings": PROMPTS | PREFIX},
    "qwen2, one row": {"architecture": "qwen2", "settings": {"attention": "sdpa"}},
}
KINDS = ["factors", "prefix", "prompts both ways"]
PARTS = [examples(9, 4, 17, 6)]


@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_the_u_shape_is_the_uncut_model_in_loss_and_every_gradient(case, cut):
    made, dropout = model(**CASES[case]), "dropout" in CASES[case]
    wanted, wanted_loss = uncut(made, PARTS, dropout=dropout)
    found, loss = Halves(made, cut, 1).gradients(PARTS, dropout=dropout)
    assert set(differences(found, wanted).values()) == {0.0}
    assert torch.equal(loss, wanted_loss)
    assert all(float(one.abs().sum()) > 0 for one in wanted.values())


@pytest.mark.parametrize("kind", [{}, {"settings": PREFIX}, {"settings": PROMPTS}], ids=KINDS)
def test_parity_holds_over_accumulated_micro_batches(kind):
    made = model(dropout=0.3, **kind)
    wanted, wanted_loss = uncut(made, PARTS, dropout=True, n_micro=2)
    found, loss = Halves(made, Cut(2, 1), 1).gradients(PARTS, dropout=True, n_micro=2)
    assert set(differences(found, wanted).values()) == {0.0}
    assert torch.equal(loss, wanted_loss)


def test_dropout_by_name_changes_the_gradients_at_all():
    made = model(dropout=0.3)
    assert max(differences(uncut(made, PARTS, dropout=True)[0], uncut(made, PARTS)[0]).values()) > 0.1


@pytest.mark.parametrize("kind", [{}, {"rank": 0, "settings": PREFIX}, {"settings": PROMPTS}], ids=KINDS)
def test_a_batch_whose_parts_are_padded_is_the_uncut_batch(kind):
    made, parts = model(**kind), [examples(9, 4), examples(6, 5, seed=1), examples(8, 4, seed=2)]
    wanted, _ = uncut(made, parts)
    found, _ = Halves(made, Cut(1, 1), 3).gradients(parts)
    assert max(differences(found, wanted).values()) <= 1e-6


def test_models_that_pass_an_example_at_a_time_are_cut_alike():
    made = model("gpt2")
    alone = made.__class__(**vars(made) | {"passage": "alone"})
    wanted, _ = uncut(alone, PARTS)
    found, _ = Halves(alone, Cut(1, 1), 1).gradients(PARTS)
    assert max(differences(found, wanted).values()) == 0.0


@pytest.mark.parametrize("kind", [{}, {"settings": PREFIX}, {"settings": PROMPTS}], ids=KINDS)
def test_recomputing_the_middle_changes_no_bit(kind):
    made = model(dropout=0.3, **kind)
    wanted, _ = Halves(made, Cut(1, 1), 1).gradients(PARTS, dropout=True)
    found, _ = Halves(made, Cut(1, 1), 1, recompute=True).gradients(PARTS, dropout=True)
    assert set(differences(found, wanted).values()) == {0.0}


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_a_prefix_lies_where_its_block_is_and_none_of_it_travels(cut):
    """D3: messages are byte for byte as many as those of factors; what is trained is of each side's own blocks."""
    sizes, blocks = [], cut.middle(6)
    for kind in ({"rank": 2}, {"rank": 0, "settings": PREFIX}):
        made = model(**kind)
        halves = Halves(made, cut, 1)
        seeds = seeds_of(halves.clients)
        turn = halves.turn(PARTS, seeds)
        ahead = turn.ahead()
        body, _ = halves.body.forward(ahead, seeds)
        grads = turn.loss(body)
        back, _, _ = halves.body.backward(grads, seeds)
        sizes.append([(one.kind, one.n_bytes) for one in (*ahead, *body, *grads, *back)])
    assert sizes[0] == sizes[1]
    n_tokens, width = sum(len(item.tokens_T) for item in PARTS[0]), made.width
    assert [size for _, size in sizes[1]] == [4 * n_tokens * width + more for more in (4 * len(PARTS[0]), 0, 8, 0)]
    block_of = anatomy_of(made.module).block_of
    assert {block_of(name) for name in halves.body.middle.initial} == set(blocks)
    assert {block_of(name) for name in halves.ends.names} == set(range(6)) - set(blocks)


def test_only_a_model_that_reads_prompts_in_both_directions_tells_how_long_they_are():
    """D7: an answer's beginning is told where the mask needs it, with FWD alone and in the count of its bytes."""
    sent = []
    for settings in ({}, PROMPTS):
        halves = Halves(model(settings=settings), Cut(1, 1), 1)
        seeds = seeds_of(halves.clients)
        turn = halves.turn(PARTS, seeds)
        (ahead,) = turn.ahead()
        (body,), _ = halves.body.forward([ahead], seeds)
        sent.append((ahead, body, *turn.loss([body])))
    assert [[one.prompts for one in messages] for messages in sent] == [[()] * 3, [(3, 1, 5, 2), (), ()]]
    more = [one.n_bytes - other.n_bytes for one, other in zip(sent[1], sent[0], strict=True)]
    assert more == [4 * len(PARTS[0]), 0, 0]
    tally = Tally()
    tally.add(sent[1])
    assert list(tally.of("c0")) == ["FWD (with the lengths of prompts)", "BODY", "GRAD"]


@pytest.mark.parametrize(
    ("settings", "prompts", "why"),
    [
        (PROMPTS, (), r"found lengths of prompts \[\], allowed are as many as sequences, none longer than its own"),
        (PROMPTS, (3, 1, 5), r"found lengths of prompts \[3, 1, 5\], allowed are as many as sequences"),
        (PROMPTS, (3, 5, 5, 2), r"allowed are as many as sequences, none longer than its own"),
        ({}, (3, 1, 5, 2), r"allowed are none, as the model is causal"),
    ],
    ids=["none", "too few", "too long", "causal"],
)
def test_lengths_of_prompts_that_do_not_fit_are_refused(settings, prompts, why):
    halves = Halves(model(settings=settings), Cut(1, 1), 1)
    seeds = seeds_of(halves.clients)
    ahead = [replace(one, prompts=prompts) for one in halves.turn(PARTS, seeds).ahead()]
    answers, refused = halves.body.forward(ahead, seeds)
    assert not answers
    assert re.search(why, refused["c0"])


def test_parts_share_the_weights_and_leave_the_model_as_it_is():
    made = model()
    before = {name: (id(tensor), tensor.clone()) for name, tensor in made.module.named_parameters()}
    ends = Ends.of(made, Cut(1, 1))
    own = {id(tensor) for part in (ends.front, ends.rear) for tensor in part.module.parameters()}
    assert own <= {number for number, _ in before.values()}
    now = dict(made.module.named_parameters())
    assert all(id(now[name]) == number and torch.equal(now[name], value) for name, (number, value) in before.items())


def test_no_part_has_what_is_not_its_own():
    made = model(tie_word_embeddings=False)
    middle = {name for name, _ in part_of(made, range(1, 5)).module.named_parameters()}
    assert not [name for name in middle if "embed" in name or "lm_head" in name or name.endswith("model.norm.weight")]
    assert {anatomy_of(made.module).block_of(name) for name in middle} == {1, 2, 3, 4}


@pytest.mark.parametrize(("cut", "found"), [(Cut(5, 1), "5:1"), (Cut(3, 3), "3:3"), (Cut(9, 1), "9:1")])
def test_a_cut_that_leaves_the_server_nothing_is_refused(cut, found):
    with pytest.raises(ConfigError, match=f"found {found} of a model of 6 blocks, allowed are a >= 1 and c >= 1"):
        Ends.of(model(), cut)


@pytest.mark.parametrize("text", ["1", "0:1", "1:0", "a:1", "1:1:1", "-1:2", "1.5:1"])
def test_a_text_that_is_no_cut_is_refused(text):
    with pytest.raises(ConfigError, match="allowed is 'a:c'"):
        Cut.read(text)


def test_an_architecture_that_does_not_come_apart_is_refused_with_those_that_do():
    with pytest.raises(ModelError, match="found a Linear, which is not known to come apart; allowed are GPT2LMHead"):
        anatomy_of(torch.nn.Linear(2, 2))


def test_stretches_of_the_server_are_those_in_which_the_same_clients_pass():
    assert segments([Cut(1, 1), Cut(2, 1), Cut(1, 3)], 6) == [range(1, 2), range(2, 3), range(3, 5)]
