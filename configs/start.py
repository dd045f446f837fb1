"""What the configurations here start from; not one itself.

``defaults()`` has every field of `nfp_jax.spec` with its default, to be set in a
configuration or from the command line; ``PRUNERS`` are those of the figures.
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


def defaults() -> ConfigDict:
    """Returns a configuration of all fields, with their defaults."""
    config = ConfigDict(spec.defaults())
    config.data.dir = config_dict.placeholder(str)  # None, and yet a string
    return config
