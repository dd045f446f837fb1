"""The exact information in masks beside its interval, on networks small enough.

    python launch.py --config=configs/mask_information_exact.py

All 2^10 labelings of n = 10 Gaussian inputs in d = 6 (6.93 nats), 6-8-8-2, of whose
128 weights 13 or 4 are kept: each labeling is trained on and pruned, the masks are
counted, and the interval is found from 1,024 labelings drawn at random. ``:smoke``
takes seconds; ``:paper`` has n = 12. Three and a half minutes on two CPU cores.
"""

from ml_collections import ConfigDict

from configs.start import PRUNERS, defaults


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset: ``""``, ``"smoke"`` or ``"paper"``."""
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
    if preset == "smoke":
        config.name = "mask-information-exact-smoke"
        config.train.min_epochs = config.train.max_epochs = 12
        config.information.datasets = 64
        config.grid.n = (4,)
        config.grid.sparsity = (0.9,)
    elif preset == "paper":
        config.name = "mask-information-exact-paper"
        config.grid.n = (12,)
    elif preset:
        raise ValueError(
            f"preset {preset!r} of mask_information_exact.py, expected smoke or paper"
        )
    return config
