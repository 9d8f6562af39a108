"""`fedloom evaluate`: a model takes open-ended examinations (`exam`) or closed-ended tasks through lm-eval (`tasks`).

`compare` sets two models that were asked equal tasks against each other; `generated` sets a run's generated pairs
against the private examples that they stand for; `copies` asks whether generated examples repeat private ones.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import typer

from fedloom.base.tables import Table
from fedloom.cli.output import AsJson, Quiet, lines, overriding, tell, today

__all__ = ["evaluate"]

Record = Mapping[str, Any]

evaluate = typer.Typer(help="A trained model: open-ended examinations and closed-ended tasks.")


@evaluate.command("exam")
def exam(
    model: Annotated[
        Path,
        typer.Argument(help="A run directory, an adapter or model folder, or a completer (TOML).", show_default=False),
    ],
    file: Annotated[Path, typer.Argument(help="What is asked and who judges (TOML).", show_default=False)],
    out: Annotated[Path, typer.Option(help="The directory to make or to go on with.", show_default=False)],
    overrides: Annotated[list[str] | None, overriding("resamples=500")] = None,
    against: Annotated[Path | None, typer.Option(help="A second model to compare with.", show_default=False)] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Put open-ended questions to a model and have a judge grade the answers; the same command again goes on."""
    from fedloom.base import config
    from fedloom.judged.grading import Examination
    from fedloom.judged.run import sit

    examination = config.build(Examination, reduce(config.apply_override, overrides or [], config.read_toml(file)))
    silent = quiet or as_json
    result = sit(model, examination, out, against=against, report=lambda line: lines([] if silent else [line]))
    tell(result.record, result.tables, [*result.record["warnings"], str(out)], as_json=as_json, quiet=quiet)


@evaluate.command("generated")
def generated(
    folder: Annotated[Path, typer.Argument(help="A run that made pairs: prepare 'pairs', refine 'knowledge'.")],
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", help="Corpus metrics with references; left out: fid, mauve_style.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="Folder of a sentence encoder; left out: n-grams of characters.")] = "",
    as_json: AsJson = False,
) -> None:
    """How like generated pairs are to all clients' private examples: for simulations, which have both."""
    from fedloom.base import config
    from fedloom.base.plugin import lookup
    from fedloom.contracts.federated import CorpusMetric
    from fedloom.results.generated import likeness

    kinds = [lookup(CorpusMetric, name) for name in metrics or ("fid", "mauve_style")]
    paths = {"path": encoder} if encoder else {}
    built = [config.build(kind, paths if "path" in vars(kind()) else {}) for kind in kinds]
    found = likeness(folder, built)
    header = ("score", "generated and private", "n", "halves of the private", "n")
    rows = [(one.score, f"{one.pairs:.4f}", str(one.n_pairs), f"{one.halves:.4f}", str(one.n_halves)) for one in found]
    tell([vars(one) for one in found], [Table("likeness", header, tuple(rows))], as_json=as_json)


@evaluate.command("copies")
def copies_of(
    folder: Annotated[Path, typer.Argument(help="A run whose clients generated examples: prepare 'generated'.")],
    by: Annotated[str, typer.Option(help="Tag of the class.")] = "label",
    as_json: AsJson = False,
) -> None:
    """Do generated examples lie nearer to the private ones than to others of their class? For simulations."""
    from fedloom.results.copies import copies

    found = copies(folder, by)
    header = ("samples", "nearer to a private example", "by chance", "p", "copies")
    row = (str(found.samples), f"{found.nearer:.3f}", "0.500", f"{found.p_value:.3f}", str(found.copies))
    verdict = "private examples are given away" if found.copied else "no sign of copying"
    told = {**vars(found), "copied": found.copied}
    tell(told, [Table("nearest neighbours", header, (row,))], [verdict], as_json=as_json)


@evaluate.command("tasks")
def evaluate_tasks(
    model: Annotated[
        str,
        typer.Argument(help="A run directory, an adapter or model folder, or fedloom-embedded.", show_default=False),
    ],
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Names, or paths of task files; none lists the names.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with <task>.jsonl (or .json, .parquet, .csv); left out: the hub.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each task; left out: all.")] = None,
    shots: Annotated[
        int | None, typer.Option(min=0, help="Solved questions first; left out: as the task says.")
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run programs that the model writes, confined.")
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Ask without a template.")] = False,
    out: Annotated[Path | None, typer.Option(help="The folder of results; an old one is gone on with.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a model closed-ended tasks: MMLU, BBH, DROP, CRASS, HumanEval, MBPP, GSM8K, MATH, medicine, finance, own."""
    from fedloom.base.errors import ModelError
    from fedloom.base.extras import require
    from fedloom.base.machine import device_of
    from fedloom.completers.candidates import candidate
    from fedloom.completers.model import LocalModel
    from fedloom.contracts.language import language_model
    from fedloom.lm_eval.examine import Wanted, examine
    from fedloom.lm_eval.language_model import Scorer
    from fedloom.models.checkpoint import EMBEDDED

    if not tasks:
        lines(_listing())
        return
    require("evaluate tasks", "lm_eval", "datasets")
    found = LocalModel() if model == EMBEDDED else candidate(Path(model))
    built = language_model(found.model.build(seed=0, device=device_of("auto")))
    scorer = Scorer(built, built.trainable, None if plain else found.template)
    try:
        scorer.blank()
    except ModelError as error:
        raise ModelError(f"{model}: {error} Here --plain asks without a template.") from error
    folder = out or Path("evaluations") / f"{today()}_{Path(model).resolve().name}"
    wanted = Wanted(tasks=tuple(tasks), data_dir=data_dir, limit=limit, shots=shots, allow_code=allow_code)
    quiet = as_json or len(tasks) == 1
    results = examine(scorer, wanted, folder, report=lambda result: lines([] if quiet else [f"{result['task']}: done"]))
    tell(results, [_table(results)], [*_remarks(results), str(folder)], as_json=as_json)


def _listing() -> list[str]:
    from fedloom.lm_eval.shipped import sources

    named = [f"{name}: {source}; columns {', '.join(columns)}" for name, (columns, source) in sources().items()]
    return [*named, "Besides these: any task of lm-eval, and the path of a task file (docs/closed_ended.md)."]


def _table(results: Sequence[Record]) -> Table:
    rows = [
        (result["task"], result["version"], score["metric"], score["filter"], *_numbers(score))
        for result in results
        for score in result["scores"]
    ]
    header = ("task", "version", "metric", "filter", "score [95 % interval]", "standard error", "n")
    return Table("closed-ended tasks", header, tuple(rows))


def _numbers(score: Record) -> tuple[str, str, str]:
    known = score["low"] is not None
    shown = f"{score['value']:.3f}" + (f" [{score['low']:.3f}, {score['high']:.3f}]" if known else "")
    error = f"{score['standard_error']:.3f}" if score["standard_error"] is not None else ""
    return shown, error, str(score["n"])


def _remarks(results: Sequence[Record]) -> list[str]:
    return [
        f"{result['task']}: {result['contexts_cut']} of {result['n']} questions were longer than the model takes; they "
        "lost their beginnings"
        for result in results
        if result["contexts_cut"]
    ]


@evaluate.command("compare")
def compare_tasks(
    one: Annotated[Path, typer.Argument(help="A folder of `evaluate tasks`, of the model of interest.")],
    other: Annotated[Path, typer.Argument(help="Another one, asked the same.")],
    as_json: AsJson = False,
) -> None:
    """Print how two models differ, question by question; "better" only where the interval leaves out 0."""
    from fedloom.lm_eval.compare import compare_results

    records = compare_results(one, other)
    rows = [
        (r["task"], r["metric"], r["filter"], f"{r['difference']:.3f} [{r['low']:.3f}, {r['high']:.3f}]", r["verdict"])
        for r in records
    ]
    header = ("task", "metric", "filter", "difference [95 % interval]", f"{one.name} is")
    tell(records, [Table(f"{one} less {other}", header, tuple(rows))], as_json=as_json)
