"""The columns of a row that several questions have."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax import capacity, masks
from nfp_jax.engine.examples import Padded
from nfp_jax.engine.training import Summary, TrainResult
from nfp_jax.lab.jobs import Row, Step
from nfp_jax.lab.one_network import Draws
from nfp_jax.lab.setup import Setup
from nfp_jax.lab.stacked import Stacks


class Last(NamedTuple):
    """What is known of the training under a mask when it begins.

    Attributes:
      draws: the stack of draws, of which it has one.
      row: which.
      size: on how many points of it.
      late: trainings before it that used up their budget.
      of: what else the question must know.
      epochs: of the trainings on the way to its mask.
    """

    draws: Draws
    row: int
    size: int
    late: int = 0
    of: Any = None
    epochs: int = 0


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


def measured_of(
    stacks: Stacks, steps: list[Step], rows: list[int], results: TrainResult
) -> list[Row]:
    """Returns what was measured of networks that ended together.

    Points and bits memorized, the correlation with the noise and whether they are
    collapsed (None: undefined); whether they diverged, how many trainings used up their
    budget, the weights kept, and the seconds.

    Args:
      stacks: of the run.
      steps: each is of a ``Last``.
      rows: the row of each among the results.
      results: stacked, measured by ``summary_of``.
    """
    whole = list(zip(steps, rows, strict=True))
    noise = [label_noise(stacks, step.of, row, results) for step, row in whole]
    sizes = [step.of.size for step in steps]
    derived = _derived(stacks.setup, sizes, noise, rows, results)
    return [
        {**known, **_end(step.of, row, results)}
        for known, (step, row) in zip(derived, whole, strict=True)
    ]


def label_noise(
    stacks: Stacks, last: Last, row: int, results: TrainResult
) -> tuple[float, int]:
    """Returns the power of the label noise, and how many labels it redrew.

    Alone, the power is summed on the host, whose order of sums rows on file have.
    """
    count = int(results.summary["redrawn"][row])
    if stacks.size > 1:
        return float(results.summary["power"][row]), count
    z = stacks.points(last.size, last.draws, last.row).z
    return float(np.mean(np.sum(z**2, axis=-1))), count


def _end(last: Last, row: int, results: TrainResult) -> Row:
    """What a network came to."""
    converged, diverged = bool(results.converged[row]), bool(results.diverged[row])
    return {
        "out_of_budget": last.late + (not (converged or diverged)),
        "diverged": diverged,
        "kept": int(np.sum(results.summary["kept"][row])),
        "seconds": float(np.asarray(results.seconds)[row]),
    }


def _derived(
    setup: Setup,
    sizes: list[int],
    noise: list[tuple[float, int]],
    rows: list[int],
    results: TrainResult,
) -> list[Row]:
    """What follows from the metrics of networks; None: undefined.

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
