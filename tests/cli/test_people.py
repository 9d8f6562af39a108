"""`fedloom people` as a user calls it: every command in one go, and what is refused in one line."""

import html
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from fedloom.people.adapter.models.person_field import PersonField
from fedloom.people.array_files import arrays_of
from fedloom.people.bodies.procedural import Procedural
from fedloom.people.bodies.smpl import Smpl
from fedloom.people.body import write_body
from fedloom.people.capture_files import read_capture
from fedloom.people.labels import LOWER
from fedloom.people.meshes import Mesh
from fedloom.people.person_folder import PersonFolder
from support.command import fedloom
from support.scan_files import four_d_dress, thuman
from support.small_people import capture_at

REMOTE = re.compile(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//|@import|url\(["']?http""")


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """A field's folder as runs write it: of one that has learnt nothing."""
    folder = tmp_path_factory.mktemp("field") / "adapter"
    family = PersonField()
    model = family.build(seed=0, device=torch.device("cpu"))
    family.save(model, model.trainable, str(folder))
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return capture_at(tmp_path_factory.mktemp("captures") / "anna")


@pytest.fixture
def capture(whole, tmp_path):
    """A copy of a capture to change."""
    return Path(shutil.copytree(whole, tmp_path / "anna"))


@pytest.fixture
def call(monkeypatch, capsys):
    """Call a command that has to go well; return what it printed."""

    def called(*words):
        code = fedloom(monkeypatch, "people", *words)
        said = capsys.readouterr()
        assert (code, said.err) == (0, "")
        return said.out.splitlines()

    return called


@pytest.fixture
def refused(monkeypatch, capsys):
    """Check that a command is refused with code 2 and one line that has all of some words; return the line."""

    def check(words, *command):
        code = fedloom(monkeypatch, "people", *command)
        said = capsys.readouterr()
        assert code == 2 and said.out == ""
        assert said.err.startswith("fedloom: ") and len(said.err.splitlines()) == 1
        for word in words:
            assert word in said.err
        return said.err

    return check


@pytest.fixture
def person(tmp_path):
    """A person's folder with a surface and classes, by hand: a tetrahedron all skin."""
    corners = np.array([(0.0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
    mesh = Mesh(corners, np.array([(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]))
    made = PersonFolder(tmp_path / "person")
    made.begin(tmp_path / "capture", "hull")
    with made.making("surface", "0" * 16) as arrays:
        arrays |= arrays_of("surface", mesh)
    with made.making("layers", "1" * 16) as arrays:
        arrays |= {"labels": np.ones(4, np.uint8)}
    return made


def state(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def table(capture, change):
    """Change a capture's table."""
    file = capture / "capture.json"
    entry = json.loads(file.read_text())
    change(entry)
    file.write_text(json.dumps(entry))


@pytest.mark.slow
def test_from_photographs_to_a_swap_a_page_and_meshes(call, field, tmp_path):
    data = tmp_path / "data"
    tiny = ("--studios", 1, "--each", 1, "--validation", 0, "--test", 2, "--size", 64, "--views", 5, "--out", data)
    folders = call("make-data", *tiny)
    assert len(folders) == 3 and all((Path(folder) / "capture.json").is_file() for folder in folders)
    assert not (Path(folders[0]) / "truth").exists() and (Path(folders[1]) / "truth").is_dir()
    assert call("make-data", *tiny) == folders
    people = [tmp_path / "giver", tmp_path / "taker"]
    for folder, person in zip(folders[1:], people, strict=True):
        asked = ("reconstruct", folder, "--field", field, "--cell-m", 0.04, "--out", person)
        assert re.fullmatch(r"surface: [\d,]+ vertices", call(*asked)[-1])
        assert call(*asked) == ["surface: there already"]
        assert call("separate", person)[0].startswith("classes: skin, ")
        assert call("fit", person)[-1].startswith("body: clothes ")
    giver, taker = people
    assert call("swap", giver, taker, "--garment", "upper", "--pose", "raised")[0].startswith("swap_giver_upper_bound_")
    page = Path(call("report", taker)[0])
    assert page == taker / "report.html"
    text = page.read_text()
    for title in ("Photographs", "Layers", "Classes", "Errors", "Swaps", "Turn them"):
        assert f"<h2>{title}</h2>" in text
    assert not REMOTE.search(html.unescape(text))
    assert "the visual hull with" in text and "synthetic" in text
    rows = json.loads(call("measure", taker, "--json")[0])
    assert {"surface", "hull", "classes", "upper", "seams", "body under clothes"} <= {row["of"] for row in rows}
    assert any(row["of"].startswith("swap_giver_upper") and row["name"] == "penetration_percent" for row in rows)
    baked = Path(call("export", taker, "--out", tmp_path / "baked", "--texture", 64, "--field", field)[0])
    shown = np.array(Image.open(next(baked.glob("*.png"))).convert("RGB"))
    assert shown.shape == (64, 64, 3) and shown.std() > 1
    meshes = Path(call("export", taker, "--out", tmp_path / "meshes")[0])
    scene = trimesh.load(meshes / "layers.glb")
    assert set(scene.geometry) == {"body", "upper", "lower"}
    assert {f"{name}.{kind}" for name in scene.geometry for kind in ("obj", "ply")} <= {
        f.name for f in meshes.iterdir()
    }


@pytest.mark.slow
def test_a_page_of_a_surface_alone_is_written_and_a_hostile_name_stays_a_text(call, field, whole, tmp_path):
    name = "<script>alert(1)</script>"
    mine = Path(shutil.copytree(whole, tmp_path / "named"))
    table(mine, lambda entry: entry.update(name=name))
    assert call("reconstruct", mine, "--field", field, "--cell-m", 0.05, "--out", tmp_path / "odd", "--quiet") == []
    text = Path(call("report", tmp_path / "odd")[0]).read_text()
    assert not REMOTE.search(html.unescape(text))
    own = re.sub(r'srcdoc="[^"]*"', "", text)
    assert name not in own and "&lt;script&gt;alert(1)&lt;/script&gt;: body and garments" in own
    assert "<script" not in own
    assert "<h2>Photographs</h2>" in own and "<h2>Layers</h2>" not in own  # of what has been made so far


@pytest.mark.slow
def test_scans_and_a_parsers_files_become_captures(call, refused, tmp_path):
    scan, _ = thuman(tmp_path)
    asked = ("read", "thuman", scan, "--views", 4, "--size", 64, "--out", tmp_path / "own")
    refused(("consent: found none",), *asked)
    assert call(*asked, "--consent", "--truth") == [str(tmp_path / "own")]
    own = read_capture(tmp_path / "own")
    assert len(own.photos) == 4 and own.photos[0].parse is None and (tmp_path / "own" / "truth").is_dir()
    parses = tmp_path / "parses"
    parses.mkdir()
    for view in range(4):
        Image.fromarray(np.full((64, 64), 5, np.uint8)).save(parses / f"view_{view:02d}.png")
    with_parses = ("read", "schp", tmp_path / "own", parses, "--parser", "atr")
    refused(("exists and is not empty",), *with_parses, "--out", tmp_path / "own")
    call(*with_parses, "--out", tmp_path / "parsed")
    assert (read_capture(tmp_path / "parsed").photos[3].parse.labels == LOWER).all()  # the fifth of ATR is a skirt
    take = four_d_dress(tmp_path / "dress")[0]
    dress = ("read", "4d-dress", take, "--frame", 6, "--out", tmp_path / "taken")
    refused(("consent: found none",), *dress)
    call(*dress, "--consent")
    assert len(read_capture(tmp_path / "taken").photos) >= 3 and not (tmp_path / "taken" / "truth").exists()


def test_a_licensed_body_becomes_plain_arrays_and_is_not_written_over(call, refused, tmp_path):
    given, out = tmp_path / "given.npz", tmp_path / "plain.npz"
    write_body(Procedural(cell_m=0.06).load(), given)
    assert call("body", given, "--out", out) == [str(out)]
    before, after = (Smpl(path=str(one)).load() for one in (given, out))
    assert np.array_equal(before.template_M3, after.template_M3) and before.parents == after.parents
    refused(("exists",), "body", given, "--out", out)
    refused(("no such file",), "body", tmp_path / "nobody.npz", "--out", tmp_path / "other.npz")
    assert not (tmp_path / "other.npz").exists()


def mask(capture, view, change):
    file = capture / f"mask_{view:02d}.png"
    Image.fromarray(change(np.array(Image.open(file)))).save(file)


def no_person(capture):
    mask(capture, 3, np.zeros_like)


def one_view(capture):
    table(capture, lambda entry: entry.update(cameras=entry["cameras"][:1]))
    for file in capture.glob("*_0[1-4].*"):
        file.unlink()


def smaller_mask(capture):
    mask(capture, 2, lambda pixels: pixels[:32, :48])


def millimetres(capture):
    def change(entry):
        for camera in entry["cameras"]:
            camera["t"] = [1000 * one for one in camera["t"]]

    table(capture, change)


def opengl(capture):
    def change(entry):
        for camera in entry["cameras"]:
            camera["R"] = [camera["R"][0], *([-one for one in row] for row in camera["R"][1:])]
            camera["t"] = [camera["t"][0], -camera["t"][1], -camera["t"][2]]

    table(capture, change)


def odd_label(capture):
    (capture / "parse_01.npz").unlink()
    Image.fromarray(np.full((64, 64), 19, np.uint8)).save(capture / "parse_01.png")


def odd_parser(capture):
    table(capture, lambda entry: entry.update(parser="lipp"))


def no_consent(capture):
    table(capture, lambda entry: entry.pop("consent"))


def pickled_parse(capture):
    np.savez(capture / "parse_02.npz", probabilities=np.array([{"a": 1}], dtype=object))


def no_capture(capture):
    shutil.rmtree(capture)


def missing_photograph(capture):
    (capture / "view_04.png").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_person, ("view 3", "0.00%", "leave the view out or mend its mask")),
        (one_view, ("found 1 photograph,", "allowed are 3 or more", "photograph the person from more sides")),
        (smaller_mask, ("view 2", "64 x 64", "its mask has 32 x 48", "bring all to one size")),
        (millimetres, ("millimetres", "allowed are metres", "divide shift")),
        (opengl, ("OpenGL", "multiply rows 2 and 3")),
        (odd_label, ("parse_01.png", "found label 19, parser 'fedloom' has 0 to 5")),
        (odd_parser, ("'lipp'", "Did you mean 'lip'")),
        (no_consent, ("consent: found none, allowed is true", "ask them")),
        (pickled_parse, ("parse_02.npz",)),
        (no_capture, ("capture.json: no such file", "give the folder of a capture")),
        (missing_photograph, ("view_04.png",)),
    ],
)
def test_a_capture_that_nothing_can_be_made_of_is_refused(capture, field, refused, tmp_path, spoil, words):
    spoil(capture)
    told = refused(words, "reconstruct", capture, "--field", field, "--out", tmp_path / "out")
    assert str(capture) in told
    assert not (tmp_path / "out").exists()


def test_odd_fields_and_cells_are_refused(capture, field, refused, tmp_path):
    out = ("--out", tmp_path / "out")
    refused(("found no field.safetensors", "shipped"), "reconstruct", capture, "--field", tmp_path, *out)
    refused(("cell_m: found 0.0", "> 0"), "reconstruct", capture, "--field", field, "--cell-m", 0, *out)
    refused(("cell_m",), "reconstruct", capture, "--field", field, "--cell-m", "nan", *out)
    bad = Path(shutil.copytree(field, tmp_path / "bad"))
    (bad / "field.safetensors").write_bytes(b"no tensors")
    refused(("field.safetensors: cannot be read", "copy it anew"), "reconstruct", capture, "--field", bad, *out)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("kept")
    refused(
        (str(tmp_path / "file"),),
        "reconstruct",
        capture,
        "--field",
        field,
        "--cell-m",
        0.08,
        "--out",
        tmp_path / "file",
    )
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("command", ["separate", "fit", "report"])
def test_a_step_without_a_persons_folder_is_refused(refused, tmp_path, command):
    refused(
        (str(tmp_path / "nobody"), "no person's folder", "fedloom people reconstruct"), command, tmp_path / "nobody"
    )
    assert not (tmp_path / "nobody").exists()


def test_swap_and_export_without_a_persons_folder_are_refused(refused, person, tmp_path):
    nobody, before = tmp_path / "nobody", state(person.path)
    refused(("nobody", "no person's folder"), "swap", nobody, person.path)
    refused(("nobody", "no person's folder"), "export", nobody, "--out", tmp_path / "meshes")
    refused(("nobody", "no person's folder"), "measure", nobody)
    refused(("found field hull", "--field"), "export", person.path, "--texture", 8, "--out", tmp_path / "meshes")
    refused(("'body' has not been made", "fedloom people fit"), "swap", person.path, person.path)
    assert state(person.path) == before and not nobody.exists() and not (tmp_path / "meshes").exists()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--route", "offset", ("--route: found 'offset', allowed are bound, offsets",)),
        ("--pose", "t", ("--pose: found 't', allowed are own, a, raised",)),
        ("--body", "smplx", ("'smplx'", "smpl")),
        ("--body", "smpl", ("found no path", "name the file")),
    ],
)
def test_unknown_choices_are_refused(refused, person, option, value, words):
    before = state(person.path)
    refused(words, "swap", person.path, person.path, option, value)
    assert state(person.path) == before


class Hostile:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_body_file_that_would_run_something_does_not(refused, person, tmp_path):
    before, trap = state(person.path), tmp_path / "trapped"
    for name, value in (("body.pkl", Hostile(trap)), ("nested.pkl", {"v_template": Hostile(trap)})):
        (tmp_path / name).write_bytes(pickle.dumps(value, protocol=2))
        refused((name,), "fit", person.path, "--body", "smpl", "--body-path", tmp_path / name)
    np.savez(tmp_path / "body.npz", v_template=np.array([Hostile(trap)], dtype=object))
    refused(("body.npz",), "fit", person.path, "--body", "smpl", "--body-path", tmp_path / "body.npz")
    refused(("no.pkl", "found no file"), "fit", person.path, "--body", "smpl", "--body-path", tmp_path / "no.pkl")
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1, 2], protocol=2))
    refused(
        ("list.pkl", "a dictionary of arrays"),
        "fit",
        person.path,
        "--body",
        "smpl",
        "--body-path",
        tmp_path / "list.pkl",
    )
    assert state(person.path) == before and not trap.exists()


def test_a_filled_folder_is_not_written_over(refused, person, tmp_path):
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "own.txt").write_text("mine")
    refused((str(tmp_path / "meshes"),), "export", person.path, "--out", tmp_path / "meshes")
    assert state(tmp_path / "meshes") == {"own.txt": b"mine"}


def test_data_of_other_settings_are_not_mixed(call, refused, tmp_path):
    tiny = ("make-data", "--studios", 1, "--each", 1, "--validation", 0, "--test", 0, "--views", 3, "--out", tmp_path)
    (folder,) = call(*tiny, "--size", 32)
    before = state(Path(folder))
    refused(("holds people of other settings", "choose another --out"), *tiny, "--size", 48)
    assert state(Path(folder)) == before
    refused(("studios: found 0",), "make-data", "--studios", 0, "--out", tmp_path / "none")
    refused(("skew: found 2.0",), "make-data", "--skew", 2, "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()
