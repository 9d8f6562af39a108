"""The lockstep of a split round by itself: order, exactly once, who is late, and a server that comes back."""

import json
import threading
from concurrent.futures import wait
from dataclasses import replace

import pytest
import torch

from fedloom.base.errors import DataError, RunError
from fedloom.split.journal import Place, message_from, message_head
from fedloom.split.lockstep import Lockstep, Missed, NotYet
from fedloom.split.messages import Message

CLIENTS = ("a", "b", "c")


class Body:
    """A server that answers with what came, one more, and remembers what it was asked."""

    recomputes = False

    def __init__(self, refuses=()):
        self.batches, self.steps, self.refuses = [], [], set(refuses)

    def _answers(self, kind, arrived, micro):
        self.batches.append((kind, tuple(one.client for one in arrived), arrived[0].step, micro))
        refused = {one.client: "found NaN" for one in arrived if one.client in self.refuses}
        kept = [one for one in arrived if one.client not in refused]
        return [replace(one, kind=kind, packet=one.packet + 1, weight=0.0) for one in kept], refused

    def forward(self, arrived, seeds, lent, micro):
        self.seeds = seeds
        return self._answers("BODY", arrived, micro)

    def backward(self, arrived, seeds, micro, *, last):
        self.last = last
        return (*self._answers("BACK", arrived, micro), {})

    def step(self, lr):
        self.steps.append(lr)


def message(client, step=0, micro=0, kind="FWD", value=7):
    packet = torch.full((4,), value, dtype=torch.uint8)
    return Message(kind, client, step, micro, packet, (2, 1), 1.5 if kind == "GRAD" else 0.0)


def begun(folder, body=None, **more):
    settings = {"clients": CLIENTS, "seed": (1, 0), "n_micro": 2, "lr": 0.5} | more
    return Lockstep(body=body or Body(), folder=folder / "round", **settings)


def sent(lockstep, *messages):
    futures = [lockstep.submit(one) for one in messages]
    wait(futures, timeout=20)
    return [future.result(timeout=0) for future in futures]


def course(n_steps):
    """The batches of some steps of two micro-batches."""
    return [(step, micro, kind) for step in range(n_steps) for micro in range(2) for kind in ("FWD", "GRAD")]


def walked(lockstep, batches, clients=CLIENTS):
    return [sent(lockstep, *(message(client, *at) for client in clients)) for at in batches]


def test_batches_are_of_all_clients_in_their_order_and_steps_follow_the_last_one(tmp_path):
    body = Body()
    lockstep = begun(tmp_path, body)
    for step, micro, kind in course(2):
        answers = sent(lockstep, *(message(client, step, micro, kind) for client in ("c", "a", "b")))
        assert {one.kind for one in answers} == {"BODY" if kind == "FWD" else "BACK"}
        assert [one.client for one in answers] == ["c", "a", "b"]
    assert {clients for _, clients, _, _ in body.batches} == {CLIENTS} and body.steps == [0.5, 0.5]
    assert body.seeds["b"] == (1, 0, "b", 1, 1, "dropout")
    lockstep.close()
    assert not (tmp_path / "round").exists()


def test_who_hangs_up_while_it_waits_takes_the_answer_from_nobody(tmp_path):
    """A connection that ends cancels what it waits for; the batch is computed, and the client meets it later."""
    lockstep = begun(tmp_path)
    early = lockstep.submit(message("a"))
    assert not early.cancel()
    assert len(sent(lockstep, message("b"), message("c"))) == 2
    assert early.result(timeout=20).kind == sent(lockstep, message("a"))[0].kind == "BODY"
    assert len(walked(lockstep, course(1)[1:])) == 3
    lockstep.close()


def test_a_message_that_comes_again_while_its_batch_is_computed_gets_the_same_answer(tmp_path):
    """Whoever has lost its connection sends it once more; it must not wait for a batch that was made."""
    begun_it, go_on = threading.Event(), threading.Event()

    class Slow(Body):
        def forward(self, arrived, seeds, lent, micro):
            begun_it.set()
            go_on.wait(20)
            return super().forward(arrived, seeds, lent, micro)

    body = Slow()
    lockstep = begun(tmp_path, body)
    first = [lockstep.submit(message(client)) for client in CLIENTS]
    begun_it.wait(20)
    again = lockstep.submit(message("b"))
    with pytest.raises(DataError, match="another message than the one that came before"):
        lockstep.submit(message("c", value=9))
    go_on.set()
    assert again.result(timeout=20) is first[1].result(timeout=20)
    walked(lockstep, course(1)[1:])
    assert len(body.batches) == 4


def test_a_batch_waits_for_the_last_client(tmp_path):
    lockstep = begun(tmp_path)
    early = [lockstep.submit(message(client)) for client in ("a", "b")]
    assert not wait(early, timeout=0.3).done
    sent(lockstep, message("c"))
    assert [future.result(timeout=20).kind for future in early] == ["BODY", "BODY"]


def test_the_same_message_again_gets_the_stored_answer_and_makes_no_second_step(tmp_path):
    body = Body()
    lockstep = begun(tmp_path, body)
    first = walked(lockstep, course(1))
    again = [sent(lockstep, message("b", *at)) for at in course(1)]
    assert [torch.equal(one.packet, told[1].packet) for (one,), told in zip(again, first, strict=True)] == [True] * 4
    assert len(body.batches) == 4 and body.steps == [0.5]


def test_the_same_message_twice_before_the_batch_is_one(tmp_path):
    body = Body()
    lockstep = begun(tmp_path, body)
    twice = [lockstep.submit(message("a")) for _ in range(2)]
    sent(lockstep, message("b"), message("c"))
    assert twice[0] is twice[1] and len(body.batches) == 1


TAMPERED = {
    "other bytes for an answered step": (message("a", value=8), "another message was answered already"),
    "other lengths": (replace(message("a"), lengths=(3,)), "another message was answered already"),
    "a step ahead": (message("a", step=1), "is ahead of the round"),
    "a gradient before its states": (message("a", micro=1, kind="GRAD"), "is ahead of the round"),
    "a stranger": (message("z"), "is of no client"),
    "a micro-batch too many": (message("a", micro=2), "is of no client or micro-batch"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_what_is_not_of_the_rounds_course_is_refused_and_changes_nothing(tmp_path, case):
    odd, text = TAMPERED[case]
    body = Body()
    lockstep = begun(tmp_path, body)
    walked(lockstep, course(1)[:1])
    with pytest.raises(DataError, match=text):
        lockstep.submit(odd)
    assert len(body.batches) == 1
    walked(lockstep, course(1)[1:])
    assert len(body.batches) == 4


def test_another_message_than_the_one_that_waits_is_refused(tmp_path):
    lockstep = begun(tmp_path)
    lockstep.submit(message("a"))
    with pytest.raises(DataError, match="another message than the one that came before"):
        lockstep.submit(message("a", value=9))


def test_who_is_late_is_out_of_the_step_the_others_go_on_and_it_joins_at_the_next(tmp_path):
    body, lost, joined = Body(), [], []
    told = {"lost": lambda *told: lost.append(told), "joined": joined.append}
    lockstep = begun(tmp_path, body, deadline_s=0.3, **told)
    walked(lockstep, course(1)[:2])
    walked(lockstep, course(1)[2:], clients=("a", "c"))
    assert lost == [("b", "sent nothing for step 0 within 0.3 s")]
    assert body.batches[-1] == ("BACK", ("a", "c"), 0, 1) and body.steps == [0.5]
    with pytest.raises(Missed, match="the step was made without this client, which may join at step 2") as missed:
        lockstep.submit(message("b", 0, 1))
    assert missed.value.step == 2 and not joined
    walked(lockstep, course(2)[4:7], clients=("a", "c"))
    early = lockstep.submit(message("b", 2))  # the others are at step 1 still
    walked(lockstep, course(2)[7:], clients=("a", "c"))
    sent(lockstep, message("a", 2), message("c", 2))
    assert early.result(timeout=20).kind == "BODY" and joined == ["b"]
    assert body.batches[-1] == ("BODY", CLIENTS, 2, 0)
    with pytest.raises(Missed, match="may join at step 2"):  # started anew, it is led past what it missed
        lockstep.submit(message("b", 1))
    assert sent(lockstep, message("b", 2))[0].kind == "BODY"


def test_a_client_alone_that_was_late_joins_at_the_next_step_all_the_same(tmp_path):
    lockstep = begun(tmp_path, clients=("a", "b"), deadline_s=0.2)
    sent(lockstep, message("a"))
    with pytest.raises(Missed, match="may join at step 1"):
        lockstep.submit(message("b"))
    joining = lockstep.submit(message("b", 1))
    lockstep.leave("a")  # nobody is left of the step
    assert joining.result(timeout=20).kind == "BODY"


def pairs(n_steps):
    """The batches of some steps of two micro-batches that are under way together."""
    return [(step, micro, kind) for step in range(n_steps) for kind in ("FWD", "GRAD") for micro in range(2)]


def test_two_micro_batches_in_flight_are_taken_as_they_come_and_computed_in_one_order(tmp_path):
    body = Body()
    lockstep = begun(tmp_path, body, in_flight=2)
    futures = [lockstep.submit(message(client, 0, micro)) for micro in (1, 0) for client in ("c", "b", "a")]
    assert all(future.result(timeout=20).kind == "BODY" for future in futures)
    walked(lockstep, pairs(2)[2:])
    kinds = [(step, micro, {"BODY": "FWD", "BACK": "GRAD"}[kind]) for kind, _, step, micro in body.batches]
    assert kinds == pairs(2) and body.steps == [0.5, 0.5]
    with pytest.raises(DataError, match="is ahead of the round"):
        lockstep.submit(message("a", 2, 0, "GRAD"))


@pytest.mark.parametrize("after", [1, 3, 5, 6])
def test_a_server_that_comes_back_with_two_in_flight_goes_on_in_the_same_order(tmp_path, after):
    first, second = Body(), Body()
    lockstep = begun(tmp_path, first, in_flight=2)
    walked(lockstep, pairs(2)[:after])
    stopped(lockstep)
    again = begun(tmp_path, second, in_flight=2)
    assert second.batches == first.batches and second.steps == first.steps
    walked(again, pairs(2)[after:])
    assert second.steps == [0.5, 0.5]


def test_a_window_lets_who_came_go_on_and_the_step_is_one_for_all(tmp_path):
    body = Body()
    body.recomputes = True
    lockstep = begun(tmp_path, body, window_s=0.05, n_micro=1)
    early = [lockstep.submit(message(client)) for client in ("a", "b")]
    assert [one.result(timeout=20).kind for one in early] == ["BODY", "BODY"]
    ahead = lockstep.submit(message("a", 0, 0, "GRAD"))  # the round is at FWD still
    sent(lockstep, message("c"))
    assert ahead.result(timeout=20).kind == "BACK" and body.steps == []
    sent(lockstep, message("b", 0, 0, "GRAD"), message("c", 0, 0, "GRAD"))
    sent(lockstep, *(message(client, 1) for client in CLIENTS))
    assert body.steps == [0.5]
    assert [clients for _, clients, _, _ in body.batches[:3]] == [("a", "b"), ("c",), ("a",)]
    stopped(lockstep)
    again = Body()
    again.recomputes = True
    begun(tmp_path, again, window_s=0.05, n_micro=1)
    assert again.batches == body.batches and again.steps == [0.5]


def test_who_has_reported_is_waited_for_no_more(tmp_path):
    body = Body()
    lockstep = begun(tmp_path, body)
    walked(lockstep, course(1))
    early = [lockstep.submit(message(client, 1)) for client in ("a", "b")]
    lockstep.leave("c")
    assert [one.result(timeout=20).client for one in early] == ["a", "b"]


def test_a_refused_client_is_told_and_out(tmp_path):
    lost = []
    lockstep = begun(tmp_path, Body(refuses={"b"}), lost=lambda *told: lost.append(told))
    futures = {client: lockstep.submit(message(client)) for client in CLIENTS}
    with pytest.raises(DataError, match="found NaN"):
        futures["b"].result(timeout=20)
    assert futures["a"].result(timeout=20).kind == "BODY" and lost == [("b", "found NaN")]
    walked(lockstep, course(1)[1:], clients=("a", "c"))


@pytest.mark.parametrize("after", range(1, 9))
def test_a_server_that_comes_back_makes_the_same_batches_once_more(tmp_path, after):
    first, second = Body(), Body()
    lockstep = begun(tmp_path, first)
    told = walked(lockstep, course(2)[:after])
    stopped(lockstep)
    again = begun(tmp_path, second)
    assert second.batches == first.batches and second.steps == first.steps
    for at, answers in zip(course(2), told, strict=False):  # a client that was started anew meets its own answers
        assert torch.equal(sent(again, message("b", *at))[0].packet, answers[1].packet)
    walked(again, course(2)[after:])
    assert second.steps == [0.5, 0.5]


def stopped(lockstep):
    """As if killed: no more work, and what lies in the folder stays."""
    with lockstep._turn:
        lockstep._over = True
        lockstep._turn.notify_all()
    lockstep._worker.join(timeout=20)


@pytest.mark.parametrize("cut", [1, 7, 9, 40, 100])
def test_a_torn_entry_is_cut_off_and_its_batch_is_made_when_it_comes_again(tmp_path, cut):
    lockstep = begun(tmp_path)
    walked(lockstep, course(1)[:1])
    whole = (tmp_path / "round" / "came.bin").read_bytes()
    walked(lockstep, course(1)[1:2])
    stopped(lockstep)
    both = (tmp_path / "round" / "came.bin").read_bytes()
    (tmp_path / "round" / "came.bin").write_bytes(both[: len(whole) + cut])
    for path in (tmp_path / "round").glob("000000-000-back-*.answer"):
        path.unlink()
    body = Body()
    again = begun(tmp_path, body)
    assert len(body.batches) == 1 and (tmp_path / "round" / "came.bin").read_bytes() == whole
    walked(again, course(1)[1:])
    assert len(body.batches) == 4


def test_a_damaged_answer_is_named(tmp_path):
    lockstep = begun(tmp_path)
    walked(lockstep, course(1)[:1])
    (path,) = (tmp_path / "round").glob("000000-000-body-1.answer")
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(RunError, match="is not what this server wrote"):
        lockstep.submit(message("b"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_that_fails_says_so_and_who_waits_may_ask_again(tmp_path):
    class Failing(Body):
        def forward(self, arrived, seeds, lent, micro):
            raise MemoryError("no room")

    broken = threading.Event()
    lockstep = begun(tmp_path, Failing(), broken=lambda reason: broken.set())
    futures = [lockstep.submit(message(client)) for client in CLIENTS]
    assert broken.wait(timeout=20)
    for future in futures:
        with pytest.raises(NotYet):
            future.result(timeout=20)
    with pytest.raises(NotYet, match="makes no steps now"):
        lockstep.submit(message("a"))
    lockstep._worker.join(timeout=20)


def test_places_follow_one_another():
    place, found = Place(0, 0, back=False), []
    for _ in range(5):
        found.append((place.step, place.micro, place.back))
        place = place.following(2)
    assert found == [(0, 0, False), (0, 0, True), (0, 1, False), (0, 1, True), (1, 0, False)]


@pytest.mark.parametrize("told", [{"kind": "GRAD", "weight": 1.5}, {"prompts": (1, 0)}], ids=["weight", "prompts"])
def test_a_head_gives_the_message_back(told):
    one = replace(message("a", 3, 1), **told)
    head = json.loads(json.dumps(message_head(one)))
    assert vars_of(message_from(head, one.packet)) == vars_of(one)


def vars_of(one):
    return [one.kind, one.client, one.step, one.micro, one.packet.tolist(), one.lengths, one.weight, one.prompts]


WRONG = {
    "another kind": {"phase": "EVAL"},
    "a step that is a text": {"step": "3"},
    "a step that is a truth": {"step": True},
    "a step below zero": {"step": -1},
    "lengths that are none": {"lengths": None},
    "a length that is no whole number": {"lengths": [1.5]},
    "a prompt that is a text": {"prompts": ["1"]},
    "more prompts than sequences": {"prompts": [1, 1, 1]},
    "a weight that is a number": {"weight": 1.0},
    "a client that is none": {"client": 3},
    "very many lengths": {"lengths": [1] * 70_000},
}


@pytest.mark.parametrize("case", WRONG)
def test_heads_that_are_none_are_refused(case):
    with pytest.raises(DataError, match="found a message that is none"):
        message_from(message_head(message("a")) | WRONG[case], message("a").packet)


@pytest.mark.parametrize("recomputes", [False, True])
def test_gradients_of_kept_graphs_come_as_one_also_with_a_window_and_without_who_is_late(tmp_path, recomputes):
    """A graph has one backward pass; else what is missing of it would be waited for in vain."""
    body, lost = Body(), []
    body.recomputes = recomputes
    lockstep = begun(tmp_path, body, window_s=0.05, deadline_s=0.4, n_micro=1, lost=lambda *told: lost.append(told))
    sent(lockstep, *(message(client) for client in CLIENTS))
    sent(lockstep, *(message(client, 0, 0, "GRAD") for client in ("a", "b")))
    assert body.last is not recomputes
    sent(lockstep, *(message(client, 1) for client in ("a", "b")))
    assert lost == [("c", "sent nothing for step 0 within 0.4 s")] and body.steps == [0.5]
