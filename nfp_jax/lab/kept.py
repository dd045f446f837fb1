"""Networks of rows that take many, kept on file until the row is there."""

import logging

from nfp_jax.grid import Cell
from nfp_jax.lab.jobs import Row
from nfp_jax.results import Results, ResultsError

_LOG = logging.getLogger(__name__)


def kept_networks(store: Results | None, cell: Cell) -> list[Row]:
    """Returns what an earlier run kept of the networks of a cell."""
    return store.read_networks(cell) if store else []


def keep_network(store: Results | None, cell: Cell, network: Row) -> None:
    """Keeps a network of a row that takes many; where that fails, the run goes on."""
    try:
        if store:
            store.add_network(cell, network)
    except ResultsError as error:
        _LOG.warning("a resumed run will train a network again: %s", error)
