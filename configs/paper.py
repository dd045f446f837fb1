"""The paper's claims, each held against measurements: one command, one table.

    python launch.py --config=configs/paper.py

Runs the other configurations, each into its own directory of results, where rows on
file are skipped; then writes one page with a table of claims (``claims.csv`` beside
it): what was measured, its interval, and whether the claim holds. A part's settings are
set as ``--config.parts.swap.grid.n="(500,)"``. The default takes 26 minutes on two CPU
cores. ``:smoke`` takes seconds a part; ``:seed`` is the seed experiment: capacity and
effective parameter count at 50 % removed; ``:paper`` has the paper's own sizes and sets
(Fashion-MNIST and CIFAR-10 too).
"""

from ml_collections import ConfigDict

from configs import (
    capacity,
    cifar_noisy,
    data_swap,
    fashion_mnist_noisy,
    gaussian,
    mask_information,
    noise_correlation,
    robustness,
)


def get_config(preset: str = "") -> ConfigDict:
    """Returns the collection of a preset: ``""``, ``smoke``, ``seed`` or ``paper``."""
    if preset == "seed":
        parts = {
            "capacity": capacity.get_config("seed"),
            "information": mask_information.get_config("seed"),
        }
    elif preset in ("", "smoke", "paper"):
        parts = {
            "memorization": gaussian.get_config(preset),
            "noise": noise_correlation.get_config(preset),
            "swap": data_swap.get_config(preset),
            "robustness": robustness.get_config(preset),
            "capacity": capacity.get_config(preset),
        }
    else:
        raise ValueError(
            f"preset {preset!r} of paper.py, expected smoke, seed or paper"
        )
    if preset == "":
        grid = parts["memorization"].grid
        # Three seeds leave the main claims undecided, and six are cheap.
        grid.init_seed = grid.data_seed = grid.train_seed = tuple(range(6))
        parts |= {
            "swap_small": data_swap.get_config("small"),
            "information": mask_information.get_config("small"),
            "capacity_digits": capacity.get_config("digits"),
            "information_digits": mask_information.get_config("digits"),
        }
    elif preset == "smoke":
        parts["information"] = mask_information.get_config("smoke")
    elif preset == "paper":
        parts |= {
            "information": mask_information.get_config("paper"),
            "information_784": mask_information.get_config("paper_784"),
            "fashion_mnist": fashion_mnist_noisy.get_config("paper"),
            "cifar": cifar_noisy.get_config("paper"),
        }
    config = ConfigDict()
    config.name = f"paper-{preset}" if preset else "paper"
    config.out = "results"
    config.parts = ConfigDict(parts)
    return config
