"""What the tests of every question share: specifications, cards, and rows."""

import sys
import types

import pytest

from nfp_jax import experiments, masks, pruners
from nfp_jax.engine.examples import Examples
from nfp_jax.grid import DENSE
from nfp_jax.lab.draws import inputs_of
from nfp_jax.lab.masking import mask_on
from nfp_jax.lab.setup import set_up
from nfp_jax.models import Model
from nfp_jax.pruners.by_score import by_score
from nfp_jax.pruners.contract import Pruner
from nfp_jax.results import row_key
from nfp_jax.spec import Spec

# Of an MLP: the others divide weights among convolutions.
OF_AN_MLP = tuple(
    name for name in pruners.names() if name not in ("smart_ratio", "hybrid_ticket")
)


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


def model_entry(monkeypatch, name, build, **card):
    """Makes a card of a network; returns what ``model.name`` calls it."""
    return _entry(monkeypatch, f"model_{name}", Model(name, build, **card))


def _entry(monkeypatch, name, card):
    module = types.ModuleType(name)
    module.CARD = card
    monkeypatch.setitem(sys.modules, name, module)
    return f"{name}:CARD"


def same_rows(rows, expected):
    """Asserts that rows are those expected, numbers to 1e-4, whatever they took."""
    assert rows.keys() == expected.keys()
    for key, row in rows.items():
        for name, value in row.items():
            if name != "seconds":
                wanted = expected[key][name]
                if isinstance(wanted, float):
                    wanted = pytest.approx(wanted, rel=1e-4, abs=1e-4, nan_ok=True)
                assert value == wanted, (key, name)


# ---- One network after the other: what stacks are compared with


def batch_of(setup, draw):
    """The inputs and the labels of a draw."""
    return inputs_of(setup, draw), draw.labels.y


def examples_of(draw):
    """The data set of a draw as trainings take it."""
    return Examples(draw.points.inputs, draw.points.index, draw.labels)


def make_mask(setup, draw, cell):
    """The mask of a cell that is pruned before training, or the dense one."""
    if cell["pruner"] == DENSE:
        return masks.dense_mask(draw.params)
    x, y = batch_of(setup, draw)
    sees = setup.sees[cell["pruner"]]
    batch = None if sees == "nothing" else (x, None if sees == "inputs" else y)
    return mask_on(setup, draw, cell, batch)
