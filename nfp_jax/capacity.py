"""How much a network memorized, and its memorization capacity.

The face of ``measures``' ``memorization``, ``capacity`` and ``student_t``.
"""

from nfp_jax.measures.capacity import Search, fits, memorization_capacity
from nfp_jax.measures.memorization import (
    epochs_to,
    memorization_area,
    memorized_bits,
    memorized_points,
    noise_correlation,
    noise_power,
)
from nfp_jax.measures.student_t import Gap, paired_gap

__all__ = [
    "Gap",
    "Search",
    "epochs_to",
    "fits",
    "memorization_area",
    "memorization_capacity",
    "memorized_bits",
    "memorized_points",
    "noise_correlation",
    "noise_power",
    "paired_gap",
]
