"""How much a mask knows of the data: certified intervals for I(mask; data), in nats.

``sample_masks`` draws data sets and makes a mask of each; ``mask_information`` bounds
the information in such a stack from below and above, at a stated confidence::

    sample = sample_masks(mask_fn, random_labels(100), key, datasets=1024)
    interval = mask_information(sample.masks, sample.data)

With the initial weights W and the algorithm's own randomness R fixed, a mask is a
function of the data. So its information is its entropy. There are two conditionings,
and the one meant is always named. Under ``"labels"``, ``I(m; y | W, X, R)``, inputs are
fixed and labels resampled. Under ``"data"``, ``I(m; D | W, R)``, all is resampled. A
bound that holds under one of them alone refuses the other. What the certificate rests
on is computed on the host, in double precision: entropies, code lengths, the decoders'
log probabilities and the confidence intervals. Depends on masks, measures, decoding,
jax, numpy and scipy.
"""

from nfp_jax.information.codes import code_lengths, log_binomial
from nfp_jax.information.conditioning import (
    CONDITIONINGS,
    label_entropy,
    noisy_label_probabilities,
)
from nfp_jax.information.exact import (
    MOST_LABELINGS,
    Blocks,
    entropy,
    exact_information,
    flip_blocks,
)
from nfp_jax.information.interval import (
    Interval,
    effective_parameters,
    mask_information,
)
from nfp_jax.information.reading import decoded, fano_lower_bound
from nfp_jax.information.repeats import (
    collision_lower_bound,
    sample_entropy_lower_bound,
)
from nfp_jax.information.sampling import (
    Sample,
    irreproducible,
    make_masks,
    random_labels,
    sample_masks,
)

__all__ = [
    "CONDITIONINGS",
    "MOST_LABELINGS",
    "Blocks",
    "Interval",
    "Sample",
    "code_lengths",
    "collision_lower_bound",
    "decoded",
    "effective_parameters",
    "entropy",
    "exact_information",
    "fano_lower_bound",
    "flip_blocks",
    "irreproducible",
    "label_entropy",
    "log_binomial",
    "make_masks",
    "mask_information",
    "noisy_label_probabilities",
    "random_labels",
    "sample_entropy_lower_bound",
    "sample_masks",
]
