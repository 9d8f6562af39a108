"""The tasks by name: those that lm-eval defines, those that lie here as files, and where a file of data has to lie.

Whatever lm-eval defines is asked and scored by its definition, so that figures are comparable with published ones. What
runs programs is defined here: lm-eval runs them unconfined, in its own process tree.
"""

from dataclasses import dataclass
from pathlib import Path

from fedloom.lm_eval.task_file import TaskFile, read_task_file

__all__ = ["FORMATS", "HARNESS", "HarnessTask", "own_task", "own_tasks", "sources"]

FORMATS = (".jsonl", ".json", ".parquet", ".csv")
"""Extensions of data files, in the order in which they are looked for."""

_FILES = Path(__file__).parent / "task_files"


@dataclass(frozen=True, kw_only=True)
class HarnessTask:
    """A task that lm-eval defines, with local data."""

    task: str
    """lm-eval's name; of a group all its members are asked."""
    folder: str
    """Where lm-eval defines it, below its folder of tasks."""
    columns: tuple[str, ...]
    source: str
    subset: str = ""
    """Column that tells a group's members apart; "" for a single task."""


_MULTIPLE = ("sent1", "ending0", "ending1", "ending2", "ending3", "label")

HARNESS = {
    "mmlu": HarnessTask(
        task="mmlu",
        folder="mmlu/default",
        columns=("question", "choices", "answer", "subject"),
        source="the split test of cais/mmlu, configuration all (for shots its split dev)",
        subset="subject",
    ),
    "bbh": HarnessTask(
        task="bbh",
        folder="bbh/cot_fewshot",
        columns=("input", "target", "subset"),
        source="the split test of every configuration of SaylorTwift/bbh, its name as subset (shots are built in)",
        subset="subset",
    ),
    "drop": HarnessTask(
        task="drop",
        folder="drop",
        columns=("query_id", "passage", "question", "answer", "validated_answers"),
        source="the split validation of EleutherAI/drop",
    ),
    "gsm8k": HarnessTask(
        task="gsm8k",
        folder="gsm8k",
        columns=("question", "answer"),
        source="the split test of openai/gsm8k, configuration main (for shots its split train)",
    ),
    "math": HarnessTask(
        task="hendrycks_math",
        folder="hendrycks_math",
        columns=("problem", "solution", "type"),
        source="the split test of every configuration of EleutherAI/hendrycks_math",
        subset="type",
    ),
    "medqa": HarnessTask(
        task="medqa_4options",
        folder="medqa",
        columns=_MULTIPLE,
        source="the split test of GBaker/MedQA-USMLE-4-options-hf",
    ),
    "medmcqa": HarnessTask(
        task="medmcqa",
        folder="medmcqa",
        columns=("question", "opa", "opb", "opc", "opd", "cop"),
        source="the split validation of openlifescienceai/medmcqa",
    ),
    "pubmedqa": HarnessTask(
        task="pubmedqa",
        folder="pubmedqa",
        columns=("QUESTION", "CONTEXTS", "final_decision"),
        source="the split test of bigbio/pubmed_qa, configuration pubmed_qa_labeled_fold0_source",
    ),
}
"""Our name -> lm-eval's task."""


def own_tasks() -> list[str]:
    """Return the names of the tasks that lie here as files."""
    return sorted(file.stem for file in _FILES.glob("*.toml"))


def own_task(name: str) -> TaskFile:
    """Return a task that lies here as a file."""
    return read_task_file(_FILES / f"{name}.toml")


def sources() -> dict[str, tuple[tuple[str, ...], str]]:
    """Return the columns of every named task and what to fetch for it."""
    known = {name: (task.columns, task.source) for name, task in HARNESS.items()}
    own = {name: own_task(name) for name in own_tasks()}
    return dict(sorted((known | {name: (task.columns, task.source) for name, task in own.items()}).items()))
