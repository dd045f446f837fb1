"""Real 8×8 digits, half of their labels redrawn: what is memorized beside the rule.

    python launch.py --config=configs/digits_noisy.py
    python launch.py --config=configs/digits_noisy.py:smoke     # seconds
    python launch.py --config=configs/digits_noisy.py:claims    # at most 16 minutes
    python launch.py --config=configs/digits_noisy.py:paper

1,000 of the 1,545 training images that scikit-learn ships (no download), 64-200-200-10,
seven pruners and the dense network. The time was taken on two CPU cores. The published
numbers are those of ``:claims``.
"""

from ml_collections import ConfigDict

from configs.start import PRUNERS, chosen, defaults, end_soon, set_seeds


def default() -> ConfigDict:
    """Five sparsities to 98 %, three seeds."""
    config = defaults()
    config.name = "digits"
    config.data.name = "digits"
    config.grid.pruner = ("dense", *PRUNERS)
    config.grid.sparsity = (0.5, 0.8, 0.9, 0.95, 0.98)
    config.grid.n = (1000,)
    config.grid.noise = (0.5,)
    set_seeds(config, 3)
    return config


def smoke() -> ConfigDict:
    """A test that takes seconds."""
    config = default()
    config.name = "digits-smoke"
    config.model.widths = (32, 32)
    end_soon(config)
    config.grid.sparsity = (0.5, 0.9)
    config.grid.n = (128,)
    set_seeds(config, 1)
    return config


def claims() -> ConfigDict:
    """Rewind and finetune, four sparsities to 99 %, four seeds: a part of paper.py.

        python launch.py --config=configs/digits_noisy.py:claims

    At most 16 minutes on two CPU cores: other work ran beside it. Expect
    (docs/claims.csv) that IMP fits 99 % of the labels so many times sooner than the
    best mask at initialization:

    - digits/epochs/imp-rewind/n=1000/0.9: 2.1 (1.77 to 3.21)
    - digits/epochs/imp-rewind/n=1000/0.95: 2.63 (2.17 to 4.26)
    """
    config = default()
    config.name = "digits-claims"
    config.grid.resume = ("rewind", "finetune")
    config.grid.sparsity = (0.9, 0.95, 0.98, 0.99)
    set_seeds(config, 4)
    return config


def paper() -> ConfigDict:
    """Five noise rates under the paper's stopping rule, all images; not run yet."""
    config = default()
    config.name = "digits-paper"
    config.train.stop = "paper"
    config.train.max_epochs = 200
    config.grid.sparsity = (0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
    config.grid.n = (1545,)
    config.grid.noise = (0.0, 0.1, 0.2, 0.5, 1.0)
    config.grid.resume = ("rewind", "finetune")
    set_seeds(config, 5)
    return config


PRESETS = {"": default, "smoke": smoke, "claims": claims, "paper": paper}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset, one of ``PRESETS``."""
    return chosen(PRESETS, preset, "digits_noisy.py")
