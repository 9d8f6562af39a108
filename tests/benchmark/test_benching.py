"""A suite from file to exit code: cells as separate runs, resuming, failing cells, workers that die."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import active_children

import pytest
import typer
from safetensors.torch import load_file

from fedloom import api
from fedloom.base import config
from fedloom.base.errors import FedloomError, RunError
from fedloom.benchmark.runner import Ended, carry_out, opened_directory, remaining_s, waiting_cells
from fedloom.benchmark.suite import cells_of, load_suite
from fedloom.cli.bench import bench
from fedloom.runs.directory import RunDirectory
from support.command import fedloom
from support.suites import write_suite

pytestmark = pytest.mark.slow  # whole suites

BROKEN = {"clients_per_round": 99}


def files(folder):
    """Time and bytes of every file of finished cells."""
    paths = [path for path in (folder / "d").rglob("*") if path.is_file()]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def begin(folder, run, *, events):
    """A run that is stopped after some events."""
    going = api.start(run, folder)
    for _ in range(events):
        next(going)
    going.close()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished suite of two cells, one of which had been stopped half-way, and what the second call left as it was.

    Then a third method comes in that cannot run.
    """
    folder = tmp_path_factory.mktemp("suite")
    methods = {"fedavg": {}, "local": {"protocol": "local_only"}}
    file, out = write_suite(folder, methods), folder / "out"
    cells = {cell.method: cell for cell in cells_of(load_suite(file, quick=False))}
    begin(out / cells["local"].folder, cells["local"].run, events=2)
    (out / "suite.toml").write_text(config.dump(load_suite(file, quick=False)))
    bench(file, [], out=out, jobs=1, as_json=False, quiet=True)
    first = files(out)
    bench(file, [], out=out, jobs=1, as_json=False, quiet=True)
    second = files(out)
    return folder, out, cells, first, second


@pytest.fixture(scope="module")
def failed(done):
    """The suite with a method that cannot run beside one that can: its exit code and what it wrote."""
    folder, out, *_ = done
    kept = shutil.copytree(out, folder / "grown")
    before = files(kept)
    more = {"broken": BROKEN, "twin": BROKEN, "prox": {"rule": {"name": "prox", "mu": 0.5}}}
    file, told = write_suite(folder, {"fedavg": {}, "local": {"protocol": "local_only"}, **more}), io.StringIO()
    with contextlib.redirect_stderr(told), pytest.raises(typer.Exit) as stopped:
        bench(file, [], out=kept, jobs=1, as_json=False, quiet=True)
    return kept, stopped.value.exit_code, before, told.getvalue()


def results(folder):
    return (folder / "results.jsonl").read_bytes()


@pytest.mark.parametrize("method", ["fedavg", "local"])
def test_cell_is_a_separate_run_byte_for_byte(done, tmp_path, method):
    _, out, cells, *_ = done
    for _ in api.start(cells[method].run, tmp_path / "alone"):
        pass
    assert results(out / cells[method].folder) == results(tmp_path / "alone")


def test_cell_has_the_adapter_of_a_separate_run(done, tmp_path):
    _, out, cells, *_ = done
    for _ in api.start(cells["fedavg"].run, tmp_path / "alone"):
        pass
    one, other = (
        load_file(folder / "adapter" / "adapter_model.safetensors")
        for folder in (out / cells["fedavg"].folder, tmp_path / "alone")
    )
    assert all(one[name].equal(tensor) for name, tensor in other.items())


def test_source_of_a_cell_is_a_run_file(done):
    _, out, cells, *_ = done
    assert api.load_run(out / cells["fedavg"].folder / "source.toml") == cells["fedavg"].run


def test_second_call_touches_nothing_that_is_finished(done):
    *_, first, second = done
    assert first == second


def test_suite_that_grows_touches_nothing_that_is_finished(failed):
    kept, _, before, _ = failed
    after = files(kept)
    assert {path: after[path] for path in before} == before


def test_summary_is_strict_json(done):
    _, out, *_ = done
    text = (out / "summary.json").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name))["title"] == "tiny"


def test_page_is_written(done):
    _, out, *_ = done
    assert (out / "report.html").is_file()


def test_failing_cell_makes_exit_code_2(failed):
    assert failed[1] == 2


def test_failing_cell_leaves_the_others_to_end(failed):
    assert (failed[0] / "d" / "prox_s1" / "report.md").is_file()


def test_failing_cell_is_missing_in_the_summary(failed):
    assert json.loads((failed[0] / "summary.json").read_text())["missing"] == ["d/broken_s1", "d/twin_s1"]


def test_what_fails_several_cells_is_told_once_with_its_reason(failed):
    (told,) = failed[3].splitlines()
    assert told.startswith(
        "fedloom: d/broken_s1 and 1 more cells: clients_per_round: found 99, the data have 4 clients."
    )


def test_described_data_stand_on_the_page_and_are_measured_once(done, tmp_path, capsys):
    folder, out, *_ = done
    file = write_suite(folder, {"fedavg": {}, "local": {"protocol": "local_only"}})
    words = {"out": shutil.copytree(out, tmp_path / "out"), "jobs": 1, "as_json": False, "quiet": True}
    bench(file, [], describe=True, **words)
    told = tmp_path / "out" / "d" / "diversity.json"
    before = (told.stat().st_mtime_ns, told.read_bytes())
    bench(file, [], describe=True, **words)
    assert (told.stat().st_mtime_ns, told.read_bytes()) == before
    page = (tmp_path / "out" / "report.html").read_text()
    assert "seven diversities, 0 where a client is like the pool" in page and "have not been measured" not in page
    assert not capsys.readouterr().err


def test_control_arm_without_a_method_is_printed_as_missing(done, tmp_path, capsys):
    folder, out, *_ = done
    controls = [{"arm": "an oracle", "why": "nobody knows it"}]
    file = write_suite(folder, {"fedavg": {}, "local": {"protocol": "local_only"}}, controls=controls)
    bench(file, [], out=shutil.copytree(out, tmp_path / "out"), jobs=1, as_json=False, quiet=True)
    assert capsys.readouterr().out == "missing: an oracle (nobody knows it)\n"


def test_suite_of_which_no_cell_ends_says_so(done, tmp_path, monkeypatch, capsys):
    refused = (Ended(cell, 1.0, "refused") for cell in one_cell(done))
    monkeypatch.setattr("fedloom.benchmark.runner.carry_out", lambda *_, **__: refused)
    with pytest.raises(typer.Exit) as left:
        bench(write_suite(done[0], {"fedavg": {}}), [], out=tmp_path / "out", jobs=1, as_json=False, quiet=True)
    assert left.value.exit_code == 2
    assert capsys.readouterr().err.splitlines()[1].startswith("fedloom: no cell has ended")


def test_directory_of_another_suite_is_refused(done):
    folder, out, *_ = done
    file = write_suite(folder, {"fedavg": {"rounds": 3}, "local": {"protocol": "local_only"}})
    refused = pytest.raises(RunError, match=r"the suite differs from its directory in methods.fedavg.rounds")
    with refused, opened_directory(load_suite(file, quick=False), out):
        pass


def test_folder_of_something_else_is_refused(done, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    file = write_suite(done[0], {"fedavg": {}})
    refused = pytest.raises(RunError, match=r"exists, is not empty and has no suite.toml")
    with refused, opened_directory(load_suite(file, quick=False), tmp_path):
        pass


def test_folder_in_which_a_suite_was_stopped_before_it_began_is_taken(done, tmp_path):
    (tmp_path / ".lock").touch()
    with opened_directory(load_suite(write_suite(done[0], {"fedavg": {}}), quick=False), tmp_path):
        assert (tmp_path / "suite.toml").is_file()


def test_cell_folder_that_holds_another_run_is_refused(done, tmp_path):
    folder, _, cells, *_ = done
    suite = load_suite(write_suite(folder, {"fedavg": {}}), quick=False)
    with opened_directory(suite, tmp_path / "out"):
        pass
    begin(tmp_path / "out" / "d" / "fedavg_s1", cells["local"].run, events=1)
    with pytest.raises(RunError, match=r"the run differs from its directory in protocol"):
        waiting_cells(suite, tmp_path / "out")


def test_two_at_work_in_one_directory_are_refused(done):
    folder, out, *_ = done
    file = write_suite(folder, {"fedavg": {}, "local": {"protocol": "local_only"}})
    with opened_directory(load_suite(file, quick=False), out):
        before = (out / "suite.toml").read_bytes()
        with pytest.raises(FedloomError, match="at work in it"):
            bench(file, ["seeds=[1,2]"], out=out, jobs=1, as_json=False, quiet=True)
        assert (out / "suite.toml").read_bytes() == before


def one_cell(done):
    return cells_of(load_suite(write_suite(done[0], {"fedavg": {}}), quick=False))


def kill_the_child():
    while not active_children():
        time.sleep(0.01)
    os.kill(active_children()[0].pid, signal.SIGKILL)


def test_worker_that_dies_is_a_failing_cell(done, tmp_path):
    killer = threading.Thread(target=kill_the_child)
    killer.start()
    (ended,) = carry_out(one_cell(done), tmp_path, jobs=1)
    killer.join()
    assert ended.problem == "its worker was killed by signal 9: too little memory?"


def test_workers_end_with_the_generator(done, tmp_path):
    cells = [*one_cell(done)] * 2
    killer = threading.Thread(target=kill_the_child)
    killer.start()
    going = carry_out(cells, tmp_path, jobs=2)
    next(going)
    going.close()
    killer.join()
    assert not active_children()


def killed_in_its_second_cell(file, out, cells):
    """Kill `fedloom bench` when its first cell has ended; return when its worker has let go of the second one."""
    command = [sys.executable, "-m", "fedloom", "bench", str(file), "--out", str(out), "--quiet"]
    going = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while going.poll() is None and not (out / cells["local"].folder / "metrics.jsonl").is_file():
        time.sleep(0.01)
    going.kill()
    assert going.wait() == -signal.SIGKILL
    while True:
        with contextlib.suppress(RunError), RunDirectory(out / cells["local"].folder).held():
            return
        time.sleep(0.01)


@pytest.mark.slow
def test_bench_that_is_killed_goes_on_where_it_stopped(done, tmp_path):
    file = write_suite(done[0], {"fedavg": {}, "local": {"protocol": "local_only", "rounds": 60}})
    suite, out = load_suite(file, quick=False), tmp_path / "out"
    cells = {cell.method: cell for cell in cells_of(suite)}
    killed_in_its_second_cell(file, out, cells)
    assert [cell.method for cell in waiting_cells(suite, out)] == ["local"]
    before = {path: kept for path, kept in files(out).items() if "fedavg" in str(path)}
    bench(file, [], out=out, jobs=1, as_json=False, quiet=True)
    after = files(out)
    assert before and before == {path: after[path] for path in before}
    for _ in api.start(cells["local"].run, tmp_path / "alone"):
        pass
    assert results(out / cells["local"].folder) == results(tmp_path / "alone")


def test_time_that_is_left_is_that_of_cells_of_the_same_kind(done):
    (cell,) = one_cell(done)
    assert remaining_s([Ended(cell, 6.0), Ended(cell, 8.0)], [cell, cell], jobs=2) == 7.0


OPEN = {
    "text": "somewhere fedavg is ahead",
    "kind": "above_somewhere",
    "methods": ["fedavg"],
    "than": "prox",
    "groups": "no_such_tag",
}


@pytest.fixture
def open_claim(tmp_path):
    """A suite file whose claim cannot be decided, and its two methods done."""
    methods = {"fedavg": {}, "prox": {"rule": {"name": "prox", "mu": 0.5}}}
    return write_suite(tmp_path, methods, claims=[OPEN], quick={"common": {"rounds": 1}})


@pytest.mark.parametrize(("quick", "code"), [(["--quick"], 0), ([], 1)])
def test_a_quick_version_may_leave_a_claim_open(open_claim, tmp_path, monkeypatch, quick, code):
    assert fedloom(monkeypatch, "bench", open_claim, *quick, "--out", tmp_path / "out") == code


def test_bench_says_who_wins_and_where_the_rest_is(open_claim, tmp_path, monkeypatch, capsys):
    fedloom(monkeypatch, "bench", open_claim, "--quick", "--out", tmp_path / "out")
    told = capsys.readouterr().out
    assert "first" in told and "not decided: somewhere fedavg is ahead" in told
    assert told.rstrip().endswith("out/report.html") and len(told.splitlines()) < 30


def test_bench_prints_all_tables_when_asked(open_claim, tmp_path, monkeypatch, capsys):
    fedloom(monkeypatch, "bench", open_claim, "--quick", "--full", "--out", tmp_path / "out")
    assert "Pairs on d" in capsys.readouterr().out
