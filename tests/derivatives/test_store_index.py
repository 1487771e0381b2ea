"""Many int8 stores as one index."""

import json
import os

import numpy as np
import pytest
from helpers import RUN

from neurostorm_bids import to_model_grid
from neurostorm_bids.derivatives.gridded_files import read_int8, write_int8
from neurostorm_bids.derivatives.store_index import index_of, only_grid
from neurostorm_bids.errors import NeurostormError


@pytest.fixture
def stores(tree, tmp_path):
    bold = tree.run(RUN)
    run = to_model_grid(bold, bold.with_name(bold.name.replace("preproc_bold", "brain_mask")))
    paths = [tmp_path / f"{name}.npy" for name in "ab"]
    for path in paths:
        write_int8(path, run, "x")
    return paths


def change(path, **values):
    about = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**about, **values}))
    os.utime(path)


def test_an_index_says_what_the_stores_say(stores, tmp_path):
    index, problems = index_of(stores, tmp_path / "index.npz")
    assert not problems
    for store, path in zip((index[0], index[1]), stores, strict=True):
        theirs = read_int8(path)
        assert (store.path, store.scale, store.shape) == (path, theirs.scale, theirs.shape)
        np.testing.assert_array_equal(store.stored(3, 5), theirs.stored(3, 5))


def test_stores_are_opened_once_and_again_when_they_change(stores, tmp_path, monkeypatch):
    file = tmp_path / "index.npz"
    index_of(stores, file)
    opened = []
    monkeypatch.setattr(
        "neurostorm_bids.derivatives.store_index.read_int8", lambda path: opened.append(path) or read_int8(path)
    )
    index_of(stores, file)
    assert not opened
    change(stores[1], Scale=9.0)
    assert index_of(stores, file)[0].scale[1] == 9
    assert opened == [stores[1]]


def test_a_store_that_cannot_be_used_is_named_and_the_others_are_used(stores, tmp_path):
    change(stores[0], Format=1)
    index, problems = index_of(stores, tmp_path / "index.npz")
    assert len(index) == 1
    assert "another version of neurostorm_bids wrote it" in str(problems[0])
    stores[1].unlink()
    with pytest.raises(NeurostormError, match="none of 2 stores can be used"):
        index_of(stores, tmp_path / "index.npz")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"RepetitionTime": 0.72}, r"repetition times .*\(0.8\).*\(0.72\); give all .* --target-tr"),
        ({"Grid": {}}, "grids"),
    ],
)
def test_runs_that_do_not_go_together_are_refused(stores, tmp_path, values, message):
    change(stores[1], **values)
    with pytest.raises(NeurostormError, match=message):
        only_grid(index_of(stores, tmp_path / "index.npz")[0])


def test_a_store_that_was_replaced_is_not_read(stores, tmp_path):
    index, _ = index_of(stores, tmp_path / "index.npz")
    os.utime(stores[0], ns=(1, 1))
    with pytest.raises(NeurostormError, match="was replaced by another call"):
        index[0].stored(0, 1)
