"""How steep networks are that fit noise: memorization's rows, and Lipschitz constants.

The networks and columns of ``memorization``, and beside them what the law of robustness
speaks of: a lower and an upper end of the Lipschitz constant of the softmax outputs,
and how far the squared error lies below the noise. Constants are in units
where the training inputs have a mean square norm of 1.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax import capacity, ensemble, masks, models, robustness
from nfp_jax.engine.jobs import Stats
from nfp_jax.grid import Cell
from nfp_jax.lab.draws import PROBE, key_of
from nfp_jax.lab.jobs import AddRow, Failure, Row
from nfp_jax.lab.setup import Engine, Setup, set_up
from nfp_jax.lab.stacked import Points
from nfp_jax.questions.memorization.run import More, train_rows
from nfp_jax.results import Results
from nfp_jax.spec import Spec
from nfp_jax.types import Params

# Activations of slopes in [0, 1], which the upper bound takes for granted.
BOUNDED = (jax.nn.relu, jax.nn.sigmoid, jax.nn.tanh)


def run(
    spec: Spec,
    todo: list[Cell],
    add_row: AddRow,
    *,
    progress: bool = False,
    store: Results | None = None,
    engine: Engine = ensemble.run,
) -> tuple[list[Failure], Stats]:
    """Trains the networks of the cells, bounds their slopes, and hands over the rows.

    Arguments and errors are those of ``experiments.run``; rows in ``store`` tell which
    networks take long.
    """
    setup = set_up(spec, todo, engine=engine)
    more = slopes_of(setup)
    return train_rows(setup, add_row, more, store=store, progress=progress)


def slopes_of(setup: Setup) -> More:
    """Returns what computes the columns that memorization does not have."""
    settings, apply_fn = setup.spec.settings, setup.model.apply
    lower_fn = jax.jit(
        robustness.lipschitz_lower(
            apply_fn,
            segments=settings.segments,
            ascents=settings.ascents,
            steps=settings.steps,
        )
    )

    @jax.jit
    def error_fn(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
        probabilities = jax.nn.softmax(setup.logits(params, x))
        return robustness.squared_error(probabilities, y)

    layers = bounded_layers(setup.model)
    key = key_of(setup, PROBE, 0)  # every network is probed at the same places

    def columns(points: Points, params: Params) -> Row:
        x, y, z = (jnp.asarray(part) for part in points)
        scale = float(robustness.in_unit_norm(1.0, x))
        upper, product = upper_ends(layers, params)
        error = float(error_fn(params, x, y))
        noise = float(capacity.noise_power(z))
        return {
            "lipschitz_lower": scale * float(lower_fn(params, x, key)),
            "lipschitz_upper": scale * upper,
            "lipschitz_product": scale * product,
            "squared_error": error,
            "noise_variance": noise,
            "excess": float(robustness.excess(error, noise)),
            "dim": math.prod(setup.input_shape),
            "classes": setup.classes,
        }

    return columns


def bounded_layers(model: Any) -> tuple[str, ...]:
    """Returns the layers of which the upper bound is made; none: it has no bound."""
    try:
        layers = models.layer_chain(model)
    except ValueError:  # attention, say, has no such bound
        return ()
    return layers if model.activation in BOUNDED else ()


def upper_ends(layers: tuple[str, ...], params: Params) -> tuple[float, float]:
    """Returns the upper bound and the product of norms; infinite without layers."""
    if not layers:
        return math.inf, math.inf
    leaves = dict(masks.named_leaves(params))
    kernels = [np.asarray(leaves[f"{layer}/kernel"]) for layer in layers]
    if not all(np.isfinite(kernel).all() for kernel in kernels):
        return math.nan, math.nan  # of weights that diverged
    return robustness.lipschitz_upper(kernels)
