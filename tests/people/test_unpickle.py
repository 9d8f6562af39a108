import io
import pickle
import struct
import sys
import types

import numpy as np
import pytest
from scipy import sparse

from fedloom.base.errors import ConfigError, DataError, MissingFileError
from fedloom.base.plugin import lookup
from fedloom.people.body import BodyModel, write_body
from fedloom.people.unpickle import read_pickle


@pytest.fixture
def chumpy(monkeypatch):
    """Modules with classes that pickle as chumpy's do: the state is what an object has, less its parents."""
    kinds = {"chumpy.ch": ["Ch"], "chumpy.reordering": ["Select", "Reshape", "Transpose"]}
    made = {}
    for module_name, names in kinds.items():
        module = types.ModuleType(module_name)
        for name in names:
            made[name] = type(name, (), {"__module__": module_name})
            module.__dict__[name] = made[name]
        monkeypatch.setitem(sys.modules, module_name, module)
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))

    def make(name, **state):
        one = made[name]()
        one.__dict__.update(state)
        return one

    return make


def written(path, value, protocol=2):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_arrays_come_back_from_any_protocol(tmp_path, protocol):
    random = np.random.default_rng(0)
    value = {
        "a": random.normal(size=(3, 4)),
        "f": np.asfortranarray(random.integers(0, 9, (3, 2)).astype(np.uint32)),
        "s": [np.float64(2.5), ("x", 1, None, True)],
        "c": sparse.random(5, 7, 0.4, format="csc", random_state=1),
        "r": sparse.random(5, 7, 0.4, format="csr", random_state=1).astype(np.float32),
    }
    value["c"], value["r"] = sparse.csc_matrix(value["c"]), sparse.csr_matrix(value["r"])
    back = read_pickle(written(tmp_path / "x.pkl", value, protocol))
    assert np.array_equal(back["a"], value["a"]) and np.array_equal(back["f"], value["f"])
    assert back["f"].dtype == np.uint32 and back["s"] == value["s"]
    for key in "cr":
        assert np.array_equal(back[key].toarray(), value[key].toarray()) and back[key].format == f"cs{key}"


def test_pickles_of_python_2_are_read(tmp_path):
    """Written by hand as Python 2 writes protocol 0: module names of its time, bytes as latin-1 text."""
    data = struct.pack("<2d", 1.5, -2.0).decode("latin-1")
    text = (
        "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nt"
        f"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS{data!r}\ntb."
    )
    (tmp_path / "x.pkl").write_bytes(text.encode("latin-1"))
    assert read_pickle(tmp_path / "x.pkl").tolist() == [1.5, -2.0]


def test_what_chumpy_wraps_is_its_array(tmp_path, chumpy):
    x = np.arange(12.0).reshape(3, 4)
    ch = chumpy("Ch", x=x, _dirty_vars=set(), _itr=None)
    value = {
        "ch": ch,
        "select": chumpy("Select", a=ch, idxs=np.array([3, 1, 0, 2]), preferred_shape=(2, 2)),
        "flat": chumpy("Select", a=ch, idxs=np.array([5])),
        "reshape": [chumpy("Reshape", a=ch, newshape=(4, 3))],
        "transpose": chumpy("Transpose", a=ch, axes=(1, 0)),
    }
    back = read_pickle(written(tmp_path / "x.pkl", value))
    assert np.array_equal(back["ch"], x) and back["select"].tolist() == [[3, 1], [0, 2]]
    assert back["flat"].tolist() == [5] and np.array_equal(back["reshape"][0], x.reshape(4, 3))
    assert np.array_equal(back["transpose"], x.T)
    old = read_pickle(written(tmp_path / "y.pkl", ch, protocol=0))  # through copy_reg._reconstructor
    assert np.array_equal(old, x)


def as_smpl(body, chumpy):
    """A body as a v1 file of SMPL has it: arrays wrapped, unsigned root, sparse regressor, further keys."""
    return {
        "v_template": chumpy("Ch", x=body.template_M3),
        "f": body.faces_F3.astype(np.uint32),
        "shapedirs": chumpy("Ch", x=body.shape_directions_M3S),
        "posedirs": np.zeros((len(body.template_M3), 3, 207)),
        "J_regressor": sparse.csc_matrix(body.regressor_JM),
        "weights": chumpy("Ch", x=body.weights_MJ),
        "kintree_table": np.array([[2**32 - 1, *body.parents[1:]], range(24)], np.uint32),
        "bs_style": "lbs",
    }


def test_the_procedural_body_comes_back_from_a_file_like_smpls(tmp_path, chumpy, monkeypatch):
    body = lookup(BodyModel, "procedural")().load()
    path = written(tmp_path / "smpl.pkl", as_smpl(body, chumpy))
    for name in ("chumpy", "chumpy.ch", "chumpy.reordering"):
        monkeypatch.delitem(sys.modules, name)
    back = lookup(BodyModel, "smpl")(path=str(path)).load()
    assert np.array_equal(back.template_M3, body.template_M3) and np.array_equal(back.faces_F3, body.faces_F3)
    assert np.array_equal(back.shape_directions_M3S, body.shape_directions_M3S)
    assert back.parents == body.parents and back.pose_directions_M3P.shape[2] == 207
    assert np.abs(back.regressor_JM - body.regressor_JM).max() == 0
    write_body(back, tmp_path / "clean.npz")
    clean = lookup(BodyModel, "smpl")(path=str(tmp_path / "clean.npz")).load()
    assert np.array_equal(clean.weights_MJ, body.weights_MJ)


class Hostile:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_something_is_refused_and_does_not(tmp_path, protocol):
    mark = tmp_path / "ran"
    for call, args, name in [
        (exec, (f"open({str(mark)!r}, 'w')",), "exec"),
        (open, (str(mark), "w"), "open"),
        (getattr, ("text", "format"), "getattr"),
        (np.load, (str(mark),), "load"),
        (__import__, ("os",), "__import__"),
        (io.FileIO, (str(mark), "w"), "FileIO"),
    ]:
        path = written(tmp_path / "x.pkl", {"v_template": [Hostile(call, *args)]}, protocol)
        with pytest.raises(DataError, match=rf"x\.pkl: found .*\.{name}, allowed are arrays"):
            read_pickle(path)
        with pytest.raises(DataError, match="allowed are arrays"):
            lookup(BodyModel, "smpl")(path=str(path)).load()
        assert not mark.exists()


def test_names_with_dots_and_other_encodings_find_nothing(tmp_path):
    for opcodes in (b"cnumpy\nndarray.tofile\n.", b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93."):
        (tmp_path / "x.pkl").write_bytes(opcodes)
        with pytest.raises(DataError, match="ndarray"):
            read_pickle(tmp_path / "x.pkl")
    (tmp_path / "x.pkl").write_bytes(b"c_codecs\nencode\n(S'x'\nS'zip'\ntR.")
    with pytest.raises(DataError, match="encoding zip"):
        read_pickle(tmp_path / "x.pkl")


def test_broken_and_missing_files_are_refused(tmp_path):
    whole = pickle.dumps({"a": np.zeros(100)}, protocol=2)
    for data in (b"", b"no pickle", whole[:-60], b"\x80\x02N}b."):
        (tmp_path / "x.pkl").write_bytes(data)
        with pytest.raises(DataError, match="is the file whole"):
            read_pickle(tmp_path / "x.pkl")
    for name in ("none.pkl", "none.npz"):
        with pytest.raises(MissingFileError):
            lookup(BodyModel, "smpl")(path=str(tmp_path / name)).load()
    with pytest.raises(ConfigError, match="no path"):
        lookup(BodyModel, "smpl")()


def test_an_npz_with_objects_is_refused(tmp_path):
    mark = tmp_path / "ran"
    arrays = np.array([Hostile(open, str(mark), "w")], object)
    np.savez(tmp_path / "x.npz", v_template=arrays)
    with pytest.raises(DataError, match=r"x\.npz: no file of plain arrays"):
        lookup(BodyModel, "smpl")(path=str(tmp_path / "x.npz")).load()
    assert not mark.exists()
    written(tmp_path / "list.pkl", [1, 2])
    with pytest.raises(DataError, match="found a list"):
        lookup(BodyModel, "smpl")(path=str(tmp_path / "list.pkl")).load()


def test_numpys_own_objects_are_not_reached(tmp_path):
    """A state for the type of all numbers would turn them around for the whole process; so would one for a function."""
    whole = (
        b"cnumpy\ndtype\n(S'f8'\ntR(I3\nS'>'\nNNNI-1\nI-1\nI0\ntb.",  # a copy of this module's own is turned
        b"cnumpy.core.multiarray\nscalar\n(N}S'__defaults__'\n(I1\ntstb.",
        b"cnumpy\ndtype\n(S'O8'\ntR.",
        b"cnumpy\ndtype\n(S'V8'\ntR(I3\nS'|'\nN(S'a'\nt}S'a'\n(cnumpy\ndtype\n(S'f8'\ntRI900\ntsI8\nI1\nI0\ntb.",
    )
    for at, opcodes in enumerate(whole):
        (tmp_path / "x.pkl").write_bytes(opcodes)
        if at:
            with pytest.raises(DataError):
                read_pickle(tmp_path / "x.pkl")
        else:
            read_pickle(tmp_path / "x.pkl")
        assert np.dtype("f8").byteorder == "=" and np.dtype("f8").newbyteorder("=") == np.float64(1).dtype


def test_values_within_values_are_read_once_and_none_holds_itself(tmp_path):
    with pytest.raises(DataError, match="is the file whole"):
        loop = []
        loop.append(loop)
        read_pickle(written(tmp_path / "loop.pkl", loop))
    shared = [1]
    for _ in range(60):
        shared = [shared, shared]
    assert len(read_pickle(written(tmp_path / "x.pkl", shared))) == 2
