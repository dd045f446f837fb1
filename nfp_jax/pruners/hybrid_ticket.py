"""Hybrid ticket: the largest trained weights, as many of a layer as smart ratio says.

Reference: Su et al. 2020, https://arxiv.org/abs/2009.11094.
"""

from collections.abc import Iterable

from nfp_jax.masks import top_k_by_quota
from nfp_jax.pruners.contract import Network, Pruner, Round, Trajectory
from nfp_jax.pruners.magnitude import magnitude
from nfp_jax.pruners.smart_ratio import quotas_of


def _build(
    net: Network, *, linear_keep: float = 0.3, by_depth: bool = False
) -> Trajectory:
    quotas = quotas_of(net, linear_keep=linear_keep, by_depth=by_depth)

    def plan(total: int, sparsities: Iterable[float]) -> list[Round]:
        cuts = {sparsity: quotas(total, sparsity) for sparsity in sparsities}
        return [Round(cuts, None)]

    return Trajectory(plan, magnitude(), select=top_k_by_quota)


CARD = Pruner(
    "hybrid_ticket",
    label="hybrid ticket",
    sees="training",
    when="through",
    build=_build,
    gradients=lambda **_: 0,  # beside the training
)
