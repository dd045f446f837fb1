"""How much each mask knows of the labels that it was found on: intervals, in nats.

    python launch.py --config=configs/mask_information.py

Seven pruners, three sparsities, 512 data sets at one initialization: the same n = 100
Gaussian inputs in d = 50, fresh Boolean labels each time (69.3 nats), 50-200-200-2.
``:smoke`` takes seconds. ``:small`` has 50-50-50-2 and
n = 200, the network whose capacity and data swap other configurations measure;
``:seed`` is that at 50 % removed by IMP, SNIP, GraSP and SynFlow, and ``:digits`` that
on 8×8 digits with random labels. ``:paper`` has 1,024 data sets, five sparsities,
n = 5000 too, weights ranked over all layers and within each, and three initializations;
``:paper_784`` has the same for 784-200-200-10 and ten classes.
"""

from ml_collections import ConfigDict

from configs.start import PRUNERS, defaults, end_soon


def get_config(preset: str = "") -> ConfigDict:
    """Returns the configuration of a preset, as listed above; ``""``: the default."""
    config = defaults()
    config.name = "mask-information"
    config.question = "information"
    config.data.name = "gaussian"
    config.data.dim = 50
    config.information.datasets = 512
    config.information.decoded = 48
    config.grid.pruner = PRUNERS
    config.grid.sparsity = (0.8, 0.9, 0.95)
    config.grid.n = (100,)
    config.grid.noise = (1.0,)  # every label is a coin toss
    config.grid.paired_seeds = True
    seeds: tuple[int, ...] = (0,)
    if preset == "smoke":
        config.name = "mask-information-smoke"
        config.data.dim = 10
        config.model.widths = (16, 16)
        end_soon(config)
        config.information.datasets = 16
        config.grid.sparsity = (0.5, 0.9)
        config.grid.n = (20,)
    elif preset in ("small", "seed", "digits"):
        config.name = "mask-information-small"
        if preset == "digits":
            config.name = "mask-information-digits"
            config.data.name = "digits"
        config.model.widths = (50, 50)
        config.information.datasets = 256
        # With ten classes the search takes minutes and finds few nats.
        config.information.decoded = 0 if preset == "digits" else 16
        # Verdicts compare several intervals at split levels, among hundreds of claims.
        config.information.confidence = 1 - 1e-6
        config.grid.sparsity = (0.8, 0.9, 0.95)
        config.grid.n = (200,)
        if preset == "seed":  # rows of the directory of small
            config.grid.pruner = ("imp", "snip", "grasp", "synflow")
            config.grid.sparsity = (0.5,)
    elif preset in ("paper", "paper_784"):
        config.name = f"mask-information-{preset.replace('_', '-')}"
        if preset == "paper_784":
            config.data.dim, config.data.classes = 784, 10
        config.information.datasets, config.information.decoded = 1024, 128
        config.grid.sparsity = (0.5, 0.8, 0.9, 0.95, 0.98)
        config.grid.n = (100, 5000)
        config.grid.select = ("global", "per_layer")
        seeds = (0, 1, 2)
    elif preset:
        raise ValueError(
            f"preset {preset!r} of mask_information.py, expected smoke, seed, small, "
            "digits, paper or paper_784"
        )
    config.grid.init_seed = config.grid.data_seed = config.grid.train_seed = seeds
    return config
