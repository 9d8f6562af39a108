"""What those who operate a server see and do: numbers that are scraped, readiness, and an end that loses nothing."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
import tomli_w

from fedloom.base.errors import ConfigError, RunError
from fedloom.network.channel import Link
from fedloom.network.desk import Drained
from fedloom.network.hub import Hub
from fedloom.network.meters import Meters
from fedloom.network.node import Node
from fedloom.network.scraped import scraped
from fedloom.runs.tuning import Deployment
from support.federation import federation
from support.models import model_folder
from support.resuming import adapters
from support.small_runs import write_records

pytestmark = pytest.mark.timeout(180)
LINE = re.compile(r'fedloom_[a-z_]+(\{[a-z]+="\w+"\})? -?[0-9.e+-]+')


def page(port, path="/metrics"):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.read().decode()


def values(text):
    """The values of a page by name and label; every line is one, or says what one is."""
    lines = [line for line in text.splitlines() if not line.startswith("# ")]
    assert all(LINE.fullmatch(line) for line in lines) and text.endswith("\n")
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


# ------------------------------------------------------------------------------------------------------------ numbers


def test_counters_are_text_as_prometheus_reads_it():
    meters = Meters()
    assert values(meters.text({}))["fedloom_rounds_total"] == 0
    for kind in ("FWD", "GRAD", "FWD"):
        meters.add("split_bytes", 1.5e9, kind=kind)
    meters.add("rounds")
    text = meters.text({"nodes_present": {"": 2}, "clients": {"working": 1, "reported": 0}})
    assert "# HELP fedloom_rounds_total Rounds that were closed.\n# TYPE fedloom_rounds_total counter\n" in text
    assert 'fedloom_split_bytes_total{kind="FWD"} 3000000000\n' in text
    assert "# TYPE fedloom_clients gauge\n" in text and 'fedloom_clients{phase="working"} 1\n' in text
    found = values(text)
    assert found["fedloom_rounds_total"] == 1 and found["fedloom_nodes_present"] == 2
    with pytest.raises(KeyError):
        meters.add("secrets")


def test_threads_lose_no_count():
    meters = Meters()
    threads = [threading.Thread(target=lambda: [meters.add("rounds") for _ in range(2000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values(meters.text({}))["fedloom_rounds_total"] == 16_000


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "192.0.2.1:9464", "example.org:1", ":9464", "127.0.0.1:x"])
def test_off_loopback_nothing_is_told_in_clear(address):
    with (
        pytest.raises(ConfigError, match=r"without certificates, allowed is a loopback address such as 127\.0\.0\.1"),
        scraped(address, str, str),
    ):
        pass


def test_two_pages_and_nothing_else():
    state = ["starting"]
    with scraped("127.0.0.1:0", lambda: "told\n", lambda: state[0]) as port:
        assert page(port) == "told\n"
        with pytest.raises(urllib.error.HTTPError, match="503") as refused:
            page(port, "/ready")
        assert refused.value.read() == b"starting\n"
        state[0] = "ready"
        assert page(port, "/ready") == "ready\n"
        for path in ("/", "/metrics/..", "/etc/passwd", "/metrics?x"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                page(port, path)
        with pytest.raises(urllib.error.HTTPError, match="501"):
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/metrics", data=b"x"), timeout=5)
        with (
            pytest.raises(RunError, match="is taken or is not of this machine"),
            scraped(f"127.0.0.1:{port}", str, str),
        ):
            pass
    with pytest.raises(OSError):
        page(port)


def split_federation(folder, **changes):
    model_folder(folder / "model", num_hidden_layers=4)
    write_records(folder / "data.jsonl", clients=2)
    return federation(
        folder,
        {"north": ("client0",), "south": ("client1",)},
        policy={"split": True},
        protocol={"name": "split", "wire": "float32"},
        local={"lr": 0.02, "steps": 2, "batch": 3, "accumulation": 2},
        **changes,
    )


@pytest.fixture
def hubs(monkeypatch):
    """The hubs of servers in this process."""
    found, init = [], Hub.__init__
    monkeypatch.setattr(Hub, "__init__", lambda self, *words: (found.append(self), init(self, *words))[1])
    return found


def test_a_servers_numbers_are_those_of_its_run(tmp_path, hubs):
    """A split round of two clients: batches, tokens and bytes as its ledger and its steps have them."""
    made = split_federation(tmp_path, rounds=2)
    port, pages = free_port(), []

    def reported(report):
        pages.append((page(port), page(port, "/ready")))

    made.to_the_end(tmp_path / "apart", metrics=f"127.0.0.1:{port}", on_report=reported)
    text, ready = pages[0]
    during, after = values(text), values(hubs[0].meters.text(hubs[0].gauges()))
    assert ready == "ready\n" and during["fedloom_ready"] == 1 and after["fedloom_ready"] == 0
    assert during["fedloom_nodes_enrolled"] == during["fedloom_nodes_present"] == 2 and during["fedloom_round"] == 0
    assert after["fedloom_rounds_total"] == 2 and after["fedloom_joins_total"] == 2
    assert after['fedloom_reports_total{said="taken"}'] == 4
    assert after["fedloom_examples_total"] == 2 * 2 * 2 * 2 * 3  # rounds, clients, steps, micro-batches, batch
    assert after['fedloom_split_batches_total{clients="2"}'] == 2 * 2 * 2 * 2  # rounds, steps, micro-batches, ways
    width_bytes = 4 * 32
    assert after['fedloom_split_bytes_total{kind="FWD"}'] == after["fedloom_split_tokens_total"] * width_bytes > 0
    assert after['fedloom_split_bytes_total{kind="GRAD"}'] == after['fedloom_split_bytes_total{kind="FWD"}']
    step, packets = (
        after['fedloom_bytes_received_total{call="Step"}'],
        2 * after['fedloom_split_bytes_total{kind="FWD"}'],
    )
    assert packets < step < packets + 64 * 400  # a header for each message
    assert after['fedloom_split_compute_seconds_total{clients="2"}'] > 0
    assert after['fedloom_split_wait_seconds_total{clients="2"}'] >= 0
    for secret in (*made.clients, *made.owners, "study", hubs[0].run, "PRIVATE", "BEGIN"):
        assert secret not in text


def test_messages_that_come_again_are_counted_and_change_nothing(tmp_path, hubs, monkeypatch):
    exchange = Link.exchange
    monkeypatch.setattr(Link, "exchange", lambda self, *said: (exchange(self, *said), exchange(self, *said))[1])
    split_federation(tmp_path / "one", rounds=1).to_the_end(tmp_path / "twice")
    found = values(hubs[0].meters.text(hubs[0].gauges()))
    assert found['fedloom_repeats_total{kind="step"}'] == 2 * 2 * 2 * 2  # clients, steps, micro-batches, ways
    assert found['fedloom_split_batches_total{clients="2"}'] == 8
    monkeypatch.undo()
    split_federation(tmp_path / "two", rounds=1).to_the_end(tmp_path / "once")
    assert adapters(tmp_path / "twice") == adapters(tmp_path / "once")


def test_a_server_that_has_not_begun_says_so(tmp_path):
    waiting = Hub("ab", federation(tmp_path).enrolment, tmp_path / "incoming", Deployment())
    assert values(waiting.meters.text(waiting.gauges()))["fedloom_round"] == -1
    assert waiting.state == "starting"


# ---------------------------------------------------------------------------------------------------------- the end


def test_a_server_that_is_drained_ends_its_round_and_opens_no_other(tmp_path):
    made = federation(tmp_path / "one", rounds=3)
    stopping, reports = threading.Event(), []

    def reported(report):
        reports.append(report.client)
        stopping.set()  # while the first round is open

    ready, events = threading.Event(), []
    with made.at_work(ready):
        with pytest.raises(Drained, match=r"^drained; `fedloom resume` goes on\.$"):
            for event in made.serve(tmp_path / "drained", ready=ready, stopping=stopping, on_report=reported):
                events.append(event)
        assert len(reports) == 4  # all clients of the open round
        list(made.serve(tmp_path / "drained", going_on=True, on_report=lambda report: reports.append(report.client)))
    assert len(reports) == 12
    made.port = 0
    whole = federation(tmp_path / "two", rounds=3)
    whole.to_the_end(tmp_path / "whole")
    assert adapters(tmp_path / "drained") == adapters(tmp_path / "whole")


def test_a_round_that_does_not_end_is_left_to_be_gone_on_with(tmp_path):
    """A node is away: the round has its seconds, what came is kept, and the run ends with the same bytes."""
    made = federation(tmp_path / "one", rounds=2)
    stopping, ready, stop = threading.Event(), threading.Event(), threading.Event()

    def one_node():
        ready.wait()
        Node(made.node("north")).run(stop)

    thread = threading.Thread(target=one_node, daemon=True)
    thread.start()
    reported = lambda report: stopping.set()  # noqa: E731 - north's first client is there, west never comes
    with pytest.raises(Drained, match="drained, round 0 is open: what came is kept; `fedloom resume` goes on"):
        list(made.serve(tmp_path / "drained", ready=ready, stopping=stopping, drain_s=0.5, on_report=reported))
    stop.set()
    thread.join(timeout=20)
    with made.at_work(ready):
        list(made.serve(tmp_path / "drained", going_on=True))
    whole = federation(tmp_path / "two", rounds=2)
    whole.to_the_end(tmp_path / "whole")
    assert adapters(tmp_path / "drained") == adapters(tmp_path / "whole")


@pytest.mark.slow
def test_sigterm_drains_a_server_and_resume_goes_on(tmp_path):
    """The commands themselves: exit code 75, /ready says so on the way, and the run directory can be gone on with."""
    made = federation(tmp_path, rounds=1)
    table = {"nodes": {name: {"clients": list(own)} for name, own in made.owners.items()}}
    (tmp_path / "clients.toml").write_text(tomli_w.dumps(table))
    (tmp_path / "run.toml").write_text(tomli_w.dumps(made.table))
    keys = made.server_keys
    made.port, port = free_port(), free_port()
    words = [
        *("server", "run.toml", "--enrolled", "clients.toml", "--listen", f"127.0.0.1:{made.port}", "--out", "apart"),
        *("--certificate", str(keys.certificate), "--key", str(keys.key), "--ca", str(keys.authority)),
        *("--metrics", f"127.0.0.1:{port}", "--drain", "1.5"),
    ]
    server = started(tmp_path, *words)
    wait_for(lambda: is_ready(port) and (tmp_path / "apart" / "status.json").is_file())
    server.send_signal(signal.SIGTERM)
    wait_for(lambda: state(port) == "draining")
    told, _ = server.communicate(timeout=60)
    assert server.returncode == 75 and "drained, round 0 is open: what came is kept; `fedloom resume` goes on." in told
    server = started(tmp_path, "resume", "apart")
    wait_for(lambda: is_ready(port))  # at the same address as before
    for name in made.owners:
        made.write_node(name)
    ready = threading.Event()
    ready.set()
    with made.at_work(ready):
        server.communicate(timeout=120)
    assert server.returncode == 0 and (tmp_path / "apart" / "report.md").is_file()


def started(folder, *words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "fedloom", *words], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )


def wait_for(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def state(port):
    try:
        return page(port, "/ready").strip()
    except urllib.error.HTTPError as error:
        return error.read().decode().strip()
    except OSError:
        return "nobody there"


def is_ready(port):
    return state(port) == "ready"


def test_a_node_says_that_it_has_joined_and_what_has_left(tmp_path):
    """The command's own standard error: a line when it joins, one for each report, none of a record's text."""
    made = federation(tmp_path, {"north": ("client0", "client1")}, rounds=2)
    ready, said = threading.Event(), []

    def run():
        ready.wait()
        words = [sys.executable, "-m", "fedloom", "node", "run", "north"]
        said.append(subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stderr)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    list(made.serve(tmp_path / "apart", ready=ready))
    thread.join(timeout=60)
    told = [line for line in said[0].splitlines() if line.startswith("info: ")]
    assert told[0].startswith("info: joined run ") and told[0].endswith(" of 2 clients")
    reported = [f"info: client '{client}', round {round}: reported, " for round in (0, 1) for client in made.clients]
    assert (
        [line.rpartition(", ")[0] + ", " for line in told[1:5]] == reported and "is over" in told[5] and len(told) == 6
    )
