"""Corpus metrics against the libraries and formulas they come from, and what a run makes of them."""

import gzip
import json
import math
from itertools import pairwise

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.linalg import sqrtm
from scipy.spatial.distance import jensenshannon
from sklearn.covariance import LedoitWolf
from sklearn.metrics import f1_score

from fedloom.base import config
from fedloom.base.errors import ConfigError
from fedloom.base.plugin import lookup
from fedloom.contracts.federated import CorpusMetric
from fedloom.evaluation.corpus_metrics._frontier import SCALE, area, histograms
from fedloom.evaluation.corpus_metrics.frechet import distance, squared_distance
from fedloom.evaluation.held_out import Scored
from fedloom.results.show import outcome, show_record, show_table
from fedloom.runs.corpus import corpus_means
from fedloom.runs.directory import RunDirectory
from fedloom.runs.execute import execute, run_files
from fedloom.runs.prepared import prepare
from support.encoders import encoder_folder
from support.small_runs import small_run

calmly = settings(max_examples=30, deadline=None, derandomize=True, database=None)
some_words = st.sampled_from(["the", "cat", "sat", "on", "a", "mat,", "ran!"])
phrases = st.lists(some_words, max_size=9).map(" ".join)
spoken = phrases.filter(str.strip)
corpora = st.lists(st.tuples(phrases, spoken), min_size=2, max_size=6)


def _score(name, predictions, references=None, **fields):
    return lookup(CorpusMetric, name)(**fields)(predictions, references or ["x"] * len(predictions))


# ------------------------------------------------------------------------------------------------------ by a library


@pytest.mark.parametrize("name", ["bleu", "chrf", "ter"])
@calmly
@given(pairs=corpora)
def test_the_figure_is_sacrebleus_own(name, pairs):
    found, wanted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    library = {"bleu": sacrebleu.corpus_bleu, "chrf": sacrebleu.corpus_chrf, "ter": sacrebleu.corpus_ter}
    assert _score(f"corpus_{name}", found, wanted) == pytest.approx(library[name](found, [wanted]).score, rel=1e-12)


def test_corpus_bleu_cuts_chinese_where_it_is_told_to():
    texts = ["\u5317\u4eac\u662f\u9996\u90fd\u57ce\u5e02"] * 2
    assert _score("corpus_bleu", texts, texts, tokenize="zh") == pytest.approx(100)


def test_ter_counts_chinese_by_character_where_it_is_told_to():
    found, wanted = ["\u5317\u4eac\u662f\u9996\u90fd"] * 2, ["\u5317\u4eac\u662f\u57ce\u5e02"] * 2
    scores = [_score("corpus_ter", found, wanted, asian_support=told) for told in (False, True)]
    assert scores == [100, pytest.approx(40)]


def test_ter_told_of_asian_texts_is_sacrebleus_own():
    found, wanted = ["the cat, \u5317\u4eac", "it ran!"], ["the cat \u5317\u4eac\u662f", "it sat!"]
    library = sacrebleu.corpus_ter(found, [wanted], normalized=True, asian_support=True).score
    assert _score("corpus_ter", found, wanted, asian_support=True) == pytest.approx(library, rel=1e-12)


@pytest.mark.parametrize("tokenize", ["13a", "intl", "zh", "char", "none"])
def test_self_bleu_cuts_texts_as_it_is_told_to(tokenize):
    texts = ["\u5317\u4eac\u662f\u9996\u90fd", "\u5317\u4eac\u662f\u57ce\u5e02", "the cat, sat."]
    scores = [
        sacrebleu.sentence_bleu(text, texts[:index] + texts[index + 1 :], tokenize=tokenize).score
        for index, text in enumerate(texts)
    ]
    assert _score("self_bleu", texts, tokenize=tokenize) == pytest.approx(np.mean(scores), rel=1e-9)


@calmly
@given(texts=st.lists(spoken, min_size=2, max_size=7))
def test_self_bleu_is_the_mean_of_sentences_against_all_others(texts):
    scores = [
        sacrebleu.sentence_bleu(text, texts[:index] + texts[index + 1 :]).score for index, text in enumerate(texts)
    ]
    assert _score("self_bleu", texts) == pytest.approx(min(100, np.mean(scores)), rel=1e-9)


@pytest.mark.parametrize(
    ("texts", "score"), [(["a b c d"] * 3, 100), (["a b c d", "e f g h"], 0), (["", ""], 100), (["", "a"], 0)]
)
def test_self_bleu_of_equal_and_of_unlike_texts(texts, score):
    assert _score("self_bleu", texts) == pytest.approx(score)


@pytest.mark.parametrize("average", ["macro", "weighted"])
@calmly
@given(pairs=st.lists(st.tuples(*[st.sampled_from(["negative", "neutral", "positive"])] * 2), min_size=2, max_size=9))
def test_f_of_labels_is_the_librarys_over_the_labels_asked_for(average, pairs):
    found, wanted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    expected = f1_score(wanted, found, labels=sorted(set(wanted)), average=average, zero_division=0)
    said = [f"{label.title()}, surely." for label in found]
    assert _score(f"{average}_f1", said, wanted) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["macro_f1", "weighted_f1"])
def test_an_answer_without_a_label_is_wrong(name):
    assert _score(name, ["positive", "it is positive"], ["positive", "positive"]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", ["macro_f1", "weighted_f1"])
def test_a_single_label_is_refused(name):
    with pytest.raises(ConfigError, match=r"labels: found .* allowed are two or more different ones"):
        lookup(CorpusMetric, name)(labels=("up",))


@calmly
@given(pairs=st.lists(st.tuples(spoken, spoken), min_size=2, max_size=6))
def test_divergence_of_words_equals_scipys(pairs):
    sides = [" ".join(pair[side] for pair in pairs) for side in (0, 1)]
    known = sorted({word.strip(",!") for side in sides for word in side.split()})
    counts = [[[word.strip(",!") for word in side.split()].count(word) for word in known] for side in sides]
    expected = float(jensenshannon(*counts, base=2)) ** 2
    found = _score("vocabulary_divergence", [pair[0] for pair in pairs], [pair[1] for pair in pairs])
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("found", "wanted", "score"),
    [
        (["a b", "c"], ["c", "b a"], 0),
        (["a", "b"], ["c", "d"], 1),
        (["", " "], ["c", "d"], 1),
        (["", "?"], ["!", "."], 0),
        # p = (1, 0), q = (1/2, 1/2), their mean (3/4, 1/4)
        (["a", "a"], ["a", "b"], (math.log2(4 / 3) + math.log2(2 / 3) / 2 + math.log2(2) / 2) / 2),
    ],
)
def test_divergence_of_words_by_hand(found, wanted, score):
    assert _score("vocabulary_divergence", found, wanted) == pytest.approx(score, abs=1e-12)


# ---------------------------------------------------------------------------------------------------------- diversity


@pytest.mark.parametrize(
    ("texts", "one", "two"),
    [
        (["a b a", "c"], 3 / 4, 1),
        (["a b", "a b"], 1 / 2, 1 / 2),
        (["", "."], 0, 0),
        (["a", "b"], 1, 0),
        (["a b", "b a"], 1 / 2, 1),
    ],
)
def test_distinct_is_the_share_of_different_runs_of_words(texts, one, two):
    assert (_score("distinct_1", texts), _score("distinct_2", texts)) == (one, two)


def test_no_run_of_words_crosses_from_one_text_to_the_next():
    assert _score("distinct_2", ["a b", "a b", "b a"]) == 2 / 3


def test_repeated_texts_compress_better():
    assert _score("compression_ratio", ["the cat sat"] * 9) > _score("compression_ratio", list("abcdefghi"))


def test_compression_is_gzips_up_to_its_header():
    texts = [f"text number {index}" for index in range(200)]
    plain = "\n".join(texts).encode()
    # gzip's header and trailer are 18 bytes, zlib's 6.
    assert _score("compression_ratio", texts) == len(plain) / (len(gzip.compress(plain, 9)) - 12)


# ------------------------------------------------------------------------------------------------------------ frontier


def _brute_force(p, q):
    """The area under the frontier on a fine grid, point by point from the definition, both ways round."""
    points = [(1.0, 0.0)]
    for step in range(1, 25 * 80):
        weight = step / (25 * 80)
        mixed = [weight * one + (1 - weight) * two for one, two in zip(p, q, strict=True)]
        entropies = [
            sum(share * math.log(share / total) for share, total in zip(side, mixed, strict=True) if share)
            for side in (q, p)
        ]
        points.append((math.exp(-SCALE * entropies[0]), math.exp(-SCALE * entropies[1])))
    points.append((0.0, 1.0))
    return sum((left[0] - right[0]) * (left[1] + right[1]) / 2 for left, right in pairwise(points))


@pytest.mark.parametrize("seed", range(5))
def test_the_area_equals_brute_force(seed):
    draw = np.random.default_rng(seed)
    p, q = draw.dirichlet(np.ones(12)), draw.dirichlet(np.ones(12))
    assert area(p, q) == pytest.approx(_brute_force(p, q), abs=0.01)


def test_the_area_is_the_same_from_both_sides():
    p, q = np.array([0.7, 0.2, 0.1, 0.0]), np.array([0.1, 0.0, 0.4, 0.5])
    assert area(p, q) == pytest.approx(area(q, p), rel=1e-9)


def test_the_area_of_equal_histograms_is_one():
    p = np.array([0.5, 0.3, 0.2, 0.0])
    assert area(p, p) == pytest.approx(1, abs=1e-9)


def test_the_area_of_disjoint_histograms_is_that_of_the_beta_function():
    # x = (1 - w)^c and y = w^c: the integral of y dx over w.
    exact, _ = quad(lambda weight: weight**SCALE * SCALE * (1 - weight) ** (SCALE - 1), 0, 1)
    assert area(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(exact, rel=0.1)


def test_the_area_falls_as_histograms_part():
    p, q = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    areas = [area(p, part * q + (1 - part) * p) for part in (0, 0.1, 0.3, 0.6, 0.9, 1)]
    assert all(one > other for one, other in pairwise(areas))


def test_histograms_are_shares_of_common_clusters():
    draw = np.random.default_rng(0)
    centres = np.array([[9.0, 0.0], [0.0, 9.0]])
    first = centres[[0] * 30 + [1] * 10] + draw.normal(size=(40, 2)) * 0.01
    second = centres[[0] * 10 + [1] * 30] + draw.normal(size=(40, 2)) * 0.01
    p, q = histograms(first, second)
    assert sum(max(one, two) for one, two in zip(p, q, strict=True)) >= 1.5 - 1e-9


def test_equal_vectors_have_equal_histograms():
    p, q = histograms(np.ones((20, 3)), np.ones((20, 3)))
    assert (p == q).all()


def _texts(kind, count=500):
    return [f"{kind} {kind}{index % 50} {kind[::-1]}{index % 7}" for index in range(count)]


def test_equal_sets_of_texts_score_one():
    assert _score("mauve_style", _texts("lorem"), _texts("lorem")[::-1]) == pytest.approx(1, abs=1e-6)


def test_disjoint_sets_of_texts_score_near_zero():
    assert _score("mauve_style", _texts("lorem"), _texts("quick")) < 0.02


def test_a_set_half_alike_scores_between():
    half = _texts("lorem", 250) + _texts("quick", 250)
    assert 0.1 < _score("mauve_style", half, _texts("lorem")) < 0.9


def test_vectors_can_come_from_an_encoder(tmp_path):
    path = encoder_folder(tmp_path)
    cats, mats = ["cat sat"] * 250 + ["cat"] * 250, ["mat sat mat"] * 250 + ["mat"] * 250
    assert _score("mauve_style", cats, mats, path=path) < 0.02 < 0.99 < _score("mauve_style", cats, cats, path=path)


# ------------------------------------------------------------------------------------------------------------- frechet


def _normal(seed, count, width=6, **moved):
    draw = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width))
    return draw.normal(size=(count, width)) @ mixing * moved.get("times", 1.0) + moved.get("plus", 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_frechet_distance_equals_scipys_root_of_a_matrix(seed):
    first, second = _normal(seed, 300), _normal(seed + 100, 300, times=1.3, plus=0.4)
    (mean, spread), (other, other_spread) = (
        (one.mean(0), LedoitWolf().fit(one).covariance_) for one in (first, second)
    )
    root = sqrtm(spread @ other_spread).real
    wanted = ((mean - other) ** 2).sum() + np.trace(spread + other_spread - 2 * root)
    assert squared_distance(mean, spread, other, other_spread) == pytest.approx(wanted, rel=1e-9)
    assert distance(first, second).raw == pytest.approx(wanted, rel=1e-9)


def test_the_frechet_distance_of_normals_on_a_line_is_by_hand():
    one, two = np.eye(1), 4 * np.eye(1)
    assert squared_distance(np.array([1.0]), one, np.array([3.0]), two) == pytest.approx(2**2 + (1 - 2) ** 2)


@pytest.mark.slow
def test_two_halves_of_one_set_score_within_the_interval_of_chance():
    """At 95 % a few of 20 halves may lie outside; the bound is what 20 coins exceed three times in 10,000."""
    draws = [np.random.default_rng(seed).permutation(_normal(7, 1000)) for seed in range(20)]
    found = [distance(one[:500], one[500:]) for one in draws]
    assert sum(not one.low <= one.raw <= one.high for one in found) <= 5
    assert all(one.chance > 0 and one.excess < one.chance * 2 for one in found)


@pytest.mark.parametrize("moved", [{"plus": 0.3}, {"times": 1.2}], ids=["another mean", "another spread"])
def test_sets_of_two_origins_lie_beyond_chance(moved):
    found = distance(_normal(1, 500), _normal(2, 500, **moved))
    assert found.raw > found.high > found.chance > found.low > 0


@pytest.mark.slow
def test_the_excess_does_not_grow_as_texts_become_fewer():
    """What the raw distance of one origin does: over five draws of each size, means and not extremes."""
    raw, excess = {}, {}
    for count in (250, 1000):
        found = [distance(_normal(seed, count), _normal(seed + 50, count)) for seed in range(5)]
        raw[count], excess[count] = (np.mean([getattr(one, what) for one in found]) for what in ("raw", "excess"))
    assert raw[250] > 2 * raw[1000] and excess[250] < raw[250] / 3


@pytest.mark.slow
def test_two_halves_of_one_set_of_texts_are_nearer_than_texts_of_two_kinds():
    same, halves = _texts("lorem", 1000), np.random.default_rng(0).permutation(1000)
    first, second = ([same[at] for at in part] for part in np.split(halves, 2))
    near, far = _score("fid", first, second), _score("fid", _texts("lorem"), _texts("quick"))
    between = _score("fid", _texts("lorem", 250) + _texts("quick", 250), _texts("lorem"))
    assert near < 0.01 < between < far <= 4
    assert _score("fid", first, first[::-1]) == 0


def test_vectors_of_the_frechet_distance_can_come_from_an_encoder(tmp_path):
    path = encoder_folder(tmp_path)
    cats, mats = ["cat sat"] * 250 + ["cat"] * 250, ["mat sat mat"] * 250 + ["mat"] * 250
    assert _score("fid", cats, cats, path=path) == 0 < _score("fid", cats, mats, path=path)


# --------------------------------------------------------------------------------------------------------------- a run


def _answered(owner, text, **tags):
    return Scored("test", 0, owner, tags, {}, "?", "reference", text)


def test_texts_of_several_models_are_not_mixed():
    scored = [_answered(owner, "a b c") for owner in ("c0", "c1")] + [
        _answered(owner, "d e f") for owner in ("c0", "c1")
    ]
    metrics = (lookup(CorpusMetric, "distinct_1")(),)
    found = corpus_means(metrics, scored)["test/distinct_1"]
    assert (found.value, found.weight) == (1.0, 4.0)


def test_texts_of_clients_are_left_out():
    scored = [_answered("", "a b"), _answered("", "c d"), _answered("", "a a a", client="c0")]
    scored.append(Scored("validation", 0, "", {}, {}, "?", "reference", "a a a"))
    found = corpus_means((lookup(CorpusMetric, "distinct_1")(),), scored)["test/distinct_1"]
    assert (found.value, found.weight) == (1.0, 2.0)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A run with a common test and two corpus metrics."""
    folder = tmp_path_factory.mktemp("run")
    test = [{"instruction": f"w{index + 3} w5", "output": "w4 w5"} for index in range(5)]
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in test))
    run = _run(folder, test_path=str(folder / "test.jsonl"))
    directory = RunDirectory.create(folder / "out", run_files(run, ""))
    for _ in execute(run, directory):
        pass
    return directory


@pytest.fixture(scope="module")
def lines(directory):
    return directory.lines("metrics.jsonl")


def _run(folder, **data):
    table = {"name": "file", "path": str(folder / "data.jsonl"), "form": "alpaca"}
    evaluation = {"max_new_tokens": 3, "resamples": 20, "corpus_metrics": ["distinct_1", {"name": "corpus_bleu"}]}
    shared = {"data": table | data, "evaluation": evaluation, "partition": "iid", "clients": 3}
    return small_run(folder, rounds=1, **shared)


@pytest.mark.parametrize("name", ["distinct_1", "corpus_bleu"])
def test_a_run_shows_each_corpus_metric_without_an_interval(directory, lines, name):
    found = outcome(directory)
    (row,) = [row for row in show_record(found)["rows"] if row["score"] == name]
    (line,) = [line for line in lines if line["name"] == f"test/{name}" and line["phase"] == "final"]
    assert (row["final"]["value"], row["n"]) == (pytest.approx(line["total"] / line["weight"]), 5)
    assert row["final"]["low"] is None and row["final"]["standard_error"] is None
    (shown,) = [row for row in show_table(found).rows if row[1] == name]
    assert shown[3] == f"{line['total'] / line['weight']:.3f}" and shown[4] == ""


@pytest.mark.parametrize("name", ["test/distinct_1", "test/corpus_bleu"])
@pytest.mark.parametrize("phase", ["base", "final"])
def test_a_run_writes_each_corpus_metric_with_the_number_of_texts(lines, name, phase):
    (line,) = [line for line in lines if line["name"] == name and line["phase"] == phase]
    assert line["weight"] == 5


def test_data_without_a_common_test_are_refused_before_training(tmp_path):
    with pytest.raises(ConfigError, match="corpus_metrics: found 0 examples of a test that belongs to no client"):
        prepare(_run(tmp_path))


def test_corpus_metrics_without_answers_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="corpus_metrics: found 'distinct_1' with an empty metrics list"):
        small_run(tmp_path, evaluation={"metrics": [], "corpus_metrics": ["distinct_1"]})


def test_a_run_file_with_corpus_metrics_reads_back_equal(tmp_path):
    run = _run(tmp_path)
    assert config.build(type(run), config.parse(config.dump(run), "dump")) == run
