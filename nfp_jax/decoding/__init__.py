"""Decoders: what labels does a mask tell? Each is a distribution q(y | mask).

``I(m; y) >= H(y) + E log q(y | m)`` for any q (Barber and Agakov), so that a better
decoder is a tighter bound, and no decoder a wrong one. ``ridge`` needs masks and labels
alone; ``search`` runs the pruner in the loop. A decoder of your own is a ``Decoder``.
The rule all of them keep: the labels of a mask are looked at only after it is decoded,
which is what makes the bound of ``information.decoded`` hold. Linear algebra runs on
the host, in double precision, by masks (K x K), so that the number of weights does not
matter. Depends on masks, jax, optax, numpy and scipy.
"""

from nfp_jax.decoding.contract import Decoder, LogProb, Stack
from nfp_jax.decoding.linear import class_means, network_features, ridge
from nfp_jax.decoding.searching import search

__all__ = [
    "Decoder",
    "LogProb",
    "Stack",
    "class_means",
    "network_features",
    "ridge",
    "search",
]
