"""Frames, pieces, jobs and reports: what is not theirs is refused before anything is made of it."""

import json
import pickle
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedloom.base.errors import DataError, FedloomError
from fedloom.base.mean import Mean
from fedloom.base.tree import Layout
from fedloom.contracts.messages import Local, Report
from fedloom.network.frames import CHUNK, Frame, number_from, number_to, text_in, whole_in
from fedloom.network.jobs import JobFrame, body_of, layout_from, layout_to, local_of, report_from, report_to
from fedloom.network.pieces import Inbox, Piece, pieces

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=10), JSON, max_size=5), st.binary(max_size=200))
def test_a_frame_comes_back_as_it_was(header, body):
    assert Frame.decoded(Frame(header, body).encoded()) == Frame(header, body)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_comes_back_bit_for_bit(value):
    assert number_from({"it": number_to(value)}, "it").hex() == value.hex()


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "0x1p99999", "one", "", "1" * 100, 3, None])
def test_what_is_no_finite_number_is_refused(text):
    with pytest.raises(DataError, match="it: found"):
        number_from({"it": text}, "it")


@pytest.mark.parametrize("value", [True, 1.0, "1", -1, 2**60, None, [1]])
def test_what_is_no_whole_number_in_range_is_refused(value):
    with pytest.raises(DataError, match="it: found"):
        whole_in({"it": value}, "it")


def test_a_frame_that_is_too_long_is_not_sent():
    with pytest.raises(DataError, match="frame: found a header"):
        Frame({"a": "b" * (65 << 10)}).encoded()
    with pytest.raises(DataError, match="frame: found a header"):
        Frame({}, bytes(CHUNK + 1)).encoded()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"FLM1",
        b"FLM2" + Frame({}).encoded()[4:],
        b"FLM1\xff\xff\xff\xff{}",
        b"FLM1\x00\x00\x00\x02[]",
        b"FLM1\x00\x00\x00\x03NaN",
        b"FLM1\x00\x00\x00\x09" + b'{"a":NaN}',
        b"FLM1\x00\x00\x00\x02\xff\xfe",
        b"FLM1" + (60_000).to_bytes(4, "big") + b"[" * 60_000,
        Frame({}).encoded() + bytes(CHUNK + 1),
    ],
)
def test_bytes_that_are_no_frame_are_refused(data):
    with pytest.raises(DataError, match="frame: "):
        Frame.decoded(data)


def test_ten_thousand_damaged_frames_are_read_or_refused():
    draw = random.Random(5)
    job = JobFrame("ab", "north", 3, 0.5, Piece("0" * 64, 12))
    report = report_to(a_report(), job.id)
    whole = [Frame(job.header()).encoded(), Frame(report, b"x" * 40).encoded()]
    refused = 0
    for _ in range(10_000):
        data = bytearray(draw.choice(whole))
        for _ in range(draw.randrange(1, 6)):
            match draw.randrange(3):
                case 0:
                    data[draw.randrange(len(data))] = draw.randrange(256)
                case 1:
                    del data[draw.randrange(len(data)) :]
                case _:
                    data[draw.randrange(len(data)) : 0] = draw.randbytes(draw.randrange(4))
            if not data:
                break
        try:
            frame = Frame.decoded(bytes(data))
            JobFrame.from_header(frame.header) if frame.header.get("kind") == "job" else report_from(frame.header, b"")
        except FedloomError:
            refused += 1
    assert refused > 8_000


def a_report(**changes):
    own = {
        "client": "north",
        "packet": torch.arange(12, dtype=torch.uint8),
        "layout": Layout((("delta", "", (3,)),)),
        "weight": 2.5,
        "n_examples": 4,
        "samples_seen": 8,
        "loss": Mean(1.25, 3.0),
        "memory": {},
        "steps": 2,
    }
    return Report(**(own | changes))


def test_a_report_comes_back_as_it_was_without_the_clients_memory():
    sent = a_report(memory={"control": {"": torch.ones(3)}})
    header = json.loads(json.dumps(report_to(sent, "id")))
    back = report_from(header, sent.packet.numpy().tobytes())
    assert torch.equal(back.packet, sent.packet) and back.memory == {}
    assert {k: v for k, v in vars(back).items() if k not in ("packet", "memory")} == {
        k: v for k, v in vars(sent).items() if k not in ("packet", "memory")
    }
    assert "control" not in json.dumps(header)


def test_a_job_is_named_by_all_that_it_says():
    job = JobFrame("ab", "north", 3, 0.5, Piece("0" * 64, 12))
    assert JobFrame.from_header(json.loads(json.dumps(job.header()))) == job
    for key, value in {"run": "ac", "client": "south", "round": 4, "lr": number_to(0.25), "digest": "1" * 64}.items():
        with pytest.raises(DataError, match="job: its id is not the hash"):
            JobFrame.from_header(job.header() | {key: value})


def test_the_body_is_what_a_client_knows_and_the_same_bytes_for_all():
    params, control = torch.randn(5), torch.randn(5)
    local = Local({"": params}, {"control": {"": control}}, {"own": {"": torch.ones(5)}})
    body = body_of(local)
    assert body == body_of(Local({"": params.clone()}, {"control": {"": control.clone()}}, {}))
    back = local_of(body, 5, {"own": {"": torch.zeros(5)}})
    assert torch.equal(back.anchor[""], params) and torch.equal(back.shared["control"][""], control)
    assert torch.equal(back.memory["own"][""], torch.zeros(5))


@pytest.mark.parametrize(
    ("local", "text"),
    [
        (Local({"": torch.ones(4)}), r"shape \(4,\)"),
        (Local({"": torch.ones(5, dtype=torch.float64)}), "float64"),
        (Local({"": torch.tensor([1.0, float("nan"), 0, 0, 0])}), "finite"),
        (Local({"other": torch.ones(5)}), "no parameters"),
    ],
)
def test_a_body_that_holds_anything_else_is_refused(local, text):
    with pytest.raises(DataError, match=text):
        local_of(body_of(local), 5, {})


@pytest.mark.parametrize("body", [b"", b"x" * 100, b"\x80\x04\x95junk."])
def test_a_body_that_is_no_safetensors_is_refused(body):
    with pytest.raises(DataError, match="job: its body"):
        local_of(body, 5, {})


@pytest.mark.parametrize(
    "values", [None, 3, [1], [["a", "b"]], [["a", "b", [-1]]], [["a", "b", ["3"]]], [["a", 3, [1]]]]
)
def test_what_is_no_layout_is_refused(values):
    with pytest.raises(DataError, match="layout: found"):
        layout_from(values)


def test_a_layout_comes_back_as_it_was():
    layout = Layout((("delta", "a", (2, 3)), ("control", "", ())))
    assert layout_from(json.loads(json.dumps(layout_to(layout)))) == layout


def test_what_arrives_in_pieces_goes_on_where_it_broke(tmp_path):
    data = random.Random(1).randbytes(3 * CHUNK + 7)
    piece, inbox = Piece.of(data), Inbox(tmp_path / "in")
    for part in list(pieces(data))[:2]:
        inbox.add("it", piece, inbox.have("it"), part)
    assert inbox.whole("it", piece) is None and inbox.have("it") == 2 * CHUNK
    with pytest.raises(DataError, match="go on there"):
        inbox.add("it", piece, 0, b"again")
    for part in pieces(data, inbox.have("it")):
        inbox.add("it", piece, inbox.have("it"), part)
    assert inbox.whole("it", piece) == data


def test_other_bytes_than_were_promised_are_thrown_away(tmp_path):
    inbox = Inbox(tmp_path)
    inbox.add("it", Piece.of(b"right"), 0, b"wrong")
    with pytest.raises(DataError, match="not those that were promised"):
        inbox.whole("it", Piece.of(b"right"))
    assert inbox.have("it") == 0
    with pytest.raises(DataError, match="have arrived"):
        inbox.add("it", Piece.of(b"right"), 0, b"right and more")


def test_texts_have_a_longest_length():
    with pytest.raises(DataError, match="a text of up to 4"):
        text_in({"it": "12345"}, "it", longest=4)


class Bomb:
    """What leaves a mark once it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_pickle_in_any_place_is_refused_and_never_runs(tmp_path):
    """T13 of the specification: as a frame, as its header, as a step's bytes at either end, as a body, as a record."""
    from fedloom.network.handshake import Connections
    from fedloom.network.sealed import NotSealed, Opener
    from fedloom.network.steps import answer_in, in_frames
    from fedloom.split.messages import Message
    from fedloom.split.wire import WIRES

    mark = tmp_path / "it ran"
    bomb = pickle.dumps(Bomb(mark))
    head = b"FLM1" + len(bomb).to_bytes(4, "big") + bomb
    message = Message("FWD", "north", 0, 0, torch.frombuffer(bytearray(bomb), dtype=torch.uint8), (2,))
    answer = next(iter(in_frames(Message("BODY", "north", 0, 0, message.packet, (2,)))))
    for data in (bomb, head):
        with pytest.raises(DataError, match="frame: "):
            Frame.decoded(data)
    for wire in WIRES.values():  # bytes of a step are numbers, as many as tokens take
        with pytest.raises(DataError, match="2 tokens of 32 numbers take"):
            wire.decode(answer_in([answer], message, "").packet, 2, 32, "")
    with pytest.raises(DataError, match="job: its body is no safetensors"):
        local_of(bomb, 5, {})
    with pytest.raises(DataError, match="found a message that is none"):
        answer_in([Frame({**answer.header, "weight": repr(bomb)}, answer.body)], message, "")
    with pytest.raises(NotSealed, match="are no record"):
        Opener(bytes(32), b"").open(bomb)
    with pytest.raises(NotSealed):
        Connections(None, "ab").call(bomb)
    assert not mark.exists()
    pickle.loads(bomb)  # it is a bomb
    assert mark.exists()
