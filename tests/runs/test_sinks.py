"""Sinks: what they are handed, in which order, after a stop; TensorBoard for real, the others through their API."""

import json
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest

import fedloom
from fedloom import api
from fedloom.base.config import dump
from fedloom.base.errors import ConfigError, RunError
from fedloom.base.plugin import lookup, plugin
from fedloom.contracts.federated import Sink
from fedloom.runs.sinks._points import point
from support.small_runs import small_run

SEEN = []


@plugin("noting")
class Noting(Sink):
    """Notes what it is handed."""

    @contextmanager
    def open(self, folder, table):
        SEEN.append(("open", table["rounds"]))
        try:
            yield lambda line: SEEN.append(("line", line))
        finally:
            SEEN.append(("close", None))


@pytest.fixture
def seen():
    SEEN.clear()
    return SEEN


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def lines_of(seen):
    return [value for kind, value in seen if kind == "line"]


def finish(run, folder):
    for _ in api.start(run, folder):
        pass


def noted(tmp_path, **changes):
    return small_run(tmp_path, sinks=["noting"], evaluation={"max_new_tokens": 1, "resamples": 20}, **changes)


def test_a_sink_is_handed_the_lines_of_the_file_in_their_order(tmp_path, seen):
    finish(noted(tmp_path), tmp_path / "run")
    assert lines_of(seen) == metrics(tmp_path / "run")


def test_a_sink_opens_first_and_closes_last(tmp_path, seen):
    finish(noted(tmp_path), tmp_path / "run")
    assert (seen[0], seen[-1]) == (("open", 3), ("close", None))


def test_a_line_is_handed_over_before_its_event_is_yielded(tmp_path, seen):
    events = api.start(noted(tmp_path), tmp_path / "run")
    next(events)
    handed = len(lines_of(seen))
    events.close()
    assert handed == len(metrics(tmp_path / "run"))


def test_a_stopped_run_closes_its_sinks(tmp_path, seen):
    events = api.start(noted(tmp_path), tmp_path / "run")
    next(events)
    events.close()
    assert seen[-1] == ("close", None)


def test_a_resumed_run_hands_over_all_its_lines_again(tmp_path, seen):
    events = api.start(noted(tmp_path, checkpoint_every=2), tmp_path / "run")
    for _ in range(4):  # base and three rounds; the checkpoint is of the last
        next(events)
    events.close()
    seen.clear()
    for _ in api.resume(tmp_path / "run")[1]:
        pass
    assert lines_of(seen) == metrics(tmp_path / "run")


def test_two_sinks_take_each_line_in_the_order_of_the_run_file(tmp_path, seen):
    finish(small_run(tmp_path, sinks=["noting", "noting"], rounds=1), tmp_path / "run")
    handed = lines_of(seen)
    assert handed[0::2] == handed[1::2] == metrics(tmp_path / "run")


def test_a_run_file_names_sinks_with_their_settings(tmp_path):
    run = small_run(tmp_path, sinks=[{"name": "mlflow", "experiment": "mine"}])
    assert run.sinks[0].experiment == "mine"


def test_sinks_do_not_change_what_a_run_computes(tmp_path, seen):
    def plain(folder):
        return [{k: v for k, v in line.items() if k != "wall_s"} for line in metrics(folder)]

    finish(noted(tmp_path), tmp_path / "with")
    finish(small_run(tmp_path, evaluation={"max_new_tokens": 1, "resamples": 20}), tmp_path / "without")
    assert plain(tmp_path / "with") == plain(tmp_path / "without")


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_missing_extra_is_refused_before_anything_is_measured(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    events = api.start(small_run(tmp_path, sinks=[name]), tmp_path / "run")
    with pytest.raises(ConfigError, match=rf"pip install fedloom\[{name}\]"):
        next(events)
    assert not (tmp_path / "run").exists()


@plugin("ailing")
class Ailing(Sink):
    """Takes the first lines and no more."""

    @contextmanager
    def open(self, folder, table):
        taken = []

        def take(line):
            taken.append(line)
            if len(taken) > 2:
                SEEN.append(("failed", None))
                raise ValueError("the disk of the sink is full")

        yield take


def test_a_sink_that_fails_on_the_way_stops_nothing_and_is_told(tmp_path, seen):
    run = small_run(tmp_path, sinks=["ailing", "noting"], rounds=2)
    told = [event.text for event in api.start(run, tmp_path / "run") if isinstance(event, fedloom.Note)]
    assert any("sink 'ailing' failed and was given no more" in text and "is full" in text for text in told)
    assert lines_of(seen) == metrics(tmp_path / "run") and (tmp_path / "run" / "report.md").is_file()
    assert seen.count(("failed", None)) == 1


def test_a_sink_that_does_not_end_well_is_told(tmp_path, mlflow, monkeypatch):
    def gone(self, run_id, status=None, end_time=None):
        raise FakeError("gone")

    monkeypatch.setattr(FakeClient, "set_terminated", gone)
    run = small_run(tmp_path, sinks=["mlflow"], rounds=1)
    told = [event.text for event in api.start(run, tmp_path / "run") if isinstance(event, fedloom.Note)]
    assert any("sink 'mlflow' failed" in text for text in told)


def test_a_sink_that_cannot_open_leaves_no_run(tmp_path, mlflow):
    run = small_run(tmp_path, sinks=[{"name": "mlflow", "tracking_uri": "http://nowhere"}], rounds=1)
    with pytest.raises(ConfigError, match="no server there"):
        finish(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# -------------------------------------------------------------------------------------------------------------- points


def line(**changes):
    return {"name": "train_loss", "round": 2, "leg": "", "phase": "train", "total": 6.0, "weight": 4.0} | changes


def test_a_point_is_the_mean_of_its_line():
    assert point(line()) == ("train_loss", 2, 1.5)


def test_a_line_without_weight_is_no_point():
    assert point(line(weight=0.0)) is None


def test_a_line_that_is_not_finite_is_no_point():
    assert point(line(total=float("inf"))) is None


def test_a_leg_stands_behind_the_name():
    assert point(line(leg="a to b"))[0] == "train_loss/a to b"


# -------------------------------------------------------------------------------------------- tensorboard, the real one


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def expected(folder):
    points = [point(line) for line in metrics(folder)]
    return {name: [(r, pytest.approx(v, rel=1e-6)) for n, r, v in points if n == name] for name, _, _ in points}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_files_hold_every_point_of_the_run(tmp_path):
    finish(small_run(tmp_path, sinks=["tensorboard"]), tmp_path / "run")
    assert scalars(tmp_path / "run") == expected(tmp_path / "run")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_files_of_a_resumed_run_hold_every_point_once(tmp_path):
    events = api.start(small_run(tmp_path, sinks=["tensorboard"], checkpoint_every=2), tmp_path / "run")
    for _ in range(2):  # stopped behind a round that the checkpoint does not know
        next(events)
    events.close()
    for _ in api.resume(tmp_path / "run")[1]:
        pass
    assert scalars(tmp_path / "run") == expected(tmp_path / "run")


# ------------------------------------------------------------------- the others, through modules of the same signatures


class FakeError(Exception):
    """What the libraries raise."""


class FakeClient:
    """The methods of MlflowClient that are used, with its own argument names."""

    calls = ()

    def __init__(self, tracking_uri=None):
        if tracking_uri == "http://nowhere":
            raise FakeError("no server there")
        self.calls.append(("client", tracking_uri))

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        self.calls.append(("experiment", name))
        return "7"

    def search_runs(self, experiment_ids, filter_string=""):
        return [SimpleNamespace(info=SimpleNamespace(run_id="old"))]

    def delete_run(self, run_id):
        self.calls.append(("delete", run_id))

    def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
        self.calls.append(("run", experiment_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id="new"))

    def log_batch(self, run_id, metrics=(), params=(), tags=()):
        self.calls.append(("parameters", run_id, [(one.key, one.value) for one in params]))

    def log_metric(self, run_id, key, value, timestamp=None, step=None):
        self.calls.append(("metric", run_id, key, value, step))

    def set_terminated(self, run_id, status=None, end_time=None):
        self.calls.append(("end", run_id, status))


@pytest.fixture
def mlflow(monkeypatch):
    module = ModuleType("mlflow")
    module.MlflowClient, FakeClient.calls = FakeClient, []
    module.exceptions = SimpleNamespace(MlflowException=FakeError)
    module.entities = SimpleNamespace(Param=lambda key, value: SimpleNamespace(key=key, value=value))
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return FakeClient.calls


def test_mlflow_is_given_a_metric_per_point(tmp_path, mlflow):
    with lookup(Sink, "mlflow")().open(str(tmp_path), {"seed": 0}) as take:
        take(line())
    assert [call for call in mlflow if call[0] == "metric"] == [("metric", "new", "train_loss", 1.5, 2)]


def test_mlflow_is_given_the_settings_as_parameters(tmp_path, mlflow):
    table = {"seed": 0, "method": {"name": "fedprox", "mu": 0.01}, "clients": ["a", "b"]}
    with lookup(Sink, "mlflow")().open(str(tmp_path), table):
        pass
    wanted = [("seed", "0"), ("method.name", "fedprox"), ("method.mu", "0.01"), ("clients", '["a", "b"]')]
    assert ("parameters", "new", wanted) in mlflow


def test_mlflow_is_given_at_most_a_hundred_parameters_at_once(tmp_path, mlflow):
    with lookup(Sink, "mlflow")().open(str(tmp_path), {f"p{number}": number for number in range(250)}):
        pass
    assert [len(call[2]) for call in mlflow if call[0] == "parameters"] == [100, 100, 50]


def test_mlflow_in_a_folder_is_a_database_there(tmp_path, mlflow):
    with lookup(Sink, "mlflow")(tracking_uri=str(tmp_path / "mine")).open(str(tmp_path), {}):
        pass
    assert mlflow[0] == ("client", f"sqlite:///{tmp_path / 'mine' / 'mlflow.db'}") and (tmp_path / "mine").is_dir()


def test_mlflow_run_of_the_same_folder_is_replaced(tmp_path, mlflow):
    with lookup(Sink, "mlflow")().open(str(tmp_path), {"seed": 0}):
        pass
    assert ("delete", "old") in mlflow


def test_mlflow_run_that_ends_is_finished(tmp_path, mlflow):
    with lookup(Sink, "mlflow")().open(str(tmp_path), {"seed": 0}):
        pass
    assert mlflow[-1] == ("end", "new", "FINISHED")


def test_mlflow_run_that_breaks_is_failed(tmp_path, mlflow):
    with pytest.raises(KeyError), lookup(Sink, "mlflow")().open(str(tmp_path), {"seed": 0}):
        raise KeyError
    assert mlflow[-1] == ("end", "new", "FAILED")


def test_mlflow_names_keep_refused_characters_apart(tmp_path, mlflow):
    with lookup(Sink, "mlflow")().open(str(tmp_path), {"seed": 0}) as take:
        take(line(name="test/loss/a,b"))
        take(line(name="test/loss/a(b"))
    assert [call[2] for call in mlflow if call[0] == "metric"] == ["test/loss/a.2c.b", "test/loss/a.28.b"]


@pytest.fixture
def wandb(monkeypatch):
    calls = []
    run = SimpleNamespace(
        define_metric=lambda name, step_metric=None: calls.append(("define", name, step_metric)),
        log=lambda data: calls.append(("log", data)),
        finish=lambda exit_code=None: calls.append(("finish", exit_code)),
    )

    def init(*, project, name, group, dir, mode, config, settings):
        if mode == "online":
            raise FakeError("no key")
        calls.append(("init", project, mode, config, dir))
        return run

    module = ModuleType("wandb")
    module.init, module.Settings = init, SimpleNamespace
    module.errors = SimpleNamespace(Error=FakeError)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


def test_mlflow_server_that_is_not_there_is_one_line(tmp_path, mlflow):
    sink = lookup(Sink, "mlflow")(tracking_uri="http://nowhere")
    with pytest.raises(RunError, match=r"'mlflow' did not take the numbers \(no server there\)"), sink.open("a", {}):
        pass


def test_mlflow_server_that_goes_away_is_one_line(tmp_path, mlflow, monkeypatch):
    def gone(self, run_id, status=None, end_time=None):
        raise FakeError("gone")

    monkeypatch.setattr(FakeClient, "set_terminated", gone)
    with (
        pytest.raises(RunError, match=r"'mlflow' did not take the numbers \(gone\)"),
        lookup(Sink, "mlflow")().open("a", {}),
    ):
        pass


def test_wandb_that_refuses_is_one_line(tmp_path, wandb):
    sink = lookup(Sink, "wandb")(mode="online")
    with pytest.raises(RunError, match=r"'wandb' did not take the numbers \(no key\)"), sink.open("a", {}):
        pass


def test_wandb_is_offline_unless_asked(tmp_path, wandb):
    with lookup(Sink, "wandb")().open(str(tmp_path), {"seed": 0}):
        pass
    assert wandb[0] == ("init", "fedloom", "offline", {"seed": 0}, str(tmp_path))


def test_wandb_is_given_a_point_with_its_round(tmp_path, wandb):
    with lookup(Sink, "wandb")().open(str(tmp_path), {"seed": 0}) as take:
        take(line())
    assert ("log", {"round": 2, "train_loss": 1.5}) in wandb


def test_wandb_run_that_breaks_says_so(tmp_path, wandb):
    with pytest.raises(KeyError), lookup(Sink, "wandb")().open(str(tmp_path), {"seed": 0}):
        raise KeyError
    assert wandb[-1] == ("finish", 1)


def test_wandb_files_of_an_earlier_offline_opening_are_removed(tmp_path, wandb):
    (tmp_path / "wandb").mkdir()
    with lookup(Sink, "wandb")().open(str(tmp_path), {"seed": 0}):
        pass
    assert not (tmp_path / "wandb").exists()


def test_sinks_are_written_out_and_read_back(tmp_path):
    run = small_run(tmp_path, sinks=[{"name": "wandb", "project": "p"}])
    assert 'project = "p"' in dump(run)
