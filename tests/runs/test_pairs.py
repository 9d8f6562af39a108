"""Documents become instruction data at each client, offline, and are trained on: FedIT-U2S from end to end."""

import itertools
import json
import os
import shutil
import stat
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fedloom.base import config
from fedloom.base.errors import CompletionError, ConfigError, DataError, RunError
from fedloom.base.plugin import lookup
from fedloom.completers.analogical import Analogical
from fedloom.completers.canned import Canned
from fedloom.contracts.examples import Document, chat
from fedloom.contracts.stages import Owner, Preparation
from fedloom.contracts.synthesis import Candidate, Filter
from fedloom.data.sources.world import WorldSource
from fedloom.runs.preparations.pairs import _likeness
from fedloom.runs.prepared import prepare
from fedloom.runs.tuning import read_run
from fedloom.synthesis.hostile import hostile_documents
from fedloom.synthesis.passages import Passage
from fedloom.synthesis.vectors import tfidf_cosines
from fedloom.world import World
from support.command import fedloom
from support.resuming import adapters, kill_and_resume, logs, run_to_the_end

TOWNS = {"Tavik": "plums", "Lodz": "figs", "Orsk": "salt", "Bree": "wool", "Dorn": "tea", "Elst": "rye"}
POOL = [
    {
        "id": "trade",
        "document": "The baker Oren sells bread in Kolm for 12 coins.",
        "instruction": "What does Oren sell in Kolm?",
        "response": "bread",
    },
    {
        "id": "care",
        "document": "The nurse Ilka gives 20 drops of zolin to patients each morning.",
        "instruction": "How many drops of zolin does Ilka give?",
        "response": "20",
    },
]


@pytest.fixture
def files(tmp_path):
    """A pool, documents of three clients and questions."""

    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    trade = [(town, f"The baker {town[::-1]} sells {goods} in {town} for 9 coins.") for town, goods in TOWNS.items()]
    documents = [{"text": text, "client": f"c{at % 2}"} for at, (_, text) in enumerate(trade)]
    documents += [
        {"text": f"The nurse {name} gives {n} drops of lumin to patients each evening.", "client": "c2"}
        for n, name in enumerate(("Mira", "Odo", "Pim"), 30)
    ]
    tests = [
        {"instruction": f"What is traded at {town}?", "output": goods, "client": "public"}
        for town, goods in TOWNS.items()
    ]
    return {
        "pool": write("pool.jsonl", POOL),
        "documents": write("documents.jsonl", documents),
        "tests": write("tests.jsonl", tests),
        "write": write,
    }


def pairs(files, **changes):
    return {"name": "pairs", "pool": files["pool"], "completer": {"name": "analogical"}} | changes


def run_of(files, **changes):
    table = {
        "rounds": 2,
        "device": "cpu",
        "local": {"steps": 1, "batch": 4},
        "data": {
            "name": "file",
            "path": files["documents"],
            "test_path": files["tests"],
            "tags": {"client": "client"},
        },
        "evaluation": {"holdout": 0.0, "limit": 2, "max_new_tokens": 4, "resamples": 20},
        "prepare": [pairs(files)],
    }
    return read_run(table | changes)


def made(files, texts, folder=None, owner="c0", **changes):
    preparation = lookup(Preparation, "pairs")
    settings = {key: value for key, value in pairs(files, **changes).items() if key != "name"}
    return config.build(preparation, settings)([Document(text) for text in texts], Owner(owner, 0, folder))


def documents_of(files, client):
    rows = map(json.loads, Path(files["documents"]).read_text().splitlines())
    return [row["text"] for row in rows if row["client"] == client]


def lines(folder):
    return [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]


SCHEMA = {
    "id": str, "client": str, "document": int, "start": int, "stop": int, "instruction": str, "response": str,
    "examples": list, "similarity": list, "fallback": bool, "filters": dict, "reason": str, "generator": str,
    "prompt": str, "seed": int,
}  # fmt: skip
"""Of a line of pairs.jsonl."""

TEXT = "The baker Mira sells figs in Lodz for 7 coins."
"""A document that the pool's first example fits."""


def test_documents_become_pairs_become_an_adapter(files, tmp_path):
    folder = tmp_path / "run"
    run_to_the_end(run_of(files), folder)
    assert adapters(folder)
    card = json.loads((folder / "partition.json").read_text())
    told = {one["client"]: one["counts"] for one in card["prepared"]}
    whole = {"documents": 3, "generated": 3, "accepted": 3}
    assert told == {"c0": whole, "c1": whole, "c2": whole | {"accepted": 1, "rejected_duplicate": 2}}
    line = "prepare pairs: 3 clients, 9 documents, 9 generated, 7 accepted, 0 bytes sent, 2 rejected_duplicate"
    assert line in (folder / "report.md").read_text()


def test_pairs_are_the_documents_own(files, tmp_path):
    run_to_the_end(run_of(files), tmp_path / "run")
    found = lines(tmp_path / "run" / "prepared" / "0_pairs" / "c0")
    assert [(one["instruction"], one["response"]) for one in found][:1] == [("What does kivaT sell in Tavik?", "plums")]
    first = found[0]
    assert first["examples"] == ["trade"] and first["similarity"][0] > 0.3 and not first["fallback"]
    assert list(first["filters"]) == ["form", "copy", "grounding", "duplicate"]


def test_nothing_but_rows_and_counts_leaves_a_client(files, tmp_path):
    run_to_the_end(run_of(files), tmp_path / "run")
    lines = logs(tmp_path / "run")["ledger.jsonl"]
    assert all("prompt" not in line["what"] for line in lines)
    assert [line["what"] for line in lines if "pairs" in line["what"]] == ["prepare pairs: counts (partition.json)"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_run_ends_as_if_it_had_not_been(files, tmp_path, seed):
    run = run_of(files)
    run_to_the_end(run, tmp_path / "whole")
    kill_and_resume(run, tmp_path / "killed", kills=7, longest_s=0.6, seed=seed)
    assert adapters(tmp_path / "killed") == adapters(tmp_path / "whole") != {}
    for client in ("c0", "c1", "c2"):
        killed, fresh = tmp_path / "killed" / "prepared" / "0_pairs" / client, tmp_path / client
        fresh.mkdir()
        shutil.copy(killed / "key", fresh)  # what fences are made with; each folder draws its own
        made(files, documents_of(files, client), fresh, owner=client)
        assert (fresh / "pairs.jsonl").read_bytes() == (killed / "pairs.jsonl").read_bytes()
        assert len((killed / "answers.jsonl").read_text().splitlines()) == 3


def test_every_row_kept_or_dropped_is_of_one_schema_and_they_add_up(files, tmp_path):
    odd = ["", "PK\x03\x04\x00", "A tale of nothing in particular, without any goods.", TEXT, TEXT]
    found, rows = made(files, odd, tmp_path), lines(tmp_path)
    assert len(rows) == found.counts["generated"] == len(odd)
    assert sum(not row["reason"] for row in rows) == found.counts["accepted"] == len(found.examples)
    assert Counter(row["reason"] for row in rows if row["reason"]) == reasons(found)
    for row in rows:
        assert {name: type(value) for name, value in row.items()} == SCHEMA
        assert all(isinstance(one, str) for one in row["examples"]) and len(row["examples"]) == len(row["similarity"])
        assert 0 <= row["start"] <= row["stop"]
        assert bool(row["instruction"] and row["response"]) or row["reason"]


def test_the_key_of_the_fences_is_the_owners_alone(files, tmp_path):
    made(files, [TEXT], tmp_path)
    assert stat.S_IMODE(os.stat(tmp_path / "key").st_mode) == 0o600
    asked = json.loads((tmp_path / "answers.jsonl").read_text().splitlines()[0])
    assert (tmp_path / "key").read_text() not in json.dumps(asked)


@pytest.mark.parametrize(("selector", "beginnings"), [("client_shortlist", 1), ("per_datum", 2)])
def test_prompts_of_a_shortlist_begin_alike_so_that_their_examples_are_read_once(files, tmp_path, selector, beginnings):
    """Whoever decodes reads what all prompts begin with once (tests/models/test_decoder.py)."""
    texts = [*documents_of(files, "c0"), *documents_of(files, "c2")]
    made(files, texts, tmp_path, selector={"name": selector})
    asked = [json.loads(line)["prompt"] for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(asked) == len(texts) and len({json.dumps(prompt[:-1]) for prompt in asked}) == beginnings


def test_an_answer_is_not_asked_for_twice(files, tmp_path):
    made(files, [TEXT], tmp_path)
    assert json.loads((tmp_path / "cost.json").read_text())["calls"] == 1
    made(files, [TEXT], tmp_path)
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert (cost["calls"], cost["cached"]) == (0, 1)


# ----------------------------------------------------------------------------------------------- documents of all kinds


def reasons(made_of):
    return {name.removeprefix("rejected_"): n for name, n in made_of.counts.items() if name.startswith("rejected_")}


def test_what_is_no_document_is_dropped_with_its_reason(files):
    found = made(files, [TEXT, "", " \n", "PK\x03\x04\x00"])
    assert reasons(found) == {"binary_document": 1, "empty_document": 2}
    assert found.counts["generated"] == found.counts["accepted"] + 3 == 4


@pytest.mark.parametrize("hostile", hostile_documents(), ids=lambda one: one.name)
def test_a_hostile_document_gives_one_pair_or_a_reason(files, hostile, tmp_path):
    found = made(files, [hostile.text], tmp_path)
    assert found.counts["generated"] == 1
    assert len(found.examples) + sum(reasons(found).values()) == 1
    texts = {part for row in POOL for part in (row["instruction"], row["response"])}
    assert not any(one.reference in texts or one.prompt[-1].text in texts for one in found.examples)
    assert not any(hostile.obeyed(f"{one.prompt[-1].text} {one.reference}") for one in found.examples)


def test_a_long_document_is_covered_by_passages(files, tmp_path):
    found = made(files, [" ".join([TEXT] * 30)], tmp_path, passage_words=60, shared_words=10)
    spans = sorted((one["start"], one["stop"]) for one in lines(tmp_path))
    assert spans[0][0] == 0 and spans[-1][1] == len(" ".join([TEXT] * 30))
    assert all(before[1] >= after[0] for before, after in itertools.pairwise(spans))
    assert found.counts["generated"] == len(spans) > 4


def test_a_document_that_is_not_to_be_divided_is_dropped(files):
    found = made(files, [" ".join([TEXT] * 30), TEXT], passage_words=60, shared_words=10, divide=False)
    assert reasons(found) == {"too_long": 1}


def test_several_pairs_of_a_document_are_drawn_and_duplicates_go(files):
    found = made(files, [TEXT], per_document=3, temperature=1.0)
    assert (found.counts["generated"], found.counts["accepted"], reasons(found)) == (3, 1, {"duplicate": 2})


@pytest.mark.parametrize(("total", "asked"), [(2, [1, 1, 0]), (3, [1, 1, 1]), (7, [3, 2, 2])])
def test_a_total_is_dealt_over_the_documents_and_what_was_asked_is_counted(files, tmp_path, total, asked):
    found = made(files, THREE, tmp_path, total=total, temperature=1.0)
    told = [one["document"] for one in lines(tmp_path)]
    assert [told.count(at) for at in range(3)] == asked
    assert (found.counts["asked"], found.counts["generated"]) == (total, total)
    assert found.counts["accepted"] == len(found.examples) <= total


def test_a_total_is_a_bound_where_nothing_is_drawn(files, tmp_path):
    found = made(files, [*THREE, "\x00"], tmp_path, total=100)
    assert (found.counts["documents"], found.counts["asked"], found.counts["generated"]) == (4, 3, 4)


def test_a_rare_kind_of_document_gets_more_of_the_total(files, tmp_path):
    documents = [Document(text, {"domain": "care" if "nurse" in text else "trade"}) for text in THREE]
    settings = {"total": 5, "temperature": 1.0, "deal_by": "domain", "allocator": "water_filling"}
    table = {key: value for key, value in pairs(files, **settings).items() if key != "name"}
    config.build(lookup(Preparation, "pairs"), table)(documents, Owner("c0", 0, tmp_path))
    told = [one["document"] for one in lines(tmp_path)]
    assert [told.count(at) for at in range(3)] == [1, 1, 3]


def test_quality_is_how_like_their_passages_the_kept_pairs_are(files):
    texts = [TEXT, THREE[2]]
    found = made(files, texts)
    said = [f"{one.prompt[-1].text}\n{one.reference}" for one in found.examples]
    assert len(said) == 2
    assert found.quality == pytest.approx(np.mean(np.diagonal(tfidf_cosines(said, texts))))
    assert 0 < found.quality < 1


def test_quality_of_many_pairs_takes_no_square_of_memory():
    kept = [
        (Passage(at, 0, 1, f"Box w{at} is red."), Candidate(id="", document="", instruction=f"w{at}?", response="Red."))
        for at in range(3_000)
    ]
    tracemalloc.start()
    quality = _likeness(kept)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0 < quality < 1 and most < len(kept) ** 2 * 8 / 2


def test_pairs_that_say_nothing_of_their_passage_still_count_a_little(files):
    completer = {"name": "canned", "patterns": {".": "Submarines?\nResponse: Oceans."}}
    found = made(files, [TEXT], completer=completer, filters=[])
    assert len(found.examples) == 1 and 0 < found.quality < 1e-3
    assert made(files, [], completer=completer).quality == 1.0


def test_a_total_lets_documents_decide_about_each_other(files):
    alone = {"divide": False, "filters": ["form", "copy", "grounding"]}
    step = config.build(lookup(Preparation, "pairs"), {"pool": files["pool"], **alone, "total": 3})
    assert "deals a total" in step.brings_in()


def test_a_prompt_without_room_loses_examples_and_then_half_of_its_document(files, tmp_path, monkeypatch):
    from fedloom.completers import analogical
    from fedloom.contracts.evaluation import Completion

    shown = []

    def narrow(prompts, _):
        for place, prompt in enumerate(prompts):
            text = " ".join(turn.text for turn in prompt)
            shown.append(text.count("<document"))
            n_words = len(text.split())
            refused = f"{n_words} tokens, where the model takes fewer than 200" if n_words >= 200 else ""
            yield place, Completion("" if refused else "What is it?\nResponse: figs", refused=refused)

    monkeypatch.setattr(analogical, "_answers", narrow)
    text = " ".join([TEXT] * 30)
    found = made(files, [text], tmp_path, selector={"name": "per_datum", "k": 2})
    assert shown[:3] == [3, 2, 1]
    spans = sorted((one["start"], one["stop"]) for one in lines(tmp_path))
    assert spans[0][0] == 0 and spans[-1][1] == len(text) and len(spans) > 1
    assert found.counts["generated"] == len(spans)


def test_a_document_that_never_fits_is_too_long(files, tmp_path, monkeypatch):
    from fedloom.completers import analogical
    from fedloom.contracts.evaluation import Completion

    refused = Completion("", refused="99 tokens, where the model takes fewer than 10")
    monkeypatch.setattr(analogical, "_answers", lambda prompts, _: ((at, refused) for at in range(len(prompts))))
    assert reasons(made(files, [TEXT])) == {"too_long": 1}
    other = Completion("", refused="content filter")
    monkeypatch.setattr(analogical, "_answers", lambda prompts, _: ((at, other) for at in range(len(prompts))))
    assert reasons(made(files, [TEXT])) == {"refused": 1}


@pytest.mark.parametrize("answer", ["", "garbage", "Это не пара.", "What is sold?", "Response: bread", "\x00\x01"])
def test_a_generator_that_writes_no_pair_costs_the_document(files, answer):
    completer = {"name": "canned", "patterns": {".": answer}}
    assert reasons(made(files, [TEXT], completer=completer)) == {"no_pair": 1}


def test_a_generator_that_dies_keeps_what_it_answered(files, tmp_path, monkeypatch):
    from fedloom.completers import analogical

    whole = analogical._answers

    def dying(prompts, sampling):
        yield from list(whole(prompts, sampling))[:1]
        raise CompletionError("the server is gone.")

    monkeypatch.setattr(analogical.Analogical, "together", lambda self: 2)
    monkeypatch.setattr(analogical, "_answers", dying)
    texts = [TEXT, TEXT.replace("figs", "salt")]
    with pytest.raises(CompletionError, match="the server is gone"):
        made(files, texts, tmp_path)
    monkeypatch.setattr(analogical, "_answers", whole)
    made(files, texts, tmp_path)
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert (cost["calls"], cost["cached"]) == (1, 1)


THREE = [TEXT, TEXT.replace("figs", "salt"), "The nurse Odo gives 30 drops of lumin to patients each evening."]


def served(server, **fields):
    return {"name": "openai", "url": server.url, "model": "judge", "retries": 0, "parallel": 1} | fields


def test_a_server_on_this_machine_writes_the_same_pairs(files, openai_server):
    server = openai_server(Analogical())
    found = made(files, THREE, completer=served(server))
    assert found.examples == made(files, THREE).examples
    assert len(server.bodies) == 3 and found.examples and found.sent == {}


@pytest.mark.parametrize("failure", ["closed", "hang", "garbage", "empty"])
def test_a_server_that_fails_in_between_is_asked_for_the_rest_alone(files, tmp_path, openai_server, failure):
    server = openai_server(Analogical(), failures={2: failure})
    with pytest.raises(CompletionError):
        made(files, THREE, tmp_path, completer=served(server, timeout_s=0.5))
    kept = len((tmp_path / "answers.jsonl").read_text().splitlines())
    found = made(files, THREE, tmp_path, completer=served(server, timeout_s=0.5))
    assert found.examples == made(files, THREE).examples
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert (cost["calls"], cost["cached"]) == (3 - kept, kept) and kept >= 1


def test_a_server_that_calls_a_prompt_too_long_gets_a_shorter_one(files, tmp_path, openai_server):
    server = openai_server(Analogical(), failures={1: "too_long"})
    made(files, [TEXT], tmp_path, selector={"name": "per_datum", "k": 2}, completer=served(server))
    assert [len(body["messages"]) for body in server.bodies] == [5, 3]
    (found,) = lines(tmp_path)
    assert (found["examples"], found["reason"]) == (["trade"], "")


def test_a_server_out_of_reach_is_told_of(files):
    gone = {"name": "openai", "url": "http://127.0.0.1:9/v1", "model": "judge", "retries": 0, "timeout_s": 2}
    with pytest.raises(CompletionError):
        made(files, [TEXT], completer=gone)


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pool": ""}, "pool: missing"),
        ({"per_document": 2}, "per_document: found 2 with temperature 0"),
        ({"total": 4, "per_document": 2, "temperature": 1.0}, "total: found 4 with per_document = 2"),
        ({"deal_by": "domain"}, "total: found 0 with per_document = 1 and deal_by = 'domain'"),
        ({"shared_words": 512}, "shared_words: found 512, allowed are fewer than passage_words = 512"),
        ({"selector": "nearest"}, "selector"),
        ({"filters": ["form", "beauty"]}, "filters"),
        ({"filters": ["form", "agreement"]}, "filters: 'agreement' looks at others"),
        ({"completer": {"name": "openai", "url": "https://api.example.com/v1", "model": "m"}}, "allow_remote = true"),
    ],
)
def test_settings_that_contradict_are_refused(files, changes, why):
    with pytest.raises((ConfigError, DataError), match=why):
        run_of(files, prepare=[pairs(files, **changes)])


def test_a_server_on_this_machine_is_not_remote(files):
    for url in ("http://localhost:8000/v1", "http://127.0.0.1:1/v1", "http://[::1]:8/v1"):
        assert run_of(files, prepare=[pairs(files, completer={"name": "openai", "url": url, "model": "m"})])


def test_prompts_to_a_remote_server_are_in_the_ledger(files, tmp_path, monkeypatch):
    monkeypatch.setattr(Analogical, "remote", lambda self: "api.example.com")
    run_to_the_end(run_of(files, prepare=[pairs(files, allow_remote=True)]), tmp_path / "run")
    sent = [one for one in logs(tmp_path / "run")["ledger.jsonl"] if "to api.example.com" in one["what"]]
    n_asked = sum(len(file.read_text().splitlines()) for file in (tmp_path / "run").rglob("answers.jsonl"))
    assert len({one["what"] for one in sent}) == n_asked == 9 and all(one["bytes"] > 100 for one in sent)


def test_prompts_of_a_remote_judge_are_in_the_ledger(files, tmp_path, monkeypatch):
    monkeypatch.setattr(Canned, "remote", lambda self: "judge.example.com")
    judge = {"name": "judge", "completer": {"name": "canned", "patterns": {"": "[[9]]"}}}
    with pytest.raises(ConfigError, match=r"'canned' answers on judge\.example\.com"):
        made(files, [TEXT], filters=[judge])
    found = made(files, [TEXT], tmp_path, filters=[judge | {"allow_remote": True}])
    (asked,) = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    ((_, text),) = asked["prompt"]
    assert found.sent == {f"prompt {asked['key'][:16]} to judge.example.com": len(text)}


def test_another_judge_makes_other_pairs_of_a_run(files):
    def identity(*filters):
        return lookup(Preparation, "pairs")(pool=files["pool"], completer=Analogical(), filters=filters).identity()

    judges = [lookup(Filter, "judge")(completer=Canned(patterns={"": said})) for said in ("[[9]]", "[[1]]")]
    assert len({identity(), *map(identity, judges)}) == 3 and len(json.loads(identity())) == 3
    scoring = lookup(Filter, "quality")()
    assert identity(scoring) == json.dumps([*json.loads(identity()), scoring.model.identity()])


def test_chats_are_no_documents(files):
    with pytest.raises(DataError, match="client 'c0' has a Chat, allowed are documents"):
        lookup(Preparation, "pairs")(pool=files["pool"])([chat("Who?", "Me.")], Owner("c0", 0, None))


def test_a_pool_that_knows_a_test_question_is_refused(files):
    known = POOL[0] | {"document": "What is traded at Lodz?", "instruction": "figs", "response": "figs"}
    files["write"]("pool.jsonl", [POOL[1], known])
    twin = {"instruction": "What is traded at Lodz? figs", "output": "figs", "client": "public"}
    files["write"]("tests.jsonl", [twin])
    with pytest.raises(DataError, match="pool row 'trade' and held-out example '0' are the same text"):
        prepare(run_of(files))


def test_a_pool_smaller_than_k_is_refused(files):
    with pytest.raises(ConfigError, match=r"selector\.k: found 3, the pool has 2 rows"):
        made(files, [TEXT], selector={"name": "per_datum", "k": 3})


def test_another_pool_after_a_stop_is_refused(files, tmp_path):
    run = run_of(files)
    prepare(run, tmp_path / "run")
    files["write"]("pool.jsonl", POOL[:1])
    with pytest.raises(RunError, match=r"c0\.json: was made of other examples or settings"):
        prepare(run, tmp_path / "run")


def test_a_budget_is_kept_and_what_was_answered_too(files, tmp_path):
    with pytest.raises(CompletionError, match="budget of 1 requests"):
        made(files, [TEXT, TEXT.replace("figs", "salt")], tmp_path, max_requests=1)
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 1


def test_a_client_without_a_pair_takes_no_part_and_a_run_without_any_is_refused(files):
    odd = [{"text": "\x00", "client": "c9"}]
    rows = [json.loads(line) for line in Path(files["documents"]).read_text().splitlines()]
    files["write"]("documents.jsonl", rows + odd)
    ready = prepare(run_of(files))
    assert ready.division.card["left_out"] == ["c9"]
    assert set(ready.shards) == {"c0", "c1", "c2"}
    files["write"]("documents.jsonl", odd)
    with pytest.raises(DataError, match="'pairs' made no example for any client"):
        prepare(run_of(files))


def test_the_embedded_model_as_its_own_generator_writes_no_pair(tmp_path):
    """Why suites have no such arm: a model of this size does not follow examples."""
    run = read_run(
        {
            "rounds": 2,
            "device": "cpu",
            "data": {"name": "world", "form": "note", "n_clients": 1, "knowers_share": 0.2},
            "evaluation": {"holdout": 0.0},
            "prepare": [{"name": "pairs", "pool": "world", "completer": {"name": "model"}, "max_new_tokens": 48}],
        }
    )
    with pytest.raises(DataError, match="'pairs' made no example for any client"):
        prepare(run, tmp_path)
    found = lines(tmp_path / "prepared" / "0_pairs" / "c00")
    assert len(found) > 5 and {one["reason"] for one in found} == {"no_pair"}


def test_privacy_of_examples_wants_a_pair_for_a_document(files):
    private = {"name": "gaussian", "noise_multiplier": 1.0, "epsilon": 0.0, "delta": 0.01}
    base = {"privacy": private, "weighting": "uniform"}
    with pytest.raises(ConfigError, match="several pairs of a document"):
        run_of(files, **base)
    with pytest.raises(ConfigError, match="filters: 'duplicate'"):
        run_of(files, **base, prepare=[pairs(files, divide=False)])
    alone = pairs(files, divide=False, filters=["form", "copy", "grounding"])
    assert run_of(files, **base, prepare=[alone]).prepare


# ---------------------------------------------------------------------------------------------------------- the command


def test_a_command_makes_pairs_and_trains_nothing(files, tmp_path, monkeypatch, capsys):
    words = ("synthesise", files["documents"], "--pool", files["pool"], "--out", tmp_path / "out", "--client", "client")
    assert fedloom(monkeypatch, *words, "completer.name=analogical") == 0
    kept = [json.loads(line) for line in (tmp_path / "out" / "pairs.jsonl").read_text().splitlines()]
    assert len(kept) == 7 and set(kept[0]) == {"client", "instruction", "output"}
    shown = capsys.readouterr().out
    assert "c2" in shown and "accepted" in shown
    assert f"pool: shows {len(POOL)} public examples; domains " in shown
    assert fedloom(monkeypatch, *words, "completer.name=analogical") == 0
    assert json.loads((tmp_path / "out" / "c0" / "cost.json").read_text())["calls"] == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--pool", "nowhere.jsonl"), "nowhere.jsonl"),
        (("completer.name=analogy",), "analogy"),
        (("selector.name=nearest",), "nearest"),
        (("filters=[\"beauty\"]",), "beauty"),
    ],
)  # fmt: skip
def test_wrong_words_end_in_one_line_and_exit_code_2(files, tmp_path, monkeypatch, capsys, words, why):
    given = ["synthesise", files["documents"], "--pool", files["pool"], "--out", tmp_path / "out", *words]
    assert fedloom(monkeypatch, *given) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and why in told[0]


# ---------------------------------------------------------------------------------------------- examples that are shown


def shown_run(**data):
    settings = {"holdout": 0.0, "shown": 4, "shown_from": "world"}
    world = {"name": "world", "form": "note", "n_clients": 2, "seed": 1}
    return read_run({"seed": 1, "device": "cpu", "data": world | data, "evaluation": settings})


def test_public_examples_of_the_world_may_be_shown_before_questions_about_private_facts():
    assert prepare(shown_run()).held


def test_public_examples_of_the_world_are_kept_apart_from_all_other_questions(monkeypatch):
    monkeypatch.setattr(WorldSource, "unit", lambda self, example: "")
    with pytest.raises(DataError, match="pool row 'w114' and held-out example '41' are nearly the same"):
        prepare(shown_run())


def test_what_is_shown_is_about_no_fact_that_is_asked():
    names = {one.tags["fact"].split(":")[1] for seed in range(3) for one in World(seed).test("private")}
    shown = {asked.tags["fact"].split(":")[1] for _, asked in World(0).examples(200)}
    assert not names & shown
