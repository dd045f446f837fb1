"""What ``nfp --help`` and ``launch.py --help`` print, within a second.

Configurations and the settings of cards are read from their files, not imported, so
that neither JAX nor pandas is loaded.
"""

import ast
import dataclasses
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nfp_jax import configurations, launching, questions
from nfp_jax.spec import Spec

WIDTH, TITLE = 88, 25
# How the settings of the cards in a folder are called.
CARDS = {"data": "data of {}", "models": "model of {}", "pruners": "pruners.{}"}
USAGE = """\
nfp run CONFIG [flags]     or     python launch.py --config=CONFIG [flags]

Runs an experiment: configuration, cells, networks, rows, table, figures, page. The same
command again skips the rows on file. CONFIG is one of those below or a file, with a
preset after a colon: gaussian, gaussian:smoke, configs/gaussian.py:smoke, my_config.py.
"""
FIELDS = """\
Fields and their defaults. A field is set as --config.train.batch_size=32 or
--config.grid.n="(100, 200)", that of a part of a collection as
--config.parts.swap.grid.n="(500,)". The settings of a network or a set stand in their
groups: --config.model.widths="(50, 50)". A pruner, a network or a set of your own is
named by its file or as module:CARD; pruner_card is of --config.pruner=FILE.
"""


def help_text() -> str:
    """Returns the help: how to run, the configurations, the fields, the flags."""
    parts = [USAGE, "Configurations:", *_configurations(), "", FIELDS]
    parts += [_paragraph(group, _set_to(named)) for group, named in fields().items()]
    return "\n".join([*parts, "", "Flags:", *_flags()])


def fields() -> dict[str, dict[str, Any]]:
    """Returns the default of each field, by its group; "" has those of no group.

    The settings of a network or a set stand by themselves, as ``model of mlp``.

    >>> fields()["train"]["batch_size"], fields()["model of mlp"]["widths"]
    (64, (200, 200))
    """
    plain: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for field in dataclasses.fields(Spec):
        if field.default_factory is dataclasses.MISSING:
            plain[field.name] = field.default
        elif field.name not in ("pruners", "questions_settings"):
            groups[field.name] = dataclasses.asdict(field.default_factory())
            groups[field.name].pop("settings", None)
    for folder, title in CARDS.items():
        for path in sorted((Path(__file__).parent / folder).glob("*.py")):
            if settings := _settings_in(path):
                groups[title.format(path.stem)] = settings
    for name in questions.names():
        if (kind := questions.card(name).settings) is not None:
            groups[name] = dataclasses.asdict(kind())
    return {"": plain, **groups}


def _settings_in(path: Path) -> dict[str, Any]:
    """The settings of the card in a file: its builder's keyword-only arguments."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {x.name: x for x in tree.body if isinstance(x, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CARD":
            assert isinstance(node.value, ast.Call)
            # The builder has a keyword, or comes after the name.
            named = [x.value for x in node.value.keywords if x.arg == "build"]
            builder = functions[ast.unparse((named or node.value.args[1:])[0])].args
            pairs = zip(builder.kwonlyargs, builder.kw_defaults, strict=True)
            return {
                argument.arg: ast.literal_eval(default)
                for argument, default in pairs
                if default is not None
            }
    return {}


def _configurations() -> Iterator[str]:
    for name, found in configurations.shipped().items():
        presets = " ".join(f":{preset}" for preset in found.presets)
        yield _paragraph(name, f"{found.summary} {presets}".strip())


def _flags() -> Iterator[str]:
    """Those of the launcher, as absl knows them."""
    for flag in launching.FLAGS.get_key_flags_for_module(launching):
        if flag.name != "config":
            yield _paragraph(f"--{flag.name}", flag.help)


def _set_to(named: Mapping[str, Any]) -> str:
    """Fields with their values, a word each: ``batch_size=64 stop='settled'``."""
    return " ".join(
        f"{name}={value!r}".replace(", ", ",") for name, value in named.items()
    )


def _paragraph(title: str, text: str) -> str:
    """A title and, beside it, a text that is wrapped."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=f"  {title:<{TITLE}} ",
        subsequent_indent=" " * (TITLE + 3),
        break_long_words=False,
        break_on_hyphens=False,
    )
