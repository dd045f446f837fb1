r"""The paper's claims, each held against measurements: one command, one table.

    python launch.py --config=configs/paper.py
    python launch.py --config=configs/paper.py:all \
      --config.parts.fashion_mnist.data.dir=DIR

Runs the other configurations, each into its own directory of results, where rows on
file are skipped; then writes one page with a table of claims (``claims.csv`` beside
it): what was measured, its interval, and whether the claim holds. A part's settings are
set as ``--config.parts.swap.grid.n="(500,)"``. ``:all`` has the real Fashion-MNIST too
(``DIR`` as in fashion_mnist_noisy.py), as docs/results.md has it; ``:core`` has the
main questions alone; ``:quick`` takes fewer seeds, sparsities and epochs; ``:smoke``
takes seconds a part; ``:seed`` is capacity and effective parameter count at 50 %
removed; ``:paper`` has the paper's own sizes and sets, CIFAR-10 too.
"""

from ml_collections import ConfigDict

from configs import (
    capacity,
    cifar_noisy,
    data_swap,
    digits_noisy,
    fashion_mnist_noisy,
    gaussian,
    mask_information,
    noise_correlation,
    robustness,
    sensitivity,
)
from configs.start import LONG


def get_config(preset: str = "") -> ConfigDict:
    """Returns the collection of a preset, as listed above; ``""``: the default."""
    if preset not in PARTS:
        known = ", ".join(name for name in PARTS if name)
        raise ValueError(f"preset {preset!r} of paper.py, expected one of {known}")
    config = ConfigDict()
    config.name = f"paper-{preset}" if preset else "paper"
    config.out = "results"
    config.parts = ConfigDict(PARTS[preset]())
    config.shown = tuple(name for name in SENSITIVITIES if name in config.parts)
    return config


def _core() -> dict[str, ConfigDict]:
    return {
        "memorization": gaussian.get_config("controls"),
        "digits": digits_noisy.get_config("claims"),
        "swap": data_swap.get_config(),
        "swap_small": data_swap.get_config("small"),
        "information": mask_information.get_config("small"),
        "capacity": capacity.get_config(),
        "robustness": robustness.get_config(),
    }


def _default() -> dict[str, ConfigDict]:
    parts = {
        **_core(),
        "binding": gaussian.get_config("binding"),
        "capacity_long": capacity.get_config("long"),
        "noise": noise_correlation.get_config(),
    }
    for name in ("rate", "cosine", "rounds", "late"):
        parts[f"sensitivity_{name}"] = sensitivity.get_config(name)
    return parts


def _all() -> dict[str, ConfigDict]:
    return {**_default(), "fashion_mnist": fashion_mnist_noisy.get_config("claims")}


def _quick() -> dict[str, ConfigDict]:
    """The main questions with three seeds: the same directions, wider intervals."""
    parts = {
        "memorization": gaussian.get_config(),
        "digits": digits_noisy.get_config(),
        "swap": data_swap.get_config(),
        "swap_small": data_swap.get_config("small"),
        "information": mask_information.get_config("small"),
        "capacity": capacity.get_config(),
        "robustness": robustness.get_config(),
    }
    parts["swap"].swap.pairs, parts["swap_small"].swap.pairs = 3, 6
    parts["digits"].grid.sparsity = (0.9, 0.95)
    parts["swap"].grid.sparsity = (0.95,)
    parts["robustness"].grid.n = (100, 400)
    parts["information"].grid.sparsity = parts["capacity"].grid.sparsity = (0.9,)
    parts["capacity"].capacity.max_steps = 10_000
    return parts


def _smoke() -> dict[str, ConfigDict]:
    return {
        "memorization": gaussian.get_config("smoke"),
        "noise": noise_correlation.get_config("smoke"),
        "swap": data_swap.get_config("smoke"),
        "robustness": robustness.get_config("smoke"),
        "capacity": capacity.get_config("smoke"),
        "information": mask_information.get_config("smoke"),
    }


def _seed() -> dict[str, ConfigDict]:
    return {
        "capacity": capacity.get_config("seed"),
        "information": mask_information.get_config("seed"),
    }


def _paper() -> dict[str, ConfigDict]:
    parts = {
        "memorization": gaussian.get_config("paper"),
        "noise": noise_correlation.get_config("paper"),
        "swap": data_swap.get_config("paper"),
        "robustness": robustness.get_config("paper"),
        "capacity": capacity.get_config("paper"),
        "information": mask_information.get_config("paper"),
        "information_784": mask_information.get_config("paper_784"),
        "fashion_mnist": fashion_mnist_noisy.get_config("paper"),
        "cifar": cifar_noisy.get_config("paper"),
    }
    # Alone these run under the paper's stopping rule, with which no claim is judged.
    for name in ("memorization", "fashion_mnist", "cifar"):
        parts[name].name += "-settled"
        parts[name].train.stop, parts[name].train.max_epochs = "settled", LONG
    return parts


# What another budget, rate, schedule, round or rule changes: shown and not judged.
SENSITIVITIES = (
    "capacity_long",
    *(f"sensitivity_{name}" for name in ("rate", "cosine", "rounds", "late")),
)
PARTS = {
    "": _default,
    "all": _all,
    "core": _core,
    "quick": _quick,
    "smoke": _smoke,
    "seed": _seed,
    "paper": _paper,
}
