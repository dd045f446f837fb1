"""Masks as they are: counts, ties and bits in rows, of every kind of pruner."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import pruner_entry, run, setup_of, spec_of

from nfp_jax import masks
from nfp_jax.fields import SpecError
from nfp_jax.lab.draws import draw_of
from nfp_jax.lab.masking import mask_on
from nfp_jax.pruners.contract import MaskUpdate
from nfp_jax.questions.masks.figures import jaccard
from nfp_jax.questions.masks.run import by_order

BASE = {
    "question": "masks",
    "data": {"name": "gaussian", "dim": 6},
    "model": {"widths": (8,)},  # 6 * 8 + 8 * 2 = 64 weights
    "train": {"max_epochs": 4, "settle_from": 2, "settle_steps": 0},
    "grid": {"sparsity": (0.5, 0.75), "n": (16,)},
}
pytestmark = pytest.mark.usefixtures("one_device")


def equal(params, batch=None, key=None, *, mask=None, prunable=None):
    """The same score for all weights."""
    return jax.tree.map(jnp.ones_like, params)


def greedy(net):
    """Keeps everything, whatever is asked."""

    def mask_fn(params, batch=None, key=None, *, keep, prunable=None, mask=None):
        return masks.dense_mask(params)

    return mask_fn


def nan(params, batch=None, key=None, *, mask=None, prunable=None):
    return jax.tree.map(lambda leaf: leaf * jnp.nan, params)


def by_sparsity(found, pruner):
    rows = [row for row in found.values() if row["pruner"] == pruner]
    return {row["sparsity"]: row for row in rows}


@pytest.fixture(scope="module")
def told(one_device):
    """The rows and failures of pruners of every kind, by score and by themselves."""
    with pytest.MonkeyPatch.context() as patch:
        entries = (
            pruner_entry(patch, "equal", equal),
            pruner_entry(patch, "greedy", build=greedy),
            pruner_entry(patch, "nan", nan),
        )
        spec = spec_of(BASE, grid={"pruner": (*entries, "snip", "magnitude_trained")})
        found, failures, _ = run(spec)
        yield spec, found, failures


def test_a_row_has_the_mask_that_other_questions_train_under(told):
    spec, found, _ = told
    setup = setup_of(spec)
    for row in by_sparsity(found, "snip").values():
        draw = draw_of(setup, row)
        x, y = draw.points.inputs, draw.labels.y
        expected = masks.ravel_mask(mask_on(setup, draw, row, (x, y)))
        bits = np.unpackbits(np.frombuffer(row["mask"], np.uint8), count=64)
        np.testing.assert_array_equal(bits.astype(bool), expected)
        assert row["kept_by_layer"] == [bits[:48].sum(), bits[48:].sum()]
        assert row["size_by_layer"] == [48, 16] and row["prunable"] == 64
        assert row["kept"] == row["asked"] == 64 * (1 - row["sparsity"])
        assert row["tied"] == 0 and row["seconds"] > 0 and not row["collapsed"]


def test_ties_are_counted_where_all_scores_are_equal(told):
    rows = by_sparsity(told[1], "equal")
    # Of 64 the first 32, or the last 32; the first 16, or the last 16.
    assert {s: (row["kept"], row["tied"]) for s, row in rows.items()} == {
        0.5: (32, 32),
        0.75: (16, 16),
    }
    assert rows[0.5]["kept_by_layer"] == [32, 0] and rows[0.5]["collapsed"]


def test_a_pruner_that_keeps_too_many_has_rows_that_say_so(told):
    rows = by_sparsity(told[1], "greedy")
    assert {s: (row["kept"], row["asked"]) for s, row in rows.items()} == {
        0.5: (64, 32),
        0.75: (64, 16),
    }
    assert rows[0.5]["tied"] is None


def test_a_nan_score_fails_its_own_cells_and_no_others(told):
    _, found, failures = told
    assert {failure.cell["pruner"] for failure in failures} == {"nan"}
    assert len(failures) == 2 and "NaN" in failures[0].error
    assert not by_sparsity(found, "nan") and len(found) == 8


def test_masks_through_training_have_their_part_of_its_seconds(told):
    rows = by_sparsity(told[1], "magnitude_trained")
    assert [row["kept"] for row in rows.values()] == [32, 16]
    first, second = rows.values()
    assert first["seconds"] == second["seconds"] > 0
    # One training, two cuts: the sparser lies within the other.
    a, b = (np.frombuffer(row["mask"], np.uint8) for row in (first, second))
    np.testing.assert_array_equal(a & b, b)


def test_a_mask_that_moves_is_that_at_the_end_of_its_training(monkeypatch):
    def start(params, batch=None, key=None, *, keep, prunable=None, mask=None):
        return masks.top_k(jax.tree.map(jnp.ones_like, params), keep, prunable=prunable)

    def update(state, params, mask, gradient_fn, epoch):
        """Turns the kernels' masks around."""
        leaves, treedef = jax.tree.flatten(mask)
        turned = [x[::-1, ::-1] if x.ndim == 2 else x for x in leaves]
        return state, jax.tree.unflatten(treedef, turned)

    entry = pruner_entry(
        monkeypatch,
        "turning",
        build=lambda net: MaskUpdate(start, lambda *_: (), update),
        when="during",
    )
    train = {"max_epochs": 5, "stop": "still", "patience": 9, "min_epochs": 5}
    spec = spec_of(BASE, grid={"pruner": (entry,), "sparsity": (0.5,)}, train=train)
    [row] = run(spec)[0].values()
    bits = np.unpackbits(np.frombuffer(row["mask"], np.uint8), count=64)
    # It starts with the first 32 weights, all of the first layer, turned five times.
    assert row["kept_by_layer"] == [32, 0] and row["kept"] == 32
    assert bits[48 - 32 : 48].all() and not bits[: 48 - 32].any()


@hypothesis.settings(max_examples=30)
@hypothesis.given(
    st.lists(st.integers(0, 3), min_size=8, max_size=8), st.integers(0, 8)
)
def test_of_equal_scores_the_first_or_the_last_are_kept(values, keep):
    scores = {"a": jnp.array(values[:4], float).reshape(2, 2)}
    scores["b"] = jnp.array(values[4:], float).reshape(2, 2)
    prunable = {"a": True, "b": True}
    for last in (False, True):
        found = by_order(scores, (keep, last), prunable=prunable)
        sign = -1 if last else 1
        order = sorted(range(8), key=lambda i: (-values[i], sign * i))
        expected = np.isin(np.arange(8), order[:keep])
        np.testing.assert_array_equal(masks.ravel_mask(found), expected)


def test_the_overlap_of_packed_masks_is_that_of_the_library():
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.bernoulli(key, 0.4, (5, 5)) for key in keys)
    packed = (np.packbits(np.asarray(x)).tobytes() for x in (a, b))
    assert jaccard(*packed) == pytest.approx(float(masks.overlap(a, b)))
    assert jaccard(b"\0", b"\0") == 1.0


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"pruner": ("dense",)}, r"grid\.pruner\[0\] is 'dense', expected a pruner"),
        ({"pruner": ("snip",), "ablation": ("shuffle",)}, r"grid\.ablation\[0\]"),
    ],
)
def test_what_means_nothing_for_masks_is_refused(grid, message):
    with pytest.raises(SpecError, match=message):
        spec_of(BASE, grid=grid)
