"""What do a mask's own labels buy? Networks retrained on labels it never saw.

    python launch.py --config=configs/data_swap.py           # 5 minutes
    python launch.py --config=configs/data_swap.py:smoke     # seconds
    python launch.py --config=configs/data_swap.py:small     # at most 10 minutes
    python launch.py --config=configs/data_swap.py:paper

Each mask is found on points with random Boolean labels. Its network is retrained on
them, on fresh labels of the same inputs, and on a fresh set, from the same initial
weights and from fresh ones, until it has settled. A mask knows nothing of fresh labels,
so that the gaps are what the information in it is worth. Gaussian inputs in d = 50,
seven pruners. The times were taken on two CPU cores.

Expect of the default (docs/claims.csv) that IMP fits so many more points of the labels
that its mask was found on; it is undecided:

- swap/gain/imp/n=1000/0.95: 0 (-5.25 to 5.25)
- swap/gain/imp/n=1000/0.98: 0 (-5.25 to 5.25)
"""

from ml_collections import ConfigDict

from configs.start import PRUNERS, chosen, defaults, end_soon


def default() -> ConfigDict:
    """1,000 points, 50-200-200-2, three sparsities, six independent draws each."""
    config = defaults()
    config.name = "data-swap"
    config.question = "swap"
    config.data.name = "gaussian"
    config.data.dim = 50
    config.grid.pruner = PRUNERS
    config.grid.sparsity = (0.9, 0.95, 0.98)
    config.grid.n = (1000,)
    config.grid.noise = (1.0,)  # every label is a coin toss
    config.grid.paired_seeds = True
    return config


def smoke() -> ConfigDict:
    """A test that takes seconds."""
    config = default()
    config.name = "data-swap-smoke"
    config.data.dim = 10
    config.model.widths = (16, 16)
    end_soon(config)
    config.swap.pairs = 2
    config.grid.sparsity = (0.5, 0.9)
    config.grid.n = (64,)
    return config


def small() -> ConfigDict:
    """The size at which mask_information.py:small bounds the information.

        python launch.py --config=configs/data_swap.py:small

    n = 200, 50-50-50-2, two sparsities, 16 draws. A part of paper.py. At most 10
    minutes on two CPU cores: other work ran beside it. Expect (docs/claims.csv) that
    IMP and magnitude after training fit so many more points of the labels that their
    masks were found on; both are undecided:

    - swap_small/gain/imp/n=200/0.95: 0.562 (-0.636 to 1.76)
    - swap_small/gain/magnitude_trained/n=200/0.95: 9.13 (3.23 to 15)
    """
    config = default()
    config.name = "data-swap-small"
    config.model.widths = (50, 50)
    config.swap.pairs = 16
    config.grid.sparsity = (0.9, 0.95)
    config.grid.n = (200,)
    return config


def paper() -> ConfigDict:
    """More sparsities and sizes, and 24 draws; not run yet."""
    config = default()
    config.name = "data-swap-paper"
    config.swap.pairs = 24
    config.grid.sparsity = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
    config.grid.n = (500, 1000, 2000)
    config.grid.select = ("global", "per_layer")
    return config


PRESETS = {"": default, "smoke": smoke, "small": small, "paper": paper}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset, one of ``PRESETS``."""
    return chosen(PRESETS, preset, "data_swap.py")
