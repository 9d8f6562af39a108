"""The table of docs/models.md: what fedloom makes of each decoder family of transformers, by computation.

    python tools/model_table.py            compute what is missing in docs/models.json, then write docs/models.md
    python tools/model_table.py llama mpt  compute these families again

For every family a tiny random model is made from its configuration, its weights moved away from their start, and:

- **loss, gradient**: two clients' examples, longer than the windows, through the model as `fedloom` builds it by
  default, against transformers' own forward pass on each example alone with the adapter added into the weights;
- **peft**: the adapter that `fedloom export` writes, loaded by `peft.PeftModel`, against that same oracle;
- **merged**: the model that `fedloom export --merged` writes, loaded by transformers, against it.

Figures are relative; a family counts as exact below 1e-4. One that is refused stands there with the reason.
"""

import inspect
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor
from torch.func import functional_call
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.pytorch_utils import Conv1D

from fedloom.base.errors import FedloomError
from fedloom.base.tree import stack
from fedloom.contracts.federated import Model
from fedloom.contracts.language import Encoded
from fedloom.federated.kernels import client_gradients
from fedloom.models.causal_lm import CausalLM
from fedloom.tasks.sft import Sft
from fedloom.text.templates.presets import Bare

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
VOCABULARY = 96
EXACT = 1e-4
RANK, ALPHA = 2, 4.0

FAMILIES = (
    *("afmoe", "apertus", "arcee", "bamba", "biogpt", "bitnet", "bloom", "codegen", "cohere", "cohere2"),
    *("cohere2_moe", "cwm", "dbrx", "deepseek_v2", "deepseek_v3", "diffllama", "doge", "dots1", "ernie4_5"),
    *("ernie4_5_moe", "exaone4", "exaone_moe", "falcon", "falcon_h1", "falcon_mamba", "flex_olmo", "gemma"),
    *("gemma2", "gemma3", "gemma3_text", "gemma3n_text", "glm", "glm4", "glm4_moe", "glm4_moe_lite", "gpt2"),
    *("gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granite", "granitemoe", "granitemoehybrid"),
    *("granitemoeshared", "helium", "hunyuan_v1_dense", "hunyuan_v1_moe", "jamba", "jetmoe", "lfm2", "llama"),
    *("llama4_text", "longcat_flash", "mamba", "mamba2", "minicpm3", "minimax", "ministral", "ministral3"),
    *("mistral", "mixtral", "modernbert-decoder", "mpt", "nanochat", "nemotron", "nemotron_h", "olmo", "olmo2"),
    *("olmo3", "olmo_hybrid", "olmoe", "opt", "persimmon", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3"),
    *("qwen3_moe", "qwen3_next", "recurrent_gemma", "rwkv", "seed_oss", "smollm3", "solar_open", "stablelm"),
    *("starcoder2", "vaultgemma", "xglm", "zamba", "zamba2", "bert"),
)

# What a configuration may call its sizes; a family takes those that it knows.
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "attention_hidden_size"), 32),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "n_inner", "intermediate_size_mlp", "dense_intermediate_size"), 48
    ),
    **dict.fromkeys(("ffn_hidden_size", "expert_ffn_hidden_size", "shared_intermediate_size"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 3),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "context_length"), 64),
    **dict.fromkeys(("head_dim", "qk_nope_head_dim", "v_head_dim", "query_pre_attn_scalar", "attention_head_dim"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim"), 4),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"), 24
    ),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace", "zero_expert_num"), 1),
    **dict.fromkeys(("num_shared_experts", "moe_num_shared_experts", "moe_layer_start_index", "num_dense_layers"), 1),
    **dict.fromkeys(("sliding_window", "attention_window_size", "window_size", "attention_chunk_size"), 8),
    **dict.fromkeys(
        ("mamba_chunk_size", "chunk_size", "mamba_d_state", "state_size", "mamba_headdim", "ssm_state_size"), 8
    ),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **{"linear_num_key_heads": 2, "linear_num_value_heads": 4, "lru_width": 32, "dim_model_base": 8},
    **{
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_d_ssm": 64,
        "mamba_n_groups": 1,
        "mamba_expand": 2,
        "mamba_dt_rank": 4,
    },
    **{"mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 1, "mamba_ngroups": 1, "n_mamba_heads": 2},
    **{"kv_channels": 8, "use_sliding_window": True, "max_window_layers": 1, "conv_L_cache": 3, "num_heads": 8},
    **{
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        "router_aux_loss_coef": 0.0,
    },
    **{"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8, "laurel_rank": 4, "cls_token_id": 1},
}
_OTHER: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_key_value_heads": 4, "topk_method": "greedy", "head_dim": 4},
    "deepseek_v3": {"num_key_value_heads": 4, "head_dim": 4},
    "falcon": {"alibi": True, "new_decoder_architecture": False},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": [0.0] * 3,
        "intermediate_size": [48] * 3,
    },
    "glm4_moe_lite": {"num_key_value_heads": 4, "mlp_layer_types": ["dense", "sparse", "sparse"]},
    "gpt_neo": {"attention_types": [[["global", "local", "global"], 1]]},
    "gptj": {"n_ctx": 64},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "llama4_text": {"no_rope_layers": [1, 1, 0], "moe_layers": [1]},
    "longcat_flash": {"num_key_value_heads": 4, "num_layers": 2, "num_hidden_layers": 4, "head_dim": 4},
    "mamba2": {"head_dim": 8, "num_heads": 8, "expand": 2},
    "minicpm3": {"num_key_value_heads": 4},
    "mpt": {"expansion_ratio": 2},
    "nemotron_h": {"layers_block_type": ["mamba", "attention", "mlp"]},
    "olmo_hybrid": {"layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "num_key_value_heads": 1},
    "zamba": {"layers_block_type": ["mamba", "hybrid", "mamba"], "attention_hidden_size": 64, "attention_head_dim": 16},
    "zamba2": {
        "n_mamba_heads": 8,
        "attention_head_dim": 16,
        "layers_block_type": ["mamba", "hybrid", "mamba"],
        "num_mem_blocks": 1,
        "attention_hidden_size": 64,
    },
}


def configuration(family: str) -> Any:
    """Return a tiny configuration of the family."""
    kind = CONFIG_MAPPING[family]
    if family in ("gemma3",):
        vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        vision |= {"image_size": 28, "patch_size": 14}
        return kind(text_config=vars(configuration(f"{family}_text")), vision_config=vision, mm_tokens_per_image=4)
    known = kind().to_dict().keys() | inspect.signature(kind.__init__).parameters.keys()
    return kind(**{name: value for name, value in _SIZES.items() if name in known} | _OTHER.get(family, {}))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back what transformers and peft say meanwhile."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def make(family: str, folder: Path) -> PreTrainedModel:
    """Write a random model of the family with a tokenizer into the folder, and return it."""
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(configuration(family)).float()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    module.eval().save_pretrained(folder)
    backend = Tokenizer(
        WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, 90)}, unk_token="<pad>")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
    return module


def loaded(folder: Path) -> PreTrainedModel:
    """Return the model as a user of transformers has it, with the attention that is written out where there is one."""
    for attention in ("eager", None):
        try:
            return AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, attn_implementation=attention
            ).eval()
        except (ValueError, KeyError):
            continue
    raise ValueError(f"{folder}: no attention suits")


class Oracle:
    """transformers' own forward pass with the adapter added into the weights."""

    def __init__(self, folder: Path, params: dict[str, Tensor]) -> None:
        self.module = loaded(folder)
        self.leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in params.items()}
        self.weights: dict[str, Tensor] = {}
        for name in (name.removesuffix(".lora_A") for name in params if name.endswith(".lora_A")):
            layer = self.module.get_submodule(name)
            delta = ALPHA / RANK * (self.leaves[f"{name}.lora_B"] @ self.leaves[f"{name}.lora_A"])
            self.weights[f"{name}.weight"] = layer.weight + (delta.T if isinstance(layer, Conv1D) else delta)

    def logits(self, tokens: Tensor) -> Tensor:
        """Return the logits [T, V] of one text alone."""
        return functional_call(self.module, self.weights, (), {"input_ids": tokens[None], "use_cache": False}).logits[0]

    def loss(self, item: Encoded) -> Tensor:
        """Return the summed loss of an example."""
        tokens = item.tokens_T.long()
        labels = tokens.masked_fill(~item.supervised_T, -100)
        return torch.nn.functional.cross_entropy(self.logits(tokens)[:-1], labels[1:], reduction="sum")


def some_examples(seed: int, lengths: Sequence[int]) -> list[Encoded]:
    """Return examples of random tokens whose last two thirds are supervised."""
    draw = torch.Generator().manual_seed(seed)
    tokens = [torch.randint(3, 90, (length,), generator=draw).int() for length in lengths]
    return [Encoded(one, torch.arange(len(one)) > len(one) // 3) for one in tokens]


def relative(found: Tensor, right: Tensor) -> float:
    """Return how far a tensor is from the right one, in its norm."""
    return float((found - right).norm() / right.norm())


def trained(model: Model, folder: Path, clients: Sequence[dict[str, Tensor]]) -> dict[str, float]:
    """Return how far losses and gradients of two clients are from the oracle."""
    parts = [some_examples(1, (30, 11)), some_examples(2, (23,))]
    leaves = {name: leaf.requires_grad_() for name, leaf in stack(list(clients)).items()}
    found = client_gradients(model, Sft(template=Bare()), leaves, parts)
    model.context.batch = None
    gaps: dict[str, list[float]] = {"loss": [], "gradient": []}
    for client, (params, part) in enumerate(zip(clients, parts, strict=True)):
        oracle = Oracle(folder, params)
        total = torch.stack([oracle.loss(item) for item in part]).sum()
        slopes = torch.autograd.grad(total, list(oracle.leaves.values()), allow_unused=True, materialize_grads=True)
        gaps["loss"].append(abs(float(found.total_K[client] - total) / float(total)))
        gaps["gradient"].append(relative(found.sum_KP[client], torch.cat([slope.flatten() for slope in slopes])))
    return {name: max(values) for name, values in gaps.items()}


def exported(family: CausalLM, model: Model, params: dict[str, Tensor], folder: Path) -> dict[str, Any]:
    """Return how far the exported adapter and the merged model are from the oracle, or why there is none."""
    import peft

    tokens = some_examples(3, (25,))[0].tokens_T.long()
    found: dict[str, Any] = {}
    with torch.no_grad():
        right = Oracle(folder / "model", params).logits(tokens)
    family.save(model, params, str(folder / "adapter"))
    again = CausalLM.for_adapter(folder / "adapter")
    for form, write in (("peft", again.write_adapter), ("merged", again.write_merged)):
        try:
            write(folder / form)
            base = loaded(folder / ("model" if form == "peft" else form))
            one = peft.PeftModel.from_pretrained(base, folder / form).eval() if form == "peft" else base
            with torch.no_grad():
                found[form] = relative(one(input_ids=tokens[None], use_cache=False).logits[0], right)
        except FedloomError as error:
            found[form] = f"refused: {_plain(error, folder)}"
        except Exception as error:  # another library's: it belongs into the table
            found[form] = f"fails: {type(error).__name__}: {str(error).splitlines()[0][:100]}"
    return found


def examined(name: str) -> dict[str, Any]:
    """Return the row of a family."""
    with tempfile.TemporaryDirectory() as place, quiet():
        folder, start_s = Path(place), time.perf_counter()
        row: dict[str, Any] = {"family": name, "class": type(make(name, folder / "model")).__name__}
        family = CausalLM(path=str(folder / "model"), lora_rank=RANK, lora_alpha=ALPHA)
        try:
            model = family.build(seed=0, device=CPU)
        except FedloomError as error:
            return row | {"refused": _plain(error, folder)}
        draw = torch.Generator().manual_seed(4)
        clients = [
            {n: t + 0.1 * torch.randn(t.shape, generator=draw) for n, t in model.trainable.items()} for _ in "ab"
        ]
        attention = vars(model.module.config).get("_attn_implementation_internal")
        row |= {"passage": model.passage, "attention": attention, "positions": model.positions}
        row |= {"exact_up_to": model.exact_up_to, "notes": [_plain(note, folder) for note in model.notes]}
        row |= trained(model, folder / "model", clients) | exported(family, model, clients[0], folder)
        return row | {"seconds": round(time.perf_counter() - start_s, 1)}


def _plain(error: object, folder: Path) -> str:
    return str(error).replace(str(folder), "FOLDER")


# ----------------------------------------------------------------------------------------------------------- the table


_PASSAGE = {"packed": "packed", "row": "{} over the row", "alone": "{}, one at a time"}


def cell(value: Any) -> str:
    """Return what the table says of a figure, or of what is there in its place."""
    if isinstance(value, float):
        return "exact" if value < EXACT else f"**{value:.1g}**"
    return "refused" if str(value).startswith("refused") else str(value)


def written(rows: Sequence[dict[str, Any]]) -> str:
    """Return the lines of the table."""
    lines = ["| family | trains | loss | gradient | peft | merged |", "|---|---|---|---|---|---|"]
    for row in rows:
        if "refused" in row:
            lines.append(f"| `{row['family']}` | refused: {row['refused']} | | | | |")
            continue
        how = _PASSAGE[row["passage"]].format(row["attention"])
        cells = " | ".join(cell(row[name]) for name in ("loss", "gradient", "peft", "merged"))
        lines.append(f"| `{row['family']}` | {how} | {cells} |")
    return "\n".join(lines)


def main(wanted: Sequence[str]) -> None:
    """Compute what is missing, and write the table between the marks of docs/models.md."""
    store, page = ROOT / "docs" / "models.json", ROOT / "docs" / "models.md"
    rows = {row["family"]: row for row in json.loads(store.read_text())} if store.exists() else {}
    torch.set_num_threads(1)
    for name in FAMILIES:
        if name in wanted or name not in rows:
            try:
                rows[name] = examined(name)
            except Exception as error:
                if not wanted:
                    raise
                print(name, "FAILS", type(error).__name__, str(error)[:300])
                continue
            print(json.dumps(rows[name]), flush=True)
            ordered = [rows[family] for family in FAMILIES if family in rows]
            store.write_text("[\n" + ",\n".join(json.dumps(row) for row in ordered) + "\n]\n")
    if page.exists():
        before, _, rest = page.read_text().partition("<!-- table -->\n")
        _, _, after = rest.partition("<!-- end -->")
        table = written([rows[family] for family in FAMILIES if family in rows])
        page.write_text(f"{before}<!-- table -->\n{table}\n<!-- end -->{after}")


if __name__ == "__main__":
    main(sys.argv[1:])
