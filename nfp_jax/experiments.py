"""Cells to rows: the names that programs use of ``lab``.

``all_cells`` are the cells of a specification, ``check_names`` looks its names up, and
``run`` does cells and hands over their rows. A pruner, a network or a synthetic set of
the user's is a file with a card; a question is a folder of ``nfp_jax/questions``.
"""

from nfp_jax.lab.jobs import AddRow, Failure, Row
from nfp_jax.lab.names import (
    ABLATIONS,
    RESUMES,
    SELECTS,
    STOPS,
    all_cells,
    check_names,
    through_training,
)
from nfp_jax.lab.run import run
from nfp_jax.pruners.contract import Network

__all__ = [
    "ABLATIONS",
    "RESUMES",
    "SELECTS",
    "STOPS",
    "AddRow",
    "Failure",
    "Network",
    "Row",
    "all_cells",
    "check_names",
    "run",
    "through_training",
]
