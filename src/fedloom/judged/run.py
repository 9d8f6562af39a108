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
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedloom.base import config
from fedloom.base.errors import ConfigError, RunError
from fedloom.base.files import disk_errors, refuse_filled, write_atomic
from fedloom.base.mean import Mean
from fedloom.base.tables import Table
from fedloom.completers.answer_file import Asker, asking
from fedloom.completers.candidates import candidate, run_of
from fedloom.completers.model import LocalModel
from fedloom.contracts.evaluation import Answered, Completer, Exam
from fedloom.contracts.federated import Template
from fedloom.judged.grading import (
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

_WHO = {"candidate": "candidate", "against": "model compared with"}


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
    if not run_of(folder):
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
            sittings = [(label, one, seed) for label, one in _labelled(examination) for seed in examination.seeds]
            answers[name] = {(label, seed): answered_by(asker.ask, one, seed=seed) for label, one, seed in sittings}
            report(f"{name}: {_cost(asker)}")
    graded = _judged(examination, answers, out, report)
    result = _result(examination, who, graded)
    lines = [json.dumps({"model": name} | one.as_record()) for name, found in graded.items() for one in found]
    write_atomic(out / "scores.jsonl", "".join(f"{line}\n" for line in lines))
    write_atomic(out / "report.md", _report(result))
    write_atomic(out / "exam.json", json.dumps(result.record, indent=1))
    return result


def _labelled(examination: Examination) -> list[tuple[str, Exam]]:
    return [*zip(labels(examination.exams), examination.exams, strict=True)]


def _check(examination: Examination, against: Path | None) -> None:
    """Read every question once and refuse what could not be graded, before anything is asked."""
    for label, one in _labelled(examination):
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


def _judged(
    examination: Examination, answers: Mapping[str, Answers], out: Path, report: Report
) -> dict[str, list[Graded]]:
    judge = examination.judge
    with asking(judge, out / "verdicts.jsonl", examination.budget) if judge else nullcontext() as asker:
        graded = {name: list(_graded(asker, examination, answers, name)) for name in answers}
        if asker:
            report(f"judge: {_cost(asker)}")
    return graded


def _graded(
    asker: Asker | None, examination: Examination, answers: Mapping[str, Answers], name: str
) -> Iterator[Graded]:
    """Yield what is graded of one model; a comparison is graded once, from the candidate's side."""
    for label, one in _labelled(examination):
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
        "models": {name: _known(one) for name, one in who.items()},
        "judge": examination.judge.identity() if examination.judge else "",
        "seeds": list(examination.seeds),
        "resamples": resamples,
        "exams": _exams(examination, graded["candidate"]),
        "scores": {name: [_record(row) for row in found] for name, found in scored.items()},
        "differences": [_record(one) | {"verdict": one.verdict} for one in compared],
        "warnings": told,
    }
    error = ("standard error", lambda row: _shown(row.interval.standard_error))
    tables = [_table(found, f"Scores of the {_WHO[name]}", ("mean", _mean), error) for name, found in scored.items()]
    more = ("candidate - other", lambda row: f"{row.interval:+.3f}"), ("the candidate is", lambda row: row.verdict)
    tables += [_table(compared, "Paired differences, 95 % intervals", *more)] if compared else []
    return Result(record, tuple(tables))


def _known(completer: Completer) -> dict[str, str]:
    template = completer.template.name if isinstance(completer, LocalModel) else ""
    return {"identity": completer.identity(), "template": template}


def _exams(examination: Examination, graded: Sequence[Graded]) -> list[dict[str, Any]]:
    missing, refused = unparsed(graded), unanswered(graded)
    asked = [(label, one, questions_of(one)) for label, one in _labelled(examination)]
    return [
        {
            "label": label,
            "version": one.version,
            "settings": config.table_of(one),
            "questions": len(questions),
            "questions_sha256": questions_sha256(questions),
            "unparsed": int(missing.get(label, Mean()).total),
            "verdicts": int(missing.get(label, Mean()).weight),
            "unanswered": refused.get(label, 0),
        }
        for label, one, questions in asked
    ]


def _record(row: Row) -> dict[str, Any]:
    told = row.interval.record("n", "value", "low", "high", "standard_error")
    return {"exam": row.exam, "group": row.group, "score": row.score} | told


def _table(found: Sequence[Row], title: str, *columns: tuple[str, Callable[[Row], str]]) -> Table:
    rows = (
        (row.exam, row.group or "all", row.score, str(row.interval.n), *(told(row) for _, told in columns))
        for row in found
    )
    return Table(title, ("exam", "questions", "score", "n", *(name for name, _ in columns)), tuple(rows))


def _mean(row: Row) -> str:
    return f"{row.interval:.3f}" if row.interval.n > 1 else _shown(row.interval.value)


def _shown(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


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
