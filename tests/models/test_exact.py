"""Training on the model's own forward pass: what is found out when a model is built, and what follows from it.

The oracle is transformers' own forward on each example alone, the adapter added into the weights in
tools/model_table.py.
"""

from dataclasses import replace

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    DbrxConfig,
    DeepseekV3Config,
    Ernie4_5_MoeConfig,
    FalconConfig,
    GPTJConfig,
    GPTNeoConfig,
    LlamaConfig,
    MiniCPM3Config,
    MistralConfig,
    OPTConfig,
    Phi3Config,
    PhimoeConfig,
    Qwen2MoeConfig,
)

from fedloom.base import tree
from fedloom.base.errors import ConfigError, ModelError
from fedloom.contracts.language import Encoded
from fedloom.federated.kernels import client_gradients, example_gradients
from fedloom.models import attention, exact
from fedloom.models.causal_lm import CausalLM
from fedloom.models.decoder import complete
from fedloom.models.packing import pack
from fedloom.runs.export import export
from fedloom.tasks._answers import check_room
from fedloom.text.pretrained import quiet
from support.clients import TASK, distance, examples, gradient_alone, loss_alone, random_params, tiny
from support.models import SIZES, model_folder, tokenizer
from support.tools import tool

pytestmark = pytest.mark.slow  # every family of models

CPU = torch.device("cpu")
MOE = {"moe_intermediate_size": 24, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
OLD = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2}


def saved(config, folder):
    """A random model in a folder, its weights moved far from their start."""
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(config).float()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
        module.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    return folder


def built(config, folder, **settings):
    return CausalLM(path=str(saved(config, folder)), lora_rank=2, lora_alpha=4.0, **settings).build(seed=0, device=CPU)


def losses(model, parts, params=None):
    batch = pack(parts, CPU)
    model.context.batch = batch
    with torch.no_grad():
        found = model.token_losses(params or {}, batch)
    model.context.batch = None
    return found


def gpt_neo(positions):
    kinds = [[["global", "local"], 1]]
    return GPTNeoConfig(
        **OLD, hidden_size=32, num_layers=2, num_heads=4, attention_types=kinds, window_size=8,
        intermediate_size=48, max_position_embeddings=positions,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- families of transformers


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("family", "passage", "attention"),
    [
        ("falcon", "alone", "eager"),  # ALiBi
        ("gpt_oss", "alone", "eager"),  # sinks
        ("qwen2_moe", "row", "sdpa"),  # a window that the layers do not hand on
        ("falcon_h1", "alone", "sdpa"),  # state-space layers beside attention
        ("doge", "row", "sdpa"),  # a learnt mask; layers that take no part
        ("deepseek_v3", "packed", "packed"),  # names that peft takes for experts
        ("gemma3", "packed", "packed"),  # a tower that text never meets
        ("phimoe", "row", "sdpa"),  # a router that is an nn.Linear by descent
    ],
)
def test_a_family_trains_as_its_own_forward_pass_and_its_adapter_is_read_so(family, passage, attention):
    row = tool("model_table").examined(family)
    assert (row["passage"], row["attention"]) == (passage, attention)
    assert max(row["loss"], row["gradient"], row["peft"], row["merged"]) < 1e-4


def qwen2_moe(window):
    return Qwen2MoeConfig(
        **SIZES, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, shared_expert_intermediate_size=24,
        use_sliding_window=True, sliding_window=window, max_window_layers=1,
    )  # fmt: skip


def test_a_note_says_what_is_used_and_why(tmp_path):
    (note,) = built(qwen2_moe(4), tmp_path).notes
    assert "attention 'packed' is not exact (packed: losses differ" in note
    assert note.endswith("used is sdpa over the whole row.")


def test_a_window_longer_than_any_text_of_the_comparison_is_seen(tmp_path):
    assert built(qwen2_moe(4096), tmp_path).passage == "row"


def test_a_leak_far_below_what_losses_show_is_seen(monkeypatch, tmp_path):
    whole = attention.packed_attention

    def leaky(*states, **options):
        out = whole(*states, **options)
        return out + 1e-9 * out.mean(1, keepdim=True)

    monkeypatch.setattr(exact, "_known", {})
    monkeypatch.setattr(attention, "packed_attention", leaky)
    model = built(MistralConfig(**SIZES, sliding_window=None), tmp_path)
    assert model.passage == "row"
    assert "(packed: an example reaches the losses of another)" in model.notes[0]


def test_an_encoder_is_refused_with_the_cause(tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    with pytest.raises(ModelError, match="BertLMHeadModel: it looks at later tokens"):
        built(BertConfig(vocab_size=64, **sizes), tmp_path)


def test_a_comparison_is_made_once_for_a_configuration(monkeypatch, tmp_path):
    folder = model_folder(tmp_path)
    first = CausalLM(path=str(folder)).build(seed=0, device=CPU)
    monkeypatch.setattr(exact, "_examined", None)
    assert CausalLM(path=str(folder)).build(seed=1, device=CPU).passage == first.passage == "packed"


def test_building_a_large_model_compares_a_small_one():
    """Sizes of an 8 B model: were they taken as they are, memory and time would not do."""
    config = LlamaConfig(vocab_size=128_256, hidden_size=4096, num_hidden_layers=32, num_key_value_heads=8)
    found = exact.examine(config, exact.Wish("large", "packed", (), whole=False), weight_bytes=16 * 10**9)
    assert (found.passage, found.pieces) == ("packed", True)


# ------------------------------------------------------------------------------------------------- lengths, positions


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SIZES | {"max_position_embeddings": 16}, rope_parameters={"rope_type": "dynamic", "factor": 4.0}),
        Phi3Config(
            **SIZES, pad_token_id=0, original_max_position_embeddings=16,
            rope_parameters={
                "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 16,
                "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
            },
        ),
    ],
    ids=["dynamic", "longrope"],
)  # fmt: skip
def test_a_long_neighbour_does_not_change_the_frequencies_of_others(config, tmp_path):
    model = built(config, tmp_path)
    assert model.exact_up_to == 16
    mine, short, long = examples([12, 12, 40], "rope")
    n_asked = len(losses(model, [[mine]]))
    with_short, with_long = (losses(model, [[mine, other]])[:n_asked] for other in (short, long))
    assert torch.allclose(with_short, with_long, rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        OPTConfig(
            **OLD, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32,
            max_position_embeddings=24,
        ),
        gpt_neo(24),
        GPTJConfig(**OLD, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, n_positions=24, tie_word_embeddings=False),
    ],
    ids=["opt", "gpt_neo", "gptj"],
)  # fmt: skip
def test_a_table_of_positions_is_known_whatever_it_is_called(config, tmp_path):
    model = built(config, tmp_path)
    check_room(model, 24)
    with pytest.raises(ConfigError, match="take up to 25 tokens, the model has 24 positions"):
        check_room(model, 25)


def test_rotary_positions_have_no_end(tmp_path):
    assert built(LlamaConfig(**SIZES), tmp_path).positions is None


def test_a_row_longer_than_the_positions_of_a_model_is_worked_off(tmp_path):
    model = built(gpt_neo(64), tmp_path)
    parts = [examples([40, 30], "long", 0), examples([50], "long", 1)]
    right = [loss_alone(model.module, {}, item) for part in parts for item in part]
    found = client_gradients(model, TASK, tree.stack([leaves(model)] * 2), parts)
    assert torch.allclose(found.total_K, torch.stack([right[0] + right[1], right[2]]), rtol=1e-5)


def leaves(model):
    return {name: tensor.clone().requires_grad_() for name, tensor in model.trainable.items()}


# ------------------------------------------------------------------------------------------------- an example at a time


SHAPE = [[4, 17], [3], [9, 9, 2]]


def clients(model):
    return [random_params(model, "exact", k) for k in range(3)], [
        examples(own, "exact", k) for k, own in enumerate(SHAPE)
    ]


@pytest.mark.parametrize("rank", [0, 2])
def test_one_at_a_time_gives_the_gradients_of_the_packed_row(rank):
    model = tiny(rank=rank)
    params, parts = clients(model)
    stacked = {name: tensor.requires_grad_() for name, tensor in tree.stack(params).items()}
    found = [client_gradients(replace(model, passage=way), TASK, stacked, parts) for way in ("packed", "alone")]
    assert distance(found[1].sum_KP, found[0].sum_KP) < 1e-5
    assert torch.allclose(found[1].total_K, found[0].total_K, rtol=1e-5)


@pytest.mark.parametrize("rank", [0, 2])
def test_one_at_a_time_gives_the_gradient_of_each_example(rank):
    model = tiny(rank=rank)
    params, parts = clients(model)
    stacked = {name: tensor.requires_grad_() for name, tensor in tree.stack(params).items()}
    clip = lambda norms_LE: (0.01 / norms_LE).clamp(max=1)  # noqa: E731
    found = [example_gradients(replace(model, passage=way), TASK, stacked, parts, clip) for way in ("packed", "alone")]
    assert distance(found[1][0], found[0][0]) < 1e-4
    assert torch.allclose(found[1][1], found[0][1], rtol=1e-3)


def test_one_at_a_time_draws_the_dropout_of_each_client_from_its_own_generator():
    model = replace(tiny(dropout=0.5), passage="alone")
    params, parts = clients(model)
    found = []
    for chosen in ([0, 1, 2], [2]):
        model.context.generators = tuple(torch.Generator().manual_seed(k) for k in chosen)
        stacked = {name: t.requires_grad_() for name, t in tree.stack([params[k] for k in chosen]).items()}
        found.append(client_gradients(model, TASK, stacked, [parts[k] for k in chosen]).sum_KP[-1])
    model.context.generators, model.context.batch = (), None
    assert distance(*found) < 1e-5


def test_one_at_a_time_answers_are_those_of_a_batch():
    model = tiny()
    prompts = [[5, 9, 33], [7], [12, 13, 14, 15, 16, 17, 18]]
    found = [
        complete(replace(model, passage=way), {}, prompts, stop=(), max_new_tokens=8) for way in ("packed", "alone")
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("family", ["rwkv", "falcon_h1", "bloom"])  # without a cache, with a state, with ALiBi
def test_answers_of_models_that_pass_alone_are_greedy(family, tmp_path):
    module = tool("model_table").make(family, tmp_path)
    model = replace(tiny(), module=module, passage="alone", trainable={}, keeps=family != "rwkv")
    tokens = [5, 9, 33]
    for token in complete(model, {}, [[5, 9, 33], [7]], stop=(), max_new_tokens=6)[0]:
        with torch.no_grad():
            assert token == int(module(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax())
        tokens.append(token)


# ------------------------------------------------------------------------------------------- layers unlike the others


def test_an_adapter_on_the_head_does_not_mix_clients(tmp_path):
    model = built(LlamaConfig(**SIZES, tie_word_embeddings=False), tmp_path, lora_targets=("q_proj", "lm_head"))
    params, parts = (
        [random_params(model, "head", k) for k in range(2)],
        [examples([12], "a", learnt=2), examples([50], "b", learnt=6)],
    )
    together = client_gradients(model, TASK, stacked(params), parts)
    for k in range(2):
        alone = client_gradients(model, TASK, stacked(params[k : k + 1]), parts[k : k + 1])
        assert distance(together.sum_KP[k], alone.sum_KP[0]) < 1e-5


def stacked(params):
    return {name: tensor.requires_grad_() for name, tensor in tree.stack(params).items()}


@pytest.mark.parametrize("factor", [1.0, 4.0], ids=["plain", "scaled before the head"])
def test_losses_in_pieces_are_used_where_they_are_those_of_whole_logits(factor, tmp_path, monkeypatch):
    config = MiniCPM3Config(**SIZES | {"num_key_value_heads": 4}, **LATENT, dim_model_base=int(32 / factor))
    model = built(config, tmp_path)
    assert (model.head is not None) == (factor == 1.0)
    (item,) = examples([30], "pieces")
    monkeypatch.setattr("fedloom.contracts.chunked_loss._IN_CACHE", 1)
    assert float(losses(model, [[item]]).sum()) == pytest.approx(float(loss_alone(model.module, {}, item)), rel=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        Ernie4_5_MoeConfig(
            **SIZES, moe_intermediate_size=24, moe_num_experts=4, moe_k=2, moe_num_shared_experts=1,
            moe_layer_start_index=1,
        ),
        DbrxConfig(
            vocab_size=64, d_model=32, n_heads=4, n_layers=2, max_seq_len=64,
            attn_config={"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
            ffn_config={"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2},
        ),
    ],
    ids=["ernie", "dbrx"],
)  # fmt: skip
def test_whole_models_with_experts_have_the_gradients_of_each_client_alone(config, tmp_path):
    model = CausalLM(path=str(saved(config, tmp_path)), lora_rank=0).build(seed=0, device=CPU)
    params, parts = clients(model)
    found = client_gradients(model, TASK, stacked(params), parts).sum_KP
    for own, part, sum_P in zip(params, parts, found, strict=True):
        assert distance(sum_P, sum(gradient_alone(model.module, own, item) for item in part)) < 1e-4


def test_what_takes_no_part_in_a_loss_has_a_gradient_of_zero():
    model = tiny(rank=0)
    idle = torch.nn.Parameter(torch.ones(3))
    model.module.register_parameter("idle", idle)
    leaves = stacked([{**random_params(model, "idle"), "idle": idle.detach()}])
    found = client_gradients(replace(model, trainable={}), TASK, leaves, [examples([5], "idle")]).sum_KP[0]
    del model.module.idle
    assert float(found[-3:].abs().sum()) == 0 < float(found.abs().sum())


def test_a_router_has_no_adapter_by_default_and_is_refused_by_name(tmp_path):
    config = PhimoeConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2)
    folder = saved(config, tmp_path)
    model = CausalLM(path=str(folder), lora_rank=2).build(seed=0, device=CPU)
    assert not [name for name in model.trainable if "router" in name]
    with pytest.raises(
        ModelError, match=r"an adapter on 'model\.layers\.\*\.mlp\.router' is not what its layer computes"
    ):
        CausalLM(path=str(folder), lora_rank=2, lora_targets=("q_proj", "router")).build(seed=0, device=CPU)


def test_a_linear_layer_in_other_words_has_an_adapter(tmp_path):
    config = FalconConfig(**OLD, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    assert any("query_key_value" in name for name in built(config, tmp_path).trainable)


# ------------------------------------------------------------------------------------------------------------- export


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_what_was_trained_with_eager_attention_can_be_exported(form, tmp_path):
    config = GPTJConfig(**OLD, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, n_positions=64, tie_word_embeddings=False)
    family = CausalLM(path=str(saved(config, tmp_path / "model")), lora_rank=2, attention="eager")
    model = family.build(seed=0, device=CPU)
    family.save(model, model.trainable, str(tmp_path / "adapter"))
    export(tmp_path / "adapter", tmp_path / "out", form=form)
    assert (tmp_path / "out" / ("adapter_model.safetensors" if form == "adapter" else "model.safetensors")).is_file()


def test_an_adapter_that_peft_would_drop_is_not_written_for_it(tmp_path):
    config = DeepseekV3Config(
        **SIZES | {"num_key_value_heads": 4}, **MOE, **LATENT, n_group=1, topk_group=1, first_k_dense_replace=1
    )
    family = CausalLM(path=str(saved(config, tmp_path / "model")), lora_rank=2, lora_targets=("up_proj",))
    model = family.build(seed=0, device=CPU)
    family.save(model, model.trainable, str(tmp_path / "adapter"))
    with pytest.raises(
        ModelError, match=r"up_proj', as 2 layers in all: peft does not load .* export the run with --merged"
    ):
        export(tmp_path / "adapter", tmp_path / "out")
    export(tmp_path / "adapter", tmp_path / "merged", form="merged")


# ----------------------------------------------------------------------------------------------- examples of many texts


def several(lengths, *names):
    """One example of several texts, and the texts as examples of their own."""
    texts = examples(lengths, *names)
    cuts = torch.tensor(lengths).cumsum(0)[:-1].tolist()
    tokens, marks = (torch.cat([part[i] for part in [(t.tokens_T, t.supervised_T) for t in texts]]) for i in (0, 1))
    return Encoded(tokens, marks, cuts=tuple(cuts)), texts


@pytest.mark.parametrize("rank", [0, 2])
def test_an_example_of_several_texts_has_their_loss_over_all_its_tokens(rank):
    model = tiny(rank=rank)
    whole, texts = several([7, 12, 5], "several")
    (other,) = examples([9], "other")
    params = random_params(model, "several")
    right = sum(gradient_alone(model.module, params, text) for text in texts)
    found = client_gradients(model, TASK, stacked([params]), [[whole, other]])
    assert distance(found.sum_KP[0], right + gradient_alone(model.module, params, other)) < 1e-5
    model.context.batch = None


@pytest.mark.parametrize("passage", ["packed", "alone"])
@pytest.mark.parametrize("rank", [0, 2])
def test_an_example_of_several_texts_is_clipped_once(rank, passage):
    model = replace(tiny(rank=rank), passage=passage)
    whole, texts = several([7, 12, 5], "several")
    (other,) = examples([9], "other")
    params, seen = random_params(model, "several"), []

    def scales(norms_LE):
        seen.append(norms_LE)
        return torch.ones_like(norms_LE)

    example_gradients(model, TASK, stacked([params]), [[whole, other]], scales)
    n_tokens = sum(int(text.supervised_T[1:].sum()) for text in texts)
    right = sum(gradient_alone(model.module, params, text) for text in texts) / n_tokens
    norm = torch.linalg.vector_norm(torch.cat(seen, dim=1)[:, 0])
    assert seen[0].shape[1] == 2
    assert float(norm) == pytest.approx(float(right.norm()), rel=1e-4)
    model.context.batch = None
