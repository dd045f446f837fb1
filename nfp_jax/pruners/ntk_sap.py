"""NTK-SAP: what a weight adds to the neural tangent kernel, without data."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from nfp_jax.masks import ApplyFn, Mask, Params, Prunable, Scores, prunable_kernels
from nfp_jax.pruners.by_score import ByScore, by_score
from nfp_jax.pruners.contract import InitFn, Network, Pruner, Score, ScoreFn
from nfp_jax.types import Batch


def output_change(
    apply_fn: ApplyFn, params: Params, noise: Params, mask: Params, x: jax.Array
) -> jax.Array:
    """Returns ``J = Σ_x ‖f(x; m⊙W) - f(x; m⊙(W + noise))‖²``, a scalar.

    For ``noise = εZ`` with Z standard normal, ``E J / ε²`` tends to ``Σ_x ‖m ⊙
    ∂f/∂W‖²``, the trace of the tangent kernel of the masked network.

    Args:
      apply_fn: ``apply_fn(params, x) -> outputs``.
      params: the weights ``W``.
      noise: like ``params``; 0 where nothing is perturbed.
      mask: like ``params``, floating, so that it can be differentiated.
      x: inputs ``[batch, ...]``.

    >>> args = jnp.array([[2.0]]), jnp.array([[0.5]]), jnp.ones((1, 1))
    >>> float(output_change(lambda w, x: x @ w, *args, jnp.array([[3.0]])))
    2.25
    """
    near = jax.tree.map(lambda m, w, z: m * (w + z), mask, params, noise)
    here = jax.tree.map(jnp.multiply, mask, params)
    return jnp.sum((apply_fn(here, x) - apply_fn(near, x)) ** 2)


def ntk_sap(
    apply_fn: ApplyFn,
    input_shape: Sequence[int],
    init_fn: InitFn,
    *,
    epsilon: float = 0.01,
    draws: int = 1,
    examples: int = 128,
) -> ScoreFn:
    """Scores each weight by ``|m ⊙ Σ ∂J/∂m|``, ``J`` that of ``output_change``.

    The sum is over draws. Draw ``r`` has weights ``init_fn``, their noise ``εZ`` and
    Gaussian inputs of its own, from ``fold_in(key, r)``. Leaves that may not be pruned
    are those of ``params``: neither drawn nor perturbed. The prunable weights of
    ``params`` are not looked at. In rounds it takes a key a round:
    ``prune(…, rounds=20, fresh_keys=True)``.

    Args:
      apply_fn: ``apply_fn(params, x) -> outputs``, in evaluation mode.
      input_shape: one example's shape, without the batch.
      init_fn: ``init_fn(key) -> params``, what weights are drawn with.
      epsilon: the size of the noise.
      draws: weights, noise and inputs that the sum is over.
      examples: inputs of a draw.

    Returns:
      ``score(params, key=key)``: a pytree like ``params``, non-negative, and 0 on
      leaves that may not be pruned. ``key`` is needed, ``batch`` ignored. A draw takes
      two gradients over its inputs.

    Raises:
      ValueError: a setting out of range; when it is called, no key.

    >>> chain = lambda params, x: x @ params
    >>> init_fn = lambda key: jax.random.normal(key, (3, 2))
    >>> scores = ntk_sap(chain, (3,), init_fn)(jnp.ones((3, 2)), key=jax.random.key(0))
    >>> scores.shape, bool((scores > 0).all())
    ((3, 2), True)

    Reference: Wang et al. 2023, https://arxiv.org/abs/2304.02840.
    """
    for name, value, wrong in (
        ("epsilon", epsilon, not epsilon > 0),
        ("draws", draws, draws < 1),
        ("examples", examples, examples < 1),
    ):
        if wrong:
            least = "a positive number" if name == "epsilon" else "at least 1"
            raise ValueError(f"{name} is {value}, expected {least}")

    def score(
        params: Params,
        batch: Batch,
        key: jax.Array | None,
        mask: Mask,
        prunable: Prunable,
    ) -> Scores:
        del batch
        if key is None:
            raise ValueError("ntk_sap needs a key, got None")
        prunable = prunable_kernels(params) if prunable is None else prunable
        dtype = jnp.result_type(*jax.tree.leaves(params))
        kept = jax.tree.map(
            lambda p, w, m: m.astype(w.dtype) if p else jnp.ones_like(w),
            prunable,
            params,
            jax.tree.map(jnp.ones_like, params) if mask is None else mask,
        )

        def gradient(draw: jax.Array) -> Scores:
            of_draw = jax.random.fold_in(key, draw)
            keys = [jax.random.fold_in(of_draw, i) for i in range(3)]
            weights = jax.tree.map(
                lambda p, fresh, w: fresh.astype(w.dtype) if p else w,
                prunable,
                init_fn(keys[0]),
                params,
            )
            noise = _noise(keys[1], weights, prunable, epsilon)
            x = jax.random.normal(keys[2], (examples, *input_shape), dtype)
            return jax.grad(output_change, 3)(apply_fn, weights, noise, kept, x)

        def add(total: Scores, draw: jax.Array) -> tuple[Scores, None]:
            return jax.tree.map(jnp.add, total, gradient(draw)), None

        with jax.default_matmul_precision("highest"):
            zeros = jax.tree.map(jnp.zeros_like, params)
            total, _ = jax.lax.scan(add, zeros, jnp.arange(draws))
        return jax.tree.map(
            lambda p, m, s: jnp.abs(m * s) if p else jnp.zeros_like(s),
            prunable,
            kept,
            total,
        )

    return Score(score)


def _noise(
    key: jax.Array, params: Params, prunable: Prunable, epsilon: float
) -> Params:
    """``εZ`` on leaves that may be pruned, 0 elsewhere; leaf ``i`` by its key."""
    leaves, treedef = jax.tree.flatten(params)
    noise = [
        epsilon * jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
        if flag
        else jnp.zeros_like(leaf)
        for i, (leaf, flag) in enumerate(
            zip(leaves, jax.tree.leaves(prunable), strict=True)
        )
    ]
    return jax.tree.unflatten(treedef, noise)


def _build(
    net: Network,
    *,
    rounds: int = 20,
    schedule: str = "exponential",
    epsilon: float = 0.01,
    draws: int = 1,
    examples: int = 128,
) -> ByScore:
    score_fn = ntk_sap(
        net.apply_fn,
        net.input_shape,
        net.init_fn,
        epsilon=epsilon,
        draws=draws,
        examples=examples,
    )
    return by_score(score_fn, rounds=rounds, schedule=schedule, fresh_keys=True)


CARD = Pruner(
    "ntk_sap",
    label="NTK-SAP",
    sees="nothing",
    build=_build,
    per_example=True,
    gradients=lambda *, rounds, draws, **_: 2 * rounds * draws,
)
