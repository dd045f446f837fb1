"""Iterative SNIP: SNIP's score in rounds, each of the network that is left."""

from nfp_jax.pruners.by_score import ByScore, by_score
from nfp_jax.pruners.contract import Network, Pruner
from nfp_jax.pruners.snip import snip


def _build(
    net: Network,
    *,
    rounds: int = 10,
    schedule: str = "exponential",
    chunk_size: int = 1024,
) -> ByScore:
    score_fn = snip(net.loss_fn, chunk_size=chunk_size)
    return by_score(score_fn, rounds=rounds, schedule=schedule)


# SNIP's card takes rounds too; this one stands beside it in one grid.
# Reference: de Jorge et al. 2021, https://arxiv.org/abs/2006.09081.
CARD = Pruner(
    "iterative_snip",
    label="iterative SNIP",
    sees="labels",
    build=_build,
    padded=True,
    gradients=lambda *, rounds, **_: rounds,
)
