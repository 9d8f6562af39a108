"""The tool that says whether two makings of the small runs are the same."""

import json
import shutil

import pytest

from fedloom import api
from support.small_runs import small_run
from support.tools import tool as tool_of


@pytest.fixture(scope="module")
def tool():
    return tool_of("same_runs")


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twice")
    for name in ("one", "other"):
        list(api.start(small_run(folder, rounds=1), folder / name / "run"))
    return folder / "one" / "run", folder / "other" / "run"


def test_a_run_made_twice_is_the_same_whenever_it_was_made(tool, twice, capsys):
    assert tool.main(["compare", *map(str, twice)]) == 0 and capsys.readouterr().out == "the same\n"


@pytest.mark.parametrize("name", ["metrics.jsonl", "adapter/adapter_model.safetensors", "report.md", "partition.json"])
def test_one_letter_more_is_told_by_its_file(tool, twice, tmp_path, name):
    changed = shutil.copytree(twice[0], tmp_path / "changed")
    if name.endswith("jsonl"):
        (changed / name).write_text((changed / name).read_text() + json.dumps({"name": "more"}) + "\n")
    else:
        (changed / name).write_bytes((changed / name).read_bytes() + b"x")
    assert list(tool.differences(changed, twice[1])) == [f"{name}: differs"]


def test_a_file_that_is_gone_is_told(tool, twice, tmp_path):
    changed = shutil.copytree(twice[0], tmp_path / "changed")
    (changed / "ledger.jsonl").unlink()
    assert list(tool.differences(twice[1], changed)) == [f"ledger.jsonl: missing in {changed}"]


def test_every_kind_is_a_run(tool):
    for file, changes in tool.KINDS.values():
        api.load_run(tool.EXPERIMENTS / f"{file}.toml", [*tool.SMALL, *changes])
