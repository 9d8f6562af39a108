"""What was made of a client's documents: candidates with verdicts, and a line of JSON for each.

A line holds id, client, document (its place among the client's), start and stop (characters of the passage),
instruction, response, examples (ids of the pool), similarity (of each), fallback, filters (verdicts by name), reason
(why it was dropped, "" if it is kept), generator, prompt (hash) and seed.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedloom.contracts.synthesis import Around, Candidate, Filter, PoolRow
from fedloom.synthesis.asking import Completed
from fedloom.synthesis.chain import Judged, judged
from fedloom.synthesis.prompting import parsed

__all__ = ["judged_completions", "lines"]


def judged_completions(written: Sequence[Completed], filters: Sequence[Filter], around: Around) -> list[Judged]:
    """Return each completion as a candidate with its verdicts; one without a text is dropped for the reason it has."""
    candidates = [_candidate(one, around.pool) for one in written]
    lost = {one.job.id: one.refused for one in written if one.refused}
    return judged(candidates, lost, filters, around)


def _candidate(one: Completed, pool: Sequence[PoolRow]) -> Candidate:
    instruction, response = parsed(one.text) or ("", "")
    return Candidate(
        id=one.job.id,
        document=one.job.passage.text,
        instruction=instruction,
        response=response,
        examples=tuple(pool[row] for row in one.job.rows),
    )


def lines(
    written: Sequence[Completed], found: Sequence[Judged], pool: Sequence[PoolRow], facts: Mapping[str, Any]
) -> str:
    """Return a line of JSON for each candidate, kept or dropped; `facts` are the same in all."""
    return "".join(
        json.dumps(dict(facts) | _record(one, step, pool), ensure_ascii=False) + "\n"
        for one, step in zip(written, found, strict=True)
    )


def _record(one: Completed, step: Judged, pool: Sequence[PoolRow]) -> dict[str, Any]:
    job = one.job
    return {
        "id": job.id,
        "document": job.passage.document,
        "start": job.passage.start,
        "stop": job.passage.stop,
        "instruction": step.candidate.instruction,
        "response": step.candidate.response,
        "examples": [pool[row].id for row in job.rows],
        "similarity": [round(value, 6) for value in job.similarity],
        "fallback": job.fallback,
        "filters": step.record,
        "reason": step.reason,
        "prompt": one.prompt_sha256,
    }
