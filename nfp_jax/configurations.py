"""The configurations that come with the package, found by name and read, not run.

They are the files of ``configs/``: beside the package in a checkout, within it where a
wheel was installed. Loads no JAX and no configuration.
"""

import ast
import functools
import importlib.util
import sys
from pathlib import Path
from typing import NamedTuple

from nfp_jax.fields import SpecError

_INSTALLED = Path(__file__).parent / "configs"
FOLDER = _INSTALLED if _INSTALLED.is_dir() else _INSTALLED.parent.parent / "configs"


class Configuration(NamedTuple):
    """A configuration's file.

    Attributes:
      path: of the file.
      text: its docstring.
      presets: the names of its presets, but for the default's.
    """

    path: Path
    text: str
    presets: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return self.text.partition("\n")[0]


@functools.cache
def shipped() -> dict[str, Configuration]:
    """Returns the configurations that come with the package, by name, sorted.

    >>> shipped()["gaussian"].presets
    ('smoke', 'controls', 'binding', 'paper')
    """
    files = {path.stem: _read(path) for path in sorted(FOLDER.glob("*.py"))}
    return {name: found for name, found in files.items() if found is not None}


def _read(path: Path) -> Configuration | None:
    """What a file says of itself; None where it has no ``PRESETS``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(
            node.value, ast.Dict
        ):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if [getattr(target, "id", "") for target in targets] == ["PRESETS"]:
                keys = [ast.literal_eval(key) for key in node.value.keys if key]
                presets = tuple(key for key in keys if key)
                return Configuration(path, ast.get_docstring(tree) or "", presets)
    return None


def find(text: str) -> str:
    """Returns the file of a configuration, with the preset after a colon.

    Args:
      text: a file, ``my_config.py:smoke``; or one that comes with the package, as
        ``gaussian:smoke`` or ``configs/gaussian.py:smoke``. A file goes before it.

    Raises:
      SpecError: neither; lists those that come with the package.

    >>> find("gaussian:smoke") == f"{FOLDER / 'gaussian.py'}:smoke"
    True
    """
    name, colon, preset = text.partition(":")
    if Path(name).is_file():
        return text
    for known, configuration in shipped().items():
        if name in (known, f"{known}.py", f"configs/{known}.py"):
            return f"{configuration.path}{colon}{preset}"
    raise SpecError(
        f"--config is {name!r}, which is no file, and none of {', '.join(shipped())}"
    )


def make_importable() -> None:
    """Makes our folder the package ``configs``, which configurations import.

    ``from configs.start import defaults`` then works wherever the file lies, also a
    user's. Another package ``configs`` that was imported before stays.
    """
    if "configs" in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        "configs", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = sys.modules["configs"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
