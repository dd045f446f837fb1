import dataclasses
import functools
import math
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from engines import known_engine, watched_engine
from running import (
    batch_of,
    examples_of,
    make_mask,
    pruner_entry,
    run,
    setup_of,
    spec_of,
)

import nfp_jax as nfp
from nfp_jax import data, experiments, information, masks, scores, training
from nfp_jax.lab.draws import (
    DATA,
    NOISE,
    draw_labels,
    draw_of,
    draw_points,
    inputs_of,
    key_of,
)
from nfp_jax.lab.masking import counts_of
from nfp_jax.pruners.by_score import by_score
from nfp_jax.pruners.contract import MaskUpdate
from nfp_jax.questions.information import family
from nfp_jax.questions.information import run as question
from nfp_jax.results import open_results, row_key
from nfp_jax.spec import Spec, SpecError

# 4·6 + 6·2 = 36 prunable weights.
CONFIG = {
    "name": "test",
    "question": "information",
    "data": {"dim": 4},
    "model": {"widths": (6,)},
    "train": {
        "max_epochs": 6,
        "stop": "still",
        "min_epochs": 2,
        "learning_rate": 0.05,
    },
    "information": {"datasets": 6},
    "grid": {"pruner": ("snip",), "sparsity": (0.5,), "n": (9,)},
}
make_spec = functools.partial(spec_of, CONFIG)

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module", autouse=True)
def calls():
    """What was bounded; the bounds themselves have their own tests."""
    seen = []

    def bounds(found, labels, *, conditioning, confidence, **options):
        seen.append((found, labels, options))
        return information.Interval(
            0.5, 3.0, confidence, len(found), conditioning, "low", "high"
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(information, "mask_information", bounds, raising=False)
        yield seen


def on_file(store, spec, **coordinates):
    """The masks of the one cell with such coordinates, ``bool[sets, P]``."""
    (cell,) = [
        cell
        for cell in experiments.all_cells(spec)
        if coordinates.items() <= cell.items()
    ]
    arrays = store.read_masks(cell)
    return np.unpackbits(arrays["masks"], axis=1, count=36).astype(bool), arrays


def make_store(path, spec):
    return open_results(path, spec.name, spec.digest(), spec.identity())


@pytest.fixture(scope="module")
def everything(one_device, tmp_path_factory):
    spec = make_spec(
        grid={
            "pruner": ("random", "snip", "magnitude_trained", "imp"),
            "sparsity": (0.5, 0.8),
            "resume": ("rewind", "finetune"),
        }
    )
    store = make_store(tmp_path_factory.mktemp("results"), spec)
    return spec, store, run(spec, store=store)


def on(family, k):
    """The draw on set ``k``, as those draw it that make one draw at a time."""
    setup, seed = family.setup, family.cell["data_seed"]
    points = family.draw.points
    if family.resampled:
        key = jax.random.fold_in(key_of(setup, DATA, seed), k)
        points = draw_points(setup, family.cell["n"], key)
    noise_key = jax.random.fold_in(key_of(setup, NOISE, seed), k)
    labels = draw_labels(setup, points, family.cell, noise_key)
    return family.draw._replace(points=points, labels=labels)


def copy(params, batch=None, key=None, *, mask=None, prunable=None):
    """Keeps, of weight i and weight n + i, the one that label i names."""
    y = batch[1].astype(jnp.float32)
    first = params["params"]["Dense_0"]["kernel"]
    both = jnp.concatenate([y, 1 - y])
    zeros = jax.tree.map(jnp.zeros_like, params)
    flat = jnp.zeros(first.size).at[: len(both)].set(both)
    zeros["params"]["Dense_0"]["kernel"] = flat.reshape(first.shape)
    return zeros


def test_every_cell_has_a_row_with_its_interval_and_none_was_retrained(everything):
    spec, _, (rows, failures, stats) = everything
    assert failures == []
    cells = experiments.all_cells(spec)
    assert set(rows) == {row_key(cell) for cell in cells} and len(cells) == 8
    # 6 sets and the 6 made again; 0.8, 0.64, ... , 0.262 after the dense training.
    assert stats.networks == 12 * (1 + 6)
    for row in rows.values():
        kept = masks.keep_count(36, row["sparsity"])
        expected = {
            "information_lower": 0.5,
            "information_upper": 3.0,
            "information_lower_by": "low",
            "information_upper_by": "high",
            "information_exact": None,
            "p_eff_lower": kept + 0.5,
            "p_eff_upper": kept + 3.0,
            "kept": kept,
            "datasets": 6,
            "conditioning": "labels",
            "confidence": 0.95,
            "irreproducible": 0.0,
            "classes": 2,
            "prunable": 36,
            "resume": "",
        }
        assert expected.items() <= row.items()
        assert row["label_entropy"] == pytest.approx(9 * math.log(2))
        assert 0 <= row["collapsed_share"] <= 1
        assert row["seconds"] > 0 and row["bound_seconds"] >= 0
        distinct = row["distinct_masks"]
        assert distinct == 1 if row["pruner"] == "random" else 1 < distinct <= 6


def test_masks_are_those_of_the_library_for_the_same_labels(everything):
    spec, store, _ = everything
    cell = experiments.all_cells(spec)[0]
    setup = setup_of(spec, [cell])
    draw = draw_of(setup, cell)
    loss_fn = scores.classification_loss(setup.model.apply)
    own = training.make_training(
        loss_fn,
        optax.adam(0.05),
        metrics_fn=training.classification_metrics(setup.model.apply),
        max_epochs=6,
        stop=training.stop_when_still(patience=3, min_epochs=2),
    )

    def train_fn(params, mask, data, key):
        return training.train(own, params, mask, data, key).params

    clean = data.gaussian(key_of(setup, DATA, 0), 9, 4)
    for k in (0, 5):
        key = jax.random.fold_in(key_of(setup, NOISE, 0), k)
        x, y = clean.x, data.with_label_noise(clean, key, 1.0).y
        args = (train_fn, draw.params, (x, y), draw.train_key)
        tickets = nfp.magnitude_after_training(*args, sparsities=[0.5, 0.8])
        expected = {
            "imp": nfp.imp(*args, sparsities=[0.5, 0.8]),
            "magnitude_trained": {s: t.mask for s, t in tickets.items()},
            "snip": {
                s: nfp.prune(nfp.snip(loss_fn), draw.params, args[2], sparsity=s)
                for s in (0.5, 0.8)
            },
        }
        for pruner, by_sparsity in expected.items():
            for sparsity, mask in by_sparsity.items():
                found, arrays = on_file(store, spec, pruner=pruner, sparsity=sparsity)
                np.testing.assert_array_equal(arrays["labels"][k], y)
                np.testing.assert_array_equal(found[k], masks.ravel_mask(mask))


def test_a_resumed_run_takes_the_masks_on_file_and_trains_nothing(everything):
    spec, store, (rows, _, _) = everything
    again, failures, stats = run(spec, store=store)
    assert failures == [] and stats.networks == 0
    without = {"bound_seconds": 0}
    assert {k: {**row, **without} for k, row in again.items()} == {
        k: {**row, **without} for k, row in rows.items()
    }


def test_of_more_masks_on_file_the_first_are_taken_and_fewer_are_made_again(
    everything, calls
):
    spec, store, _ = everything
    cells = experiments.all_cells(spec)
    five, seven = (
        dataclasses.replace(make_spec(information={"datasets": count}), grid=spec.grid)
        for count in (5, 7)
    )
    rows, _, stats = run(five, cells, store)
    assert stats.networks == 0 and {row["datasets"] for row in rows.values()} == {5}
    (cell,) = (c for c in cells if c["pruner"] == "random" and c["sparsity"] == 0.8)
    before = store.read_masks(cell)
    run(seven, [cell], store)
    assert len(calls[-1][0]) == len(store.read_masks(cell)["masks"]) == 7
    store.write_masks(cell, before)


def test_under_labels_the_noise_alone_is_redrawn_and_under_data_everything():
    spec = make_spec(grid={"noise": (0.5,)})
    (cell,) = experiments.all_cells(spec)
    setup = setup_of(spec)
    family = question.Family(setup, cell)
    first, second = on(family, 0), on(family, 1)
    np.testing.assert_array_equal(family.labels[:2], [first.labels.y, second.labels.y])
    np.testing.assert_array_equal(inputs_of(setup, first), inputs_of(setup, second))
    np.testing.assert_array_equal(first.points.clean, second.points.clean)
    assert np.any(first.labels.y != second.labels.y)

    spec = make_spec(information={"conditioning": "data"}, grid={"noise": (0.5,)})
    setup = setup_of(spec)
    family = question.Family(setup, cell)
    x, y = family.batch([0, 1], 3)
    for k in (0, 1):
        key = jax.random.fold_in(key_of(setup, DATA, 0), k)
        whole = data.gaussian(key, 9, 4)
        noise_key = jax.random.fold_in(key_of(setup, NOISE, 0), k)
        expected = data.with_label_noise(whole, noise_key, 0.5)
        np.testing.assert_array_equal(x[k], expected.x)
        np.testing.assert_array_equal(y[k], expected.y)
        np.testing.assert_array_equal(family.inputs()[k], expected.x)
        np.testing.assert_array_equal(family.labels[k], expected.y)
    np.testing.assert_array_equal(x[2], x[1])  # filled up
    assert np.any(x[0] != x[1])


def test_of_images_other_ones_are_drawn_under_data_and_their_labels_depend():
    changes = {"data": {"name": "digits"}, "grid": {"noise": (0.5,)}}
    spec = make_spec(**changes)
    (cell,) = experiments.all_cells(spec)
    setup = setup_of(spec)
    p = question.label_probabilities(setup, draw_of(setup, cell), cell)
    # A label is redrawn half of the time, to one of 10.
    np.testing.assert_allclose(np.sort(p), [[0.05] * 9 + [0.55]] * 9)
    setup = setup_of(make_spec(**changes, information={"conditioning": "data"}))
    family = question.Family(setup, cell)
    x, _ = family.batch([0, 1], 3)
    assert x.shape == (3, 9, 8, 8, 1) and np.any(x[0] != x[1])
    for k in (0, 1):
        one = on(family, k)
        np.testing.assert_array_equal(x[k], inputs_of(setup, one))
        np.testing.assert_array_equal(family.labels[k], one.labels.y)
    assert question.label_probabilities(setup, family.draw, cell) is None


def test_masks_of_resampled_data_are_those_of_the_library(tmp_path):
    spec = make_spec(information={"conditioning": "data", "datasets": 2})
    store = make_store(tmp_path, spec)
    ((_, row),) = run(spec, store=store)[0].items()
    assert row["conditioning"] == "data"
    assert row["label_entropy"] == pytest.approx(9 * math.log(2))
    (cell,) = experiments.all_cells(spec)
    setup = setup_of(spec)
    draw = on(question.Family(setup, cell), 1)
    loss_fn = scores.classification_loss(setup.model.apply)
    batch = batch_of(setup, draw)
    mask = nfp.prune(nfp.snip(loss_fn), draw.params, batch, sparsity=0.5)
    found, _ = on_file(store, spec)
    np.testing.assert_array_equal(found[1], masks.ravel_mask(mask))


@pytest.mark.parametrize("datasets", [2, 6])
@pytest.mark.parametrize("conditioning", ["labels", "data"])
@pytest.mark.parametrize("pruner", ["random", "snip", "grasp", "synflow"])
def test_masks_at_initialization_are_made_in_groups_of_one_size_bit_by_bit(
    monkeypatch, pruner, conditioning, datasets
):
    """Those of ``prune_many`` in calls of 5; the sets are no multiple of 5."""
    spec = make_spec(
        engine={"score_at_once": 5},
        information={"conditioning": conditioning, "datasets": datasets},
        grid={"pruner": (pruner,)},
    )
    (cell,) = experiments.all_cells(spec)
    setup, sizes = setup_of(spec), []
    sets = question.Family(setup, cell)

    def watched(setup, cell, params, batch, key, **options):
        sizes.append(len(batch[1]))
        return question_make_group(setup, cell, params, batch, key, **options)

    question_make_group = question.make_group
    monkeypatch.setattr(question, "make_group", watched)
    made = question.Information(setup, print, None).make_direct(sets, cell)
    calls = 2 if pruner in ("random", "synflow") else -(-2 * datasets // 5)
    assert sizes == [5] * calls

    draws = [on(sets, k) for k in sets.order]
    x = jnp.stack([inputs_of(setup, draw) for draw in draws])
    y = jnp.stack([draw.labels.y for draw in draws])
    expected = nfp.prune_many(
        setup.pruner(cell).score_fn,
        sets.draw.params,
        (x if sets.resampled else x[0], y),
        sets.draw.score_key,
        in_axes=(None, (0 if sets.resampled else None, 0), None),
        keep=counts_of(setup, cell),
        at_once=5,
    )
    bits = np.packbits(jax.vmap(masks.ravel_mask)(expected), axis=1)
    np.testing.assert_array_equal(made.masks, bits[:datasets])
    assert made.irreproducible == 0.0 and len(made.labels) == datasets


def test_all_labelings_give_the_exact_information(monkeypatch, calls, tmp_path):
    entry = pruner_entry(monkeypatch, "copy", copy)
    grid = {"pruner": (entry, "snip"), "sparsity": (0.75,)}  # keeps 9
    spec = make_spec(information={"exact": True}, grid=grid)
    rows, failures, _ = run(spec, store=make_store(tmp_path, spec))
    assert failures == []
    (snip,) = (row for row in rows.values() if row["pruner"] == "snip")
    (own,) = (row for row in rows.values() if row["pruner"] == "copy")
    assert own["information_exact"] == pytest.approx(9 * math.log(2))

    setup = setup_of(spec)
    draw = draw_of(setup, setup.todo[0])
    loss_fn, x = scores.classification_loss(setup.model.apply), inputs_of(setup, draw)

    def mask_fn(y):
        return nfp.prune(nfp.snip(loss_fn), draw.params, (x, y), sparsity=0.75)

    exact = information.exact_information(mask_fn, 9, at_once=8)
    assert 0 < exact < 9 * math.log(2)
    assert snip["information_exact"] == pytest.approx(exact)

    # The masks that are bounded are those of the labels drawn, as without it.
    found, labels, options = calls[-2]
    sampled = question.Family(setup_of(make_spec(), []), setup.todo[0])
    np.testing.assert_array_equal(labels, sampled.labels)
    np.testing.assert_array_equal(found[:, :9], labels == 1)
    assert options["keep"] == 9 and found.sum(axis=1).tolist() == [9] * 6


def test_labelings_are_tried_only_where_they_are_few_and_uniform():
    asked = make_spec(information={"exact": True}).settings
    resampled = make_spec(information={"exact": True, "conditioning": "data"})
    assert family.tries_all(asked, 16, 1.0, 2)
    assert not family.tries_all(asked, 17, 1.0, 2)
    assert not family.tries_all(asked, 11, 1.0, 3)
    assert not family.tries_all(asked, 16, 0.5, 2)
    assert not family.tries_all(resampled.settings, 16, 1.0, 2)
    assert not family.tries_all(make_spec().settings, 16, 1.0, 2)


@pytest.mark.parametrize("epochs", [0, 2])
def test_trainings_out_of_budget_on_the_way_to_masks_are_counted(tmp_path, epochs):
    """Of two sets and both made again; rounds of a fixed length have no budget."""
    never = {"stop": "settled", "settle_from": 3, "settle_steps": 10**6}
    spec = make_spec(
        train={**never, "learning_rate": 1e-6},
        prune={"round_epochs": epochs},
        information={"datasets": 2},
        grid={"pruner": ("random", "magnitude_trained", "imp")},
    )
    store = make_store(tmp_path, spec)
    rows, failures, stats = run(spec, store=store)
    assert failures == []
    count = {row["pruner"]: row["out_of_budget"] for row in rows.values()}
    assert stats.networks > 8 and stats.networks % 4 == 0
    some = {"random": 0, "magnitude_trained": 4, "imp": stats.networks}
    assert count == (some if epochs == 0 else dict.fromkeys(some, 0))
    again, _, _ = run(spec, store=store)  # from the masks on file
    assert {row["pruner"]: row["out_of_budget"] for row in again.values()} == count


def test_masks_that_come_out_different_are_counted():
    spec = make_spec()
    (cell,) = experiments.all_cells(spec)
    setup = setup_of(spec)
    family = question.Family(setup, cell)
    assert family.order[:6] == sorted(family.again) == list(range(6))
    packed = np.zeros((12, 5), np.uint8)
    packed[7, 3] = 1
    made = question.Information(setup, print, None).made(family, cell, packed, 1.0, 0)
    assert made.irreproducible == pytest.approx(1 / 6)


def test_cells_that_raise_are_failures_each_once_and_the_others_go_on(monkeypatch):
    def broken(params, batch=None, key=None, *, mask=None, prunable=None):
        return jax.tree.map(lambda p: p * jnp.nan, params)

    entry = pruner_entry(monkeypatch, "broken", broken)
    spec = make_spec(
        train={"optimizer": "sgd", "learning_rate": 1e30, "batch_size": 2},
        grid={"pruner": ("magnitude_trained", entry, "random")},
    )
    rows, failures, stats = run(spec)
    assert [row["pruner"] for row in rows.values()] == ["random"]
    assert {f.cell["pruner"] for f in failures} == {"broken", "magnitude_trained"}
    assert len(failures) == 2
    assert all("'params/Dense_0/kernel' are NaN" in f.error for f in failures)
    assert stats.networks < 12  # the other data sets are not trained in vain


MOVED = 2  # weights an epoch


def evolve(net):
    """SET: after each epoch the smallest weights go and as many others come, drawn.

    Reference: Mocanu et al. 2018, https://arxiv.org/abs/1707.04383, algorithm 1.
    """

    def update(key, params, mask, gradient_fn, epoch):
        kept = masks.ravel_mask(mask).sum()
        left = masks.top_k(nfp.magnitude()(params), kept - MOVED, mask=mask)
        removed = jax.tree.map(jnp.logical_not, mask)
        drawn = nfp.random()(params, key=jax.random.fold_in(key, epoch))
        grown = masks.top_k(drawn, MOVED, mask=removed)
        return key, jax.tree.map(jnp.logical_or, left, grown)

    return MaskUpdate(by_score(nfp.random()), lambda params, mask, key: key, update)


@pytest.fixture(scope="module")
def evolving(one_device):
    """The specification of a pruner that moves masks during training, and of others."""
    with pytest.MonkeyPatch.context() as patch:
        entry = pruner_entry(
            patch, "evolving", build=evolve, sees="training", when="during"
        )
        yield make_spec(
            information={"datasets": 3}, grid={"pruner": ("random", entry, "snip")}
        )


def test_a_mask_that_moves_is_in_its_row_as_it_is_at_the_end(evolving):
    """And those of other pruners in the same grid stay."""
    spec = dataclasses.replace(evolving, question="memorization")
    engine, seen = watched_engine()
    rows, failures, stats = run(spec, engine=engine)
    assert failures == [] and stats.networks == len(seen) == len(rows) == 3
    for job, result in seen:
        (cell,) = job.tag.cells
        row = rows[row_key(cell)]
        before, after = (masks.ravel_mask(m) for m in (job.mask, result.mask))
        differ = int(np.sum(before != after))
        assert row["kept"] == sum(row["kept_by_layer"]) == after.sum() == 18
        assert (
            row["kept_by_layer"][0] == result.mask["params"]["Dense_0"]["kernel"].sum()
        )
        if cell["pruner"] == "evolving":
            assert 0 < differ <= 2 * MOVED * row["epochs"] and differ % 2 == 0
        else:
            assert differ == 0
        for name, kernel in masks.named_leaves(result.params):
            outside = ~np.asarray(dict(masks.named_leaves(result.mask))[name])
            assert np.all(np.asarray(kernel)[outside] == 0)
    plain = dataclasses.replace(spec, grid=make_spec(grid={"pruner": ("snip",)}).grid)
    ((key, alone),) = run(plain)[0].items()
    assert {**alone, "seconds": 0} == {**rows[key], "seconds": 0}


def test_of_a_mask_that_moves_the_one_at_the_end_is_bounded(evolving, calls, tmp_path):
    store, before = make_store(tmp_path, evolving), len(calls)
    rows, failures, stats = run(evolving, store=store)
    assert failures == [] and len(rows) == len(calls) - before == 3
    assert stats.networks == 2 * 3  # each data set twice, and of this pruner alone
    (row,) = (row for row in rows.values() if row["pruner"] == "evolving")
    assert row["kept"] == 18 and row["irreproducible"] == 0.0
    assert row["distinct_masks"] == 3
    found, _ = on_file(store, evolving, pruner="evolving")
    bounded, _, options = next(
        call for call in calls[before:] if np.array_equal(call[0], found)
    )
    assert bounded.sum(axis=1).tolist() == [18] * 3 and options["keep"] == 18
    assert len(options["decoders"]) == 1  # a search can't run the training in its loop

    cells = [c for c in experiments.all_cells(evolving) if c["pruner"] == "evolving"]
    setup = setup_of(evolving, cells)
    family = question.Family(setup, cells[0])
    for k in range(3):
        draw = on(family, k)
        start = make_mask(setup, draw, cells[0])  # of no data: the same for all
        assert np.any(found[k] != masks.ravel_mask(start))
        trained = training.train(
            setup.training, draw.params, start, examples_of(draw), draw.train_key
        )
        np.testing.assert_array_equal(found[k], masks.ravel_mask(trained.mask))

    again, failures, stats = run(evolving, store=store)  # from the masks on file
    assert failures == [] and stats.networks == 0 and set(again) == set(rows)


def test_labels_of_a_mask_that_moves_are_not_swapped(evolving):
    """Before anything is trained, for the other pruners too."""
    spec = dataclasses.replace(evolving, question="swap")
    engine, jobs = known_engine(print)
    message = "grid.pruner has 'evolving', expected masks that stay during training for"
    with pytest.raises(SpecError, match=message):
        run(spec, engine=engine)
    assert jobs == []


@pytest.mark.parametrize("name", ["mask_information", "mask_information_exact"])
@pytest.mark.parametrize("preset", ["", "smoke", "paper"])
def test_the_configurations_are_of_this_question(name, preset):
    path = Path(__file__).parent.parent / "configs" / f"{name}.py"
    spec = Spec.from_config(runpy.run_path(str(path))["get_config"](preset))
    experiments.check_names(spec)
    assert spec.question == "information"
    exact = name == "mask_information_exact"
    tried = (
        family.tries_all(spec.settings, n, noise, spec.data.settings["classes"])
        for n in spec.grid.n
        for noise in spec.grid.noise
    )
    assert set(tried) == {exact}


def preset_of(name):
    path = Path(__file__).parent.parent / "configs" / "mask_information.py"
    return Spec.from_config(runpy.run_path(str(path))["get_config"](name))


def test_n_over_k_takes_the_same_values_by_n_and_by_the_weights_kept():
    grid = preset_of("scaling").grid
    total = 50 * 200 + 200 * 200 + 200 * 2
    kept = [masks.keep_count(total, sparsity) for sparsity in grid.sparsity]
    at_n = sorted(200 / k for k in kept)
    at_k = sorted(n / 252 for n in grid.n)
    assert 200 in grid.n and 252 in kept
    assert at_n == pytest.approx(at_k, rel=0.01)  # 100.8 weights are 101
    assert at_n == pytest.approx([0.02, 0.2, 0.8, 2.0], rel=0.01)


def test_every_mask_of_the_default_and_of_scaling_is_decoded():
    """Interval and decoder rest on the same masks: K stands for both."""
    for name in ("", "scaling", "thousand"):
        asked = preset_of(name).settings
        assert asked.decoded == asked.datasets >= 32
    grid = preset_of("").grid
    assert 1000 in grid.n and {0.9, 0.98} == set(grid.sparsity)
