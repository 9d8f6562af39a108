"""The bench: formulas by hand, courses that take their steps in the order that they say, and what is printed."""

import pytest
from typer.testing import CliRunner

from fedloom.base.errors import ConfigError
from fedloom.cli.main import app
from fedloom.runs.split_bench import BenchSettings, bench_split, bench_table
from fedloom.runs.tuning import read_run
from fedloom.split.course_costs import COURSES, Parts
from fedloom.split.emulation import Pipe
from support.models import model_folder
from support.small_runs import small_table, write_records

PARTS = Parts(
    client_s=0.010,
    server_s={1: 0.020, 4: 0.040},
    latency_s=0.005,
    message_bytes=10_000,
    client_bytes_s=1e6,
    server_bytes_s=1e7,
)


def test_the_formulas_by_hand():
    """1.7 of the specification: t_net = 4 (0.005 + 0.01) = 0.06, alone 0.09, each further client 0.004 on the link."""
    assert PARTS.net_s == pytest.approx(0.06) and PARTS.eta(4) == pytest.approx(2.0)
    assert PARTS.share() == pytest.approx(0.02 / 0.09)
    wanted = {"serial": 0.36, "loops": 0.32, "overlapped": 0.122, "hierarchical": 0.18, "two in flight": 0.09}
    assert {course: PARTS.predicted_s(course, 4) for course in COURSES} == pytest.approx(wanted)


def test_published_seconds_fit_published_loops():
    """Table A: a third of a step is shared where client loops are serial; 8 clients are 1.41 times as fast."""
    client_s, server_s = 0.484, 0.221
    costs = {k: (k * client_s + server_s) / k for k in (1, 2, 4, 8)}
    found = Parts(
        client_s=client_s,
        server_s=dict.fromkeys((1, 2, 4, 8), server_s),
        latency_s=0.0,
        message_bytes=0,
        client_bytes_s=1.0,
        server_bytes_s=1.0,
    )
    for k, per_sample_s in costs.items():
        assert found.predicted_s("loops", k) / k == pytest.approx(per_sample_s)
    assert found.predicted_s("loops", 1) / (found.predicted_s("loops", 8) / 8) == pytest.approx(1.41, abs=0.05)


def test_messages_take_their_turn_on_a_link():
    pipe = Pipe(1000.0)
    assert [pipe.through_s(100, 5.0), pipe.through_s(100, 5.0), pipe.through_s(100, 9.0)] == pytest.approx(
        [5.1, 5.2, 9.1]
    )


@pytest.mark.slow
def test_every_course_is_taken_and_told_beside_its_prediction(tmp_path):
    model_folder(tmp_path / "model", num_hidden_layers=4)
    write_records(tmp_path / "data.jsonl", clients=2)
    run = read_run(small_table(tmp_path, protocol={"name": "split"}, engine="sequential"))
    found = bench_split(run, BenchSettings(clients=(2,), rtt_ms=1.0, steps=2))
    assert found["message_bytes"] == found["tokens"] * 2 * 32  # bfloat16, width 32
    (row,) = found["rows"]
    assert tuple(row["courses"]) == COURSES and row["clients"] == 2
    assert all(one["measured_s"] > 0 and one["ratio"] > 0 for one in row["courses"].values())
    # A step's messages are never faster than the link; two in flight share its latency.
    assert row["courses"]["overlapped"]["measured_s"] > found["net_s"]
    assert row["courses"]["serial"]["measured_s"] > 2 * found["net_s"]
    assert len(bench_table(found).rows) == len(COURSES)


@pytest.mark.parametrize(
    ("asked", "text"),
    [("1,x", "numbers with commas"), ("0", "numbers from 1 to 64"), ("65", "numbers from 1 to 64")],
)
def test_numbers_of_clients_that_are_none_are_refused(asked, text):
    done = CliRunner().invoke(app, ["split", "bench", "experiments/split.toml", "--clients", asked])
    assert isinstance(done.exception, ConfigError) and text in str(done.exception)
