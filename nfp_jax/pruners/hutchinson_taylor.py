"""Hutchinson-Taylor: a Taylor score with the Hessian's diagonal, by random probes."""

import jax
import jax.numpy as jnp

from nfp_jax.losses import (
    check_chunk_size,
    classification_loss,
    mean_loss,
    mean_over_chunks,
)
from nfp_jax.masks import Mask, Params, Prunable, Scores, prunable_kernels
from nfp_jax.pruners.by_score import ByScore, by_score
from nfp_jax.pruners.contract import Network, Pruner, Score, ScoreFn, mask_params
from nfp_jax.pruners.fisher_taylor import taylor
from nfp_jax.types import Batch, LossFn


def hutchinson_taylor(
    loss_fn: LossFn, *, probes: int = 10, chunk_size: int | None = None
) -> ScoreFn:
    """Scores each weight by ``|w g + ½ w² h|`` with ``h = mean z ⊙ (H z)``.

    ``z`` are vectors of random signs over the prunable weights that are left, 0
    elsewhere; probe ``i`` is drawn with ``fold_in(key, i)``, and its leaf ``j`` with
    ``fold_in`` of that and ``j``. The mean tends to the diagonal of the Hessian ``H``,
    and is it where ``H`` is diagonal.

    Args:
      loss_fn: ``loss_fn(params, batch)``, the mean loss over a batch, a scalar; at
        initialization on softened logits, as GraSP's:
        ``classification_loss(apply_fn, temperature=200)``.
      probes: vectors ``z``.
      chunk_size: as in ``snip``.

    Returns:
      ``score(params, batch, key)``: a pytree like ``params``, non-negative; ``key`` is
      needed.

    Raises:
      ValueError: fewer than 1 probe; as ``snip``; when it is called, no key.

    >>> loss = lambda w, x: jnp.sum(w**2 * x) / 2    # g = w x and h = x
    >>> score_fn = hutchinson_taylor(loss, probes=1)
    >>> w, x = jnp.array([[2.0, 1.0]]), jnp.array([[1.0, -2.0]])
    >>> score_fn(w, x, jax.random.key(0)).tolist()
    [[6.0, 3.0]]

    Reference: Bekas et al. 2007 (the diagonal by random signs); LeCun et al. 1989,
    Optimal Brain Damage, for the term of second order.
    """
    check_chunk_size(chunk_size)
    if probes < 1:
        raise ValueError(f"probes is {probes}, expected at least 1")

    def score(
        params: Params,
        batch: Batch,
        key: jax.Array | None,
        mask: Mask,
        prunable: Prunable,
    ) -> Scores:
        if key is None:
            raise ValueError("hutchinson_taylor needs a key, got None")
        prunable = prunable_kernels(params) if prunable is None else prunable
        weights = mask_params(params, mask)

        def gradient(weights: Params) -> Params:
            return mean_over_chunks(
                lambda part: jax.grad(mean_loss, 1)(loss_fn, weights, part),
                batch,
                chunk_size,
            )

        def add(total: Params, probe: jax.Array) -> tuple[Params, None]:
            z = mask_params(
                _signs(jax.random.fold_in(key, probe), weights, prunable), mask
            )
            hz = jax.jvp(gradient, (weights,), (z,))[1]
            return jax.tree.map(lambda t, z, hz: t + z * hz, total, z, hz), None

        with jax.default_matmul_precision("highest"):
            g = gradient(weights)
            zeros = jax.tree.map(jnp.zeros_like, weights)
            total, _ = jax.lax.scan(add, zeros, jnp.arange(probes))
        return jax.tree.map(lambda w, g, t: taylor(w, g, t / probes), weights, g, total)

    return Score(score, loss_fn=loss_fn)


def _signs(key: jax.Array, params: Params, prunable: Prunable) -> Params:
    """Random signs on leaves that may be pruned, 0 elsewhere."""
    leaves, treedef = jax.tree.flatten(params)
    signs = [
        jax.random.rademacher(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
        if flag
        else jnp.zeros_like(leaf)
        for i, (leaf, flag) in enumerate(
            zip(leaves, jax.tree.leaves(prunable), strict=True)
        )
    ]
    return jax.tree.unflatten(treedef, signs)


def _build(
    net: Network,
    *,
    rounds: int = 1,
    schedule: str = "exponential",
    probes: int = 10,
    chunk_size: int = 1024,
    temperature: float = 200.0,
) -> ByScore:
    loss_fn = classification_loss(net.apply_fn, temperature=temperature)
    score_fn = hutchinson_taylor(loss_fn, probes=probes, chunk_size=chunk_size)
    return by_score(score_fn, rounds=rounds, schedule=schedule)


CARD = Pruner(
    "hutchinson_taylor",
    label="Hutchinson-Taylor",
    sees="labels",
    build=_build,
    padded=True,
    gradients=lambda *, rounds, probes, **_: rounds * (1 + 2 * probes),
)
