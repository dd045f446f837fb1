"""Lipschitz constants of networks, and the law of robustness.

The face of ``measures``' ``lipschitz`` and ``law``.
"""

from nfp_jax.measures.law import excess, lipschitz_required, squared_error
from nfp_jax.measures.lipschitz import (
    LipschitzUpper,
    in_unit_norm,
    lipschitz_lower,
    lipschitz_upper,
)

__all__ = [
    "LipschitzUpper",
    "excess",
    "in_unit_norm",
    "lipschitz_lower",
    "lipschitz_required",
    "lipschitz_upper",
    "squared_error",
]
