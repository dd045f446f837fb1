"""How many labels a masked network can memorize: the largest n that it fits."""

import dataclasses
import math
from typing import Any

from nfp_jax.fields import check, require
from nfp_jax.groups import check_first_look
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


def check_settings(spec: Any) -> None:
    """Raises for settings out of range."""
    asked = spec.questions_settings["capacity"]
    check({"capacity.share": asked.share}, lambda x: 0 < x <= 1, "0 < {} <= 1")
    check(
        {"capacity.precision": asked.precision},
        lambda x: 0 < x < math.inf,
        "0 < {} < inf",
    )
    check(
        {"capacity.max_steps": asked.max_steps, "capacity.tries": asked.tries},
        lambda x: x >= 1,
        "{} >= 1",
    )


def check_chance(spec: Any) -> None:
    """Raises for a share that a constant reaches; and before the first doubling."""
    classes, share = spec.data.settings.get("classes"), spec.settings.share
    if classes:
        chance = 1 / classes
        expected = f"{chance:.3g} < share <= 1, above chance"
        require(chance < share <= 1, "capacity.share", share, expected)
    check_first_look(spec.train)


CARD = Question(
    name="capacity",
    column="capacity",
    columns=COLUMNS,
    settings=Settings,
    check_settings=check_settings,
    check=check_chance,
)
