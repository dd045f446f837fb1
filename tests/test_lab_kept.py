"""What a resumed run reads of an earlier one, damaged or of another version."""

import numpy as np
import pytest
from test_results import make_row

from nfp_jax.lab.kept import keep_masks, keep_network, kept_masks, kept_networks
from nfp_jax.results import open_results

CELL = make_row()
SHAPES = {"masks": (3, 5), "seconds": ()}


@pytest.fixture
def store(tmp_path):
    return open_results(tmp_path, "mlp", "ab12", {})


def test_networks_that_lack_a_field_are_left_out_and_told_of_by_name(store, caplog):
    assert kept_networks(None, CELL, ("n",)) == kept_networks(store, CELL, ("n",)) == []
    keep_network(store, CELL, {"n": 1, "loss": 0.5})
    keep_network(store, CELL, {"loss": 0.5})
    path = store.networks_path(CELL)
    path.write_bytes(path.read_bytes() + b"\n[1, 2]\n3")
    assert kept_networks(store, CELL, ("n", "loss")) == [{"n": 1, "loss": 0.5}]
    assert f"3 networks of {path} lack fields" in caplog.text


def test_networks_that_can_not_be_read_are_trained_again(store, caplog):
    store.networks_path(CELL).mkdir(parents=True)
    assert kept_networks(store, CELL, ("n",)) == []
    assert f"trained again: can't read {store.networks_path(CELL)}" in caplog.text
    keep_network(store, CELL, {"n": 1})
    assert "a resumed run will train a network again" in caplog.text


def test_masks_of_these_shapes_are_taken_as_they_are(store, caplog):
    assert kept_masks(None, CELL, SHAPES) is kept_masks(store, CELL, SHAPES) is None
    masks = np.arange(20, dtype=np.uint8).reshape(4, 5)
    keep_masks(store, CELL, {"masks": masks, "seconds": np.float64(2.0)})
    found = kept_masks(store, CELL, SHAPES)
    np.testing.assert_array_equal(found["masks"], masks)
    assert kept_masks(store, CELL, {**SHAPES, "masks": (5, 5)}) is None  # more sets
    assert not caplog.records


@pytest.mark.parametrize(
    "arrays",
    [
        {"seconds": np.float64(1)},
        {"masks": np.zeros((3, 4)), "seconds": np.float64(1)},
        {"masks": np.zeros((3, 5)), "seconds": np.zeros(2)},
        {"masks": np.float64(1), "seconds": np.float64(1)},
    ],
)
def test_other_arrays_are_made_again_and_told_of_by_name(store, caplog, arrays):
    keep_masks(store, CELL, arrays)
    assert kept_masks(store, CELL, SHAPES) is None
    assert f"made again: {store.masks_path(CELL)} has " in caplog.text


@pytest.mark.parametrize("length", [0, 3, 50, -30])
def test_a_truncated_archive_is_made_again_and_told_of_by_name(store, caplog, length):
    keep_masks(store, CELL, {"masks": np.zeros((3, 5)), "seconds": np.float64(1)})
    path = store.masks_path(CELL)
    path.write_bytes(path.read_bytes()[:length])
    assert kept_masks(store, CELL, SHAPES) is None
    assert f"made again: can't read {path}" in caplog.text


def test_masks_that_can_not_be_written_do_not_end_the_run(store, caplog):
    (store.directory / "masks").write_text("in the way")
    keep_masks(store, CELL, {"masks": np.zeros((3, 5))})
    assert "a resumed run will make masks again: can't write" in caplog.text
