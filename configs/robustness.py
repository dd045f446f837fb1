"""How steep must a network be that fits noise with few parameters?

    python launch.py --config=configs/robustness.py          # 3 minutes
    python launch.py --config=configs/robustness.py:smoke    # seconds
    python launch.py --config=configs/robustness.py:paper

The law of robustness: fitting below the noise level by ε forces a Lipschitz constant of
ε·sqrt(n d / p), with the effective parameter count for p. Gaussian inputs in d = 50
with random Boolean labels, seven pruners and the dense network, trained until they have
settled. Each network's Lipschitz constant lies between the two ends of its row. Claims
are made of networks that fit 95 % of their labels. The time was taken on two CPU cores.

Expect of the default (docs/claims.csv) this least ratio of the Lipschitz constant to
what the law demands, where p is the weights kept:

- robustness/law: 4.75 (4.75 to ∞)
"""

from ml_collections import ConfigDict

from configs.start import PRUNERS, chosen, defaults, end_soon, set_seeds


def default() -> ConfigDict:
    """50-50-50-2, n = 100 to 800, four sparsities, three seeds."""
    config = defaults()
    config.name = "robustness"
    config.question = "robustness"
    config.data.name = "gaussian"
    config.data.dim = 50
    config.model.widths = (50, 50)
    config.train.batch_size = 32
    config.grid.pruner = ("dense", *PRUNERS)
    config.grid.sparsity = (0.5, 0.8, 0.9, 0.95)
    config.grid.n = (100, 200, 400, 800)
    config.grid.noise = (1.0,)  # every label is a coin toss
    set_seeds(config, 3)
    return config


def smoke() -> ConfigDict:
    """A test that takes seconds."""
    config = default()
    config.name = "robustness-smoke"
    config.data.dim = 10
    config.model.widths = (16, 16)
    end_soon(config)
    config.robustness.segments = 32
    config.robustness.ascents, config.robustness.steps = 4, 5
    config.grid.sparsity = (0.5, 0.9)
    config.grid.n = (64,)
    set_seeds(config, 1)
    return config


def paper() -> ConfigDict:
    """50-200-200-2 with n up to 8000; not run yet."""
    config = default()
    config.name = "robustness-paper"
    config.model.widths = (200, 200)
    config.grid.sparsity = (0.5, 0.8, 0.9, 0.95, 0.98)
    config.grid.n = (250, 500, 1000, 2000, 4000, 8000)
    set_seeds(config, 5)
    return config


PRESETS = {"": default, "smoke": smoke, "paper": paper}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset, one of ``PRESETS``."""
    return chosen(PRESETS, preset, "robustness.py")
