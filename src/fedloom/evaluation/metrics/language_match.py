"""Share of answers in the language asked for: the example's tag `language`, without one that of the question.

Real languages are told by the library `langdetect` (extra `text`; Shuyo, 2010) with a fixed seed, whose tags may be
codes or English names; the invented languages of the controlled world by their vocabulary and order of words (the rule
stands in `languages`).

The weight is 0 where the rule cannot tell: where it does not know the language, or does not find it in the reference
itself, as in a bare number or a single name.
"""

from fedloom.base.mean import Mean
from fedloom.base.plugin import plugin
from fedloom.contracts.examples import Example
from fedloom.contracts.federated import Metric, Prediction
from fedloom.evaluation.metrics.languages import code_of, languages_of, worlds_languages_of
from fedloom.evaluation.metrics.texts import reference_of
from fedloom.world.languages import LANGUAGES

__all__ = ["LanguageMatch"]


@plugin("language_match")
class LanguageMatch(Metric):
    """1 if the answer is in the language asked for, else 0; an answer without words is in none."""

    needs = ("langdetect",)

    def __call__(self, example: Example, prediction: Prediction) -> Mean:
        """Return 0 or 1; a Document asks nothing and weighs 0."""
        if not example.prompt:
            return Mean()
        rule = worlds_languages_of if example.tags.get("language") in LANGUAGES else languages_of
        wanted, reference = _wanted(example), reference_of(example)
        if not wanted or (reference is not None and not rule(reference) & wanted):
            return Mean()
        return Mean(float(bool(rule(prediction.text) & wanted)), 1.0)


def _wanted(example: Example) -> frozenset[str]:
    tag = example.tags.get("language", "")
    if not tag:
        return languages_of(example.prompt[-1].text)
    language = tag if tag in LANGUAGES else code_of(tag)
    return frozenset() if language is None else frozenset((language,))
