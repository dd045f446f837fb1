"""The data sets of a draw that a mask is made from, each: drawn, or all labelings."""

import copy
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nfp_jax import information
from nfp_jax.data import subset_index
from nfp_jax.grid import Cell
from nfp_jax.lab.draws import (
    DATA,
    NOISE,
    Draw,
    draw_of,
    inputs_of,
    key_of,
)
from nfp_jax.lab.each import parts
from nfp_jax.lab.setup import Setup
from nfp_jax.lab.stacked import Draws, Stacks
from nfp_jax.questions.information.card import Settings

# Data sets whose masks are made twice, to see whether they come out the same.
AGAIN = 16
# Data sets drawn by one call.
AT_ONCE = 128


def tries_all(settings: Settings, n: int, noise: float, classes: int) -> bool:
    """Returns whether all labelings are tried: asked for, uniform, and not too many."""
    uniform = settings.conditioning == "labels" and noise == 1.0
    return settings.exact and uniform and classes**n <= information.MOST_LABELINGS


class Recipe(NamedTuple):
    """How sets are drawn: what programs are compiled for.

    Attributes:
      redraw: of the set-up.
      make: of the set-up, where inputs are resampled and made.
      n: points of a set, where inputs are resampled.
    """

    redraw: Any
    make: Any
    n: int | None


class Known(NamedTuple):
    """What sets are drawn from: keys of inputs and noise, the noise, the draw's clean
    labels, and where inputs are resampled out of a pool its inputs and clean labels.
    """

    data_key: Any
    noise_key: Any
    noise: Any
    clean: Any
    inputs: Any
    pool: Any


class Family:
    """The data sets of a draw; all labelings, where those are to be tried.

    Attributes:
      labels: ``[sets, n]``, of all sets.
      order: the sets that masks are made of: all, and ``again`` the first ones.
      draw: the draw whose initial weights and keys all sets share.
      x: the inputs of the draw ``[n, ...]``, on the device.
      resampled: whether each set has inputs of its own.
      enumerated: whether the sets are all labelings.
    """

    def __init__(self, setup: Setup, cell: Cell) -> None:
        self.setup, self.cell, self.draw = setup, cell, draw_of(setup, cell)
        settings, n = setup.spec.settings, cell["n"]
        self.x = inputs_of(setup, self.draw)
        self.resampled = settings.conditioning == "data"
        self.enumerated = tries_all(settings, n, cell["noise"], setup.classes)
        if self.resampled:
            self.recipe = Recipe(setup.redraw, setup.make, n)
        else:
            self.recipe = Recipe(setup.redraw, None, None)
        seed, pool = cell["data_seed"], setup.pool
        self.known = Known(
            key_of(setup, DATA, seed),
            key_of(setup, NOISE, seed),
            np.float32(cell["noise"]),
            np.asarray(self.draw.points.clean),
            setup.inputs if self.resampled else None,
            pool.clean if self.resampled and pool is not None else None,
        )
        small = np.min_scalar_type(setup.classes - 1)
        chunks = parts(list(range(settings.datasets)), AT_ONCE)
        found = [
            _labels(self.recipe, self.known, filled(sets, AT_ONCE)) for sets in chunks
        ]
        self.drawn = np.concatenate(jax.device_get(found))[: settings.datasets]
        self.drawn = self.drawn.astype(small)
        self.labels = self.drawn
        if self.enumerated:  # [C^n, n], in the order of the numbers that they spell
            digits = np.indices((setup.classes,) * n, small)
            self.labels = digits.reshape(n, -1).T
        again = list(range(len(self.labels)))[:AGAIN][::-1]
        # Each in another place and beside other neighbors.
        self.again = [k for first in range(4) for k in again[first::4]]
        self.order = [*range(len(self.labels)), *self.again]

    def on(self, labels: np.ndarray) -> "Family":
        """Returns the family of these labelings ``[k, n]``, in place of those drawn."""
        found = copy.copy(self)
        found.labels, found.enumerated = np.asarray(labels), True
        found.order, found.again = list(range(len(labels))), []
        return found

    def draws(self, stacks: Stacks, places: list[int]) -> Draws:
        """The draws on the sets at these places of the order, stacked."""
        sets, cells = [self.order[place] for place in places], [self.cell] * len(places)
        if self.enumerated:
            return stacks.draws(cells, labels=[self.labels[k] for k in sets])
        streams = (DATA, NOISE) if self.resampled else (NOISE,)
        return stacks.draws(cells, folds=dict.fromkeys(streams, sets))

    def batch(self, sets: Sequence[int], size: int) -> tuple[Any, np.ndarray]:
        """Inputs, ``[n, ...]`` of all or of each set, and labels of ``size`` sets.

        The last set fills up what is missing.
        """
        index, x = filled(sets, size), self.x
        if self.resampled:
            x = _inputs(self.recipe, self.known, index)
        return x, self.labels[index].astype(np.int32)

    def inputs(self) -> np.ndarray:
        """Inputs of the sets that were drawn, on the host: ``[n, ...]``, of all alike,
        or ``[K, n, ...]``.
        """
        if not self.resampled:
            return np.asarray(self.x)
        found = [
            np.asarray(_inputs(self.recipe, self.known, filled(sets, AT_ONCE)))
            for sets in parts(list(range(len(self.drawn))), AT_ONCE)
        ]
        return np.concatenate(found)[: len(self.drawn)]

    def of_drawn(self) -> np.ndarray:
        """The sets that were drawn, ``int[K]``."""
        if not self.enumerated:
            return np.arange(len(self.drawn))
        places = self.setup.classes ** np.arange(self.drawn.shape[1])[::-1]
        return self.drawn @ places


def _set(recipe: Recipe, known: Known, k: Any) -> tuple[Any, Any]:
    """Inputs, where they are resampled, and labels of set ``k`` of those drawn."""
    x, clean = None, known.clean
    if recipe.n is not None:
        key = jax.random.fold_in(known.data_key, k)
        if recipe.make is not None:
            made = recipe.make(key, n=recipe.n)
            x, clean = made.x, made.clean
        else:
            index = subset_index(len(known.pool), recipe.n, key)
            x, clean = known.inputs[index], known.pool[index]
    noise_key = jax.random.fold_in(known.noise_key, k)
    return x, recipe.redraw(clean, noise_key, known.noise).y


# What is not asked for of a set is not computed, inputs above all.
@functools.partial(jax.jit, static_argnums=0)
def _labels(recipe: Recipe, known: Known, sets: Any) -> Any:
    """Labels of sets, ``[k, n]``."""
    return jax.vmap(lambda k: _set(recipe, known, k)[1])(sets)


@functools.partial(jax.jit, static_argnums=0)
def _inputs(recipe: Recipe, known: Known, sets: Any) -> Any:
    """Inputs of sets, ``[k, n, ...]``."""
    return jax.vmap(lambda k: _set(recipe, known, k)[0])(sets)


def filled(sets: Sequence[int], size: int) -> np.ndarray:
    """Returns the numbers of sets, int32 ``[size]``, the last one repeated.

    >>> filled([3, 5], 4).tolist()
    [3, 5, 5, 5]
    """
    return np.asarray([*sets, *[sets[-1]] * (size - len(sets))], np.int32)


def label_probabilities(setup: Setup, draw: Draw, cell: Cell) -> np.ndarray | None:
    """Returns the distribution of each label, ``[n, C]``; None where labels depend."""
    if setup.spec.settings.conditioning == "labels":
        return information.noisy_label_probabilities(
            draw.points.clean, cell["noise"], setup.classes
        )
    uniform = setup.card is not None and setup.card.uniform_labels
    if uniform or cell["noise"] == 1.0:
        return np.full((cell["n"], setup.classes), 1 / setup.classes)
    return None  # images are drawn without replacement
