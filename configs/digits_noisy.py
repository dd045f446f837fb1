"""Real 8×8 digits, half of their labels redrawn: what is memorized beside the rule.

    python launch.py --config=configs/digits_noisy.py

1,545 training images that scikit-learn ships (no download), 64-200-200-10. ``:smoke``
takes seconds; ``:claims``, a part of paper.py, has sparsities to 99 %, four seeds,
rewind and finetune both; ``:paper`` sweeps the noise rate under the paper's stopping
rule.

Expect of ``:claims``: how many times sooner than the best mask at initialization IMP
fits 99 % of the labels (docs/claims.csv):

- digits/epochs/imp-rewind/n=1000/0.95: 2.63 (2.17 to 4.26)
"""

from ml_collections import ConfigDict

from configs.start import PRUNERS, defaults, end_soon


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset, as listed above; ``""``: the default."""
    config = defaults()
    config.name = "digits"
    config.data.name = "digits"
    config.grid.pruner = ("dense", *PRUNERS)
    config.grid.sparsity = (0.5, 0.8, 0.9, 0.95, 0.98)
    config.grid.n = (1000,)
    config.grid.noise = (0.5,)
    config.grid.paired_seeds = True
    seeds: tuple[int, ...] = (0, 1, 2)
    if preset == "smoke":
        config.name = "digits-smoke"
        config.model.widths = (32, 32)
        end_soon(config)
        config.grid.sparsity = (0.5, 0.9)
        config.grid.n = (128,)
        seeds = (0,)
    elif preset == "claims":
        config.name = "digits-claims"
        config.grid.resume = ("rewind", "finetune")
        config.grid.sparsity = (0.9, 0.95, 0.98, 0.99)
        seeds = tuple(range(4))
    elif preset == "paper":
        config.name = "digits-paper"
        config.train.stop = "paper"
        config.train.max_epochs = 200
        config.grid.sparsity = (0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
        config.grid.n = (1545,)
        config.grid.noise = (0.0, 0.1, 0.2, 0.5, 1.0)
        config.grid.resume = ("rewind", "finetune")
        seeds = tuple(range(5))
    elif preset:
        raise ValueError(
            f"preset {preset!r} of digits_noisy.py, expected smoke, claims or paper"
        )
    config.grid.init_seed = config.grid.data_seed = config.grid.train_seed = seeds
    return config
