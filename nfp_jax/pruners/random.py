"""Random: uniform noise, the baseline."""

import functools

import jax
import jax.numpy as jnp

from nfp_jax.masks import Mask, Params, Prunable, Scores
from nfp_jax.pruners.contract import ScoreFn
from nfp_jax.types import Batch


@functools.cache  # the same function each time: it is what `jit` goes by
def random() -> ScoreFn:
    """Scores each weight by uniform noise in [0, 1).

    Leaf ``i`` is drawn with ``fold_in(key, i)``, whatever the mask, so that with one
    key a sparser mask lies within a denser one.

    Returns:
      ``score(params, batch=None, key=key)``, float32 whatever the parameters' dtype;
      ``key`` is needed, ``batch`` ignored.

    >>> scores = random()({"w": jnp.ones((2, 2))}, key=jax.random.key(0))
    >>> scores["w"].shape
    (2, 2)
    """

    def score(
        params: Params,
        batch: Batch = None,
        key: jax.Array | None = None,
        *,
        mask: Mask = None,
        prunable: Prunable = None,
    ) -> Scores:
        del batch, mask, prunable
        if key is None:
            raise ValueError("random scores need a key, got None")
        leaves, treedef = jax.tree.flatten(params)
        noise = [
            jax.random.uniform(jax.random.fold_in(key, i), jnp.shape(leaf), jnp.float32)
            for i, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(treedef, noise)

    return score
