"""What do a mask's own labels buy? Networks retrained on labels it never saw.

    python launch.py --config=configs/data_swap.py

Each mask is found on 1,000 points with random Boolean labels and its network retrained
on them, on fresh labels of the same inputs, and on a fresh set, from the same initial
weights and from fresh ones, until it has settled: the gaps are what the information in
the mask is worth. Of
a fresh labeling it knows nothing. Gaussian inputs in d = 50, 50-200-200-2, seven
pruners, three sparsities, six independent draws each. ``:smoke`` takes seconds;
``:small`` has 50-50-50-2 and n = 200, the size at which ``mask_information.py:small``
bounds the information; ``:paper`` has more sparsities and sizes, and 24 draws.
"""

from ml_collections import ConfigDict

from configs.start import PRUNERS, defaults, end_soon


def get_config(preset: str = "") -> ConfigDict:
    """Returns a preset: ``""``, ``"smoke"``, ``"small"`` or ``"paper"``."""
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
    if preset == "smoke":
        config.name = "data-swap-smoke"
        config.data.dim = 10
        config.model.widths = (16, 16)
        end_soon(config)
        config.swap.pairs = 2
        config.grid.sparsity = (0.5, 0.9)
        config.grid.n = (64,)
    elif preset == "small":
        config.name = "data-swap-small"
        config.model.widths = (50, 50)
        config.swap.pairs = 16
        config.grid.sparsity = (0.9, 0.95)
        config.grid.n = (200,)
    elif preset == "paper":
        config.name = "data-swap-paper"
        config.swap.pairs = 24
        config.grid.sparsity = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
        config.grid.n = (500, 1000, 2000)
        config.grid.select = ("global", "per_layer")
    elif preset:
        raise ValueError(
            f"preset {preset!r} of data_swap.py, expected smoke, small or paper"
        )
    return config
