"""The run directory: atomic, resumable, and clear when something is wrong with it."""

import json
import os
import subprocess
import sys

import pytest
import torch

from fedloom.base.errors import MissingFileError, RunError
from fedloom.base.files import atomic_folder, disk_errors, write_atomic
from fedloom.runs.directory import LOGS, Checkpoint, RunDirectory


@pytest.fixture
def directory(tmp_path):
    return RunDirectory.create(tmp_path / "run", {"run.toml": "seed = 0\n"})


def checkpoint(value):
    return Checkpoint({"params.safetensors": {"w": torch.full((3,), float(value))}}, {"round": value})


def test_existing_directory_is_refused(directory):
    with pytest.raises(RunError, match="exists and is not empty; choose another --out, or `fedloom resume"):
        RunDirectory.create(directory.path, {})


def test_missing_directory_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match="no run directory"):
        RunDirectory.open(tmp_path / "nowhere")


def test_last_checkpoint_is_restored(directory):
    for value in (1, 2, 3):
        directory.save(value, checkpoint(value))
    restored = directory.restore()
    assert restored.values == {"round": 3} and torch.equal(
        restored.trees["params.safetensors"]["w"], torch.full((3,), 3.0)
    )


def test_two_checkpoints_are_kept(directory):
    for value in range(5):
        directory.save(value, checkpoint(value))
    assert sorted(p.name for p in (directory.path / "checkpoints").iterdir()) == ["round_00003", "round_00004"]


def test_restoring_cuts_the_logs_back_to_the_checkpoint(directory):
    directory.append("metrics.jsonl", [{"a": 1}])
    directory.save(1, checkpoint(1))
    directory.append("metrics.jsonl", [{"a": 2}])
    directory.restore()
    assert directory.lines("metrics.jsonl") == [{"a": 1}]


def test_without_checkpoint_the_logs_start_anew(directory):
    directory.append("metrics.jsonl", [{"a": 1}])
    assert directory.restore() is None and directory.lines("metrics.jsonl") == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_damaged_checkpoint_is_refused_naming_the_one_to_go_on_from(directory, damage):
    for value in (1, 2):
        directory.save(value, checkpoint(value))
    file = directory.path / "checkpoints" / "round_00002" / "params.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes({"flip": bytes(data), "truncate": bytes(data[:20]), "empty": b""}[damage])
    with pytest.raises(
        RunError, match=r"bytes differ from what was saved; delete round_00002 to go on from round_00001"
    ):
        directory.restore()


def test_after_deleting_the_damaged_checkpoint_the_older_one_serves(directory):
    for value in (1, 2):
        directory.save(value, checkpoint(value))
    for file in (directory.path / "checkpoints" / "round_00002").iterdir():
        file.unlink()
    (directory.path / "checkpoints" / "round_00002").rmdir()
    assert directory.restore().values == {"round": 1}


STATE = "checkpoints/round_00002/state.json"


def three_saved(directory):
    """Three checkpoints, of which two are kept, with a line of every log before each."""
    for value in (0, 1, 2):
        for log in LOGS:
            directory.append(log, [{"a": value}])
        directory.save(value, checkpoint(value))


def test_any_character_of_the_state_file_changed_is_refused(directory):
    three_saved(directory)
    text = (directory.path / STATE).read_text()
    for place, character in enumerate(text):
        changed = chr(ord(character) ^ 1) if character.isalnum() else "x"
        (directory.path / STATE).write_text(text[:place] + changed + text[place + 1 :])
        with pytest.raises(RunError, match=r"cannot be read .*delete round_00002 to go on from round_00001"):
            directory.restore()
    (directory.path / STATE).write_text(text)
    assert directory.restore().values == {"round": 2}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "1" * 5000, "[" * 100_000, '{"values": {"round": 2}}'])
def test_a_state_file_of_another_form_is_refused(directory, text):
    directory.save(2, checkpoint(2))
    (directory.path / STATE).write_text(text)
    with pytest.raises(RunError, match=r"cannot be read .*there is no older one: start the run anew"):
        directory.restore()


def test_a_checkpoint_under_another_number_is_refused(directory):
    directory.save(1, checkpoint(1))
    (directory.path / "checkpoints/round_00001").rename(directory.path / "checkpoints/round_00005")
    with pytest.raises(RunError, match="differs from what was saved"):
        directory.restore()


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: data[:-2] + b"9" + data[-1:]])
def test_a_log_that_lost_lines_is_gone_on_with_from_the_checkpoint_that_it_covers(directory, log, damage):
    three_saved(directory)
    file = directory.path / log
    file.write_bytes(damage(file.read_bytes()))
    found = directory.restore()
    assert found.values == {"round": 1} and log in found.lost and "going on from round_00001" in found.lost
    assert all(directory.lines(name) == [{"a": 0}, {"a": 1}] for name in LOGS)


def test_a_log_that_covers_no_checkpoint_is_refused(directory):
    three_saved(directory)
    os.truncate(directory.path / "ledger.jsonl", 2)
    with pytest.raises(RunError, match="lines were lost; no checkpoint knows of less: start the run anew"):
        directory.restore()


def test_what_a_kill_left_half_written_or_half_removed_is_swept_up(directory):
    three_saved(directory)
    for name in (".round_00003.new", ".round_00000.old"):
        (directory.path / "checkpoints" / name).mkdir()
        (directory.path / "checkpoints" / name / "state.json").write_text("{")
    assert directory.restore().values == {"round": 2}
    names = sorted(path.name for path in (directory.path / "checkpoints").iterdir())
    assert names == ["round_00001", "round_00002"]


@pytest.mark.parametrize("text", ["", "{", "[]", "1" * 5000, "[" * 100_000, "\x00"])
def test_a_damaged_table_is_refused_by_its_name(directory, text):
    (directory.path / "chosen.json").write_text(text)
    with pytest.raises(RunError, match=r"chosen\.json: is not what fedloom wrote .*restore it from a copy"):
        directory.table("chosen.json")


def test_damaged_log_line_is_named(directory):
    directory.append("metrics.jsonl", [{"a": 1}])
    with (directory.path / "metrics.jsonl").open("a") as file:
        file.write('{"a":')
    with pytest.raises(RunError, match="line 2 is no JSON"):
        directory.lines("metrics.jsonl")


def test_two_processes_cannot_hold_one_directory(directory):
    code = "import sys; from pathlib import Path; from fedloom.runs.directory import RunDirectory\n"
    code += "with RunDirectory(Path(sys.argv[1])).held(): print('held')"
    with directory.held():
        other = subprocess.run([sys.executable, "-c", code, str(directory.path)], capture_output=True, text=True)
    assert "another process is at work" in other.stderr


def test_full_disk_is_one_clear_line(tmp_path):
    with pytest.raises(RunError, match="the disk is full"), disk_errors(tmp_path):
        raise OSError(28, "No space left on device")


def test_unwritable_folder_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be written .*choose another --out"):
        RunDirectory.create(tmp_path / "file" / "run", {})


def test_failed_fill_leaves_the_old_folder_alone(tmp_path):
    with atomic_folder(tmp_path / "adapter") as new:
        (new / "a").write_text("old")
    with pytest.raises(ValueError, match="stop"), atomic_folder(tmp_path / "adapter") as new:
        (new / "a").write_text("new")
        raise ValueError("stop")
    assert (tmp_path / "adapter" / "a").read_text() == "old"


def test_failed_write_leaves_the_old_file_alone(tmp_path):
    write_atomic(tmp_path / "a.json", json.dumps(1))
    with pytest.raises(UnicodeEncodeError):
        write_atomic(tmp_path / "a.json", "\ud800")
    assert (tmp_path / "a.json").read_text() == "1"


@pytest.mark.parametrize(("umask", "folder_mode", "file_mode"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_a_new_folder_has_the_mode_that_the_umask_leaves(tmp_path, umask, folder_mode, file_mode):
    before = os.umask(umask)
    try:
        with atomic_folder(tmp_path / "made") as folder:
            (folder / "file").write_text("x")
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "made", tmp_path / "made" / "file")]
    assert modes == [folder_mode, file_mode]


def test_an_empty_folder_keeps_its_mode(tmp_path):
    (tmp_path / "run").mkdir(mode=0o700)
    RunDirectory.create(tmp_path / "run", {"run.toml": ""})
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "run" / "run.toml").stat().st_mode & 0o777 == 0o600
