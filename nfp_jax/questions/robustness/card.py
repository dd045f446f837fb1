"""How steep networks are that fit noise: memorization, and Lipschitz constants."""

import dataclasses
from typing import Any

from nfp_jax.fields import check
from nfp_jax.questions.contract import Question


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a network's largest slope is looked for, where that is the question."""

    segments: int = 1024  # points between pairs of training points
    ascents: int = 16  # gradient ascents, from the steepest points found
    steps: int = 50  # of each


COLUMNS = {
    "dim": "int",
    "lipschitz_lower": "float",
    "lipschitz_upper": "float",
    "lipschitz_product": "float",
    "squared_error": "float",
    "noise_variance": "float",
    "excess": "float",
}


def check_settings(spec: Any) -> None:
    """Raises for settings out of range."""
    asked = spec.questions_settings["robustness"]
    check(
        {
            "robustness.segments": asked.segments,
            "robustness.ascents": asked.ascents,
        },
        lambda x: x >= 1,
        "{} >= 1",
    )
    check({"robustness.steps": asked.steps}, lambda x: x >= 0, "{} >= 0")


CARD = Question(
    name="robustness",
    column="lipschitz_lower",
    columns=COLUMNS,
    settings=Settings,
    extends="memorization",
    check_settings=check_settings,
)
