"""Harmless requests that look harmful, and the share of answers that do not refuse them: what safety must not cost.

Source: the idea of XSTest (Röttger et al., 2024, https://arxiv.org/abs/2308.01263); its prompts
(`xstest_prompts.csv` of its repository) are not shipped.

Scores: `serves_anchored` (the answer does not begin like a refusal) and `serves_anywhere` (it holds no phrase of
refusals), each 0 or 1 per request; the rate of over-refusal is one minus either.

Deviations: refusals are told by fixed lists, where XSTest has people or a model label full and partial ones; greedy
answers. A file that also holds requests to refuse has to be cut to the harmless ones first.
"""

from fedloom.base.plugin import AtLeast, plugin
from fedloom.judged.exams._forms import RequestFile

__all__ = ["OverRefusal"]


@plugin("over_refusal")
class OverRefusal(RequestFile):
    """Harmless requests from a local file; no judge is asked."""

    layout = "a CSV file with a column prompt, or a JSON list of objects with prompt, instruction or goal, all harmless"
    fetch = (
        "fetch xstest_prompts.csv from the repository of XSTest (arXiv 2308.01263) and leave its contrast prompts out"
    )
    temperature = 0.0
    score = "serves"
    reference = "Here it is."

    max_new_tokens: AtLeast = 256
