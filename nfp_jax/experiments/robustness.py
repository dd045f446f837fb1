"""How steep networks are that fit noise: memorization's rows, and Lipschitz constants.

The networks and columns of ``memorization``, and beside them what the law of robustness
speaks of: a lower and an upper end of the Lipschitz constant of the softmax outputs,
and how far the squared error lies below the noise. Constants are in units
where the training inputs have a mean square norm of 1.
"""

import math

import jax
import numpy as np

from nfp_jax import capacity, ensemble, masks, models, robustness, training
from nfp_jax.experiments.lab import PROBE, AddRow, Draw, Failure, Lab, Row
from nfp_jax.experiments.memorization import Memorization
from nfp_jax.results import Results
from nfp_jax.spec import Cell, Spec

# Activations of slopes in [0, 1], which the upper bound takes for granted.
BOUNDED = (jax.nn.relu, jax.nn.sigmoid, jax.nn.tanh)


def run(
    spec: Spec,
    todo: list[Cell],
    add_row: AddRow,
    *,
    progress: bool = False,
    store: Results | None = None,
) -> tuple[list[Failure], ensemble.Stats]:
    """Trains the networks of the cells, bounds their slopes, and hands over the rows.

    Arguments and errors are those of ``experiments.run``; ``store`` is not looked at.
    """
    lab = Lab(spec, todo)
    work = Memorization(lab, add_row, Slopes(lab).columns)
    stats = lab.train(work.jobs(), work.networks(), progress=progress)
    return lab.failures, stats


class Slopes:
    """The columns of a trained network that memorization does not have."""

    def __init__(self, lab: Lab) -> None:
        self.lab, own = lab, lab.spec.robustness
        lower = robustness.lipschitz_lower(
            lab.model.apply,
            segments=own.segments,
            ascents=own.ascents,
            steps=own.steps,
        )
        self.lower = jax.jit(lower)
        self.error = jax.jit(self.squared_error)
        try:
            self.layers = models.layer_chain(lab.model)
        except ValueError:  # attention, say, has no such bound
            self.layers = ()
        if self.layers and lab.model.activation not in BOUNDED:
            self.layers = ()

    def squared_error(
        self, params: masks.Params, x: jax.Array, y: jax.Array
    ) -> jax.Array:
        """The squared error of the softmax outputs on these points."""
        probabilities = jax.nn.softmax(self.lab.logits(params, x))
        return robustness.squared_error(probabilities, y)

    def columns(self, draw: Draw, result: training.TrainResult) -> Row:
        """The columns of a trained network."""
        x, y, z = self.lab.x(draw), draw.data[1], draw.data[2]
        scale = float(robustness.in_unit_norm(1.0, x))
        key = self.lab.key(PROBE, 0)  # every network is probed at the same places
        upper = product = math.inf
        if self.layers:
            leaves = dict(masks.named_leaves(result.params))
            kernels = [np.asarray(leaves[f"{layer}/kernel"]) for layer in self.layers]
            upper = product = math.nan  # of weights that diverged
            if all(np.isfinite(kernel).all() for kernel in kernels):
                upper, product = robustness.lipschitz_upper(kernels)
        error = float(self.error(result.params, x, y))
        noise = float(capacity.noise_power(z))
        return {
            "lipschitz_lower": scale * float(self.lower(result.params, x, key)),
            "lipschitz_upper": scale * upper,
            "lipschitz_product": scale * product,
            "squared_error": error,
            "noise_variance": noise,
            "excess": float(robustness.excess(error, noise)),
            "dim": math.prod(self.lab.input_shape),
            "classes": self.lab.classes,
        }
