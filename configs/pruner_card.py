"""The card of a pruner: one page of what it does, next to SNIP, SynFlow, IMP, random.

    python launch.py --config=configs/pruner_card.py --config.pruner=my/fisher.py
    python launch.py --config=configs/pruner_card.py:smoke

For any pruner: a name of ours, a file with a ``CARD`` (``examples/fisher.py`` is one to
start from), or ``module:CARD``. Gaussian inputs in d = 50 with random Boolean labels,
n = 200 points, 50-50-50-2. All pruners have the same data, initial weights and order of
batches. The page begins with a table at a glance, which is in ``card.md`` too, for a
README. Below it are the claims, and each part with its figures:

- ``masks``: counts, ties, seconds, empty layers and overlaps, at six sparsities
- ``memorization``: points memorized and epochs to 99 %, of masks as they were found,
  shuffled within layers, and with fresh initial weights
- ``memorization_inverted``: the same with the score inverted; a pruner that has no
  score has none of it
- ``information``: certified intervals of the information about the labels
- ``information_data``: the same about inputs and labels, of pruners at initialization
- ``swap``: points memorized of own labels less those of fresh ones

A part that a pruner can't take, and rows that fail, stand on the page with their
reason. The pruners beside it are run once: another card finds their rows on file. A
part's settings are set as ``--config.parts.information.information.datasets=256``.
"""

from ml_collections import ConfigDict

from configs import mask_information
from configs.paper import Parts
from configs.start import chosen, defaults, end_soon, set_seeds

KNOWN = ("snip", "synflow", "imp", "random")
EXAMPLE = "examples/fisher.py"
BUDGET = 1600  # epochs


def base() -> ConfigDict:
    """What all parts share: the data, the network, the pruners beside it."""
    config = defaults()
    config.data.name = "gaussian"
    config.data.dim = 50
    config.model.widths = (50, 50)
    config.train.max_epochs = BUDGET
    config.grid.pruner = KNOWN
    config.grid.sparsity = (0.8, 0.9, 0.95)
    config.grid.n = (200,)
    config.grid.noise = (1.0,)  # every label is a coin toss
    set_seeds(config, 3)
    return config


def default() -> Parts:
    """Six parts."""
    names = ("masks", "memorization", "memorization_inverted", "swap")
    parts = {name: base() for name in names}
    parts["information"] = mask_information.small()
    parts["information_data"] = mask_information.small_data()
    parts["masks"].question = "masks"
    parts["masks"].grid.sparsity = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
    parts["memorization"].grid.ablation = ("", "shuffle", "reinitialize")
    # A part of its own, since a pruner without a score refuses all of it.
    parts["memorization_inverted"].grid.ablation = ("invert",)
    parts["swap"].question = "swap"
    parts["swap"].grid.sparsity = (0.9, 0.95)
    set_seeds(parts["swap"], 1)
    for name in ("information", "information_data"):
        part = parts[name]
        part.train.max_epochs = BUDGET
        part.information.confidence = 0.95
        part.information.datasets, part.information.decoded = 64, 16
        part.grid.pruner = KNOWN
        part.grid.sparsity = (0.9, 0.95)
    # Masks from training are read under given inputs alone, and cost the most.
    parts["information_data"].grid.pruner = ("snip", "synflow", "random")
    for name, part in parts.items():
        part.name = "pruner-card-" + name.replace("_", "-")
    return parts


def smoke() -> Parts:
    """A test that takes seconds."""
    parts = default()
    for part in parts.values():
        part.name += "-smoke"
        part.data.dim = 6
        part.model.widths = (8,)
        end_soon(part)
        part.grid.pruner = ("snip", "random")
        part.grid.sparsity = (0.5,)
        part.grid.n = (16,)
        set_seeds(part, 1)
    parts["masks"].grid.sparsity = (0.5, 0.9)
    parts["swap"].swap.pairs = 2
    for name in ("information", "information_data"):
        asked = parts[name].information
        asked.datasets, asked.decoded = 8, 0
    return parts


PRESETS = {"": default, "smoke": smoke}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the collection of a preset, one of ``PRESETS``."""
    config = ConfigDict()
    config.name = f"pruner-card-{preset}" if preset else "pruner-card"
    config.out = "results"
    config.pruner = EXAMPLE
    config.parts = ConfigDict(chosen(PRESETS, preset, "pruner_card.py"))
    return config
