"""How many labels a masked network can memorize: the largest n that it fits."""

import dataclasses

from nfp_jax.questions.contract import Question


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the search for the memorization capacity takes for fitted, and for close.

    A training of the search ends with the share fitted, settled, or at its budget,
    whatever ``train.stop`` says.
    """

    share: float = 0.99  # of the labels fitted, at least
    precision: float = 0.05  # the ends of the search are so close, as a ratio less 1
    max_steps: int = 20_000  # of each training, whatever n; train.max_epochs holds too
    tries: int = 2  # orders of batches tried before an n counts as not fitted


COLUMNS = {
    "capacity": "int",
    "capacity_upper": "int",
    "trainings": "int",
    "capacity_bits": "float",
    "capacity_bits_per_weight": "float",
    "share": "float",
    "capacity_at_least": "bool",
    "tried": "list[int]",
    "fitted": "list[float]",
}

CARD = Question(
    name="capacity",
    column="capacity",
    columns=COLUMNS,
    settings=Settings,
)
