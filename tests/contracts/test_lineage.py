"""What a run's start has spent is stated with the run: lineages of weights, composed, exported and resumed."""

import json
import math
import shutil

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant

import fedloom
from fedloom.base import rng
from fedloom.base.errors import ModelError, RunError
from fedloom.contracts.federated import Earlier, PrivacyBudget
from fedloom.contracts.lineage import UNKNOWN, Owner, Training, joined, read_lineage, read_stated, unnamed
from fedloom.federated.privacy.gaussian import Gaussian
from fedloom.runs.directory import RunDirectory
from fedloom.runs.execute import RoundDone
from fedloom.runs.export import export
from fedloom.runs.origins import origin_of
from support.small_runs import small_table

pytestmark = pytest.mark.slow  # chains of whole runs

PRIVATE = {
    "weighting": "uniform",
    "privacy": {"name": "gaussian", "epsilon": 0.0, "noise_multiplier": 1.3, "delta": 1e-3},
    "evaluation": {"metrics": [], "resamples": 20, "holdout": 0.0},
    "rounds": 2,
}
PLAIN = {key: value for key, value in PRIVATE.items() if key not in ("weighting", "privacy")}


def finished(folder, name, start=None, **changes):
    """The folder of a run, from the adapter of another one."""
    table = small_table(folder, **changes)
    if start:
        table["model"] = table["model"] | {"adapter": str(start)}
    list(fedloom.start(fedloom.runs.tuning.read_run(table), folder / name))
    return folder / name


def stated(folder):
    return json.loads((folder / "privacy.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lineage")


@pytest.fixture(scope="module")
def plain(folder):
    return finished(folder, "plain", **PLAIN)


@pytest.fixture(scope="module")
def first(folder):
    return finished(folder, "first", **PRIVATE)


@pytest.fixture(scope="module")
def second(folder, first):
    return finished(folder, "second", first / "adapter", **PRIVATE | {"seed": 2})


@pytest.fixture(scope="module")
def after_plain(folder, plain):
    return finished(folder, "after_plain", plain / "adapter", **PRIVATE)


def composed_twice(folder):
    """The epsilon of both runs by the library's own accountant, of the client with the largest."""
    lines = [line for line in RunDirectory.open(folder).lines("ledger.jsonl") if "epsilon" in line][-4:]
    found = []
    for line in lines:
        accountant = PLDAccountant(value_discretization_interval=1e-3)
        event = PoissonSampledDpEvent(line["sampling_rate"], GaussianDpEvent(line["noise_multiplier"]))
        found.append(accountant.compose(event, 2 * line["uses"]).get_epsilon(line["delta"]))
    return max(found)


# ------------------------------------------------------------------------------------------------ composition in runs


def test_two_private_runs_in_a_row_state_what_both_cost(first, second):
    assert stated(second)["epsilon"]["pld"] == pytest.approx(composed_twice(second), rel=3e-3)
    assert stated(second)["epsilon"]["pld"] > 1.3 * stated(first)["epsilon"]["pld"] > 1


def test_what_the_run_alone_costs_is_told_beside(first, second):
    assert stated(second)["epsilon_of_this_run"] == stated(first)["epsilon"]


def test_a_start_trained_without_privacy_leaves_nothing_private(after_plain):
    card = stated(after_plain)
    assert (card["epsilon"]["pld"], card["not_private"]) == (None, "its start was trained without privacy")


def test_an_adapter_of_unknown_origin_leaves_nothing_private(folder, first):
    shutil.copytree(first / "adapter", folder / "bare")
    (folder / "bare" / "lineage.json").unlink()
    card = stated(finished(folder, "after_bare", folder / "bare", **PRIVATE))
    assert card["not_private"] == "nothing is known of how its start was trained"


def test_vouched_for_other_data_leave_the_runs_own_epsilon(folder, first):
    bare = folder / "vouched"
    shutil.copytree(first / "adapter", bare)
    (bare / "lineage.json").unlink()
    card = stated(finished(folder, "elsewhere", bare, **PRIVATE | {"start_data": "other"}))
    # Nothing is known of whose data it saw, so that not even vouching names an owner.
    assert card["epsilon"] == stated(first)["epsilon"]


def test_vouching_does_not_cover_data_that_are_the_same(folder, plain):
    card = stated(finished(folder, "vouched_wrongly", plain / "adapter", **PRIVATE | {"start_data": "other"}))
    assert card["not_private"] == "its start was trained without privacy"


def test_a_run_from_the_base_states_no_start(first):
    assert "epsilon_of_this_run" not in stated(first) and "not_private" not in stated(first)


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_an_exported_result_carries_its_lineage_into_the_next_run(folder, first, form):
    export(first, folder / f"out_{form}", form=form)
    changes = PRIVATE | {"seed": 2}
    if form == "merged":
        changes["model"] = {"name": "causal_lm", "path": str(folder / "out_merged"), "lora_rank": 2, "lora_alpha": 4.0}
    start = folder / "out_adapter" if form == "adapter" else None
    card = stated(finished(folder, f"after_{form}", start, **changes))
    # Without hashes of data the uses of the client who fares worst count for each: never less than the truth.
    assert card["epsilon"]["pld"] >= composed_twice(folder / f"after_{form}") * (1 - 3e-3)


def test_the_same_run_file_over_and_over_counts_each_time(folder):
    """The start lies at one path, and what lies there is the last result."""
    start, epsilons = folder / "loop_start", []
    for number in range(3):
        done = finished(folder, f"loop{number}", start if number else None, **PRIVATE | {"rounds": 1})
        shutil.copytree(done / "adapter", start, dirs_exist_ok=True)
        epsilons.append(stated(done)["epsilon"]["pld"])
    assert len(read_lineage(start)) == 3 and epsilons == sorted(set(epsilons))


@pytest.mark.parametrize("unit", ["example", "client", "client_local"])
def test_a_run_that_goes_on_draws_noise_and_samples_of_its_own(folder, monkeypatch, unit):
    """The same noise twice would fall out of the difference of both results."""
    drawn, draw = [], rng.named_normal
    monkeypatch.setattr(rng, "named_normal", lambda *names: drawn.append(names) or draw(*names))
    changes = PRIVATE | {"rounds": 1, "privacy": PRIVATE["privacy"] | {"unit": unit}}
    done = finished(folder, f"noise_{unit}", **changes)
    n_first = len(drawn)
    finished(folder, f"more_noise_{unit}", done / "adapter", **changes)
    assert n_first > 0 < len(drawn) - n_first and not {*drawn[:n_first]} & {*drawn[n_first:]}


def test_vouching_for_clients_does_not_cover_data_that_are_the_same(folder, plain):
    changes = PRIVATE | {"privacy": PRIVATE["privacy"] | {"unit": "client"}, "start_data": "other", "rounds": 1}
    card = stated(finished(folder, "clients_after_plain", plain / "adapter", **changes))
    assert card["not_private"] == "its start was trained without privacy"


def test_clients_regrouped_are_not_the_clients_that_were_protected(folder):
    changes = PRIVATE | {"privacy": PRIVATE["privacy"] | {"unit": "client"}, "rounds": 1}
    start = finished(folder, "four_clients", **changes) / "adapter"
    again = stated(finished(folder, "four_again", start, **changes))
    by_kind = small_table(folder)["data"] | {"tags": {"client": "kind"}}
    regrouped = stated(finished(folder, "three_of_four", start, **changes | {"data": by_kind}))
    assert again["epsilon"]["pld"] > again["epsilon_of_this_run"]["pld"]
    assert "several may be one client here" in regrouped["not_private"]


# --------------------------------------------------------------------------------------------------- files and cards


def whole_run(folder, name, path, **changes):
    return finished(
        folder, name, **PRIVATE | {"rounds": 1, "model": {"name": "causal_lm", "path": str(path)} | changes}
    )


def test_an_adapter_of_unknown_origin_stays_so_when_it_is_merged(folder, first):
    shutil.copytree(first / "adapter", folder / "stray")
    (folder / "stray" / "lineage.json").unlink()
    export(folder / "stray", folder / "stray_merged", form="merged")
    card = stated(whole_run(folder, "after_stray", folder / "stray_merged", lora_rank=2))
    assert card["not_private"] == "nothing is known of how its start was trained"


@pytest.mark.parametrize("rank", [0, 2])
def test_a_whole_model_that_lost_its_lineage_is_no_base_from_outside(folder, rank):
    done = whole_run(folder, f"whole{rank}", folder / "model", lora_rank=rank)
    export(done, folder / f"bare_whole{rank}", form="merged")
    (folder / f"bare_whole{rank}" / "lineage.json").unlink()
    card = stated(whole_run(folder, f"after_whole{rank}", folder / f"bare_whole{rank}", lora_rank=2))
    assert card["not_private"] == "nothing is known of how its start was trained"


@pytest.mark.parametrize("change", [{"trainings": []}, {"stated": {}}])
def test_edited_lineage_is_refused(folder, first, change):
    target = folder / f"edited_{next(iter(change))}"
    shutil.copytree(first / "adapter", target)
    record = json.loads((target / "lineage.json").read_text()) | change
    (target / "lineage.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match="its hash does not fit"):
        read_lineage(target)


def test_a_run_from_a_trained_start_goes_on_where_it_was_stopped(folder, first):
    table = small_table(folder, **PRIVATE)
    table["model"] = table["model"] | {"adapter": str(first / "adapter")}
    run, folders = fedloom.runs.tuning.read_run(table), (folder / "unbroken", folder / "broken")
    list(fedloom.start(run, folders[0]))
    events = fedloom.start(run, folders[1])
    next(event for event in events if isinstance(event, RoundDone))
    events.close()
    list(fedloom.resume(folders[1])[1])
    one, other = ((path / "adapter" / "adapter_model.safetensors").read_bytes() for path in folders)
    assert one == other and stated(folders[0]) == stated(folders[1])


def test_card_of_an_export_says_that_its_start_was_not_private(folder, after_plain):
    export(after_plain, folder / "card")
    text = (folder / "card" / "README.md").read_text()
    assert "NOT PRIVATE: its start was trained without privacy (epsilon infinite; of this run alone epsilon" in text


def test_card_of_an_export_states_both_runs(folder, second):
    export(second, folder / "card2")
    text = (folder / "card2" / "README.md").read_text()
    assert f"| Epsilon (pld) | {stated(second)['epsilon']['pld']:.3f} |" in text and "those that trained what" in text


def test_show_says_that_the_start_was_not_private(after_plain):
    found = fedloom.results.show.privacy_line(fedloom.results.outcome.outcome(RunDirectory.open(after_plain)))
    assert "NOT PRIVATE: its start was trained without privacy" in found


def test_lineage_tells_each_clients_data_uses_and_mechanism(second):
    lineage = read_lineage(second / "adapter")
    assert [training.mechanism for training in lineage] == ["gaussian", "gaussian"]
    assert [{owner.client: owner.uses for owner in training.owners} for training in lineage] == [
        {f"client{k}": 4 for k in range(4)}
    ] * 2
    assert all(len(owner.data) == 64 for training in lineage for owner in training.owners)


def test_exports_of_private_runs_name_nobody_and_no_data(folder, second):
    export(second, folder / "unnamed")
    owners = [owner for training in read_lineage(folder / "unnamed") for owner in training.owners]
    assert {(owner.client, owner.data) for owner in owners} == {("", "")}
    assert "accounts_sha256" in stated(second) and "accounts_sha256" not in read_stated(folder / "unnamed")


def test_checkpoint_carries_the_lineage(second):
    state = json.loads(max((second / "checkpoints").glob("*/state.json")).read_text())
    assert [training["mechanism"] for training in state["values"]["start"]] == ["gaussian"]


def test_lineage_of_other_weights_is_refused(folder, first, plain):
    shutil.copytree(plain / "adapter", folder / "swapped")
    shutil.copy(first / "adapter" / "lineage.json", folder / "swapped" / "lineage.json")
    with pytest.raises(ModelError, match=r"lineage\.json: tells of other weights"):
        finished(folder, "from_swapped", folder / "swapped", **PRIVATE)


@pytest.mark.parametrize("text", ["", "{}", '{"weights": "", "trainings": [1], "stated": {}}'])
def test_damaged_lineage_is_refused(folder, first, text):
    target = folder / f"damaged{len(text)}"
    shutil.copytree(first / "adapter", target)
    (target / "lineage.json").write_text(text)
    with pytest.raises(ModelError, match=r"lineage\.json: is not what fedloom wrote"):
        read_lineage(target)


def test_resuming_from_a_start_that_tells_another_lineage_is_refused(folder, first, plain):
    shutil.copytree(first / "adapter", folder / "start")
    table = small_table(folder, **PRIVATE)
    table["model"] = table["model"] | {"adapter": str(folder / "start")}
    events = fedloom.start(fedloom.runs.tuning.read_run(table), folder / "stopped")
    next(event for event in events if isinstance(event, RoundDone))
    events.close()
    (folder / "start" / "lineage.json").unlink()
    with pytest.raises(RunError, match="the model that the run starts from tells another lineage"):
        list(fedloom.resume(folder / "stopped")[1])


def test_export_of_a_private_run_whose_adapter_lost_its_lineage_is_refused(folder, first):
    shutil.copytree(first, folder / "lost")
    (folder / "lost" / "adapter" / "lineage.json").unlink()
    with pytest.raises(RunError, match=r"lineage\.json is missing or states another privacy"):
        export(folder / "lost", folder / "lost_out")


# -------------------------------------------------------------------------------------------------------- by the rules

OWNERS = (Owner("a", "1" * 64, 0.1, 1.0, 1e-5, 10), Owner("b", "2" * 64, 0.5, 2.0, 1e-5, 30))
TRAINING = Training("t", "gaussian", "example", OWNERS)


def origin(*data, trainings=(TRAINING,), unit="example", start_data="same"):
    return origin_of(trainings, mechanism="gaussian", unit=unit, data={*data}, start_data=start_data)


def test_same_data_count_with_their_own_uses():
    assert origin("2" * 64).before == (Earlier("example", 0.5, 2.0, 30),)


def test_unknown_data_count_with_the_worst_of_every_owner():
    assert origin("3" * 64).before == (Earlier("example", 0.5, 1.0, 30),)


ROWS = Training("t", "gaussian", "client", OWNERS)


def test_clients_that_were_protected_as_they_are_count_with_their_uses():
    found = origin("1" * 64, "2" * 64, trainings=[ROWS], unit="client")
    assert found.before == (Earlier("client", 0.5, 1.0, 30),)


@pytest.mark.parametrize("data", [["3" * 64], ["1" * 64, "3" * 64]])
def test_a_client_that_may_be_several_of_those_protected_has_no_epsilon(data):
    assert "several may be one client here" in origin(*data, trainings=[ROWS], unit="client").broken


def test_that_no_client_is_several_can_be_vouched_for():
    found = origin("3" * 64, trainings=[ROWS], unit="client", start_data="same_clients")
    assert found.before == (Earlier("client", 0.5, 1.0, 30),)


def test_an_example_lay_with_one_of_the_clients_that_were_protected():
    assert origin("3" * 64, trainings=[ROWS]).before == (Earlier("client", 0.5, 1.0, 30),)


@pytest.mark.parametrize(("data", "uses"), [(["3" * 64], []), (["1" * 64, "3" * 64], [10])])
def test_vouching_for_other_data_leaves_out_all_but_equal_hashes(data, uses):
    found = origin(*data, trainings=[ROWS], unit="client", start_data="other")
    assert [one.uses for one in found.before] == uses


def test_a_mechanism_that_nobody_accounts_for_is_no_privacy():
    assert "under 'other'" in origin("1" * 64, trainings=[Training("t", "other", "example", OWNERS)]).broken


def test_unknown_start_outweighs_what_is_known():
    broken = origin("1" * 64, trainings=[TRAINING, UNKNOWN]).broken
    assert broken == "nothing is known of how its start was trained"


def test_a_training_met_twice_counts_once():
    assert joined((TRAINING,), (TRAINING, UNKNOWN)) == (TRAINING, UNKNOWN)


def test_without_privacy_there_is_nothing_to_hide_in_a_lineage():
    plain = Training("t", "none", "nothing", (Owner("a", "1" * 64),))
    assert unnamed((plain, TRAINING)) == (
        plain,
        Training(
            "t", "gaussian", "example", tuple(Owner("", "", o.rate, o.noise_multiplier, 1e-5, o.uses) for o in OWNERS)
        ),
    )


BUDGET = PrivacyBudget(0.2, 1.5, 1e-3, 100)


def test_nothing_before_changes_nothing():
    assert Gaussian().spent(BUDGET, 10, [Earlier("example", 0.2, 1.0, 0)]) == Gaussian().spent(BUDGET, 10)


def test_the_same_uses_before_count_as_twice_as_many():
    found, expected = Gaussian().spent(BUDGET, 10, [Earlier("example", 0.2, 1.5, 10)]), Gaussian().spent(BUDGET, 20)
    assert found == pytest.approx(expected, rel=2e-3)


def test_other_uses_before_compose_as_the_librarys_accountant_says():
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(PoissonSampledDpEvent(0.2, GaussianDpEvent(1.5)), 10)
    accountant.compose(PoissonSampledDpEvent(0.4, GaussianDpEvent(3.0)), 7)
    found = Gaussian().spent(BUDGET, 10, [Earlier("example", 0.4, 3.0, 7)])
    assert found["pld"] == pytest.approx(accountant.get_epsilon(1e-3), rel=3e-3)


def test_rows_of_clients_before_bound_an_example_by_half_their_noise_without_sampling():
    found = Gaussian().spent(BUDGET, 0, [Earlier("client", 0.1, 6.0, 4)])
    assert found == Gaussian().spent(PrivacyBudget(1.0, 3.0, 1e-3, 9), 4)


@pytest.mark.parametrize(
    ("unit", "earlier"), [("client", "example"), ("client", "client_local"), ("client_local", "client")]
)
def test_units_that_do_not_bound_this_one_leave_no_epsilon(unit, earlier):
    assert math.isinf(Gaussian(unit=unit).spent(BUDGET, 1, [Earlier(earlier, 0.1, 5.0, 1)])["pld"])
