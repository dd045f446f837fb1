"""Pretrained weights: what is taken of them, and what they have seen."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nets import initial

import nfp_jax as nfp
from nfp_jax import data, models, training

POINTS = data.gaussian(jax.random.key(0), 41, 6)


@pytest.mark.parametrize("key", [None, jax.random.key(1)], ids=["in order", "permuted"])
def test_halves_are_disjoint_and_together_the_set(key):
    first, second = data.halves(POINTS, key)
    assert (len(first.y), len(second.y)) == (20, 21)
    assert models.shared_points(first.x, second.x) == 0
    both = np.concatenate([first.x, second.x])
    assert models.shared_points(both, POINTS.x) == 41
    for part in (first, second):
        for row, label in zip(part.x, part.y, strict=True):
            at = np.flatnonzero((np.asarray(POINTS.x) == np.asarray(row)).all(axis=1))
            assert POINTS.y[at[0]] == label


def test_a_set_of_one_point_has_no_halves():
    with pytest.raises(ValueError, match="has 1 training points, expected 2 or more"):
        data.halves(data.subset(POINTS, 1))


def test_all_but_the_head_is_what_was_trained_and_what_it_saw_is_said():
    first, second = data.halves(POINTS)
    wide = models.MLP(3, widths=(8,))  # of other classes
    source = initial(wide, (6,))
    made = training.make_training(
        nfp.classification_loss(wide.apply),
        optax.adam(1e-2),
        metrics_fn=training.classification_metrics(wide.apply),
        batch_size=10,
        max_epochs=5,
    )
    everything = jax.tree.map(lambda w: jnp.ones(w.shape, bool), source)
    trained = training.train(
        made, source, everything, (first.x, first.y), jax.random.key(3)
    ).params
    fresh = initial(models.MLP(2, widths=(8,)), (6,))
    for x, sees in ((second.x, "nothing"), (POINTS.x[19:21], "training")):
        found = models.pretrained(
            fresh, trained, head="params/Dense_1", trained_on=first.x, x=x
        )
        assert found.sees == sees
        layers = found.params["params"]
        for name in ("kernel", "bias"):
            below, above = layers["Dense_0"][name], layers["Dense_1"][name]
            assert (below == trained["params"]["Dense_0"][name]).all()
            assert (above == fresh["params"]["Dense_1"][name]).all()
    moved = trained["params"]["Dense_0"]["kernel"]
    assert (moved != source["params"]["Dense_0"]["kernel"]).any()


def test_zeros_of_either_sign_are_one_point():
    assert models.shared_points(np.zeros((1, 2)), -np.zeros((1, 2))) == 1


@pytest.mark.parametrize(
    ("head", "widths", "message"),
    [
        ("params/head", (8,), r"head is 'params/head', expected a layer of \['params"),
        ("params/Dense_1", (9,), r"source at 'params/Dense_0/bias' has shape \(9,\)"),
        ("params/Dense_2", (8,), r"source has no leaf 'params/Dense_1/bias'"),
    ],
)
def test_a_source_that_does_not_fit_is_named(head, widths, message):
    deep = (8, 4) if head.endswith("2") else (8,)
    fresh = initial(models.MLP(2, widths=deep), (6,))
    source = initial(models.MLP(2, widths=widths), (6,))
    if head.endswith("2"):
        del source["params"]["Dense_1"]
    with pytest.raises(ValueError, match=message):
        models.pretrained(fresh, source, head=head, trained_on=POINTS.x, x=POINTS.x)
