"""How many random labels can a sparse network memorize, by which mask?

    python launch.py --config=configs/capacity.py

The largest n of which 99 % of the labels are fitted, by bisection: at every n that is
tried the mask is found anew, on the first n points, and a failure is tried again with
another order of batches. Gaussian inputs in d = 50 with random Boolean labels,
50-50-50-2 (5,100 weights), seven pruners and the dense network, three sparsities, three
seeds, at most 20,000 steps a training. ``:smoke`` takes seconds; ``:long`` has four
times the steps; ``:seed`` is IMP, SNIP, GraSP and SynFlow at 50 % removed; ``:digits``
has random labels of ten classes on 8×8 digits; ``:paper`` is 50-200-200-2 over a larger
grid.
"""

from ml_collections import ConfigDict

from configs.start import PRUNERS, defaults, end_soon


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset, as listed above; ``""``: the default."""
    config = defaults()
    config.name = "capacity"
    config.question = "capacity"
    config.data.name = "gaussian"
    config.data.dim = 50
    config.model.widths = (50, 50)
    config.capacity.precision = 0.1
    # The budget is one of steps: capacity.max_steps.
    config.train.max_epochs = config.capacity.max_steps
    config.grid.pruner = ("dense", *PRUNERS)
    config.grid.sparsity = (0.8, 0.9, 0.95)
    config.grid.n = (8000,)  # the end of the search
    config.grid.noise = (1.0,)  # every label is a coin toss
    config.grid.paired_seeds = True
    seeds: tuple[int, ...] = (0, 1, 2)
    if preset == "smoke":
        config.name = "capacity-smoke"
        config.data.dim = 10
        config.model.widths = (16, 16)
        end_soon(config)
        config.capacity.max_steps = 300
        config.train.max_epochs = 300
        config.capacity.precision = 1.0
        config.grid.sparsity = (0.5, 0.9)
        config.grid.n = (64,)
        seeds = (0,)
    elif preset == "long":  # a sensitivity: four times the budget
        config.name = "capacity-long"
        config.capacity.max_steps *= 4
        config.train.max_epochs = config.capacity.max_steps
        config.grid.pruner = ("snip", "synflow", "imp")
        config.grid.sparsity = (0.9,)
    elif preset == "digits":
        config.name = "capacity-digits"
        config.data.name = "digits"
        config.grid.n = (1545,)  # all images
    elif preset == "seed":  # rows of the default's directory
        config.grid.pruner = ("imp", "snip", "grasp", "synflow")
        config.grid.sparsity = (0.5,)
    elif preset == "paper":
        config.name = "capacity-paper"
        config.model.widths = (200, 200)
        config.grid.sparsity = (0.5, 0.8, 0.9, 0.95, 0.98)
        config.grid.n = (80_000,)
        config.grid.select = ("global", "per_layer")
        seeds = tuple(range(6))
    elif preset:
        raise ValueError(
            f"preset {preset!r} of capacity.py, expected smoke, long, digits, seed or "
            "paper"
        )
    config.grid.init_seed = config.grid.data_seed = config.grid.train_seed = seeds
    return config
