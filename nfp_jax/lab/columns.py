"""The columns of a row that several questions have."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax import capacity, masks
from nfp_jax.engine.examples import Padded
from nfp_jax.engine.training import Summary, TrainResult
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


def summary_of(setup: Setup) -> Summary:
    """Returns what is measured of every network at its end, on the device.

    Weights kept by layer, whether it is collapsed, how many labels the noise redrew and
    its power, and how many test points it gets right, where there are some.
    """

    def summary(result: TrainResult, data: Padded, test_set: Any) -> dict[str, Any]:
        flags = jax.tree.leaves(setup.prunable)
        layers = itertools.compress(jax.tree.leaves(result.mask), flags)
        labels: Any = data.examples.labels
        z, redrawn = labels[1:]
        counts = jnp.arange(len(redrawn)) < data.n
        power = jnp.sum(jnp.where(counts, jnp.sum(z**2, axis=-1), 0)) / data.n
        found = {
            "kept": jnp.stack([jnp.sum(leaf, dtype=jnp.int32) for leaf in layers]),
            "collapsed": masks.collapsed(
                setup.model.apply, result.mask, setup.input_shape
            ),
            "redrawn": jnp.sum(counts & redrawn, dtype=jnp.int32),
            "power": power,
        }
        if test_set is not None:
            x, y = test_set
            right = jnp.argmax(setup.logits(result.params, x), axis=-1) == y
            found["test_correct"] = jnp.sum(right, dtype=jnp.int32)
        return found

    return summary


def derived_of(
    setup: Setup,
    sizes: list[int],
    noise: list[tuple[float, int]],
    rows: list[int],
    results: TrainResult,
) -> list[Row]:
    """Returns what follows from the metrics of networks; None: undefined.

    Args:
      setup: of the run.
      sizes: the number of points of each.
      noise: the power of its label noise, and how many labels that redrew.
      rows: its row among the results.
      results: stacked.
    """
    names = ("accuracy", "redrawn_and_correct", "noise_correlation")
    metrics = {name: np.asarray(results.metrics[name]) for name in names}
    n, power, count = np.ones((3, len(metrics["accuracy"])), np.float32)
    n[rows] = sizes
    power[rows], count[rows] = zip(*noise, strict=True)
    measured = jax.device_get(_measure(metrics, setup.classes, n, power, count))
    measured["collapsed"] = results.summary["collapsed"]
    return [
        {
            name: None if np.isnan(values[row]) else np.asarray(values[row]).item()
            for name, values in measured.items()
        }
        for row in rows
    ]


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
