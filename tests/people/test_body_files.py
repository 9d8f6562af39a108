import pickle

import numpy as np
import pytest
from scipy import sparse

from fedloom.base.errors import DataError
from fedloom.base.plugin import lookup
from fedloom.people.body import BodyModel, body_of, write_body

N = 5


def arrays():
    """A body of three joints and five vertices under SMPL's names, pose directions among them."""
    drawn = np.random.default_rng(0)
    weights, regressor = drawn.random((N, 3)), drawn.random((3, N))
    return {
        "v_template": drawn.normal(size=(N, 3)),
        "f": np.array([[0, 1, 2], [2, 3, 4]], np.uint32),
        "shapedirs": drawn.normal(size=(N, 3, 4)),
        "posedirs": drawn.normal(size=(N, 3, 18)),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, 0, 1], [0, 1, 2]], np.uint32),
    }


def test_arrays_under_smpls_names_are_a_body():
    given = arrays()
    body = body_of(given, "here")
    assert body.parents == (-1, 0, 1) and body.n_joints == 3
    assert body.faces_F3.dtype == np.int64 and np.array_equal(body.faces_F3, given["f"])
    np.testing.assert_allclose(body.joints_J3, given["J_regressor"] @ given["v_template"])
    assert np.array_equal(body.pose_directions_M3P, given["posedirs"])
    thin = body_of({**given, "J_regressor": sparse.csc_matrix(given["J_regressor"])}, "here")
    assert np.array_equal(thin.regressor_JM, body.regressor_JM)
    del given["posedirs"]
    assert body_of(given, "here").pose_directions_M3P is None


def test_a_written_body_comes_back(tmp_path):
    body = body_of(arrays(), "here")
    write_body(body, tmp_path / "body.npz")
    back = lookup(BodyModel, "smpl")(path=str(tmp_path / "body.npz")).load()
    for name, array in vars(body).items():
        assert np.array_equal(vars(back)[name], array), name


def changed(name, at, value):
    array = np.array(arrays()[name], float)
    array[at] = value
    return {name: array}


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"v_template": np.zeros(3)}, r"v_template: found float64 \[3\], allowed are some numbers along 2 axes"),
        ({"v_template": np.array(["a"])}, "v_template: found <U1"),
        ({"f": np.zeros((0, 3), int)}, r"f: found int64 \[0, 3\]"),
        ({"f": np.zeros((2, 4), int)}, r"f has shape \[2, 4\], allowed is \[2, 3\]"),
        (changed("f", (0, 0), 0.5), r"f: found 0\.5, allowed are whole numbers"),
        (changed("f", (0, 0), -1), "f names vertex -1, allowed are 0 to 4"),
        (changed("f", (0, 0), N), "f names vertex 5, allowed are 0 to 4"),
        ({"shapedirs": np.zeros((N, 3))}, "shapedirs: found .*along 3 axes"),
        ({"shapedirs": np.zeros((N + 1, 3, 4))}, "shapedirs has shape"),
        ({"posedirs": np.zeros((N, 3, 27))}, r"posedirs has shape .* allowed is \[5, 3, 18\]"),
        (changed("v_template", (0, 0), np.nan), "v_template holds a number that is not finite"),
        (changed("posedirs", (0, 0, 0), np.inf), "posedirs holds a number that is not finite"),
        ({"J_regressor": {}}, "J_regressor: found a dict"),
        ({"J_regressor": np.full((3, N), 0.3)}, "a row of J_regressor sums to"),
        ({"weights": np.full((N, 3), 0.3334)}, "a row of weights sums to"),
        ({"weights": np.tile([-0.5, 0.5, 1.0], (N, 1))}, r"weights holds -0\.5, allowed is 0 to 1"),
        ({"kintree_table": np.arange(3)}, "kintree_table: found int64"),
        (changed("kintree_table", (0, 1), np.nan), "kintree_table: found nan"),
        (changed("kintree_table", 0, (-1, 2, 1)), r"parents \[-1, 2, 1\], allowed is a parent before its child"),
        (changed("kintree_table", 0, (0, 0, 1)), "allowed is a parent before its child"),
        (changed("kintree_table", 0, (-1, 0, -1)), "allowed is a parent before its child"),
        ({"kintree_table": np.zeros((2, 4), int)}, r"J_regressor has shape \[3, 5\], allowed is \[4, 5\]"),
    ],
)
def test_odd_arrays_are_refused_by_name(odd, words):
    with pytest.raises(DataError, match=f"^here: .*{words}") as refused:
        body_of({**arrays(), **odd}, "here")
    assert "\n" not in str(refused.value)


def test_a_missing_array_is_named():
    given = arrays()
    del given["weights"], given["f"]
    with pytest.raises(DataError, match=r"here: found no f, weights, needed are v_template"):
        body_of(given, "here")


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (self.mark, "w")


def test_what_a_file_holds_besides_a_body_is_not_unpickled(tmp_path):
    """Files of later models have dictionaries beside their arrays: they are neither a reason to refuse nor run."""
    mark = tmp_path / "ran"
    other = np.array([Hostile(str(mark))], object)
    np.savez(tmp_path / "body.npz", **arrays(), joint2num=other)
    assert lookup(BodyModel, "smpl")(path=str(tmp_path / "body.npz")).load().n_joints == 3
    np.savez(tmp_path / "odd.npz", **{**arrays(), "weights": other})
    with pytest.raises(DataError, match="no file of plain arrays"):
        lookup(BodyModel, "smpl")(path=str(tmp_path / "odd.npz")).load()
    assert not mark.exists()
    pickle.loads(pickle.dumps(other))[0].close()  # it would have run
    assert mark.exists()
