"""Asking completers in tests: prompts from texts, answers in their order."""

from fedloom.base.plugin import lookup
from fedloom.completers.answer_file import asking
from fedloom.completers.model import LocalModel
from fedloom.contracts.evaluation import Sampling
from fedloom.contracts.examples import Turn
from fedloom.contracts.federated import Template
from fedloom.models.causal_lm import CausalLM

SHORT = Sampling(max_new_tokens=8)


def prompts(*texts):
    return [(Turn("user", text),) for text in texts]


def answers(completer, asked, sampling=SHORT):
    with completer.opened() as answer:
        found = dict(answer(asked, sampling))
    return [found[place].text for place in range(len(asked))]


def asked_in(folder, completer, *texts, sampling=SHORT):
    with asking(completer, folder / "answers.jsonl") as asker:
        return [answer.text for answer in asker.ask([(prompt, sampling) for prompt in prompts(*texts)])]


def local(folder, **fields):
    """The small model in `folder / "model"` with the template vicuna."""
    vicuna = lookup(Template, "vicuna")()
    return LocalModel(**{"model": CausalLM(path=str(folder / "model"), lora_rank=2), "template": vicuna} | fields)
