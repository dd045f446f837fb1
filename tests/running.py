"""What the tests of every question share: a changed specification, and its rows."""

from nfp_jax import experiments
from nfp_jax.results import row_key
from nfp_jax.spec import Spec


def spec_of(base, **changes):
    """The specification of a configuration, its groups of fields changed."""
    config = dict(base)
    for group, fields in changes.items():
        config[group] = {**config.get(group, {}), **fields}
    return Spec.from_config(config)


def run(spec, todo=None, store=None):
    """The rows by their keys, the failures, and what the run took."""
    rows = []
    todo = experiments.all_cells(spec) if todo is None else todo
    failures, stats = experiments.run(spec, todo, rows.append, store=store)
    found = {row_key(row): row for row in rows}
    assert len(found) == len(rows)
    return found, failures, stats
