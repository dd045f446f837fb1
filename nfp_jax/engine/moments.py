"""An optimizer whose moments are kept in bfloat16 from one step to the next.

A step of many networks is bound by memory: weights, moments and gradients are read and
written once. bfloat16 halves the moments. It has 8 significant bits, so rounding to the
nearest number does not do: of ``0.999 v`` it makes ``v`` again, and Adam's second
moment would never fall. ``dithered`` rounds up or down such that the rounding is right
on average over the steps. Depends on jax and optax.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nfp_jax.types import Params

# Rounds float32 values to bfloat16, given the number of the step.
RoundFn = Callable[[jax.Array, jax.Array], jax.Array]

# The odd integer next to 2^16 / golden ratio: its multiples fill the 16 bits evenly.
GOLDEN = 40503


class Stored(NamedTuple):
    """The optimizer's state between two steps, and the number of steps taken."""

    step: jax.Array
    inner: optax.OptState


def dithered(values: jax.Array, step: jax.Array) -> jax.Array:
    """Returns float32 values as bfloat16, rounded down or up by the step's threshold.

    A value between two numbers of bfloat16, a fraction f of the way up, is rounded up
    (away from 0) where ``f + u >= 1``. The threshold is ``u = frac(step * 40503 /
    2^16)``, a golden-ratio sequence: it is spread evenly over [0, 1) already for a few
    steps in a row. So a share f of the steps rounds up, and errors of many steps cancel
    out. All values of a step share the threshold, so rounding costs one addition, no
    random bits, and depends on neither lane nor place. Numbers of bfloat16, infinities
    and NaN stay what they are.

    Args:
      values: float32, any shape.
      step: int32 scalar.

    >>> third = jnp.float32(1 + 2**-7 / 3)  # the next number of bfloat16 is 1 + 2^-7
    >>> rounded = [float(dithered(third, jnp.int32(i))) for i in range(30)]
    >>> sum(value > 1 for value in rounded)
    10
    """
    threshold = (step.astype(jnp.uint32) * GOLDEN) & 0xFFFF
    return round_by(values, threshold)


def round_by(values: jax.Array, threshold: jax.Array) -> jax.Array:
    """Returns float32 values as bfloat16: bits of 0 to 65,535 are added, then cut off.

    Args:
      values: float32.
      threshold: uint32 that broadcasts with it, below 2^16.
    """
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    upper = ((bits + threshold) >> 16).astype(jnp.uint16)
    rounded = jax.lax.bitcast_convert_type(upper, jnp.bfloat16)
    # The sum may overflow for NaN alone.
    return jnp.where(jnp.isnan(values), jnp.bfloat16(jnp.nan), rounded)


def bfloat16_moments(
    optimizer: optax.GradientTransformation, *, round_fn: RoundFn = dithered
) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer with its moments in bfloat16 between steps.

    Moments are all float32 arrays of its state that mirror the parameters. A step reads
    them as float32, computes as ever, and rounds what it keeps. Counters, keys and
    numbers that stand for the whole network stay as they are.

    Args:
      optimizer: any optax transformation whose state is made from the parameters.
      round_fn: ``round_fn(values, step) -> bfloat16``; ``step`` counts from 0.

    >>> optimizer = bfloat16_moments(optax.adam(0.1))
    >>> state = optimizer.init({"w": jnp.zeros(3)})
    >>> state.inner[0].mu["w"].dtype, state.inner[0].nu["w"].dtype
    (dtype(bfloat16), dtype(bfloat16))

    Reference: Zamirai et al. 2020, https://arxiv.org/abs/2010.06192, on rounding that
    is right on average, there of weights.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: Params) -> Stored:
        step = jnp.int32(0)

        def narrow(leaf: Any) -> Any:
            return round_fn(leaf, step) if leaf.dtype == jnp.float32 else leaf

        inner = optimizer.init(params)
        return Stored(step, optax.tree_map_params(optimizer, narrow, inner))

    def update(
        updates: optax.Updates,
        state: Stored,
        params: Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, Stored]:
        like = updates if params is None else params
        kinds = jax.eval_shape(optimizer.init, like)
        wide = jax.tree.map(_widened, state.inner, kinds)
        updates, after = optimizer.update(updates, wide, params, **extra)

        def narrow(new: Any, old: Any) -> Any:
            return new if new.dtype == old.dtype else round_fn(new, state.step)

        kept = jax.tree.map(narrow, after, state.inner)
        return updates, Stored(state.step + 1, kept)

    return optax.GradientTransformationExtraArgs(init, update)


def _widened(leaf: Any, kind: Any) -> Any:
    return leaf if leaf.dtype == kind.dtype else leaf.astype(kind.dtype)
