"""The groups of fields of a specification, with their defaults.

``grid`` has that of the grid, and the cards of questions have theirs.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from nfp_jax.fields import require


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Which set, where it lies, and the settings of its card."""

    name: str = "gaussian"
    dir: str | None = None  # None: TFDS's default directory
    download: bool = True
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Which network, and the settings of its card."""

    name: str = "mlp"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


MOMENTS = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """How one network is trained."""

    optimizer: str = "adam"  # any name of optax
    learning_rate: float = 1e-3
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # How the optimizer's moments are kept between steps, or bfloat16: see
    # engine/moments.py. At its default it is left out of the hash (spec.py).
    moments: str = "float32"
    decay_steps: int = 0  # cosine decay to 0 over so many steps; 0: a constant rate
    batch_size: int = 64
    max_epochs: int = 3200  # the budget; a network that uses it up decides no claim
    stop: str = "settled"  # or still, or paper
    # stop="settled": looked at after 2T epochs, T = settle_from, 2 settle_from, …
    settle_from: int = 50
    settle_rise: float = 0.005  # a smaller rise of the accuracy from T to 2T settles
    settle_fall: float = 0.05  # with a smaller fall of the loss, as a fraction of it
    settle_steps: int = 1000  # and never before so many optimizer steps
    patience: int = 3  # stop="still" and "paper"
    min_epochs: int = 10  # stop="still" only


@dataclasses.dataclass(frozen=True)
class PruneSpec:
    """What trainings on the way to a mask are like; the rest is in ``pruners``."""

    # Epochs of the dense training and of each round of IMP; 0: as train.stop says.
    round_epochs: int = 0
    rewind_step: int = 0


@dataclasses.dataclass(frozen=True)
class EngineSpec:
    """How the machine is used: speed, and results only through the order of sums."""

    lanes: int = 0  # networks trained at once on a device; 0: see ensemble.run
    score_at_once: int = 0  # networks pruned at once; 0: one on a CPU, else 32
    # A training of so many operations, at most, goes without dead neurons: the programs
    # of smaller networks have to be compiled. 0: always; inf: never.
    shrink_from: float = 2e11


def check_first_look(train: TrainSpec) -> None:
    """Raises where a training ends before "settled" first looks at it.

    Raises:
      SpecError: names ``train.max_epochs``.
    """
    first = 2 * train.settle_from
    expected = f"at least {first}, the first doubling: 2 train.settle_from"
    require(train.max_epochs >= first, "train.max_epochs", train.max_epochs, expected)
