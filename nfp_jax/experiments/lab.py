"""What all questions share: keys, the set, the network, its training, masks.

Cells that share n, noise and seeds share a draw: one data set, one initialization. In
a draw the dense training serves the dense row, magnitude after training and the first
round of IMP at every sparsity; one IMP trajectory serves all of its sparsities.
A failure is kept with its cells, not raised.
"""

import contextlib
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nfp_jax import capacity, data, ensemble, masks, models, pruning, scores, training
from nfp_jax.data import Dataset
from nfp_jax.experiments.tables import (
    DATA_FREE,
    MODELS,
    PRUNERS,
    SCHEDULES,
    SELECTS,
    TRAINED,
    Network,
)
from nfp_jax.experiments.trainer import EVALUATED_AT_ONCE, Budget, training_of
from nfp_jax.masks import Mask, Params
from nfp_jax.results import Results, ResultsError
from nfp_jax.scores import ScoreFn
from nfp_jax.spec import DRAW, Cell, Spec, SpecError

_LOG = logging.getLogger(__name__)
Row = dict[str, Any]
AddRow = Callable[[Row], None]
# Streams of randomness: a key is fold_in(fold_in(root, stream), seed), so that changing
# the pruner changes neither the initialization nor the data.
INIT, DATA, NOISE, SCORE, TRAIN, SHUFFLE, REINITIALIZE = range(7)
PROBE, OTHER_INIT, OTHER_DATA, OTHER_NOISE = range(7, 11)


class Failure(NamedTuple):
    """A cell that raised, and what."""

    cell: Cell
    error: str


def kept_networks(store: Results | None, cell: Cell) -> list[Row]:
    """What an earlier run kept of the networks of a cell."""
    return store.read_networks(cell) if store else []


def keep_network(store: Results | None, cell: Cell, network: Row) -> None:
    """Keeps a network of a row that takes many; where that fails, the run goes on."""
    try:
        if store:
            store.add_network(cell, network)
    except ResultsError as error:
        _LOG.warning("a resumed run will train a network again: %s", error)


class Task(NamedTuple):
    """What a job is for: the cells that need it, and what to do with its result."""

    cells: list[Cell]
    then: Callable[[training.TrainResult], list[ensemble.Job]]


class Draw(NamedTuple):
    """One data set, one initialization, and the keys of what is done with them."""

    params: Params
    dataset: Dataset  # of images: x is their rows in the pool
    data: tuple[Any, ...]  # x, y, z, redrawn: what the training takes
    score_key: jax.Array
    train_key: jax.Array
    repeat: int | None = None  # which of a cell's repeats it is
    late: int = 0  # trainings on the way to a mask that used up their budget

    def first(self, n: int) -> "Draw":
        """The draw with the first n points of its set."""
        whole = self.dataset
        # On the host: on the device, each n would compile its slices.
        x, y, clean, redrawn, z = (np.asarray(part)[:n] for part in whole[:5])
        return self.on(whole._replace(x=x, y=y, clean=clean, redrawn=redrawn, z=z))

    def on(self, dataset: Dataset) -> "Draw":
        """The draw with another data set."""
        own = (dataset.x, dataset.y, dataset.z, dataset.redrawn)
        return self._replace(dataset=dataset, data=tuple(map(jnp.asarray, own)))

    def after(self, job: ensemble.Job, result: training.TrainResult) -> "Draw":
        """The draw with one more training on the way to its masks."""
        free = job.steps is None  # of a fixed number of steps none is the budget
        return self._replace(late=self.late + (free and result.out_of_budget))


# What is done with the mask of a cell: its draw, the cell, the mask, the weights that
# training goes on from. It returns further jobs.
OnMask = Callable[[Draw, Cell, Mask, Params], list[ensemble.Job]]
# What is done with a dense network: its draw, the cells of it, its mask, the result.
OnDense = Callable[[Draw, list[Cell], Mask, training.TrainResult], list[ensemble.Job]]
# What is done with the network trained last under a mask: its mask, the result.
OnTrained = Callable[[Mask, training.TrainResult], list[ensemble.Job]]


class Lab:
    """What all cells share: the set, the network, its training, the pruners."""

    def __init__(
        self, spec: Spec, todo: list[Cell], budget: Budget | None = None
    ) -> None:
        self.spec, self.todo = spec, todo
        self.failures: list[Failure] = []
        self.pool = None if spec.data.name == "gaussian" else _load(spec)
        self.inputs = None  # images are shared by all jobs, which hold rows of them
        if self.pool is None:
            self.input_shape, self.classes = (spec.data.dim,), spec.data.classes
        else:
            self.input_shape = tuple(self.pool.x.shape[1:])
            self.classes = self.pool.classes
            size = len(self.pool.y)
            self.inputs = jnp.asarray(self.pool.x)
            self.rows = self.pool._replace(x=np.arange(size, dtype=np.int32))
            for n in sorted({cell["n"] for cell in todo}):
                if n > size:
                    raise SpecError(
                        f"grid.n holds {n}, expected at most {size}, the training "
                        f"points of {spec.data.name}"
                    )
        self.model = MODELS[spec.model.name](spec.model, self.classes)
        try:
            self.shapes = jax.eval_shape(self.initial, jax.random.key(0))
        except ValueError as error:
            raise SpecError(f"model.name is {spec.model.name!r}: {error}") from error
        self.training, self.shrink = training_of(
            spec, self.model, self.input_shape, budget
        )
        self.prunable = masks.prunable_kernels(self.shapes)
        self.total = masks.prunable_size(self.shapes, self.prunable)
        net = Network(self.model.apply, self.input_shape, spec)
        used = {cell["pruner"] for cell in todo}
        self.score_fns = {
            name: build(net) for name, build in PRUNERS.items() if name in used
        }
        self.score_fns |= dict.fromkeys(TRAINED, scores.magnitude())
        self.inverted = {name: scores.invert(fn) for name, fn in self.score_fns.items()}
        # Small functions are jitted whole: op by op, each op would compile alone.
        self.init = jax.jit(self.initial)
        self.gaussian = jax.jit(data.gaussian, static_argnames=("n", "dim", "classes"))
        self.with_label_noise = jax.jit(data.with_label_noise)
        self.measure = jax.jit(self._derived)
        self.logits = jax.jit(
            lambda params, x: training.logits_in_chunks(
                self.model.apply, params, x, EVALUATED_AT_ONCE
            )
        )

    def initial(self, key: jax.Array) -> Params:
        """Fresh weights."""
        return models.initialize(self.model, key, self.input_shape)

    def key(self, stream: int, seed: int, repeat: int | None = None) -> jax.Array:
        """The key of a stream and a seed, or of one of its repeats."""
        root = jax.random.key(self.spec.seed)
        key = jax.random.fold_in(jax.random.fold_in(root, stream), seed)
        return key if repeat is None else jax.random.fold_in(key, repeat)

    def fail(self, cells: Iterable[Cell], error: Exception) -> None:
        """Keeps what a cell raised; of several times the first."""
        text = f"{type(error).__name__}: {error}"
        failed = [failure.cell for failure in self.failures]
        self.failures += [Failure(cell, text) for cell in cells if cell not in failed]

    def train(
        self, jobs: Iterable[ensemble.Job], total: int | None, *, progress: bool
    ) -> ensemble.Stats:
        """Trains the jobs and those that follow; each job's tag is its ``Task``."""
        _, stats = ensemble.run(
            self.training,
            jobs,
            on_finish=lambda job, result: job.tag.then(result),
            on_error=lambda job, error: self.fail(job.tag.cells, error),
            lanes=self.spec.engine.lanes or None,
            shrink=self.shrink,
            inputs=self.inputs,
            collect=False,
            total=total,
            progress=progress,
        )
        return stats

    def draws(self) -> list[list[Cell]]:
        """The cells, grouped by draw."""
        groups: dict[tuple[Any, ...], list[Cell]] = {}
        for cell in self.todo:
            groups.setdefault(tuple(cell[name] for name in DRAW), []).append(cell)
        return list(groups.values())

    @contextlib.contextmanager
    def reporting(self, cells: list[Cell]) -> Iterator[None]:
        """Keeps an error raised within as the failure of these cells."""
        try:
            yield
        except Exception as error:
            self.fail(cells, error)

    def guarded(
        self, cells: list[Cell], make: Callable[..., list[ensemble.Job]], *args: Any
    ) -> list[ensemble.Job]:
        """The jobs made, or none and a failure of these cells."""
        jobs: list[ensemble.Job] = []
        with self.reporting(cells):
            jobs = make(*args)
        return jobs

    def draw(self, cell: Cell, repeat: int | None = None) -> Draw:
        """The data set and the initial weights of a cell, or one of its repeats."""
        draw = Draw(
            self.init(self.key(INIT, cell["init_seed"], repeat)),
            self.dataset(cell["n"], self.key(DATA, cell["data_seed"], repeat)),
            (),
            self.key(SCORE, cell["train_seed"], repeat),
            self.key(TRAIN, cell["train_seed"], repeat),
            repeat,
        )
        key = self.key(NOISE, cell["data_seed"], repeat)
        return draw.on(self.relabeled(draw.dataset, cell, key))

    def dataset(self, n: int, key: jax.Array) -> Dataset:
        """A set of n points, its labels clean; of images, x is their rows."""
        if self.pool is not None:
            return data.subset(self.rows, n, key)
        spec = self.spec.data
        found: Dataset = self.gaussian(key, n=n, dim=spec.dim, classes=spec.classes)
        return found

    def relabeled(self, dataset: Dataset, cell: Cell, key: jax.Array) -> Dataset:
        """The set with the label noise of a cell."""
        bare: Any = dataset  # the program has no use for inputs
        bare = bare._replace(x=None, x_test=None, y_test=None)
        noisy = self.with_label_noise(bare, key, cell["noise"])
        return dataset._replace(y=noisy.y, redrawn=noisy.redrawn, z=noisy.z)

    def keep(self, cell: Cell) -> Any:
        """How many weights a pruner at initialization keeps after each round."""
        return masks.keep_counts(
            self.total,
            cell["sparsity"],
            rounds=self.spec.prune.rounds.get(cell["pruner"], 1),
            schedule=SCHEDULES[self.spec.prune.schedule],
        )

    def x(self, draw: Draw) -> jax.Array:
        """The inputs of a draw ``[n, ...]``."""
        x: jax.Array = draw.data[0]
        return x if self.inputs is None else self.inputs[x]

    def scorer(self, cell: Cell) -> ScoreFn:
        """The score of a cell's pruner."""
        table = self.inverted if cell["ablation"] == "invert" else self.score_fns
        return table[cell["pruner"]]

    def mask(self, draw: Draw, cell: Cell) -> Mask:
        """The mask of a cell that is pruned at initialization, or the dense one."""
        if cell["pruner"] == "dense":
            return masks.dense_mask(draw.params)
        free = cell["pruner"] in DATA_FREE
        return pruning.prune(
            self.scorer(cell),
            draw.params,
            None if free else (self.x(draw), draw.data[1]),
            draw.score_key,
            keep=self.keep(cell),
            select=SELECTS[cell["select"]],
            prunable=self.prunable,
        )

    def ablated(
        self, draw: Draw, cell: Cell, mask: Mask, start: Params
    ) -> tuple[Mask, Params]:
        """The mask, and the weights to train from, after the ablation of a cell."""
        if cell["ablation"] == "shuffle":
            key = self.key(SHUFFLE, cell["train_seed"], draw.repeat)
            mask = masks.shuffle_within_layers(mask, key, prunable=self.prunable)
        if cell["ablation"] == "reinitialize":
            key = self.key(REINITIALIZE, cell["init_seed"], draw.repeat)
            start = pruning.reinitialize(self.init, mask, key)
        return mask, masks.apply_mask(start, mask)

    def job(
        self, draw: Draw, cell: Cell, mask: Mask, start: Params, then: OnTrained
    ) -> list[ensemble.Job]:
        """The last training of a cell, its ablation applied."""
        mask, start = self.ablated(draw, cell, mask, start)
        task = Task([cell], functools.partial(then, mask))
        return [ensemble.Job(start, mask, draw.data, draw.train_key, tag=task)]

    def derived(
        self, draw: Draw, mask: Mask, result: training.TrainResult
    ) -> dict[str, Any]:
        """The columns that follow from a trained network's metrics; None: undefined."""
        # Sums of labels on the host: n is an argument, and no other n compiles again.
        y, z, redrawn = (np.asarray(part) for part in draw.data[1:])
        power, count = float(np.mean(np.sum(z**2, axis=-1))), int(redrawn.sum())
        sizes = np.float32(len(y)), np.float32(power), np.float32(count)
        measured = self.measure(result.metrics, mask, *sizes)
        return {
            name: None if np.isnan(value) else value.item()
            for name, value in jax.device_get(measured).items()
        }

    def _derived(
        self,
        metrics: training.Metrics,
        mask: Mask,
        n: jax.Array,
        power: jax.Array,
        count: jax.Array,
    ) -> dict[str, jax.Array]:
        """As ``derived``; NaN where they are undefined."""
        accuracy = metrics["redrawn_and_correct"] * n / jnp.maximum(count, 1)
        return {
            "memorized_points": capacity.memorized_points(metrics["accuracy"], n),
            "memorized_bits": capacity.memorized_bits(accuracy, count, self.classes),
            "noise_correlation_normalized": jnp.where(
                power > 0, metrics["noise_correlation"] / power, jnp.nan
            ),
            "collapsed": self.is_collapsed(mask),
        }

    def kept(self, mask: Mask) -> int:
        """How many prunable weights a mask keeps."""
        return int(np.sum(masks.ravel_mask(mask, prunable=self.prunable)))

    def is_collapsed(self, mask: Mask) -> jax.Array:
        """Whether no path from input to output is left."""
        return masks.collapsed(self.model.apply, mask, self.input_shape)

    # Through training

    def trainings(self, through: list[Cell]) -> int:
        """How many networks are trained until all masks of a draw's cells are found."""
        count = bool(through) + bool(through and self.spec.prune.rewind_step)
        return count + sum(len(self.rounds(b)) - 1 for b in self.branches(through))

    def dense_job(
        self,
        draw: Draw,
        through: list[Cell],
        on_mask: OnMask,
        on_dense: OnDense | None = None,
    ) -> list[ensemble.Job]:
        """Trains the dense network of a draw, from which everything else follows.

        Args:
          draw: the data set and the initial weights.
          through: cells of it that come through training.
          on_mask: called with each cell's mask as soon as it is cut.
          on_dense: likewise with the dense network, after what is cut from it.
        """
        mask = masks.dense_mask(draw.params)

        def dense(rewound: Params) -> ensemble.Job:
            def then(result: training.TrainResult) -> list[ensemble.Job]:
                jobs, after = [], draw.after(job, result)
                for branch in self.branches(through):
                    start = (mask, rewound, result.params)
                    rounds = self.rounds(branch)
                    jobs += self.guarded(
                        branch, self.cut, after, branch, on_mask, rounds, *start
                    )
                if on_dense:
                    jobs += on_dense(draw, through, mask, result)
                return jobs

            job = self.round_job(draw, mask, draw.params, Task(through, then))
            return job

        steps = self.spec.prune.rewind_step
        if not steps:
            return [dense(draw.params)]
        task = Task(through, lambda result: [dense(result.params)])
        early = ensemble.Job(
            draw.params, mask, draw.data, draw.train_key, steps=steps, tag=task
        )
        return [early]

    def round_job(
        self, draw: Draw, mask: Mask, start: Params, task: Task
    ) -> ensemble.Job:
        """A training on the way to a mask: of as many epochs as ``round_epochs`` says,
        or to its own end.
        """
        n, epochs = len(draw.data[1]), self.spec.prune.round_epochs
        an_epoch = -(-n // min(self.training.batch_size, n))
        steps = epochs * an_epoch if epochs else None
        return ensemble.Job(start, mask, draw.data, draw.train_key, steps, task)

    def rounds(self, branch: list[Cell]) -> list[pruning.ImpRound]:
        """The trainings of a branch: IMP's, or the dense one alone for magnitude."""
        sparsities = [cell["sparsity"] for cell in branch]
        if branch[0]["pruner"] == "magnitude_trained":
            return pruning.one_shot_round(self.total, sparsities)
        return pruning.imp_rounds(
            self.total, sparsities, keep_per_round=self.spec.prune.imp_keep_per_round
        )

    def branches(self, through: list[Cell]) -> list[list[Cell]]:
        """The cells that share a trajectory beyond the dense training; IMP's first."""

        def trajectory(cell: Cell) -> tuple[str, str, bool]:
            return cell["pruner"], cell["select"], cell["ablation"] == "invert"

        pruned = sorted((c for c in through if c["pruner"] in TRAINED), key=trajectory)
        return [list(group) for _, group in itertools.groupby(pruned, key=trajectory)]

    def cut(
        self,
        draw: Draw,
        branch: list[Cell],
        on_mask: OnMask,
        rounds: list[pruning.ImpRound],
        mask: Mask,
        rewound: Params,
        trained: Params,
    ) -> list[ensemble.Job]:
        """The jobs that follow from one training: the trajectory's next one first."""
        within = functools.partial(
            pruning.prune,
            self.scorer(branch[0]),
            trained,
            select=SELECTS[branch[0]["select"]],
            prunable=self.prunable,
            mask=mask,
        )
        (now, *later), jobs = rounds, []
        if later:
            smaller = within(keep=now.keep)
            rest = [c for c in branch if c["sparsity"] not in now.cuts]
            start = masks.apply_mask(rewound, smaller)

            def then(result: training.TrainResult) -> list[ensemble.Job]:
                after = draw.after(job, result)
                following = (later, smaller, rewound, result.params)
                return self.cut(after, rest, on_mask, *following)

            job = self.round_job(draw, smaller, start, Task(rest, then))
            jobs.append(job)
        for cell in branch:
            if cell["sparsity"] in now.cuts:
                start = trained if cell["resume"] == "finetune" else rewound
                found = within(keep=now.cuts[cell["sparsity"]])
                jobs += self.guarded([cell], on_mask, draw, cell, found, start)
        return jobs


def _load(spec: Spec) -> Dataset:
    return data.load(
        spec.data.name, directory=spec.data.dir, download=spec.data.download
    )
