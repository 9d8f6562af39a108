"""A tokenizer out of tokenizer.json alone against the one of transformers out of the same folder."""

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from fedloom.base.errors import ModelError
from fedloom.contracts.examples import Turn
from fedloom.models.checkpoint import Checkpoint
from fedloom.text.pretrained import load, quiet
from fedloom.text.templates.own import Own
from fedloom.text.tokenizer import PlainTokenizer
from support.tokenizers import CHAT_TEMPLATE, KINDS, tokenizer

TURNS = [{"role": "user", "content": "who sells red bread?"}, {"role": "assistant", "content": "the old baker"}]
RICH = (
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ m.content }}{% endfor %}"
)


def both(folder, name, **changes):
    """Ours and theirs from one folder."""
    with quiet():
        tokenizer(name, **changes).save_pretrained(folder)
    return PlainTokenizer.read(folder), load(AutoTokenizer, folder)


@pytest.fixture(scope="module", params=["embedded", *KINDS])
def pair(request, tmp_path_factory):
    if request.param == "embedded":
        folder = Checkpoint.find("").folder
        return PlainTokenizer.read(folder), load(AutoTokenizer, folder)
    return both(tmp_path_factory.mktemp(request.param), request.param, chat_template=CHAT_TEMPLATE)


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=60), special=st.booleans())
def test_texts_become_the_same_tokens_and_the_same_texts_again(pair, text, special):
    ours, theirs = pair
    tokens = theirs.encode(text, add_special_tokens=special)
    assert ours.encode(text, add_special_tokens=special) == tokens
    assert ours(text, add_special_tokens=special)["input_ids"] == tokens
    for skip in (False, True):
        assert ours.decode(tokens, skip_special_tokens=skip) == theirs.decode(tokens, skip_special_tokens=skip)


def test_several_texts_are_those_one_by_one(pair):
    ours, theirs = pair
    texts = ["who sells red bread?", "", "42 pills <|im_end|></s>"]
    assert ours(texts)["input_ids"] == theirs(texts)["input_ids"]


def test_special_tokens_are_the_same(pair):
    ours, theirs = pair
    for name in ("eos_token", "eos_token_id", "bos_token", "bos_token_id", "unk_token_id"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert dict(zip(ours.all_special_tokens, ours.all_special_ids, strict=True)) == dict(
        zip(theirs.all_special_tokens, theirs.all_special_ids, strict=True)
    )
    assert {t.content for t in ours.added_tokens_decoder.values()} == {
        t.content for t in theirs.added_tokens_decoder.values()
    }
    assert (len(ours), ours.get_vocab()) == (len(theirs), theirs.get_vocab())
    assert {
        name: str(token) for name, token in theirs.special_tokens_map.items() if name in ours.special_tokens_map
    } == (ours.special_tokens_map)


@pytest.mark.parametrize("for_answer", [True, False])
def test_conversations_are_written_alike(pair, for_answer):
    ours, theirs = pair
    options = {"tokenize": False, "add_generation_prompt": for_answer}
    found = ours.apply_chat_template(TURNS, chat_template=ours.get_chat_template(), **options)
    assert found == theirs.apply_chat_template(TURNS, **options)


def test_templates_that_ask_for_functions_are_written_by_transformers(tmp_path):
    ours, theirs = both(tmp_path, "qwen", chat_template=RICH)
    options = {"tokenize": False, "chat_template": RICH}
    assert "whole" not in vars(ours)
    assert ours.apply_chat_template(TURNS, **options) == theirs.apply_chat_template(TURNS, **options)
    assert "whole" in vars(ours)


def test_the_template_of_a_folder_is_used_in_conversations(tmp_path):
    ours, theirs = both(tmp_path, "qwen", chat_template=CHAT_TEMPLATE)
    turns = [Turn("user", "who sells red bread?"), Turn("assistant", "the old baker")]
    assert Own().texts(turns, ours) == Own().texts(turns, theirs)
    assert "whole" not in vars(ours)


def test_a_template_may_reach_nothing_but_what_it_is_given(tmp_path):
    ours, _ = both(tmp_path, "qwen", chat_template=CHAT_TEMPLATE)
    from jinja2.exceptions import SecurityError

    source = "{{ messages.__class__.__mro__ }}{{ messages[0].__init__.__globals__ }}"
    with pytest.raises(SecurityError):
        ours.apply_chat_template(TURNS, chat_template=source, tokenize=False)


@pytest.mark.parametrize(
    "stated",
    [
        {"tokenizer_class": "LlamaTokenizer"},
        {"tokenizer_class": None},
        {"add_bos_token": True},
        {"add_eos_token": True},
        {"add_prefix_space": True},
        {"clean_up_tokenization_spaces": True},
        {"eos_token": "<|not there|>"},
        {"eos_token": {"content": "<|im_end|>", "lstrip": True}},
        {"extra_special_tokens": ["<|not there|>"]},
        {"extra_special_tokens": {"image": "<|im_start|>"}},
    ],
    ids=str,
)
def test_a_tokenizer_that_is_not_all_in_its_file_is_left_to_transformers(stated, tmp_path):
    assert both(tmp_path, "qwen")[0] is not None
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | stated))
    assert PlainTokenizer.read(tmp_path) is None


def test_files_that_are_not_there_or_not_read_here_are_left_to_transformers(tmp_path):
    both(tmp_path, "qwen")
    (tmp_path / "tokenizer_config.json").write_text("{")
    assert PlainTokenizer.read(tmp_path) is None
    both(tmp_path, "qwen")
    (tmp_path / "tokenizer.json").unlink()
    assert PlainTokenizer.read(tmp_path) is None


@pytest.mark.parametrize("damage", ["", "{", '{"version": "1.0"}', "no json"])
def test_a_damaged_tokenizer_is_refused_in_a_line(damage, tmp_path):
    both(tmp_path, "qwen")
    (tmp_path / "tokenizer.json").write_text(damage)
    with pytest.raises(ModelError, match=r"tokenizer\.json: no tokenizer \(.+\); fetch it again\.$"):
        PlainTokenizer.read(tmp_path)


def test_lengths_set_in_the_file_cut_nothing(tmp_path):
    theirs = tokenizer("qwen")
    theirs.backend_tokenizer.enable_truncation(3)
    theirs.backend_tokenizer.enable_padding(length=9)
    with quiet():
        theirs.save_pretrained(tmp_path)
    assert len(PlainTokenizer.read(tmp_path).encode("who sells red bread, every day at 7?")) > 9


def test_what_is_saved_is_read_again_alike(tmp_path):
    ours, theirs = both(tmp_path, "llama3", chat_template=CHAT_TEMPLATE)
    (tmp_path / "copy").mkdir()
    ours.save_pretrained(tmp_path / "copy")
    for again in (PlainTokenizer.read(tmp_path / "copy"), load(AutoTokenizer, tmp_path / "copy")):
        assert again.encode("red bread at 7") == theirs.encode("red bread at 7")
        assert again.get_chat_template() == CHAT_TEMPLATE


def test_another_process_gets_all_of_it(tmp_path):
    ours, theirs = both(tmp_path, "llama3", chat_template=RICH)
    ours.apply_chat_template(TURNS, chat_template=RICH, tokenize=False)
    again = pickle.loads(pickle.dumps(ours))
    assert "whole" not in vars(again)
    assert again.encode("red bread at 7") == theirs.encode("red bread at 7")
    assert again.eos_token_id == theirs.eos_token_id
