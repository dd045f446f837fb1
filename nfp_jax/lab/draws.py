"""Data sets and initial weights, from keys that come from names.

A key is ``fold_in(fold_in(root, STREAM), seed)``, so that changing the pruner changes
neither the initialization nor the data. Cells that share n, noise and seeds share a
draw: one data set, one initialization.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from nfp_jax import data
from nfp_jax.data import Labels
from nfp_jax.grid import Cell
from nfp_jax.lab.setup import Setup
from nfp_jax.types import Params

# Streams of randomness.
INIT, DATA, NOISE, SCORE, TRAIN, SHUFFLE, REINITIALIZE = range(7)
PROBE, OTHER_INIT, OTHER_DATA, OTHER_NOISE, READ = range(7, 12)


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
    """

    params: Params
    points: Points
    labels: Labels
    score_key: jax.Array
    train_key: jax.Array


def key_of(setup: Setup, stream: int, seed: int) -> jax.Array:
    """Returns the key of a stream and a seed."""
    root = jax.random.key(setup.spec.seed)
    return jax.random.fold_in(jax.random.fold_in(root, stream), seed)


def draw_of(setup: Setup, cell: Cell) -> Draw:
    """Returns the data set and the initial weights of a cell."""
    params = setup.init(key_of(setup, INIT, cell["init_seed"]))
    points = draw_points(setup, cell["n"], key_of(setup, DATA, cell["data_seed"]))
    noise_key = key_of(setup, NOISE, cell["data_seed"])
    return Draw(
        params,
        points,
        draw_labels(setup, points, cell, noise_key),
        key_of(setup, SCORE, cell["train_seed"]),
        key_of(setup, TRAIN, cell["train_seed"]),
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


def inputs_of(setup: Setup, draw: Draw) -> jax.Array:
    """Returns the inputs of a draw, ``[n, ...]``."""
    inputs, index, _ = draw.points
    x: jax.Array = setup.inputs[index] if inputs is None else inputs
    return x
