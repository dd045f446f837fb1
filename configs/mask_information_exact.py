"""The exact information in masks beside its interval, on networks small enough.

    python launch.py --config=configs/mask_information_exact.py          # 3 min 30 s
    python launch.py --config=configs/mask_information_exact.py:smoke    # seconds
    python launch.py --config=configs/mask_information_exact.py:paper

All 2^n labelings of n Gaussian inputs in d = 6 are trained on and pruned, and the masks
are counted; beside that stands the interval found from 1,024 labelings drawn at random.
6-8-8-2, of whose 128 weights 13 or 4 are kept, seven pruners. The time was taken on two
CPU cores.
"""

from ml_collections import ConfigDict

from configs.start import PRUNERS, chosen, defaults


def default() -> ConfigDict:
    """All 1,024 labelings of n = 10 points: 6.93 nats."""
    config = defaults()
    config.name = "mask-information-exact"
    config.question = "information"
    config.data.name = "gaussian"
    config.data.dim = 6
    config.model.widths = (8, 8)
    config.train.learning_rate = 1e-2
    # An epoch is one step, and every network takes 100 of them.
    config.train.stop = "still"
    config.train.min_epochs = config.train.max_epochs = 100
    config.information.datasets = 1024
    config.information.exact = True
    config.grid.pruner = PRUNERS
    config.grid.sparsity = (0.9, 0.97)
    config.grid.n = (10,)
    config.grid.noise = (1.0,)  # every label is a coin toss
    return config


def smoke() -> ConfigDict:
    """A test that takes seconds."""
    config = default()
    config.name = "mask-information-exact-smoke"
    config.train.min_epochs = config.train.max_epochs = 12
    config.information.datasets = 64
    config.grid.n = (4,)
    config.grid.sparsity = (0.9,)
    return config


def paper() -> ConfigDict:
    """All 4,096 labelings of n = 12 points; not run yet."""
    config = default()
    config.name = "mask-information-exact-paper"
    config.grid.n = (12,)
    return config


PRESETS = {"": default, "smoke": smoke, "paper": paper}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset, one of ``PRESETS``."""
    return chosen(PRESETS, preset, "mask_information_exact.py")
