"""How steep networks are that fit noise: memorization, and Lipschitz constants."""

import dataclasses

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

CARD = Question(
    name="robustness",
    column="lipschitz_lower",
    columns=COLUMNS,
    settings=Settings,
    extends="memorization",
)
