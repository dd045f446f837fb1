"""The specification of an experiment: validated settings, its cells and its hash.

``Spec.from_config`` is where configuration stops: it takes any nested mapping, checks
every field's name, type and range, and names the field in its errors. Plain Python:
no JAX, none of ours.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

Cell = dict[str, Any]

# Bumped when rows of an old version could no longer stand beside new ones.
FORMAT = 3

# What names a row: two rows with the same coordinates are the same network.
COORDINATES = (
    "pruner",
    "sparsity",
    "n",
    "noise",
    "select",
    "resume",
    "ablation",
    "init_seed",
    "data_seed",
    "train_seed",
)
# Cells that agree on these share one data set and one initialization.
DRAW = ("n", "noise", "init_seed", "data_seed", "train_seed")


def defaults() -> dict[str, Any]:
    """Returns every field with its default, nested: what a configuration starts from.

    >>> defaults()["train"]["batch_size"]
    64
    """
    return dataclasses.asdict(Spec())


class SpecError(ValueError):
    """A configuration that can't be run; one line that names the field."""


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """Which set, and where it lies."""

    name: str = "gaussian"
    dim: int = 50  # gaussian only
    classes: int = 2  # gaussian only
    dir: str | None = None  # None: TFDS's default directory
    download: bool = True


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Which network."""

    name: str = "mlp"
    widths: tuple[int, ...] = (200, 200)
    channels: tuple[int, ...] = (32, 64)  # convnet only
    init: str = "he_normal"


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """How one network is trained."""

    optimizer: str = "adam"  # any name of optax
    learning_rate: float = 1e-3
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    decay_steps: int = 0  # cosine decay to 0 over so many steps; 0: a constant rate
    batch_size: int = 64
    max_epochs: int = 3200  # the budget; a network that uses it up decides no claim
    stop: str = "settled"  # or still, or paper
    # stop="settled": looked at after 2T epochs, T = settle_from, 2 settle_from, …
    settle_from: int = 50
    settle_rise: float = 0.005  # a smaller rise of the accuracy from T to 2T settles
    settle_fall: float = 0.05  # with a smaller fall of the loss, as a fraction of it
    settle_steps: int = 1000  # and never before so many optimizer steps
    patience: int = 3  # stop="still" and "paper"
    min_epochs: int = 10  # stop="still" only


@dataclasses.dataclass(frozen=True)
class PruneSpec:
    """How masks are found."""

    rounds: Mapping[str, int] = dataclasses.field(
        default_factory=lambda: {"snip": 1, "grasp": 1, "synflow": 100}
    )
    schedule: str = "exponential"  # or linear
    grasp_temperature: float = 200.0
    score_chunk: int = 1024  # examples scored at once
    imp_keep_per_round: float = 0.8
    # Epochs of the dense training and of each round of IMP; 0: as train.stop says.
    round_epochs: int = 0
    rewind_step: int = 0


@dataclasses.dataclass(frozen=True)
class InformationSpec:
    """How the information in masks is bounded, where that is the question."""

    datasets: int = 256  # drawn for each cell, K
    conditioning: str = "labels"  # labels redrawn, inputs fixed; or data: all redrawn
    confidence: float = 0.95  # that both ends of an interval hold
    decoded: int = 128  # masks decoded by searching, at most
    exact: bool = False  # try all labelings where they are few and uniform


@dataclasses.dataclass(frozen=True)
class CapacitySpec:
    """What the search for the memorization capacity takes for fitted, and for close.

    A training of the search ends with the share fitted, settled, or at its budget,
    whatever ``train.stop`` says.
    """

    share: float = 0.99  # of the labels fitted, at least
    precision: float = 0.05  # the ends of the search are so close, as a ratio less 1
    max_steps: int = 20_000  # of each training, whatever n; train.max_epochs holds too
    tries: int = 2  # orders of batches tried before an n counts as not fitted


@dataclasses.dataclass(frozen=True)
class SwapSpec:
    """How often a mask's own labels are swapped for others."""

    pairs: int = 6  # independent draws a row, each with labels of its own and others
    confidence: float = 0.95  # of the interval of a gap
    margin: float = 0.02  # of n: a gap within it is "nothing", an equivalence test's


@dataclasses.dataclass(frozen=True)
class RobustnessSpec:
    """How a network's largest slope is looked for, where that is the question."""

    segments: int = 1024  # points between pairs of training points
    ascents: int = 16  # gradient ascents, from the steepest points found
    steps: int = 50  # of each


@dataclasses.dataclass(frozen=True)
class EngineSpec:
    """How the machine is used: speed, and results only through the order of sums."""

    lanes: int = 0  # networks trained at once on a device; 0: see ensemble.run
    score_at_once: int = 0  # networks pruned at once; 0: one on a CPU, else 32
    # A training of so many operations, at most, goes without dead neurons: the programs
    # of smaller networks have to be compiled. 0: always; inf: never.
    shrink_from: float = 2e11


@dataclasses.dataclass(frozen=True)
class GridSpec:
    """The axes whose product is run."""

    pruner: tuple[str, ...] = ("dense",)
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
class Spec:
    """One experiment; its name and hash name the directory of its results."""

    name: str = "experiment"
    out: str = "results"
    seed: int = 0
    question: str = "memorization"  # information, capacity, swap or robustness
    data: DataSpec = DataSpec()
    model: ModelSpec = ModelSpec()
    train: TrainSpec = TrainSpec()
    prune: PruneSpec = PruneSpec()
    information: InformationSpec = InformationSpec()
    capacity: CapacitySpec = CapacitySpec()
    swap: SwapSpec = SwapSpec()
    robustness: RobustnessSpec = RobustnessSpec()
    engine: EngineSpec = EngineSpec()
    grid: GridSpec = GridSpec()

    @classmethod
    def from_config(cls, config: Any) -> "Spec":
        """Returns the checked specification of a configuration.

        Args:
          config: a nested mapping, or an object with ``to_dict`` such as
            ``ml_collections.ConfigDict``. Fields left out take their defaults.

        Raises:
          SpecError: an unknown field (lists the known ones), a wrong type or a value
            out of range, as in ``grid.sparsity[3] is 1.2, expected 0 <= sparsity < 1``.

        >>> Spec.from_config({"grid": {"sparsity": [0.5, 0.9]}}).grid.sparsity
        (0.5, 0.9)
        """
        spec = _build(cls, config.to_dict() if hasattr(config, "to_dict") else config)
        _check(spec)
        return spec

    def identity(self) -> dict[str, Any]:
        """Returns what decides a row's numbers, as plain data, defaults spelt out.

        Every field but the grid (more cells extend the same directory), the engine, the
        paths and the download flag; the group of a question for that question alone.
        """
        plain = dataclasses.asdict(self)
        for group in {"information", "capacity", "swap", "robustness"}:
            if group != self.question:
                del plain[group]
        if self.question == "memorization":  # directories made before there were others
            del plain["question"]
        del plain["grid"], plain["engine"], plain["out"]
        del plain["data"]["dir"], plain["data"]["download"]
        return json.loads(json.dumps({"format": FORMAT, **plain}))

    def digest(self) -> str:
        """Returns the hash of ``identity()``: 10 hexadecimal digits.

        >>> Spec(out="elsewhere").digest() == Spec().digest()
        True
        """
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]


@dataclasses.dataclass(frozen=True)
class Collection:
    """Several experiments that one command runs and one page reads together."""

    name: str
    out: str
    parts: Mapping[str, Spec]
    shown: tuple[str, ...] = ()  # parts whose claims are shown and not judged

    @classmethod
    def from_config(cls, config: Any) -> "Collection":
        """Returns the checked collection of a configuration.

        Args:
          config: a nested mapping with ``parts``, of configurations by name, and the
            ``name`` and ``out`` of the whole; or an object with ``to_dict``. The parts
            lie in ``out`` too, each where it would lie if it were run alone. ``shown``
            names the parts, sensitivity runs, whose claims are shown and not judged.

        Raises:
          SpecError: as ``Spec.from_config``, its field after ``parts.NAME.``; no part.

        >>> config = {"name": "both", "parts": {"a": {}, "b": {"seed": 1}}}
        >>> Collection.from_config(config).parts["b"].seed
        1
        """
        plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
        known = [field.name for field in dataclasses.fields(cls)]
        for field in plain:
            if field not in known:
                _unknown(field, known)
        name = _convert(plain.get("name", "collection"), str, "name")
        out = _convert(plain.get("out", "results"), str, "out")
        _check_name(name)
        given = plain.get("parts")
        if not isinstance(given, Mapping) or not given:
            raise SpecError("parts is empty, expected configurations by name")
        parts = {}
        for part, own in given.items():
            if not isinstance(own, Mapping):
                raise SpecError(f"parts.{part} is {own!r}, expected a group of fields")
            try:
                parts[part] = Spec.from_config({**own, "out": out})
            except SpecError as error:
                raise SpecError(f"parts.{part}.{error}") from error
        shown = _convert(plain.get("shown", ()), tuple[str, ...], "shown")
        for i, part in enumerate(shown):
            _require(part in parts, f"shown[{i}]", part, f"one of {', '.join(parts)}")
        return cls(name, out, parts, shown)

    def digest(self) -> str:
        """Returns the hash of the parts' names and hashes, and of those that are shown.

        10 hexadecimal digits.
        """
        parts = {name: (part.name, part.digest()) for name, part in self.parts.items()}
        text = json.dumps([parts, sorted(self.shown)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]


def check_field(path: str) -> None:
    """Raises unless a dotted path names a field, as in ``train.batch_size``.

    Of a part of a collection: as in ``parts.swap.train.batch_size``.

    Raises:
      SpecError: lists the known fields of the group where the path goes wrong.

    >>> check_field("train.batch_size")
    """
    kind: Any = Spec
    fields = path.split(".")
    # The name of a part is free.
    skipped = 2 if fields[0] == "parts" and len(fields) > 1 else 0
    for depth, field in enumerate(fields[skipped:], skipped):
        if not dataclasses.is_dataclass(kind):
            return  # the entry of a mapping, free to name
        types = get_type_hints(kind)
        if field not in types:
            _unknown(".".join(fields[: depth + 1]), types)
        kind = types[field]


def cells(spec: Spec, *, in_training: Any) -> list[Cell]:
    """Returns the points of the grid, each a flat dict of coordinates, none twice.

    Coordinates that mean nothing for a pruner are blanked, so that no network is
    trained twice under two names: ``resume`` for masks found without training and for
    fresh weights, and everything but ``n``, ``noise`` and the seeds for ``dense``. A
    shuffled mask is always trained from rewound weights: fine-tuned ones are 0 where it
    keeps what the mask removed.

    Args:
      spec: the specification.
      in_training: the names of pruners whose masks come from training.

    >>> spec = Spec(grid=GridSpec(pruner=("dense", "imp"), sparsity=(0.5, 0.9)))
    >>> [(c["pruner"], c["sparsity"]) for c in cells(spec, in_training={"imp"})]
    [('dense', 0.0), ('imp', 0.5), ('imp', 0.9)]
    """
    grid = spec.grid
    axes = (grid.init_seed, grid.data_seed, grid.train_seed)
    seeds = zip(*axes, strict=True) if grid.paired_seeds else itertools.product(*axes)
    found: dict[tuple[Any, ...], Cell] = {}
    for init_seed, data_seed, train_seed in seeds:
        for n, noise, pruner, sparsity, select, resume, ablation in itertools.product(
            grid.n,
            grid.noise,
            grid.pruner,
            grid.sparsity,
            grid.select,
            grid.resume,
            grid.ablation,
        ):
            dense, resumed = pruner == "dense", pruner in in_training
            if ablation == "shuffle":
                resume = "rewind"
            cell = {
                "pruner": pruner,
                "sparsity": 0.0 if dense else sparsity,
                "n": n,
                "noise": noise,
                "select": "" if dense else select,
                "resume": resume if resumed and ablation != "reinitialize" else "",
                "ablation": "" if dense else ablation,
                "init_seed": init_seed,
                "data_seed": data_seed,
                "train_seed": train_seed,
            }
            found.setdefault(tuple(cell.values()), cell)
    return list(found.values())


def share(whole: list[Cell], index: int, count: int, *, in_training: Any) -> list[Cell]:
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
      in_training: the names of pruners whose masks come from training.

    >>> spec = Spec(grid=GridSpec(pruner=("dense", "imp", "snip", "grasp", "random")))
    >>> grid = cells(spec, in_training={"imp"})
    >>> [c["pruner"] for c in share(grid, 0, 2, in_training={"imp"})]
    ['dense', 'imp']
    """

    def unit(cell: Cell) -> tuple[Any, ...]:
        through = cell["pruner"] == "dense" or cell["pruner"] in in_training
        return *(cell[name] for name in DRAW), "" if through else cell["pruner"]

    costs: dict[tuple[Any, ...], int] = {}
    for cell in whole:
        # 2: the presets train 1.7 to 3 networks for a cell that comes through training.
        cost = cell["n"] * (1 if unit(cell)[-1] else 2)
        costs[unit(cell)] = costs.get(unit(cell), 0) + cost
    loads, mine = [0] * count, set()
    for dealt in sorted(costs, key=lambda unit: (-costs[unit], unit)):
        least = loads.index(min(loads))
        loads[least] += costs[dealt]
        if least == index:
            mine.add(dealt)
    return [cell for cell in whole if unit(cell) in mine]


def _build(cls: Any, config: Any, path: str = "") -> Any:
    """A dataclass from a mapping, every field checked by name and type."""
    where = path or "config"
    if not isinstance(config, Mapping):
        raise SpecError(f"{where} is {config!r}, expected a group of fields")
    types = get_type_hints(cls)
    for field in config:
        if field not in types:
            _unknown(f"{path}.{field}" if path else field, types)
    return cls(
        **{
            field: _convert(value, types[field], f"{path}.{field}" if path else field)
            for field, value in config.items()
        }
    )


def _unknown(path: str, known: Iterable[str]) -> NoReturn:
    group = path.rpartition(".")[0] or "the configuration"
    raise SpecError(f"{path} is not a field of {group}; known: {', '.join(known)}")


def _convert(value: Any, kind: Any, path: str) -> Any:
    """A value as the type of its field, or a SpecError that names the field."""
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, path)
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if isinstance(value, str) or not isinstance(value, (tuple, list)):
            raise SpecError(f"{path} is {value!r}, expected a tuple of {item.__name__}")
        return tuple(_convert(v, item, f"{path}[{i}]") for i, v in enumerate(value))
    if get_origin(kind) is Mapping:
        if not isinstance(value, Mapping):
            raise SpecError(f"{path} is {value!r}, expected a group of fields")
        item = get_args(kind)[1]
        return {
            str(name): _convert(v, item, f"{path}.{name}") for name, v in value.items()
        }
    if kind is Any or (value is None and type(None) in get_args(kind)):
        return value
    kinds = tuple(k for k in get_args(kind) or (kind,) if k is not type(None))
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(k.__name__ for k in kinds)
        raise SpecError(f"{path} is {value!r}, expected {names}")
    return value


def _check(spec: Spec) -> None:
    """Ranges and structure; names are looked up in experiments/."""
    _check_name(spec.name)
    for path, value in {
        "data.dim": spec.data.dim,
        "train.batch_size": spec.train.batch_size,
        "train.max_epochs": spec.train.max_epochs,
        "train.patience": spec.train.patience,
        "train.settle_from": spec.train.settle_from,
        "prune.score_chunk": spec.prune.score_chunk,
        **{f"prune.rounds.{name}": count for name, count in spec.prune.rounds.items()},
        **_items(spec, "model", "widths"),
        **_items(spec, "model", "channels"),
        **_items(spec, "grid", "n"),
    }.items():
        _require(value >= 1, path, value, f"{_last(path)} >= 1")
    for path, value in {
        "engine.lanes": spec.engine.lanes,
        "engine.score_at_once": spec.engine.score_at_once,
    }.items():
        _require(value >= 0, path, value, f"{_last(path)} >= 0, 0 for automatic")
    least = spec.engine.shrink_from
    _require(least >= 0, "engine.shrink_from", least, "shrink_from >= 0")
    for path, value in {
        "seed": spec.seed,
        "train.min_epochs": spec.train.min_epochs,
        "train.settle_steps": spec.train.settle_steps,
        "train.decay_steps": spec.train.decay_steps,
        "prune.round_epochs": spec.prune.round_epochs,
        "prune.rewind_step": spec.prune.rewind_step,
        **_items(spec, "grid", "init_seed"),
        **_items(spec, "grid", "data_seed"),
        **_items(spec, "grid", "train_seed"),
    }.items():
        _require(0 <= value < 2**31, path, value, f"0 <= {_last(path)} < 2^31")
    for path, value in {
        "train.learning_rate": spec.train.learning_rate,
        "prune.grasp_temperature": spec.prune.grasp_temperature,
    }.items():
        _require(0 < value < float("inf"), path, value, f"{_last(path)} > 0")
    _require(spec.data.classes >= 2, "data.classes", spec.data.classes, "classes >= 2")
    keep = spec.prune.imp_keep_per_round
    _require(
        0 < keep < 1, "prune.imp_keep_per_round", keep, "0 < imp_keep_per_round < 1"
    )
    for path, value in _items(spec, "grid", "sparsity").items():
        _require(0 <= value < 1, path, value, "0 <= sparsity < 1")
    for path, value in _items(spec, "grid", "noise").items():
        _require(0 <= value <= 1, path, value, "0 <= noise <= 1")
    _check_grid(spec.grid)
    _check_end(spec)
    _check_information(spec)
    _check_controls(spec)


def _check_end(spec: Spec) -> None:
    """What ends a training, and IMP's rounds."""
    train = spec.train
    for path, value in {
        "train.settle_rise": train.settle_rise,
        "train.settle_fall": train.settle_fall,
    }.items():
        _require(0 < value <= 1, path, value, f"0 < {_last(path)} <= 1")
    if train.stop == "settled" or spec.question == "capacity":
        first = 2 * train.settle_from
        expected = f"at least {first}, the first doubling: 2 train.settle_from"
        _require(
            train.max_epochs >= first, "train.max_epochs", train.max_epochs, expected
        )
    if spec.prune.round_epochs:
        for path, value in _items(spec, "grid", "pruner").items():
            expected = "no 'dense' where prune.round_epochs ends the dense training"
            _require(value != "dense", path, value, expected)


def _check_information(spec: Spec) -> None:
    """Its settings, and what of the grid means nothing for that question."""
    own = spec.information
    _require(own.datasets >= 2, "information.datasets", own.datasets, "datasets >= 2")
    _require(own.decoded >= 0, "information.decoded", own.decoded, "decoded >= 0")
    _require(
        0 < own.confidence < 1,
        "information.confidence",
        own.confidence,
        "0 < confidence < 1",
    )
    _require(
        own.conditioning in ("labels", "data"),
        "information.conditioning",
        own.conditioning,
        "'labels' or 'data'",
    )
    if spec.question == "information":
        for path, value in _items(spec, "grid", "pruner").items():
            expected = "a pruner: a dense mask holds no information"
            _require(value != "dense", path, value, expected)
        for path, value in _items(spec, "grid", "ablation").items():
            expected = "'': masks are not ablated for question 'information'"
            _require(value == "", path, value, expected)


def _check_controls(spec: Spec) -> None:
    """The settings of capacity, swap and robustness."""
    share, precision = spec.capacity.share, spec.capacity.precision
    if spec.question == "capacity" and spec.data.name == "gaussian":
        chance = 1 / spec.data.classes
        expected = f"{chance:.3g} < share <= 1, above chance"
        _require(chance < share <= 1, "capacity.share", share, expected)
    _require(0 < share <= 1, "capacity.share", share, "0 < share <= 1")
    _require(precision > 0, "capacity.precision", precision, "precision > 0")
    for path, value in {
        "capacity.max_steps": spec.capacity.max_steps,
        "capacity.tries": spec.capacity.tries,
        "swap.pairs": spec.swap.pairs,
        "robustness.segments": spec.robustness.segments,
        "robustness.ascents": spec.robustness.ascents,
    }.items():
        _require(value >= 1, path, value, f"{_last(path)} >= 1")
    steps, level = spec.robustness.steps, spec.swap.confidence
    _require(steps >= 0, "robustness.steps", steps, "steps >= 0")
    _require(0 < level < 1, "swap.confidence", level, "0 < confidence < 1")
    margin = spec.swap.margin
    _require(0 <= margin <= 1, "swap.margin", margin, "0 <= margin <= 1, a share of n")
    if spec.question == "swap":
        for path, value in _items(spec, "grid", "pruner").items():
            expected = "a pruner: a dense mask holds no information"
            _require(value != "dense", path, value, expected)
        for path, value in _items(spec, "grid", "resume").items():
            expected = "'rewind': trained weights have seen the labels themselves"
            _require(value == "rewind", path, value, expected)
        rewound = spec.prune.rewind_step
        expected = "0: weights of a later step have seen the labels themselves"
        _require(rewound == 0, "prune.rewind_step", rewound, expected)
        for path, value in _items(spec, "grid", "ablation").items():
            expected = "no 'reinitialize': question 'swap' trains both starts"
            _require(value != "reinitialize", path, value, expected)


def _check_name(name: str) -> None:
    plain = name.replace("-", "").replace("_", "").isalnum()
    _require(plain, "name", name, "letters, digits, - and _, for a folder's name")


def _check_grid(grid: GridSpec) -> None:
    for field in dataclasses.fields(grid):
        axis = getattr(grid, field.name)
        if axis == ():
            raise SpecError(f"grid.{field.name} is empty, expected at least one value")
    sizes = {
        name: len(getattr(grid, name))
        for name in ("init_seed", "data_seed", "train_seed")
    }
    if grid.paired_seeds and len(set(sizes.values())) > 1:
        raise SpecError(
            f"grid.paired_seeds is True and the seeds number {sizes}, expected as many "
            "of each"
        )


def _items(spec: Spec, group: str, field: str) -> dict[str, Any]:
    """The entries of a tuple field by their paths."""
    values = getattr(getattr(spec, group), field)
    return {f"{group}.{field}[{i}]": value for i, value in enumerate(values)}


def _last(path: str) -> str:
    return path.rsplit(".", 1)[-1].split("[")[0]


def _require(holds: bool, path: str, value: Any, expected: str) -> None:
    if not holds:
        raise SpecError(f"{path} is {value!r}, expected {expected}")
