"""What the tests of networks share: counts, flows, and a smoke run of many lanes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import nfp_jax as nfp
from nfp_jax import ensemble, masks, models, training


def shapes_of(model, input_shape):
    """The parameters' shapes; nothing is computed."""
    x = jnp.zeros((1, *input_shape))
    return jax.eval_shape(model.init, jax.random.key(0), x)


def counts_of(model, input_shape=(32, 32, 3)):
    """How many parameters there are, and how many of them may be pruned."""
    shapes = shapes_of(model, input_shape)
    total = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    return total, masks.prunable_size(shapes)


def flow_of(model, params, input_shape):
    """SynFlow's signed sum of each kernel, by path; and R."""
    weights = jax.tree.map(jnp.abs, params)
    ones = jnp.ones((1, *input_shape))

    @jax.jit
    def sums(weights):
        flow, gradient = jax.value_and_grad(lambda w: jnp.sum(model.apply(w, ones)))(
            weights
        )
        return jax.tree.map(lambda g, w: jnp.sum(g * w), gradient, weights), flow

    of_leaves, flow = jax.device_get(sums(weights))
    return dict(masks.named_leaves(of_leaves)), flow


def initial(model, input_shape):
    """Initial weights, by one program."""
    make = jax.jit(lambda key: models.initialize(model, key, input_shape))
    return make(jax.random.key(0))


def collapsed_without(model, input_shape, layer):
    """Whether it is collapsed with all of its weights, and without those of a layer."""
    shapes = shapes_of(model, input_shape)
    mask = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), shapes)
    found = jax.jit(lambda mask: masks.collapsed(model.apply, mask, input_shape))
    whole = bool(found(mask))
    kernel = mask["params"][layer]["kernel"]
    mask["params"][layer]["kernel"] = jnp.zeros_like(kernel)
    return whole, bool(found(mask))


def trained_in_lanes(model, input_shape, *, score, epochs, classes=3, n=24):
    """Two networks pruned by 50 and 90 % under vmap, and trained in two lanes.

    Asserts that counts are exact, that masks are nested, and that pruned weights are
    exactly 0 after training, and that others have moved in every kernel of the less
    sparse network. Returns the losses after the
    first epoch and after the last, of that network.
    """
    x_key, y_key = jax.random.split(jax.random.key(1))
    x = jax.random.normal(x_key, (n, *input_shape))
    y = jax.random.randint(y_key, (n,), 0, classes)
    loss_fn = nfp.classification_loss(model.apply)
    params = initial(model, input_shape)
    total = masks.prunable_size(params)
    prune = jax.vmap(
        lambda keep: nfp.prune(score(model, loss_fn), params, (x, y), keep=keep)
    )
    keep = jnp.array([masks.keep_count(total, s) for s in (0.5, 0.9)])
    both = jax.jit(prune)(keep)
    flat = np.asarray(jax.vmap(masks.ravel_mask)(both))
    assert flat.sum(axis=1).tolist() == keep.tolist()
    assert not (flat[1] & ~flat[0]).any()  # nested

    made = training.make_training(
        loss_fn,
        optax.adam(3e-3),
        metrics_fn=training.classification_metrics(model.apply),
        batch_size=8,
        max_epochs=epochs,
        stop=training.stop_when_still(patience=epochs),
    )
    jobs = [
        ensemble.Job(
            params, jax.tree.map(lambda m, i=i: m[i], both), (x, y), jax.random.key(2)
        )
        for i in range(2)
    ]
    results, _ = ensemble.run(made, jobs, lanes=2, devices=jax.devices()[:1])
    for job, result in zip(jobs, results, strict=True):
        start = masks.apply_mask(params, job.mask)
        for (path, kept), before, after in zip(
            masks.named_leaves(job.mask),
            jax.tree.leaves(start),
            jax.tree.leaves(result.params),
            strict=True,
        ):
            after = np.asarray(after)
            assert (after[~np.asarray(kept)] == 0).all(), path
            if path.endswith("kernel") and job is jobs[0]:
                assert (after != np.asarray(before)).any(), path
    first = results[0].history["loss"][0]
    return float(first), float(results[0].metrics["loss"])
