"""Magnitude at initialization: the smallest initial weights are removed."""

from nfp_jax.pruners.by_score import ByScore, by_score
from nfp_jax.pruners.contract import Network, Pruner
from nfp_jax.pruners.magnitude import magnitude


def _build(net: Network) -> ByScore:
    return by_score(magnitude())


CARD = Pruner(
    "magnitude_init",
    label="magnitude at init",
    sees="nothing",
    build=_build,
    gradients=lambda: 0,
)
