"""What is said of a suite: intervals against scipy, ranks, verdicts, clients, languages; every number known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedloom.base.errors import DataError, RunError
from fedloom.benchmark.ranking import ALL, gap, pair_rows, rank_rows
from fedloom.benchmark.stated import Control
from fedloom.benchmark.summary import (
    client_rows,
    domain_rows,
    language_rows,
    score_rows,
    summarise,
)
from fedloom.evaluation.repetitions import joined
from fedloom.evaluation.statistics import Interval
from fedloom.results.per_client import direction, fairness, languages_of_models
from support.suites import answers, by_seed, made, suite_of

TWO = {"good": [0.8, 0.9, 0.85], "bad": [0.2, 0.3, 0.25]}
LANGUAGES = {"n_values": 2, "by_client": {"anna": {"fr": 3}, "bo": {"fr": 2, "pt": 1}, "cy": {"pt": 4}}}
CARD = {"counts": {"anna": 3, "bo": 3, "cy": 4}, "tags": {"language": LANGUAGES}}


def row(rows, **wanted):
    (found,) = [one for one in rows if all(vars(one)[name] == value for name, value in wanted.items())]
    return found


# ------------------------------------------------------------------------------------------------------------- scores


def test_interval_over_seeds_is_students_of_scipy():
    value = row(score_rows(suite_of(by_seed(TWO))), method="good").final
    low, high = stats.t.interval(0.95, 2, loc=np.mean(TWO["good"]), scale=stats.sem(TWO["good"]))
    assert (value.low, value.high) == pytest.approx((low, high))


def test_score_has_the_standard_error_over_seeds():
    assert row(score_rows(suite_of(by_seed(TWO))), method="bad").final.standard_error == pytest.approx(
        stats.sem(TWO["bad"])
    )


def test_interval_of_one_seed_is_a_bootstrap_over_questions():
    cells = {("d", "m", 0): made(answers([0, 1, 1, 1, 0, 1]))}
    value = row(score_rows(suite_of(cells)), method="m").final
    assert value.n == 6


def test_score_knows_its_seeds_data_and_base():
    found = row(score_rows(suite_of(by_seed(TWO))), method="good")
    assert (found.seeds, found.base_ids, found.data_sha256) == ((0, 1, 2), ("tiny sha256:1",), ("same",) * 3)


def test_score_counts_its_questions():
    assert row(score_rows(suite_of(by_seed(TWO, n=7))), method="good").n_questions == 7


def test_score_before_training_stands_beside_the_one_after():
    cells = {("d", "m", seed): made(answers([1, 1]), base=answers([0, 0]), seed=seed) for seed in range(2)}
    assert row(score_rows(suite_of(cells)), method="m").base.value == 0


def test_run_without_held_out_examples_is_refused():
    run = made([])
    cells = {("d", "m", 0): type(run)(**{**vars(run), "results": {}})}
    with pytest.raises(RunError, match="has no held-out examples"):
        summarise(suite_of(cells))


# ------------------------------------------------------------------------------------------------- joining and gaps


def test_mean_over_data_sets_of_one_is_itself():
    assert joined([Interval(0.5, 0.4, 0.7, 9, 0.1)]) == Interval(0.5, 0.4, 0.7, 9, 0.1)


def test_half_widths_over_data_sets_add_up_in_squares():
    both = joined([Interval(0.5, 0.2, 0.6, 9), Interval(0.1, -0.3, 0.3, 7)])
    assert (both.value, both.low, both.high) == pytest.approx(
        (0.3, 0.3 - math.hypot(0.3, 0.4) / 2, 0.3 + math.hypot(0.1, 0.2) / 2)
    )


def test_gap_over_data_sets_is_students_of_the_means_of_each_seed():
    cells = by_seed({"a": [0.5, 0.7], "b": [0.1, 0.2]}) | by_seed({"a": [0.9, 0.9], "b": [0.4, 0.2]}, data="e")
    gaps = [(0.4 + 0.5) / 2, (0.5 + 0.7) / 2]
    low, high = stats.t.interval(0.95, 1, loc=np.mean(gaps), scale=stats.sem(gaps))
    found = gap(suite_of(cells), ["d", "e"], "a", "b")
    assert (found.low, found.high) == pytest.approx((low, high))


def test_gap_of_one_seed_is_paired_question_by_question():
    random = np.random.default_rng(0).random(40)
    cells = {("d", "a", 0): made(answers(random + 0.1)), ("d", "b", 0): made(answers(random))}
    found = gap(suite_of(cells), ["d"], "a", "b")
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))


def test_gap_to_the_base_is_within_each_run():
    cells = {("d", "m", s): made(answers([0.5 + s / 10] * 4), base=answers([0.1] * 4), seed=s) for s in range(2)}
    assert gap(suite_of(cells), ["d"], "m", "base").value == pytest.approx(0.45)


# -------------------------------------------------------------------------------------------------------------- ranks


def test_clear_winner_is_first_with_certainty():
    rank = row(rank_rows(suite_of(by_seed(TWO)), ["d"]), method="good").rank
    assert (rank.value, rank.low, rank.high) == (1, 1, 1)


def test_equal_methods_share_their_places():
    found = suite_of(by_seed({"a": [0.5, 0.6], "b": [0.5, 0.6], "c": [0.1, 0.1]}))
    assert [one.rank.value for one in rank_rows(found, ["d"])] == [1.5, 1.5, 3]


def test_who_pools_all_data_is_a_bound_without_a_place():
    cells = by_seed({"a": [0.5, 0.6], "all": [0.9, 0.9], "b": [0.4, 0.4]})
    cells |= {
        key: replace(one, settings={"protocol": {"name": "centralised"}})
        for key, one in cells.items()
        if key[1] == "all"
    }
    rows = rank_rows(suite_of(cells), ["d"])
    assert [row(rows, method=name).rank.value for name in ("a", "b")] == [1, 2]
    assert math.isnan(row(rows, method="all").rank.value)


def test_alone_it_has_one():
    cells = {
        key: replace(one, settings={"protocol": {"name": "centralised"}})
        for key, one in by_seed({"all": [0.9]}).items()
    }
    assert rank_rows(suite_of(cells), ["d"])[0].rank.value == 1


def test_methods_that_take_turns_have_a_wide_rank():
    rank = row(rank_rows(suite_of(by_seed({"a": [0.9, 0.1], "b": [0.2, 0.7]})), ["d"]), method="a").rank
    assert (rank.low, rank.high) == (1, 2)


@pytest.mark.parametrize(("first", "high"), [(lambda seed: 0, 2), (lambda seed: 100 * seed, 1)])
def test_seeds_that_ask_the_same_questions_are_no_further_questions(first, high):
    """Six of ten right against the other four: unsure of the ten questions, sure of sixty times ten others."""
    values = {"a": [1] * 6 + [0] * 4, "b": [0] * 6 + [1] * 4}
    cells = {
        ("d", method, seed): made(answers(told, first=first(seed)), seed=seed)
        for method, told in values.items()
        for seed in range(60)
    }
    rank = row(rank_rows(suite_of(cells), ["d"]), method="a").rank
    assert (rank.value, rank.low, rank.high) == (1, 1, high)


def test_least_loss_is_first():
    found = suite_of(
        {
            ("d", m, s): made(answers([v] * 5, score="loss"), seed=s)
            for m, v in (("a", 2.0), ("b", 1.0))
            for s in (0, 1)
        },
        score="loss",
    )
    assert row(rank_rows(found, ["d"]), method="b").rank.value == 1


def test_ranking_over_data_sets_is_by_their_mean():
    cells = by_seed({"a": [0.9, 0.9], "b": [0.6, 0.6]}) | by_seed({"a": [0.1, 0.1], "b": [0.6, 0.6]}, data="e")
    assert row(rank_rows(suite_of(cells), ["d", "e"]), method="b").rank.value == 1


def test_ranking_over_data_sets_is_marked_as_such():
    cells = by_seed(TWO) | by_seed(TWO, data="e")
    assert {one.data for one in rank_rows(suite_of(cells), ["d", "e"])} == {ALL}


def test_data_sets_of_unequal_resamples_are_ranked_together():
    few = {key: replace(run, resamples=50) for key, run in by_seed(TWO, data="e").items()}
    assert {one.rank.value for one in rank_rows(suite_of(by_seed(TWO) | few), ["d", "e"])} >= {1}


def test_method_that_lacks_a_run_is_not_ranked():
    cells = by_seed(TWO)
    del cells["d", "bad", 2]
    found = suite_of(cells, missing=[("d", "bad", 2)])
    assert [one.method for one in rank_rows(found, ["d"])] == ["good"]


# -------------------------------------------------------------------------------------------------------------- pairs


def test_pair_far_apart_in_seeds_and_questions_is_decided():
    assert row(pair_rows(suite_of(by_seed(TWO, n=40)), ["d"]), first="good").verdict == "better"


def test_worse_is_told_of_the_first():
    cells = by_seed({"bad": TWO["bad"], "good": TWO["good"]}, n=40)
    assert row(pair_rows(suite_of(cells), ["d"]), first="bad").verdict == "worse"


def test_p_of_two_unlike_seeds_is_that_of_the_t_test_however_many_their_questions():
    found = row(pair_rows(suite_of(by_seed({"a": [0.9, 0.3], "b": [0.2, 0.2]}, n=100)), ["d"]), first="a")
    assert found.p == pytest.approx(stats.ttest_1samp([0.7, 0.1], 0).pvalue) and found.verdict == "undecided"


def test_pair_of_few_questions_is_undecided_however_narrow_its_interval():
    found = row(pair_rows(suite_of(by_seed({"a": [0.9, 0.9001], "b": [0.2, 0.2]}, n=3)), ["d"]), first="a")
    assert (found.difference.low > 0, found.verdict) == (True, "undecided")


def test_swaps_of_questions_that_all_seeds_ask_are_not_repetitions():
    found = row(pair_rows(suite_of(by_seed({"a": [0.9, 0.9, 0.9], "b": [0.2, 0.2, 0.2]}, n=3)), ["d"]), first="a")
    assert found.p == 2 / 2**3


def test_swaps_of_questions_of_their_own_are_repetitions():
    cells = {
        ("d", m, s): made(answers([v] * 3, first=10 * s), seed=s) for m, v in (("a", 0.9), ("b", 0.2)) for s in range(3)
    }
    assert row(pair_rows(suite_of(cells), ["d"]), first="a").p == 2 / 2**9


def test_p_is_corrected_for_all_pairs():
    random = np.random.default_rng(1)
    cells = {("d", m, 0): made(answers(random.random(30) + m_up)) for m, m_up in (("a", 0), ("b", 0.1), ("c", 0.3))}
    rows = pair_rows(suite_of(cells), ["d"])
    assert min(one.corrected_p for one in rows) == pytest.approx(3 * min(one.p for one in rows))


def test_same_methods_are_never_told_apart():
    """Of 60 pairs that differ by chance alone, about one in twenty may be decided; here both tests have to agree."""
    random = np.random.default_rng(2)
    verdicts = []
    for _ in range(60):
        cells = {("d", m, s): made(answers(random.random(20)), seed=s) for m in "ab" for s in range(3)}
        verdicts += [one.verdict for one in pair_rows(suite_of(cells), ["d"])]
    assert verdicts.count("undecided") >= 55


# ------------------------------------------------------------------------------------------------------------ clients


def own(values):
    """A shared model on the questions of clients: the mean of each is known."""
    return [one for name, value in values.items() for one in answers([value] * 2, name="validation", client=name)]


def numbered(scored):
    return [type(one)(one.set, at, one.owner, one.tags, one.scores, f"q{at}") for at, one in enumerate(scored)]


CLIENTS = {f"c{i:02d}": i / 20 for i in range(20)}


def test_worst_and_best_deciles_are_means_of_tenths():
    told = fairness(np.array([list(CLIENTS.values())]), 1)
    assert (told["worst_decile"][0], told["best_decile"][0]) == pytest.approx((0.025, 0.925))


def test_gap_is_the_best_decile_less_the_worst():
    assert fairness(np.array([list(CLIENTS.values())]), 1)["gap"][0] == pytest.approx(0.9)


def test_of_a_loss_the_worst_is_the_highest():
    assert fairness(np.array([[3.0, 1.0, 2.0]]), -1)["worst_client"][0] == 3.0


def test_of_a_loss_the_tenth_percentile_is_on_the_high_side():
    values = np.arange(11.0)[None]
    assert fairness(values, -1)["tenth_percentile"][0] == 9.0


def test_clients_fare_as_their_own_questions_are_answered():
    cells = {("d", "m", 0): made(numbered(own(CLIENTS)))}
    assert row(client_rows(suite_of(cells)), questions="validation, own").clients[0] == pytest.approx(CLIENTS)


def test_measures_over_seeds_have_students_interval():
    cells = {("d", "m", s): made(numbered(own({k: v + s / 10 for k, v in CLIENTS.items()})), seed=s) for s in range(3)}
    assert row(client_rows(suite_of(cells)), questions="validation, own").measures["worst_client"].value == (
        pytest.approx(0.1)
    )


def test_measures_of_one_seed_are_resampled_over_clients():
    cells = {("d", "m", 0): made(numbered(own(CLIENTS)))}
    mean = row(client_rows(suite_of(cells)), questions="validation, own").measures["mean"]
    assert mean.standard_error == pytest.approx(np.std(list(CLIENTS.values())) / math.sqrt(20), rel=0.15)


def test_last_clients_of_one_seed_have_no_interval():
    cells = {("d", "m", 0): made(numbered(own(CLIENTS)))}
    measures = row(client_rows(suite_of(cells)), questions="validation, own").measures
    assert [name for name, one in measures.items() if math.isnan(one.low)] == [
        "worst_decile",
        "best_decile",
        "worst_client",
        "gap",
    ]


def test_mean_over_the_same_clients_in_all_seeds_is_no_surer_than_that_of_one():
    one, all_seeds = (
        row(
            client_rows(suite_of({("d", "m", s): made(numbered(own(CLIENTS)), seed=s) for s in range(count)})),
            questions="validation, own",
        ).measures["mean"]
        for count in (1, 4)
    )
    assert all_seeds.standard_error == pytest.approx(one.standard_error, rel=0.1)


def test_one_client_in_all_seeds_has_an_interval_over_the_seeds():
    cells = {("d", "m", s): made(numbered(own({"anna": s / 10})), seed=s) for s in range(3)}
    mean = row(client_rows(suite_of(cells)), questions="validation, own").measures["mean"]
    assert (mean.value, mean.standard_error) == pytest.approx((0.1, 0.1 / math.sqrt(3)))


# ----------------------------------------------------------------------------------------------- languages, domains

ASKED = ["fr", "fr", "pt"]


def alone(card=CARD, **settings):
    """Three clients: each answers its own language."""
    speaks = {"anna": "fr", "bo": "fr", "cy": "pt"}
    final = [
        one
        for owner, mine in speaks.items()
        for one in answers([float(mine == asked) for asked in ASKED], owner=owner, language=ASKED)
    ]
    return made(final, card=card, **settings)


def test_shared_model_has_one_line_of_the_matrix():
    cells = {("d", "m", 0): made(answers([1, 0, 1], language=ASKED))}
    assert [(one["models"], one["group"], one.interval.value) for one in language_rows(suite_of(cells))] == [
        ("all", "fr", 0.5),
        ("all", "pt", 1.0),
    ]


def test_models_of_clients_are_put_together_by_language():
    found = {
        (one["models"], one["group"]): one.interval.value for one in language_rows(suite_of({("d", "m", 0): alone()}))
    }
    assert found == {("fr", "fr"): 1, ("fr", "pt"): 0, ("pt", "fr"): 0, ("pt", "pt"): 1}


def test_models_of_clusters_have_their_names_in_the_matrix():
    final = [one for owner in ("west", "south") for one in answers([1, 0, 1], owner=owner, language=ASKED)]
    settings = {"protocol": "clustered", "cluster_by": "language", "clusters": {"west": ["fr"], "south": ["pt"]}}
    cells = {("d", "m", 0): made(final, card=CARD, **settings)}
    assert {one["models"] for one in language_rows(suite_of(cells))} == {"west", "south"}


def test_clients_of_unknown_languages_have_one_line():
    cells = {("d", "m", 0): alone(card={"tags": {}})}
    assert {one["models"] for one in language_rows(suite_of(cells))} == {"clients"}


def test_cluster_has_the_languages_of_its_clients():
    final = [one for owner in ("west", "south") for one in answers([1], owner=owner)]
    settings = {"protocol": "clustered", "cluster_by": "language", "clusters": {"west": ["fr"], "south": ["pt"]}}
    assert languages_of_models(made(final, card=CARD, **settings), "language") == {"west": {"fr"}, "south": {"pt"}}


def test_questions_of_one_language_make_no_matrix():
    cells = {("d", "m", 0): made(answers([1, 0], language="fr"))}
    assert not list(language_rows(suite_of(cells)))


def test_domains_are_told_apart():
    cells = {("d", "m", 0): made(answers([1, 0, 0], domain=["maths", "maths", "finance"]))}
    assert [(one["group"], one.interval.value) for one in domain_rows(suite_of(cells))] == [
        ("maths", 0.5),
        ("finance", 0.0),
    ]


# ---------------------------------------------------------------------------------------------------------------- all


def test_direction_of_a_metric_is_its_own():
    assert (direction("exact_match"), direction("loss"), direction("preference_accuracy")) == (1, -1, 1)


@pytest.mark.parametrize("score", ["chosen_reward", "rejected_reward", "kl_to_reference", "answer_length"])
def test_scores_that_are_neither_good_nor_bad_have_no_direction(score):
    assert direction(score) == 0


def test_record_is_strict_json():
    record = summarise(suite_of(by_seed(TWO))).record()
    assert json.loads(json.dumps(record, allow_nan=False))["ranks"][0]["rank"]["value"] == 1


def test_cells_that_have_not_ended_are_named():
    cells = by_seed(TWO)
    del cells["d", "bad", 2]
    assert summarise(suite_of(cells, missing=[("d", "bad", 2)])).missing == ("d/bad_s2",)


def test_control_arm_that_no_finished_run_is_is_printed_as_missing():
    cells = {key: run for key, run in by_seed(TWO).items() if key[1] != "bad"}
    controls = (
        Control(arm="trained alone", method="good"),
        Control(arm="before training", method="base"),
        Control(arm="a bad one", method="bad"),
        Control(arm="an oracle", why="nobody knows it"),
    )
    assert summarise(suite_of(cells, missing=[("d", "bad", 0)], controls=controls)).absent_controls == (
        "missing: a bad one (no run of 'bad' has ended)",
        "missing: an oracle (nobody knows it)",
    )


def test_before_training_is_missing_where_no_run_has_ended():
    found = suite_of({}, missing=[("d", "m", 0)], controls=[Control(arm="before training", method="base")])
    assert summarise(found).absent_controls == ("missing: before training (no run of 'base' has ended)",)


def test_score_that_no_run_tells_is_refused():
    with pytest.raises(
        DataError, match=r"score: found 'exact_mach', allowed on data set 'd' are exact_match; set score"
    ):
        summarise(suite_of(by_seed(TWO), score="exact_mach"))


def test_suite_without_a_finished_cell_has_an_empty_summary():
    assert summarise(suite_of({}, missing=[("d", "m", 0)])).scores == ()
