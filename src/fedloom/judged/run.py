"""An examination from start to end: models found with their templates, answers, verdicts, a directory of results.

    asked.toml                  what was asked for, every default written out
    answers.jsonl               the model's answers as they came (answers_against.jsonl: the second model's)
    verdicts.jsonl              the judge's texts as they came
    scores.jsonl                a line per graded question, the second model's too (`model`: candidate or against)
    exam.json, report.md        scores with intervals, written last

Answers and verdicts are all that a stopped examination needs: the same one again asks what is missing. One model is
loaded at a time: first the candidate answers everything, then the second model, then the judge reads.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedloom.base import config
from fedloom.base.errors import ConfigError, RunError
from fedloom.base.files import disk_errors, plain, refuse_filled, write_atomic
from fedloom.base.tables import Table
from fedloom.completers.answer_file import Asker, asking
from fedloom.completers.candidates import candidate
from fedloom.completers.model import LocalModel
from fedloom.contracts.evaluation import Answered, Completer
from fedloom.contracts.federated import Template
from fedloom.evaluation.statistics import Interval
from fedloom.judged.grading import (
    Difference,
    Examination,
    Graded,
    Row,
    answered_by,
    beyond_half,
    differences,
    graded_by,
    labels,
    questions_of,
    questions_sha256,
    rows,
    unanswered,
    unparsed,
    warnings,
)

__all__ = ["Result", "examinee", "sit"]

Report = Callable[[str], None]
Answers = Mapping[tuple[str, int], Sequence[Answered]]
"""All answers of a model by exam and seed."""


@dataclass(frozen=True)
class Result:
    """What an examination found: the record of `exam.json`, and the same as tables."""

    record: Mapping[str, Any]
    tables: tuple[Table, ...]


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What `asked.toml` holds."""

    model: str
    against: str = ""
    examination: Examination


# -------------------------------------------------------------------------------------------------------------- models


@dataclass(frozen=True, kw_only=True)
class _CompleterFile:
    """What a TOML file that stands for a model holds."""

    completer: Completer


def examinee(place: Path, template: Template | None = None) -> Completer:
    """Return who answers: the completer that a TOML file names, with its own template, else the model of a folder."""
    if place.suffix == ".toml":
        return config.build(_CompleterFile, config.read_toml(place), str(place)).completer
    return _model_in(place, template)


def _model_in(folder: Path, template: Template | None) -> LocalModel:
    """Return the model of a run directory, an adapter folder or a model folder, with the template it was trained in.

    The template of a run is that of its run file, and another one is refused: an answer in another template than that
    of training measures something else (FedLLM-Bench trained in one and evaluated in another). Models from elsewhere
    need a `template`. Raises ConfigError for the template, and what `candidates.candidate` raises.
    """
    found = candidate(folder)
    if not _lies_in_run(folder):
        if template is None:
            raise ConfigError(
                f"template: missing; {folder} does not lie in a run directory, which would tell it: add a table "
                "[template] with the one that the model was trained in."
            )
        return replace(found, template=template)
    if template not in (None, found.template):
        raise ConfigError(
            f"template: found {config.table_of(template)}, but {folder} was trained with "
            f"{config.table_of(found.template)}; leave it out."
        )
    return found


def _lies_in_run(folder: Path) -> bool:
    """Return whether a folder is a run directory or one of its results, `adapter` or `adapters/<client>`."""
    place = folder.resolve()
    home = {"adapter": place.parent, "adapters": place.parent.parent}
    run = home.get(place.name) or home.get(place.parent.name) or place
    return (run / "run.toml").is_file()


# ------------------------------------------------------------------------------------------------------------- sitting


def sit(
    model: Path, examination: Examination, out: Path, *, against: Path | None = None, report: Report = lambda _: None
) -> Result:
    """Examine a model, compare it with another where there is one, and write everything to `out`.

    `report` takes a line after each step. Raises RunError if `out` holds something else, ConfigError or a DataError for
    what cannot be asked (all before anything is loaded), CompletionError where an answer does not come.
    """
    who = {"candidate": examinee(model, examination.template)}
    if against:
        who["against"] = examinee(against, examination.template)
    _check(examination, against)
    _require(out, *who.values(), *([examination.judge] if examination.judge else []))
    _start(_Wanted(model=str(model), against=str(against or ""), examination=examination), out)
    answers: dict[str, Answers] = {}
    for name, completer in who.items():
        cache = out / ("answers.jsonl" if name == "candidate" else "answers_against.jsonl")
        with asking(completer, cache) as asker:
            answers[name] = dict(_answers(asker, examination))
            report(f"{name}: {_cost(asker)}")
    graded = _judged(examination, answers, out, report)
    result = _result(examination, who, graded)
    lines = [json.dumps({"model": name} | one.as_record()) for name, found in graded.items() for one in found]
    write_atomic(out / "scores.jsonl", "".join(f"{line}\n" for line in lines))
    write_atomic(out / "report.md", _report(result))
    write_atomic(out / "exam.json", json.dumps(result.record, indent=1))
    return result


def _check(examination: Examination, against: Path | None) -> None:
    """Read every question once and refuse what could not be graded, before anything is asked."""
    for label, one in zip(labels(examination.exams), examination.exams, strict=True):
        questions_of(one)
        if one.needs_other and against is None:
            raise ConfigError(f"{label}: compares two models, found one; give the second by --against.")


def _require(out: Path, *completers: Completer) -> None:
    """Refuse a missing key or library before hours of answers; a finished examination is read without either."""
    if not (out / "exam.json").is_file():
        for completer in completers:
            completer.require()


def _start(wanted: _Wanted, out: Path) -> None:
    """Make the directory, or see that an examination that lies there is this one."""
    file = out / "asked.toml"
    if not file.is_file():
        refuse_filled(out)
    if (out / "exam.json").is_file():
        # Round trip, so that both sides are what TOML keeps of them.
        here, there = config.read_toml(file), config.parse(config.dump(wanted), str(file))
        differing = [key for key in config.differing_keys(here, there) if not key.startswith("examination.budget")]
        if differing:
            raise RunError(f"{out}: holds a finished examination that differs in {differing[0]}; choose another --out.")
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_atomic(file, config.dump(wanted))


def _answers(asker: Asker, examination: Examination) -> Iterator[tuple[tuple[str, int], list[Answered]]]:
    for label, one in zip(labels(examination.exams), examination.exams, strict=True):
        for seed in examination.seeds:
            yield (label, seed), answered_by(asker.ask, one, seed=seed)


def _judged(
    examination: Examination, answers: Mapping[str, Answers], out: Path, report: Report
) -> dict[str, list[Graded]]:
    if examination.judge is None:
        return {name: list(_graded(None, examination, answers, name)) for name in answers}
    with asking(examination.judge, out / "verdicts.jsonl", examination.budget) as asker:
        graded = {name: list(_graded(asker, examination, answers, name)) for name in answers}
        report(f"judge: {_cost(asker)}")
    return graded


def _graded(
    asker: Asker | None, examination: Examination, answers: Mapping[str, Answers], name: str
) -> Iterator[Graded]:
    """Yield what is graded of one model; a comparison is graded once, from the candidate's side."""
    for label, one in zip(labels(examination.exams), examination.exams, strict=True):
        for seed in examination.seeds if name == "candidate" or not one.needs_other else ():
            mine, others = answers[name][label, seed], answers.get("against", {}).get((label, seed), ())
            yield from graded_by(asker.ask if asker else None, one, mine, others, label=label, seed=seed)


def _cost(asker: Asker) -> str:
    counts = asker.counts
    return (
        f"{counts.calls} answers, {counts.cached} found, {counts.prompt_tokens} prompt and {counts.answer_tokens} "
        "answer tokens"
    )


# ------------------------------------------------------------------------------------------------------------- results


def _result(examination: Examination, who: Mapping[str, Completer], graded: Mapping[str, Sequence[Graded]]) -> Result:
    resamples, cluster = examination.resamples, examination.cluster
    scored = {name: rows(found, resamples=resamples, cluster=cluster) for name, found in graded.items()}
    compared = beyond_half(scored["candidate"])
    if "against" in graded:
        compared += differences(graded["candidate"], graded["against"], resamples=resamples, cluster=cluster)
    told = warnings(graded["candidate"])
    record = {
        "models": {name: {"identity": one.identity(), "template": _template(one)} for name, one in who.items()},
        "judge": _identity(examination.judge),
        "seeds": list(examination.seeds),
        "resamples": resamples,
        "exams": _exams(examination, graded["candidate"]),
        "scores": {name: [_row_record(row) for row in found] for name, found in scored.items()},
        "differences": [_difference_record(one) for one in compared],
        "warnings": told,
    }
    tables = [_table(name, found) for name, found in scored.items()]
    return Result(record, (*tables, *([_difference_table(compared)] if compared else [])))


def _template(completer: Completer) -> str:
    return completer.template.name if isinstance(completer, LocalModel) else ""


def _identity(completer: Completer | None) -> str:
    return completer.identity() if completer else ""


def _exams(examination: Examination, graded: Sequence[Graded]) -> list[dict[str, Any]]:
    missing, refused = unparsed(graded), unanswered(graded)
    found: list[dict[str, Any]] = []
    for label, one in zip(labels(examination.exams), examination.exams, strict=True):
        questions = questions_of(one)
        told = missing.get(label)
        found.append(
            {
                "label": label,
                "version": one.version,
                "settings": config.table_of(one),
                "questions": len(questions),
                "questions_sha256": questions_sha256(questions),
                "unparsed": int(told.total) if told else 0,
                "verdicts": int(told.weight) if told else 0,
                "unanswered": refused.get(label, 0),
            }
        )
    return found


def _interval_record(interval: Interval) -> dict[str, Any]:
    known = plain(interval)
    return {name: known[name] for name in ("n", "value", "low", "high", "standard_error")}


def _row_record(row: Row) -> dict[str, Any]:
    head = {"exam": row.exam, "group": row.group, "score": row.score}
    return head | _interval_record(row.interval)


def _difference_record(one: Difference) -> dict[str, Any]:
    head = {"exam": one.exam, "group": one.group, "score": one.score}
    return head | _interval_record(one.interval) | {"verdict": one.verdict}


def _shown(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def _table(name: str, found: Sequence[Row]) -> Table:
    header = ("exam", "questions", "score", "n", "mean", "standard error")
    cells = [
        (
            row.exam,
            row.group or "all",
            row.score,
            str(row.interval.n),
            f"{row.interval:.3f}" if row.interval.n > 1 else _shown(row.interval.value),
            _shown(row.interval.standard_error),
        )
        for row in found
    ]
    return Table(f"Scores of the {'candidate' if name == 'candidate' else 'model compared with'}", header, tuple(cells))


def _difference_table(found: Sequence[Difference]) -> Table:
    header = ("exam", "questions", "score", "n", "candidate - other", "the candidate is")
    cells = [
        (one.exam, one.group or "all", one.score, str(one.interval.n), f"{one.interval:+.3f}", one.verdict)
        for one in found
    ]
    return Table("Paired differences, 95 % intervals", header, tuple(cells))


def _report(result: Result) -> str:
    record = result.record
    told = "".join(f"- {line}\n" for line in record["warnings"])
    counts = "".join(
        f"- {one['label']} (version {one['version']}): {one['questions']} questions, {one['unparsed']} of "
        f"{one['verdicts']} verdicts unparsed, {one['unanswered']} answers or verdicts unanswered\n"
        for one in record["exams"]
    )
    judge = record["judge"] or "none"
    tables = "\n".join(table.markdown() for table in result.tables)
    return f"# Examination\n\n{tables}\n## Exams\n\n{counts}\n## Judge\n\n{judge}\n\n## Mind\n\n{told or '- nothing'}\n"
