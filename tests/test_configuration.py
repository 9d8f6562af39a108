"""What the documents and `fedloom options` say of a run file is what the package takes."""

import json
import subprocess
import sys
import tomllib
from dataclasses import MISSING, fields, is_dataclass

import pytest

from fedloom.base.errors import ConfigError, UnknownNameError
from fedloom.base.options import options_of, place_of
from fedloom.base.plugin import Family, plugins
from fedloom.benchmark.suite import Suite
from fedloom.contracts.federated import Metric, Rule, Source
from fedloom.contracts.local_settings import LocalSettings
from fedloom.data.forms import FORMS
from fedloom.data.sources.file import File
from fedloom.runs.tuning import TuningRun
from support.command import fedloom
from support.tools import tool

CONFIGURATION = tool("configuration")


def records():
    """Every record of settings and every plug-in that a run file can name, with the key that leads there."""
    yield "", TuningRun
    for key, kind in CONFIGURATION._below("", TuningRun, set()):
        if not issubclass(kind, Family):
            yield key, kind
            continue
        shipped = [(name, one) for name, one in plugins(kind).items() if one.__module__.startswith("fedloom.")]
        yield from ((f"{key}={name}", one) for name, one in shipped if is_dataclass(one))


RECORDS = dict(records())


def test_the_document_is_what_the_package_says():
    # In a process of its own, as other tests have registered plug-ins in this one.
    told = subprocess.run([sys.executable, CONFIGURATION.__file__, "--check"], capture_output=True, text=True)
    assert told.returncode == 0, f"{told.stderr}: python tools/configuration.py writes it"


def test_records_of_all_kinds_are_met():
    assert len(RECORDS) > 100 and {"local", "rule=prox", "data=file", "data(file).files"} <= RECORDS.keys()


@pytest.mark.parametrize("key", RECORDS)
def test_every_key_says_what_it_takes_and_means(key):
    found = options_of(RECORDS[key])
    assert [one.key for one in found] == [item.name for item in fields(RECORDS[key]) if item.init]
    assert not [one.key for one in found if not one.meaning or not one.takes]


def test_defaults_are_told_as_a_run_file_would_write_them():
    for record in RECORDS.values():
        items = [item for item in fields(record) if item.init]
        for one, item in zip(options_of(record), items, strict=True):
            if item.default is MISSING and item.default_factory is MISSING:
                assert one.default == ""
            elif item.default is not MISSING and item.default is not None:
                value = tomllib.loads(f"it = {one.default}")["it"]
                assert value == (list(item.default) if isinstance(item.default, tuple) else item.default)


def test_every_key_of_a_suite_is_told():
    assert not [one.key for one in options_of(Suite) if not one.takes]


@pytest.mark.parametrize("name", FORMS)
def test_the_example_of_a_form_is_read_in_it(tmp_path, name):
    (tmp_path / "one.jsonl").write_text(json.dumps(FORMS[name].example) + "\n")
    (found,) = File(path=str(tmp_path / "one.jsonl"), form=name).load()["train"]
    assert "Ada" in found.text
    if FORMS[name].guessed:
        assert File(path=str(tmp_path / "one.jsonl")).load()["train"] == [found]


def test_a_key_leads_to_its_settings_or_plugins():
    found = [place_of(TuningRun, key) for key in ("rule", "data", "evaluation.metrics", "local")]
    assert found == [Rule, Source, Metric, LocalSettings]


def test_a_plain_setting_and_no_key_lead_nowhere():
    with pytest.raises(ConfigError, match="seed: is a setting itself"):
        place_of(TuningRun, "seed")
    with pytest.raises(UnknownNameError, match=r"local\.rate: no such key"):
        place_of(TuningRun, "local.rate")


def test_the_command_prints_keys_plugins_and_settings(monkeypatch, capsys):
    def said(*words):
        assert fedloom(monkeypatch, "options", *words) == 0
        return capsys.readouterr().out

    assert "rounds = 20\n    (whole number >= 1) Rounds of the federation." in said()
    assert "lr = 0.002\n    (number > 0) Learning rate of the first round." in said("local")
    assert "\nprox\n" in said("rule")
    (mu,) = json.loads(said("rule", "prox", "--json"))
    assert (mu["key"], mu["takes"]) == ("mu", "number >= 0")
    assert max(map(len, said("privacy", "gaussian").splitlines())) <= 79


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loacl"], "Did you mean 'local'?"),
        (["data", "fiel"], "Did you mean 'file'?"),
        (["local", "adam"], "local: no plug-in goes there, found 'adam'"),
    ],
)
def test_the_command_refuses_what_there_is_not(monkeypatch, capsys, words, message):
    assert fedloom(monkeypatch, "options", *words) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
