"""Axes of categories: the Jensen-Shannon divergence (base 2) of each client's mixture of them to that of all records.

Language: the labels are those of the tag `language` where the data have it, else those of a language identifier.

Instruction: the categories are verb-noun pairs. Self-Instruct (Wang et al. 2023, https://arxiv.org/abs/2212.10560,
section 3.3) takes the root verb of an instruction and its direct noun object. Here the pair is found by rule in the
first sentence that has words, case folded:

- the verb is the first of the sentence's first 12 words that is in a fixed list of English verbs; without one it is
  the first question word; without that it is `other`;
- the noun is the last of the first run of content words behind the verb (from the beginning for `other`): words up to
  the next function word or sign of punctuation, so "write a short story about dogs" gives "story"; a plural s is cut.

Deviations: no parser, hence no model to download, and errors where a verb of the list is used as a noun or a clause
follows. Pairs with `other` are kept, as instructions in other languages would all be lost. Verbs leave in clear, they
are ours; nouns are the client's words, and leave as one of 64 buckets by hash: since buckets only merge pairs, the
divergence is at most that of the pairs themselves.
"""

import hashlib
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from fedloom.base.config import read_toml
from fedloom.base.plugin import plugin
from fedloom.contracts.diversity import Aggregate, Diversity, Found, Instruments
from fedloom.contracts.examples import Example
from fedloom.data.example_texts import instruction
from fedloom.diversity.axes._against_pool import Counts, counts_of, divergence_index

__all__ = ["Instruction", "Language", "verb_and_noun"]

_LISTED = {kind: frozenset(text.split()) for kind, text in read_toml(Path(__file__).with_name("words.toml")).items()}
_VERBS, _QUESTION_WORDS = _LISTED["verbs"], _LISTED["questions"]
_FUNCTION_WORDS = _QUESTION_WORDS | _LISTED["functions"]
_SENTENCE = re.compile(r"[.!?:;\n\u3002\uff01\uff1f]+")
# Scripts without blanks give pairs of characters, all others words; a sign of punctuation ends a run.
_TOKEN = re.compile(
    r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]{1,2}|[^\W_\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]"
)
_WITHIN = 12
_BUCKETS = 64


class Categories(Diversity):
    """Records per category."""

    kind = "categories"
    counted: ClassVar[str]
    """What is counted, in one word."""

    def aggregate(self, examples: Sequence[Example], instruments: Instruments) -> Aggregate:
        """Return the number of examples by category; those that have none are left out."""
        told = (self.category(example, instruments) for example in examples)
        return {self.counted: Counter(name for name in told if name is not None)}

    def find(self, aggregates: Mapping[str, Aggregate], instruments: Instruments) -> Found:
        """Return each client's divergence to the pool; the number of categories, and further figures of the pool."""
        counts = counts_of(aggregates, self.counted)
        figures = {self.counted: float(len(counts.bins)), **self.figures(counts)}
        return Found((divergence_index(counts, "Jensen-Shannon divergence"),), figures)

    @abstractmethod
    def category(self, example: Example, instruments: Instruments) -> str | None:
        """Return the category of an example, if it has one."""

    @abstractmethod
    def figures(self, counts: Counts) -> dict[str, float]:
        """Return further numbers of the pool by name."""


@plugin("language")
class Language(Categories):
    """Records per language."""

    title = "Language"
    sends = "number of records in each language"
    counted = "languages"

    def category(self, example: Example, instruments: Instruments) -> str:
        """Return the language."""
        return instruments.language(example)

    def figures(self, counts: Counts) -> dict[str, float]:
        """Return the share of the largest."""
        return {"largest_share": float(counts.pool_B.max() / counts.pool_B.sum())}


@plugin("instruction")
class Instruction(Categories):
    """What the instructions ask to be done, and to what."""

    title = "Instruction"
    sends = f"number of records for each verb of a fixed list and each of {_BUCKETS} hash buckets of nouns"
    counted = "pairs"

    def category(self, example: Example, instruments: Instruments) -> str | None:
        """Return the verb and the bucket of the noun; None without an instruction."""
        text = instruction(example)
        return _bin(*verb_and_noun(text)) if text.strip() else None

    def figures(self, counts: Counts) -> dict[str, float]:
        """Return the share without a known verb."""
        other = sum(n for name, n in zip(counts.bins, counts.pool_B, strict=True) if name.startswith("other "))
        return {"share_without_verb": float(other / counts.pool_B.sum())}


def verb_and_noun(text: str) -> tuple[str, str]:
    """Return the verb, or what stands for it, and the noun of an instruction, "" where there is none.

    >>> verb_and_noun("Please write a short story about two dogs.")
    ('write', 'story')
    """
    sentences = (part for part in _SENTENCE.split(text.casefold()) if re.search(r"\w", part))
    tokens = _TOKEN.findall(next(sentences, ""))
    verbs = [at for at, token in enumerate(tokens[:_WITHIN]) if token in _VERBS]
    asked = [at for at, token in enumerate(tokens) if token in _QUESTION_WORDS]
    at = (verbs or asked or [-1])[0]
    return "other" if at < 0 else tokens[at], _noun(tokens[at + 1 :])


def _noun(tokens: Sequence[str]) -> str:
    noun = ""
    for token in tokens:
        content = token not in _FUNCTION_WORDS and token[0].isalnum()
        if noun and not content:
            break
        noun = token if content else noun
    return noun[:-1] if len(noun) > 3 and noun.endswith("s") and not noun.endswith("ss") else noun


def _bin(verb: str, noun: str) -> str:
    bucket = int.from_bytes(hashlib.sha256(noun.encode("utf-8", "replace")).digest()[:8], "big") % _BUCKETS
    return f"{verb} #{bucket:02d}"
