"""The public training sets of federated instruction tuning and value alignment: data only, one row per set.

The sets are those of OpenFedLLM (arXiv 2402.06954). Hub names, columns and licences were written down without access to
the hub and only the UltraFeedback row was compared with its card: if a set has moved or renamed a column, the refusal
lists the columns present. Its card's licence binds whoever loads a set; the one below is a reminder, not advice.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fedloom.data.sources._recipe import FormName

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True, slots=True)
class Preset:
    """Where a data set lies and how its records read."""

    hub: str
    form: FormName
    columns: tuple[tuple[str, str], ...]
    licence: str
    subset: str = ""
    split: str = "train"
    test_split: str = ""
    unique: str = ""
    note: str = ""


PRESETS: Mapping[str, Preset] = {
    "code_alpaca": Preset("sahil2801/CodeAlpaca-20k", "alpaca", (), "CC BY 4.0", note="20 k coding instructions"),
    "alpaca_cleaned": Preset("yahma/alpaca-cleaned", "alpaca", (), "CC BY 4.0", note="Alpaca with faults mended"),
    "alpaca": Preset("tatsu-lab/alpaca", "alpaca", (), "CC BY-NC 4.0", note="its column 'text' is left aside"),
    "alpaca_gpt4": Preset("vicgalle/alpaca-gpt4", "alpaca", (), "CC BY-NC 4.0", note="'text' is left aside"),
    "finance_alpaca": Preset("gbharti/finance-alpaca", "alpaca", (), "MIT", note="'text' is left aside"),
    "fingpt_sentiment": Preset("FinGPT/fingpt-sentiment-train", "alpaca", (), "not stated; see the card"),
    "wizardlm_evol_70k": Preset(
        "WizardLMTeam/WizardLM_evol_instruct_70k", "alpaca", (), "not stated; see the card", note="has no 'input'"
    ),
    "math_instruct": Preset(
        "TIGER-Lab/MathInstruct",
        "alpaca",
        (),
        "MIT; parts have their own",
        unique="instruction",
        note="the first record of each instruction is kept",
    ),
    "math": Preset(
        "DigitalLearningGmbH/MATH-lighteval",
        "prompt_completion",
        (("prompt", "problem"), ("completion", "solution")),
        "MIT",
        test_split="test",
        note="a copy; the name used in the publication was taken down",
    ),
    "gsm8k": Preset(
        "openai/gsm8k",
        "prompt_completion",
        (("prompt", "question"), ("completion", "answer")),
        "MIT",
        subset="main",
        test_split="test",
    ),
    "medical_flashcards": Preset(
        "medalpaca/medical_meadow_medical_flashcards",
        "prompt_completion",
        (("prompt", "input"), ("completion", "output")),
        "Creative Commons, variant not stated; see the card",
        note="'instruction' says the same in all records and is left aside, as published",
    ),
    "hh_rlhf": Preset(
        "Anthropic/hh-rlhf",
        "transcript",
        (),
        "MIT",
        test_split="test",
        note='split at the last answer; records that are no pair of answers to one prompt need malformed = "drop"',
    ),
    "ultrafeedback": Preset(
        "HuggingFaceH4/ultrafeedback_binarized",
        "preference",
        (),
        "MIT",
        split="train_prefs",
        test_split="test_prefs",
        note="the preference splits, not those for supervised tuning",
    ),
}
