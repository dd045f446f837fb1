"""Cards: the one place where a pruner, a network or a synthetic set is declared.

A card's settings are the keyword-only arguments of the function that builds from it;
their defaults give their types. Cards are found by the name of their module, or, a
user's, in a file (``my/fisher.py``) or a module (``package.module:CARD``). Nothing here
knows what a card is of.
"""

import functools
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

_IN_MODULE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class CardError(ValueError):
    """A card that can't be had, or a setting that it does not take."""


def settings_of(build: Callable[..., Any]) -> dict[str, Any]:
    """Returns the settings of a function with their defaults: its keyword-only ones.

    Raises:
      CardError: one of them has no default.

    >>> settings_of(lambda net, *, rounds=1, schedule="exponential": None)
    {'rounds': 1, 'schedule': 'exponential'}
    """
    found = {}
    for name, parameter in inspect.signature(build).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            if parameter.default is inspect.Parameter.empty:
                raise CardError(f"{name} has no default, expected one of every setting")
            found[name] = parameter.default
    return found


@functools.cache
def names_in(package: str) -> tuple[str, ...]:
    """Returns the names of a package's modules that have a card, sorted."""
    path = importlib.import_module(package).__path__
    modules = sorted(module.name for module in pkgutil.iter_modules(path))
    return tuple(
        name
        for name in modules
        if hasattr(importlib.import_module(f"{package}.{name}"), "CARD")
    )


def is_path(name: str) -> bool:
    """Returns whether it names a file or a module of the user's.

    >>> is_path("snip"), is_path("my/fisher.py"), is_path("package.module:CARD")
    (False, True, True)
    >>> is_path("emnist/letters:3.1.0")  # an image set, with its version
    False
    """
    return name.endswith(".py") or bool(_IN_MODULE.fullmatch(name))


def find(name: str, package: str, kind: type) -> Any:
    """Returns the card of a name, of a file or of a module.

    Args:
      name: a module of ``package``; the path of a file that has a ``CARD``; or an
        importable ``module:NAME``.
      package: where the names are looked for.
      kind: what the card must be.

    Raises:
      CardError: there is none (lists the known names), or it is of another kind.
    """
    if not is_path(name):
        known = names_in(package)
        if name not in known:
            raise CardError(f"expected one of {', '.join(map(repr, known))}")
        module, attribute = importlib.import_module(f"{package}.{name}"), "CARD"
    else:
        module, attribute = _module_of(name)
    card = getattr(module, attribute, None)
    if not isinstance(card, kind):
        raise CardError(
            f"{name} has {attribute} = {card!r}, expected a {kind.__name__}"
        )
    return card


def fingerprint(name: str) -> str:
    """Returns 8 hexadecimal digits of a user's file: another text, another print.

    Empty for a name of ours, and for a module that has no file.

    Raises:
      CardError: the file or module can't be found.
    """
    if not is_path(name):
        return ""
    module, _ = _module_of(name)
    file = getattr(module, "__file__", None)
    if file is None:
        return ""
    source = Path(file).read_bytes()
    return hashlib.sha256(source).hexdigest()[:8]


def _module_of(name: str) -> tuple[ModuleType, str]:
    """The module of a user's card, and the attribute that it has there."""
    if name.endswith(".py"):
        path = Path(name).absolute()
        if not path.is_file():
            raise CardError(f"there is no file {name}")
        return _load(path, path.stat().st_mtime_ns), "CARD"
    module, _, attribute = name.partition(":")
    try:
        return importlib.import_module(module), attribute
    except ImportError as error:
        raise CardError(f"{module} can't be imported: {error}") from error


@functools.cache
def _load(path: Path, changed: int) -> ModuleType:
    """The module in a file; loaded anew where the file has changed."""
    name = f"nfp_jax_file_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    # A user's file may raise anything, and end the program.
    except (Exception, SystemExit) as error:
        raise CardError(f"{path} raises {type(error).__name__}: {error}") from error
    return module
