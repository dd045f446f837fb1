"""Draws, masks and networks of many cells at once, against those of one cell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import make_mask, pruner_entry, run, setup_of, spec_of

import nfp_jax as nfp
from nfp_jax.engine.examples import padded_size
from nfp_jax.lab import each
from nfp_jax.lab.draws import REINITIALIZE, SHUFFLE, draw_of, inputs_of, key_of
from nfp_jax.lab.stacked import Stacks
from nfp_jax.losses import first_of, mean_loss
from nfp_jax.masks import sparse_aware
from nfp_jax.questions.memorization.run import Memorization
from nfp_jax.results import open_results
from nfp_jax.trees import named_leaves

pytestmark = pytest.mark.usefixtures("one_device")

BASE = {
    "data": {"name": "gaussian", "dim": 6},
    "model": {"widths": (12, 8)},
    "train": {"max_epochs": 8, "settle_from": 4, "settle_steps": 0, "batch_size": 16},
    "prune": {},
    "grid": {
        "pruner": ("random", "magnitude_init", "snip", "grasp", "synflow"),
        "sparsity": (0.5, 0.8),
        "n": (17, 40, 64),
        "select": ("global", "per_layer"),
    },
    "pruners": {"synflow": {"rounds": 4}},
    "engine": {},
}


def make_spec(**changes):
    return spec_of(BASE, **changes)


def stacks_of(spec, size):
    return Stacks(setup_of(spec_of(vars_of(spec), engine={"score_at_once": size})))


def vars_of(changes):
    return {group: {**BASE[group], **changes.get(group, {})} for group in BASE}


def same(found, expected):
    for (path, a), (_, b) in zip(
        named_leaves(found), named_leaves(expected), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=path)


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("name", ["gaussian", "digits"])
def test_a_stack_of_draws_is_each_draw_padded_to_the_largest(name, size):
    stacks = stacks_of({"data": {"name": name}, "grid": {"noise": (0.3,)}}, size)
    setup = stacks.setup
    cells = [cell for cell in setup.todo if cell["pruner"] == "random"][::4][:size]
    draws = stacks.draws(cells)
    for row, cell in enumerate(cells):
        draw = draw_of(setup, cell)
        params, dense, keys = jax.tree.map(
            lambda leaf, row=row: leaf[row],
            (draws.params, draws.dense, (draws.score_key, draws.train_key)),
        )
        same(params, draw.params)
        assert all(leaf.all() for leaf in jax.tree.leaves(dense))
        same(
            [jax.random.key_data(key) for key in keys],
            [jax.random.key_data(key) for key in (draw.score_key, draw.train_key)],
        )
        points = stacks.points(cell["n"], draws, row)
        np.testing.assert_array_equal(points.x, inputs_of(setup, draw))
        np.testing.assert_array_equal(points.y, draw.labels.y)
        np.testing.assert_array_equal(points.z, draw.labels.z)


@pytest.mark.parametrize("size", [1, 6])
@pytest.mark.parametrize("pruner", BASE["grid"]["pruner"])
def test_few_programs_make_the_masks_of_every_n_and_selection_bit_by_bit(pruner, size):
    stacks = stacks_of({"grid": {"pruner": (pruner,)}}, size)
    todo = stacks.setup.todo
    assert len(todo) == 12
    for start in range(0, 12, size):
        cells = todo[start : start + size]
        sizes = [cell["n"] for cell in cells]
        found, nans = stacks.masks(cells, stacks.draws(cells), sizes)
        assert not np.any(nans)
        for row, cell in enumerate(cells):
            one = jax.tree.map(lambda leaf, row=row: leaf[row], found)
            same(one, make_mask(stacks.setup, draw_of(stacks.setup, cell), cell))
    # Of draws, and of masks; one by one those that see data have one a padded size.
    sizes = {padded_size(n, 16) for n in BASE["grid"]["n"]}
    alone = size == 1 and pruner in ("snip", "grasp")
    assert len(stacks.programs) == 1 + (len(sizes) if alone else 1)
    assert all(program.fn._cache_size() == 1 for program in stacks.programs.values())


def test_a_pruner_that_takes_no_padded_batch_gets_its_own_points(monkeypatch):
    """A card says whether it does; a program for each n, then."""
    seen = []

    def score(params, batch=None, key=None, *, mask=None, prunable=None):
        x, y = batch
        seen.append((x.shape, y.shape))
        return jax.tree.map(lambda w: w * jnp.mean(x), params)

    entry = pruner_entry(monkeypatch, "own", score)
    stacks = stacks_of({"grid": {"pruner": (entry,), "n": (17, 40)}}, 2)
    for n in (17, 40):
        cells = [cell for cell in stacks.setup.todo if cell["n"] == n][:2]
        found, _ = stacks.masks(cells, stacks.draws(cells), [n, n])
        one = jax.tree.map(lambda leaf: leaf[1], found)
        same(one, make_mask(stacks.setup, draw_of(stacks.setup, cells[1]), cells[1]))
    assert {shapes for shapes in seen} == {((n, 6), (n,)) for n in (17, 40)}


@pytest.mark.parametrize("size", [1, 3])
def test_ablations_of_a_stack_are_those_of_each_cell(size):
    grid = {
        "pruner": ("snip",),
        "ablation": ("", "shuffle", "reinitialize", "rescale"),
        "n": (40,),
    }
    stacks = stacks_of({"grid": grid}, size)
    setup = stacks.setup
    for ablation in grid["ablation"]:
        cells = [cell for cell in setup.todo if cell["ablation"] == ablation][:size]
        draws = stacks.draws(cells)
        mask, _ = stacks.masks(cells, draws, [cell["n"] for cell in cells])
        found = stacks.ablated(cells, mask, draws.params)
        for row, cell in enumerate(cells):
            draw = draw_of(setup, cell)
            mask, params = make_mask(setup, draw, cell), draw.params
            if ablation == "shuffle":
                key = key_of(setup, SHUFFLE, cell["train_seed"])
                mask = nfp.shuffle_within_layers(mask, key, prunable=setup.prunable)
            if ablation == "reinitialize":
                key = key_of(setup, REINITIALIZE, cell["init_seed"])
                params = nfp.reinitialize(setup.init, mask, key)
            if ablation == "rescale":
                params = sparse_aware(params, mask)
            one, start = jax.tree.map(lambda leaf, row=row: leaf[row], found)
            same(one, mask)
            same(nfp.apply_mask(start, one), nfp.apply_mask(params, mask))


def test_examples_that_do_not_count_add_nothing_whatever_the_chunks():
    loss = nfp.classification_loss(lambda w, x: x @ w)
    key = jax.random.key(0)
    w, x = jax.random.normal(key, (3, 2)), jax.random.normal(key, (24, 3))
    y = jnp.arange(24) % 2
    counted = first_of((x, y), 11)
    alone = loss(w, (x[:11], y[:11]))
    np.testing.assert_allclose(mean_loss(loss, w, counted), alone, rtol=1e-6)
    for make in (nfp.snip, lambda loss, **x: nfp.grasp(loss, **x)):
        soft = nfp.classification_loss(lambda w, x: x @ w, temperature=200)
        expected = make(soft)(w, (x[:11], y[:11]))
        for chunk in (None, 24, 8, 5):
            found = make(soft, chunk_size=chunk)(w, counted)
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-12)


ALL_OF_IT = {
    "prune": {"rewind_step": 3},
    "grid": {
        "pruner": ("dense", "imp", "magnitude_trained", "snip"),
        "n": (17, 40),
        "select": ("global",),
        "resume": ("rewind", "finetune"),
        "ablation": ("", "shuffle"),
        "init_seed": (0, 1),
    },
}


def test_lanes_make_the_rows_of_one_lane():
    """Rewound and fine-tuned, as found and shuffled, of two sizes; losses to sums in
    another order.
    """
    one, failures, _ = run(make_spec(**ALL_OF_IT))
    assert failures == []
    lanes = {"lanes": 4, "score_at_once": 3}
    many, failures, stats = run(make_spec(**ALL_OF_IT, engine=lanes))
    assert failures == [] and set(many) == set(one) and stats.networks > len(one)
    for name, row in one.items():
        other = many[name]
        assert row["kept_by_layer"] == other["kept_by_layer"]
        assert row["epochs"] == other["epochs"]
        for column in ("loss", "noise_correlation_normalized", "memorized_bits"):
            np.testing.assert_allclose(row[column], other[column], atol=1e-4)
        assert row["out_of_budget"] == other["out_of_budget"]


def test_networks_that_took_long_with_other_seeds_come_first(tmp_path):
    """Those of which nothing is known before them, the sparsest first."""
    grid = {"pruner": ("random",), "sparsity": (0.5, 0.7, 0.8, 0.9), "n": (17,)}
    spec = make_spec(grid={**grid, "select": ("global",)})
    rows = {row["sparsity"]: row for row in run(spec)[0].values()}
    store = open_results(tmp_path, "run", "ab12", {})
    known = {0.5: 7, 0.8: 3}
    store.write([{**rows[x], "epochs": epochs} for x, epochs in known.items()])
    others = setup_of(
        make_spec(grid={**grid, "select": ("global",), "init_seed": (1,)})
    )
    networks = Memorization(others, print, store=store).networks()
    order = [stack.tags[0].cells[0]["sparsity"] for stack in networks]
    assert order == [0.9, 0.7, 0.5, 0.8]


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_dense_network_that_diverges_fails_what_is_cut_from_it_alone(lanes):
    train = {"optimizer": "sgd", "learning_rate": 1e30, "batch_size": 8}
    grid = {"pruner": ("dense", "random", "imp"), "n": (17,), "select": ("global",)}
    spec = make_spec(train=train, grid=grid, engine={"lanes": lanes})
    rows, failures, _ = run(spec)
    assert {row["pruner"] for row in rows.values()} == {"dense", "random"}
    assert all(row["diverged"] for row in rows.values() if row["pruner"] == "dense")
    assert {failure.cell["pruner"] for failure in failures} == {"imp"}
    assert len(failures) == 2
    assert all("scores at 'params/Dense_0" in failure.error for failure in failures)


def test_where_memory_runs_out_stacks_become_smaller_and_no_cell_fails(
    monkeypatch, caplog
):
    """At every step of the way; draws, masks, cuts and ablations are the same."""
    changes = {**ALL_OF_IT, "engine": {"lanes": 4, "score_at_once": 8}}
    whole, failures, _ = run(make_spec(**changes))
    assert failures == []
    call, sizes = each.Once.__call__, []

    def full_above_two(self, *arguments):
        found = call(self, *arguments)
        sizes.append(len(jax.tree.leaves(found)[0]))
        if sizes[-1] > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return found

    monkeypatch.setattr(each.Once, "__call__", full_above_two)
    rows, failures, _ = run(make_spec(**changes))
    assert failures == [] and set(rows) == set(whole)
    assert max(sizes) == 8 and sizes[-1] == 2
    assert caplog.text.count("out of memory: 4 networks in a stack") == 1
    assert caplog.text.count("out of memory: 2 networks in a stack") == 1
    for key, row in whole.items():
        assert rows[key]["kept_by_layer"] == row["kept_by_layer"]
        np.testing.assert_allclose(rows[key]["loss"], row["loss"], atol=1e-4)


def test_one_network_that_does_not_fit_fails_its_cells(monkeypatch):
    def full(self, *arguments):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(each.Once, "__call__", full)
    grid = {"pruner": ("snip",), "n": (17,), "select": ("global",)}
    lanes = {"lanes": 2, "score_at_once": 2}
    rows, failures, _ = run(make_spec(grid=grid, engine=lanes))
    assert rows == {} and len(failures) == 2
    assert all("RESOURCE_EXHAUSTED" in failure.error for failure in failures)


def test_synflow_in_one_round_is_warned_of_once_a_run():
    """By the host: the program that makes masks can't warn."""
    grid = {"pruner": ("synflow",), "n": (17,), "sparsity": (0.5, 0.6, 0.7, 0.8)}
    spec = make_spec(grid=grid, pruners={"synflow": {"rounds": 1}})
    with pytest.warns(UserWarning) as caught:
        _, failures, _ = run(spec)
    assert failures == []
    assert ["pass rounds=100" in str(warning.message) for warning in caught] == [True]
