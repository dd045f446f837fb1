"""Data sets and initial weights, from keys that come from names.

A key is ``fold_in(fold_in(root, STREAM), seed)``, so that changing the pruner changes
neither the initialization nor the data. Cells that share n, noise and seeds share a
draw: one data set, one initialization.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax import data
from nfp_jax.data import Labels
from nfp_jax.engine.examples import Examples
from nfp_jax.engine.jobs import Job
from nfp_jax.engine.training import TrainResult
from nfp_jax.grid import Cell
from nfp_jax.lab.setup import Setup
from nfp_jax.types import Params

# Streams of randomness.
INIT, DATA, NOISE, SCORE, TRAIN, SHUFFLE, REINITIALIZE = range(7)
PROBE, OTHER_INIT, OTHER_DATA, OTHER_NOISE = range(7, 11)


class Points(NamedTuple):
    """The points of a data set: where their inputs lie, and their clean labels.

    Attributes:
      inputs: ``[pool, ...]``; ``None``: those that the set-up has for all draws.
      index: int32 ``[n]``, where among the inputs each point lies.
      clean: int32 ``[n]``, labels before noise.
    """

    inputs: Any
    index: Any
    clean: Any


class Draw(NamedTuple):
    """One data set, one initialization, and the keys of what is done with them.

    Attributes:
      params: the initial weights.
      points: inputs, and labels before noise.
      labels: those to train on.
      score_key: the randomness of scores.
      train_key: the order of batches.
      repeat: which of a cell's repeats it is, where it has several.
      late: trainings on the way to a mask that used up their budget.
    """

    params: Params
    points: Points
    labels: Labels
    score_key: jax.Array
    train_key: jax.Array
    repeat: int | None = None
    late: int = 0

    @property
    def n(self) -> int:
        """The number of points."""
        return len(self.points.clean)

    @property
    def examples(self) -> Examples:
        """The data set as trainings take it."""
        return Examples(self.points.inputs, self.points.index, self.labels)

    def after(self, job: Job, result: TrainResult) -> "Draw":
        """The draw with one more training on the way to its masks."""
        free = job.steps is None  # of a fixed number of steps none is the budget
        return self._replace(late=self.late + (free and result.out_of_budget))


def key_of(
    setup: Setup, stream: int, seed: int, repeat: int | None = None
) -> jax.Array:
    """Returns the key of a stream and a seed, or of one of its repeats."""
    root = jax.random.key(setup.spec.seed)
    key = jax.random.fold_in(jax.random.fold_in(root, stream), seed)
    return key if repeat is None else jax.random.fold_in(key, repeat)


def draw_of(setup: Setup, cell: Cell, repeat: int | None = None) -> Draw:
    """Returns the data set and the initial weights of a cell, or of a repeat of it."""
    params = setup.init(key_of(setup, INIT, cell["init_seed"], repeat))
    points = draw_points(
        setup, cell["n"], key_of(setup, DATA, cell["data_seed"], repeat)
    )
    noise_key = key_of(setup, NOISE, cell["data_seed"], repeat)
    return Draw(
        params,
        points,
        draw_labels(setup, points, cell, noise_key),
        key_of(setup, SCORE, cell["train_seed"], repeat),
        key_of(setup, TRAIN, cell["train_seed"], repeat),
        repeat,
    )


def draw_points(setup: Setup, n: int, key: jax.Array) -> Points:
    """Returns n points: drawn, or taken out of the pool."""
    if setup.pool is None:
        assert setup.make is not None  # the set is one or the other
        made = setup.make(key, n=n)
        return Points(made.x, np.arange(n, dtype=np.int32), made.clean)
    index = data.subset_index(len(setup.pool.y), n, key)
    return Points(None, index, setup.pool.clean[index])


def draw_labels(setup: Setup, points: Points, cell: Cell, key: jax.Array) -> Labels:
    """Returns the labels of points with the noise of a cell."""
    labels: Labels = setup.redraw(points.clean, key, cell["noise"])
    return labels


def first(draw: Draw, n: int) -> Draw:
    """Returns the draw with the first n points of its set."""
    # On the host: on the device, each n would compile its slices.
    inputs, index, clean = draw.points
    cut = inputs if inputs is None else jnp.asarray(np.asarray(inputs)[:n])
    points = Points(cut, jnp.asarray(np.asarray(index)[:n]), np.asarray(clean)[:n])
    labels = Labels(*(jnp.asarray(np.asarray(part)[:n]) for part in draw.labels))
    return draw._replace(points=points, labels=labels)


def inputs_of(setup: Setup, draw: Draw) -> jax.Array:
    """Returns the inputs of a draw, ``[n, ...]``."""
    inputs, index, _ = draw.points
    x: jax.Array = setup.inputs[index] if inputs is None else inputs
    return x
