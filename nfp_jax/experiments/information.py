"""How much masks know of the data: K data sets a draw, a mask of each, bounds in nats.

The initial weights (``init_seed``) and the algorithm's own randomness (``train_seed``:
the order of batches and the scores' draws) are fixed; ``data_seed`` names the inputs
and the family of data sets, whose set ``k`` is drawn with ``fold_in(key, k)``. Under
``"labels"`` inputs and clean labels are those of the draw, and only the noise is drawn
anew; under ``"data"`` all is. No network is trained under a cell's final mask.
All trainings of a draw end at about the same time, and its rows come then.
"""

import functools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from nfp_jax import data, decoding, ensemble, information, masks, pruning
from nfp_jax.experiments.lab import DATA, NOISE, AddRow, Draw, Failure, Lab
from nfp_jax.experiments.tables import SELECTS, comes_through_training
from nfp_jax.masks import Mask, Params, Scores
from nfp_jax.results import Results, row_key
from nfp_jax.spec import Cell, InformationSpec, Spec

# Data sets scored in one call, always: another number sums in another order, and a tie
# that falls the other way would read as information. 8 keep a core's cache, 32 a GPU.
AT_ONCE_CPU, AT_ONCE = 8, 32
# Data sets whose masks are made twice, to see whether they come out the same.
AGAIN = 16


class Made(NamedTuple):
    """The masks of a cell as they are kept on file.

    Attributes:
      masks: ``uint8[sets, ceil(P / 8)]``, the prunable weights, packed.
      labels: ``[sets, n]``, what each was made from.
      irreproducible: share of the masks made again that came out different.
      seconds: what making them took; of trainings shared with other cells, its part.
      out_of_budget: trainings on the way to all of them that used up their budget.
    """

    masks: np.ndarray
    labels: np.ndarray
    irreproducible: float
    seconds: float
    out_of_budget: int


def run(
    spec: Spec,
    todo: list[Cell],
    add_row: AddRow,
    *,
    progress: bool = False,
    store: Results | None = None,
) -> tuple[list[Failure], ensemble.Stats]:
    """Makes the masks of the cells and hands over a row for each, with its bounds.

    Arguments and errors are those of ``experiments.run``. Masks are kept in ``store``
    as soon as a cell has all of them, and taken from there.
    """
    start = time.perf_counter()
    lab = Lab(spec, todo)
    work, trained = Information(lab, add_row, store), []
    for group in lab.draws():
        with lab.reporting(group):
            trained += work.do(group, progress=progress)
    return lab.failures, _sum(trained, time.perf_counter() - start)


def tries_all(own: InformationSpec, n: int, noise: float, classes: int) -> bool:
    """Returns whether all labelings are tried: asked for, uniform, and not too many."""
    uniform = own.conditioning == "labels" and noise == 1.0
    return own.exact and uniform and classes**n <= information.MOST_LABELINGS


class Family:
    """The data sets of a draw; all labelings, where those are to be tried.

    Attributes:
      labels: ``[sets, n]``, of all sets.
      order: the sets that masks are made of: all, and ``again`` the first ones.
      draw: the draw whose initial weights and keys all sets share.
      resampled: whether each set has inputs of its own.
      enumerated: whether the sets are all labelings.
    """

    def __init__(self, lab: Lab, cell: Cell) -> None:
        self.lab, self.cell, self.draw = lab, cell, lab.draw(cell)
        own, n = lab.spec.information, cell["n"]
        self.resampled = own.conditioning == "data"
        self.enumerated = tries_all(own, n, cell["noise"], lab.classes)
        small = np.min_scalar_type(lab.classes - 1)
        self.drawn = np.stack(
            [np.asarray(self.sampled(k).y, small) for k in range(own.datasets)]
        )
        self.labels = self.drawn
        if self.enumerated:  # [C^n, n], in the order of the numbers that they spell
            digits = np.indices((lab.classes,) * n, small)
            self.labels = digits.reshape(n, -1).T
        again = list(range(len(self.labels)))[:AGAIN][::-1]
        # Each in another place and beside other neighbors.
        self.again = [k for first in range(4) for k in again[first::4]]
        self.order = [*range(len(self.labels)), *self.again]

    def sampled(self, k: int) -> data.Dataset:
        """Data set ``k`` of those drawn."""
        seed, whole = self.cell["data_seed"], self.draw.dataset
        if self.resampled:
            key = jax.random.fold_in(self.lab.key(DATA, seed), k)
            whole = self.lab.dataset(self.cell["n"], key)
        noise_key = jax.random.fold_in(self.lab.key(NOISE, seed), k)
        return self.lab.relabeled(whole, self.cell, noise_key)

    def on(self, k: int) -> Draw:
        """The draw on set ``k``."""
        if not self.enumerated:
            return self.draw.on(self.sampled(k))
        y, classes = self.labels[k].astype(np.int32), self.lab.classes
        z = np.eye(classes, dtype=np.float32)[y] - np.float32(1 / classes)
        whole = self.draw.dataset._replace(y=y, z=z, redrawn=np.ones(len(y), bool))
        return self.draw.on(whole)

    def batch(self, sets: list[int]) -> tuple[jax.Array, jax.Array]:
        """Labels ``[sets, n]``, and inputs: ``[n, ...]`` of all, or of each set."""
        x = self.lab.x(self.draw)
        if self.resampled:
            x = jnp.stack([self.lab.x(self.on(k)) for k in sets])
        return x, jnp.asarray(self.labels[sets], jnp.int32)

    def of_drawn(self) -> np.ndarray:
        """The sets that were drawn, ``int[K]``."""
        if not self.enumerated:
            return np.arange(len(self.drawn))
        places = self.lab.classes ** np.arange(self.drawn.shape[1])[::-1]
        return self.drawn @ places


class Information:
    """From cells to masks, found on file or made, and from these to rows."""

    def __init__(self, lab: Lab, add_row: AddRow, store: Results | None) -> None:
        self.lab, self.add_row, self.store = lab, add_row, store
        cpu = jax.default_backend() == "cpu"
        usual = AT_ONCE_CPU if cpu else AT_ONCE
        self.at_once = lab.spec.engine.score_at_once or usual
        ravel = functools.partial(masks.ravel_mask, prunable=lab.prunable)
        self.ravel = jax.jit(ravel)
        self.ravel_many = jax.jit(jax.vmap(ravel))
        self.collapsed = jax.jit(self.is_collapsed)

    def do(self, group: list[Cell], *, progress: bool) -> list[ensemble.Stats]:
        """Hands over the rows of a draw's cells; what its trainings took, if any."""
        family = Family(self.lab, group[0])
        missing = []
        for cell in group:
            with self.lab.reporting([cell]):
                if made := self.on_file(family, cell):
                    self.finish(family, cell, made)
                else:
                    missing.append(cell)
        direct = [cell for cell in missing if not comes_through_training(cell)]
        for cell in tqdm(direct, unit="cell", disable=not (progress and direct)):
            with self.lab.reporting([cell]):
                self.finish(family, cell, self.make_direct(family, cell))
        through = [cell for cell in missing if comes_through_training(cell)]
        if not through:
            return []
        packed, late, stats = self.make_through_training(
            family, through, progress=progress
        )
        seconds = stats.seconds / len(through)
        whole = []  # all are put on file before any is bounded, which may take long
        for cell in self.without_failures(through):
            with self.lab.reporting([cell]):
                key = row_key(cell)
                made = self.made(
                    family, cell, packed[key], seconds, int(late[key].sum())
                )
                whole.append((cell, made))
        for cell, made in whole:
            with self.lab.reporting([cell]):
                self.finish(family, cell, made)
        return [stats]

    def on_file(self, family: Family, cell: Cell) -> Made | None:
        """The masks of a cell, if all of them are on file."""
        arrays = self.store.read_masks(cell) if self.store else None
        count = len(family.labels)
        if arrays is None or len(arrays["masks"]) < count:
            return None
        return Made(
            arrays["masks"][:count],
            arrays["labels"][:count],
            float(arrays["irreproducible"]),
            float(arrays["seconds"]),
            int(arrays["out_of_budget"]),
        )

    def make_direct(self, family: Family, cell: Cell) -> Made:
        """Makes the masks of a cell that is pruned at initialization."""
        start, parts = time.perf_counter(), []
        draw, x_axis = family.draw, 0 if family.resampled else None
        for first in range(0, len(family.order), self.at_once):
            found = pruning.prune_many(
                self.lab.scorer(cell),
                draw.params,
                family.batch(family.order[first : first + self.at_once]),
                draw.score_key,
                in_axes=(None, (x_axis, 0), None),
                keep=self.lab.keep(cell),
                select=SELECTS[cell["select"]],
                prunable=self.lab.prunable,
                at_once=self.at_once,
            )
            parts.append(np.packbits(np.asarray(self.ravel_many(found)), axis=1))
        seconds = time.perf_counter() - start
        return self.made(family, cell, np.concatenate(parts), seconds, 0)

    def make_through_training(
        self, family: Family, through: list[Cell], *, progress: bool
    ) -> tuple[dict[Any, np.ndarray], dict[Any, np.ndarray], ensemble.Stats]:
        """The masks of cells that come through training, from the same trainings; how
        many of these used up their budget, of each mask; and what they took.
        """
        shape = len(family.order), -(-self.lab.total // 8)
        packed = {row_key(cell): np.zeros(shape, np.uint8) for cell in through}
        late = {row_key(cell): np.zeros(shape[0], int) for cell in through}

        def keep(
            place: int, draw: Draw, cell: Cell, mask: Mask, start: Params
        ) -> list[ensemble.Job]:
            packed[row_key(cell)][place] = np.packbits(np.asarray(self.ravel(mask)))
            late[row_key(cell)][place] = draw.late
            return []

        def jobs() -> Iterator[ensemble.Job]:
            for place, k in enumerate(family.order):
                if left := self.without_failures(through):
                    on_mask = functools.partial(keep, place)
                    yield from self.lab.guarded(
                        left, self.lab.dense_job, family.on(k), left, on_mask
                    )

        total = len(family.order) * self.lab.trainings(through)
        return packed, late, self.lab.train(jobs(), total, progress=progress)

    def without_failures(self, some: list[Cell]) -> list[Cell]:
        """The cells of which no mask has failed."""
        failed = [failure.cell for failure in self.lab.failures]
        return [cell for cell in some if cell not in failed]

    def made(
        self,
        family: Family,
        cell: Cell,
        packed: np.ndarray,
        seconds: float,
        late: int,
    ) -> Made:
        """The masks of a cell made in the order of the family, and put on file."""
        count = len(family.labels)
        differ = np.any(packed[count:] != packed[family.again], axis=1)
        share = float(differ.mean())
        made = Made(packed[:count], family.labels, share, seconds, late)
        if self.store:
            self.store.write_masks(cell, made._asdict())
        return made

    def finish(self, family: Family, cell: Cell, made: Made) -> None:
        """Hands over the row of a cell."""
        lab, own = self.lab, self.lab.spec.information
        drawn = family.of_drawn()
        packed, labels = made.masks[drawn], made.labels[drawn].astype(np.int32)
        found = np.unpackbits(packed, axis=1, count=lab.total).view(bool)
        start = time.perf_counter()
        x, _ = family.batch(list(drawn))
        interval = bound_masks(lab, family.draw, cell, found, labels, np.asarray(x))
        seconds = time.perf_counter() - start
        distinct, counts = np.unique(packed, axis=0, return_counts=True)
        rows = np.unpackbits(distinct, axis=1, count=lab.total).view(bool)
        collapsed = np.array([self.collapsed(mask) for mask in rows])
        probabilities = label_probabilities(lab, family.draw, cell)
        kept = int(found[0].sum())
        p_eff = information.effective_parameters(kept, interval)
        exact = information.entropy(made.masks) if family.enumerated else None
        self.add_row(
            {
                **cell,
                "information_lower": interval.lower,
                "information_upper": interval.upper,
                "information_exact": exact,
                "information_lower_by": interval.lower_by,
                "information_upper_by": interval.upper_by,
                "p_eff_lower": p_eff[0],
                "p_eff_upper": p_eff[1],
                "kept": kept,
                "datasets": own.datasets,
                "conditioning": own.conditioning,
                "confidence": own.confidence,
                "irreproducible": made.irreproducible,
                "distinct_masks": len(distinct),
                "collapsed_share": float(collapsed @ counts / counts.sum()),
                "out_of_budget": made.out_of_budget,
                "seconds": made.seconds,
                "bound_seconds": seconds,
                "classes": lab.classes,
                "label_entropy": None
                if probabilities is None
                else information.label_entropy(probabilities, conditioning="labels"),
                "prunable": lab.total,
            }
        )

    def is_collapsed(self, row: jax.Array) -> jax.Array:
        """Whether a mask, of the prunable weights alone, has no path left."""
        lab = self.lab
        mask = masks.unravel_mask(row, lab.shapes, prunable=lab.prunable)
        return lab.is_collapsed(mask)


def bound_masks(
    lab: Lab,
    draw: Draw,
    cell: Cell,
    found: np.ndarray,
    labels: np.ndarray,
    x: np.ndarray,
) -> information.Interval:
    """Returns the interval of a cell's information, from its K masks.

    Decoded by ridge, with what the masked network says, and where the pruner is a score
    of the labels, by searching for labels that give the mask.

    Args:
      lab: the network and the pruners.
      draw: the initial weights and the keys.
      cell: the coordinates.
      found: ``bool[K, P]``, the masks, of the prunable weights alone.
      labels: ``int32[K, n]``.
      x: the inputs ``[n, ...]``, ``[K, n, ...]`` under ``"data"``.
    """
    own, probabilities = lab.spec.information, label_probabilities(lab, draw, cell)
    features = decoding.network_features(
        lab.model.apply, draw.params, prunable=lab.prunable
    )
    decoders = [decoding.ridge(features=features)]
    if own.decoded and not comes_through_training(cell):
        decoders.append(search(lab, draw, cell))
    known = probabilities is not None  # labels of no known law are not decoded
    return information.mask_information(
        found,
        labels if known else None,
        conditioning=own.conditioning,
        label_probabilities=probabilities,
        x=x,
        keep=masks.keep_count(lab.total, cell["sparsity"]),
        gaussian=lab.pool is None,
        decoders=decoders if known and (found[1:] != found[0]).any() else (),
        confidence=own.confidence,
    )


def search(lab: Lab, draw: Draw, cell: Cell) -> decoding.Decoder:
    """Returns the decoder that runs a pruner at initialization in its loop."""
    score_fn, keep = lab.scorer(cell), lab.keep(cell)
    params, key, prunable = draw.params, draw.score_key, lab.prunable

    def scores(q: jax.Array, x: jax.Array) -> Scores:
        return score_fn(params, (x, q), key, prunable=prunable)

    def mask(y: jax.Array, x: jax.Array) -> Mask:
        select: Any = {"select": SELECTS[cell["select"]], "prunable": prunable}
        return pruning.prune(score_fn, params, (x, y), key, keep=keep, **select)

    most = lab.spec.information.decoded
    return decoding.search(scores, mask, most=most, prunable=prunable)


def label_probabilities(lab: Lab, draw: Draw, cell: Cell) -> np.ndarray | None:
    """Returns the distribution of each label, ``[n, C]``; None where labels depend."""
    if lab.spec.information.conditioning == "labels":
        return information.noisy_label_probabilities(
            draw.dataset.clean, cell["noise"], lab.classes
        )
    if lab.pool is None or cell["noise"] == 1.0:
        return np.full((cell["n"], lab.classes), 1 / lab.classes)
    return None  # images are drawn without replacement


def _sum(parts: list[ensemble.Stats], seconds: float) -> ensemble.Stats:
    """What runs of the engine took together, within so many wall seconds."""
    training = sum(part.train_seconds for part in parts)
    wasted = sum(part.wasted * part.train_seconds for part in parts)
    return ensemble.Stats(
        seconds,
        sum(part.compile_seconds for part in parts),
        training,
        sum(part.networks for part in parts),
        wasted / training if training else 0.0,
    )
