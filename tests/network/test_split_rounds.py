"""Split rounds between machines: the model of one process, whoever is killed; states and gradients alone travel."""

import shutil
import threading
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from fedloom.base.errors import ConfigError, DataError, RunError
from fedloom.network import channel, steps
from fedloom.network.frames import Frame
from fedloom.network.hands import Hands
from fedloom.network.manifest import Manifest
from fedloom.network.review import review
from fedloom.network.split_desk import SplitDesk
from fedloom.split import lockstep as lockstep_module
from fedloom.split.lockstep import Lockstep
from support.federation import federation
from support.models import model_folder
from support.resuming import adapters, logs, run_to_the_end
from support.small_runs import write_records

pytestmark = pytest.mark.timeout(180)
OWNERS = {"north": ("client0",), "south": ("client1",), "west": ("client2",)}
SPLIT = {
    "protocol": {"name": "split", "wire": "float32"},
    "local": {"lr": 0.02, "steps": 3, "batch": 3, "accumulation": 2},
    "rounds": 2,
}


def split_federation(folder, **changes):
    model_folder(folder / "model", num_hidden_layers=4)
    write_records(folder / "data.jsonl", clients=3)
    policy = {"split": True} | changes.pop("policy", {})
    return federation(folder, OWNERS, policy=policy, **(SPLIT | changes))


def trained(folder):
    (path,) = (folder / "adapter").glob("*.safetensors")
    return load_file(path)


def near(one, other, *, bound=2e-4):
    """Rows of one process pass in one batch, those of nodes alone: sums differ in their last digits."""
    left, right = trained(one), trained(other)
    assert left.keys() == right.keys()
    largest = max(float(tensor.abs().max()) for tensor in right.values())
    assert max(float((left[name] - right[name]).abs().max()) for name in left) <= bound * largest


@pytest.mark.parametrize("kind", [{}, {"prefix": 3, "attends": "prefix_lm"}], ids=["factors", "prefix, both ways"])
def test_a_split_run_between_machines_is_that_of_one_process(tmp_path, kind):
    model = {"name": "causal_lm", "path": str(tmp_path / "model"), "lora_rank": 2, **kind}
    made = split_federation(tmp_path, model=model)
    made.to_the_end(tmp_path / "apart")
    run_to_the_end(made.run(), tmp_path / "one place")
    near(tmp_path / "apart", tmp_path / "one place")
    moved = [
        name for name, tensor in trained(tmp_path / "apart").items() if "lora_B" in name and tensor.abs().max() > 0
    ]
    assert {name.split(".layers.")[1].split(".")[0] for name in moved} == {"0", "1", "2", "3"}
    assert not (tmp_path / "apart" / "steps").exists() or not list((tmp_path / "apart" / "steps").iterdir())


def test_two_micro_batches_in_flight_end_with_the_same_bytes(tmp_path):
    made = split_federation(tmp_path)
    made.to_the_end(tmp_path / "one")
    (tmp_path / "again").mkdir()
    anew = split_federation(tmp_path / "again", protocol=SPLIT["protocol"] | {"in_flight": 2})
    anew.to_the_end(tmp_path / "two")
    assert adapters(tmp_path / "one") == adapters(tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [{"window_ms": 3.0, "recompute": True}, {"window_ms": 3.0}, {"tokens": 40}], ids=str)
def test_batches_by_windows_and_bounds_end_near_the_same(tmp_path, kinds):
    made = split_federation(tmp_path, protocol=SPLIT["protocol"] | kinds)
    made.to_the_end(tmp_path / "apart")
    run_to_the_end(made.run(), tmp_path / "one place")
    near(tmp_path / "apart", tmp_path / "one place")


def test_both_ledgers_list_every_kind_of_message_with_its_bytes(tmp_path):
    made = split_federation(tmp_path)
    made.to_the_end(tmp_path / "apart")
    run_to_the_end(made.run(), tmp_path / "one place")

    def told(folder):
        kinds = ("FWD", "BODY", "GRAD", "BACK")
        lines = [line for line in logs(folder)["ledger.jsonl"] if any(kind in str(line) for kind in kinds)]
        return sorted((line["round"], line["client"], line["what"], line["bytes"]) for line in lines)

    assert told(tmp_path / "apart") == told(tmp_path / "one place") != []
    report = next(line for line in made.node("north").ledger.records() if line["kind"] == "report")
    assert report["bytes_FWD"] > 0 and report["bytes_BACK"] > 0


def test_client_parts_may_be_merged_under_masks(tmp_path):
    """T7 of the specification between machines: the rows at a round's end, of which the server sees the sum alone."""
    masked = {"aggregator": {"name": "secure_sum", "clip": 0.25}, "weighting": "uniform", "rounds": 1}
    made = split_federation(tmp_path, **masked)
    made.to_the_end(tmp_path / "apart")
    run_to_the_end(made.run(), tmp_path / "one place")
    near(tmp_path / "apart", tmp_path / "one place")
    page = "\n".join(review(made.node("north"), approved(made)))
    assert "numbers under masks" in page and "states, gradients and lengths of texts" in page


class Killed(BaseException):
    """A process that is gone."""


@pytest.mark.parametrize(
    ("kind", "when"),
    [
        ("GRAD", "after it was answered"),
        pytest.param("GRAD", "before it is sent", marks=pytest.mark.slow),
        pytest.param("FWD", "before it is sent", marks=pytest.mark.slow),
        pytest.param("FWD", "after it was answered", marks=pytest.mark.slow),
    ],
)
def test_a_node_that_is_killed_in_a_step_ends_with_the_same_bytes(tmp_path, monkeypatch, kind, when):
    made = split_federation(tmp_path)
    made.to_the_end(tmp_path / "unbroken")
    deaths, exchange = [], channel.Link.exchange

    def dying(self, job, message):
        mine = message.client == "client1" and message.kind == kind and message.step == 1 and not deaths
        if mine and when == "before it is sent":
            deaths.append(message)
            raise Killed
        answer = exchange(self, job, message)
        if mine:
            deaths.append(message)
            raise Killed
        return answer

    monkeypatch.setattr(channel.Link, "exchange", dying)
    (tmp_path / "again").mkdir()
    anew = split_federation(tmp_path / "again")
    assert anew.to_the_end_with_deaths(tmp_path / "broken", Killed) == ["south"]
    assert adapters(tmp_path / "broken") == adapters(tmp_path / "unbroken")


def test_a_node_whose_states_are_of_another_type_is_refused(tmp_path):
    """`auto` may find another type on another machine, or on another part of the weights."""
    made = split_federation(tmp_path)
    made.write_node("north", model={"path": str(tmp_path / "model"), "dtype": "bfloat16"})
    with pytest.raises(ConfigError, match=r"model \(states\): found bfloat16, the run has float32"):
        Hands(made.node("north")).work(approved(made))


NOISY = {"name": "split", "wire": "float32", "noise": 0.5, "bucket": 16}


def first_states(made):
    """What a node would send first, and how its secret lies in its folder."""
    hands, sent = Hands(made.node("north")), []

    def over(message):
        sent.append(message)
        raise Killed

    hands.over = {"client0": over}
    with pytest.raises(Killed):
        hands.dry_round(approved(made))
    return sent[0], made.folder / "north" / "secret"


def approved(made):
    return Manifest.parsed(next((made.folder / "north" / "approved").glob("*.json")).read_text())


def test_the_noise_of_a_node_is_drawn_by_a_secret_that_stays_there_and_is_in_its_review(tmp_path):
    """Else the server, which knows the run's seed, could take it off again."""
    made = split_federation(tmp_path, protocol=NOISY)
    first, secret = first_states(made)
    again, _ = first_states(made)
    assert torch.equal(first.packet, again.packet)  # a round that is made again sends the same bytes
    assert all(length % 16 == 0 for length in first.lengths)
    assert secret.stat().st_mode & 0o777 == 0o600
    assert secret.read_text() not in str(approved(made))
    secret.unlink()
    other, _ = first_states(made)
    assert not torch.equal(first.packet, other.packet)
    page = "\n".join(review(made.node("north"), approved(made)))
    assert "Gaussian noise of 0.5 times their root mean square, by a secret of this node:\n  empirical, no" in page


def test_a_node_that_is_killed_sends_the_same_noise_again(tmp_path, monkeypatch):
    made = split_federation(tmp_path, protocol=NOISY, rounds=1)
    made.to_the_end(tmp_path / "unbroken")
    (tmp_path / "again").mkdir()
    anew, deaths, exchange = split_federation(tmp_path / "again", protocol=NOISY, rounds=1), [], channel.Link.exchange
    for name in OWNERS:
        shutil.copy(made.folder / name / "secret", anew.folder / name / "secret")

    def dying(self, job, message):
        answer = exchange(self, job, message)
        if message.client == "client1" and message.kind == "GRAD" and message.step == 1 and not deaths:
            deaths.append(message)
            raise Killed
        return answer

    monkeypatch.setattr(channel.Link, "exchange", dying)
    assert anew.to_the_end_with_deaths(tmp_path / "broken", Killed) == ["south"]
    assert adapters(tmp_path / "broken") == adapters(tmp_path / "unbroken")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "point",
    [
        "before it is computed",
        pytest.param("before it is written down", marks=pytest.mark.slow),
        pytest.param("after it was computed", marks=pytest.mark.slow),
    ],
)
def test_a_server_that_is_killed_in_a_step_ends_with_the_same_bytes(tmp_path, monkeypatch, point):
    made = split_federation(tmp_path)
    made.to_the_end(tmp_path / "unbroken")
    anew_folder = tmp_path / "again"
    anew_folder.mkdir()
    anew = split_federation(anew_folder)
    deaths, dead = [], threading.Event()
    append, compute = lockstep_module.append, Lockstep._compute

    def dying_append(log, place, messages):
        if point == "before it is written down" and place.step == 1 and place.back and not deaths:
            deaths.append(place)
            dead.set()
            raise SystemExit
        append(log, place, messages)

    def dying_compute(self, place, messages):
        mine = place.step == 1 and place.back and not deaths
        if mine and point == "before it is computed":
            deaths.append(place)
            dead.set()
            raise SystemExit
        found = compute(self, place, messages)
        if mine and point == "after it was computed":
            deaths.append(place)
            dead.set()
            raise SystemExit
        return found

    monkeypatch.setattr(lockstep_module, "append", dying_append)
    monkeypatch.setattr(Lockstep, "_compute", dying_compute)
    monkeypatch.setattr(SplitDesk, "_look", looking(dead), raising=False)
    ready = threading.Event()
    with anew.at_work(ready):
        with pytest.raises(Killed):
            list(anew.serve(tmp_path / "broken", ready=ready))
        assert deaths
        dead.clear()
        list(anew.serve(tmp_path / "broken", going_on=True))
    assert adapters(tmp_path / "broken") == adapters(tmp_path / "unbroken")


def looking(dead):
    """The run's own thread dies with the one that computes."""
    from fedloom.network.desk import Desk

    look = Desk._look

    def looked(self):
        if dead.is_set():
            raise Killed
        look(self)

    return looked


@pytest.mark.slow
def test_a_client_that_is_late_is_out_of_the_step_and_back_in_the_next(tmp_path, monkeypatch):
    made = split_federation(tmp_path, min_clients=2, deployment={"deadline_s": 4.0})
    exchange, slow, back = channel.Link.exchange, [], threading.Event()

    def late(self, job, message):
        if message.client == "client2" and message.step == 1 and not slow:
            slow.append(message)
            threading.Event().wait(5.0)
            try:
                return exchange(self, job, message)
            finally:
                back.set()
        if slow and message.step == 2:  # the others go on to the next step once the late one is there
            back.wait(20)
        return exchange(self, job, message)

    monkeypatch.setattr(channel.Link, "exchange", late)
    made.to_the_end(tmp_path / "apart")
    lines = [line for line in logs(tmp_path / "apart")["ledger.jsonl"] if line.get("bytes") and line["round"] == 0]
    sent = {client: sum(line["bytes"] for line in lines if line["client"] == client) for client in made.clients}
    assert sent.keys() == {"client0", "client1", "client2"} and sent["client2"] < max(sent.values())
    reports = [one for one in made.node("west").ledger.records() if one["kind"] == "report"]
    assert reports[0]["bytes_FWD"] < reports[1]["bytes_FWD"]


def test_nothing_that_travels_holds_tokens_targets_or_losses(tmp_path, monkeypatch):
    """T1 and T2 of the specification on the captured wire: heads of known keys, packets as long as tokens are."""
    made = split_federation(tmp_path, rounds=1)
    heads, sizes, decoded = [], [], Frame.decoded.__func__

    def seen(cls, data):
        frame = decoded(cls, data)
        if frame.header.get("kind") == "step":
            heads.append(dict(frame.header))
            sizes.append(len(frame.body))
        return frame

    monkeypatch.setattr(Frame, "decoded", classmethod(seen))
    made.to_the_end(tmp_path / "apart")
    known = {"kind", "job", "digest", "size", "phase", "client", "step", "micro", "lengths", "weight"}
    assert heads and {key for head in heads for key in head} == known
    assert {head["phase"] for head in heads} == {"FWD", "BODY", "GRAD", "BACK"}
    width = 32
    for head, size in zip(heads, sizes, strict=True):
        assert size == head["size"] == 4 * width * sum(head["lengths"])


def test_the_review_says_what_leaves_in_every_step_and_a_policy_decides(tmp_path):
    made = split_federation(tmp_path)
    manifest = approved(made)
    page = "\n".join(review(made.node("north"), manifest))
    assert "in each of 3 steps of a round: states, gradients and lengths of texts, up to" in page
    settings = manifest.settings | {"model": manifest.settings["model"] | {"attends": "prefix_lm"}}
    both = "\n".join(review(made.node("north"), replace(manifest, table=manifest.table | {"settings": settings})))
    assert "states, gradients and lengths of texts and of their prompts, up to" in both
    assert "The server could still reconstruct text from activations" in page
    made.write_policy("north", split=False)
    assert "refuses: split: found protocol 'split'" in "\n".join(review(made.node("north"), manifest))


def crowded_federation(folder, owners, **changes):
    """The same clients at other nodes."""
    model_folder(folder / "model", num_hidden_layers=4)
    write_records(folder / "data.jsonl", clients=3)
    return federation(folder, owners, policy={"split": True}, **(SPLIT | changes))


@pytest.mark.parametrize(
    "owners",
    [{"north": ("client0", "client1"), "south": ("client2",)}, {"north": ("client0", "client1", "client2")}],
    ids=["two and one", "three"],
)
def test_clients_of_one_node_end_with_the_bytes_of_a_node_each(tmp_path, owners):
    made = crowded_federation(tmp_path / "crowded", owners)
    made.to_the_end(tmp_path / "together")
    split_federation(tmp_path / "each").to_the_end(tmp_path / "apart")
    assert adapters(tmp_path / "together") == adapters(tmp_path / "apart") != {}
    reports = [line["client"] for line in made.node("north").ledger.records() if line["kind"] == "report"]
    assert sorted(reports) == sorted(2 * owners["north"])


def test_a_client_that_cannot_train_ends_its_node_and_not_the_wait_of_its_neighbour(tmp_path, monkeypatch):
    """A full disk in one thread: the node ends at once with that reason, started anew it meets its own answers."""
    owners = {"north": ("client0", "client1"), "south": ("client2",)}
    made = crowded_federation(tmp_path / "crowded", owners)
    exchange, full = channel.Link.exchange, []

    def failing(self, job, message):
        if message.client == "client1" and message.step == 1 and not full:
            full.append(message)
            raise RunError("the disk is full")
        return exchange(self, job, message)

    monkeypatch.setattr(channel.Link, "exchange", failing)
    assert made.to_the_end_with_deaths(tmp_path / "together", RunError) == ["north"]
    split_federation(tmp_path / "each").to_the_end(tmp_path / "apart")
    assert adapters(tmp_path / "together") == adapters(tmp_path / "apart")


def test_over_flower_a_split_run_is_refused(tmp_path):
    from fedloom.network.flower import FlowerPlace

    made = split_federation(tmp_path)
    with pytest.raises(ConfigError, match="protocol: found 'split' over Flower, which hands messages on every few"):
        list(made.serve(tmp_path / "apart", flower=FlowerPlace("127.0.0.1:1", made.node("north").key)))


def test_several_cuts_are_refused(tmp_path):
    made = split_federation(tmp_path)
    made.table["protocol"] = {"name": "split", "cuts": ["1:1", "2:1"]}
    with pytest.raises(ConfigError, match=r"protocol.cuts: found 1:1, 2:1 between machines"):
        list(made.serve(tmp_path / "apart"))


def message(kind="FWD", client="client0", step=0, micro=0, n_bytes=8):
    from fedloom.split.messages import Message

    return Message(kind, client, step, micro, torch.zeros(n_bytes, dtype=torch.uint8), (2,), 0.0)


def test_an_answer_to_another_question_is_refused():
    head = next(iter(steps.in_frames(message("BODY")))).header
    assert steps.answer_to(message(), head, bytes(8)).kind == "BODY"
    for other in (message(step=1), message(client="client1"), message("GRAD"), message(micro=1)):
        with pytest.raises(DataError, match="for an answer"):
            steps.answer_to(other, head, bytes(8))
    with pytest.raises(DataError, match="not those that were promised"):
        steps.answer_to(message(), head, bytes(7) + b"x")


def test_a_message_is_sent_again_while_the_server_is_away(monkeypatch):
    from fedloom.network.link import Unreachable

    monkeypatch.setattr(steps, "_PAUSE_S", 0.0)
    calls = []

    def exchange(one):
        calls.append(one)
        if len(calls) < 4:
            raise Unreachable("gone")
        return one

    assert steps.patiently(exchange, message()).kind == "FWD" and len(calls) == 4
    monkeypatch.setattr(steps, "_PATIENCE_S", -1.0)
    calls.clear()
    with pytest.raises(Unreachable):
        steps.patiently(exchange, message())


# ------------------------------------------------------------------------------------------- weights in parts


def parted_federation(folder, cut=None, **changes):
    """The run file names the server's part, each node's file the client's two: nobody has the whole model."""
    from fedloom.split.cut import Cut
    from fedloom.split.partition import partition

    made = split_federation(folder, **changes)
    partition(made.table["model"]["path"], cut or Cut(1, 1), folder / "parts")
    for name, parts in (("server", ("middle",)), ("client", ("input", "output"))):
        for part in parts:
            shutil.copytree(folder / "parts" / part, folder / f"{name}_parts" / part)
    whole = made.table["model"]["path"]
    made.table["model"] = made.table["model"] | {"path": str(folder / "server_parts")}
    write_node = made.write_node

    def write_own(name, **more):
        write_node(name, model={"path": str(folder / "client_parts")}, **more)

    made.write_node = write_own
    return made, whole


def test_nobody_needs_the_whole_model(tmp_path):
    """The manifest is the one of the whole model, and so are the bytes of the adapter."""
    made, whole = parted_federation(tmp_path)
    made.to_the_end(tmp_path / "apart")
    other = tmp_path / "whole"
    other.mkdir()
    split_federation(other).to_the_end(other / "apart")
    assert trained_bytes(tmp_path / "apart") == trained_bytes(other / "apart")
    import pathlib

    pathlib.Path(whole, "model.safetensors").unlink()  # nothing of it is read any more


def trained_bytes(folder):
    return {name: tensor.numpy().tobytes() for name, tensor in trained(folder).items()}


def test_a_part_that_was_cut_elsewhere_is_refused_by_name(tmp_path):
    from fedloom.base.errors import ModelError
    from fedloom.models.causal_lm import CausalLM
    from fedloom.split.carrier import SplitSettings
    from fedloom.split.cut import Cut
    from fedloom.split.ends import Ends

    made, _ = parted_federation(tmp_path, Cut(1, 2))
    client = CausalLM(path=str(tmp_path / "client_parts"), lora_rank=2).build(seed=0, device=torch.device("cpu"))
    assert not client.whole and Ends.of(client, Cut(1, 2)).names
    with pytest.raises(ModelError, match=r"split: blocks 0 to 1 need 'model\.layers\.1\."):
        Ends.of(client, SplitSettings(cuts=(Cut(2, 1),)).one_cut())
    with pytest.raises(ConfigError, match=r"model\.path: found parts of a model"):
        run_to_the_end(made.run(), tmp_path / "one place")


@pytest.mark.parametrize("what", ["a tensor", "another model"])
def test_parts_that_differ_from_their_manifest_are_refused(tmp_path, what):
    import json

    from fedloom.base.errors import ModelError
    from fedloom.models.checkpoint import Checkpoint

    parted_federation(tmp_path)
    folder = tmp_path / "client_parts" / "output"
    if what == "a tensor":
        data = bytearray((folder / "part.safetensors").read_bytes())
        data[-1] ^= 1
        (folder / "part.safetensors").write_bytes(data)
    else:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"base_id": "another"}))
    with pytest.raises(ModelError, match=r"differs from its manifest|both sides need parts of one partition"):
        Checkpoint.find(str(tmp_path / "client_parts")).verify()


def test_the_middle_reads_no_text(tmp_path):
    from fedloom.base.errors import ModelError
    from fedloom.models.causal_lm import CausalLM

    parted_federation(tmp_path)
    middle = CausalLM(path=str(tmp_path / "server_parts"), lora_rank=2).build(seed=0, device=torch.device("cpu"))
    with pytest.raises(ModelError, match="this part of the model has no tokenizer"):
        middle.tokenizer.encode("w3")
