"""Pairs by analogy, without a model: the last example of a conversation with its words replaced by the document's.

For tests, claims and machines without a model that follows examples. It isolates what examples are worth, as it knows
nothing but them: each word of the example's document that the new document does not have is mapped to the word of the
new one, not in the example, whose neighbours at distance one and two agree most, at least once; neighbours that are
mapped to each other agree, too. Instruction and response are the example's with mapped words. A response that is the
sum of two numbers of its document becomes the sum of those they are mapped to. Where a word stays unmapped, or there is
no example, nothing is written.
"""

import contextlib
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import combinations

from fedloom.base.plugin import plugin
from fedloom.contracts.evaluation import Answer, Completer, Completion, Prompt, Sampling

__all__ = ["Analogical", "analogous", "mapping"]

_DOCUMENT = re.compile(r"<document (?P<mark>\w+)>\n(?P<text>.*)\n</document (?P=mark)>\Z", re.DOTALL)
_ANSWER = re.compile(r"Instruction: (?P<instruction>.*?)\nResponse: (?P<response>.*)", re.DOTALL)
_TOKEN = re.compile(r"\w+|[^\w\s]")
_NEIGHBOURS = (-2, -1, 1, 2)


@plugin("analogical")
class Analogical(Completer):
    """Writes the last example's pair about the prompt's last document."""

    def identity(self) -> str:
        """Return the name and a version of the rules."""
        return "analogical 1"

    @contextlib.contextmanager
    def opened(self) -> Generator[Answer]:
        """Be ready at once."""
        yield _answers


def _answers(prompts: Sequence[Prompt], _: Sampling, __: Sequence[int] = ()) -> Iterator[tuple[int, Completion]]:
    for place, prompt in enumerate(prompts):
        yield place, Completion(_completion(prompt))


def _completion(prompt: Prompt) -> str:
    texts = [turn.text for turn in prompt[-3:]]
    if len(texts) < 3:
        return ""
    example, answer, document = _DOCUMENT.search(texts[0]), _ANSWER.fullmatch(texts[1]), _DOCUMENT.search(texts[2])
    if not example or not answer or not document:
        return ""
    found = analogous(example["text"], answer["instruction"], answer["response"], document["text"])
    return "" if found is None else f"Instruction: {found[0]}\nResponse: {found[1]}"


def analogous(example: str, instruction: str, response: str, document: str) -> tuple[str, str] | None:
    """Return an example's pair with its words replaced by the document's; None where one has no counterpart."""
    mapped = mapping(_TOKEN.findall(example), _TOKEN.findall(document))
    own = set(_TOKEN.findall(example)) - set(_TOKEN.findall(document))
    told = _sum(_TOKEN.findall(example), response.strip(" ."), mapped)
    texts = [instruction, response if told is None else response.replace(response.strip(" ."), told)]
    if any(token in own and token not in mapped for text in texts for token in _TOKEN.findall(text)):
        return None
    asked, answered = (re.sub(r"\w+", lambda word: mapped.get(word[0], word[0]), text) for text in texts)
    return asked, answered if told is None else texts[1]


def _sum(tokens: Sequence[str], response: str, mapped: Mapping[str, str]) -> str | None:
    """Return the sum in place of a response that is one of two numbers of its document; None for any other."""
    if not response.isdecimal() or response in tokens:
        return None
    numbers = [token for token in dict.fromkeys(tokens) if token.isdecimal()]
    for first, second in combinations(numbers, 2):
        others = mapped.get(first, first), mapped.get(second, second)
        if int(first) + int(second) == int(response) and all(other.isdecimal() for other in others):
            return str(sum(map(int, others)))
    return None


def mapping(tokens: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """Return the counterpart of each token that the other text does not have, as far as neighbours tell one."""
    shared = set(tokens) & set(others)
    found: dict[str, str] = {}
    for token in dict.fromkeys(token for token in tokens if token not in shared and token.isalnum()):
        free = [other for other in dict.fromkeys(others) if other not in shared and other.isalnum()]
        scores = {other: _agreement(token, other, tokens, others, found) for other in free}
        best = max(free, key=lambda other: scores[other], default=None)
        if best is not None and scores[best]:
            found[token] = best
    return found


def _agreement(token: str, other: str, tokens: Sequence[str], others: Sequence[str], found: Mapping[str, str]) -> int:
    """Return how many neighbours agree where two tokens stand in places that fit best."""
    places = [at for at, one in enumerate(tokens) if one == token]
    there = [at for at, one in enumerate(others) if one == other]
    return max(
        sum(
            0 <= at + step < len(tokens)
            and 0 <= to + step < len(others)
            and others[to + step] in (tokens[at + step], found.get(tokens[at + step]))
            for step in _NEIGHBOURS
        )
        for at in places
        for to in there
    )
