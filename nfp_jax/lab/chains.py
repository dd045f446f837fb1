"""Masks through training, in stacks: from dense networks, cut by cut, to all masks.

In a draw the dense training serves the dense row and the first round of every
trajectory, at every sparsity; cells of one pruner, selection and ablation share the
whole of a trajectory. What is cut from networks that ended together is cut by one
program, and the next rounds are trained before the networks under final masks.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from nfp_jax.engine.jobs import Networks
from nfp_jax.engine.training import TrainResult
from nfp_jax.grid import Cell
from nfp_jax.lab.each import parts
from nfp_jax.lab.jobs import Step
from nfp_jax.lab.stacked import Draws, Stacks
from nfp_jax.lab.trajectories import branches, rounds_of
from nfp_jax.pruners.contract import Round, ScoreFn
from nfp_jax.types import Mask, Params


class Found(NamedTuple):
    """Masks of cells that were found through training.

    Attributes:
      cells: of each mask its cell.
      wheres: its draw, as the caller names it.
      draws: these draws, stacked.
      mask: the masks, stacked.
      start: the weights that training goes on from, stacked, masked or not.
      late: how many trainings on the way to each used up their budget.
    """

    cells: list[Cell]
    wheres: list[Any]
    draws: Draws
    mask: Mask
    start: Params
    late: list[int]


# What is done with masks that were found; it returns further networks.
OnMasks = Callable[[Found], list[Networks]]
# What is done with dense networks that ended: the cells that come from each, its draw,
# its row among the results, and these.
OnDense = Callable[
    [list[list[Cell]], list[tuple[Draws, int]], list[int], TrainResult], None
]


class Link(NamedTuple):
    """What is known of a training on the way to masks when it begins.

    Attributes:
      where: its draw, as the caller names it.
      draws: the stack of draws, of which it has one.
      row: which.
      branch: the cells that share its trajectory; of a dense one all of the draw.
      rounds: of the trajectory, from this training on; of a dense one none.
      late: trainings before it that used up their budget.
      free: whether it ends at its own convergence, or by its budget.
      rewound: the weights to rewind to, stacked, and which; ``None``: the initial ones.
    """

    where: Any
    draws: Draws
    row: int
    branch: list[Cell]
    rounds: list[Round]
    late: int
    free: bool
    rewound: tuple[Params, int] | None


class Order(NamedTuple):
    """A mask to be cut from a network that ended.

    Attributes:
      cell: with the selection; of a round that of the trajectory.
      keep: how many weights it keeps.
      row: of the network, among the results.
      score_fn: of its weights.
      tuned: whether training goes on from them, and not from the weights before.
      link: of the network.
      then: the trajectory's next training: its cells and rounds; ``None``: the mask is
        that of the cell.
    """

    cell: Cell
    keep: int
    row: int
    score_fn: ScoreFn
    tuned: bool
    link: Link
    then: tuple[list[Cell], list[Round]] | None


class Chains:
    """The trainings on the way to masks, of all draws of a run.

    ``draws_of(wheres)`` makes draws of what the caller names them by: of cells, if it
    is ``Stacks.draws``.
    """

    def __init__(
        self,
        stacks: Stacks,
        draws_of: Callable[[list[Any]], Draws],
        on_masks: OnMasks,
        on_dense: OnDense | None = None,
    ) -> None:
        self.stacks, self.setup, self.draws_of = stacks, stacks.setup, draws_of
        self.on_masks, self.on_dense = on_masks, on_dense

    def begin(self, groups: list[list[Cell]], wheres: list[Any]) -> list[Networks]:
        """Returns the first trainings of draws: each one's cells, all of one n."""
        with self.setup.failures.reporting([x for group in groups for x in group]):
            first = [group[0] for group in groups]
            draws, steps = self.draws_of(wheres), self.setup.spec.prune.rewind_step
            free = not (steps or self.setup.spec.prune.round_epochs)
            then = self.early_ended if steps else self.dense_ended
            links = [
                Step(
                    group,
                    then,
                    Link(where, draws.data(), row, group, [], 0, free, None),
                )
                for row, (group, where) in enumerate(zip(groups, wheres, strict=True))
            ]
            limits = [steps or self.limit(cell) for cell in first]
            return [
                self.stacks.networks(
                    first, draws, draws.dense, draws.params, links, limits=limits
                )
            ]
        return []

    def limit(self, cell: Cell) -> int | None:
        """The steps of a training on the way to a mask; None: to its own end."""
        epochs, n = self.setup.spec.prune.round_epochs, cell["n"]
        an_epoch = -(-n // min(self.setup.training.batch_size, n))
        return epochs * an_epoch if epochs else None

    def early_ended(
        self, steps: list[Step], rows: list[int], results: TrainResult
    ) -> list[Networks]:
        """Begins dense trainings whose weights to rewind to are known now."""
        first = [step.cells[0] for step in steps]
        draws = self.draws_of([step.of.where for step in steps])
        rewound = self.stacks.taken(results.params, rows)
        free = not self.setup.spec.prune.round_epochs
        links = [
            Step(
                step.cells,
                self.dense_ended,
                step.of._replace(
                    draws=draws.data(), row=row, free=free, rewound=(rewound, row)
                ),
            )
            for row, step in enumerate(steps)
        ]
        limits = [self.limit(cell) for cell in first]
        return [
            self.stacks.networks(
                first, draws, draws.dense, draws.params, links, limits=limits
            )
        ]

    def dense_ended(
        self, steps: list[Step], rows: list[int], results: TrainResult
    ) -> list[Networks]:
        """Cuts from dense networks what every trajectory cuts from them."""
        links = after(steps, rows, results)
        orders = [
            order
            for row, link in zip(rows, links, strict=True)
            for branch in branches(link.branch)
            for order in self.orders(
                row, link._replace(branch=branch, rounds=rounds_of(self.setup, branch))
            )
        ]
        further = self.cut(orders, results)
        if self.on_dense:
            cells, draws = [x.branch for x in links], [(x.draws, x.row) for x in links]
            self.on_dense(cells, draws, rows, results)
        return further

    def round_ended(
        self, steps: list[Step], rows: list[int], results: TrainResult
    ) -> list[Networks]:
        """Cuts from networks of a round what their trajectories cut from them."""
        links = after(steps, rows, results)
        orders = [self.orders(*each) for each in zip(rows, links, strict=True)]
        return self.cut(list(itertools.chain.from_iterable(orders)), results)

    def orders(self, row: int, link: Link) -> list[Order]:
        """What is cut from one network: the next round's mask first."""
        now, later = link.rounds[0], link.rounds[1:]
        score_fn = self.setup.pruner(link.branch[0]).score_fn
        found = []
        if later:
            rest = [cell for cell in link.branch if cell["sparsity"] not in now.cuts]
            assert now.keep is not None  # there is a next round
            found.append(
                Order(
                    link.branch[0], now.keep, row, score_fn, False, link, (rest, later)
                )
            )
        for cell in link.branch:
            if cell["sparsity"] in now.cuts:
                keep, tuned = now.cuts[cell["sparsity"]], cell["resume"] == "finetune"
                found.append(Order(cell, keep, row, score_fn, tuned, link, None))
        return found

    def cut(self, orders: list[Order], results: TrainResult) -> list[Networks]:
        """Cuts masks, those alike together; returns the networks trained under them."""

        def alike(order: Order) -> tuple[Any, ...]:
            rewound = order.link.rewound
            shared = id(rewound[0]) if rewound and not order.tuned else None
            return order.then is None, id(order.score_fn), order.tuned, shared

        groups: dict[Any, list[Order]] = {}
        for order in sorted(orders, key=lambda order: order.then is None):
            groups.setdefault(alike(order), []).append(order)
        further: list[Networks] = []
        for same in groups.values():
            for part in parts(same, self.stacks.size):
                further += self.cut_together(part, results)
        return further

    def cut_together(self, orders: list[Order], results: TrainResult) -> list[Networks]:
        """Cuts masks of one program."""
        owners = [
            [order.cell] if order.then is None else order.then[0] for order in orders
        ]
        with self.setup.failures.reporting([x for cells in owners for x in cells]):
            return self.cut_all(orders, owners, results)
        return []

    def cut_all(
        self, orders: list[Order], owners: list[list[Cell]], results: TrainResult
    ) -> list[Networks]:
        """Cuts masks of one program; those of NaN weights fail their cells."""
        stacks, first = self.stacks, orders[0]
        rows = [order.row for order in orders]
        mask, trained, nans = stacks.cut(
            first.score_fn,
            [order.cell for order in orders],
            [order.keep for order in orders],
            (results.params, results.mask),
            rows,
        )
        if failed := stacks.refused(owners, nans):
            left = [
                order
                for order, cells in zip(orders, owners, strict=True)
                if cells not in failed
            ]
            return self.cut(left, results)
        cells = [order.cell for order in orders]
        wheres = [order.link.where for order in orders]
        draws = self.draws_of(wheres)
        late = [order.link.late for order in orders]
        start = trained if first.tuned else draws.params
        if first.link.rewound and not first.tuned:
            places = [order.link.rewound[1] for order in orders if order.link.rewound]
            start = stacks.taken(first.link.rewound[0], places)
        if first.then is None:
            return self.on_masks(Found(cells, wheres, draws, mask, start, late))
        free = not self.setup.spec.prune.round_epochs
        steps = []
        for row, order in enumerate(orders):
            assert order.then is not None  # all of one kind
            rewound = order.link.rewound and (start, row)
            rest, later = order.then
            link = order.link._replace(row=row, branch=rest, rounds=later)
            link = link._replace(draws=draws.data(), free=free, rewound=rewound)
            steps.append(Step(order.then[0], self.round_ended, link))
        limits = [self.limit(cell) for cell in cells]
        return [stacks.networks(cells, draws, mask, start, steps, limits=limits)]


def after(steps: list[Step], rows: list[int], results: TrainResult) -> list[Link]:
    """Returns the links of trainings that ended, those out of budget counted."""
    late = ~(results.converged | results.diverged)
    return [
        step.of._replace(late=step.of.late + int(step.of.free and late[row]))
        for step, row in zip(steps, rows, strict=True)
    ]
