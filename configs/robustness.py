"""How steep must a network be that fits noise with few parameters?

    python launch.py --config=configs/robustness.py

The law of robustness: fitting below the noise level by ε forces a Lipschitz constant of
ε·sqrt(n d / p), with the effective parameter count for p. Gaussian inputs in d = 50
with random Boolean labels, 50-50-50-2, seven pruners and the dense network, four
sparsities, n = 100 to 800, three seeds, trained until they have settled; each
network's Lipschitz constant lies between the two ends of its row; claims are made of
those that fit 95 % of their labels. ``:smoke`` takes seconds; ``:paper`` is
50-200-200-2 with n up to 8000.
"""

from ml_collections import ConfigDict

from configs.start import PRUNERS, defaults, end_soon


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset: ``""``, ``"smoke"`` or ``"paper"``."""
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
    config.grid.paired_seeds = True
    seeds: tuple[int, ...] = (0, 1, 2)
    if preset == "smoke":
        config.name = "robustness-smoke"
        config.data.dim = 10
        config.model.widths = (16, 16)
        end_soon(config)
        config.robustness.segments = 32
        config.robustness.ascents, config.robustness.steps = 4, 5
        config.grid.sparsity = (0.5, 0.9)
        config.grid.n = (64,)
        seeds = (0,)
    elif preset == "paper":
        config.name = "robustness-paper"
        config.model.widths = (200, 200)
        config.grid.sparsity = (0.5, 0.8, 0.9, 0.95, 0.98)
        config.grid.n = (250, 500, 1000, 2000, 4000, 8000)
        seeds = tuple(range(5))
    elif preset:
        raise ValueError(f"preset {preset!r} of robustness.py, expected smoke or paper")
    config.grid.init_seed = config.grid.data_seed = config.grid.train_seed = seeds
    return config
