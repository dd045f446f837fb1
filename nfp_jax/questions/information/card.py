"""How much a mask knows of the data that it was found on, in nats, between two ends."""

import dataclasses

from nfp_jax.questions.contract import Question


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the information in masks is bounded, where that is the question."""

    datasets: int = 256  # drawn for each cell, K
    conditioning: str = "labels"  # labels redrawn, inputs fixed; or data: all redrawn
    confidence: float = 0.95  # that both ends of an interval hold
    decoded: int = 128  # masks decoded by searching, at most
    exact: bool = False  # try all labelings where they are few and uniform


COLUMNS = {
    "conditioning": "str",
    "information_lower_by": "str",
    "information_upper_by": "str",
    "datasets": "int",
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

CARD = Question(
    name="information",
    column="information_upper",
    columns=COLUMNS,
    settings=Settings,
    trains=False,
)
