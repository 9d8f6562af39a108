"""Secure sums between machines: the bytes of one process, whoever is lost on the way, and no row at the server."""

import json
import threading

import pytest

from fedloom.base.errors import ConfigError, DataError
from fedloom.network import partaking
from fedloom.network.hands import Hands
from fedloom.network.journal import Journal
from fedloom.network.summing import Summing
from fedloom.secure_sum.collector import Collector
from fedloom.secure_sum.terms import SecureSumError
from support.federation import federation
from support.resuming import adapters, logs, run_to_the_end

pytestmark = pytest.mark.timeout(120)
SECURE = {"aggregator": {"name": "secure_sum", "clip": 0.5}, "weighting": "uniform", "rounds": 2}


def rounds_of(folder):
    return [line for line in logs(folder)["ledger.jsonl"] if "bytes" in line]


def same(one, other):
    assert adapters(one) == adapters(other) and adapters(one)
    assert rounds_of(one) == rounds_of(other)


CASES = {
    "alike": {},
    "weights under the mask": {
        "aggregator": {"name": "secure_sum", "clip": 0.5, "largest_weight": 20.0},
        "weighting": "samples",
    },
    "controls": {"rule": "scaffold", "clients_per_round": 3},
}


@pytest.mark.parametrize("case", CASES)
def test_sums_between_machines_are_those_of_one_process(tmp_path, case):
    made = federation(tmp_path, policy={"secure_sum": "required"}, **(SECURE | CASES[case]))
    made.to_the_end(tmp_path / "apart")
    run_to_the_end(made.run(), tmp_path / "one place")
    same(tmp_path / "apart", tmp_path / "one place")
    for name in made.owners:
        told = made.node(name).ledger.records()
        assert all(line["bytes"] == 0 for line in told if line["kind"] == "report")
        assert {line["bytes"] for line in told if line["kind"] == "masked row"} == {
            line["bytes"] for line in rounds_of(tmp_path / "apart")
        }


NOISY = {
    "aggregator": {"name": "secure_sum", "clip": 1.0, "norm": 0.5, "bits": 12, "colluding": 0.0},
    "privacy": {"name": "skellam", "epsilon": 4.0, "delta": 1e-5},
    "weighting": "uniform",
    "rounds": 2,
}
MAY = {"unit": "client_sum", "max_epsilon": 4.0, "seeded_noise": True}


def noisy_federation(folder, **changes):
    return federation(folder, policy={"secure_sum": "required", "privacy": MAY}, **(NOISY | changes))


def test_sums_with_noise_of_the_clients_are_those_of_one_process_and_cost_what_both_say(tmp_path):
    made = noisy_federation(tmp_path)
    made.to_the_end(tmp_path / "apart")
    run_to_the_end(made.run(), tmp_path / "one place")
    same(tmp_path / "apart", tmp_path / "one place")
    cards = [json.loads((tmp_path / where / "privacy.json").read_text()) for where in ("apart", "one place")]
    assert cards[0] == cards[1] and 3.9 < cards[0]["epsilon"]["rdp"] <= 4.0
    last = [line for line in made.node("south").ledger.records() if line["kind"] == "report"][-1]
    assert (last["epsilon"], last["clip"], last["uses"]) == (cards[0]["epsilon"]["rdp"], 0.5, 2)


def test_an_attempt_that_is_made_again_has_the_same_noise(tmp_path, monkeypatch):
    """Else two sums over the same rows would average the noise away."""
    made = noisy_federation(tmp_path, rounds=1, privacy=NOISY["privacy"] | {"noise": "system"})
    masked, failed = {}, []
    mask, total = partaking.Party.mask, Summing.total

    def seen(self, box, row_S):
        masked.setdefault(self.name, []).append(row_S.tobytes())
        return mask(self, box, row_S)

    def failing(self):
        found = total(self)
        if not failed:
            failed.append(True)
            raise SecureSumError("said to have failed")
        return found

    monkeypatch.setattr(partaking.Party, "mask", seen)
    monkeypatch.setattr(Summing, "total", failing)
    made.to_the_end(tmp_path / "apart")
    assert {name: (len(rows), len(set(rows))) for name, rows in masked.items()} == dict.fromkeys(made.clients, (2, 1))


def test_a_sum_of_so_few_that_its_noise_would_be_too_little_is_not_begun(tmp_path):
    made = noisy_federation(tmp_path, min_clients=3)
    work = Hands(made.node("north")).work(approved(made))["client0"]
    one = partaking.Partaking("client0", work, "ab", sign=lambda said: said, journal=Journal(tmp_path / "j"))
    with pytest.raises(SecureSumError, match="found 2 clients, allowed are 3 or more"):
        one.advertise(0, 1, ["client0", "client1"], lambda *_: True, size=10, least=1)
    one.advertise(0, 1, ["client0", "client1", "client2"], lambda *_: True, size=10, least=1)


def test_the_review_says_whose_noise_it_is(tmp_path):
    from fedloom.network.review import review

    made = noisy_federation(tmp_path)
    page = "\n".join(review(made.node("north"), approved(made)))
    assert "unit client_sum, clip 0.5, noise" in page and "at delta 1e-05 after all rounds" in page
    assert "each of at least 4 honest clients adds a share, and a row by itself has too little" in page


def test_the_server_has_no_row_that_is_not_masked(tmp_path, monkeypatch):
    made = federation(tmp_path, **SECURE)
    seen = []
    take = Collector.take_row
    monkeypatch.setattr(Collector, "take_row", lambda self, row: (seen.append(row.row_S.copy()), take(self, row))[1])
    encoded = []
    encode = partaking.SecureSum.summand
    monkeypatch.setattr(
        partaking.SecureSum,
        "summand",
        lambda self, row_P, weight: (encoded.append(encode(self, row_P, weight)), encoded[-1])[1],
    )
    made.to_the_end(tmp_path / "apart")
    assert len(seen) == 8 and len(encoded) >= 8
    plain = {packet.numpy().tobytes() for packet in encoded}
    assert not plain & {row_S.tobytes() for row_S in seen}
    written = [path.read_bytes() for path in (tmp_path / "apart").rglob("*") if path.is_file()]
    assert not any(row in text for row in plain for text in written)


class Killed(BaseException):
    """A process that is gone."""


@pytest.mark.parametrize("phase", ["advertise", "share", "mask", "confirm", "unmask"])
def test_a_client_that_is_lost_in_a_phase_is_left_out_or_comes_back(tmp_path, monkeypatch, phase):
    """Its node is killed in that phase and started anew at once: its secrets are gone, its answers are not."""
    made = federation(tmp_path, min_clients=3, deployment={"deadline_s": 20.0}, **SECURE)
    deaths = []
    name = "advertise" if phase == "advertise" else "answer"
    method = getattr(partaking.Partaking, name)

    def dying(self, *given, **more):
        if self._client == "client2" and not deaths and (name == "advertise" or given[2] == phase):
            deaths.append(phase)
            raise Killed
        return method(self, *given, **more)

    monkeypatch.setattr(partaking.Partaking, name, dying)
    made.to_the_end_with_deaths(tmp_path / "apart", Killed)
    assert deaths == [phase]
    first = [line for line in rounds_of(tmp_path / "apart") if line["round"] == 0]
    gone = {line["client"] for line in first if line["what"].startswith("nothing")}
    assert gone <= {"client2"}
    absent = {0: gone}
    from fedloom.runs.directory import RunDirectory
    from fedloom.runs.execute import execute, run_files

    directory = RunDirectory.create(tmp_path / "one place", run_files(made.run(), ""))
    list(execute(made.run(), directory, absent=absent))
    assert adapters(tmp_path / "apart") == adapters(tmp_path / "one place")


def test_two_sums_over_other_clients_are_not_both_opened(tmp_path):
    journal = Journal(tmp_path)
    assert journal.summed_over("north", 3) is None
    journal.keep_opened("north", 3, ["north", "south"])
    assert Journal(tmp_path).summed_over("north", 3) == ["north", "south"] and journal.summed_over("north", 2) is None


def test_a_server_that_asks_for_a_second_sum_without_somebody_is_refused(tmp_path, monkeypatch):
    """All attempts but the last are said to have failed; the one after would leave a client out."""
    made = federation(tmp_path, min_clients=2, deployment={"deadline_s": 5.0}, **(SECURE | {"rounds": 1}))
    total = Summing.total
    calls = []

    def failing(self):
        calls.append(self.survivors)
        found = total(self)
        if len(calls) == 1:
            made_ready.came.discard("client3")
            raise SecureSumError("said to have failed")
        return found

    monkeypatch.setattr(Summing, "total", failing)
    from fedloom.network.hub import Hub

    attempted = Hub._attempted
    made_ready = None

    def without(self, now, rule, ready):
        nonlocal made_ready
        made_ready = now
        return attempted(self, now, rule, [one for one in ready if one in now.came])

    monkeypatch.setattr(Hub, "_attempted", without)
    ready = threading.Event()
    from fedloom.base.errors import TrainingError

    with made.at_work(ready), pytest.raises(TrainingError, match="no sum came about"):
        list(made.serve(tmp_path / "apart", ready=ready))
    told = [line["reason"] for name in made.owners for line in made.node(name).ledger.records() if "reason" in line]
    assert any("a sum with the same row was opened over other clients" in reason for reason in told)


def test_a_policy_of_more_clients_is_held_to_in_the_sum_itself(tmp_path):
    made = federation(tmp_path, min_clients=3, policy={"min_clients_per_round": 3}, **SECURE)
    work = Hands(made.node("north")).work(approved(made))["client0"]
    one = partaking.Partaking("client0", work, "ab", sign=lambda said: said, journal=Journal(tmp_path / "j"))

    def begun(*clients):
        return one.advertise(0, 1, clients, lambda *_: True, size=10, least=3)

    for clients in (["client0", "client1"], ["client1", "client2", "client3"], ["client0", "client1", "stranger"]):
        with pytest.raises(ConfigError, match="min_clients_per_round: found a sum of"):
            begun(*clients)
    begun("client0", "client1", "client2")
    with pytest.raises(DataError, match="was begun before; keys are used once"):
        begun("client0", "client1", "client2")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"3",
        b'{"clients": 3, "certificates": {}}',
        b'{"clients": ["a"]}',
        b'{"clients": [3], "certificates": {}}',
    ],
)
def test_who_takes_part_is_names_and_certificates(body):
    with pytest.raises(DataError, match="secure sum: "):
        partaking.partakers(body)


def approved(made):
    from fedloom.network.manifest import Manifest

    return Manifest.parsed(next((made.folder / "north" / "approved").glob("*.json")).read_text())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"weighting": "samples"}, "secure_sum: found weight"),
        ({"codec": "int8"}, "codec: found 'int8' with aggregator 'secure_sum'"),
        ({"aggregator": {"name": "secure_sum", "bits": 30}}, "aggregator.bits: found 30 with 4 clients a round"),
        (
            {"privacy": {"name": "gaussian", "unit": "client", "noise_multiplier": 1.0, "epsilon": 0.0}},
            "privacy: unit 'client' adds noise to a sum, found aggregator 'secure_sum'",
        ),
        ({"rule": "scaffold", "weighting": "samples"}, "weighting: found 'samples' with rule 'scaffold'"),
    ],
)
def test_what_a_sum_alone_cannot_do_is_refused(tmp_path, changes, text):
    from support.small_runs import small_run

    with pytest.raises((ConfigError, DataError), match=text):
        run_to_the_end(small_run(tmp_path, **(SECURE | changes)), tmp_path / "run")
