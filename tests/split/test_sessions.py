"""Answers through a server's sessions are those of the whole model, token by token, whatever is lost on the way."""

from dataclasses import replace

import pytest
import torch

from fedloom.base.errors import DataError, ModelError
from fedloom.contracts.evaluation import Sampling
from fedloom.models.decoder import complete, decode
from fedloom.models.generation import complete_tokens
from fedloom.split.answering import through_server
from fedloom.split.body import Middle
from fedloom.split.cut import Cut
from fedloom.split.ends import Ends
from fedloom.split.lockstep import NotYet
from fedloom.split.messages import Message
from fedloom.split.reading import Reading
from fedloom.split.sessions import Sessions
from fedloom.split.wire import WIRES
from support.split_models import examples, model

pytestmark = pytest.mark.slow

PROMPTS = [one.tokens_T.tolist() for one in examples(9, 4, 17, 6, 1)]
NEW = 12
FAMILIES = ["llama", "qwen2", "gpt2"]
KINDS = {
    **{name: {"architecture": name} for name in FAMILIES},
    "llama, bfloat16": {"settings": (("dtype", "bfloat16"),)},
    "llama, a prefix": {"settings": (("prefix", 3),)},
    "gpt2, a prefix alone": {"architecture": "gpt2", "settings": (("prefix", 3),), "rank": 0},
    "llama, prompts both ways": {"settings": (("attends", "prefix_lm"),)},
}
NOTHING = torch.zeros(0, dtype=torch.uint8)


class Place:
    """A server that may be killed between two messages, and what was sent to it."""

    def __init__(self, made, cut, wire="float32", **kinds):
        self.make = lambda: Sessions(Middle.of(made, [cut]), lambda _: made.trainable, WIRES[wire], **kinds)
        self.sessions, self.sent = self.make(), []
        self.model = through_server(Ends.of(made, cut), "c0", self.exchange, WIRES[wire], NEW)
        self.killed_at = ()

    def reader(self, prompts, *, read=False):
        """What reads prompts, which it may have read already."""
        reader = self.model.reads(self.model.trainable, prompts, 1)
        if read:
            reader.admit(prompts)
        return reader

    def exchange(self, messages):
        answers = []
        for one in messages:
            self.sent.append(one)
            if len(self.sent) in self.killed_at:
                self.sessions = self.make()
            answers.append(self.sessions.answer(one))
        return answers


def answers(made, prompts, *, slots=3):
    found = dict(decode(made, made.trainable, prompts, stop={2}, max_new_tokens=NEW, slots=slots))
    return [found[row] for row in range(len(prompts))]


@pytest.mark.parametrize("cut", [Cut(1, 1), Cut(2, 1), Cut(1, 3)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_the_whole_model(kind, cut):
    made = model(**KINDS[kind])
    place = Place(made, cut)
    assert answers(place.model, PROMPTS) == complete(made, made.trainable, PROMPTS, stop={2}, max_new_tokens=NEW)
    assert place.sessions.tokens == 0  # all were closed
    lengths = [one.n_tokens for one in place.sent if one.kind == "READ"]
    assert sorted(lengths, reverse=True)[: len(PROMPTS)] == sorted(map(len, PROMPTS), reverse=True)
    assert set(lengths) - set(map(len, PROMPTS)) <= {1}  # never a prompt again


@pytest.mark.parametrize("kind", ["llama", *(pytest.param(kind, marks=pytest.mark.slow) for kind in [*KINDS][1:])])
def test_a_server_that_is_killed_between_any_two_messages_changes_no_token(kind):
    made = model(**KINDS[kind])
    wanted = answers(made, PROMPTS[:2])
    unbroken = Place(made, Cut(1, 1))
    assert answers(unbroken.model, PROMPTS[:2]) == wanted
    for at in range(2, len(unbroken.sent), 3):
        place = Place(made, Cut(1, 1))
        place.killed_at = (at, at + 4)
        assert answers(place.model, PROMPTS[:2]) == wanted
    assert 0 in [one.micro for one in place.sent[place.killed_at[0] :] if one.kind == "READ"]  # read anew


def test_a_session_in_place_of_a_lost_one_goes_on_at_its_place():
    """Petals' issue 587: the new session would begin at 0 while the history is longer."""
    made = model()
    place = Place(made, Cut(1, 1))
    reader = place.reader(PROMPTS[:1], read=True)
    reader.step([5])
    place.sessions = place.make()
    found = reader.step([7])
    prompt, asked = place.sent[-2:]
    assert (prompt.micro, prompt.n_tokens, asked.micro, asked.n_tokens) == (0, len(PROMPTS[0]), len(PROMPTS[0]), 2)
    whole = Place(made, Cut(1, 1)).reader(PROMPTS[:1])
    assert torch.allclose(found, whole.admit([[*PROMPTS[0], 5, 7]]), atol=1e-5)
    behind = replace(asked, step=asked.step + 1, micro=len(PROMPTS[0]))
    with pytest.raises(DataError, match=rf"has read {len(PROMPTS[0]) + 2} tokens"):
        place.sessions.answer(behind)


def test_what_a_session_answered_last_is_answered_again_and_read_once():
    made = model()
    place = Place(made, Cut(1, 1))
    reader = place.reader(PROMPTS[:1], read=True)
    last = place.sent[-1]
    again = place.sessions.answer(last)
    assert torch.equal(again.packet, place.sessions.answer(last).packet)
    reader.step([5])  # its place is that behind one reading
    for stale in (last, replace(last, step=last.step + 5)):
        with pytest.raises(DataError, match="found message"):
            place.sessions.answer(stale)


def test_what_was_rolled_back_is_read_anew():
    made = model()
    place = Place(made, Cut(1, 1))
    place.reader(PROMPTS[:1], read=True)
    prompt = place.sent[-1]
    back = Message("ROLLBACK", "c0", prompt.step + 1, 4, NOTHING, (0,), session=prompt.session)
    assert place.sessions.answer(back).kind == "ROLLBACK"
    rows = WIRES["float32"].decode(prompt.packet, prompt.n_tokens, made.width, "")[4:]
    again = replace(
        prompt, step=prompt.step + 2, micro=4, lengths=(len(rows),), packet=WIRES["float32"].encode(rows, "")
    )
    told = WIRES["float32"].decode(place.sessions.answer(again).packet, len(rows), made.width, "")
    before = WIRES["float32"].decode(
        Place(made, Cut(1, 1)).exchange(place.sent)[-1].packet, prompt.n_tokens, made.width, ""
    )
    assert torch.allclose(told, before[4:], atol=1e-5)
    with pytest.raises(DataError, match="to go back to"):
        place.sessions.answer(replace(back, step=prompt.step + 3, micro=len(PROMPTS[0]) + 1))


def opened(name, room, step=0):
    return Message("OPEN", "c0", step, 0, NOTHING, (room,), session=name)


def test_sessions_take_no_more_tokens_than_there_is_room_for():
    sessions = Place(model(), Cut(1, 1), most_tokens=100).sessions
    sessions.answer(opened("one", 60))
    with pytest.raises(NotYet, match="no room beside 60 of 100"):
        sessions.answer(opened("two", 50))
    with pytest.raises(DataError, match="allowed are 1 to 100"):
        sessions.answer(opened("three", 101))
    sessions.answer(Message("CLOSE", "c0", 1, 0, NOTHING, (0,), session="one"))
    assert sessions.answer(opened("two", 50)).kind == "OPEN"
    with pytest.raises(DataError, match="room for 50"):
        rows = torch.zeros(51, sessions._part.width)
        packet = WIRES["float32"].encode(rows, "")
        sessions.answer(Message("READ", "c0", 1, 0, packet, (51,), session="two"))


def test_a_silent_session_is_forgotten_and_another_clients_is_not_known():
    now = [0.0]
    sessions = Place(model(), Cut(1, 1), idle_s=10.0, clock=lambda: now[0]).sessions
    sessions.answer(opened("one", 60))
    assert sessions.answer(replace(opened("one", 60, step=1), client="c1", kind="READ")).kind == "GONE"
    now[0] = 11.0
    assert sessions.answer(replace(opened("one", 60, step=1), kind="READ")).kind == "GONE"
    assert sessions.tokens == 0


def test_traffic_is_two_states_a_token_in_any_wire_and_int8_answers_too():
    made = model()
    for wire, n_bytes in (("bfloat16", 2 * made.width), ("int8", made.width + 2)):
        place = Place(made, Cut(1, 1), wire)
        found = answers(place.model, PROMPTS)
        assert len(found) == len(PROMPTS) and all(found)
        read = [one for one in place.sent if one.kind == "READ"]
        assert all(one.packet.numel() == one.n_tokens * n_bytes for one in read)


def test_drawn_answers_and_stop_texts_go_the_same_way():
    made, place = model(), Place(model(), Cut(1, 1))
    drawn = Sampling(max_new_tokens=NEW, temperature=0.8, top_p=0.9, seed=4)
    wanted = dict(complete_tokens(made, made.trainable, PROMPTS, drawn, stop={2}, batch=2))
    assert dict(complete_tokens(place.model, made.trainable, PROMPTS, drawn, stop={2}, batch=2)) == wanted


def test_a_model_whose_attention_is_not_ours_is_refused():
    made = model("gpt2", settings=(("attention", "sdpa"),))
    with pytest.raises(ModelError, match="sessions take models whose attention"):
        Reading(Ends.of(made, Cut(1, 1)).front, made.trainable, 4)
