"""What a node counts of its clients' privacy: its own journal decides, before anything is trained."""

import threading

import pytest

from fedloom.base.errors import ConfigError, RunError, TrainingError
from fedloom.network import accounting
from fedloom.network.accounting import NodeAccounts, epsilon_of
from fedloom.network.hands import Hands
from fedloom.network.journal import Journal
from fedloom.network.manifest import Manifest
from fedloom.network.policy import PrivacyPolicy
from support.federation import federation

pytestmark = pytest.mark.timeout(120)
PRIVATE = {
    "privacy": {
        "name": "gaussian",
        "unit": "example",
        "clip": 1.0,
        "noise_multiplier": 1.0,
        "epsilon": 0.0,
        "delta": 1e-3,
        "noise": "system",
    },
    "weighting": "uniform",
    "rounds": 2,
}
OWNERS = {"north": ("client0", "client1"), "south": ("client2",)}


def made(folder, **privacy):
    found = federation(folder, OWNERS, **PRIVATE)
    for name in OWNERS:
        found.write_policy(name, privacy={"unit": "example", "max_epsilon": 1e6} | privacy)
    return found


def work_of(found):
    manifest = Manifest.parsed(next((found.folder / "north" / "approved").glob("*.json")).read_text())
    return Hands(found.node("north")).work(manifest)["client0"]


def journal_of(found, name="north"):
    (run,) = (found.folder / name / "runs").glob("*")
    return Journal(run)


def test_every_step_is_counted_and_the_ledger_says_what_it_cost(tmp_path):
    found = made(tmp_path)
    found.to_the_end(tmp_path / "apart")
    assert journal_of(found).uses() == {"client0": 4, "client1": 4}
    reports = [line for line in found.node("north").ledger.records() if line["kind"] == "report"]
    budget, plan = work_of(found).plan.budgets["client0"], work_of(found).plan
    last = [line for line in reports if line["client"] == "client0"][-1]
    assert (last["uses"], last["clip"], last["noise_multiplier"]) == (4, 1.0, 1.0)
    assert last["epsilon"] == pytest.approx(epsilon_of(plan, budget, 4)) and last["epsilon"] > reports[0]["epsilon"]
    server = (tmp_path / "apart" / "ledger.jsonl").read_text()
    assert "sampling_rate" not in server and "epsilon" not in server  # they tell how many examples there are


def test_a_kill_after_the_entry_counts_as_a_use(tmp_path, monkeypatch):
    found = made(tmp_path)
    before, killed = NodeAccounts.before, []

    class Killed(BaseException):
        pass

    def dying(self, run, client, work, journal):
        told = before(self, run, client, work, journal)
        if client == "client2" and not killed:
            killed.append(client)
            raise Killed
        return told

    monkeypatch.setattr(accounting.NodeAccounts, "before", dying)
    found.to_the_end_with_deaths(tmp_path / "apart", Killed)
    assert killed == ["client2"] and journal_of(found, "south").uses() == {"client2": 6}


def test_nothing_is_trained_beyond_the_policys_epsilon(tmp_path):
    found = made(tmp_path)
    plan, budget = work_of(found).plan, work_of(found).plan.budgets["client0"]
    one, two = epsilon_of(plan, budget, 2), epsilon_of(plan, budget, 4)
    accounts = NodeAccounts(tmp_path / "node", PrivacyPolicy(max_epsilon=(one + two) / 2))
    journal = Journal(tmp_path / "node" / "runs" / "ab")
    spent, told = accounts.before("ab", "client0", work_of(found), journal)
    assert spent == 0 and told["epsilon"] == pytest.approx(one) and journal.uses() == {"client0": 2}
    with pytest.raises(ConfigError, match=r"privacy\.max_epsilon: this round would bring client 'client0' to"):
        accounts.before("ab", "client0", work_of(found), journal)
    assert journal.uses() == {"client0": 2}


def test_runs_on_the_same_data_add_up(tmp_path):
    found = made(tmp_path)
    one = epsilon_of(work_of(found).plan, work_of(found).plan.budgets["client0"], 2)
    accounts = NodeAccounts(tmp_path / "node", PrivacyPolicy(max_epsilon=2.5 * one))
    for run, total in (("ab", one), ("cd", 2 * one)):
        journal = Journal(tmp_path / "node" / "runs" / run)
        _, told = accounts.before(run, "client0", work_of(found), journal)
        assert told["epsilon"] == pytest.approx(total) and told["delta"] == pytest.approx(1e-3 * total / one)
    with pytest.raises(ConfigError, match="of it from other runs"):
        accounts.before("ef", "client0", work_of(found), Journal(tmp_path / "node" / "runs" / "ef"))


def test_counts_that_are_gone_are_not_zero(tmp_path):
    found = made(tmp_path)
    accounts = NodeAccounts(tmp_path / "node", PrivacyPolicy(max_epsilon=1e9))
    journal = Journal(tmp_path / "node" / "runs" / "ab")
    accounts.before("ab", "client0", work_of(found), journal)
    answers = tmp_path / "node" / "runs" / "ab" / "answers" / "client0"
    answers.mkdir(parents=True)
    (answers / "000000.json").write_text("{}")
    (tmp_path / "node" / "runs" / "ab" / "uses.json").unlink()
    with pytest.raises(RunError, match=r"uses\.json: missing, but rounds of client 'client0' were answered"):
        accounts.before("ab", "client0", work_of(found), journal)


@pytest.mark.slow
def test_a_training_that_fails_is_not_tried_and_counted_again(tmp_path):
    local = {"lr": 1e38, "steps": 2, "batch": 3}
    found = federation(tmp_path, OWNERS, min_clients=3, deployment={"deadline_s": 8.0}, local=local, **PRIVATE)
    for name in OWNERS:
        found.write_policy(name, privacy={"unit": "example", "max_epsilon": 1e6})
    ready, ended = threading.Event(), []

    def serving():
        with pytest.raises(TrainingError, match="not finite"):
            list(found.serve(tmp_path / "apart", ready=ready))
        ended.append(True)

    def refused():
        return [line for line in found.node("north").ledger.records() if line["kind"] == "refused"]

    with found.at_work(ready):
        server = threading.Thread(target=serving, daemon=True)
        server.start()
        server.join(timeout=250)
    assert ended and {line["client"] for line in refused()} == {"client0", "client1"} and len(refused()) == 2
    assert journal_of(found).uses() == {"client0": 2, "client1": 2}
