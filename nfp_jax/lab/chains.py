"""The masks of cells, in stacks: at initialization, and through training, cut by cut.

In a draw the dense training serves the dense row and the first round of every
trajectory, at every sparsity; cells of one pruner, selection and ablation share the
whole of a trajectory. What is cut from networks that ended together is cut by one
program, and the next rounds are trained before the networks under final masks.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from nfp_jax.engine.jobs import Networks
from nfp_jax.engine.training import TrainResult
from nfp_jax.grid import DENSE, Cell, grouped
from nfp_jax.lab.each import parts
from nfp_jax.lab.jobs import Step
from nfp_jax.lab.one_network import Draws
from nfp_jax.lab.setup import Setup
from nfp_jax.lab.stacked import Stacks, size_of
from nfp_jax.pruners.contract import Round, Trajectory
from nfp_jax.types import Mask, Params


class Found(NamedTuple):
    """Masks of cells that were found.

    Attributes:
      cells: of each mask its cell.
      wheres: its draw, as the caller names it.
      sizes: how many points of the draw it was found on.
      draws: these draws, stacked.
      mask: the masks, stacked.
      start: the weights that training goes on from, stacked, masked or not.
      late: how many trainings on the way to each used up their budget.
      epochs: of these trainings together, of each.
    """

    cells: list[Cell]
    wheres: list[Any]
    sizes: list[int]
    draws: Draws
    mask: Mask
    start: Params
    late: list[int]
    epochs: list[int]


# What is done with masks that were found; it returns further networks.
OnMasks = Callable[[Found], list[Networks]]


class Link(NamedTuple):
    """What is known of a training on the way to masks when it begins.

    Attributes:
      where: its draw, as the caller names it.
      size: how many points of it the network is trained on.
      draws: the stack of draws, of which it has one.
      row: which.
      branch: the cells that share its trajectory; of a dense one all of the draw.
      rounds: of the trajectory, from this training on; of a dense one none.
      late: trainings before it that used up their budget.
      epochs: of the trainings before it.
      free: whether it ends at its own convergence, or by its budget.
      rewound: the weights to rewind to, stacked, and which; ``None``: the initial ones.
    """

    where: Any
    size: int
    draws: Draws
    row: int
    branch: list[Cell]
    rounds: list[Round]
    late: int
    epochs: int
    free: bool
    rewound: tuple[Params, int] | None


# What is done with dense networks that ended: what was known of each when it began, its
# row among the results, and these.
OnDense = Callable[[list[Link], list[int], TrainResult], None]


class Order(NamedTuple):
    """A mask to be cut from a network that ended.

    Attributes:
      cell: with the selection; of a round that of the trajectory.
      keep: how many weights it keeps, or each of its layers.
      row: of the network, among the results.
      pruner: what cuts it.
      tuned: whether training goes on from them, and not from the weights before.
      link: of the network.
      then: the trajectory's next training: its cells and rounds; ``None``: the mask is
        that of the cell.
    """

    cell: Cell
    keep: Any
    row: int
    pruner: Trajectory
    tuned: bool
    link: Link
    then: tuple[list[Cell], list[Round]] | None


class Chains:
    """The masks of all draws of a run, and the trainings on the way to them."""

    def __init__(
        self,
        stacks: Stacks,
        draws_of: Callable[[list[Any]], Draws],
        on_masks: OnMasks,
        on_dense: OnDense | None = None,
        *,
        size_of: Callable[[Cell, Any], int] = lambda cell, where: cell["n"],
        length: Callable[[Cell], Any] = lambda cell: 0,
    ) -> None:
        """What makes masks.

        Args:
          stacks: of the run.
          draws_of: makes draws, stacked, of what the caller names them by.
          on_masks: called with masks that were found.
          on_dense: called with dense networks that ended, after what is cut from them.
          size_of: on how many points of its draw the mask of a cell is found.
          length: what orders cells by how long their networks will take.
        """
        self.stacks, self.setup, self.draws_of = stacks, stacks.setup, draws_of
        self.on_masks, self.on_dense = on_masks, on_dense
        self.size_of, self.length = size_of, length

    def makers(
        self,
        through: list[tuple[list[Cell], Any]],
        direct: list[tuple[Cell, Any]],
    ) -> Iterator[Callable[[], list[Networks]]]:
        """What makes each stack of first networks: chains, then the longest.

        Args:
          through: the cells that come through the dense training of a draw, and the
            draw as the caller names it.
          direct: each cell that does not, and its draw.
        """
        size_of, size = self.size_of, self.stacks.size
        for same in grouped(through, lambda one: size_of(one[0][0], one[1])):
            for part in parts(same, size):
                yield functools.partial(self.begin, part)
        ordered = sorted(direct, key=lambda one: self.length(one[0]), reverse=True)
        for alone in grouped(ordered, lambda one: size_of(*one)):
            alike = [parts(x, size) for x in grouped(alone, lambda x: program(x[0]))]
            whole = itertools.chain.from_iterable(alike)
            for part in sorted(
                whole, key=lambda part: self.length(part[0][0]), reverse=True
            ):
                yield functools.partial(self.find, part)

    def find(self, named: list[tuple[Cell, Any]]) -> list[Networks]:
        """Returns the networks of cells that are pruned at initialization.

        Args:
          named: each cell, and its draw as the caller names it.
        """
        owners = [[cell] for cell, _ in named]
        return self.stacks.made(owners, named, self.find_together)

    def find_together(self, named: list[tuple[Cell, Any]]) -> list[Networks]:
        """Those of a stack."""
        cells, wheres = [cell for cell, _ in named], [where for _, where in named]
        draws, sizes = self.draws_of(wheres), [self.size_of(*one) for one in named]
        mask, nans = self.stacks.masks(cells, draws, sizes)
        if failed := self.stacks.refused([[cell] for cell in cells], nans):
            # The others again: a mask does not depend on its neighbors.
            return self.find([one for one in named if [one[0]] not in failed])
        none = [0] * len(cells)
        found = Found(cells, wheres, sizes, draws, mask, draws.params, none, none)
        return self.on_masks(found)

    def begin(self, named: list[tuple[list[Cell], Any]]) -> list[Networks]:
        """Returns the first trainings of draws, all of one size.

        Args:
          named: the cells that come through each, and the draw as the caller names it.
        """
        owners = [group for group, _ in named]
        return self.stacks.made(owners, named, self.begin_together)

    def begin_together(self, named: list[tuple[list[Cell], Any]]) -> list[Networks]:
        """Those of a stack."""
        sizes = [self.size_of(group[0], where) for group, where in named]
        draws = self.draws_of([where for _, where in named])
        steps = self.setup.spec.prune.rewind_step
        free = not (steps or self.setup.spec.prune.round_epochs)
        then = self.early_ended if steps else self.dense_ended
        links = [
            Step(
                group,
                then,
                Link(where, n, draws.data(), row, group, [], 0, 0, free, None),
            )
            for row, ((group, where), n) in enumerate(zip(named, sizes, strict=True))
        ]
        limits = [steps or self.limit(n) for n in sizes]
        return [self.dense(sizes, draws, links, limits)]

    def dense(
        self,
        sizes: list[int],
        draws: Draws,
        links: list[Step],
        limits: list[int | None],
    ) -> Networks:
        """Trainings of the whole networks of draws."""
        return self.stacks.networks(
            sizes, draws, draws.dense, draws.params, links, limits=limits
        )

    def limit(self, n: int) -> int | None:
        """The steps of a training on the way to a mask; None: to its own end."""
        epochs = self.setup.spec.prune.round_epochs
        an_epoch = -(-n // min(self.setup.training.batch_size, n))
        return epochs * an_epoch if epochs else None

    def early_ended(
        self, steps: list[Step], rows: list[int], results: TrainResult
    ) -> list[Networks]:
        """Begins dense trainings whose weights to rewind to are known now."""
        begin = functools.partial(self.begin_rewound, results)
        owners = [step.cells for step in steps]
        return self.stacks.made(owners, list(zip(steps, rows, strict=True)), begin)

    def begin_rewound(
        self, results: TrainResult, ended: list[tuple[Step, int]]
    ) -> list[Networks]:
        """The dense trainings of the draws of a stack; of each the training of its
        first steps, and its row among the results.
        """
        draws = self.draws_of([step.of.where for step, _ in ended])
        rows = [row for _, row in ended]
        rewound = self.stacks.taken(results.params, rows, size_of(draws))
        free = not self.setup.spec.prune.round_epochs
        links = [
            Step(
                step.cells,
                self.dense_ended,
                step.of._replace(
                    draws=draws.data(), row=row, free=free, rewound=(rewound, row)
                ),
            )
            for row, (step, _) in enumerate(ended)
        ]
        sizes = [step.of.size for step, _ in ended]
        return [self.dense(sizes, draws, links, [self.limit(n) for n in sizes])]

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
            self.on_dense(links, rows, results)
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
        pruner = self.setup.pruner(link.branch[0])
        found = []
        if later:
            rest = [cell for cell in link.branch if cell["sparsity"] not in now.cuts]
            assert now.keep is not None  # there is a next round
            found.append(
                Order(link.branch[0], now.keep, row, pruner, False, link, (rest, later))
            )
        for cell in link.branch:
            if cell["sparsity"] in now.cuts:
                keep, tuned = now.cuts[cell["sparsity"]], cell["resume"] == "finetune"
                found.append(Order(cell, keep, row, pruner, tuned, link, None))
        return found

    def cut(self, orders: list[Order], results: TrainResult) -> list[Networks]:
        """Cuts masks, those alike together; returns the networks trained under them."""

        def alike(order: Order) -> tuple[Any, ...]:
            rewound = order.link.rewound
            shared = id(rewound[0]) if rewound and not order.tuned else None
            score, select = id(order.pruner.score_fn), order.pruner.select
            return order.then is None, score, select, order.tuned, shared

        groups: dict[Any, list[Order]] = {}
        for order in sorted(orders, key=lambda order: order.then is None):
            groups.setdefault(alike(order), []).append(order)
        further: list[Networks] = []
        for same in groups.values():
            owners = [owner_of(order) for order in same]
            cut = functools.partial(self.cut_together, results)
            further += self.stacks.made(owners, same, cut)
        return further

    def cut_together(self, results: TrainResult, orders: list[Order]) -> list[Networks]:
        """Cuts masks of one program; those of NaN weights fail their cells."""
        stacks, first = self.stacks, orders[0]
        owners = [owner_of(order) for order in orders]
        cells = [order.cell for order in orders]
        wheres = [order.link.where for order in orders]
        draws = self.draws_of(wheres)
        mask, trained, nans = stacks.cut(
            first.pruner,
            cells,
            [order.keep for order in orders],
            (results.params, results.mask),
            [order.row for order in orders],
            size_of(draws),
        )
        if failed := stacks.refused(owners, nans):
            left = [
                order
                for order, cells in zip(orders, owners, strict=True)
                if cells not in failed
            ]
            return self.cut(left, results)
        sizes = [order.link.size for order in orders]
        late = [order.link.late for order in orders]
        start = trained if first.tuned else draws.params
        if first.link.rewound and not first.tuned:
            places = [order.link.rewound[1] for order in orders if order.link.rewound]
            start = stacks.taken(first.link.rewound[0], places, size_of(draws))
        if first.then is None:
            epochs = [order.link.epochs for order in orders]
            return self.on_masks(
                Found(cells, wheres, sizes, draws, mask, start, late, epochs)
            )
        free = not self.setup.spec.prune.round_epochs
        steps = []
        for row, order in enumerate(orders):
            assert order.then is not None  # all of one kind
            rewound = order.link.rewound and (start, row)
            rest, later = order.then
            link = order.link._replace(row=row, branch=rest, rounds=later)
            link = link._replace(draws=draws.data(), free=free, rewound=rewound)
            steps.append(Step(order.then[0], self.round_ended, link))
        limits = [self.limit(n) for n in sizes]
        return [stacks.networks(sizes, draws, mask, start, steps, limits=limits)]


def owner_of(order: Order) -> list[Cell]:
    """Returns the cells that need a mask that is to be cut."""
    return [order.cell] if order.then is None else order.then[0]


def after(steps: list[Step], rows: list[int], results: TrainResult) -> list[Link]:
    """Returns the links of trainings that ended: those out of budget, and epochs."""
    late = ~(results.converged | results.diverged)
    return [
        step.of._replace(
            late=step.of.late + int(step.of.free and late[row]),
            epochs=step.of.epochs + int(results.epochs[row]),
        )
        for step, row in zip(steps, rows, strict=True)
    ]


# ---- What a trajectory is


def count_trainings(setup: Setup, through: list[Cell]) -> int:
    """Returns how many networks are trained until a draw's cells have their masks."""
    count = bool(through) + bool(through and setup.spec.prune.rewind_step)
    rounds = [rounds_of(setup, branch) for branch in branches(through)]
    return count + sum(len(found) - 1 for found in rounds)


def rounds_of(setup: Setup, branch: list[Cell]) -> list[Round]:
    """Returns the trainings of a trajectory, and what is cut from each."""
    sparsities = [cell["sparsity"] for cell in branch]
    rounds: list[Round] = setup.pruner(branch[0]).plan(setup.total, sparsities)
    return rounds


def branches(through: list[Cell]) -> list[list[Cell]]:
    """Returns the cells that share a trajectory beyond the dense training."""
    pruned = [cell for cell in through if cell["pruner"] != DENSE]
    ordered = sorted(pruned, key=trajectory)
    return [list(group) for _, group in itertools.groupby(ordered, key=trajectory)]


def trajectory(cell: Cell) -> tuple[str, str, bool]:
    """Returns what cells of one draw share that are cut from the same trainings."""
    return cell["pruner"], cell["select"], cell["ablation"] == "invert"


def program(cell: Cell) -> tuple[str, bool]:
    """Returns what cells share that are pruned by one program."""
    return cell["pruner"], cell["ablation"] == "invert"
