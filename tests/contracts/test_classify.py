"""Pictures and rows through the whole frame: sources, families of models, the task, rules, engines and mechanisms."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from fedloom import api
from fedloom.base.errors import ConfigError, DataError, FedloomError
from fedloom.base.plugin import lookup, names
from fedloom.contracts.federated import Codec, Engine, ModelFamily, Rule, ServerOpt, Source, Task
from fedloom.contracts.labelled import ClassifierModel, Picture, Row
from fedloom.evaluation.calibration import calibration_error
from fedloom.federated.kernels import client_gradients, example_gradients
from fedloom.models._classifiers import Classifier
from fedloom.results.classes import class_lines
from fedloom.results.outcome import outcome
from fedloom.runs.directory import RunDirectory
from fedloom.runs.tuning import read_run
from support.digits import changed

CPU = torch.device("cpu")
FAMILIES = [name for name in names(ModelFamily) if issubclass(lookup(ModelFamily, name), Classifier)]
TABLE = changed(
    rounds=3,
    model={"hidden": [16]},
    data={"public": 10, "test": 60, "private": 160},
    partition={"name": "dirichlet", "by": "label", "alpha": 0.5},
    local={"lr": 0.2, "steps": 10, "batch": 16},
    evaluation={"metrics": ["exact_match"]},
)


def scores(folder, **changes):
    """Means of the final scores on the test of a run of the table with these changes."""
    list(api.start(read_run(TABLE | changes), folder))
    found = outcome(RunDirectory.open(folder)).results["final"]
    tests = [one for one in found if one.set == "test"]
    return {name: sum(one.scores[name].value for one in tests) / len(tests) for name in tests[0].scores}


CHOICES = {
    "as it is": {},
    **{f"engine {name}": {"engine": name} for name in names(Engine) if name != "ray"},  # tests/carriers has that one
    **{f"rule {name}": {"rule": name} for name in names(Rule)},
    **{
        f"codec {name}": {"codec": {"name": name} | ({"share": 0.5} if name == "top_k" else {})}
        for name in names(Codec)
    },
    **{
        f"server_opt {name}": {"server_opt": {"name": name, "lr": 1.0 if name == "sgd" else 0.05}}
        for name in names(ServerOpt)
    },
    **{f"protocol {name}": {"protocol": name} for name in ("local_only", "centralised")},
    "small_cnn": {
        "model": {"name": "small_cnn", "inputs": [1, 8, 8], "classes": 10, "channels": 4, "hidden": 16},
        "local": TABLE["local"] | {"steps": 60},
    },
    "a private layer": {"share": r"^1\."},
}


@pytest.mark.parametrize(
    "choice", [pytest.param(one, marks=[pytest.mark.slow] if one == "engine processes" else []) for one in CHOICES]
)
def test_digits_are_learnt_under(choice, tmp_path):
    assert scores(tmp_path / "run", **CHOICES[choice])["accuracy"] > 0.2


@pytest.mark.parametrize("unit", ["example", "client"])
def test_digits_are_learnt_privately_with_an_account(unit, tmp_path):
    privacy = {"name": "gaussian", "unit": unit, "noise_multiplier": 0.05, "epsilon": 0.0, "delta": 0.001, "clip": 4.0}
    local = TABLE["local"] | {"lr": 0.5, "steps": 20}
    changes = {"privacy": privacy, "weighting": "uniform", "local": local, "rounds": 8}
    assert scores(tmp_path / "run", **changes)["accuracy"] > 0.2
    assert json.loads((tmp_path / "run" / "privacy.json").read_text())["unit"] == unit


def test_accuracy_is_the_share_of_right_answers(tmp_path):
    found = scores(tmp_path / "run")
    assert found["accuracy"] == pytest.approx(found["exact_match"])


def test_what_a_run_shows_has_the_calibration_error_and_each_class_the_worst_first(tmp_path):
    list(api.start(read_run(TABLE), tmp_path / "run"))
    found = outcome(RunDirectory.open(tmp_path / "run"))
    tests = [one for one in found.results["final"] if one.set == "test"]
    told = [[one.scores[name].value for one in tests] for name in ("confidence", "accuracy")]
    assert found.corpus["calibration_error"]["final"].value == pytest.approx(calibration_error(*told))
    (line,) = class_lines(found)
    values = [float(part.split()[-1]) for part in line.split(", ")]
    assert line.startswith("accuracy by class: ") and values == sorted(values) and len(values) == 10
    assert line in (tmp_path / "run" / "report.md").read_text()


def test_a_run_that_was_stopped_ends_with_the_same_bytes(tmp_path):
    run = read_run(TABLE)
    list(api.start(run, tmp_path / "whole"))
    events = api.start(run, tmp_path / "stopped")
    for _ in range(3):
        next(events)
    events.close()
    list(api.resume(tmp_path / "stopped")[1])
    one, other = (tmp_path / name / "adapter" / "model.safetensors" for name in ("whole", "stopped"))
    assert one.read_bytes() == other.read_bytes()


def test_what_is_written_is_the_whole_model(tmp_path):
    list(api.start(read_run(TABLE), tmp_path / "run"))
    family = lookup(ModelFamily, "mlp")(inputs=(1, 8, 8), classes=10, hidden=(16,))
    module = family.module()
    module.load_state_dict(load_file(tmp_path / "run" / "adapter" / "model.safetensors"))


# -------------------------------------------------------------------------------------------------------------- models


def built(name, seed=0, **changes):
    settings = {"inputs": (3, 8, 8), "classes": 5} | changes
    return lookup(ModelFamily, name)(**settings).build(seed=seed, device=CPU)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_gives_a_score_for_each_class(name):
    model = built(name)
    assert model.module(torch.rand(2, 3, 8, 8)).shape == (2, 5) and isinstance(model, ClassifierModel)


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_are_the_seeds_own(name):
    one, again, other = built(name), built(name), built(name, seed=1)
    assert one.base_id == again.base_id != other.base_id


@pytest.mark.parametrize("name", FAMILIES)
def test_examples_of_a_batch_do_not_influence_one_another(name):
    module = built(name).module
    x = torch.rand(3, 3, 8, 8)
    torch.testing.assert_close(module(x)[1], module(x[1:2])[0])


def test_resnets_have_the_depth_of_their_name():
    for depth, count in ((18, 18), (20, 20)):
        module = lookup(ModelFamily, "resnet")(inputs=(3, 8, 8), classes=5, depth=depth).module()
        counted = [one for one in module.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
        assert sum(not isinstance(one, nn.Conv2d) or one.kernel_size != (1, 1) for one in counted) == count


def test_parameters_to_train_are_chosen_by_a_pattern():
    model = lookup(ModelFamily, "mlp")(inputs=(4,), classes=2).build(seed=0, device=CPU, train=r"^3\.")
    assert list(model.trainable) == ["3.weight", "3.bias"]
    with pytest.raises(ConfigError, match="selects no parameter"):
        lookup(ModelFamily, "mlp")(inputs=(4,), classes=2).build(seed=0, device=CPU, train="attention")


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("small_cnn", {"inputs": (9,)}, "allowed is"),
        ("small_cnn", {"inputs": (1, 2, 9)}, "4 or more"),
        ("resnet", {"inputs": (1, 7, 9)}, "8 or more"),
        ("resnet", {"groups": 3}, "1, 2, 4, 8 or 16"),
        ("mlp", {"classes": 0}, "classes"),
    ],
)
def test_a_family_refuses_shapes_that_it_cannot_take(name, settings, said):
    with pytest.raises(ConfigError, match=said):
        lookup(ModelFamily, name)(**({"inputs": (3, 8, 8), "classes": 5} | settings))


# ---------------------------------------------------------------------------------------------------------------- task


def rows(model, n, seed=0):
    draw = np.random.default_rng(seed)
    task = lookup(Task, "classify")()
    width = math.prod(model.inputs)
    found = [Row(tuple(map(float, draw.random(width))), str(draw.integers(model.n_classes))) for _ in range(n)]
    return task, [task.encode(one, model) for one in found]


def by_hand(model, params, items):
    """Losses and gradients of each example, by autograd of the module itself."""
    told = []
    for item in items:
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in params.items()}
        scores = torch.func.functional_call(model.module, leaves, (item.inputs[None],))[0]
        loss = scores.logsumexp(0) - scores[item.label]
        told.append((loss.item(), torch.autograd.grad(loss, list(leaves.values()))))
    return told


def stacked(model, n):
    return {name: torch.stack([tensor + 0.01 * k for k in range(n)]) for name, tensor in model.trainable.items()}


@pytest.mark.parametrize("sizes", [(4, 4), (5, 2), (1, 3), (6,)])
def test_gradients_of_clients_are_those_of_autograd(sizes):
    model = built("mlp", inputs=(6,), hidden=(4,))
    task, items = rows(model, sum(sizes))
    parts, start = [], 0
    for size in sizes:
        parts.append(items[start : start + size])
        start += size
    leaves = {name: tensor.requires_grad_() for name, tensor in stacked(model, len(sizes)).items()}
    found = client_gradients(model, task, leaves, parts)
    for k, part in enumerate(parts):
        told = by_hand(model, {name: leaf[k].detach() for name, leaf in leaves.items()}, part)
        right = torch.cat([sum(one[i] for _, one in told).flatten() for i in range(len(leaves))])
        torch.testing.assert_close(found.sum_KP[k], right, rtol=1e-4, atol=1e-6)
        assert found.total_K[k].item() == pytest.approx(sum(loss for loss, _ in told), rel=1e-5)
        assert found.weight_K[k].item() == len(part)


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_gradients_of_examples_are_those_of_autograd(name):
    model = built(name)
    task, items = _pictures(model, 5)
    leaves = stacked(model, 2)
    parts = [items[:3], items[3:]]
    norms = []

    def scales(norms_LE):
        norms.append(norms_LE)
        return torch.ones_like(norms_LE)

    sums_KP, _ = example_gradients(model, task, leaves, parts, scales, per=1.0)
    for k, part in enumerate(parts):
        told = by_hand(model, {key: leaf[k] for key, leaf in leaves.items()}, part)
        right = torch.cat([sum(one[i] for _, one in told).flatten() for i in range(len(leaves))])
        torch.testing.assert_close(sums_KP[k], right, rtol=1e-4, atol=1e-6)
        first = torch.stack([one[0].norm() for _, one in told])
        torch.testing.assert_close(norms[k][0], first, rtol=1e-4, atol=1e-6)


def _pictures(model, n):
    task, draw = lookup(Task, "classify")(), np.random.default_rng(1)
    pixels = draw.integers(0, 256, (n, *model.inputs), dtype=np.uint8)
    return task, [task.encode(Picture(one.tobytes(), one.shape, str(i % 5)), model) for i, one in enumerate(pixels)]


def test_scores_are_those_of_the_formulas():
    model = built("mlp", inputs=(6,))
    task, items = rows(model, 4)
    with torch.no_grad():
        (told,) = task.scores(model, model.trainable, [items])
        for item, one in zip(items, told, strict=True):
            p = model.module(item.inputs[None])[0].softmax(0)
            wanted = torch.nn.functional.one_hot(torch.tensor(item.label), 5)
            assert one["brier"].value == pytest.approx(((p - wanted) ** 2).sum().item(), rel=1e-5)
            assert one["loss"].value == pytest.approx(-p[item.label].log().item(), rel=1e-5)
            assert one["accuracy"].value == float(p.argmax() == item.label)


def test_stacked_models_are_scored_each_by_itself():
    model = built("mlp", inputs=(6,))
    task, items = rows(model, 4)
    params = stacked(model, 2)
    with torch.no_grad():
        both = task.scores(model, params, [items[:2], items[2:]])
        (alone,) = task.scores(model, {name: leaf[1] for name, leaf in params.items()}, [items[2:]])
    assert [one["loss"].value for one in both[1]] == [one["loss"].value for one in alone]


@pytest.mark.parametrize(
    ("example", "labels", "error", "said"),
    [
        (Row((1.0,), "0"), (), DataError, r"shape \[1\], the model takes \[6\]"),
        (Row((1.0,) * 6, "7"), (), DataError, "label '7': not among the 5 published"),
        (Row((1.0,) * 6, "a"), ("a", "b"), ConfigError, "found 2, the model has 5 classes"),
    ],
)
def test_an_example_that_does_not_fit_is_refused(example, labels, error, said):
    with pytest.raises(error, match=said):
        lookup(Task, "classify")(labels=labels).encode(example, built("mlp", inputs=(6,)))


def test_a_language_model_is_no_classifier(tmp_path):
    with pytest.raises(ConfigError, match="trains a ClassifierModel"):
        list(api.start(read_run(TABLE | {"model": "causal_lm"}), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


# -------------------------------------------------------------------------------------------------------------- sources


def test_digits_are_dealt_apart():
    parts = lookup(Source, "digits")(public=100, test=200, private=300).parts()
    piles = [parts.public, parts.test, parts.private, parts.unseen]
    assert [len(pile) for pile in piles] == [100, 200, 300, 1197]
    keys = [one.key for pile in piles for one in pile]
    assert len(set(keys)) >= len(keys) - 2  # the set itself repeats a digit or two


def picture(path, size=(5, 4), mode="RGB", colour=(10, 20, 30), **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **more)
    return path


def folder(tmp_path):
    for label in ("cat", "dog"):
        for number in range(3):
            picture(tmp_path / "train" / label / f"{number}.png", colour=(number, 20, 30))
    return lookup(Source, "image_folder")(path=str(tmp_path / "train"))


def test_pictures_are_those_of_the_files(tmp_path):
    found = folder(tmp_path).load()["train"]
    assert [one.label for one in found] == ["cat"] * 3 + ["dog"] * 3
    assert found[2].shape == (3, 4, 5)
    np.testing.assert_allclose(found[2].inputs[:, 0, 0] * 255, [2, 20, 30], rtol=1e-6)


def test_a_domain_is_a_tag(tmp_path):
    for domain in ("sketch", "photo"):
        picture(tmp_path / "all" / domain / "cat" / "a.png")
    found = lookup(Source, "image_folder")(path=str(tmp_path / "all"), domains=True).load()["train"]
    assert [one.tags for one in found] == [{"label": "cat", "domain": name} for name in ("photo", "sketch")]


def animated(path):
    frames = [Image.new("RGB", (5, 4), (number, 0, 0)) for number in (10, 250)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


ODD = {
    "unreadable": (lambda path: path.write_bytes(b"no picture"), "cannot be read as a picture"),
    "cut": (lambda path: path.write_bytes(picture(path).read_bytes()[:40]), "cannot be read as a picture"),
    "animated": (lambda path: animated(path.with_suffix(".gif")), "moves"),
    "16 bit": (lambda path: picture(path, mode="I;16", colour=500), "allowed are grey and RGB of 8 bits"),
    "cmyk": (lambda path: picture(path.with_suffix(".jpg"), mode="CMYK", colour=(1, 2, 3, 4)), "has colours CMYK"),
    "one pixel": (lambda path: picture(path, size=(1, 1)), "1 x 1 pixels"),
    "another size": (lambda path: picture(path, size=(6, 4)), "6 x 4 pixels.*set data.size"),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_picture_is_refused_by_its_path(tmp_path, kind):
    source, (make, said) = folder(tmp_path), ODD[kind]
    make(tmp_path / "train" / "dog" / "odd.png")
    with pytest.raises(DataError, match=said) as caught:
        source.load()
    assert "odd" in str(caught.value) and "\n" not in str(caught.value)


def test_a_class_without_a_file_is_refused(tmp_path):
    source = folder(tmp_path)
    (tmp_path / "train" / "emu").mkdir()
    with pytest.raises(DataError, match="emu: a class without a file"):
        source.load()


def test_pictures_are_scaled_where_that_is_asked_for(tmp_path):
    folder(tmp_path)
    picture(tmp_path / "train" / "dog" / "odd.png", size=(9, 9))
    source = lookup(Source, "image_folder")(path=str(tmp_path / "train"), size=(8, 8), colours=1)
    assert {one.shape for one in source.load()["train"]} == {(1, 8, 8)}


def arrays(tmp_path, **more):
    np.savez(tmp_path / "a.npz", **more)
    return lookup(Source, "arrays")(path=str(tmp_path / "a.npz"), clients="who" if "who" in more else "")


def test_arrays_are_pictures_or_rows(tmp_path):
    x = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (first, _) = arrays(tmp_path, x=x, y=np.array(["a", "b"]), who=np.array(["north", "south"])).load()["train"]
    assert (first.shape, first.label, first.tags["client"]) == ((1, 3, 4), "a", "north")
    (row, _) = arrays(tmp_path, x=np.array([[1.5, 2.0], [0.0, 1.0]]), y=np.array([3, 4])).load()["train"]
    assert (row.values, row.label) == ((1.5, 2.0), "3")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"x": np.zeros((2, 3))}, "no array 'y'"),
        ({"x": np.zeros((2, 3)), "y": np.zeros(3, int)}, "as many whole numbers"),
        ({"x": np.zeros((2, 3)), "y": np.zeros(2)}, "as many whole numbers"),
        ({"x": np.full((2, 3), np.nan), "y": np.zeros(2, int)}, "NaN or infinity"),
        ({"x": np.zeros((2, 3, 4, 5)), "y": np.zeros(2, int)}, "allowed are bytes"),
        ({"x": np.array([{}, {}], object), "y": np.zeros(2, int)}, "no npz file of plain arrays"),
    ],
)
def test_odd_arrays_are_refused(tmp_path, more, said):
    with pytest.raises(DataError, match=said):
        arrays(tmp_path, **more).load()


@pytest.mark.parametrize("name", ["arrays", "table", "image_folder"])
def test_a_source_without_a_path_is_refused(name):
    with pytest.raises(FedloomError, match="path: found none"):
        lookup(Source, name)().load()


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK no")
    with pytest.raises(DataError, match="no npz file"):
        lookup(Source, "arrays")(path=str(tmp_path / "a.npz")).load()


CSV = "age,income,bank,label\n30,1.5,north,yes\n40,2.5,south,no\n"


def test_rows_are_those_of_the_table(tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    found = lookup(Source, "table")(path=str(tmp_path / "a.csv"), tags={"client": "bank"}).load()["train"]
    assert found[0] == Row((30.0, 1.5), "yes", {"client": "north", "label": "yes"})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("30", "old", r"line 2, column 'age': found 'old', allowed is a finite number"),
        ("1.5", "nan", r"column 'income': found 'nan'"),
        ("yes", "", r"column 'label': found empty text"),
        ("label", "class", r"no column 'label'; present"),
    ],
)
def test_an_odd_cell_is_refused_where_it_stands(tmp_path, old, new, said):
    (tmp_path / "a.csv").write_text(CSV.replace(old, new))
    with pytest.raises(FedloomError, match=said):
        lookup(Source, "table")(path=str(tmp_path / "a.csv"), tags={"client": "bank"}).load()


def test_a_table_is_learnt(tmp_path):
    draw = np.random.default_rng(0)
    points = draw.normal(size=(120, 3))
    lines = [f"{a},{b},{c},b{i % 3},{'yes' if a + b > c else 'no'}" for i, (a, b, c) in enumerate(points)]
    (tmp_path / "a.csv").write_text("\n".join(["a,b,c,bank,label", *lines[:90]]))
    (tmp_path / "t.csv").write_text("\n".join(["a,b,c,bank,label", *lines[90:]]))
    data = {"name": "table", "path": str(tmp_path / "a.csv"), "test_path": str(tmp_path / "t.csv")}
    data |= {"columns": ["a", "b", "c"], "tags": {"client": "bank"}}
    changes = {"data": data, "clients": 0, "partition": "by_key", "task": {"name": "classify", "labels": ["no", "yes"]}}
    model = {"name": "mlp", "inputs": [3], "classes": 2, "hidden": [8]}
    assert scores(tmp_path / "run", **changes, model=model)["accuracy"] > 0.8
