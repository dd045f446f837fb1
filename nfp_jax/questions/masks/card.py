"""What a pruner's masks are like: counts, ties, seconds, empty layers, the bits."""

from typing import Any

from nfp_jax.fields import items, require
from nfp_jax.grid import DENSE
from nfp_jax.questions.contract import Question

COLUMNS = {
    "asked": "int",  # weights that were to be kept
    "tied": "int",  # of those kept, how many another order of equal scores removes
    "prunable": "int",
    "mask": "bytes",  # the prunable weights, packed as by numpy.packbits
    "layers": "list[str]",
    "kept_by_layer": "list[int]",
    "size_by_layer": "list[int]",
}


def check_grid(spec: Any) -> None:
    """Raises for what of the grid means nothing for this question."""
    for path, value in items("grid.pruner", spec.grid.pruner).items():
        require(value != DENSE, path, value, "a pruner: a dense mask keeps everything")
    for path, value in items("grid.ablation", spec.grid.ablation).items():
        expected = "'': masks are not ablated for question 'masks'"
        require(value == "", path, value, expected)


CARD = Question(
    name="masks",
    column="mask",
    columns=COLUMNS,
    trains=False,
    check=check_grid,
)
