"""The specification of an experiment: validated settings and their hash.

``Spec.from_config`` is where configuration stops: it takes any nested mapping, checks
every field's name, type and range, and names the field in its errors. The settings of
the network, the set and the question are those of their cards, which are looked up
then; this module loads no JAX.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any, get_origin, get_type_hints

from nfp_jax import questions
from nfp_jax.cards import CardError, fingerprint
from nfp_jax.fields import (
    SpecError,
    build,
    check,
    convert,
    items,
    require,
    settings,
    unknown,
)
from nfp_jax.grid import DENSE, SEEDS, GridSpec
from nfp_jax.groups import (
    MOMENTS,
    DataSpec,
    EngineSpec,
    ModelSpec,
    PruneSpec,
    TrainSpec,
    check_first_look,
)

# Bumped when rows of an old version could no longer stand beside new ones.
FORMAT = 4

# Fields that came later, with the value that stands for what was there before: at that
# value they are left out of the hash, so that directories made before are extended.
ADDED = (("train", "moments", "float32"),)


def defaults() -> dict[str, Any]:
    """Returns every field with its default, nested: what a configuration starts from.

    The settings of all our pruners, networks and sets are among them. One that two
    networks, or two sets, have with other defaults is None: that of the one named.

    >>> defaults()["train"]["batch_size"]
    64
    """
    from nfp_jax import data, models, pruners
    from nfp_jax.cards import settings_of

    plain = dataclasses.asdict(Spec())
    plain |= plain.pop("questions_settings")
    for group, package in (("model", models), ("data", data)):
        del plain[group]["settings"]
        for name in reversed(package.names()):
            plain[group] |= package.settings_of(name)
        plain[group] |= dict.fromkeys(disputed()[group])
    plain["model"] |= models.settings_of(plain["model"]["name"])
    plain["pruners"] = {
        name: settings_of(pruners.card(name).build) for name in pruners.names()
    }
    return plain


def disputed() -> dict[str, dict[str, type]]:
    """Returns the types of the settings that ``defaults()`` has as None, by group.

    >>> disputed()["model"]["width"]
    <class 'int'>
    """
    from nfp_jax import data, models

    found: dict[str, dict[str, type]] = {}
    for group, package in (("model", models), ("data", data)):
        every = [
            x for name in package.names() for x in package.settings_of(name).items()
        ]
        found[group] = {
            name: type(value)
            for name, value in every
            if any(name == other and value != default for other, default in every)
        }
    return found


def _settings_of_questions() -> dict[str, Any]:
    kinds = {name: questions.card(name).settings for name in questions.names()}
    return {name: kind() for name, kind in kinds.items() if kind is not None}


@dataclasses.dataclass(frozen=True)
class Spec:
    """One experiment; its name and hash name the directory of its results."""

    name: str = "experiment"
    out: str = "results"
    seed: int = 0
    question: str = "memorization"  # a folder of nfp_jax/questions
    data: DataSpec = dataclasses.field(default_factory=DataSpec)
    model: ModelSpec = dataclasses.field(default_factory=ModelSpec)
    train: TrainSpec = dataclasses.field(default_factory=TrainSpec)
    prune: PruneSpec = dataclasses.field(default_factory=PruneSpec)
    # The settings of pruners by name, where they are not the defaults of their cards.
    pruners: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    engine: EngineSpec = dataclasses.field(default_factory=EngineSpec)
    grid: GridSpec = dataclasses.field(default_factory=GridSpec)
    # Those of questions, by name: in a configuration a group of each.
    questions_settings: Mapping[str, Any] = dataclasses.field(
        default_factory=_settings_of_questions
    )

    def __post_init__(self) -> None:
        """Completes the settings of the network and the set from their cards."""
        from nfp_jax import data, models

        for group, package in (("data", data), ("model", models)):
            given = getattr(self, group)
            complete = _completed(group, given.name, given.settings, package)
            changed = dataclasses.replace(given, settings=complete)
            object.__setattr__(self, group, changed)

    @property
    def settings(self) -> Any:
        """The settings of its question; None where that has none."""
        return self.questions_settings.get(self.question)

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
        plain = config.to_dict() if hasattr(config, "to_dict") else config
        spec: Spec = build(cls, _grouped(plain))
        _check(spec)
        return spec

    def identity(self) -> dict[str, Any]:
        """Returns what decides a row's numbers, as plain data.

        Defaults are spelt out, but for those of fields that came later (``ADDED``).

        Every field but the grid (more cells extend the same directory), the settings
        of pruners (they are in the rows), the engine, the paths and the download flag;
        the group of the question alone of all questions.
        """
        plain = dataclasses.asdict(self)
        groups = plain.pop("questions_settings")
        for group in ("data", "model"):
            plain[group] |= plain[group].pop("settings")
            if text := fingerprint(plain[group]["name"]):  # of a user's file
                plain[group]["fingerprint"] = text
        del plain["grid"], plain["engine"], plain["out"], plain["pruners"]
        del plain["data"]["dir"], plain["data"]["download"]
        if self.question in groups:
            plain[self.question] = groups[self.question]
        for group, field, default in ADDED:
            if plain[group][field] == default:
                del plain[group][field]
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
    pruner: str = ""  # the name, on its card, of the one that the page is the card of

    @classmethod
    def from_config(cls, config: Any) -> "Collection":
        """Returns the checked collection of a configuration.

        Args:
          config: a nested mapping with ``parts``, of configurations by name, and the
            ``name`` and ``out`` of the whole; or an object with ``to_dict``. The parts
            lie in ``out`` too, each where it would lie if it were run alone. ``shown``
            names the parts, sensitivity runs, whose claims are shown and not judged.
            ``pruner``, a name, a file or ``module:CARD``, is put first in the grid of
            every part, and the page is about it.

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
                unknown(field, known)
        name = convert(plain.get("name", "collection"), str, "name")
        out = convert(plain.get("out", "results"), str, "out")
        _check_name(name)
        _check_out(out)
        given = plain.get("parts")
        if not isinstance(given, Mapping) or not given:
            raise SpecError("parts is empty, expected configurations by name")
        pruner = convert(plain.get("pruner", ""), str, "pruner")
        brought = _brought(pruner)
        parts = {}
        for part, fields in given.items():
            if not isinstance(fields, Mapping):
                raise SpecError(
                    f"parts.{part} is {fields!r}, expected a group of fields"
                )
            try:
                spec = Spec.from_config({**fields, "out": out})
            except SpecError as error:
                raise SpecError(f"parts.{part}.{error}") from error
            parts[part] = _with_pruner(spec, pruner)
        shown = convert(plain.get("shown", ()), tuple[str, ...], "shown")
        for i, part in enumerate(shown):
            require(part in parts, f"shown[{i}]", part, f"one of {', '.join(parts)}")
        if brought:
            name += "-" + re.sub(r"[^\w-]+", "-", brought)
        return cls(name, out, parts, shown, brought)

    def digest(self) -> str:
        """Returns the hash of the parts' names and hashes, and of those that are shown.

        10 hexadecimal digits.
        """
        parts = {name: (part.name, part.digest()) for name, part in self.parts.items()}
        text = json.dumps([parts, sorted(self.shown)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]


def _brought(entry: str) -> str:
    """The name, on its card, of the pruner that a collection is about; "": of none."""
    from nfp_jax import pruners

    try:
        return pruners.card(entry).name if entry else ""
    except CardError as error:
        raise SpecError(f"pruner names {entry!r}: {error}") from error


def _with_pruner(spec: Spec, entry: str) -> Spec:
    """The specification with a pruner first in its grid; "": as it is."""
    if not entry:
        return spec
    others = tuple(x for x in spec.grid.pruner if x != entry)
    grid = dataclasses.replace(spec.grid, pruner=(entry, *others))
    return dataclasses.replace(spec, grid=grid)


def check_field(path: str) -> None:
    """Raises unless a dotted path names a field, as in ``train.batch_size``.

    Of a part of a collection: as in ``parts.swap.train.batch_size``.

    Raises:
      SpecError: lists the known fields of the group where the path goes wrong.

    >>> check_field("train.batch_size")
    """
    if path in ("pruner", "shown"):
        return  # of a collection
    fields = path.split(".")
    # The name of a part is free.
    skipped = 2 if fields[0] == "parts" and len(fields) > 1 else 0
    if not fields[skipped:]:
        return  # a part itself
    first, rest = fields[skipped], fields[skipped + 1 :]
    groups = _settings_of_questions()
    if first in groups:
        known: Any = [field.name for field in dataclasses.fields(groups[first])]
        if rest and rest[0] not in known:
            unknown(".".join(fields[: skipped + 2]), known)
        _check_end_of(fields, skipped + 2)
        return
    kind: Any = Spec
    for depth, field in enumerate(fields[skipped:], skipped):
        types = get_type_hints(kind)
        if field not in types:
            if "settings" in types:  # of a card, looked up with its name
                _check_end_of(fields, depth + 1)
                return
            known = [*_public(types), *(groups if kind is Spec else ())]
            unknown(".".join(fields[: depth + 1]), known)
        kind = types[field]
        if not dataclasses.is_dataclass(kind):
            if get_origin(kind) is not Mapping:  # whose entries are free to name
                _check_end_of(fields, depth + 1)
            return


def _check_end_of(fields: list[str], count: int) -> None:
    """Raises for a path that goes on after ``count`` names, of a field with a value."""
    if len(fields) > count:
        path = ".".join(fields[:count])
        raise SpecError(f"{'.'.join(fields)}: {path} is a field, and no group of them")


def _public(types: Mapping[str, Any]) -> list[str]:
    return [name for name in types if name not in ("questions_settings", "settings")]


def _grouped(config: Any) -> Any:
    """The configuration with the groups of questions, and the settings of cards, in
    one field each.
    """
    if not isinstance(config, Mapping):
        return config  # refused where it is built
    groups = _settings_of_questions()
    plain = {name: value for name, value in config.items() if name not in groups}
    for name in plain:
        if name not in get_type_hints(Spec) or name == "questions_settings":
            unknown(name, [*_public(get_type_hints(Spec)), *groups])
    given = {
        name: build(type(group), config.get(name, {}), name)
        for name, group in groups.items()
    }
    for group, kind in (("data", DataSpec), ("model", ModelSpec)):
        fields = plain.get(group, {})
        if isinstance(fields, Mapping) and "settings" not in fields:
            known = _public(get_type_hints(kind))
            rest = {name: fields[name] for name in fields if name not in known}
            fixed = {name: fields[name] for name in fields if name in known}
            plain[group] = {**fixed, "settings": rest}
    return {**plain, "questions_settings": given}


def _completed(
    group: str, name: str, given: Mapping[str, Any], package: ModuleType
) -> dict[str, Any]:
    """The settings of a card, with its defaults; those of other cards are left out."""
    try:
        known = package.settings_of(name)
    except CardError as error:
        raise SpecError(f"{group}.name names {name!r}: {error}") from error
    others = {x for other in package.names() for x in package.settings_of(other)}
    # In configurations of all fields, those of other cards have their defaults, and
    # disputed ones are None until they are set.
    left_out = others - known.keys() - disputed()[group].keys()
    mine = {
        x: value
        for x, value in given.items()
        if x not in left_out and (value is not None or x not in others)
    }
    return settings(mine, known, group)


def _check(spec: Spec) -> None:
    """Ranges and structure; names are looked up in lab/."""
    _check_name(spec.name)
    _check_out(spec.out)
    train, engine = spec.train, spec.engine
    counts = {
        "train.batch_size": train.batch_size,
        "train.max_epochs": train.max_epochs,
        "train.patience": train.patience,
        "train.settle_from": train.settle_from,
        **items("grid.n", spec.grid.n),
    }
    check(counts, lambda value: value >= 1, "{} >= 1")
    check({**counts, **_numbers(spec)}, lambda value: value < 2**31, "{} < 2^31")
    check(
        {"engine.lanes": engine.lanes, "engine.score_at_once": engine.score_at_once},
        lambda value: value >= 0,
        "{} >= 0, 0 for automatic",
    )
    check(
        {"engine.shrink_from": engine.shrink_from}, lambda value: value >= 0, "{} >= 0"
    )
    seeds = {name: getattr(spec.grid, name) for name in SEEDS}
    check(
        {
            "seed": spec.seed,
            "train.min_epochs": train.min_epochs,
            "train.settle_steps": train.settle_steps,
            "train.decay_steps": train.decay_steps,
            "prune.round_epochs": spec.prune.round_epochs,
            "prune.rewind_step": spec.prune.rewind_step,
            **{
                path: seed
                for name, values in seeds.items()
                for path, seed in items(f"grid.{name}", values).items()
            },
        },
        lambda value: 0 <= value < 2**31,
        "0 <= {} < 2^31",
    )
    check(
        {"train.learning_rate": train.learning_rate},
        lambda value: 0 < value < float("inf"),
        "{} > 0",
    )
    check(
        {"train.moments": train.moments},
        lambda value: value in MOMENTS,
        f"one of {', '.join(map(repr, MOMENTS))}",
    )
    _check_cards(spec)
    _check_grid(spec.grid)
    _check_end(spec)
    if spec.question in questions.names():
        for name in questions.names():  # of others too: a slip is said, not kept
            questions.card(name).check_settings(spec)
        questions.card(spec.question).check(spec)


def _numbers(spec: Spec) -> dict[str, int]:
    """The whole numbers among the settings of the network and the set, by path."""
    found: dict[str, Any] = {}
    for group in ("data", "model"):
        for name, value in getattr(spec, group).settings.items():
            path = f"{group}.{name}"
            found |= items(path, value) if isinstance(value, tuple) else {path: value}
    return {path: value for path, value in found.items() if isinstance(value, int)}


def _check_cards(spec: Spec) -> None:
    """The settings of the network and the set, as their cards check them."""
    from nfp_jax import data, models

    try:
        if card := data.synthetic(spec.data.name):
            card.shape(**spec.data.settings)
        models.build(spec.model.name, 2, **spec.model.settings)
    except SpecError:
        raise
    except ValueError as error:
        raise SpecError(f"model.{error}") from error


def _check_end(spec: Spec) -> None:
    """What ends a training, and the rounds through training."""
    train = spec.train
    check(
        {
            "train.settle_rise": train.settle_rise,
            "train.settle_fall": train.settle_fall,
        },
        lambda value: 0 < value <= 1,
        "0 < {} <= 1",
    )
    if train.stop == "settled":
        check_first_look(train)
    if train.stop == "still" and train.min_epochs != TrainSpec.min_epochs:
        require(  # a default that the budget cuts short is no slip
            train.min_epochs <= train.max_epochs,
            "train.min_epochs",
            train.min_epochs,
            f"at most train.max_epochs, {train.max_epochs}",
        )
    if spec.prune.round_epochs:
        for path, value in items("grid.pruner", spec.grid.pruner).items():
            expected = "no 'dense' where prune.round_epochs ends the dense training"
            require(value != DENSE, path, value, expected)


def _check_name(name: str) -> None:
    plain = name.replace("-", "").replace("_", "").isalnum()
    require(plain, "name", name, "letters, digits, - and _, for a folder's name")


def _check_out(out: str) -> None:
    require(out != "" and "\0" not in out, "out", out, "the path of a folder")


def _check_grid(grid: GridSpec) -> None:
    for field in dataclasses.fields(grid):
        axis = getattr(grid, field.name)
        if axis == ():
            raise SpecError(f"grid.{field.name} is empty, expected at least one value")
    check(
        items("grid.sparsity", grid.sparsity),
        lambda value: 0 <= value < 1,
        "0 <= {} < 1",
    )
    check(
        items("grid.noise", grid.noise), lambda value: 0 <= value <= 1, "0 <= {} <= 1"
    )
    sizes = {name: len(getattr(grid, name)) for name in SEEDS}
    if grid.paired_seeds and len(set(sizes.values())) > 1:
        raise SpecError(
            f"grid.paired_seeds is True and the seeds number {sizes}, expected as many "
            "of each"
        )
