"""Batch normalization: training carries statistics, in a lane and in many at once."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from nets import counts_of, initial
from running import run, spec_of

import nfp_jax as nfp
from nfp_jax import ensemble, masks, models, training
from nfp_jax.fields import SpecError
from nfp_jax.masks.prunable import prunable_paths

SHAPE = (2, 2, 2)


class Small(nn.Module):
    """A network of two layers with batch normalization, which is quick to compile."""

    @nn.compact
    def __call__(self, x, counts=None):
        by_running = counts is None
        counts = None if by_running else counts[:, None]
        x = nn.Dense(6)(x.reshape(len(x), -1))
        norm = nn.BatchNorm(momentum=0.9, name="norm")
        return nn.Dense(3)(nn.relu(norm(x, by_running, mask=counts)))


MODEL = Small()
X = np.asarray(jax.random.normal(jax.random.key(1), (20, *SHAPE)))
Y = np.asarray(jax.random.randint(jax.random.key(2), (20,), 0, 3))
KEY = jax.random.key(3)
EPOCHS, BATCH = 2, 8

pytestmark = pytest.mark.usefixtures("one_device")


def of_batches(apply_fn):
    """``apply_fn`` with Flax' own switch of every ``nn.BatchNorm`` on training."""

    def switched(call, args, kwargs, context):
        if isinstance(context.module, nn.BatchNorm):
            args, kwargs = args[:1], {"use_running_average": False}
        return call(*args, **kwargs)

    def applied(params, x):
        with nn.intercept_methods(switched):
            return apply_fn(params, x, mutable=["batch_stats"])

    return applied


@functools.partial(jax.jit, static_argnums=0)
def step_by_hand(optimizer, params, opt_state, mask, x, y):
    """A step as in Flax' guide: statistics are carried beside the weights."""

    def loss_fn(weights):
        logits, after = of_batches(MODEL.apply)({**params, "params": weights}, x)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return jnp.mean(losses), after

    gradient, after = jax.grad(loss_fn, has_aux=True)(params["params"])
    gradient = masks.apply_mask(gradient, mask["params"])
    updates, opt_state = optimizer.update(gradient, opt_state, params["params"])
    moved = optax.apply_updates(params["params"], updates)
    return {"params": masks.apply_mask(moved, mask["params"]), **after}, opt_state


def by_hand(optimizer, params, mask, n):
    params = masks.apply_mask(params, mask)
    state = optimizer.init(params["params"])
    for epoch in range(EPOCHS):
        bits = jax.random.bits(jax.random.fold_in(KEY, epoch), (n,), jnp.uint32)
        order = np.argsort(bits, kind="stable")
        for start in range(0, n, BATCH):
            index = order[start : start + BATCH]
            params, state = step_by_hand(
                optimizer, params, state, mask, X[index], Y[index]
            )
    return params


@pytest.fixture(scope="module")
def start():
    """Initial weights, and a mask by SNIP."""
    params = initial(MODEL, SHAPE)
    loss_fn = nfp.classification_loss(models.BatchApply(MODEL))
    prune = jax.jit(
        lambda params: nfp.prune(nfp.snip(loss_fn), params, (X, Y), sparsity=0.5)
    )
    return params, prune(params)


# Clips and decays: neither may reach the statistics, nor see them. Adam would enlarge
# the rounding of gradients that are 0, as of a bias before a norm.
OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(0.5),
    optax.add_decayed_weights(0.1),
    optax.sgd(0.1, momentum=0.9),
)


def test_training_equals_a_plain_flax_loop_alone_and_in_lanes(start):
    """20 and 13 points: batches of 8, then of 4 and 5, and in lanes padded ones."""
    params, mask = start
    made = training.make_training(
        training.statistics_loss(models.TrainingApply(MODEL)),
        training.carry_statistics(OPTIMIZER),
        metrics_fn=training.classification_metrics(MODEL.apply),
        batch_size=BATCH,
        max_epochs=EPOCHS,
        stop=lambda progress: progress.epoch < 0,
    )
    jobs = [ensemble.Job(params, mask, (X[:n], Y[:n]), KEY) for n in (20, 13)]
    in_lanes, _ = ensemble.run(made, jobs, lanes=2)
    alone = training.train(made, params, mask, (X, Y), KEY)
    by_two = [by_hand(OPTIMIZER, params, mask, n) for n in (20, 13)]
    results = zip((alone, *in_lanes), (by_two[0], *by_two), strict=True)
    for result, expected in results:
        for (path, leaf), other in zip(
            masks.named_leaves(result.params), jax.tree.leaves(expected), strict=True
        ):
            # 1e-5, of numbers of about 1: float32 sums in another order, six steps.
            np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-5, err_msg=path)
    # What is measured is by the running statistics.
    logits = MODEL.apply(jax.device_get(by_two[0]), X)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, Y)
    assert float(alone.metrics["loss"]) == pytest.approx(
        float(jnp.mean(losses)), rel=1e-4
    )


def test_counts_are_those_of_group_norm_and_no_statistic_may_be_pruned():
    shapes = jax.eval_shape(
        models.build("resnet", 10, norm="batch").init,
        jax.random.key(0),
        jnp.zeros((1, 32, 32, 3)),
    )
    total, prunable = counts_of(models.build("resnet", 10))
    trained = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert (trained, masks.prunable_size(shapes)) == (total, prunable)
    two_axes = {"batch_stats": jnp.ones((2, 3)), "params": jnp.ones((2, 3))}
    assert prunable_paths(two_axes, masks.prunable_kernels(two_axes)) == ["params"]


def test_resnet_normalizes_by_the_examples_that_count_as_flax_does():
    """Every norm of it: against Flax' switch, on these examples alone."""
    model = models.build("resnet", 3, depth=8, width=2, norm="batch")
    params, x = initial(model, (4, 4, 2)), np.zeros((8, 4, 4, 2), np.float32)
    x[:5] = jax.random.normal(jax.random.key(1), (5, 4, 4, 2))
    x[5:] = 100  # padding
    logits, after = jax.jit(models.TrainingApply(model))(params, x, jnp.arange(8) < 5)
    expected, collection = jax.jit(of_batches(model.apply))(params, x[:5])
    # 1e-4: sums in another order, through nine norms.
    np.testing.assert_allclose(logits[:5], expected, rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_close({"batch_stats": after}, collection, rtol=1e-4)


def test_one_example_alone_is_refused_by_the_name_of_the_layer(start):
    params, _ = start
    with pytest.raises(ValueError, match=r"^norm normalizes by the statistics of a b"):
        models.BatchApply(MODEL)(params, X[:1])


def of_lab(pruner, **train):
    return spec_of(
        {
            "data": {"name": "digits"},
            "model": {"name": "resnet", "depth": 8, "width": 4, "norm": "batch"},
            "train": {"max_epochs": 2, "stop": "still", **train},
            "grid": {"pruner": pruner, "sparsity": (0.9,), "n": (32,)},
        }
    )


def test_a_pruner_per_example_is_refused_by_card_and_layer():
    for name in ("fisher_taylor", "fisher_free", "ntk_sap"):
        expected = rf"pruners\.{name} takes examples one by one, and the layer block_0/"
        with pytest.raises(SpecError, match=expected):
            run(of_lab((name,)))


def test_smoke_the_lab_prunes_and_trains_with_batch_norm():
    rows, failures, _ = run(of_lab(("snip", "synflow"), batch_size=16))
    assert failures == [] and len(rows) == 2
    model = models.build("resnet", 10, depth=8, width=4, norm="batch")
    total = counts_of(model, (8, 8, 1))[1]
    for row in rows.values():
        kept = masks.keep_count(total, 0.9)
        assert row["kept"] == sum(row["kept_by_layer"]) == kept
        assert np.isfinite(row["loss"])
