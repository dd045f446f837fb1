"""What the tests of every question share: specifications, cards, and rows."""

import sys
import types

from nfp_jax import experiments
from nfp_jax.lab.setup import set_up
from nfp_jax.models import Model
from nfp_jax.pruners.by_score import by_score
from nfp_jax.pruners.contract import Pruner
from nfp_jax.results import row_key
from nfp_jax.spec import Spec


def spec_of(base, **changes):
    """The specification of a configuration, its groups of fields changed."""
    config = dict(base)
    for group, fields in changes.items():
        config[group] = {**config.get(group, {}), **fields}
    return Spec.from_config(config)


def run(spec, todo=None, store=None, **options):
    """The rows by their keys, the failures, and what the run took."""
    rows = []
    todo = experiments.all_cells(spec) if todo is None else todo
    failures, stats = experiments.run(spec, todo, rows.append, store=store, **options)
    found = {row_key(row): row for row in rows}
    assert len(found) == len(rows)
    return found, failures, stats


def setup_of(spec, todo=None, **options):
    """The set-up of all cells of a specification, or of those given."""
    todo = experiments.all_cells(spec) if todo is None else todo
    return set_up(spec, todo, **options)


def cell_of(spec, **coordinates):
    """The first cell of a specification, with other coordinates."""
    return {**experiments.all_cells(spec)[0], **coordinates}


def pruner_entry(
    monkeypatch, name, score_fn=None, *, build=None, sees="labels", **card
):
    """Makes a card of a score, or of what builds a pruner; returns its grid entry."""
    build = build or (lambda net: by_score(score_fn))
    made = Pruner(name, label=name, sees=sees, build=build, **card)
    return _entry(monkeypatch, f"pruner_{name}", made)


def model_entry(monkeypatch, name, build):
    """Makes a card of a network; returns what ``model.name`` calls it."""
    return _entry(monkeypatch, f"model_{name}", Model(name, build))


def _entry(monkeypatch, name, card):
    module = types.ModuleType(name)
    module.CARD = card
    monkeypatch.setitem(sys.modules, name, module)
    return f"{name}:CARD"
