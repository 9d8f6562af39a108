"""The page as text: what it says, what it must not hold, what it refuses."""

import json
import math
import re
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedloom.base.errors import ConfigError, MissingFileError, RunError
from fedloom.benchmark.claims import conclude
from fedloom.benchmark.page import figures, verdict, words, write_report
from fedloom.benchmark.page.drawing import drawn, short
from fedloom.benchmark.page.findings import Findings
from fedloom.benchmark.page.logs import curves, sent, trained_tokens
from fedloom.benchmark.page.page import page
from fedloom.benchmark.page.study import load
from fedloom.cli.main import main
from support.studies import HOSTILE, draw_anew, make_study, make_suite, run_to, score_by_client

pytestmark = pytest.mark.slow  # pages of whole suites


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def text(study):
    return page(study)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    return make_suite(tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="module")
def suite_text(suite):
    return page(suite)


@pytest.fixture
def copy(study, tmp_path, monkeypatch):
    """The study once more, to be damaged; its page has no drawings, which take most of the time."""
    monkeypatch.setattr(figures, "drawn", lambda *_: "")
    return shutil.copytree(study, tmp_path / "study")


def diversity_axis(**changes):
    """An axis of diversity.json; `changes` replace entries of its index."""
    index = {"label": "Jensen-Shannon divergence", "unit": "bits", "mean": 0.25, "chance": 0.125, "highest": None}
    index |= {"furthest": [["client1", 0.375, None]], "clients": {"client1": 0.375, "client2": 0.125}}
    return {"name": "language", "title": "Language", "measured": True, "why": "", "indices": [index | changes]}


def cell(study, method="fedavg", seed=0):
    return next(one for (_, name, number), one in load(study).cells.items() if (name, number) == (method, seed))


# ------------------------------------------------------------------------------------------------- one file, by itself


def test_same_directory_gives_the_same_bytes_wherever_it_lies(study, text, tmp_path):
    assert page(shutil.copytree(study, tmp_path / "study")) == text


def test_page_names_no_address(text):
    drawn = re.sub(r"base64,[\w+/=\s]+", "", text)  # where any letters may meet
    assert not re.search(r"https?:|ftp:|//[a-z]", drawn)


def test_page_loads_and_runs_nothing(text):
    assert not re.search(r"<(script|link|iframe|object|embed|img|form)\b|@import|url\((?!#)|\son\w+=", text)


def test_images_inside_drawings_are_data(text):
    assert set(re.findall(r'<(?:image|use)[^>]* href="(data:image/png|#)', text)) == {"data:image/png", "#"}


def test_policy_forbids_every_source(text):
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text


def test_hostile_client_names_are_escaped_everywhere(text):
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 2


def test_ids_are_unique(text):
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))


def test_every_reference_inside_the_page_has_its_target(text):
    targets = set(re.findall(r'href="#([^"]*)"', text)) | set(re.findall(r"url\(#([^)]*)\)", text))
    assert targets <= set(re.findall(r'\bid="([^"]*)"', text))


def test_headings_go_down_step_by_step(text):
    assert text.count("<h1") == 1
    assert not re.search(r"<h[3-6]", text)


def test_every_table_has_a_name_and_heads(text):
    assert text.count("<table") == text.count("<table aria-labelledby=") == text.count("<thead")


# ----------------------------------------------------------------------------------------------------- what it says


def test_verdict_names_a_method_and_its_interval(text):
    verdict = re.search(r'class="verdict">([^<]*)<', text)[1]
    assert re.search(r"^(fedavg|local) .*95 % interval", verdict)


def test_clients_are_counted_in_the_verdict(text):
    assert re.search(r"of 4 clients, \d fare better", text)


def test_privacy_tells_epsilon_and_that_seeded_noise_protects_nobody(text):
    assert "a seed: a simulation, no protection" in text


def test_what_left_the_clients_is_listed(text):
    assert "row (delta), weight, training loss" in text


def test_commit_and_versions_are_told(text):
    assert re.search(r"torch 2\.\d", text)


def test_host_names_are_not_told(study, text):
    host = json.loads((study / "fedavg_s0" / "environment.json").read_text())["host"]
    assert f">{host}<" not in text


def test_unfinished_run_is_listed_and_not_counted(copy):
    (copy / "local_s1" / "report.md").unlink()
    assert "1 of 5 runs failed or are not complete" in page(copy)


def test_single_run_is_compared_with_its_base(study):
    assert "to the base" in re.search(r'class="verdict">([^<]*)<', page(study / "fedavg_s0"))[1]


def test_diversities_are_shown_where_they_were_measured(study, tmp_path):
    place = shutil.copytree(study / "fedavg_s0", tmp_path / "fedavg_s0")
    (place / "diversity.json").write_text(json.dumps({"axes": [diversity_axis()]}))
    assert "Jensen-Shannon divergence (bits)" in page(place)


@pytest.mark.parametrize("damaged", [
    [1], [diversity_axis(clients={"client1": "far"})], [diversity_axis(chance="far")], [diversity_axis(mean="far")],
])  # fmt: skip
def test_damaged_diversities_are_refused(copy, damaged):
    (copy / "diversity.json").write_text(json.dumps({"axes": damaged}))
    with pytest.raises(RunError, match=r"diversity\.json: is not what `fedloom data describe` wrote"):
        page(copy)


@pytest.mark.slow
def test_command_that_measures_diversities_names_the_folder_as_it_was_given(suite, monkeypatch):
    monkeypatch.chdir(suite.parent)
    told = page(suite.relative_to(suite.parent))
    assert "<code>fedloom data describe suite/one/fedavg_s0/run.toml --out suite/one</code>" in told


def test_command_that_measures_diversities_names_no_path_of_the_machine(suite_text):
    assert "<code>fedloom data describe DIR/other/fedavg_s0/run.toml --out DIR/other</code>" in suite_text


def test_command_that_measures_diversities_of_a_single_run_writes_into_it(study):
    assert "<code>fedloom data describe DIR/run.toml --out DIR</code>" in page(study / "fedavg_s0")


@pytest.mark.slow
@pytest.mark.parametrize("made", ["suite", "study"])
def test_command_on_the_page_measures_what_the_page_then_shows(request, made, tmp_path, monkeypatch):
    shutil.copytree(request.getfixturevalue(made), tmp_path / made)
    monkeypatch.chdir(tmp_path)
    for command in re.findall(r"<code>fedloom ([^<]*)</code>", page(Path(made))):
        run_command(monkeypatch, *shlex.split(command))
    told = page(tmp_path / made)
    assert ("seven diversities, 0 where" in told, "have not been measured" in told) == (True, False)


# ------------------------------------------------------------------------------------------------------------ clients


@pytest.fixture
def pairs(copy):
    """The two methods with two seeds each."""
    shutil.rmtree(copy / "private_s0")
    score_by_client(copy)
    return copy


@pytest.fixture
def others(pairs):
    """The same with other clients under the same names on the second seed."""
    draw_anew(pairs, "*_s1")
    return pairs


def own_scores(study):
    found = Findings(conclude(load(study)))
    return found, next(iter(found.clients.values()))


def test_clients_of_equal_data_are_averaged_over_seeds(pairs):
    assert own_scores(pairs)[1].seeds == (0, 1)


def test_clients_that_are_others_on_each_seed_are_shown_on_the_first(others):
    assert own_scores(others)[1].seeds == (0,)


def test_base_of_clients_is_averaged_over_the_same_seeds(pairs):
    base = own_scores(pairs)[1].by_method["base"]
    assert base == {HOSTILE: 0.5, "client1": 0.5, "client2": 0.0, "client3": 0.0}


def test_base_of_clients_that_are_others_on_each_seed_is_of_the_first(others):
    base = own_scores(others)[1].by_method["base"]
    assert base == {HOSTILE: 1.0, "client1": 0.0, "client2": 0.0, "client3": 0.0}


def test_page_says_why_one_seed_of_the_clients_is_shown(others):
    told = page(others)
    assert "Seed 0 alone: each seed draws its own data" in told
    assert ", seed 0, " in re.search(r">([^<]*the clients that fare worst with[^<]*)<", told)[1]


def test_verdict_counts_the_clients_of_one_seed_if_others_have_other_clients(others):
    assert re.search(r"of the 4 clients of seed 0, \d fare better", page(others))


def test_tile_of_the_worst_tenth_is_the_worst_decile_of_the_table(pairs):
    told = page(pairs)
    assert "<dt>worst tenth of its 4 clients</dt><dd>0.000<" in told
    assert re.search(r"<th scope=.row.>fedavg</th>(<td[^>]*>[^<]*</td>){3}<td[^>]*>0\.000 \(", told)


# ------------------------------------------------------------------------------------------------------------- suites


def test_suite_is_ranked_on_each_data_set_and_on_their_mean(suite_text):
    assert re.search(r">mean of data sets: loss<.*>one: loss<.*>other: loss<", suite_text)


def test_claims_of_a_suite_are_decided(suite_text):
    assert re.search(r"training lowers no loss</th><td[^>]*>(▲ holds|▼ does not hold|not decided)<", suite_text)


def test_control_arm_without_a_method_stands_beside_the_claims_as_missing(suite_text):
    assert '<p class="bad">missing: an oracle (nobody knows it)</p>' in suite_text


def test_centralised_training_is_a_bound_and_never_first(suite_text):
    verdict = re.search(r'class="verdict">([^<]*)<', suite_text)[1]
    assert re.match(r"(fedavg|local|fedavg and local) (comes first|share the first place) of 2 ", verdict)


def test_method_without_all_its_runs_is_named_and_not_ranked(suite, tmp_path):
    place = shutil.copytree(suite, tmp_path / "suite")
    (place / "one" / "local_s0" / "report.md").unlink()
    assert "Not ranked, as runs or scores are missing: local." in page(place)


def test_verdict_tells_where_methods_are_ranked_if_a_data_set_has_no_runs(suite, tmp_path):
    place = shutil.copytree(suite, tmp_path / "suite")
    for method in ("fedavg", "local", "centralised"):
        (place / "one" / f"{method}_s0" / "report.md").unlink()
    assert "in loss on other, for want of runs on the others," in page(place)


def test_methods_that_all_lack_a_seed_are_not_ranked(copy):
    for path in copy.glob("*_s1/report.md"):
        path.unlink()
    assert "No method can be ranked yet" in page(copy)


def test_interrupted_runs_are_counted_and_told_how_they_go_on(copy):
    for path in copy.glob("*_s1/report.md"):
        path.unlink()
    told = page(copy)
    assert "Nothing is ranked: 3 of 5 runs have ended" in told
    assert "`fedloom bench` goes on with a suite" in told
    assert "score of which more or less is better" not in told


def test_scores_without_a_better_end_are_the_reason_if_all_runs_have_ended(suite):
    told = conclude(load(suite))
    found = Findings(replace(told, summary=replace(told.summary, ranks=())))
    assert found.unranked == "no method has a score of which more or less is better on each of its runs"


@pytest.fixture
def forest(suite, monkeypatch):
    """What the forest plot of the suite is drawn from."""
    drawn_from = {}
    monkeypatch.setattr(figures, "forest", lambda _, panels, **others: drawn_from.update(others, panels=panels) or "")
    page(suite)
    return drawn_from


def test_forest_has_a_line_for_the_mean_of_the_bases(forest):
    lines = forest["reference"]
    assert lines["mean of data sets"] == pytest.approx((lines["one"] + lines["other"]) / 2)


def test_forest_fills_the_best_of_each_panel(forest):
    for name, ranked in forest["panels"].items():
        lowest = min(interval.value for method, interval in ranked if method != "centralised")
        assert forest["best"][name] == {m for m, i in ranked if m != "centralised" and i.value == lowest}


def test_single_method_is_shown_beside_its_base_on_the_mean_of_data_sets(suite):
    study = load(suite)
    alone = replace(
        study,
        suite=replace(study.suite, methods={"fedavg": {}}, claims=()),
        cells={key: run for key, run in study.cells.items() if key[1] == "fedavg"},
    )
    assert re.search(r"Forest plot: fedavg [^;]*; base ", page(suite, conclude(alone)))


def test_student_intervals_are_said_to_know_no_range(pairs):
    assert "not bounded by the range of a score" in page(pairs)


def test_mean_over_data_sets_has_one_name(suite_text):
    assert "(mean)" not in suite_text
    assert "fedavg \N{MINUS SIGN} base on mean of data sets" in suite_text


def test_page_has_one_sign_for_minus(suite_text):
    shown = re.sub(r"<style.*?</style>|<[^>]*>", " ", suite_text, flags=re.DOTALL)
    assert "\N{MINUS SIGN}0." in shown
    assert not re.search(r"(?<![\w.-])-\d", shown)


# ---------------------------------------------------------------------------------------------------------- refusals


def test_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"holds no suite\.toml, no run\.toml and no folder with one"):
        page(tmp_path)


def test_folder_without_a_finished_run_is_refused(copy):
    for path in copy.glob("*/report.md"):
        path.unlink()
    with pytest.raises(RunError, match="none of its 5 runs is complete"):
        page(copy)


def test_damaged_environment_is_refused_by_name(copy):
    (copy / "fedavg_s0" / "environment.json").write_text("[]")
    with pytest.raises(RunError, match=r"environment\.json: is not what fedloom wrote"):
        page(copy)


@pytest.mark.parametrize("card", [{}, {"counts": {}}, {"counts": {"a": "many"}}])
def test_damaged_partition_is_refused_by_name(copy, card):
    (copy / "fedavg_s0" / "partition.json").write_text(json.dumps(card))
    with pytest.raises(RunError, match=r"fedavg_s0/partition\.json: is not what fedloom wrote"):
        page(copy)


def test_metrics_without_a_round_are_refused_by_name(copy):
    path = copy / "fedavg_s0" / "metrics.jsonl"
    path.write_text('{"name": "train_loss", "wall_s": 1.0}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl: is not what fedloom wrote"):
        page(copy)


def test_ledger_without_what_is_refused_by_name(copy):
    (copy / "fedavg_s0" / "ledger.jsonl").write_text('{"client": "a"}\n')
    with pytest.raises(RunError, match=r"(ledger|partition)\.json\S*: is not what fedloom wrote"):
        page(copy)


def test_two_runs_of_one_name_are_refused(copy):
    shutil.copytree(copy / "fedavg_s0", copy / "fedavg s0")
    shutil.copytree(copy / "fedavg_s0", copy / "fedavg-s0")
    with pytest.raises(RunError, match="two of its runs have the same name and seed"):
        page(copy)


def test_missing_matplotlib_is_refused_with_its_extra(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install fedloom\[report\]"):
        page(study)


def test_place_that_cannot_be_written_is_refused(study, tmp_path):
    with pytest.raises(RunError, match="cannot be written"):
        write_report(study / "fedavg_s0", tmp_path / "nowhere" / "report.html")


# --------------------------------------------------------------------------------------------------------- command line


def run_command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["fedloom", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def command(monkeypatch, *words):
    return run_command(monkeypatch, "report", *words)


def test_command_writes_report_html_and_tells_where(study, tmp_path, monkeypatch, capsys):
    place = shutil.copytree(study / "fedavg_s0", tmp_path / "fedavg_s0")
    command(monkeypatch, place)
    assert (capsys.readouterr().out, (place / "report.html").exists()) == (f"{place / 'report.html'}\n", True)


def test_command_writes_to_another_file_in_silence(study, tmp_path, monkeypatch, capsys):
    command(monkeypatch, study / "fedavg_s0", "--out", tmp_path / "page.html", "--quiet")
    assert ((tmp_path / "page.html").exists(), capsys.readouterr().out) == (True, "")


def test_command_refuses_in_one_line(tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, tmp_path) == 2
    assert capsys.readouterr().err.count("\n") == 1


# ---------------------------------------------------------------------------------------------------------------- logs


def test_curves_of_training_begin_after_the_first_round(study):
    assert list(curves(cell(study))["train_loss"]) == [1, 2]


def test_curves_of_scores_begin_before_the_first_round(study):
    assert list(curves(cell(study))["test/loss"]) == [0, 1, 2]


def test_curves_take_local_models_together(study):
    assert list(curves(cell(study, "local"))["test/loss"]) == [0, 1, 2]


def test_what_was_sent_adds_up_to_the_cost(study):
    found = cell(study)
    assert sum(one.size_bytes for one in sent(found)) == found.cost["upload_bytes"]


def test_trained_tokens_are_unknown_under_privacy(study):
    assert trained_tokens(cell(study, "private")) is None


def test_the_head_tells_the_epsilon_that_counts(study):
    """By the run's own accountant, of which the looser one beside it says nothing."""
    told = dict(verdict.facts(Findings(conclude(load(study)))))
    stated = cell(study, "private").privacy["epsilon"]
    assert told["largest epsilon"] == words.value(min(stated.values())) != words.value(max(stated.values()))


def test_trained_tokens_of_a_pass_over_everything_are_those_of_the_data(tmp_path):
    run_to(tmp_path, tmp_path / "run", local={"lr": 0.02, "steps": 1, "batch": 40}, protocol="centralised")
    found = next(iter(load(tmp_path / "run").cells.values()))
    with (tmp_path / "run" / "ledger.jsonl").open() as file:
        seen = sum(json.loads(line).get("samples_seen", 0) for line in file)
    encoded = json.loads((tmp_path / "run" / "partition.json").read_text())["encoded"]
    shards = [counts for client, counts in encoded.items() if not client.startswith("(")]
    tokens, examples = (sum(counts[name] for counts in shards) for name in ("tokens", "kept"))
    assert trained_tokens(found) == pytest.approx(tokens * seen / examples)


# ------------------------------------------------------------------------------------------------------------- drawing


def test_heat_map_of_747_clients_is_small():
    table = {f"m{row}": {f"c{n}": math.sin(row + n) for n in range(747)} for row in range(9)}
    assert len(figures.heat_map("heat", table, clients=[f"c{n}" for n in range(747)], axis="score")) < 100_000


def test_heat_map_of_equal_values_is_drawn():
    assert "<image" in figures.heat_map("heat", {"m": {"a": 1.0, "b": 1.0}}, clients=["a", "b"], axis="score")


def test_strip_of_clients_that_are_all_like_the_pool_ends_at_zero():
    assert ">0</text>" in figures.strips("s", [("Language", [0.0, 0.0], 0.0)])


def test_texts_of_a_drawing_are_no_mathematics():
    drawing = drawn("f", 3, 2, lambda figure: figure.subplots().set_title("a_{b} $x^2$"))
    assert ">a_{b} $x^2$<" in drawing


def test_glyphs_that_the_drawing_font_lacks_pass():
    assert ">漢字<" in drawn("f", 3, 2, lambda figure: figure.subplots().set_title("漢字"))


def test_long_names_are_cut():
    assert short("x" * 30) == "x" * 25 + "…"


def test_names_lose_control_characters():
    assert short("a\x00b") == "a\N{REPLACEMENT CHARACTER}b"


# --------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("verdict", "text"), [("better", "▲ better"), ("worse", "▼ worse"), ("undecided", "not decided")]
)
def test_decisions_are_told_in_words_and_not_by_colour_alone(verdict, text):
    assert words.decided(verdict).text == text


@pytest.mark.parametrize(
    ("n_bytes", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (66_846_720, "66.8 MB"), (5e15, "5000.0 TB")]
)
def test_sizes_have_units(n_bytes, shown):
    assert words.size(n_bytes) == shown


@pytest.mark.parametrize(
    ("wall_s", "shown"), [(3.25, "3.2 s"), (59.9, "1 min 0 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")]
)
def test_times_have_units(wall_s, shown):
    assert words.duration(wall_s) == shown


def test_minus_has_its_sign_and_names_keep_their_hyphens():
    told = words.minus("fed-avg - base on x-1 -0.064 [-1.000, +2.000], at most 1e-05")
    assert told.replace("\N{MINUS SIGN}", "~") == "fed-avg ~ base on x-1 ~0.064 [~1.000, +2.000], at most 1e~05"


def test_negative_values_have_the_sign_for_minus():
    assert words.value(-0.5) == "\N{MINUS SIGN}0.500"


def test_counts_have_groups_of_three():
    assert words.count(1234567) == "1\N{NARROW NO-BREAK SPACE}234\N{NARROW NO-BREAK SPACE}567"
