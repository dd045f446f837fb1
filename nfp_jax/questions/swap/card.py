"""What a mask's labels are worth to it: trained on them, and on others."""

import dataclasses

from nfp_jax.questions.contract import Question


@dataclasses.dataclass(frozen=True)
class Settings:
    """How often a mask's own labels are swapped for others."""

    pairs: int = 6  # independent draws a row, each with labels of its own and others
    confidence: float = 0.95  # of the interval of a gap
    margin: float = 0.02  # of n: a gap within it is "nothing", an equivalence test's


GAPS = [f"swap_gap{which}" for which in ("", "_reinit", "_data", "_data_reinit")]
ENDS = ("points", "lower", "upper", "bits", "bits_lower", "bits_upper")
COLUMNS = {
    "pairs": "int",
    "trainings": "int",
    "confidence": "float",
    "margin": "float",
    "collapsed_share": "float",
    "memorized_points": "float",
    "memorized_points_swapped": "float",
    "swap_gaps": "list[float]",
    "swap_gaps_reinit": "list[float]",
    **{f"{gap}_out_of_budget": "int" for gap in GAPS},
    **{f"{gap}_{end}": "float" for gap in GAPS for end in ENDS},
}

CARD = Question(
    name="swap",
    column="swap_gaps",
    columns=COLUMNS,
    settings=Settings,
)
