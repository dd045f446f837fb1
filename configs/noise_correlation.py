"""How much of the label noise does a sparse network learn, at every rate of it?

    python launch.py --config=configs/noise_correlation.py

Correlation of the outputs with the noise, through training and at the end, at noise
rates from 0 (no noise: then there is nothing to correlate with) to 1 (pure noise). 8×8
digits, n = 1000, 64-200-200-10, seven pruners at 90 % removed and the dense network,
three seeds. ``:gaussian`` and ``:fashion_mnist`` are the same on these sets,
``:cifar10`` on 500 images and the ConvNet of cifar_noisy.py; ``:smoke`` takes seconds;
``:paper`` has the digits with eleven rates, more sparsities and seeds.
"""

from ml_collections import ConfigDict

from configs import cifar_noisy
from configs.start import PRUNERS, defaults, end_soon

SETS = ("digits", "gaussian", "fashion_mnist", "cifar10")


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset, as listed above; ``""``: the default."""
    config = defaults()
    config.name = "noise-correlation"
    config.data.name = "digits"
    config.grid.pruner = ("dense", *PRUNERS)
    config.grid.sparsity = (0.9,)
    config.grid.n = (1000,)
    config.grid.noise = (0.0, 0.25, 0.5, 1.0)
    config.grid.paired_seeds = True
    seeds: tuple[int, ...] = (0, 1, 2)
    if preset == "smoke":
        config.name = "noise-correlation-smoke"
        config.model.widths = (16, 16)
        end_soon(config)
        config.grid.sparsity = (0.9,)
        config.grid.n = (100,)
        config.grid.noise = (0.0, 0.5, 1.0)
        seeds = (0,)
    elif preset == "paper":
        config.name = "noise-correlation-paper"
        config.grid.sparsity = (0.5, 0.8, 0.9, 0.95, 0.98)
        config.grid.noise = tuple(i / 10 for i in range(11))
        seeds = tuple(range(5))
    elif preset in SETS:
        config.name = f"noise-correlation-{preset}".replace("_", "-")
        config.data.name = preset
        if preset == "cifar10":
            small = cifar_noisy.get_config()
            for group in ("model", "train", "prune"):
                config[group] = small[group]
            config.grid.n = small.grid.n
    elif preset:
        raise ValueError(
            f"preset {preset!r} of noise_correlation.py, expected smoke, paper or one "
            f"of {', '.join(SETS)}"
        )
    config.grid.init_seed = config.grid.data_seed = config.grid.train_seed = seeds
    return config
