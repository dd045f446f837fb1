"""What the configurations here start from; not one itself.

``defaults()`` has every field of `nfp_jax.spec` with its default, to be set in a
configuration or from the command line; ``PRUNERS`` are those of the figures;
``LONG`` is the budget of the published claims; ``end_soon`` is for ``:smoke``.
"""

from ml_collections import ConfigDict, config_dict

from nfp_jax import spec

PRUNERS = (
    "random",
    "magnitude_init",
    "snip",
    "grasp",
    "synflow",
    "magnitude_trained",
    "imp",
)
# Epochs, one doubling beyond the default budget.
LONG = 6_400


def defaults() -> ConfigDict:
    """Returns a configuration of all fields, with their defaults."""
    config = ConfigDict(spec.defaults())
    config.data.dir = config_dict.placeholder(str)  # None, and yet a string
    return config


def end_soon(config: ConfigDict) -> None:
    """Makes trainings end after 16 epochs at most, settled or not, for a smoke test."""
    config.train.max_epochs = 16
    config.train.settle_from, config.train.settle_steps = 4, 0
