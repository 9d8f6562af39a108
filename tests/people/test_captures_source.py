import shutil

import pytest

from fedloom.base.errors import DataError, MissingFileError
from fedloom.base.plugin import lookup
from fedloom.contracts.federated import Source
from fedloom.people.adapter.examples import KnownPerson, View
from fedloom.people.dataset import DataSet, make_data

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    made = list(make_data(DataSet(studios=2, people=1, validation=0, test=1, size=48, views=4), out))
    assert len(made) == 3
    return out


def source(folder, **settings):
    return lookup(Source, "captures")(path=str(folder / "train"), bundles=2, **settings)


def test_clients_are_studios_and_a_person_is_on_one_side(folder):
    splits = source(folder, test_path=str(folder / "test")).load()
    assert {view.tags["client"] for view in splits["train"]} == {"studio0", "studio1"}
    assert len(splits["train"]) == 2 * 4 * 2 and all(isinstance(one, View) for one in splits["train"])
    (known,) = splits["test"]
    assert isinstance(known, KnownPerson) and known.surface.visible_F.any()
    assert known.key not in {view.key for view in splits["train"]}
    assert {one.key for one in splits["train"]} == {one.key for one in source(folder).load()["train"]}


def test_truth_is_read_for_tests_alone(folder, tmp_path):
    """Training on people whose truth was taken away, or damaged, is what it was: nobody opens it."""
    assert not list((folder / "train").rglob("truth*"))
    shutil.copytree(folder / "test", tmp_path / "test")
    (next((tmp_path / "test").iterdir()) / "truth" / "truth.npz").write_bytes(b"damaged")
    as_train = lookup(Source, "captures")(path=str(tmp_path / "test"), bundles=1).load()["train"]
    assert len(as_train) == 4
    with pytest.raises(DataError, match=r"truth\.npz"):
        source(folder, test_path=str(tmp_path / "test")).load()
    shutil.rmtree(next((tmp_path / "test").iterdir()) / "truth")
    with pytest.raises(MissingFileError):
        source(folder, test_path=str(tmp_path / "test")).load()


def test_making_people_goes_on_and_refuses_other_settings(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    wanted = DataSet(studios=2, people=1, validation=0, test=1, size=48, views=4)
    shutil.rmtree(folder / "test")
    assert len(list(make_data(wanted, folder))) == 3
    assert all(path.stat().st_mtime_ns == at for path, at in before.items() if "train" in path.parts)
    with pytest.raises(DataError, match="holds people of other settings"):
        list(make_data(DataSet(studios=2, people=1, validation=0, test=1, size=48, views=5), folder))
