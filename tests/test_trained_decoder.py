"""The decoder of masks from training, with the lab's own trainings in its loop."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import run, setup_of, spec_of

import nfp_jax as nfp
from nfp_jax import decoding, experiments
from nfp_jax.decoding import drift
from nfp_jax.lab.chains import Chains
from nfp_jax.lab.stacked import Stacks
from nfp_jax.questions.information import run as question
from nfp_jax.questions.information.simulated import (
    margins_of,
    passed_by,
    passed_of,
    reader_of_trained,
    simulator,
)
from nfp_jax.results import row_key

CONFIG = {
    "name": "test",
    "question": "information",
    "data": {"dim": 8},
    "model": {"widths": (16, 16)},
    "train": {
        "max_epochs": 30,
        "stop": "still",
        "min_epochs": 10,
        "learning_rate": 0.02,
        "batch_size": 8,
    },
    "information": {"datasets": 40},
    "grid": {"pruner": ("magnitude_trained", "imp"), "sparsity": (0.6,), "n": (24,)},
}
make_spec = functools.partial(spec_of, CONFIG)

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def lab(one_device):
    """The set-up, its cells by pruner, and the masks that the run makes of each."""
    spec = make_spec()
    cells = {cell["pruner"]: cell for cell in experiments.all_cells(spec)}
    setup = setup_of(spec)
    family = question.Family(setup, cells["imp"])
    work = question.Information(setup, print, None)
    packed, _, _ = work.make_through_training(
        family, list(cells.values()), progress=False
    )
    masks = {
        name: np.unpackbits(packed[row_key(cell)], axis=1, count=setup.total)
        for name, cell in cells.items()
    }
    return setup, family, cells, {k: x.astype(bool)[:40] for k, x in masks.items()}


@pytest.mark.parametrize("pruner", ["magnitude_trained", "imp"])
def test_a_simulated_mask_of_the_true_labels_is_the_real_one_bit_by_bit(lab, pruner):
    setup, family, cells, masks = lab
    simulate = simulator(Stacks(setup), family, cells[pruner])
    for few in (slice(0, 3), slice(3, 4)):  # beside other neighbors, and alone
        found = simulate(family.labels[few])
        np.testing.assert_array_equal(found.masks, masks[pruner][few])
        np.testing.assert_array_equal(found.margins >= 0, found.masks)
    other = simulate(1 - family.labels[:1])
    assert (other.masks != masks[pruner][:1]).any()


def test_imp_has_the_margins_of_all_of_its_rounds(lab):
    setup, _, cells, _ = lab
    assert passed_by(setup, cells["magnitude_trained"]) == [0.6]
    # 0.8, 0.64, 0.512 and 0.4096 of the weights are trained, and then 0.4 kept.
    found = passed_by(setup, cells["imp"])
    np.testing.assert_allclose(found, [0.2, 0.36, 0.488, 0.5904, 0.6], atol=2e-3)


def test_margins_are_the_least_over_rounds_within_groups():
    kept = np.array([[[1, 1, 0, 1]], [[1, 0, 0, 1]]], bool)
    weights = np.array([[[3.0, -2.0, 1.0, 5.0]], [[4.0, 1.0, 0.0, 5.0]]])
    whole = margins_of(kept, weights, [4])
    np.testing.assert_allclose(whole, [[0.0, -0.75, -0.5, 0.25]])
    parts = margins_of(kept, weights, [2, 2])
    np.testing.assert_allclose(parts, [[0.0, -0.75, -0.8, 0.0]])
    tied = margins_of(np.array([[[1, 0]]], bool), np.ones((1, 1, 2)), [2])
    assert tied[0, 0] >= 0 > tied[0, 1]


def test_slopes_are_gradients_of_the_lead_through_the_kernel(lab):
    setup, family, _, _ = lab
    x, params = family.x, family.draw.params
    flat = jnp.concatenate(
        [leaf.reshape(-1) for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    )

    def lead(flat, one):
        whole, start = [], 0
        for leaf in jax.tree.leaves(params):
            size = leaf.size if leaf.ndim > 1 else 0
            part = flat[start : start + size].reshape(leaf.shape) if size else leaf
            whole.append(part)
            start += size
        logits = setup.model.apply(
            jax.tree.unflatten(jax.tree.structure(params), whole), one[None]
        )[0]
        return logits[1] - logits[0]

    gradients = np.asarray(jax.vmap(jax.grad(lead), (None, 0))(flat, x), np.float64)
    kernel = gradients @ gradients.T
    kernel /= np.mean(np.diag(kernel))
    at = np.array([0, 5, 130, 200, 390, 415])
    expected = np.linalg.solve(kernel + drift.RIDGE * np.eye(24), gradients[:, at])
    passed = passed_of(setup, family.draw)
    _, row, column = drift.places(passed, flat, x, at)
    found = drift.slopes(passed, flat, x, row, column)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_bits_of_a_linear_model_tell_its_labels():
    """600 bits of 12 labels with little noise: the labels are all but certain."""
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], 12).astype(np.float32)
    slope = rng.standard_normal((12, 600)).astype(np.float32)
    offset = rng.standard_normal(600).astype(np.float32)
    bit = offset + signs @ slope + 0.5 * rng.standard_normal(600) >= 0
    noise, nothing = np.full(600, 0.5, np.float32), np.zeros(12, np.float32)
    odds = drift.read(bit, offset, slope, noise, nothing, nothing, nothing)
    np.testing.assert_array_equal(np.sign(odds), signs)
    assert np.abs(odds).min() > 3
    # Around other signs the margins are theirs: the same is read.
    around = -signs
    moved = offset + around @ slope
    again = drift.read(bit, moved, slope, noise, around, nothing, nothing)
    np.testing.assert_allclose(again, odds, rtol=1e-3, atol=1e-2)


def test_it_reads_more_of_trained_masks_than_ridge_does(lab):
    setup, family, cells, masks = lab
    cell = cells["magnitude_trained"]
    prior = np.full((24, 2), 0.5)
    labels = family.labels[:40].astype(int)
    stack = decoding.Stack(masks["magnitude_trained"], labels, prior, family.inputs())
    simulate = simulator(Stacks(setup), family, cell)
    small = {"made": 40, "calibrated": 20, "rounds": 1}
    decoder, law = decoding.trained(simulate, passed_of(setup, family.draw), **small)
    features = decoding.network_features(setup.model.apply, family.draw.params)
    by_ridge = decoding.ridge(features=features).log_prob(stack, 20, 40)
    found = decoder.log_prob(stack, 20, 40)
    gain, other = (np.mean(x) + 24 * math.log(2) for x in (found, by_ridge))
    assert gain > max(other, 0) + 0.5
    assert decoder.log_prob.fallbacks == 0
    # A mask of the drawn labels' law is likelier than one of random bits.
    assert np.all(np.isfinite(law.log_prob(stack, 0, 4)))
    length = -np.mean(law.log_prob(stack, 0, 40))
    likely = np.mean(stack.masks, axis=0).clip(0.01, 0.99)
    alone = -np.sum(likely * np.log(likely) + (1 - likely) * np.log1p(-likely))
    assert length < 1.3 * alone


def test_it_refuses_what_it_can_not_read(lab):
    setup, family, cells, _ = lab
    passed, cell = passed_of(setup, family.draw), cells["magnitude_trained"]
    with pytest.raises(ValueError, match="calibrated is 5 and made is 4"):
        decoding.trained(print, passed, made=4, calibrated=5)

    def wrong(labels):
        found = simulator(Stacks(setup), family, cell)(labels)
        return found._replace(margins=-found.margins)

    decoder, _ = decoding.trained(wrong, passed, made=2, calibrated=2)
    stack = decoding.Stack(
        np.zeros((1, setup.total), bool),
        np.zeros((1, 24), int),
        np.full((24, 2), 0.5),
        family.inputs(),
    )
    with pytest.raises(ValueError, match="margins are not at least 0"):
        decoder.log_prob(stack, 0, 1)
    three = stack._replace(prior=np.full((24, 3), 1 / 3))
    with pytest.raises(ValueError, match="3 classes, expected 2"):
        decoder.log_prob(three, 0, 1)


def test_trainings_that_fail_say_nothing_of_their_masks(lab):
    setup, family, cells, masks = lab
    passed, cell = passed_of(setup, family.draw), cells["magnitude_trained"]
    simulate = simulator(Stacks(setup), family, cell)
    broken = []

    def failing(labels):
        """The third of every call fails."""
        found = simulate(labels)
        found.margins[2], found.masks[2], found.weights[2] = np.nan, False, 0.0
        broken.append(len(labels))
        return found

    labels = family.labels[:6].astype(int)
    prior = np.full((24, 2), 0.5)
    stack = decoding.Stack(
        masks["magnitude_trained"][:6], labels, prior, family.inputs()
    )
    small = {"made": 12, "calibrated": 6, "rounds": 1}
    decoder, law = decoding.trained(failing, passed, **small)
    found = decoder.log_prob(stack, 0, 6)
    assert broken == [12, 6, 6]  # drawn, calibrated, read
    assert np.isfinite(found).all() and np.isfinite(law.log_prob(stack, 0, 6)).all()
    assert decoder.log_prob.fallbacks == 2  # one that calibrates, and one that is read

    def never(labels):
        found = simulate(labels)
        return found._replace(margins=np.full_like(found.margins, np.nan))

    decoder, _ = decoding.trained(never, passed, **small)
    with pytest.raises(decoding.CannotDecode, match="12 of 12 simulated trainings"):
        decoder.log_prob(stack, 0, 6)


def test_a_training_that_raises_has_no_margins_and_the_others_have(lab, monkeypatch):
    setup, family, cells, _ = lab
    simulate = simulator(Stacks(setup), family, cells["magnitude_trained"])

    def lose(self, named):
        raise FloatingPointError("lost")

    whole = simulate(family.labels[:3].astype(int))
    assert np.isfinite(whole.margins).all()
    monkeypatch.setattr(Chains, "begin_together", lose)
    assert np.isnan(simulate(family.labels[:3].astype(int)).margins).all()
    monkeypatch.undo()
    again = simulate(family.labels[:3].astype(int))  # one failure is not all later ones
    np.testing.assert_array_equal(again.masks, whole.masks)


def test_a_kept_weight_that_ends_at_zero_is_kept():
    kept = np.array([[[True, True, False]]])
    weights = np.array([[[0.5, 0.0, 0.0]]])
    margins = margins_of(kept, weights, [3])
    np.testing.assert_array_equal(margins >= 0, kept[-1])


def test_other_networks_and_conditionings_are_left_to_ridge(lab):
    setup, family, cells, _ = lab
    stacks, cell = Stacks(setup), cells["imp"]
    assert reader_of_trained(stacks, family, cell, 8) is not None
    assert reader_of_trained(stacks, family, cell, 0) is None
    resampled = make_spec(information={"conditioning": "data"})
    other = setup_of(resampled)
    drawn = question.Family(other, cell)
    assert reader_of_trained(Stacks(other), drawn, cell, 8) is None


def test_a_row_names_it(monkeypatch):
    from nfp_jax.questions.information import simulated

    monkeypatch.setattr(simulated, "FEW", {"made": 24, "calibrated": 12, "rounds": 1})
    spec = make_spec(
        information={"datasets": 48, "confidence": 0.5},
        grid={"pruner": ("magnitude_trained",)},
    )
    rows, failures, _ = run(spec)
    assert failures == []
    (row,) = rows.values()
    assert row["information_lower_by"] == "simulated training"
    assert 0 < row["information_lower"] <= row["information_upper"]
    assert row["decoder_fallbacks"] == 0


def test_a_tied_mask_is_the_top_of_its_margins():
    """What the decoder reads is the mask of the pruner, whatever its margins are."""
    params = {"w": jnp.array([[0.5, -0.5, 0.25, 1.0]])}
    mask = nfp.prune(nfp.magnitude(), params, sparsity=0.5)
    kept = np.asarray(nfp.ravel_mask(mask))[None]
    margins = margins_of(kept[None], np.asarray(params["w"])[None], [4])
    np.testing.assert_array_equal(margins >= 0, kept)
