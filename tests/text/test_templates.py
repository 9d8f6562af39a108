"""Templates: bytes as published, one contract for all, refusals."""

import pickle
import re

import pytest
from jinja2 import TemplateError

from fedloom.base import plugin
from fedloom.base.errors import ConfigError, MissingFileError, ModelError, UnknownNameError
from fedloom.contracts.examples import Turn
from fedloom.contracts.federated import Template
from fedloom.text.masks import pieces_to_tokens
from support.tokenizers import CHAT_TEMPLATE, tokenizer

FILE = 'preamble = "A talk.\\n"\nuser = "Q: {text}\\n"\nassistant = "A: {text}"\nseparator = "\\n"\n'
DIALOGUE = (
    Turn("user", "Who sells bread?"),
    Turn("assistant", "The baker."),
    Turn("user", "When?"),
    Turn("assistant", "At 7."),
    Turn("user", "Where?"),
    Turn("assistant", "Here."),
)
NAMES = plugin.names(Template)


def _template(name, folder):
    if name != "file":
        return plugin.lookup(Template, name)()
    path = folder / "mine.toml"
    path.write_text(FILE)
    return plugin.lookup(Template, name)(path=path)


@pytest.fixture(params=NAMES)
def template(request, tmp_path):
    return _template(request.param, tmp_path)


@pytest.fixture
def qwen():
    return tokenizer("qwen", chat_template=CHAT_TEMPLATE)


def _text(pieces):
    return "".join(piece.text for piece in pieces)


def _learnt(pieces):
    return [piece.text for piece in pieces if piece.supervised]


def _pieces(name, turns, tokenizer):
    return plugin.lookup(Template, name)().pieces(turns, tokenizer)


# ------------------------------------------------------------------------------------------------------- the contract


def test_every_template_is_tested_here():
    assert NAMES == ["alpaca", "bare", "chatml", "file", "own", "vicuna"]


@pytest.mark.parametrize("n_turns", [1, 3, 5])
def test_the_prompt_is_a_byte_prefix_of_the_training_text(template, qwen, n_turns):
    prompt = _text(template.pieces(DIALOGUE[:n_turns], qwen)).encode()
    assert _text(template.pieces(DIALOGUE, qwen)).encode().startswith(prompt)


@pytest.mark.parametrize("n_turns", [1, 3, 5])
def test_the_pieces_of_a_prompt_are_those_that_training_begins_with(template, qwen, n_turns):
    prompt = template.pieces(DIALOGUE[:n_turns], qwen)
    assert template.pieces(DIALOGUE, qwen)[: len(prompt)] == prompt


def test_an_answer_follows_the_prompt_at_once(template, qwen):
    prompt = template.pieces(DIALOGUE[:1], qwen)
    assert template.pieces(DIALOGUE, qwen)[len(prompt)].supervised


def test_each_answer_is_learnt_with_its_end_token_and_nothing_else(template, qwen):
    learnt = [text.lstrip(" ") for text in _learnt(template.pieces(DIALOGUE, qwen))]
    assert learnt == ["The baker.<|im_end|>", "At 7.<|im_end|>", "Here.<|im_end|>"]


def test_a_system_turn_is_written_and_not_learnt(template, qwen):
    pieces = template.pieces((Turn("system", "Be brief."), *DIALOGUE), qwen)
    assert "Be brief." in _text(pieces) and "Be brief." not in "".join(_learnt(pieces))


def test_an_empty_answer_leaves_its_end_to_learn(template, qwen):
    pieces = template.pieces((DIALOGUE[0], Turn("assistant", "")), qwen)
    assert [text.strip() for text in _learnt(pieces)] == ["<|im_end|>"]


def test_a_template_survives_pickling(template, qwen):
    assert pickle.loads(pickle.dumps(template)).pieces(DIALOGUE, qwen) == template.pieces(DIALOGUE, qwen)


# -------------------------------------------------------------------------------------------------- bytes as published


def test_alpaca_is_as_published():
    text = _text(_pieces("alpaca", DIALOGUE[:2], tokenizer("llama2")))
    assert text == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nWho sells bread? \n\n### Response: The baker.</s>"
    )


def test_alpaca_prompts_end_with_the_colon():
    assert _text(_pieces("alpaca", DIALOGUE[:1], tokenizer("llama2"))).endswith("bread? \n\n### Response:")


def test_vicuna_is_as_published():
    text = _text(_pieces("vicuna", DIALOGUE[:2], tokenizer("llama2")))
    assert text == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed,"
        " and polite answers to the user's questions. USER: Who sells bread? ASSISTANT: The baker.</s>"
    )


def test_bare_adds_nothing_but_the_end():
    prompt = "USER: a question ASSISTANT:"
    turns = (Turn("user", prompt), Turn("assistant", " an answer"))
    assert _text(_pieces("bare", turns, tokenizer("llama2"))) == f"{prompt} an answer</s>"


def test_vicuna_goes_on_as_in_fastchat():
    text = _text(_pieces("vicuna", DIALOGUE[:4], tokenizer("llama2")))
    assert text.endswith("ASSISTANT: The baker.</s>USER: When? ASSISTANT: At 7.</s>")


def test_vicuna_prompts_end_with_the_colon():
    assert _text(_pieces("vicuna", DIALOGUE[:3], tokenizer("llama2"))).endswith("</s>USER: When? ASSISTANT:")


def test_chatml_writes_what_the_usual_chat_template_renders(qwen):
    turns = [Turn("system", "Be brief."), *DIALOGUE]
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    rendered = qwen.apply_chat_template(messages, tokenize=False)
    assert _text(_pieces("chatml", turns, qwen)) + "\n" == rendered


def test_own_prompts_are_what_the_tokenizer_renders(qwen):
    messages = [{"role": turn.role, "content": turn.text} for turn in DIALOGUE[:3]]
    rendered = qwen.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert _text(_pieces("own", DIALOGUE[:3], qwen)) == rendered


def test_a_file_fills_in_its_patterns(tmp_path):
    text = _text(_template("file", tmp_path).pieces(DIALOGUE[:4], tokenizer("llama2")))
    assert text == "A talk.\nQ: Who sells bread?\nA: The baker.</s>\nQ: When?\nA: At 7.</s>"


def test_braces_in_a_turn_stay_as_they_are():
    turns = (Turn("user", "what is {text} and {eos}?"), Turn("assistant", "{text}"))
    assert "what is {text} and {eos}? ASSISTANT: {text}</s>" in _text(_pieces("vicuna", turns, tokenizer("llama2")))


# ------------------------------------------------------------------------------------------------- other chat templates

LLAMA2_CHAT = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
NO_END = (
    "{% for m in messages %}{{ m.role + ': ' + m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
REWRITES = "{{ messages | length }}" + CHAT_TEMPLATE
FORGETS = CHAT_TEMPLATE.replace("{% for m in messages %}", "{% for m in messages[-2:] %}")
SHOUTS = CHAT_TEMPLATE.replace("m.content", "m.content | upper")
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}" + CHAT_TEMPLATE
DATED = "{{ date_string | default(strftime_now('%H:%M:%S')) }}" + CHAT_TEMPLATE
CLOCKED = "{% macro day() %}{{ strftime_now('%A, %d %B %Y, %H:%M:%S') }}{% endmacro %}{{ day() }}" + CHAT_TEMPLATE
# As Qwen3's: an answer opens with empty thinking, of which earlier answers are stripped.
STRIPS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}{% endif %}"
)
# As Phi-3's: a conversation ends with the end token, which stands behind no earlier answer.
ENDS = CHAT_TEMPLATE + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"


def test_own_learns_the_blank_and_the_end_that_llama_2_chat_writes():
    pieces = _pieces("own", DIALOGUE[:2], tokenizer("llama2", chat_template=LLAMA2_CHAT))
    assert [piece.text for piece in pieces] == ["<s>[INST] Who sells bread? [/INST]", " The baker. </s>"]


def test_own_writes_no_changing_date():
    assert "26 Jul 2024<|im_start|>" in _text(_pieces("own", DIALOGUE, tokenizer("qwen", chat_template=DATED)))


def test_own_hands_templates_a_clock_that_stands():
    text = _text(_pieces("own", DIALOGUE, tokenizer("qwen", chat_template=CLOCKED)))
    assert text.startswith("Friday, 26 July 2024, 00:00:00<|im_start|>")


def _served(made, turns):
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    return made.apply_chat_template(messages, tokenize=False, enable_thinking=False)


@pytest.mark.parametrize("chat_template", [STRIPS, ENDS], ids=["strips thinking", "ends with a token"])
def test_where_earlier_answers_are_rewritten_each_is_learnt_as_it_is_rendered_last(chat_template):
    made = tokenizer("qwen", chat_template=chat_template)
    texts = plugin.lookup(Template, "own")().texts(DIALOGUE, made)
    assert [_text(pieces) for pieces in texts] == [_served(made, DIALOGUE[: n + 1]).rstrip("\n") for n in (1, 3, 5)]
    assert [len(_learnt(pieces)) for pieces in texts] == [1, 1, 1]
    assert all(_learnt(pieces)[0].startswith(DIALOGUE[n].text) for pieces, n in zip(texts, (1, 3, 5), strict=True))


@pytest.mark.parametrize("chat_template", [STRIPS, ENDS], ids=["strips thinking", "ends with a token"])
def test_where_earlier_answers_are_rewritten_a_prompt_is_what_the_template_renders(chat_template):
    made = tokenizer("qwen", chat_template=chat_template)
    messages = [{"role": turn.role, "content": turn.text} for turn in DIALOGUE[:3]]
    asked = made.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert _text(_pieces("own", DIALOGUE[:3], made)) == asked


def test_where_nothing_is_rewritten_a_conversation_is_one_text(qwen):
    assert len(plugin.lookup(Template, "own")().texts(DIALOGUE, qwen)) == 1


def test_own_refuses_an_end_that_the_tokenizer_splits():
    made = tokenizer("llama2")
    made.chat_template = CHAT_TEMPLATE
    assert len(made.tokenize("<|im_end|>")) > 1
    with pytest.raises(ModelError, match="puts no special token after an answer"):
        _pieces("own", DIALOGUE, made)


@pytest.mark.parametrize("end", [">", ".", "e"])
def test_an_ordinary_token_is_no_end(end, tmp_path):
    (tmp_path / "mine.toml").write_text(FILE + f'end = "{end}"\n')
    template = plugin.lookup(Template, "file")(path=tmp_path / "mine.toml")
    with pytest.raises(ModelError, match="is no special token of the tokenizer"):
        template.pieces(DIALOGUE, tokenizer("qwen"))


def test_a_token_that_was_added_is_an_end_even_if_it_is_not_special(tmp_path):
    made = tokenizer("qwen")
    made.add_tokens(["[END]"])
    (tmp_path / "mine.toml").write_text(FILE + 'end = "[END]"\n')
    template = plugin.lookup(Template, "file")(path=tmp_path / "mine.toml")
    assert _learnt(template.pieces(DIALOGUE, made))[0].endswith("[END]")


def test_own_without_a_chat_template_is_refused():
    with pytest.raises(ModelError, match="no chat template; use the template 'alpaca', 'vicuna' or 'chatml'"):
        _pieces("own", DIALOGUE, tokenizer("qwen"))


@pytest.mark.parametrize(
    ("chat_template", "message"),
    [
        (REWRITES, "opens an answer otherwise than its prompt does"),
        (FORGETS, "opens an answer otherwise than its prompt does"),
        (NO_END, "puts no special token after an answer"),
        (SHOUTS, "changes an answer"),
    ],
)
def test_own_refuses_a_chat_template_that_cannot_be_masked(chat_template, message):
    with pytest.raises(ModelError, match=message):
        _pieces("own", DIALOGUE, tokenizer("qwen", chat_template=chat_template))


def test_own_reports_what_the_chat_template_refuses():
    turns = (Turn("system", "Be brief."), *DIALOGUE)
    with pytest.raises(ModelError, match=r"refuses turns \(system, user\): no system turns; use the template"):
        _pieces("own", turns, tokenizer("qwen", chat_template=NO_SYSTEM))


# ------------------------------------------------------------------------------------------------------------ refusals


def test_chatml_without_its_end_token_is_refused():
    with pytest.raises(ModelError, match=re.escape("'<|im_end|>' is no special token of the tokenizer")):
        _pieces("chatml", DIALOGUE, tokenizer("llama2"))


@pytest.mark.parametrize("name", ["alpaca", "vicuna"])
def test_a_tokenizer_without_an_end_token_is_refused(name):
    plain = tokenizer("qwen", chat_template=CHAT_TEMPLATE)
    plain.eos_token = None
    with pytest.raises(ModelError, match="no end-of-text token"):
        _pieces(name, DIALOGUE, plain)


def test_a_missing_template_file_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.toml"):
        plugin.lookup(Template, "file")(path=tmp_path / "none.toml")


def test_an_unknown_key_in_a_template_file_is_refused_with_a_suggestion(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FILE.replace("assistant", "asistant"))
    with pytest.raises(UnknownNameError, match=r"mine\.toml\.asistant: unknown key. Did you mean 'assistant'"):
        plugin.lookup(Template, "file")(path=path)


def test_a_pattern_without_its_text_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FILE.replace("Q: {text}", "Q:"))
    with pytest.raises(ConfigError, match=r"user: found 'Q:\\n', allowed is a text that contains '{text}' once"):
        plugin.lookup(Template, "file")(path=path)


# --------------------------------------------------------------------------------------------------- as a chat template


def _messages(turns):
    return [{"role": turn.role, "content": turn.text} for turn in turns]


@pytest.mark.parametrize("system", [(), (Turn("system", 'Say "yes"\\no {text}.'),)], ids=["without", "system"])
@pytest.mark.parametrize("n_turns", [1, 2, 3, 6])
def test_the_chat_template_writes_the_same_text(template, qwen, system, n_turns):
    turns = (*system, *DIALOGUE[:n_turns])
    source = template.jinja(qwen)
    text = qwen.apply_chat_template(
        _messages(turns), chat_template=source, tokenize=False, add_generation_prompt=n_turns % 2 == 1
    )
    right = _text(template.pieces(turns, qwen))
    assert text.rstrip("\n") == right.rstrip(
        "\n"
    )  # what a tokenizer's own template puts behind its last end is nobody's


@pytest.mark.parametrize("kind", ["llama2", "mistral", "llama3", "gemma", "qwen"])
@pytest.mark.parametrize("name", ["alpaca", "vicuna", "bare"])
def test_a_prompt_of_the_chat_template_is_the_tokens_that_were_trained(name, kind):
    found, made = tokenizer(kind), plugin.lookup(Template, name)()
    trained, _ = pieces_to_tokens(made.pieces(DIALOGUE[:1], found), found)
    asked = found.apply_chat_template(
        _messages(DIALOGUE[:1]), chat_template=made.jinja(found), tokenize=True, add_generation_prompt=True
    )
    assert list(asked["input_ids"]) == trained


def test_a_turn_without_a_form_is_refused_by_the_chat_template_too(qwen):
    source = plugin.lookup(Template, "vicuna")().jinja(qwen)
    with pytest.raises(TemplateError, match="no form for a turn of tool"):
        qwen.apply_chat_template([{"role": "tool", "content": "x"}], chat_template=source, tokenize=False)
