"""Every command of the README, in its order, in a new folder, with the libraries that it says it needs alone."""

import os
import re
import subprocess
import sys

import pytest

from support.bare import EXTRAS, hidden
from support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("fedloom ")
]
TEACHER = "{name = 'model', model = {name = 'causal_lm', adapter = 'runs/professional/adapter'}}"
SHORT = {
    "run": ["rounds=2", "local.steps=1", "evaluation.limit=4", "evaluation.resamples=20"],
    "sweep": ["rounds=1", "local.steps=1", "evaluation.resamples=20", "data.n_clients=3", "data.records=8"],
    "audit": ["rounds=2", "--canaries", "16", "--releases", "64"],
    "leakage": ["rounds=2", "local.steps=1"],
    "bench": ["common.rounds=2"],
    "evaluate": ["resamples=20"],
}
"""What makes a command of the README short; what it does stays the same."""
KNOWLEDGE = f"refine=[{{name='knowledge', questions=6, keep=3, max_question_tokens=12, teacher={TEACHER}}}]"


def split(line):
    """A command without its comment, and the extras that the comment names."""
    command, _, comment = line.partition("#")
    named = re.match(r"\s*\[([\w, -]+)\]", comment)
    extras = [one.strip() for one in named[1].split(",")] if named else []
    return command.strip(), extras


def shortened(command):
    words = command.split(" ")
    more = SHORT.get(words[1], []) + ([KNOWLEDGE] if "knowledge.toml" in command else [])
    at = words.index("--out") if "--out" in words else words.index(">") if ">" in words else len(words)
    return " ".join([*words[:at], *(f'"{word}"' for word in more), *words[at:]])


def carried_out(command, extras, folder):
    bare = f"{sys.executable} -m support.bare '{','.join(extras)}' -m fedloom "
    line = bare + command.removeprefix("fedloom ")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_command_runs_with_what_it_says_it_needs(tmp_path):
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    for line in COMMANDS:
        command, extras = split(line)
        done = carried_out(shortened(command), extras, tmp_path)
        assert done.returncode == 0, f"{command} {extras}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in COMMANDS if split(line)[1]], ids=lambda line: line.split("#")[0])
def test_a_command_without_its_extra_is_refused_before_anything_is_left(line, tmp_path):
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    for name in ("notes.jsonl", "records.jsonl"):
        (tmp_path / name).write_text('{"text": "Ada sells figs."}\n')
    command, extras = split(line)
    done = carried_out(command, [], tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert any(f"pip install fedloom[{extra}]" in done.stderr for extra in extras) or "runs/" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_the_commands_are_found():
    assert len(COMMANDS) > 20 and any(split(line)[1] for line in COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("extra", [one for one in EXTRAS if one in README])
def test_an_extra_hides_something_until_it_is_asked_for(extra):
    if extra not in ("all", "vllm", "bitsandbytes", "wandb", "mlflow", "ray"):  # not installed here
        assert hidden([extra]) < hidden([])


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL), ids=["objects", "events"])
def test_python_of_the_readme_runs(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    exec(compile(code, "README.md", "exec"), {})
    (out,) = (tmp_path / "runs").iterdir()
    assert (out / "adapter").is_dir() and "loss" in capsys.readouterr().out


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", README, re.DOTALL))
def test_settings_of_the_readme_are_read(block):
    import tomllib

    from fedloom.runs.tuning import read_run

    table = tomllib.loads(block)
    table.setdefault("data", {}).setdefault("name", "file")  # as the block before it has
    assert read_run(table)
