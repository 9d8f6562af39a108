"""Generated pairs beside the private examples that they stand for."""

import json
import re

import pytest

from fedloom.base import config
from fedloom.base.errors import DataError
from fedloom.base.plugin import lookup
from fedloom.base.rng import python_random
from fedloom.contracts.federated import CorpusMetric
from fedloom.results.generated import likeness
from support.command import fedloom
from support.small_runs import small_table

pytestmark = pytest.mark.slow

pytest.importorskip("sklearn")

WORDS = {"a": [f"ab{n}" for n in range(40)], "b": [f"yz{n}" for n in range(40)], "junk": ["qqqq", "jjjj", "kkkk"]}
FID, MAUVE = (lookup(CorpusMetric, name)() for name in ("fid", "mauve_style"))


def texts_of(name, n_texts=500):
    """Questions and answers in words that no other name has."""
    draw = python_random("generated", name)
    said = [" ".join(draw.choices(WORDS[name], k=6)) for _ in range(2 * n_texts)]
    return list(zip(said[::2], said[1::2], strict=True))


PRIVATE = {name: texts_of(name) for name in "ab"}


@pytest.fixture
def run(tmp_path):
    """The folder of a run of two clients, without any pairs."""
    data = [
        {"instruction": question, "output": answer, "owner": client}
        for client, own in PRIVATE.items()
        for question, answer in own
    ]
    (tmp_path / "private.jsonl").write_text("".join(json.dumps(one) + "\n" for one in data))
    read = {"name": "file", "path": str(tmp_path / "private.jsonl"), "form": "alpaca", "tags": {"client": "owner"}}
    table = small_table(tmp_path, data=read, evaluation={"metrics": [], "holdout": 0.0})
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.toml").write_text(config.tomli_w.dumps(table))
    return folder


def write_pairs(folder, pairs, reason=""):
    folder.mkdir(parents=True)
    lines = [{"instruction": question, "response": answer, "reason": reason} for question, answer in pairs]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def of_clients(run, stage="0_pairs", times=1):
    for client, own in PRIVATE.items():
        write_pairs(run / "prepared" / stage / client, own * times)


def test_pairs_that_are_the_private_examples_are_as_like_as_can_be(run):
    of_clients(run)
    fid, mauve = likeness(run, [FID, MAUVE])
    assert (fid.score, fid.pairs, fid.n_pairs, fid.n_halves) == ("fid", pytest.approx(0, abs=1e-6), 1000, 500)
    assert mauve.pairs == pytest.approx(1, abs=0.01)


def test_pairs_of_other_words_are_unlike(run):
    write_pairs(run / "prepared" / "0_pairs" / "a", texts_of("junk", 1000))
    fid, mauve = likeness(run, [FID, MAUVE])
    assert fid.pairs > 0.5 and mauve.pairs < 0.1


def test_of_more_pairs_than_private_examples_all_clients_count(run):
    of_clients(run, times=2)
    (fid,) = likeness(run, [FID])
    assert (fid.n_pairs, fid.pairs) == (1000, pytest.approx(0, abs=0.02))


def test_pairs_of_the_last_preparation_are_taken(run):
    for at in (0, 2, 9):
        write_pairs(run / "prepared" / f"{at}_pairs" / "a", texts_of("junk"))
    of_clients(run, "10_pairs")
    (fid,) = likeness(run, [FID])
    assert (fid.n_pairs, fid.pairs) == (1000, pytest.approx(0, abs=1e-6))


def test_a_distillation_is_taken_before_a_preparation_and_its_last_cycle_alone(run):
    of_clients(run)
    for number in (1, 2):
        write_pairs(run / "refined" / f"shared_0000{number}_0_knowledge", texts_of("junk", 500 + number))
    (fid,) = likeness(run, [FID])
    assert fid.n_pairs == 502


@pytest.mark.parametrize("dropped", [False, True])
def test_a_run_without_pairs_is_refused_in_one_line(run, monkeypatch, capsys, dropped):
    if dropped:
        write_pairs(run / "prepared" / "0_pairs" / "a", PRIVATE["a"], reason="copy")
    with pytest.raises(DataError, match="holds no generated pairs"):
        likeness(run, [FID])
    assert fedloom(monkeypatch, "evaluate", "generated", run) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds no generated pairs (refined/ or prepared/); give a run that makes some." in line


def test_pairs_of_which_hashes_alone_are_kept_are_refused(run):
    write_pairs(run / "prepared" / "0_pairs" / "a", [("sha256:12", "sha256:34")])
    with pytest.raises(DataError, match="holds hashes for texts; allowed are pairs of a run with"):
        likeness(run, [FID])


def test_too_few_pairs_for_a_score_are_refused(run):
    write_pairs(run / "prepared" / "0_pairs" / "a", PRIVATE["a"][:300])
    with pytest.raises(DataError, match=re.escape("corpus metric 'fid': found 300 texts")):
        likeness(run, [FID])


def test_command_prints_a_table_and_json(run, monkeypatch, capsys):
    of_clients(run)
    words = ["evaluate", "generated", run, "--metric", "vocabulary_divergence"]
    assert fedloom(monkeypatch, *words) == 0
    shown = capsys.readouterr().out
    assert "likeness" in shown and re.search(r"vocabulary_divergence\W+0\.0000\W+1000\W+\d\.\d{4}\W+500", shown)
    assert fedloom(monkeypatch, *words, "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["score"], row["pairs"], row["n_pairs"], row["n_halves"]) == ("vocabulary_divergence", 0.0, 1000, 500)
