"""Random: uniform noise, the baseline."""

import functools

import jax
import jax.numpy as jnp

from nfp_jax.masks import Mask, Params, Prunable, Scores
from nfp_jax.pruners.by_score import ByScore, by_score
from nfp_jax.pruners.contract import Network, Pruner, Score, ScoreFn
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
        batch: Batch,
        key: jax.Array | None,
        mask: Mask,
        prunable: Prunable,
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

    return Score(score)


def _build(net: Network) -> ByScore:
    return by_score(random())


CARD = Pruner(
    "random", label="random", sees="nothing", build=_build, gradients=lambda: 0
)
