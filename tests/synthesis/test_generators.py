"""Generators of every kind of example by one contract, the words that they are given, and what they cannot give."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from fedloom.base.errors import ConfigError, DataError, FedloomError, MissingFileError
from fedloom.base.plugin import lookup, names
from fedloom.contracts.evaluation import Completer
from fedloom.contracts.examples import chat
from fedloom.contracts.generation import Generated, Generator, Place, Prompter, Request, is_generated
from fedloom.contracts.labelled import Picture, Row

LABELS = ("cat", "dog")
# Whoever plugs one in; those of other tests in this process are none of ours.
GENERATORS = [name for name in names(Generator) if not lookup(Generator, name).__module__.startswith("test_")]


def picture(seed, label="cat", shape=(1, 4, 4)):
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return Picture(pixels.tobytes(), shape, label, {"label": label})


def row(seed, label="cat", size=3):
    values = np.random.default_rng(seed).normal(size=size)
    return Row(tuple(values.tolist()), label, {"label": label})


def told(seed, label="cat"):
    return chat(f"What is {label} number {seed}?", f"It is {seed}.", label=label, topic=label)


KINDS = {"picture": picture, "row": row, "text": told}


def place_of(kind, folder=None):
    return Place(tuple(KINDS[kind](at, LABELS[at % 2]) for at in range(12)), folder)


def requests(*labels, **more):
    return [Request(label=label, prompt=f"a photo of {label}", seed=at, **more) for at, label in enumerate(labels)]


class Output(dict):
    """What a pipeline returns: a dictionary whose keys are attributes, too."""

    @property
    def images(self):
        return self["images"]


class FakePipeline:
    """A pipeline as `diffusers` has it: draws by its generator, remembers how it was asked."""

    asked: ClassVar[list] = []
    blacked = False

    @classmethod
    def from_pretrained(cls, folder, **options):
        assert options["trust_remote_code"] is False and options["local_files_only"] and options["use_safetensors"]
        return cls()

    def set_progress_bar_config(self, **_):
        pass

    def to(self, _):
        return self

    def __call__(self, **how):
        type(self).asked.append(how)
        import torch

        pixels = torch.randint(0, 256, (9, 7, 3), generator=how["generator"]).numpy().astype(np.uint8)
        if "image" in how:
            pixels = np.asarray(how["image"].resize((7, 9)))
        return Output(images=[Image.fromarray(pixels)], nsfw_content_detected=[self.blacked])


@pytest.fixture
def fake_diffusers(monkeypatch):
    fake = SimpleNamespace(AutoPipelineForText2Image=FakePipeline, AutoPipelineForImage2Image=FakePipeline)
    monkeypatch.setitem(sys.modules, "diffusers", fake)
    monkeypatch.setitem(sys.modules, "diffusers.utils.logging", SimpleNamespace(disable_progress_bar=lambda: None))
    FakePipeline.asked, FakePipeline.blacked = [], False


def pictures_in(folder, n=3, manifest=True):
    lines = []
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for at in range(n):
            file = folder / label / f"{at}.png"
            Image.fromarray(np.full((4, 4), 40 * at + len(label), np.uint8)).save(file)
            lines.append({"file": f"{label}/{at}.png", "class": label, "prompt": label, "model": "elsewhere"})
    if manifest:
        (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def pipeline_in(folder):
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    return folder


def built(name, tmp_path):
    """A generator of a name with what it needs on disk, and the kind of examples that it is tried with."""
    by_name = {
        "folder": lambda: ({"path": str(pictures_in(tmp_path / "made")), "colours": 1}, "picture"),
        "diffusers": lambda: ({"path": str(pipeline_in(tmp_path / "pipe")), "to": (1, 4, 4)}, "picture"),
        "topics": lambda: (
            {
                "by": "label",
                "completer": lookup(Completer, "canned")(
                    patterns={"cat|dog": "Who purrs here?\nResponse: The animal."}
                ),
            },
            "text",
        ),
        "public": lambda: ({}, "text"),
    }
    settings, kind = by_name.get(name, lambda: ({}, "row"))()
    return lookup(Generator, name)(**settings), kind


# ----------------------------------------------------------------------------- the contract, for whatever is plugged in


@pytest.mark.usefixtures("fake_diffusers")
@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_gives_a_marked_sample_of_its_class_for_each_request(name, tmp_path):
    generator, kind = built(name, tmp_path)
    found = generator(requests("cat", "dog", "cat"), place_of(kind, tmp_path / "own"))
    assert [one.tags["label"] for one in found.samples] == ["cat", "dog", "cat"]
    assert all(is_generated(one) and isinstance(one, generator.makes) for one in found.samples)


@pytest.mark.usefixtures("fake_diffusers")
@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_gives_the_same_again_and_nothing_for_nothing(name, tmp_path):
    generator, kind = built(name, tmp_path)
    one, again = (generator(requests("cat", "dog"), place_of(kind, tmp_path / at)).samples for at in "ab")
    assert list(one) == list(again)
    assert list(generator([], place_of(kind, tmp_path / "c")).samples) == []


@pytest.mark.usefixtures("fake_diffusers")
@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_has_an_identity_and_says_where_it_runs(name, tmp_path):
    generator, kind = built(name, tmp_path)
    assert isinstance(generator.identity(), str) and generator.remote() == ""
    assert generator.model_bytes(place_of(kind)) >= 0


@pytest.mark.usefixtures("fake_diffusers")
@pytest.mark.parametrize("name", [one for one in GENERATORS if lookup(Generator, one).data_guided])
def test_a_guide_decides_about_the_sample(name, tmp_path):
    generator, kind = built(name, tmp_path)
    place, guides = place_of(kind, tmp_path / "own"), [KINDS[kind](at, "cat") for at in (0, 2)]
    ask = requests("cat")[0]
    guided = [replace(ask, guide=guide, strength=0.0) for guide in guides]
    if name == "topics":  # the completer here writes the same whatever it is shown
        assert len(generator(guided, place).samples) == 2
        return
    one, other = (generator([request], place).samples[0] for request in guided)
    assert one != other


@pytest.mark.parametrize("name", names(Prompter))
def test_prompters_give_words_with_the_class_by_the_seed(name):
    answers = {"Describe": "cat asleep in the sun"}
    settings = {"completer": lookup(Completer, "canned")(patterns=answers)} if name == "written" else {}
    prompter = lookup(Prompter, name)(**settings)
    found = prompter("cat", 5, 1, Place())
    assert len(found) == 5 and all("cat" in one for one in found)
    assert found == prompter("cat", 5, 1, Place()) and prompter("cat", 0, 1, Place()) == []


# ----------------------------------------------------------------------------------------------------- three modalities


@pytest.mark.parametrize("kind", KINDS)
def test_one_interface_serves_pictures_rows_and_text(kind, tmp_path):
    name = "topics" if kind == "text" else "gaussian"
    generator = built(name, tmp_path)[0]
    found = generator(requests(*LABELS), place_of(kind, tmp_path / "own"))
    assert isinstance(found, Generated) and [type(one) for one in found.samples] == [type(KINDS[kind](0))] * 2


# ------------------------------------------------------------------------------------------------- class-wise Gaussians


def test_samples_have_the_mean_and_covariance_of_the_class_by_hand():
    public = tuple(row(at, LABELS[at % 2]) for at in range(60))
    gaussian = lookup(Generator, "gaussian")(dimensions=3)
    many = [Request(label="cat", prompt="", seed=at) for at in range(4000)]
    made = np.stack([one.values for one in gaussian(many, Place(public)).samples])
    cats = np.stack([one.values for one in public if one.label == "cat"])
    np.testing.assert_allclose(made.mean(0), cats.mean(0), atol=0.08)
    np.testing.assert_allclose(np.cov(made.T), np.cov(cats.T), atol=0.12)


def test_a_guide_at_strength_zero_is_given_back():
    public = tuple(row(at, LABELS[at % 2]) for at in range(20))
    guide = row(99)
    (made,) = lookup(Generator, "gaussian")(dimensions=3)(
        requests("cat", guide=guide, strength=0.0), Place(public)
    ).samples
    np.testing.assert_allclose(made.values, guide.values, atol=1e-9)


def test_without_temperature_all_samples_are_the_mean_of_the_class():
    gaussian = lookup(Generator, "gaussian")(temperature=0.0)
    one, other = gaussian(requests("cat", "cat"), place_of("picture")).samples
    assert one == other


def test_a_gap_blurs_and_pales_pictures():
    place = place_of("picture")
    near, far = (lookup(Generator, "gaussian")(gap=gap)(requests("cat"), place).samples[0].inputs for gap in (0.0, 1.0))
    assert far.std() < 0.7 * near.std()


@pytest.mark.parametrize(
    ("place", "asked", "said"),
    [
        (place_of("picture"), requests("bird"), "class 'bird' has 0 public examples"),
        (Place(), requests("cat"), "found 0 public pictures or rows"),
        (place_of("text"), requests("cat"), "found 0 public pictures or rows"),
        (place_of("row"), requests("cat", guide=row(1, size=5), strength=0.5), "shape \\[3\\]"),
        (Place((picture(1), picture(2, shape=(1, 2, 2)))), requests("cat"), "of one shape"),
    ],
)
def test_what_a_gaussian_cannot_fit_is_refused(place, asked, said):
    with pytest.raises(DataError, match=said):
        lookup(Generator, "gaussian")()(asked, place)


# ------------------------------------------------------------------------------------------------------ files of others


def test_a_folder_gives_no_file_twice_and_refuses_more_than_it_has(tmp_path):
    generator = built("folder", tmp_path)[0]
    found = generator(requests("cat", "cat", "cat"), Place()).samples
    assert len({one.pixels for one in found}) == 3
    with pytest.raises(DataError, match=r"4 pictures of class 'cat' are asked for, it has 3"):
        generator(requests(*["cat"] * 4), Place())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"file": "cat/9.png", "class": "cat"}, "is no file of the folder"),
        ({"file": "../outside.png", "class": "cat"}, "is no file of the folder"),
        ({"file": "cat/0.png", "class": "dog"}, "lies in 'cat', its class is 'dog'"),
        ({"file": "cat/0.png", "class": "cat", "sha256": "0" * 64}, "is not the file of this sha256"),
        ({"file": "cat/0.png"}, "is no record with file and class"),
        ([], "is no record with file and class"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_by_its_line(line, said, tmp_path):
    generator = built("folder", tmp_path)[0]
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "outside.png")
    (tmp_path / "made" / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(DataError, match=said) as told:
        generator(requests("cat"), Place())
    assert "manifest.jsonl: line 1" in str(told.value)


@pytest.mark.parametrize("path", ["", "nowhere"])
def test_a_folder_that_is_none_is_refused(path):
    with pytest.raises(MissingFileError, match="no such folder"):
        lookup(Generator, "folder")(path=path)(requests("cat"), Place())


def test_real_public_examples_come_without_repetition_as_far_as_they_reach():
    found = lookup(Generator, "public")()(requests(*["cat"] * 7), place_of("row")).samples
    assert len({one.values for one in found[:6]}) == 6 and found[6].values in {one.values for one in found[:6]}
    with pytest.raises(DataError, match="class 'bird' has no public example"):
        lookup(Generator, "public")()(requests("bird"), place_of("row"))


# ------------------------------------------------------------------------------------------------------------ diffusion


@pytest.mark.usefixtures("fake_diffusers")
def test_a_pipeline_is_asked_with_words_seed_and_strength_and_its_pictures_are_scaled(tmp_path):
    generator = replace(built("diffusers", tmp_path)[0], steps=20, negative="text")
    asked = [*requests("cat"), *requests("dog", guide=picture(3, "dog"), strength=0.001)]
    found = generator(asked, Place()).samples
    assert [one.shape for one in found] == [(1, 4, 4)] * 2
    first, second = FakePipeline.asked[:2]
    assert first["prompt"] == "a photo of cat" and first["negative_prompt"] == "text" and "image" not in first
    assert second["strength"] == 1 / 20  # one step at least
    again = generator(requests("cat", "dog"), Place()).samples
    assert again[0] == found[0] and again[1] != again[0]  # each by its own seed


@pytest.mark.usefixtures("fake_diffusers")
def test_a_picture_that_was_blacked_out_did_not_come(tmp_path):
    generator, FakePipeline.blacked = built("diffusers", tmp_path)[0], True
    assert list(generator(requests("cat"), Place()).samples) == [None]


@pytest.mark.usefixtures("fake_diffusers")
@pytest.mark.parametrize("path", ["", "nowhere"])
def test_a_pipeline_that_is_not_there_is_refused(path):
    with pytest.raises(MissingFileError, match=r"no pipeline there \(model_index.json\)"):
        lookup(Generator, "diffusers")(path=path)(requests("cat"), Place())


@pytest.mark.usefixtures("fake_diffusers")
def test_a_folder_that_is_no_pipeline_is_refused_in_one_line(tmp_path, monkeypatch):
    generator = built("diffusers", tmp_path)[0]

    def broken(*_, **__):
        raise OSError("no file named unet\nand more")

    monkeypatch.setattr(FakePipeline, "from_pretrained", broken)
    with pytest.raises(FedloomError, match="is no pipeline for it") as told:
        generator(requests("cat"), Place())
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("diffusers", {"size": (3,)}, "height, width"),
        ("diffusers", {"to": (2, 8, 8)}, "1 or 3 channels"),
        ("topics", {"label": "Is it good?"}, "{text}"),
    ],
)
@pytest.mark.usefixtures("fake_diffusers")
def test_settings_that_cannot_be_are_refused(name, settings, said):
    with pytest.raises(ConfigError, match=said):
        lookup(Generator, name)(**settings)


def test_without_the_library_a_pipeline_is_refused_with_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    monkeypatch.delitem(sys.modules, "diffusers", raising=False)
    with pytest.raises(ConfigError, match=r"pip install fedloom\[diffusers\]"):
        lookup(Generator, "diffusers")(path="x")


# -------------------------------------------------------------------------------------------------------- text by topic


def test_a_class_of_texts_is_asked_for_in_turn():
    completer = lookup(Completer, "canned")(patterns={"cat": "I love my cat."})
    topics = lookup(Generator, "topics")(completer=completer, by="mood", label="Which mood: {text}")
    (found,) = topics(requests("cat"), Place()).samples
    assert (found.prompt[-1].text, found.reference, found.tags["mood"]) == ("Which mood: I love my cat.", "cat", "cat")


def test_what_is_no_pair_did_not_come():
    topics = lookup(Generator, "topics")(completer=lookup(Completer, "canned")(patterns={".": "no pair at all"}))
    assert list(topics(requests("cat"), Place()).samples) == [None]


def test_answers_are_kept_so_that_nothing_is_asked_twice(tmp_path):
    topics = built("topics", tmp_path)[0]
    topics(requests("cat"), Place(folder=tmp_path))
    lines = (tmp_path / "answers.jsonl").read_text()
    topics(requests("cat"), Place(folder=tmp_path))
    assert (tmp_path / "answers.jsonl").read_text() == lines


# ---------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("single", {"template": "a photo"}),
        ("single", {"template": "{label} {scene}"}),
        ("single", {"template": "{label"}),
        ("multiple", {"templates": ()}),
        ("multiple", {"attributes": ()}),
        ("multiple", {"templates": ("a {label}", "nothing")}),
        ("written", {"ask": "Describe a picture."}),
    ],
)
def test_templates_without_their_class_are_refused(name, settings):
    with pytest.raises(ConfigError):
        lookup(Prompter, name)(**settings)


def test_multiple_prompts_differ_and_single_ones_do_not():
    one, many = (set(lookup(Prompter, name)()("cat", 30, 0, Place())) for name in ("single", "multiple"))
    assert len(one) == 1 and len(many) > 5


def test_a_model_that_writes_no_words_is_refused():
    written = lookup(Prompter, "written")(completer=lookup(Completer, "canned")(patterns={".": " "}))
    with pytest.raises(FedloomError, match="wrote nothing about class 'cat'"):
        written("cat", 2, 0, Place())
