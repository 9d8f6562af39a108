"""Models in GGUF: converted once, by content; what cannot be read is refused in a line and leaves nothing."""

import errno
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import gguf
import pytest
import torch

from fedloom.base.errors import ConfigError, ModelError, RunError
from fedloom.models import gguf_files
from fedloom.models.checkpoint import Checkpoint
from support.command import fedloom
from support.gguf_model import TEMPLATE, gguf_file
from support.models import model_folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    gguf_files._converted.cache_clear()
    monkeypatch.setenv("FEDLOOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


@pytest.fixture
def file(tmp_path):
    gguf_file(tmp_path / "tiny.gguf")
    return tmp_path / "tiny.gguf"


def test_a_gguf_file_is_a_model(tmp_path, cache):
    """Weights of eight bits in blocks of 32 are off by less than a 250th of the largest of a block."""
    original = gguf_file(tmp_path / "tiny.gguf")
    found = Checkpoint.find(str(tmp_path / "tiny.gguf"))
    assert found.name == "tiny" and found.folder.parent == cache
    read = found.module(dtype="float32")
    for name, weight in original.state_dict().items():
        error = (read.state_dict()[name] - weight).abs().max()
        assert error < 0.01 * weight.abs().max(), name
    assert found.tokenizer().chat_template == TEMPLATE
    tokens_BT = torch.arange(3, 19)[None]
    with torch.no_grad():
        ours_BTV, theirs_BTV = (model.eval()(tokens_BT).logits for model in (read, original))
    assert torch.cosine_similarity(ours_BTV, theirs_BTV, dim=-1).min() > 0.999


def test_it_is_converted_once_and_told_by_its_content(file, cache, monkeypatch):
    first = Checkpoint.find(str(file)).folder
    gguf_files._converted.cache_clear()  # as in another process
    monkeypatch.setattr(gguf_files, "convert", lambda *_: pytest.fail("converted twice"))
    copy = shutil.copyfile(file, file.with_name("another.gguf"))
    assert Checkpoint.find(str(copy)).folder == first == next(cache.iterdir())


def test_a_run_takes_it(file, tmp_path, monkeypatch, capsys):
    records = [{"prompt": f"ab{at}", "completion": "ba", "client": f"c{at % 2}"} for at in range(8)]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    settings = f"""
    rounds = 1
    model = {{ name = "causal_lm", path = "{file}" }}
    data = {{ name = "file", path = "{tmp_path}/records.jsonl", tags = {{ client = "client" }} }}
    task = {{ name = "sft", template = "bare" }}
    local = {{ lr = 1e-3, steps = 1, batch = 2 }}
    evaluation = {{ metrics = [] }}"""
    (tmp_path / "run.toml").write_text(settings)
    assert fedloom(monkeypatch, "run", tmp_path / "run.toml", "--out", tmp_path / "run") == 0, capsys.readouterr().err


def without_a_tail(file):
    file.write_bytes(file.read_bytes()[:-3000])


def of_another_kind(file):
    file.write_bytes(b"PK\3\4" + file.read_bytes()[4:])


def of_an_unknown_architecture(file):
    gguf_file(file, architecture="clip")


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (without_a_tail, r"tiny.gguf: no complete GGUF file \(.*\); fetch it again"),
        (of_another_kind, r"tiny.gguf: begins with b'PK.*', a GGUF file with b'GGUF'; fetch it again"),
        (
            of_an_unknown_architecture,
            "architecture 'clip', which transformers does not read from GGUF; read .*llama",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_and_leaves_nothing(file, cache, spoilt, message):
    spoilt(file)
    with pytest.raises(ModelError, match=message):
        Checkpoint.find(str(file))
    assert not list(cache.glob("*"))


def test_a_quantisation_without_numbers_is_refused_by_its_name(file, cache, monkeypatch):
    def unknown(data, kind):
        raise NotImplementedError

    monkeypatch.setattr(gguf, "dequantize", unknown)
    with pytest.raises(
        ModelError, match=r"'.*weight' is quantised as Q8_0, which cannot be dequantised; give a file of"
    ):
        Checkpoint.find(str(file))
    assert not list(cache.glob("*"))


def test_too_little_memory_is_told_before_anything_is_read(file, monkeypatch):
    monkeypatch.setattr(gguf_files, "free_bytes", lambda _: 1000)
    monkeypatch.setattr(gguf_files, "load", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(ModelError, match=r"takes 0.0 GiB to convert, 0.0 are free; convert it on a larger machine"):
        Checkpoint.find(str(file))


def test_the_extra_is_asked_for(file, monkeypatch):
    def missing(who, *libraries):
        raise ConfigError(f"{who}: needs {libraries}")

    monkeypatch.setattr(gguf_files, "require", missing)
    with pytest.raises(ConfigError, match=r"'tiny.gguf': needs \('gguf', 'accelerate'\)"):
        Checkpoint.find(str(file))


def test_a_full_disk_is_told_in_a_line_and_leaves_nothing(file, cache, monkeypatch):
    def full(self, folder, **_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)
    with pytest.raises(RunError, match="the disk is full; free some space"):
        Checkpoint.find(str(file))
    assert not list(cache.glob("*"))


def test_who_comes_second_waits_for_the_first_and_converts_nothing(file, cache, monkeypatch):
    """As the runs of a suite do, each in a process of its own."""
    begun, go_on, made = threading.Event(), threading.Event(), []

    def slowly(_, folder):
        begun.set()
        assert go_on.wait(60)
        made.append(model_folder(folder))

    monkeypatch.setattr(gguf_files, "convert", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(gguf_files.converted, file)
        assert begun.wait(60)
        second = pool.submit(gguf_files.converted, file)
        go_on.set()
        assert first.result(60) == second.result(60) == next(cache.iterdir())
    assert len(made) == 1


def test_a_cache_that_cannot_be_written_is_told_in_a_line(file, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("FEDLOOM_CACHE", str(tmp_path / "taken" / "cache"))
    with pytest.raises(RunError, match=r"taken/cache: cannot be written \(Not a directory\)"):
        Checkpoint.find(str(file))
