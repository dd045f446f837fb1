"""What a resumed run need not do again: networks of rows that take many, and masks.

They are helpers: where they can't be read, are damaged or of another version, a warning
names the file and they are made again; where they can't be written, the run goes on.
"""

import logging
from collections.abc import Collection, Mapping

import numpy as np

from nfp_jax.grid import Cell
from nfp_jax.lab.jobs import Row
from nfp_jax.results import Results, ResultsError

_LOG = logging.getLogger(__name__)


def kept_networks(
    store: Results | None, cell: Cell, fields: Collection[str]
) -> list[Row]:
    """Returns what an earlier run kept of the networks of a cell.

    Args:
      store: where they are on file; ``None``: nowhere.
      cell: whose networks.
      fields: what each network must have; those without are left out.
    """
    if store is None:
        return []
    path = store.networks_path(cell)
    try:
        found = store.read_networks(cell)
    except ResultsError as error:
        _LOG.warning("networks are trained again: %s", error)
        return []
    whole = [one for one in found if isinstance(one, dict) and set(fields) <= set(one)]
    if len(whole) < len(found):
        _LOG.warning(
            "%d networks of %s lack fields of this version, and are trained again",
            len(found) - len(whole),
            path,
        )
    return whole


def keep_network(store: Results | None, cell: Cell, network: Row) -> None:
    """Keeps a network of a row that takes many; where that fails, the run goes on."""
    try:
        if store:
            store.add_network(cell, network)
    except ResultsError as error:
        _LOG.warning("a resumed run will train a network again: %s", error)


def kept_masks(
    store: Results | None, cell: Cell, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray] | None:
    """Returns the arrays that an earlier run kept of a cell; None: there are none.

    Args:
      store: where they are on file; ``None``: nowhere.
      cell: whose masks.
      shapes: of each array that must be there; it may be longer along its first axis.
        Arrays that are not named may be there, too.
    """
    if store is None:
        return None
    try:
        arrays = store.read_masks(cell)
    except ResultsError as error:
        _LOG.warning("masks are made again: %s", error)
        return None
    if arrays is None:
        return None
    for name, shape in shapes.items():
        found = arrays[name].shape if name in arrays else None
        if found is None or found[1:] != shape[1:] or len(found) != len(shape):
            _LOG.warning(
                "masks are made again: %s has %s of shape %s, expected %s",
                store.masks_path(cell),
                name,
                found,
                shape,
            )
            return None
    short = any(shape and len(arrays[x]) < shape[0] for x, shape in shapes.items())
    return None if short else arrays


def keep_masks(
    store: Results | None, cell: Cell, arrays: Mapping[str, np.ndarray]
) -> None:
    """Keeps the arrays of a cell; where that fails, the run goes on."""
    try:
        if store:
            store.write_masks(cell, arrays)
    except ResultsError as error:
        _LOG.warning("a resumed run will make masks again: %s", error)
