"""What the configurations start from, and how a preset is found; not one itself.

``defaults()`` has every field of `nfp_jax.spec` with its default, to be set in a
configuration or from the command line; ``PRUNERS`` are those of the figures;
``LONG`` is the budget of the published claims; ``end_soon`` is for ``:smoke``.

A configuration is a file with a function for each preset, the table ``PRESETS`` of
them, where ``""`` is the default, and ``get_config(preset)``, which launch.py calls.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from ml_collections import ConfigDict, config_dict

from nfp_jax import spec

T = TypeVar("T")
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
    for group, kinds in spec.disputed().items():
        for name, kind in kinds.items():
            config[group][name] = config_dict.placeholder(kind)
    return config


def chosen(presets: Mapping[str, Callable[[], T]], preset: str, file: str) -> T:
    """Returns what the function of a preset returns.

    Args:
      presets: the functions by the name of their preset.
      preset: the name that was asked for.
      file: the name of the configuration, for the error.

    Raises:
      ValueError: an unknown preset; names it, the file and the known presets.

    >>> chosen({"": lambda: 1, "smoke": lambda: 2}, "smoke", "gaussian.py")
    2
    """
    if preset not in presets:
        known = ", ".join(name for name in presets if name)
        raise ValueError(f"preset {preset!r} of {file}, expected one of {known}")
    return presets[preset]()


def set_seeds(config: ConfigDict, count: int) -> None:
    """Sets seeds 0 to ``count - 1``, each for weights, data and training together."""
    seeds = tuple(range(count))
    config.grid.init_seed = config.grid.data_seed = config.grid.train_seed = seeds
    config.grid.paired_seeds = True


def end_soon(config: ConfigDict) -> None:
    """Makes trainings end after 16 epochs at most, settled or not, for a smoke test."""
    config.train.max_epochs = 16
    config.train.settle_from, config.train.settle_steps = 4, 0
