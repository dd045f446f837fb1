"""The data sets of a draw that a mask is made from, each: drawn, or all labelings."""

from collections.abc import Sequence
from typing import Any

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
        # What is not asked for of a set is not computed, inputs above all.
        self.set_labels = jax.jit(jax.vmap(lambda *at: self.one(*at)[1], (0, None)))
        self.set_inputs = jax.jit(jax.vmap(lambda *at: self.one(*at)[0], (0, None)))
        small = np.min_scalar_type(setup.classes - 1)
        chunks = parts(list(range(settings.datasets)), AT_ONCE)
        found = [self.made(self.set_labels, sets, AT_ONCE) for sets in chunks]
        self.drawn = np.concatenate(jax.device_get(found)).astype(small)
        self.drawn = self.drawn[: settings.datasets]
        self.labels = self.drawn
        if self.enumerated:  # [C^n, n], in the order of the numbers that they spell
            digits = np.indices((setup.classes,) * n, small)
            self.labels = digits.reshape(n, -1).T
        again = list(range(len(self.labels)))[:AGAIN][::-1]
        # Each in another place and beside other neighbors.
        self.again = [k for first in range(4) for k in again[first::4]]
        self.order = [*range(len(self.labels)), *self.again]

    def one(self, k: Any, pool: tuple[Any, Any]) -> tuple[Any, Any]:
        """Inputs, if they are resampled, and labels of set ``k`` of those drawn.

        Args:
          k: which, an integer that may be traced.
          pool: inputs and clean labels of an image set.
        """
        setup, cell = self.setup, self.cell
        x: Any = self.x
        clean: Any = self.draw.points.clean
        if self.resampled:
            key = key_of(setup, DATA, cell["data_seed"])
            key = jax.random.fold_in(key, k)
            if setup.make is not None:
                made = setup.make(key, n=cell["n"])
                x, clean = made.x, made.clean
            else:
                index = subset_index(len(pool[1]), cell["n"], key)
                x, clean = (leaf[index] for leaf in pool)
        noise_key = key_of(setup, NOISE, cell["data_seed"])
        noise_key = jax.random.fold_in(noise_key, k)
        return x, setup.redraw(clean, noise_key, cell["noise"]).y

    def made(self, program: Any, sets: Sequence[int], size: int) -> Any:
        """What a program makes of sets, filled up to so many of them."""
        pool = None if self.setup.pool is None else self.setup.pool.clean
        return program(filled(sets, size), (self.setup.inputs, pool))

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
        x = self.made(self.set_inputs, sets, size) if self.resampled else self.x
        return x, self.labels[filled(sets, size)].astype(np.int32)

    def inputs(self) -> np.ndarray:
        """Inputs of the sets that were drawn, on the host: ``[n, ...]``, of all alike,
        or ``[K, n, ...]``.
        """
        if not self.resampled:
            return np.asarray(self.x)
        count = len(self.drawn)
        chunks = parts(list(range(count)), AT_ONCE)
        return np.concatenate(
            [
                np.asarray(self.made(self.set_inputs, sets, AT_ONCE))[: len(sets)]
                for sets in chunks
            ]
        )

    def of_drawn(self) -> np.ndarray:
        """The sets that were drawn, ``int[K]``."""
        if not self.enumerated:
            return np.arange(len(self.drawn))
        places = self.setup.classes ** np.arange(self.drawn.shape[1])[::-1]
        return self.drawn @ places


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
