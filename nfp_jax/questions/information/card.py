"""How much a mask knows of the data that it was found on, in nats, between two ends."""

import dataclasses
from typing import Any

from nfp_jax.fields import check, items, require
from nfp_jax.grid import DENSE
from nfp_jax.questions.contract import Question


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the information in masks is bounded, where that is the question."""

    datasets: int = 256  # drawn for each cell, K
    conditioning: str = "labels"  # labels redrawn, inputs fixed; or data: all redrawn
    confidence: float = 0.95  # that both ends of an interval hold
    decoded: int = 128  # masks decoded by what knows their pruner, at most
    exact: bool = False  # try all labelings where they are few and uniform


COLUMNS = {
    "conditioning": "str",
    "information_lower_by": "str",
    "information_upper_by": "str",
    "datasets": "int",
    "decoder_fallbacks": "int",
    "distinct_masks": "int",
    "prunable": "int",
    "information_lower": "float",
    "information_upper": "float",
    "information_exact": "float",
    "p_eff_lower": "float",
    "p_eff_upper": "float",
    "confidence": "float",
    "irreproducible": "float",
    "collapsed_share": "float",
    "bound_seconds": "float",
    "label_entropy": "float",
}


def check_settings(spec: Any) -> None:
    """Raises for settings out of range."""
    asked = spec.questions_settings["information"]
    check({"information.datasets": asked.datasets}, lambda x: x >= 2, "{} >= 2")
    check({"information.decoded": asked.decoded}, lambda x: x >= 0, "{} >= 0")
    check(
        {"information.confidence": asked.confidence}, lambda x: 0 < x < 1, "0 < {} < 1"
    )
    require(
        asked.conditioning in ("labels", "data"),
        "information.conditioning",
        asked.conditioning,
        "'labels' or 'data'",
    )


def check_grid(spec: Any) -> None:
    """Raises for what of the grid means nothing for this question."""
    for path, value in items("grid.pruner", spec.grid.pruner).items():
        expected = "a pruner: a dense mask holds no information"
        require(value != DENSE, path, value, expected)
    for path, value in items("grid.ablation", spec.grid.ablation).items():
        expected = "'': masks are not ablated for question 'information'"
        require(value == "", path, value, expected)


CARD = Question(
    name="information",
    column="information_upper",
    columns=COLUMNS,
    settings=Settings,
    trains=False,
    check_settings=check_settings,
    check=check_grid,
)
