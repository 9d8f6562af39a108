"""Held-out instructions, each answer graded from 1 to 10 by a judge that sees no reference.

Source: "Ref-GPT4" of FedLLM-Bench (https://arxiv.org/abs/2406.04845) for its chatbot and WildChat test sets, which in
the released code shows the judge no reference; hence the name here. Recipe: temperature 0.7, at most 1,024 new tokens;
the judge at 0.2, a general rubric. `ref_judge` is the one with a reference.

Scores: `quality`, 1 to 10, and `unparsed`.

Deviations: prompts written anew; a verdict without a grade is counted apart.
"""

from fedloom.base.plugin import plugin
from fedloom.judged.exams._files import LAYOUTS
from fedloom.judged.exams._forms import GradedFile

__all__ = ["QualityJudge"]


@plugin("quality_judge")
class QualityJudge(GradedFile):
    """Instructions of a local file, graded without a reference: one in the file is shown to nobody."""

    layout = LAYOUTS
    fetch = "fetch a test set of FedLLM-Bench or write your own"
    score = "quality"
