"""Cells to rows: the main experiment, the only file that knows all the others.

Cells that share n, noise and seeds share a draw: one data set, one initialization. In
a draw the dense training serves the dense row, magnitude after training and the first
round of IMP at every sparsity; one IMP trajectory serves all of its sparsities.
Strings of a configuration are looked up here, in one table a kind; a pruner of your
own is registered in ``PRUNERS``.
"""

import functools
import inspect
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nfp_jax import (
    capacity,
    compaction,
    data,
    ensemble,
    masks,
    models,
    pruning,
    scores,
    training,
)
from nfp_jax.masks import Mask, Params
from nfp_jax.scores import ScoreFn
from nfp_jax.spec import DRAW, Cell, Spec, SpecError, cells

Row = dict[str, Any]


class Network(NamedTuple):
    """What a pruner may be built from.

    Attributes:
      apply_fn: ``apply_fn(params, x) -> logits``.
      input_shape: one example's shape, without the batch.
      spec: the whole specification.
    """

    apply_fn: masks.ApplyFn
    input_shape: tuple[int, ...]
    spec: Spec


def _grasp(net: Network) -> ScoreFn:
    loss_fn = scores.classification_loss(
        net.apply_fn, temperature=net.spec.prune.grasp_temperature
    )
    return scores.grasp(loss_fn, chunk_size=net.spec.prune.score_chunk)


def _snip(net: Network) -> ScoreFn:
    loss_fn = scores.classification_loss(net.apply_fn)
    return scores.snip(loss_fn, chunk_size=net.spec.prune.score_chunk)


# Pruning at initialization: each entry builds a ScoreFn. Register your own here.
PRUNERS: dict[str, Callable[[Network], ScoreFn]] = {
    "random": lambda net: scores.random(),
    "magnitude_init": lambda net: scores.magnitude(),
    "snip": _snip,
    "grasp": _grasp,
    "synflow": lambda net: scores.synflow(net.apply_fn, net.input_shape),
}
# Pruning through training: built from the dense training below.
TRAINED = ("magnitude_trained", "imp")
SELECTS: dict[str, pruning.SelectFn] = {
    "global": masks.top_k,
    "per_layer": masks.top_k_per_layer,
    "erk": masks.top_k_erk,
}
SCHEDULES: dict[str, masks.Schedule] = {
    "exponential": pruning.exponential,
    "linear": pruning.linear,
}
RESUMES = ("rewind", "finetune")
ABLATIONS = ("", "shuffle", "reinitialize", "invert")
MODELS: dict[str, Callable[[Any, int], Any]] = {
    "mlp": lambda model, classes: models.MLP(classes, model.widths, model.init),
    "convnet": lambda model, classes: models.ConvNet(
        classes, model.channels, model.widths, model.init
    ),
}
STOPS: dict[str, Callable[[Any], training.StopFn]] = {
    "still": lambda train: training.stop_when_still(
        patience=train.patience, min_epochs=train.min_epochs
    ),
    "paper": lambda train: training.stop_as_paper(patience=train.patience),
}
# Streams of randomness: a key is fold_in(fold_in(root, stream), seed), so that changing
# the pruner changes neither the initialization nor the data.
INIT, DATA, NOISE, SCORE, TRAIN, SHUFFLE, REINITIALIZE = range(7)


class Failure(NamedTuple):
    """A cell that raised, and what."""

    cell: Cell
    error: str


def check_names(spec: Spec) -> None:
    """Raises for a name in the specification that no table here knows.

    Raises:
      SpecError: names the field and lists the known names.
    """
    optimizers = {
        name
        for name, value in vars(optax).items()
        if not name.startswith(("_", "scale_by"))
        and inspect.isfunction(value)
        and "learning_rate" in inspect.signature(value).parameters
    }
    known = {
        "grid.pruner": (spec.grid.pruner, ("dense", *PRUNERS, *TRAINED)),
        "grid.select": (spec.grid.select, SELECTS),
        "grid.resume": (spec.grid.resume, RESUMES),
        "grid.ablation": (spec.grid.ablation, ABLATIONS),
        "model.name": ((spec.model.name,), MODELS),
        "model.init": ((spec.model.init,), models.INITIALIZERS),
        "train.stop": ((spec.train.stop,), STOPS),
        "train.optimizer": ((spec.train.optimizer,), sorted(optimizers)),
        "prune.schedule": ((spec.prune.schedule,), SCHEDULES),
        "prune.rounds": (tuple(spec.prune.rounds), PRUNERS),
    }
    for field, (names, table) in known.items():
        for name in names:
            if name not in table:
                listed = ", ".join(repr(entry) for entry in table)
                raise SpecError(f"{field} names {name!r}, expected one of {listed}")


def all_cells(spec: Spec) -> list[Cell]:
    """Returns the cells of the grid, each once."""
    return cells(spec, in_training=TRAINED)


def run(
    spec: Spec,
    todo: list[Cell],
    add_row: Callable[[Row], None],
    *,
    progress: bool = False,
) -> tuple[list[Failure], ensemble.Stats]:
    """Trains the networks of the cells and hands over a row for each.

    Args:
      spec: the specification; its grid is not looked at.
      todo: the cells to do, from ``all_cells``.
      add_row: called once a cell, from any thread, as soon as its network is trained.
      progress: whether to show a bar.

    Returns:
      The cells that raised (the others went on), and what the run took.

    Raises:
      SpecError: an ``n`` larger than the set, a network that does not fit its inputs,
        options that the optimizer does not take.
      data.DataError: a set that can't be read or downloaded.
    """
    check_names(spec)
    lab = _Lab(spec, todo, add_row)
    _, stats = ensemble.run(
        lab.training,
        lab.jobs(),
        on_finish=lambda job, result: job.tag.then(result),
        on_error=lambda job, error: lab.fail(job.tag.cells, error),
        lanes=spec.engine.lanes or None,
        shrink=lab.shrink,
        inputs=lab.inputs,
        collect=False,
        total=lab.networks(),
        progress=progress,
    )
    return lab.failures, stats


class _Task(NamedTuple):
    """What a job is for: the cells that need it, and what to do with its result."""

    cells: list[Cell]
    then: Callable[[training.TrainResult], list[ensemble.Job]]


class _Draw(NamedTuple):
    """One data set, one initialization, and the keys of what is done with them."""

    params: Params
    dataset: data.Dataset  # of images: x is their rows in the pool
    data: tuple[Any, ...]  # x, y, z, redrawn: what the training takes
    score_key: jax.Array
    train_key: jax.Array


class _Item(NamedTuple):
    """A cell to prune at initialization, and what its mask is made from."""

    cell: Cell
    draw: _Draw
    keep: Any


class _Lab:
    """What all cells share: the set, the network, its training, the pruners."""

    def __init__(
        self, spec: Spec, todo: list[Cell], add_row: Callable[[Row], None]
    ) -> None:
        self.spec, self.todo, self.add_row = spec, todo, add_row
        self.failures: list[Failure] = []
        self.pool = None if spec.data.name == "gaussian" else _load(spec)
        self.inputs = None  # images are shared by all jobs, which hold rows of them
        if self.pool is None:
            self.input_shape, classes = (spec.data.dim,), spec.data.classes
        else:
            self.input_shape = tuple(self.pool.x.shape[1:])
            classes = self.pool.classes
            size = len(self.pool.y)
            self.inputs = jnp.asarray(self.pool.x)
            self.rows = self.pool._replace(x=np.arange(size, dtype=np.int32))
            for n in sorted({cell["n"] for cell in todo}):
                if n > size:
                    raise SpecError(
                        f"grid.n holds {n}, expected at most {size}, the training "
                        f"points of {spec.data.name}"
                    )
        self.model = MODELS[spec.model.name](spec.model, classes)
        try:
            shapes = jax.eval_shape(self.initial, jax.random.key(0))
        except ValueError as error:
            raise SpecError(f"model.name is {spec.model.name!r}: {error}") from error
        self.training, self.shrink = _training(spec, self.model, self.input_shape)
        self.prunable = masks.prunable_kernels(shapes)
        self.total = masks.prunable_size(shapes, self.prunable)
        cpu = jax.default_backend() == "cpu"
        self.at_once = spec.engine.score_at_once or (1 if cpu else SCORED_AT_ONCE)
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
        self.measure = jax.jit(self.derived)
        self.logits = jax.jit(
            lambda params, x: training.logits_in_chunks(
                self.model.apply, params, x, EVALUATED_AT_ONCE
            )
        )

    def initial(self, key: jax.Array) -> Params:
        return models.initialize(self.model, key, self.input_shape)

    def key(self, stream: int, seed: int) -> jax.Array:
        root = jax.random.key(self.spec.seed)
        return jax.random.fold_in(jax.random.fold_in(root, stream), seed)

    def fail(self, cells: Iterable[Cell], error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        self.failures.extend(Failure(cell, text) for cell in cells)

    # From cells to jobs

    def draws(self) -> list[list[Cell]]:
        """The cells, grouped by draw."""
        groups: dict[tuple[Any, ...], list[Cell]] = {}
        for cell in self.todo:
            groups.setdefault(tuple(cell[name] for name in DRAW), []).append(cell)
        return list(groups.values())

    def networks(self) -> int:
        """How many networks will be trained."""
        count = len(self.todo)
        for group in self.draws():
            through = [cell for cell in group if _through_training(cell)]
            count += bool(through) - any(cell["pruner"] == "dense" for cell in through)
            count += bool(through and self.spec.prune.rewind_step)
            count += sum(len(self.rounds(b)) - 1 for b in self.branches(through))
        return count

    def jobs(self) -> Iterator[ensemble.Job]:
        """The first jobs of all draws, made as they are asked for; chains first."""
        for group in self.draws():
            through = [cell for cell in group if _through_training(cell)]
            if through:
                yield from self.guarded(through, self.dense_job, through)
        sizes: dict[int, list[list[Cell]]] = {}
        for group in self.draws():
            direct = [cell for cell in group if not _through_training(cell)]
            if direct:
                sizes.setdefault(direct[0]["n"], []).append(direct)
        for groups in sizes.values():
            for part in _parts(groups, self.at_once):
                yield from self.direct_jobs(part)

    def direct_jobs(self, groups: list[list[Cell]]) -> Iterator[ensemble.Job]:
        """The jobs of draws of one size, whose cells are pruned at initialization."""
        items: list[_Item] = []
        for group in groups:
            try:
                draw = self.draw(group[0])
                items += [_Item(cell, draw, self.keep(cell)) for cell in group]
            except Exception as error:
                self.fail(group, error)

        def program(item: _Item) -> tuple[str, str, bool]:
            cell = item.cell
            return cell["pruner"], cell["select"], cell["ablation"] == "invert"

        # The sparsest first: they take longest.
        items.sort(key=lambda item: (program(item), -item.cell["sparsity"]))
        for _, same in itertools.groupby(items, key=program):
            for part in _parts(list(same), self.at_once):
                for item, mask in self.prune(part):
                    yield from self.guarded(
                        [item.cell],
                        self.final_job,
                        *(item.draw, item.cell, mask, item.draw.params),
                    )

    def guarded(
        self, cells: list[Cell], make: Callable[..., list[ensemble.Job]], *args: Any
    ) -> list[ensemble.Job]:
        """The jobs made, or none and a failure of these cells."""
        try:
            return make(*args)
        except Exception as error:
            self.fail(cells, error)
            return []

    def draw(self, cell: Cell) -> _Draw:
        """The data set and the initial weights of a cell."""
        n, key = cell["n"], self.key(DATA, cell["data_seed"])
        if self.pool is None:
            spec = self.spec.data
            dataset = self.gaussian(key, n=n, dim=spec.dim, classes=spec.classes)
        else:
            dataset = data.subset(self.rows, n, key)
        noisy = self.with_label_noise(
            dataset._replace(x=None, x_test=None, y_test=None),
            self.key(NOISE, cell["data_seed"]),
            cell["noise"],
        )
        dataset = dataset._replace(y=noisy.y, redrawn=noisy.redrawn, z=noisy.z)
        return _Draw(
            self.init(self.key(INIT, cell["init_seed"])),
            dataset,
            tuple(map(jnp.asarray, (dataset.x, dataset.y, dataset.z, dataset.redrawn))),
            self.key(SCORE, cell["train_seed"]),
            self.key(TRAIN, cell["train_seed"]),
        )

    def keep(self, cell: Cell) -> Any:
        """How many weights a pruner at initialization keeps after each round."""
        return masks.keep_counts(
            self.total,
            cell["sparsity"],
            rounds=self.spec.prune.rounds.get(cell["pruner"], 1),
            schedule=SCHEDULES[self.spec.prune.schedule],
        )

    def prune(self, items: list[_Item]) -> list[tuple[_Item, Mask]]:
        """The masks of items that share a program; those that raise are reported."""
        if not items:
            return []
        cell = items[0].cell
        options: Any = {"select": SELECTS[cell["select"]], "prunable": self.prunable}
        batches = [(self.x(item.draw), item.draw.data[1]) for item in items]
        try:
            if self.at_once == 1:
                (item,), (batch,) = items, batches
                mask = pruning.prune(
                    self.scorer(cell),
                    item.draw.params,
                    batch,
                    item.draw.score_key,
                    keep=item.keep,
                    **options,
                )
                return [(item, mask)]
            parts = [
                (item.draw.params, batch, item.draw.score_key, item.keep)
                for item, batch in zip(items, batches, strict=True)
            ]
            params, batch, key, keep = jax.tree.map(lambda *x: jnp.stack(x), *parts)
            found = pruning.prune_many(
                self.scorer(cell),
                *(params, batch, key),
                keep=keep,
                at_once=self.at_once,
                **options,
            )
        except pruning.NanScores as error:
            self.fail([items[i].cell for i in error.networks], error)
            # The others again: a mask does not depend on its neighbors.
            return self.prune(
                [item for i, item in enumerate(items) if i not in error.networks]
            )
        except Exception as error:
            self.fail([item.cell for item in items], error)
            return []
        return [
            (item, jax.tree.map(operator.itemgetter(i), found))
            for i, item in enumerate(items)
        ]

    def x(self, draw: _Draw) -> jax.Array:
        """The inputs of a draw ``[n, ...]``."""
        x: jax.Array = draw.data[0]
        return x if self.inputs is None else self.inputs[x]

    def scorer(self, cell: Cell) -> ScoreFn:
        table = self.inverted if cell["ablation"] == "invert" else self.score_fns
        return table[cell["pruner"]]

    def dense_job(self, through: list[Cell]) -> list[ensemble.Job]:
        """Trains the dense network of a draw, from which everything else follows."""
        draw = self.draw(through[0])
        mask = masks.dense_mask(draw.params)

        def dense(rewound: Params) -> ensemble.Job:
            def then(result: training.TrainResult) -> list[ensemble.Job]:
                jobs = []
                for branch in self.branches(through):
                    start = (mask, rewound, result.params)
                    rounds = self.rounds(branch)
                    jobs += self.guarded(branch, self.cut, draw, branch, rounds, *start)
                for cell in through:
                    if cell["pruner"] == "dense":
                        self.finish(draw, cell, mask, result)
                return jobs

            task = _Task(through, then)
            return ensemble.Job(draw.params, mask, draw.data, draw.train_key, tag=task)

        steps = self.spec.prune.rewind_step
        if not steps:
            return [dense(draw.params)]
        task = _Task(through, lambda result: [dense(result.params)])
        early = ensemble.Job(
            draw.params, mask, draw.data, draw.train_key, steps=steps, tag=task
        )
        return [early]

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
        draw: _Draw,
        branch: list[Cell],
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
            task = _Task(
                rest,
                lambda result: self.cut(
                    draw, rest, later, smaller, rewound, result.params
                ),
            )
            start = masks.apply_mask(rewound, smaller)
            jobs.append(
                ensemble.Job(start, smaller, draw.data, draw.train_key, tag=task)
            )
        for cell in branch:
            if cell["sparsity"] in now.cuts:
                start = trained if cell["resume"] == "finetune" else rewound
                found = within(keep=now.cuts[cell["sparsity"]])
                jobs += self.guarded([cell], self.final_job, draw, cell, found, start)
        return jobs

    def final_job(
        self, draw: _Draw, cell: Cell, mask: Mask, start: Params
    ) -> list[ensemble.Job]:
        """The last training of a cell, its ablation applied."""
        if cell["ablation"] == "shuffle":
            key = self.key(SHUFFLE, cell["train_seed"])
            mask = masks.shuffle_within_layers(mask, key, prunable=self.prunable)
        if cell["ablation"] == "reinitialize":
            key = self.key(REINITIALIZE, cell["init_seed"])
            start = pruning.reinitialize(self.init, mask, key)

        def then(result: training.TrainResult) -> list[ensemble.Job]:
            self.finish(draw, cell, mask, result)
            return []

        task = _Task([cell], then)
        start = masks.apply_mask(start, mask)
        return [ensemble.Job(start, mask, draw.data, draw.train_key, tag=task)]

    # From results to rows

    def finish(
        self, draw: _Draw, cell: Cell, mask: Mask, result: training.TrainResult
    ) -> None:
        """Hands over the row of a trained network."""
        epochs = int(result.epochs)
        measured = self.measure(result.metrics, mask, draw.data)
        values = {
            name: None if np.isnan(value) else value.item()
            for name, value in jax.device_get(measured).items()
        }
        history = {
            name: entries[:epochs].tolist() for name, entries in result.history.items()
        }
        flags = jax.tree.leaves(self.prunable)
        layers = dict(itertools.compress(masks.named_leaves(mask), flags))
        kept = [int(np.sum(leaf)) for leaf in layers.values()]
        self.add_row(
            {
                **cell,
                **values,
                "train_accuracy": float(result.metrics["accuracy"]),
                "test_accuracy": self.test_accuracy(draw.dataset, result.params),
                "noise_correlation": float(result.metrics["noise_correlation"]),
                "loss": float(result.metrics["loss"]),
                "epochs": epochs,
                "converged": bool(result.converged),
                "diverged": bool(result.diverged),
                "kept": sum(kept),
                "seconds": result.seconds,
                "loss_by_epoch": history["loss"],
                "train_accuracy_by_epoch": history["accuracy"],
                "noise_correlation_by_epoch": history["noise_correlation"],
                "layers": list(layers),
                "kept_by_layer": kept,
                "size_by_layer": [leaf.size for leaf in layers.values()],
            }
        )

    def derived(
        self, metrics: training.Metrics, mask: Mask, data: tuple[Any, ...]
    ) -> dict[str, jax.Array]:
        """The columns that follow from others; NaN where they are undefined."""
        _, y, z, redrawn = data
        power, count = capacity.noise_power(z), jnp.sum(redrawn)
        redrawn_accuracy = (
            metrics["redrawn_and_correct"] * len(y) / jnp.maximum(count, 1)
        )
        return {
            "memorized_points": capacity.memorized_points(metrics["accuracy"], len(y)),
            "memorized_bits": capacity.memorized_bits(
                redrawn_accuracy, count, z.shape[-1]
            ),
            "noise_correlation_normalized": jnp.where(
                power > 0, metrics["noise_correlation"] / power, jnp.nan
            ),
            "collapsed": masks.collapsed(self.model.apply, mask, self.input_shape),
        }

    def test_accuracy(self, dataset: data.Dataset, params: Params) -> float | None:
        if dataset.x_test is None:
            return None
        logits = self.logits(params, dataset.x_test)
        return float(np.mean(np.argmax(logits, axis=-1) == dataset.y_test))


EVALUATED_AT_ONCE = 2048  # examples; bounds the memory of a forward pass
SCORED_AT_ONCE = 32  # networks, on an accelerator


def _parts(whole: list[Any], size: int) -> list[list[Any]]:
    return [whole[i : i + size] for i in range(0, len(whole), size)]


def _load(spec: Spec) -> data.Dataset:
    return data.load(
        spec.data.name, directory=spec.data.dir, download=spec.data.download
    )


def _training(
    spec: Spec, model: Any, input_shape: tuple[int, ...]
) -> tuple[training.Training, ensemble.ShrinkJob | None]:
    """The training of the specification, with the metrics of a row, and what removes
    dead neurons for it, where that changes nothing and pays.
    """
    build = getattr(optax, spec.train.optimizer)
    try:
        optimizer = build(spec.train.learning_rate, **spec.train.options)
    except TypeError as error:
        raise SpecError(f"train.options do not fit the optimizer: {error}") from error
    shrink, apply_fn = None, model.apply
    if math.isfinite(spec.engine.shrink_from):
        if shrink := _shrink(spec, model, input_shape, optimizer):
            apply_fn = models.apply_at_any_width(model)
    loss_fn = scores.classification_loss(apply_fn)

    def batch_loss(params: Params, batch: tuple[Any, ...]) -> jax.Array:
        return loss_fn(params, batch[:2])

    def metrics_fn(params: Params, data: tuple[Any, ...]) -> training.Metrics:
        x, y, z, redrawn = data
        logits = apply_fn(params, x)
        correct = jnp.argmax(logits, axis=-1) == y
        return {
            **training.label_metrics(logits, y),
            "noise_correlation": capacity.noise_correlation(jax.nn.softmax(logits), z),
            "redrawn_and_correct": jnp.mean((correct & redrawn).astype(jnp.float32)),
        }

    own = training.make_training(
        batch_loss,
        optimizer,
        metrics_fn=metrics_fn,
        batch_size=spec.train.batch_size,
        max_epochs=spec.train.max_epochs,
        stop=STOPS[spec.train.stop](spec.train),
        evaluate_at_once=EVALUATED_AT_ONCE,
    )
    return own, shrink


def _shrink(
    spec: Spec, model: Any, input_shape: tuple[int, ...], optimizer: Any
) -> ensemble.ShrinkJob | None:
    """What removes dead neurons from jobs whose training is worth the compiling."""
    try:
        chain = models.layer_chain(model)
        positions = models.layer_positions(model, input_shape)
    except ValueError:  # a network of the user's own
        return None
    if not compaction.keeps_dead_weights(optimizer):
        return None
    small = compaction.make_shrink(
        chain,
        dead_inputs=compaction.is_dead_at_zero(model.activation),
        positions=positions,
    )

    def shrink(job: ensemble.Job) -> compaction.Shrunk | None:
        leaves = dict(masks.named_leaves(job.params))
        sizes = [leaves[f"{layer}/kernel"].size for layer in chain]
        products = sum(n * size for n, size in zip(positions, sizes, strict=True))
        # Two operations a product, forward, and twice as much backward.
        work = 6 * products * len(job.data[1]) * spec.train.max_epochs
        if work < spec.engine.shrink_from:
            return None
        return small(*jax.device_get((job.params, job.mask)))

    return shrink


def _through_training(cell: Cell) -> bool:
    return cell["pruner"] == "dense" or cell["pruner"] in TRAINED
