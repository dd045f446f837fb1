"""Can another criterion, or another initialization, get around the barrier?

    python launch.py --config=configs/barrier.py
    python launch.py --config=configs/barrier.py:smoke    # seconds a part
    python launch.py --config=configs/barrier.py:paper

All criteria at each initialization, at equal weights kept: points memorized at settled,
epochs until 99 % of the labels are fitted, and the certified interval of what the masks
know of their labels, with p_eff. A part an initialization and question; ``he_normal``
comes first, since claims hold its masks from training against the masks before training
of all others. Gaussian inputs in d = 50 with random Boolean labels, 50-50-50-2 (5,100
weights). The same command again does what is missing.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from configs import mask_information
from configs.start import PRUNERS, chosen, defaults, end_soon, set_seeds

INITS = (
    "he_normal",
    "orthogonal_relu",
    "signed_constant",
    "looks_linear",
    "lsuv",
    "metainit",
)
# Those beyond the figures', that prune a chain of dense layers.
CRITERIA = (
    *PRUNERS,
    "iterative_snip",
    "force",
    "prospr",
    "fisher_taylor",
    "hutchinson_taylor",
    "fisher_free",
    "ntk_sap",
    "phew",
    "edge_popup",
    "gem_miner",
    "rigl",
    "set",
)
Parts = dict[str, ConfigDict]


def memorization(init: str) -> ConfigDict:
    """300 points, 510 and 255 weights kept, three seeds."""
    config = defaults()
    config.name = f"barrier-memorization-{init}"
    config.data.name = "gaussian"
    config.data.dim = 50
    config.model.widths = (50, 50)
    config.model.init = init
    config.grid.pruner = CRITERIA
    config.grid.sparsity = (0.9, 0.95)
    config.grid.n = (300,)
    config.grid.noise = (1.0,)  # every label is a coin toss
    set_seeds(config, 3)
    return config


def information(init: str) -> ConfigDict:
    """What masks of as many points know at 95 % removed: 32 labelings."""
    config = mask_information.base()
    config.name = f"barrier-information-{init}"
    config.model.widths = (50, 50)
    config.model.init = init
    config.information.datasets, config.information.decoded = 32, 16
    config.grid.pruner = CRITERIA
    config.grid.sparsity = (0.95,)
    config.grid.n = (300,)
    return config


def all_parts(change: Callable[[ConfigDict], None] | None = None) -> Parts:
    """Both questions at each initialization."""
    parts = {}
    for question in (memorization, information):
        for init in INITS:
            config = question(init)
            if change is not None:
                change(config)
            parts[f"{question.__name__}_{init}"] = config
    return parts


def default() -> Parts:
    """All criteria and initializations."""
    return all_parts()


def smoke() -> Parts:
    """A test that takes seconds a part."""

    def small(config: ConfigDict) -> None:
        config.name += "-smoke"
        config.data.dim = 10
        config.model.widths = (16, 16)
        end_soon(config)
        config.grid.sparsity = (0.8,)
        config.grid.n = (24,)
        config.information.datasets = config.information.decoded = 8
        set_seeds(config, 1)

    return all_parts(small)


PRESETS: dict[str, Callable[[], Parts]] = {"": default, "smoke": smoke}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the collection of a preset, one of ``PRESETS``."""
    parts = chosen(PRESETS, preset, "barrier.py")
    config = ConfigDict()
    config.name = f"barrier-{preset}" if preset else "barrier"
    config.out = "results"
    config.parts = ConfigDict(parts)
    config.shown = ()
    return config
