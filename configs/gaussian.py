"""Random Boolean labels on Gaussian inputs: who memorizes, and by which mask.

    python launch.py --config=configs/gaussian.py             # 1 min 43 s
    python launch.py --config=configs/gaussian.py:smoke       # seconds
    python launch.py --config=configs/gaussian.py:controls    # 19 minutes
    python launch.py --config=configs/gaussian.py:binding     # 6 minutes
    python launch.py --config=configs/gaussian.py:paper

n = 1000 points in d = 50, 50-200-200-2, seven pruners and the dense network. Each
network is retrained from its initial weights until it has settled. The times were taken
on two CPU cores. The published numbers are those of ``:controls`` and ``:binding``.
"""

from ml_collections import ConfigDict

from configs.start import LONG, PRUNERS, chosen, defaults, end_soon, set_seeds


def default() -> ConfigDict:
    """Five sparsities to 98 %, three seeds."""
    config = defaults()
    config.name = "gaussian"
    config.data.name = "gaussian"
    config.data.dim = 50
    config.grid.pruner = ("dense", *PRUNERS)
    config.grid.sparsity = (0.5, 0.8, 0.9, 0.95, 0.98)
    config.grid.n = (1000,)
    config.grid.noise = (1.0,)  # every label is a coin toss
    set_seeds(config, 3)
    return config


def smoke() -> ConfigDict:
    """A test that takes seconds."""
    config = default()
    config.name = "gaussian-smoke"
    config.model.widths = (32, 32)
    end_soon(config)
    config.grid.sparsity = (0.5, 0.9)
    config.grid.n = (128,)
    set_seeds(config, 1)
    return config


def controls() -> ConfigDict:
    """Shuffled masks and fresh initial weights, rewind and finetune; the main claims.

        python launch.py --config=configs/gaussian.py:controls

    Four sparsities to 99 %, six seeds, twice the budget. A part of paper.py. 19 minutes
    on two CPU cores. Expect (docs/claims.csv) that IMP fits 99 % of the labels so many
    times sooner than the best mask at initialization:

    - memorization/epochs/imp-rewind/n=1000/0.95: 2.31 (2.06 to 2.86)
    - memorization/epochs/imp-rewind/n=1000/0.98: 2.94 (2.47 to 4.23)
    """
    config = default()
    config.name = "gaussian-controls"
    config.train.max_epochs = LONG
    config.grid.sparsity = (0.9, 0.95, 0.98, 0.99)
    config.grid.ablation = ("", "shuffle", "reinitialize")
    config.grid.resume = ("rewind", "finetune")
    set_seeds(config, 6)
    return config


def binding() -> ConfigDict:
    """2,000 points, where capacity binds at 98 % removed.

        python launch.py --config=configs/gaussian.py:binding

    Two sparsities, six seeds. A part of paper.py. 6 minutes on two CPU cores. Expect
    (docs/claims.csv) that IMP fits 99 % of the labels so many times sooner than the
    best mask at initialization:

    - binding/epochs/imp-rewind/n=2000/0.95: 2.33 (2.07 to 2.88)
    - binding/epochs/imp-rewind/n=2000/0.98: 4.43 (2.88 to 28)
    """
    config = default()
    config.name = "gaussian-binding"
    config.grid.sparsity = (0.95, 0.98)
    config.grid.n = (2000,)
    set_seeds(config, 6)
    return config


def paper() -> ConfigDict:
    """The paper's grid under the paper's stopping rule; not run yet."""
    config = default()
    config.name = "gaussian-paper"
    config.train.stop = "paper"
    config.train.max_epochs = 200
    config.grid.sparsity = (0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
    config.grid.n = (500, 1000, 2000)
    config.grid.select = ("global", "per_layer")
    config.grid.resume = ("rewind", "finetune")
    set_seeds(config, 5)
    return config


PRESETS = {
    "": default,
    "smoke": smoke,
    "controls": controls,
    "binding": binding,
    "paper": paper,
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset, one of ``PRESETS``."""
    return chosen(PRESETS, preset, "gaussian.py")
