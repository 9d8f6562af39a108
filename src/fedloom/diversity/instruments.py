"""What the clients of a federation measure their data with: languages, lengths, vectors and difficulty.

With a model: tokens of its tokenizer, its last hidden states averaged over the tokens of a text, and IFD. Without one:
characters, hashed counts of character n-grams, and no IFD. The bandwidth of the kernel is the root mean square distance
between the vectors of a few fixed sentences, so that no client's data set it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedloom.base.config import read_toml
from fedloom.base.errors import ConfigError
from fedloom.contracts.diversity import Instruments, Vectors
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Task
from fedloom.contracts.language import LanguageModel
from fedloom.data.example_texts import instruction, response
from fedloom.evaluation.difficulty import ifd
from fedloom.text.embedding import counted
from fedloom.text.words import well_formed

__all__ = ["hidden_means", "instruments", "language_of"]

_MOST_TOKENS = 256  # of a text whose vector is taken
_BATCH = 32
_MOST_CHARACTERS = 1000  # of a text whose language is told
_SENTENCES: Sequence[str] = read_toml(Path(__file__).with_name("sentences.toml"))["sentences"]


def instruments(data: Mapping[str, Sequence[Example]], model: LanguageModel | None, task: Task) -> Instruments:
    """Return what the clients measure with; whether the data have tags is all that is looked up in them.

    Raises ConfigError if no record has the tag `language` and no identifier is installed.
    """
    tagged = any("language" in example.tags for examples in data.values() for example in examples)
    vectors = hidden_means(model) if model else counted
    return Instruments(
        language=(lambda example: example.tags.get("language", "untagged")) if tagged else language_of(),
        length=_tokens(model) if model else len,
        length_unit="tokens" if model else "characters",
        vectors=vectors,
        bandwidth=_usual_distance(vectors(_SENTENCES)),
        ifd=_difficulties(model, task) if model else None,
        names={
            "language": "the tag 'language'; records without it are 'untagged'" if tagged else "langdetect",
            "quality": "IFD of the run's model before tuning",
            "length": "tokens of the run's tokenizer" if model else "characters",
            "embedding": "mean last hidden states of the run's model" if model else "counts of character n-grams",
        },
    )


def language_of() -> Callable[[Example], str]:
    """Return what tells the language of an example, its ISO 639-1 code, or `unknown` where there are no letters.

    The library `langdetect` draws n-grams at random; its draws are seeded here. Raises ConfigError without it.
    """
    try:
        from langdetect import LangDetectException
        from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory
    except ImportError as error:
        raise ConfigError(
            "describe: no record has the tag 'language' and langdetect is not installed; name the tag in the source's "
            "`tags`, or pip install fedloom[text]."
        ) from error
    factory: Any = DetectorFactory()
    factory.load_profile(PROFILES_DIRECTORY)
    factory.seed = 0

    def identify(example: Example) -> str:
        detector = factory.create()
        detector.append(f"{instruction(example)}\n{response(example)}"[:_MOST_CHARACTERS])
        try:
            return str(detector.detect())
        except LangDetectException:
            return "unknown"

    return identify


def _difficulties(model: LanguageModel, task: Task) -> Callable[[Sequence[Example]], list[float]]:
    return lambda examples: ifd(model, task, model.trainable, [one for one in examples if one.prompt])


def _tokens(model: LanguageModel) -> Callable[[str], int]:
    tokenizer: Any = model.tokenizer
    return lambda text: len(tokenizer(well_formed(text), add_special_tokens=False, verbose=False)["input_ids"])


def hidden_means(model: LanguageModel) -> Callable[[Sequence[str]], Vectors]:
    """Return what gives vectors [E, D]: the last hidden states of a text's first tokens, averaged, at unit length.

    Texts share a pass with others of like length; adapters are at their initial values.
    """

    def vectors(texts: Sequence[str]) -> Vectors:
        tokens = _token_lists(model, texts)
        order = sorted(range(len(texts)), key=lambda at: len(tokens[at]))
        found: dict[int, Vectors] = {}
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            found.update(zip(chosen, _means(model, [tokens[at] for at in chosen]), strict=True))
        return np.stack([found[at] for at in range(len(texts))])

    return vectors


def _token_lists(model: LanguageModel, texts: Sequence[str]) -> list[list[int]]:
    tokenizer: Any = model.tokenizer
    most = min(_MOST_TOKENS, model.positions or _MOST_TOKENS)
    return [ids[:most] for ids in tokenizer([*map(well_formed, texts)], verbose=False)["input_ids"]]


def _means(model: LanguageModel, tokens: Sequence[Sequence[int]]) -> Vectors:
    """Return the unit vectors [B, D] of token lists, padded behind their ends."""
    longest = max(map(len, tokens))
    tokens_BT = torch.tensor([[*line, *[0] * (longest - len(line))] for line in tokens], device=model.device)
    mask_BT = torch.tensor([[1] * len(line) + [0] * (longest - len(line)) for line in tokens], device=model.device)
    with torch.no_grad():
        states = model.states(model.trainable, {"input_ids": tokens_BT, "attention_mask": mask_BT, "use_cache": False})
    states_BTD = states.double() * mask_BT[:, :, None]
    mean_BD = states_BTD.sum(1) / mask_BT.sum(1, keepdim=True).clamp(min=1)
    return torch.nn.functional.normalize(mean_BD, dim=1).cpu().numpy()


def _usual_distance(vectors_ED: Vectors) -> float:
    squared_EE = ((vectors_ED[:, None] - vectors_ED[None]) ** 2).sum(axis=-1)
    n = len(vectors_ED)
    return float((squared_EE.sum() / (n * (n - 1))) ** 0.5)
