"""Random Boolean labels on Gaussian inputs: who memorizes, and by which mask.

    python launch.py --config=configs/gaussian.py

Seven pruners and the dense network, five sparsities, three seeds (initialization, data
and training drawn together), n = 1000 points in d = 50, 50-200-200-2, retrained from
the initial weights, until they have settled. ``:smoke`` takes seconds; ``:controls``,
a part of paper.py, has four sparsities to 99 %, six seeds, shuffled masks, fresh
initial weights, rewind and finetune both; ``:binding`` has n = 2000, where capacity
binds; ``:paper`` is the full grid of the paper under the paper's stopping rule.

Expect of ``:controls`` (20 minutes on 2 cores): how many times sooner than the best
mask at initialization IMP fits 99 % of the labels (docs/claims.csv):

- memorization/epochs/imp-rewind/n=1000/0.95: 2.31 (2.06 to 2.86)
- memorization/epochs/imp-rewind/n=1000/0.98: 2.94 (2.47 to 4.23)
"""

from ml_collections import ConfigDict

from configs.start import LONG, PRUNERS, defaults, end_soon


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset, as listed above; ``""``: the default."""
    config = defaults()
    config.name = "gaussian"
    config.data.name = "gaussian"
    config.data.dim = 50
    config.grid.pruner = ("dense", *PRUNERS)
    config.grid.sparsity = (0.5, 0.8, 0.9, 0.95, 0.98)
    config.grid.n = (1000,)
    config.grid.noise = (1.0,)  # every label is a coin toss
    config.grid.paired_seeds = True
    seeds: tuple[int, ...] = (0, 1, 2)
    if preset == "smoke":
        config.name = "gaussian-smoke"
        config.model.widths = (32, 32)
        end_soon(config)
        config.grid.sparsity = (0.5, 0.9)
        config.grid.n = (128,)
        seeds = (0,)
    elif preset == "controls":
        config.name = "gaussian-controls"
        config.train.max_epochs = LONG
        config.grid.sparsity = (0.9, 0.95, 0.98, 0.99)
        config.grid.ablation = ("", "shuffle", "reinitialize")
        config.grid.resume = ("rewind", "finetune")
        seeds = tuple(range(6))
    elif preset == "binding":
        config.name = "gaussian-binding"
        config.grid.sparsity = (0.95, 0.98)
        config.grid.n = (2000,)
        seeds = tuple(range(6))
    elif preset == "paper":
        config.name = "gaussian-paper"
        config.train.stop = "paper"
        config.train.max_epochs = 200
        config.grid.sparsity = (0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
        config.grid.n = (500, 1000, 2000)
        config.grid.select = ("global", "per_layer")
        config.grid.resume = ("rewind", "finetune")
        seeds = tuple(range(5))
    elif preset:
        raise ValueError(
            f"preset {preset!r} of gaussian.py, expected smoke, controls, binding or "
            "paper"
        )
    config.grid.init_seed = config.grid.data_seed = config.grid.train_seed = seeds
    return config
