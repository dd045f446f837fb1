"""The data sets of a draw that a mask is made from, each: drawn, or all labelings."""

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax import information
from nfp_jax.data import Labels
from nfp_jax.grid import Cell
from nfp_jax.lab.draws import (
    DATA,
    NOISE,
    Draw,
    Points,
    draw_labels,
    draw_of,
    draw_points,
    inputs_of,
    key_of,
)
from nfp_jax.lab.setup import Setup
from nfp_jax.lab.stacked import Draws, Stacks
from nfp_jax.questions.information.card import Settings

# Data sets whose masks are made twice, to see whether they come out the same.
AGAIN = 16


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
      resampled: whether each set has inputs of its own.
      enumerated: whether the sets are all labelings.
    """

    def __init__(self, setup: Setup, cell: Cell) -> None:
        self.setup, self.cell, self.draw = setup, cell, draw_of(setup, cell)
        settings, n = setup.spec.settings, cell["n"]
        self.resampled = settings.conditioning == "data"
        self.enumerated = tries_all(settings, n, cell["noise"], setup.classes)
        small = np.min_scalar_type(setup.classes - 1)
        self.drawn = np.stack(
            [np.asarray(self.sampled(k)[1].y, small) for k in range(settings.datasets)]
        )
        self.labels = self.drawn
        if self.enumerated:  # [C^n, n], in the order of the numbers that they spell
            digits = np.indices((setup.classes,) * n, small)
            self.labels = digits.reshape(n, -1).T
        again = list(range(len(self.labels)))[:AGAIN][::-1]
        # Each in another place and beside other neighbors.
        self.again = [k for first in range(4) for k in again[first::4]]
        self.order = [*range(len(self.labels)), *self.again]

    def sampled(self, k: int) -> tuple[Points, Labels]:
        """Data set ``k`` of those drawn."""
        seed, points = self.cell["data_seed"], self.draw.points
        if self.resampled:
            key = jax.random.fold_in(key_of(self.setup, DATA, seed), k)
            points = draw_points(self.setup, self.cell["n"], key)
        noise_key = jax.random.fold_in(key_of(self.setup, NOISE, seed), k)
        return points, draw_labels(self.setup, points, self.cell, noise_key)

    def on(self, k: int) -> Draw:
        """The draw on set ``k``."""
        if not self.enumerated:
            points, labels = self.sampled(k)
            return self.draw._replace(points=points, labels=labels)
        y, classes = self.labels[k].astype(np.int32), self.setup.classes
        z = np.eye(classes, dtype=np.float32)[y] - np.float32(1 / classes)
        redrawn = np.ones(len(y), bool)
        labels = Labels(jnp.asarray(y), jnp.asarray(z), jnp.asarray(redrawn))
        return self.draw._replace(labels=labels)

    def draws(self, stacks: Stacks, places: list[int]) -> Draws:
        """The draws on the sets at these places of the order, stacked."""
        sets, cells = [self.order[place] for place in places], [self.cell] * len(places)
        if self.enumerated:
            return stacks.draws(cells, labels=[self.labels[k] for k in sets])
        streams = (DATA, NOISE) if self.resampled else (NOISE,)
        return stacks.draws(cells, folds=dict.fromkeys(streams, sets))

    def batch(self, sets: list[int]) -> tuple[jax.Array, jax.Array]:
        """Labels ``[sets, n]``, and inputs: ``[n, ...]`` of all, or of each set."""
        x = inputs_of(self.setup, self.draw)
        if self.resampled:
            x = jnp.stack([inputs_of(self.setup, self.on(k)) for k in sets])
        return x, jnp.asarray(self.labels[sets], jnp.int32)

    def of_drawn(self) -> np.ndarray:
        """The sets that were drawn, ``int[K]``."""
        if not self.enumerated:
            return np.arange(len(self.drawn))
        places = self.setup.classes ** np.arange(self.drawn.shape[1])[::-1]
        return self.drawn @ places


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
