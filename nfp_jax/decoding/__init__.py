"""Decoders: what labels does a mask tell? Each is a distribution q(y | mask).

``I(m; y) >= H(y) + E log q(y | m)`` for any q (Barber and Agakov). So a better decoder
gives a tighter bound, and no decoder gives a wrong one. ``ridge`` needs masks and
labels alone; ``search`` runs the pruner in its loop, and ``trained`` its training. To
write another, make a ``Decoder``. All decoders keep one rule: the labels of a mask are
looked at only after the mask is decoded. The bound of ``information.decoded`` rests on
it. What grows with masks x masks x weights, how many weights both masks of a pair keep,
is counted on the device, in whole numbers. The regression on these K x K numbers runs
on the host, in double precision: K³ operations and about 36 K² bytes.

Under ``"data"``, for scores that are means over examples, ``examples`` names the
examples of a data set in lists of candidates, and ``factors`` is a law of masks, for
the upper end; ``examples_around`` names them for scores of degree two. A decoder that
does not apply to masks raises ``CannotDecode``. Depends on masks, cores, jax, optax,
numpy and scipy.
"""

from nfp_jax.decoding.additive import additive
from nfp_jax.decoding.around import examples_around
from nfp_jax.decoding.bits import NotAdditive, Signed
from nfp_jax.decoding.contract import (
    CannotDecode,
    Decoder,
    LogProb,
    MaskLaw,
    Stack,
)
from nfp_jax.decoding.examples import examples
from nfp_jax.decoding.factors import factors
from nfp_jax.decoding.linear import class_means, network_features, ridge
from nfp_jax.decoding.mask_law import mask_law
from nfp_jax.decoding.quadratic import quadratic
from nfp_jax.decoding.readouts import dense_readout, readout_for
from nfp_jax.decoding.relinearized import NotQuadratic
from nfp_jax.decoding.relu_slopes import relu_chain
from nfp_jax.decoding.searching import search
from nfp_jax.decoding.slopes import NoSlopes
from nfp_jax.decoding.trained import Simulated, trained

__all__ = [
    "CannotDecode",
    "Decoder",
    "LogProb",
    "MaskLaw",
    "NoSlopes",
    "NotAdditive",
    "NotQuadratic",
    "Signed",
    "Simulated",
    "Stack",
    "additive",
    "class_means",
    "dense_readout",
    "examples",
    "examples_around",
    "factors",
    "mask_law",
    "network_features",
    "quadratic",
    "readout_for",
    "relu_chain",
    "ridge",
    "search",
    "trained",
]
