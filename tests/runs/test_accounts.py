"""Records of privacy: what is missing or contradicts another is refused, wherever it is read."""

import json
import shutil

import pytest

import fedloom
from fedloom.base.errors import RunError
from fedloom.results.outcome import outcome
from fedloom.results.show import privacy_line
from fedloom.runs.accounts import Spending, privacy_card, read_spending, stated_privacy, write_spending
from fedloom.runs.directory import RunDirectory
from fedloom.runs.execute import RoundDone
from fedloom.runs.export import export
from support.small_runs import small_run

SYSTEM = {
    "name": "gaussian",
    "noise": "system",
    "noise_multiplier": 1.0,
    "epsilon": 0.0,
    "delta": 1e-3,
}
CHANGES = {
    "rounds": 4,
    "checkpoint_every": 2,
    "weighting": "uniform",
    "evaluation": {"metrics": [], "resamples": 20, "holdout": 0.0},
}


def run_of(folder, **changes):
    return small_run(folder, **CHANGES | {"privacy": SYSTEM} | changes)


def stopped(folder, name, after, **changes):
    """The folder of a run that was stopped after so many rounds."""
    events, done = fedloom.start(run_of(folder, **changes), folder / name), 0
    for event in events:
        done += isinstance(event, RoundDone)
        if done == after:
            break
    events.close()
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("accounts")


@pytest.fixture(scope="module")
def whole(folder):
    list(fedloom.start(run_of(folder), folder / "whole"))
    return folder / "whole"


@pytest.fixture(scope="module")
def half(folder):
    """Stopped in its fourth round, the third of which no checkpoint holds."""
    return stopped(folder, "half", 3)


@pytest.fixture
def copy(tmp_path):
    def made(folder):
        return shutil.copytree(folder, tmp_path / folder.name)

    return made


def shown(folder):
    return outcome(RunDirectory.open(folder)).privacy


@pytest.mark.parametrize("change", [{"sampling_rate": 0.01}, {"noise_multiplier": 9.0}, {"before": []}])
def test_an_edited_account_of_an_unfinished_run_is_refused(copy, half, change):
    """The card does not hold what these would lower once the rounds begun are added."""
    kept = copy(half)
    path = kept / "ledger.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    told = [line | change if "epsilon" in line else line for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in told))
    with pytest.raises(RunError, match="contradicts the accounts"):
        shown(kept)


def test_a_checkpoint_whose_counts_were_edited_is_refused(copy, half):
    kept = copy(half)
    path = max((kept / "checkpoints").glob("*/state.json"))
    state = json.loads(path.read_text())
    state["values"]["spent"] = dict.fromkeys(state["values"]["spent"], 0)
    path.write_text(json.dumps(state))
    with pytest.raises(RunError, match="it differs from what was saved"):
        list(fedloom.resume(kept)[1])


def test_counts_of_uses_never_fall(copy, half):
    directory = RunDirectory.open(copy(half))
    before = read_spending(directory).uses
    write_spending(directory, dict.fromkeys(before, 0))
    assert read_spending(directory).uses == before


def test_killed_between_accounts_and_card_a_run_states_the_accounts(copy, folder):
    kept = copy(stopped(folder, "measured", 3, evaluation=CHANGES["evaluation"] | {"every": 1}))
    whole, lines = shown(kept), [line for line in RunDirectory.open(kept).lines("ledger.jsonl") if "epsilon" in line]
    earlier = [line for line in lines if line["round"] == lines[-1]["round"] - 1]
    (kept / "privacy.json").write_text(json.dumps(privacy_card("gaussian", "example", earlier)))
    assert shown(kept) == whole


def test_cut_back_to_its_checkpoint_a_run_can_be_shown(copy, folder):
    kept = copy(stopped(folder, "cut", 3, evaluation=CHANGES["evaluation"] | {"every": 1}))
    before = shown(kept)
    events = fedloom.resume(kept)[1]
    next(events)  # what is said before the first step; the ledger is that of two rounds, of which three were begun
    events.close()
    assert shown(kept)["epsilon"]["pld"] >= before["epsilon"]["pld"]


def test_card_has_the_largest_epsilon_by_each_accountant():
    line = {"settings": {}, "delta": 1e-3, "noise_multiplier": 1.0, "uses": 1}
    lines = [line | {"epsilon": {"pld": 2.0, "rdp": 3.0}}, line | {"epsilon": {"pld": 1.0, "rdp": 4.0}}]
    assert privacy_card("gaussian", "example", lines)["epsilon"] == {"pld": 2.0, "rdp": 4.0}


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# ---------------------------------------------------------------------------------------------------- resuming a run


def test_lost_rounds_are_counted(half, copy):
    folder = copy(half)
    list(fedloom.resume(folder)[1])
    assert shown(folder)["uses"] == 2 * (4 + 1)  # two steps a round, the third round twice


@pytest.mark.parametrize("text", [None, "", "{}", '{"id": "", "uses": {}, "sha256": ""}'])
def test_missing_or_emptied_spending_is_refused(half, copy, text):
    folder = copy(half)
    (folder / "spending.json").unlink()
    if text is not None:
        (folder / "spending.json").write_text(text)
    with pytest.raises(RunError, match=r"spending\.json: .* without it no epsilon can be stated"):
        list(fedloom.resume(folder)[1])


def test_spending_that_was_edited_is_refused(half, copy):
    folder = copy(half)
    edit(folder / "spending.json", uses={f"client{k}": 1 for k in range(4)})
    with pytest.raises(RunError, match="its hash does not fit"):
        list(fedloom.resume(folder)[1])


def test_spending_of_an_earlier_moment_is_refused(half, copy):
    folder = copy(half)
    (folder / "spending.json").write_text(Spending("", dict.fromkeys(read_spending(RunDirectory(folder)).uses, 1)).text)
    with pytest.raises(RunError, match="counts fewer uses of the clients' data than the checkpoint"):
        list(fedloom.resume(folder)[1])


@pytest.mark.parametrize("noise", ["system", "seeded"])
def test_deleted_checkpoints_do_not_refill_the_budget(folder, tmp_path, noise):
    out = stopped(folder, f"refilled_{noise}", 3, privacy=SYSTEM | {"noise": noise})
    shutil.rmtree(out / "checkpoints")
    before = (out / "ledger.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"checkpoints: missing, but spending\.json says that rounds were begun"):
        list(fedloom.resume(out)[1])
    assert (out / "ledger.jsonl").read_bytes() == before


def test_a_run_stopped_before_its_first_round_goes_on(folder):
    events = fedloom.start(run_of(folder), folder / "early")
    next(events)
    events.close()
    list(fedloom.resume(folder / "early")[1])
    assert shown(folder / "early")["uses"] == 8


# -------------------------------------------------------------------------------------------------- showing a run


def test_what_an_unfinished_run_has_begun_is_stated(half):
    assert (shown(half)["uses"], json.loads((half / "privacy.json").read_text())["uses"]) == (6, 0)


def test_the_epsilon_of_an_unfinished_run_is_that_of_the_rounds_begun(half, folder):
    list(fedloom.start(run_of(folder, rounds=3), folder / "three"))
    assert shown(half)["epsilon"] == shown(folder / "three")["epsilon"]


def test_edited_card_is_refused(whole, copy):
    folder = copy(whole)
    edit(folder / "privacy.json", epsilon={"pld": 0.1, "rdp": 0.1})
    with pytest.raises(RunError, match=r"privacy\.json: contradicts the accounts in ledger\.jsonl"):
        shown(folder)


@pytest.mark.parametrize("name", ["privacy.json", "spending.json"])
def test_missing_record_is_refused(whole, copy, name):
    folder = copy(whole)
    (folder / name).unlink()
    with pytest.raises(RunError, match=rf"{name}: missing"):
        shown(folder)


def test_ledger_without_its_accounts_is_refused(whole, copy):
    folder = copy(whole)
    lines = (folder / "ledger.jsonl").read_text().splitlines()
    (folder / "ledger.jsonl").write_text("".join(f"{line}\n" for line in lines if '"epsilon"' not in line))
    with pytest.raises(RunError, match="contradicts the accounts"):
        shown(folder)


def test_card_in_a_run_without_privacy_is_refused(folder, whole):
    out = folder / "plain"
    list(fedloom.start(run_of(folder, privacy={"name": "none"}, rounds=1), out))
    shutil.copy(whole / "privacy.json", out)
    with pytest.raises(RunError, match=r"run\.toml says that the run is not private"):
        shown(out)


def test_finished_run_with_fewer_uses_accounted_than_begun_is_refused(whole, copy):
    folder = copy(whole)
    uses = {client: count + 1 for client, count in read_spending(RunDirectory(folder)).uses.items()}
    (folder / "spending.json").write_text(Spending("", uses).text)
    with pytest.raises(RunError, match=r"contradicts spending\.json, which counts other uses"):
        shown(folder)


def test_export_of_a_run_with_an_edited_card_is_refused(whole, copy, tmp_path):
    folder = copy(whole)
    edit(folder / "privacy.json", uses=1)
    with pytest.raises(RunError, match="contradicts the accounts"):
        export(folder, tmp_path / "out")


def test_line_of_a_private_run_names_what_is_not_covered(whole):
    assert "base model and held-out scores not covered" in privacy_line(outcome(RunDirectory.open(whole)))


def test_finished_run_without_checkpoints_is_shown(whole, copy):
    folder = copy(whole)
    shutil.rmtree(folder / "checkpoints")
    table = {"privacy": {"name": "gaussian", "unit": "example"}}
    assert stated_privacy(RunDirectory.open(folder), table) == json.loads((folder / "privacy.json").read_text())
