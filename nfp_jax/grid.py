"""The cells of a grid: which networks a specification asks for, and who does which.

Plain Python: no JAX.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

Cell = dict[str, Any]
T = TypeVar("T")

# The network of which nothing is removed: no pruner, and named beside them.
DENSE = "dense"
SEEDS = ("init_seed", "data_seed", "train_seed")
# What names a row: two rows with the same coordinates are the same network.
COORDINATES = (
    "pruner",
    "settings",
    "version",
    "sparsity",
    "n",
    "noise",
    "select",
    "resume",
    "ablation",
    *SEEDS,
)
# What networks share that differ in their seeds alone.
BUT_SEEDS = tuple(name for name in COORDINATES if name not in SEEDS)
# Cells that agree on these share one data set and one initialization.
DRAW = ("n", "noise", *SEEDS)


@dataclasses.dataclass(frozen=True)
class GridSpec:
    """The axes whose product is run."""

    pruner: tuple[str, ...] = (DENSE,)  # names, files, or module:CARD
    sparsity: tuple[float, ...] = (0.9,)
    n: tuple[int, ...] = (1000,)
    noise: tuple[float, ...] = (1.0,)
    select: tuple[str, ...] = ("global",)
    resume: tuple[str, ...] = ("rewind",)
    ablation: tuple[str, ...] = ("",)
    init_seed: tuple[int, ...] = (0,)
    data_seed: tuple[int, ...] = (0,)
    train_seed: tuple[int, ...] = (0,)
    paired_seeds: bool = False  # the three seeds advance together


@dataclasses.dataclass(frozen=True)
class Pruning:
    """What a grid must know of a pruner.

    Attributes:
      name: of its card.
      label: what figures call it.
      sees: what it sees of the data; of the dense network, "".
      settings: of the run, by name.
      version: of its card.
      resumed: whether a network is trained on under its mask from weights that were
        trained, or rewound: its mask comes through training.
    """

    name: str
    label: str
    sees: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    version: str = ""
    resumed: bool = False

    def columns(self) -> dict[str, str]:
        """Returns its columns of a row."""
        text = json.dumps(dict(self.settings), sort_keys=True) if self.settings else ""
        return {
            "pruner": self.name,
            "settings": text,
            "version": self.version,
            "label": self.label,
            "sees": self.sees,
        }


NOT_PRUNED = Pruning(DENSE, "dense", "")


def cells(grid: GridSpec, prunings: Mapping[str, Pruning]) -> list[Cell]:
    """Returns the points of the grid, each a flat dict of coordinates, none twice.

    With its coordinates a cell has the label of its pruner and what that sees.
    Coordinates that mean nothing for a pruner are blanked, so that no network is
    trained twice under two names: ``resume`` for masks found without training and for
    fresh weights, and everything but ``n``, ``noise`` and the seeds for the dense
    network. A shuffled mask is always trained from rewound weights: fine-tuned ones are
    0 where it keeps what the mask removed.

    Args:
      grid: the axes.
      prunings: each entry of ``grid.pruner``, but for the dense network's.

    >>> imp = Pruning("imp", "IMP", "training", resumed=True)
    >>> grid = GridSpec(pruner=("dense", "imp"), sparsity=(0.5, 0.9))
    >>> [(c["pruner"], c["sparsity"]) for c in cells(grid, {"imp": imp})]
    [('dense', 0.0), ('imp', 0.5), ('imp', 0.9)]
    """
    axes = [getattr(grid, name) for name in SEEDS]
    seeds = zip(*axes, strict=True) if grid.paired_seeds else itertools.product(*axes)
    found: dict[tuple[Any, ...], Cell] = {}
    for init_seed, data_seed, train_seed in seeds:
        for n, noise, entry, sparsity, select, resume, ablation in itertools.product(
            grid.n,
            grid.noise,
            grid.pruner,
            grid.sparsity,
            grid.select,
            grid.resume,
            grid.ablation,
        ):
            dense = entry == DENSE
            pruning = NOT_PRUNED if dense else prunings[entry]
            if ablation in ("shuffle", "rescale"):
                resume = "rewind"
            resumed = pruning.resumed and ablation != "reinitialize"
            cell = {
                **pruning.columns(),
                "sparsity": 0.0 if dense else sparsity,
                "n": n,
                "noise": noise,
                "select": "" if dense else select,
                "resume": resume if resumed else "",
                "ablation": "" if dense else ablation,
                "init_seed": init_seed,
                "data_seed": data_seed,
                "train_seed": train_seed,
            }
            found.setdefault(tuple(cell.values()), cell)
    return list(found.values())


def share(
    whole: list[Cell], index: int, count: int, *, through: Collection[str] = ()
) -> list[Cell]:
    """Returns the cells that process ``index`` of ``count`` works, in their order.

    What shares work stays together: in a draw (n, noise, seeds) the cells that come
    through training, and those of each other pruner. These units are dealt out, the
    most costly first, each to the process with the least to do, so that the loads of
    two processes differ by one unit at most. The shares are disjoint, they are together
    ``whole``, and no order of ``whole`` changes them.

    Args:
      whole: all cells of the grid, those on file too: each process must divide the
        same, whenever it starts.
      index: this process, from 0.
      count: how many there are; with fewer units, some get nothing.
      through: the names of pruners whose masks come through training.

    >>> grid = GridSpec(pruner=("dense", "imp", "snip", "grasp", "random"))
    >>> names = grid.pruner[1:]
    >>> every = cells(grid, {name: Pruning(name, name, "labels") for name in names})
    >>> [c["pruner"] for c in share(every, 0, 2, through={"imp"})]
    ['dense', 'imp']
    """

    def unit(cell: Cell) -> tuple[Any, ...]:
        alone = cell["pruner"] not in (DENSE, *through)
        return *(cell[name] for name in DRAW), cell["pruner"] if alone else ""

    costs: dict[tuple[Any, ...], int] = {}
    for cell in whole:
        # 2: the presets train 1.7 to 3 networks for a cell that comes through training.
        cost = cell["n"] * (1 if unit(cell)[-1] else 2)
        costs[unit(cell)] = costs.get(unit(cell), 0) + cost
    # Beyond the units' number processes get nothing.
    loads, mine = [0] * min(count, len(costs)), set()
    for dealt in sorted(costs, key=lambda unit: (-costs[unit], unit)):
        least = loads.index(min(loads))
        loads[least] += costs[dealt]
        if least == index:
            mine.add(dealt)
    return [cell for cell in whole if unit(cell) in mine]


def by_draw(whole: list[Cell]) -> list[list[Cell]]:
    """Returns the cells, grouped by draw, in their order."""
    return grouped(whole, lambda cell: tuple(cell[name] for name in DRAW))


def grouped(whole: list[T], key: Callable[[T], Any]) -> list[list[T]]:
    """Returns the members, grouped by what the key says of them, in their order."""
    groups: dict[Any, list[T]] = {}
    for one in whole:
        groups.setdefault(key(one), []).append(one)
    return list(groups.values())


def coordinates(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the coordinates of a row or a cell."""
    return {name: row[name] for name in COORDINATES}
