"""What a real vocabulary, 8,192 positions and a chat template with a system turn of its own ask for.

Two layers of SmolLM2-135M-Instruct's configuration with random weights, its special tokens and a template like its own;
`make real-test` trains the real one.
"""

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from fedloom.contracts.examples import Chat, Turn, chat
from fedloom.models.causal_lm import CausalLM
from fedloom.models.llama import Llama
from fedloom.models.packing import pack
from fedloom.tasks.sft import Sft
from fedloom.text.pretrained import quiet

VOCABULARY, POSITIONS = 49_152, 8_192
UNKNOWN, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SYSTEM = "You are a helpful assistant."
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    f"{START}system\n{SYSTEM}{END}\n"
    "{% endif %}"
    f"{START}{{{{ message['role'] + '\n' + message['content'] }}}}{END}\n"
    "{% endfor %}{% if add_generation_prompt %}"
    f"{START}assistant\n"
    "{% endif %}"
)


def of_bytes():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: at for at, token in enumerate([UNKNOWN, START, END, *letters])}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in (UNKNOWN, START, END)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        pad_token=END,
        chat_template=TEMPLATE,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=2,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    out = tmp_path_factory.mktemp("real_shape")
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(out)
        of_bytes().save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def model(folder):
    return CausalLM(path=str(folder), lora_rank=4, dtype="float32").build(seed=0, device=torch.device("cpu"))


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that any operation makes and was not given, backward passes too."""

    n_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        given = {one.untyped_storage().data_ptr() for one in tensors((args, kwargs))}
        new = [one.nbytes for one in tensors(made) if one.untyped_storage().data_ptr() not in given]
        self.n_bytes = max(self.n_bytes, *new, 0)
        return made


def tensors(values):
    return [one for one in tree_leaves(values) if isinstance(one, torch.Tensor)]


def a_long_answer(n_letters):
    return chat("Say it.", ("abcdefgh" * n_letters)[:n_letters])


def loss_and_gradients(model, item):
    params = {name: value.clone().requires_grad_() for name, value in model.trainable.items()}
    batch = pack([[item]], torch.device("cpu"))
    model.context.batch = batch
    loss = model.token_losses(params, batch).sum()
    loss.backward()
    model.context.batch = None
    return loss.detach(), {name: value.grad for name, value in params.items()}


def test_it_is_a_plain_llama_with_a_tied_head_of_a_real_size(model):
    assert isinstance(model.module, Llama) and model.head.out_features == VOCABULARY
    assert model.context_size == POSITIONS and model.ends == {2}


def test_losses_of_a_long_answer_are_right_and_no_tensor_holds_all_its_logits(model):
    item = Sft(max_length=1100).encode(a_long_answer(2_000), model)
    n_learnt = int(item.supervised_T.sum())
    assert len(item.tokens_T) == 1100 and item.truncated
    with Largest() as largest:
        loss, gradients = loss_and_gradients(model, item)
    whole = n_learnt * VOCABULARY * 4
    assert largest.n_bytes < whole / 2
    with torch.no_grad():
        logits_TV = model.token_logits(model.trainable, pack([[item]], torch.device("cpu")))
    targets_T = item.tokens_T[item.supervised_T].long()
    assert loss == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits_TV, targets_T, reduction="sum")), rel=1e-5
    )
    assert all(bool(gradient.isfinite().all()) for gradient in gradients.values())
    assert any(bool(gradient.any()) for gradient in gradients.values())


def test_every_position_can_be_used(model):
    task = Sft(max_length=POSITIONS)
    words = [Turn("user", "x" * (POSITIONS - 200)), Turn("assistant", "the last of them")]
    item = task.encode(Chat(tuple(words)), model)
    assert POSITIONS - 200 < len(item.tokens_T) <= POSITIONS and not item.truncated
    with torch.no_grad():
        loss = model.token_losses(model.trainable, pack([[item]], torch.device("cpu")))
    assert len(loss) == int(item.supervised_T.sum()) and bool(loss.isfinite().all())


def test_a_prompt_begins_with_the_default_system_turn_and_one_of_its_own_replaces_it(model):
    task, made = Sft(), model.tokenizer
    item = task.encode(chat("who?", "me"), model)
    text = made.decode(item.tokens_T.tolist())
    assert text == f"{START}system\n{SYSTEM}{END}\n{START}user\nwho?{END}\n{START}assistant\nme{END}\n"[: len(text)]
    learnt = made.decode(item.tokens_T[item.supervised_T].tolist())
    assert learnt == f"me{END}"
    own = Chat((Turn("system", "Be brief."), Turn("user", "who?"), Turn("assistant", "me")))
    text = made.decode(task.encode(own, model).tokens_T.tolist())
    assert text.startswith(f"{START}system\nBe brief.{END}\n{START}user") and SYSTEM not in text


def test_no_begin_token_is_put_before_the_template_s(model):
    item = Sft().encode(chat("who?", "me"), model)
    assert int((item.tokens_T == 1).sum()) == 3 and item.tokens_T[0] == 1
