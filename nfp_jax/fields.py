"""Fields of a configuration: their types and ranges, and errors that name them."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import numpy as np


class SpecError(ValueError):
    """A configuration that can't be run; one line that names the field."""


def build(cls: Any, config: Any, path: str = "") -> Any:
    """Returns a dataclass made from a mapping, every field checked by name and type.

    Raises:
      SpecError: an unknown field (lists the known ones), or a wrong type.
    """
    where = path or "config"
    if not isinstance(config, Mapping):
        raise SpecError(f"{where} is {config!r}, expected a group of fields")
    types = get_type_hints(cls)
    for field in config:
        if field not in types:
            unknown(f"{path}.{field}" if path else field, types)
    return cls(
        **{
            field: convert(value, types[field], f"{path}.{field}" if path else field)
            for field, value in config.items()
        }
    )


def unknown(path: str, known: Iterable[str]) -> NoReturn:
    """Raises for a field that is not known; lists the known ones."""
    group = path.rpartition(".")[0] or "the configuration"
    raise SpecError(f"{path} is not a field of {group}; known: {', '.join(known)}")


def convert(value: Any, kind: Any, path: str) -> Any:
    """Returns a value as the type of its field.

    Raises:
      SpecError: another type; names the field.
    """
    if dataclasses.is_dataclass(kind):
        return build(kind, value, path)
    if isinstance(value, np.generic):  # a scalar of NumPy is taken as Python's
        value = value.item()
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if isinstance(value, str) or not isinstance(value, (tuple, list)):
            raise SpecError(f"{path} is {value!r}, expected a tuple of {item.__name__}")
        return tuple(convert(v, item, f"{path}[{i}]") for i, v in enumerate(value))
    if get_origin(kind) is Mapping:
        if not isinstance(value, Mapping):
            raise SpecError(f"{path} is {value!r}, expected a group of fields")
        item = get_args(kind)[1]
        return {
            str(name): convert(v, item, f"{path}.{name}") for name, v in value.items()
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


def settings(
    given: Mapping[str, Any], defaults: Mapping[str, Any], path: str
) -> dict[str, Any]:
    """Returns the settings of a card: those given, of the types of their defaults.

    Raises:
      SpecError: an unknown setting (lists the known ones), or a wrong type.

    >>> settings({"rounds": 3}, {"rounds": 1, "schedule": "linear"}, "pruners.snip")
    {'rounds': 3, 'schedule': 'linear'}
    """
    for name in given:
        if name not in defaults:
            unknown(f"{path}.{name}", defaults)
    return {
        name: convert(given[name], _kind_of(default), f"{path}.{name}")
        if name in given
        else default
        for name, default in defaults.items()
    }


def _kind_of(default: Any) -> Any:
    """The type of a field with this default."""
    if isinstance(default, tuple):
        entry: Any = type(default[0]) if default else Any
        return tuple.__class_getitem__((entry, ...))
    return Any if default is None else type(default)


def items(path: str, values: Iterable[Any]) -> dict[str, Any]:
    """Returns the entries of a tuple field by their paths.

    >>> items("grid.n", (100, 200))
    {'grid.n[0]': 100, 'grid.n[1]': 200}
    """
    return {f"{path}[{i}]": value for i, value in enumerate(values)}


def require(holds: bool, path: str, value: Any, expected: str) -> None:
    """Raises unless it holds: what the field is, and what was expected."""
    if not holds:
        raise SpecError(f"{path} is {value!r}, expected {expected}")


def check(values: Mapping[str, Any], holds: Any, expected: str) -> None:
    """Raises for the first of these fields, by path, whose value does not hold.

    ``expected`` says what was, with ``{}`` for the field's name.

    >>> check({"train.batch_size": 64}, lambda size: size >= 1, "{} >= 1")
    """
    for path, value in values.items():
        name = path.rsplit(".", 1)[-1].split("[")[0]
        require(bool(holds(value)), path, value, expected.format(name))
