"""Manifests: what of a run file travels, and that nothing else is accepted."""

import json

import pytest

from fedloom.base.errors import ConfigError, DataError, FedloomError
from fedloom.base.plugin import lookup
from fedloom.contracts.federated import Engine
from fedloom.network.manifest import Manifest, OwnSettings, manifest_of, run_at_node
from fedloom.runs.prepared import load_model
from support.small_runs import small_run

FORBIDDEN = {
    "plugins": ["os"],
    "train": ".*",
    "share": "(a+)+$",
    "data": {"name": "file", "path": "/etc/passwd"},
    "device": "cuda",
    "engine": "processes",
    "sinks": ["wandb"],
    "prepare": ["unchanged"],
    "refine": ["realign"],
    "attack": {"name": "label_flip"},
    "partition": "by_key",
    "threads": 4,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifest")
    run = small_run(folder, evaluation={"holdout_by": "text"})
    return run, manifest_of(run, load_model(run), {"a": "north", "b": "south"})


def own(run):
    return OwnSettings(data=run.data, engine=lookup(Engine, "sequential")(), model_path=run.model.path)


def test_a_node_makes_of_a_manifest_the_run_that_it_was_made_from(home):
    run, manifest = home
    back = run_at_node(Manifest.parsed(manifest.text), own(run))
    for key in ("model", "task", "local", "rule", "server_opt", "aggregator", "codec", "privacy", "rounds", "seed"):
        assert vars(back)[key] == vars(run)[key]
    assert back.evaluation.holdout == run.evaluation.holdout and back.data == run.data
    assert load_model(back).layout == manifest.layout


def test_no_path_of_the_server_travels(home):
    run, manifest = home
    assert str(run.model.path) not in manifest.text and str(run.data.path) not in manifest.text


@pytest.mark.parametrize(("deployment", "where"), [({"evaluate": False, "deadline_s": 1.0}, ".deadline_s"), ([], "")])
def test_of_the_deployment_a_node_hears_whether_it_is_asked_for_scores(home, deployment, where):
    _, manifest = home
    table = json.loads(manifest.text)
    table["settings"]["deployment"] = deployment
    with pytest.raises(DataError, match=rf"manifest\.settings\.deployment{where}: is "):
        Manifest.parsed(json.dumps(table))


@pytest.mark.parametrize("key", FORBIDDEN)
def test_a_setting_that_a_node_has_of_its_own_is_refused_by_name(home, key):
    _, manifest = home
    table = json.loads(manifest.text)
    table["settings"][key] = FORBIDDEN[key]
    with pytest.raises(DataError, match=f"manifest.settings.{key}: is nothing that a server may tell a node"):
        Manifest.parsed(json.dumps(table))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("model", "path"), "/etc"),
        (("model", "adapter"), "somewhere"),
        (("task", "template"), {"name": "jinja", "text": "{{ x }}"}),
        (("local", "lr"), "__import__('os')"),
        (("local", "lr"), None),
        (("local", "steps"), -1),
        (("local", "hook"), 1),
        (("rule", "name"), "os.system"),
        (("aggregator",), {"name": "fltrust", "root": []}),
        (("aggregator",), {"name": "update_classifier", "file": "x"}),
        (("privacy", "name"), ["none"]),
        (("evaluation", "metrics"), ["rouge_l"]),
        (("rounds",), 1e400),
    ],
)
def test_anything_that_would_not_come_back_is_refused(home, path, value):
    run, manifest = home
    table = json.loads(manifest.text)
    at = table["settings"]
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises(FedloomError):
        run_at_node(Manifest.parsed(json.dumps(table)), own(run))


@pytest.mark.parametrize("key", ["layout", "clients", "trained", "base_id", "settings", "fedloom"])
@pytest.mark.parametrize("value", [None, 3, "x" * 500, [1], {"a": 1}])
def test_a_manifest_whose_parts_are_of_another_kind_is_refused(home, key, value):
    _, manifest = home
    table = json.loads(manifest.text) | {key: value}
    with pytest.raises(DataError):
        Manifest.parsed(json.dumps(table))


@pytest.mark.parametrize("text", ["", "[]", "nothing", "{}", '{"a": 1}', "[" * 100_000])
def test_what_is_no_manifest_is_refused(text):
    with pytest.raises(DataError, match="manifest"):
        Manifest.parsed(text)


def test_one_changed_number_is_another_manifest(home):
    _, manifest = home
    table = json.loads(manifest.text)
    table["settings"]["local"]["steps"] += 1
    assert Manifest.parsed(json.dumps(table)).digest != manifest.digest
    assert Manifest.parsed(json.dumps(json.loads(manifest.text), sort_keys=False)).digest == manifest.digest


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"prepare": ["unchanged"]}, "prepare: found in a run whose clients are on other machines"),
        ({"protocol": "local_only"}, "protocol: found in a run whose clients are on other machines"),
    ],
)
def test_a_run_that_cannot_be_told_as_data_is_refused(tmp_path, changes, text):
    run = small_run(tmp_path, **changes)
    with pytest.raises(ConfigError, match=text):
        manifest_of(run, load_model(run), {"a": "north"})
