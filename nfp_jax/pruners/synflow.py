"""SynFlow: the flow of ones through the absolute weights, without data."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax.masks import ApplyFn, Mask, Params, Prunable, Scores, has_x64, is_concrete
from nfp_jax.pruners.by_score import ByScore, by_score
from nfp_jax.pruners.contract import Network, Pruner, Score, ScoreFn, mask_params
from nfp_jax.types import Batch


def synflow(
    apply_fn: ApplyFn, input_shape: Sequence[int], *, dtype: Any = None
) -> ScoreFn:
    """Scores each weight by its synaptic flow, ``|w ⊙ ∂R/∂w|``, without data.

    ``R = 1ᵀ f(1)``: the sum of the outputs of the network with absolute weights and
    biases, on an input of ones. Meant to be iterated: ``prune(..., rounds=100)``; with
    one round ``prune`` warns, since it may then empty a layer.

    Args:
      apply_fn: ``apply_fn(params, x) -> outputs``, in evaluation mode and without
        normalization: before a norm the flow of a layer sums to 0 (GroupNorm,
        LayerNorm, softmax). Networks of `nfp_jax.models` that have norms have
        ``without_norm()``, which takes the same parameters.
      input_shape: one example's shape, without the batch.
      dtype: floating dtype to compute in; ``None``: that of the parameters. ``R``
        overflows float32 from about 30 layers of width 200 (the scores are then NaN);
        with ``jnp.float64`` they are scaled by a power of two to fit and returned in
        the dtype of the parameters. It turns JAX's 64-bit mode on for itself, in
        ``prune`` too, but a transform around either must be called in that mode.

    Returns:
      ``score(params)``: a pytree like ``params``, non-negative; NaN where it
      overflowed. ``batch`` and ``key`` are ignored.

    Raises:
      ValueError: ``jnp.float64`` under a transform, outside JAX's 64-bit mode.

    >>> chain = lambda params, x: x @ params["a"] @ params["b"]
    >>> params = {"a": jnp.array([[1.0, -2.0]]), "b": jnp.array([[3.0], [0.5]])}
    >>> scores = synflow(chain, (1,))(params)
    >>> scores["a"].tolist(), scores["b"].ravel().tolist()
    ([[3.0, 1.0]], [3.0, 1.0])

    Reference: Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, equation 3.
    """
    is_wide = dtype is not None and jnp.dtype(dtype) == np.float64

    def score(
        params: Params,
        batch: Batch,
        key: jax.Array | None,
        mask: Mask,
        prunable: Prunable,
    ) -> Scores:
        del batch, key, prunable
        weights = jax.tree.map(jnp.abs, mask_params(params, mask))
        if dtype is None:
            return _flow(apply_fn, weights, input_shape)
        if not is_wide:
            return _flow(
                apply_fn, jax.tree.map(lambda w: w.astype(dtype), weights), input_shape
            )
        if not has_x64() and not is_concrete(weights):
            # Lowering and batching come later, outside any context set here.
            raise ValueError(
                "synflow in float64 under a transform needs JAX's 64-bit mode: call "
                "the outermost jit, vmap or grad within jax.enable_x64(True)"
            )
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda w: w.astype(jnp.float64), weights)
            scores = _flow(apply_fn, wide, input_shape)
            scale = _power_of_two(scores)
            return jax.tree.map(
                lambda s, w: (s * scale).astype(w.dtype), scores, weights
            )

    return Score(
        score,
        needs_x64=is_wide,
        one_shot_warning="synflow in one round may empty a layer: pass rounds=100",
    )


def _flow(apply_fn: ApplyFn, weights: Params, input_shape: Sequence[int]) -> Scores:
    """``w ⊙ ∂R/∂w`` of non-negative weights, in their dtype; NaN for an overflow."""
    dtype = jnp.result_type(*jax.tree.leaves(weights))
    ones = jnp.ones((1, *input_shape), dtype)
    with jax.default_matmul_precision("highest"):
        gradient = jax.grad(lambda w: jnp.sum(apply_fn(w, ones)))(weights)
    flow = jax.tree.map(lambda g, w: jnp.abs(g * w), gradient, weights)
    return jax.tree.map(lambda s: jnp.where(jnp.isfinite(s), s, jnp.nan), flow)


def _power_of_two(scores: Scores) -> jax.Array:
    """The power of two, float64, that takes the highest score into 2^-20 to 2^100."""
    highest = jnp.nanmax(jnp.stack([jnp.nanmax(s) for s in jax.tree.leaves(scores)]))
    _, exponent = jnp.frexp(highest)
    shift = jnp.clip(exponent, -20, 100) - exponent
    # Its bits, since exp2 and ldexp round: an exponent, biased by 1023, and no more.
    bits = (jnp.clip(shift, -1000, 1000).astype(jnp.int64) + 1023) << 52
    return jax.lax.bitcast_convert_type(bits, jnp.float64)


def _build(
    net: Network, *, rounds: int = 100, schedule: str = "exponential"
) -> ByScore:
    score_fn = synflow(net.plain_fn or net.apply_fn, net.input_shape)
    return by_score(score_fn, rounds=rounds, schedule=schedule)


CARD = Pruner(
    "synflow",
    label="SynFlow",
    sees="nothing",
    build=_build,
    gradients=lambda *, rounds, **_: rounds,
)
