"""What is told of the engine on Ray where Ray is not installed, and which settings are refused before it is asked."""

import sys
from types import ModuleType

import pytest

from fedloom.base.errors import ConfigError
from support.small_runs import small_run


def test_without_ray_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"'ray': needs ray, which is not installed; pip install fedloom\[ray\]"):
        small_run(tmp_path, engine="ray")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"inner": "processes"}, "engine.inner: found 'processes' in 'ray', allowed are 'sequential' and 'cohort'"),
        ({"inner": "ray"}, "engine.inner: found 'ray' in 'ray', allowed are 'sequential' and 'cohort'"),
        ({"address": "local"}, "engine.address: found 'local', allowed is what `ray start` tells"),
        ({"workers": -1}, "workers: found -1, allowed is a number >= 0"),
        ({"max_restarts": -1}, "max_restarts: found -1, allowed is a number >= 0"),
    ],
)
def test_settings_are_refused(monkeypatch, tmp_path, settings, told):
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    with pytest.raises(ConfigError) as refused:
        small_run(tmp_path, engine={"name": "ray"} | settings)
    assert told in str(refused.value)


def test_worker_processes_start_no_cluster(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    with pytest.raises(ConfigError, match=r"engine.inner: found 'ray' in 'processes'"):
        small_run(tmp_path, engine={"name": "processes", "inner": "ray"})
