"""What a mask's labels are worth to it: trained on them, and on others."""

import dataclasses
from typing import Any

from nfp_jax.fields import check, items, require
from nfp_jax.grid import DENSE
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


def check_settings(spec: Any) -> None:
    """Raises for settings out of range."""
    asked = spec.questions_settings["swap"]
    check({"swap.pairs": asked.pairs}, lambda x: x >= 1, "{} >= 1")
    check({"swap.confidence": asked.confidence}, lambda x: 0 < x < 1, "0 < {} < 1")
    expected = "0 <= {} <= 1, a share of n"
    check({"swap.margin": asked.margin}, lambda x: 0 <= x <= 1, expected)


def check_grid(spec: Any) -> None:
    """Raises for what of the grid means nothing for this question."""
    for path, value in items("grid.pruner", spec.grid.pruner).items():
        expected = "a pruner: a dense mask holds no information"
        require(value != DENSE, path, value, expected)
    for path, value in items("grid.resume", spec.grid.resume).items():
        expected = "'rewind': trained weights have seen the labels themselves"
        require(value == "rewind", path, value, expected)
    rewound = spec.prune.rewind_step
    expected = "0: weights of a later step have seen the labels themselves"
    require(rewound == 0, "prune.rewind_step", rewound, expected)
    for path, value in items("grid.ablation", spec.grid.ablation).items():
        expected = "no 'reinitialize': question 'swap' trains both starts"
        require(value != "reinitialize", path, value, expected)


CARD = Question(
    name="swap",
    column="swap_gaps",
    columns=COLUMNS,
    settings=Settings,
    check_settings=check_settings,
    check=check_grid,
)
