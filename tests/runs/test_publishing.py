"""Uploads to a hub: through its own methods, refused in one line before anything is written where there is none."""

import pytest

from fedloom.runs import publishing
from support.command import fedloom
from support.small_runs import write_run_file


class Hub:
    """The methods of HfApi that are used."""

    calls = ()

    def whoami(self):
        self.calls.append(("whoami",))

    def create_repo(self, repo_id, *, private, exist_ok):
        self.calls.append(("create", repo_id, private))
        return f"https://hub/{repo_id}"

    def upload_folder(self, *, repo_id, folder_path):
        self.calls.append(("upload", repo_id, sorted(path.name for path in folder_path.iterdir())))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(Hub, "calls", [])
    file = write_run_file(tmp_path, rounds=1, evaluation={"metrics": [], "resamples": 20})
    fedloom(monkeypatch, "run", file, "--out", tmp_path / "run", "--quiet")
    return tmp_path / "run"


def test_an_export_is_uploaded_privately_with_its_card(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(publishing, "HfApi", Hub)
    words = ["export", run, "--out", tmp_path / "out", "--push-to-hub", "me/mine"]
    assert fedloom(monkeypatch, *words, "--base", "me/base") == 0
    assert Hub.calls[:2] == [("whoami",), ("create", "me/mine", True)]
    assert {"README.md", "adapter_model.safetensors", "adapter_config.json"} <= set(Hub.calls[2][2])
    assert capsys.readouterr().out.endswith("https://hub/me/mine\n")


def test_a_folder_of_this_machine_is_no_base_for_others(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(publishing, "HfApi", Hub)
    assert fedloom(monkeypatch, "export", run, "--out", tmp_path / "out", "--push-to-hub", "me/mine") == 2
    assert "say with --base what others call it" in capsys.readouterr().err and Hub.calls == [("whoami",)]


@pytest.mark.parametrize(("token", "said"), [("hf_none", "offline mode is enabled"), ("", "nobody is logged in")])
def test_without_a_hub_it_is_refused_before_anything_is_written(run, tmp_path, monkeypatch, capsys, token, said):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    assert fedloom(monkeypatch, "export", run, "--out", tmp_path / "out", "--push-to-hub", "me/mine") == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1 and not (tmp_path / "out").exists()


def test_the_card_of_a_private_run_tells_nothing_of_what_is_held_out(tmp_path, monkeypatch):
    privacy = {"name": "gaussian", "noise_multiplier": 1.0, "epsilon": 0.0, "delta": 0.01}
    file = write_run_file(tmp_path, rounds=1, weighting="uniform", privacy=privacy)
    fedloom(monkeypatch, "run", file, "--out", tmp_path / "private", "--quiet")
    fedloom(monkeypatch, "export", tmp_path / "private", "--out", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Epsilon" in text and "## Scores" not in text and "| Clients |" not in text


def test_the_card_of_an_exported_run_has_its_scores(run, tmp_path, monkeypatch):
    fedloom(monkeypatch, "export", run, "--out", tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "## Scores" in text and "| test | loss |" in text and "| Clients | 4 |" in text
