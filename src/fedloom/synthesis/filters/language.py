"""Texts in the language asked for.

Real languages are told by the library `langdetect` (extra `text`; Shuyo, 2010), those of the controlled world by their
vocabulary, as in the metric `language_match`. Short texts are told badly, hence instruction and response together
unless one of them is named.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from fedloom.base.errors import ConfigError
from fedloom.base.plugin import plugin
from fedloom.contracts.synthesis import Around, Candidate, Filter, Verdict
from fedloom.evaluation.metrics.languages import code_of, languages_of, worlds_languages_of
from fedloom.world.languages import LANGUAGES

__all__ = ["Language"]


@plugin("language")
class Language(Filter):
    """Drops candidates in another language, and those without words by which one could be told."""

    needs = ("langdetect",)
    reasons: ClassVar[tuple[str, ...]] = ("other_language",)

    language: str = "english"
    """The language wanted: its English name, its code, or a language of the controlled world."""
    of: Literal["pair", "instruction", "response"] = "pair"
    """Which text has to be in it."""

    def check(self) -> None:
        """Refuse a language that nothing here can tell."""
        if self.language not in LANGUAGES and code_of(self.language) is None:
            raise ConfigError(
                f"language: found '{self.language}', allowed are those that langdetect knows, by name or code, and "
                f"{', '.join(LANGUAGES)}; choose one of these, or leave the filter out."
            )

    def __call__(self, candidates: Sequence[Candidate], around: Around) -> list[Verdict]:
        """Return a verdict for each candidate by itself."""
        rule = worlds_languages_of if self.language in LANGUAGES else languages_of
        wanted = self.language if self.language in LANGUAGES else code_of(self.language)
        return [Verdict("" if wanted in rule(self._text(one)) else "other_language") for one in candidates]

    def _text(self, one: Candidate) -> str:
        texts = {"instruction": one.instruction, "response": one.response}
        return texts.get(self.of, f"{one.instruction}\n{one.response}")
