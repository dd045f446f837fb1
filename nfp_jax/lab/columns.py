"""The columns of a row that several questions have."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax import capacity, masks
from nfp_jax.engine.training import TrainResult
from nfp_jax.lab.draws import Draw
from nfp_jax.lab.jobs import Row
from nfp_jax.lab.setup import Setup
from nfp_jax.types import ApplyFn, Mask


def derived(setup: Setup, draw: Draw, result: TrainResult) -> Row:
    """Returns what follows from a trained network's metrics; None: undefined."""
    # Sums of labels on the host: n is an argument, and no other n compiles again.
    z, redrawn = np.asarray(draw.labels.z), np.asarray(draw.labels.redrawn)
    power, count = float(np.mean(np.sum(z**2, axis=-1))), int(redrawn.sum())
    sizes = np.float32(draw.n), np.float32(power), np.float32(count)
    metrics = dict(result.metrics)
    measured = _measure(metrics, setup.classes, sizes[0], sizes[1], sizes[2])
    plain = {**jax.device_get(measured), "collapsed": is_collapsed(setup, result.mask)}
    return {
        name: None if np.isnan(value) else np.asarray(value).item()
        for name, value in plain.items()
    }


def kept(setup: Setup, mask: Mask) -> int:
    """Returns how many prunable weights a mask keeps."""
    return sum(kept_by_layer(setup, mask).values())


def kept_by_layer(setup: Setup, mask: Mask) -> dict[str, int]:
    """Returns how many weights each prunable layer keeps, by its path."""
    flags = jax.tree.leaves(setup.prunable)
    layers = itertools.compress(masks.named_leaves(mask), flags)
    return {path: int(np.sum(leaf)) for path, leaf in layers}


def is_collapsed(setup: Setup, mask: Mask) -> jax.Array:
    """Returns whether no path from input to output is left."""
    return _collapsed(setup.model.apply, setup.input_shape, mask)


@functools.partial(jax.jit, static_argnums=1)
def _measure(
    metrics: dict[str, Any], classes: int, n: Any, power: Any, count: Any
) -> dict[str, jax.Array]:
    """NaN where a column is undefined."""
    accuracy = metrics["redrawn_and_correct"] * n / jnp.maximum(count, 1)
    return {
        "memorized_points": capacity.memorized_points(metrics["accuracy"], n),
        "memorized_bits": capacity.memorized_bits(accuracy, count, classes),
        "noise_correlation_normalized": jnp.where(
            power > 0, metrics["noise_correlation"] / power, jnp.nan
        ),
    }


@functools.partial(jax.jit, static_argnums=(0, 1))
def _collapsed(apply_fn: ApplyFn, input_shape: tuple[int, ...], mask: Mask) -> Any:
    return masks.collapsed(apply_fn, mask, input_shape)
