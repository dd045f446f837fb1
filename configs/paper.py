r"""The paper's claims, each held against measurements: one command, one table.

    python launch.py --config=configs/paper.py          # about 145 minutes
    python launch.py --config=configs/paper.py:all \
      --config.parts.fashion_mnist.data.dir=DIR         # about 155 minutes
    python launch.py --config=configs/paper.py:core     # about 70 minutes
    python launch.py --config=configs/paper.py:quick
    python launch.py --config=configs/paper.py:smoke    # seconds a part
    python launch.py --config=configs/paper.py:seed
    python launch.py --config=configs/paper.py:paper

Runs the other configurations, each into its own directory of results, where rows on
file are skipped; then writes one page with a table of claims (``claims.csv`` beside
it): what was measured, its interval, and whether the claim holds. A part's settings are
set as ``--config.parts.swap.grid.n="(500,)"``. The times are the sums of what the parts
took on two CPU cores; those of information at other sizes are reckoned, not measured.
docs/results.md is the page of ``:all`` and docs/claims.csv its table; the other
configurations say which numbers to expect of each part.
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
from configs.start import LONG, chosen

# What another budget, rate, schedule, round or rule changes: shown and not judged.
SENSITIVITIES = (
    "capacity_long",
    "sensitivity_rate",
    "sensitivity_cosine",
    "sensitivity_rounds",
    "sensitivity_late",
)
Parts = dict[str, ConfigDict]


def core() -> Parts:
    """The main questions alone."""
    return {
        "memorization": gaussian.controls(),
        "digits": digits_noisy.claims(),
        "swap": data_swap.default(),
        "swap_small": data_swap.small(),
        "information": mask_information.small(),
        "capacity": capacity.default(),
        "robustness": robustness.default(),
    }


def default() -> Parts:
    """The main questions, what masks of more points hold, where capacity binds, label
    noise, and sensitivities.
    """
    return {
        **core(),
        "information_thousand": mask_information.thousand(),
        "information_scaling": mask_information.scaling(),
        "binding": gaussian.binding(),
        "capacity_long": capacity.long(),
        "noise": noise_correlation.default(),
        "sensitivity_rate": sensitivity.rate(),
        "sensitivity_cosine": sensitivity.cosine(),
        "sensitivity_rounds": sensitivity.rounds(),
        "sensitivity_late": sensitivity.late(),
    }


def with_fashion_mnist() -> Parts:
    """The default and the real Fashion-MNIST, as docs/results.md has it.

    ``DIR`` as in fashion_mnist_noisy.py.
    """
    return {**default(), "fashion_mnist": fashion_mnist_noisy.claims()}


def quick() -> Parts:
    """The main questions with fewer seeds, sparsities and epochs: wider intervals."""
    parts = {
        "memorization": gaussian.default(),
        "digits": digits_noisy.default(),
        "swap": data_swap.default(),
        "swap_small": data_swap.small(),
        "information": mask_information.small(),
        "capacity": capacity.default(),
        "robustness": robustness.default(),
    }
    parts["swap"].swap.pairs, parts["swap_small"].swap.pairs = 3, 6
    parts["digits"].grid.sparsity = (0.9, 0.95)
    parts["swap"].grid.sparsity = (0.95,)
    parts["robustness"].grid.n = (100, 400)
    parts["information"].grid.sparsity = parts["capacity"].grid.sparsity = (0.9,)
    parts["capacity"].capacity.max_steps = 10_000
    return parts


def smoke() -> Parts:
    """A test that takes seconds a part."""
    return {
        "memorization": gaussian.smoke(),
        "noise": noise_correlation.smoke(),
        "swap": data_swap.smoke(),
        "robustness": robustness.smoke(),
        "capacity": capacity.smoke(),
        "information": mask_information.smoke(),
    }


def seed() -> Parts:
    """Capacity and effective parameter count at 50 % removed."""
    return {"capacity": capacity.seed(), "information": mask_information.seed()}


def paper() -> Parts:
    """The paper's own sizes and sets, CIFAR-10 too; not run yet."""
    parts = {
        "memorization": gaussian.paper(),
        "noise": noise_correlation.paper(),
        "swap": data_swap.paper(),
        "robustness": robustness.paper(),
        "capacity": capacity.paper(),
        "information": mask_information.paper(),
        "information_784": mask_information.paper_784(),
        "fashion_mnist": fashion_mnist_noisy.paper(),
        "cifar": cifar_noisy.paper(),
    }
    # Alone these run under the paper's stopping rule, with which no claim is judged.
    for name in ("memorization", "fashion_mnist", "cifar"):
        parts[name].name += "-settled"
        parts[name].train.stop, parts[name].train.max_epochs = "settled", LONG
    return parts


PRESETS = {
    "": default,
    "all": with_fashion_mnist,
    "core": core,
    "quick": quick,
    "smoke": smoke,
    "seed": seed,
    "paper": paper,
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the collection of a preset, one of ``PRESETS``."""
    parts = chosen(PRESETS, preset, "paper.py")
    config = ConfigDict()
    config.name = f"paper-{preset}" if preset else "paper"
    config.out = "results"
    config.parts = ConfigDict(parts)
    config.shown = tuple(name for name in SENSITIVITIES if name in parts)
    return config
