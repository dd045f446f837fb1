import functools
import math
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from running import run, spec_of

import nfp_jax as nfp
from nfp_jax import data, experiments, information, masks, scores, training
from nfp_jax.experiments import information as question
from nfp_jax.experiments.lab import DATA, NOISE, Lab
from nfp_jax.results import open_results, row_key
from nfp_jax.spec import Spec

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


def copy(net):
    """Keeps, of weight i and weight n + i, the one that label i names."""

    def score(params, batch=None, key=None, *, mask=None, prunable=None):
        y = batch[1].astype(jnp.float32)
        first = params["params"]["Dense_0"]["kernel"]
        both = jnp.concatenate([y, 1 - y])
        zeros = jax.tree.map(jnp.zeros_like, params)
        flat = jnp.zeros(first.size).at[: len(both)].set(both)
        zeros["params"]["Dense_0"]["kernel"] = flat.reshape(first.shape)
        return zeros

    return score


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
    lab = Lab(spec, [cell])
    draw = lab.draw(cell)
    loss_fn = scores.classification_loss(lab.model.apply)
    own = training.make_training(
        loss_fn,
        optax.adam(0.05),
        metrics_fn=training.classification_metrics(lab.model.apply),
        max_epochs=6,
        stop=training.stop_when_still(patience=3, min_epochs=2),
    )

    def train_fn(params, mask, data, key):
        return training.train(own, params, mask, data, key).params

    for k in (0, 5):
        key = jax.random.fold_in(lab.key(NOISE, 0), k)
        y = data.with_label_noise(draw.dataset, key, 1.0).y
        args = (train_fn, draw.params, (draw.data[0], y), draw.train_key)
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
    five = make_spec(information={"datasets": 5})
    rows, _, stats = run(five, cells, store)
    assert stats.networks == 0 and {row["datasets"] for row in rows.values()} == {5}
    seven = make_spec(information={"datasets": 7})
    (cell,) = (c for c in cells if c["pruner"] == "random" and c["sparsity"] == 0.8)
    before = store.read_masks(cell)
    run(seven, [cell], store)
    assert len(calls[-1][0]) == len(store.read_masks(cell)["masks"]) == 7
    store.write_masks(cell, before)


def test_under_labels_the_noise_alone_is_redrawn_and_under_data_everything():
    spec = make_spec(grid={"noise": (0.5,)})
    (cell,) = experiments.all_cells(spec)
    family = question.Family(Lab(spec, [cell]), cell)
    first, second = family.on(0), family.on(1)
    np.testing.assert_array_equal(first.dataset.x, second.dataset.x)
    np.testing.assert_array_equal(first.dataset.clean, second.dataset.clean)
    assert np.any(first.dataset.y != second.dataset.y)

    spec = make_spec(information={"conditioning": "data"}, grid={"noise": (0.5,)})
    lab = Lab(spec, [cell])
    family = question.Family(lab, cell)
    x, y = family.batch([0, 1])
    for k in (0, 1):
        key = jax.random.fold_in(lab.key(DATA, 0), k)
        whole = data.gaussian(key, 9, 4)
        noise_key = jax.random.fold_in(lab.key(NOISE, 0), k)
        expected = data.with_label_noise(whole, noise_key, 0.5)
        np.testing.assert_array_equal(x[k], expected.x)
        np.testing.assert_array_equal(y[k], expected.y)
        assert family.on(k).params is family.draw.params
    assert np.any(x[0] != x[1])


def test_of_images_other_ones_are_drawn_under_data_and_their_labels_depend():
    changes = {"data": {"name": "digits"}, "grid": {"noise": (0.5,)}}
    spec = make_spec(**changes)
    (cell,) = experiments.all_cells(spec)
    lab = Lab(spec, [cell])
    p = question.label_probabilities(lab, lab.draw(cell), cell)
    # A label is redrawn half of the time, to one of 10.
    np.testing.assert_allclose(np.sort(p), [[0.05] * 9 + [0.55]] * 9)
    lab = Lab(make_spec(**changes, information={"conditioning": "data"}), [cell])
    family = question.Family(lab, cell)
    x, _ = family.batch([0, 1])
    assert x.shape == (2, 9, 8, 8, 1) and np.any(x[0] != x[1])
    assert question.label_probabilities(lab, family.draw, cell) is None


def test_masks_of_resampled_data_are_those_of_the_library(tmp_path):
    spec = make_spec(information={"conditioning": "data", "datasets": 2})
    store = make_store(tmp_path, spec)
    ((_, row),) = run(spec, store=store)[0].items()
    assert row["conditioning"] == "data"
    assert row["label_entropy"] == pytest.approx(9 * math.log(2))
    (cell,) = experiments.all_cells(spec)
    lab = Lab(spec, [cell])
    family = question.Family(lab, cell)
    draw = family.on(1)
    loss_fn = scores.classification_loss(lab.model.apply)
    mask = nfp.prune(nfp.snip(loss_fn), draw.params, draw.data[:2], sparsity=0.5)
    found, _ = on_file(store, spec)
    np.testing.assert_array_equal(found[1], masks.ravel_mask(mask))


def test_all_labelings_give_the_exact_information(monkeypatch, calls, tmp_path):
    monkeypatch.setitem(experiments.PRUNERS, "copy", copy)
    grid = {"pruner": ("copy", "snip"), "sparsity": (0.75,)}  # keeps 9
    spec = make_spec(information={"exact": True}, grid=grid)
    rows, failures, _ = run(spec, store=make_store(tmp_path, spec))
    assert failures == []
    (snip,) = (row for row in rows.values() if row["pruner"] == "snip")
    (own,) = (row for row in rows.values() if row["pruner"] == "copy")
    assert own["information_exact"] == pytest.approx(9 * math.log(2))

    lab = Lab(spec, experiments.all_cells(spec))
    draw = lab.draw(lab.todo[0])
    loss_fn = scores.classification_loss(lab.model.apply)

    def mask_fn(y):
        return nfp.prune(
            nfp.snip(loss_fn), draw.params, (draw.data[0], y), sparsity=0.75
        )

    exact = information.exact_information(mask_fn, 9, at_once=8)
    assert 0 < exact < 9 * math.log(2)
    assert snip["information_exact"] == pytest.approx(exact)

    # The masks that are bounded are those of the labels drawn, as without it.
    found, labels, options = calls[-2]
    sampled = question.Family(Lab(make_spec(), []), lab.todo[0])
    np.testing.assert_array_equal(labels, sampled.labels)
    np.testing.assert_array_equal(found[:, :9], labels == 1)
    assert options["keep"] == 9 and found.sum(axis=1).tolist() == [9] * 6


def test_labelings_are_tried_only_where_they_are_few_and_uniform():
    asked = make_spec(information={"exact": True}).information
    resampled = make_spec(information={"exact": True, "conditioning": "data"})
    assert question.tries_all(asked, 16, 1.0, 2)
    assert not question.tries_all(asked, 17, 1.0, 2)
    assert not question.tries_all(asked, 11, 1.0, 3)
    assert not question.tries_all(asked, 16, 0.5, 2)
    assert not question.tries_all(resampled.information, 16, 1.0, 2)
    assert not question.tries_all(make_spec().information, 16, 1.0, 2)


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
    lab = Lab(spec, [cell])
    family = question.Family(lab, cell)
    assert family.order[:6] == sorted(family.again) == list(range(6))
    packed = np.zeros((12, 5), np.uint8)
    packed[7, 3] = 1
    made = question.Information(lab, print, None).made(family, cell, packed, 1.0, 0)
    assert made.irreproducible == pytest.approx(1 / 6)


def test_cells_that_raise_are_failures_each_once_and_the_others_go_on(monkeypatch):
    def broken(params, batch=None, key=None, *, mask=None, prunable=None):
        return jax.tree.map(lambda p: p * jnp.nan, params)

    monkeypatch.setitem(experiments.PRUNERS, "broken", lambda net: broken)
    spec = make_spec(
        train={"optimizer": "sgd", "learning_rate": 1e30, "batch_size": 2},
        grid={"pruner": ("magnitude_trained", "broken", "random")},
    )
    rows, failures, stats = run(spec)
    assert [row["pruner"] for row in rows.values()] == ["random"]
    assert {f.cell["pruner"] for f in failures} == {"broken", "magnitude_trained"}
    assert len(failures) == 2
    assert all("'params/Dense_0/kernel' are NaN" in f.error for f in failures)
    assert stats.networks < 12  # the other data sets are not trained in vain


@pytest.mark.parametrize("name", ["mask_information", "mask_information_exact"])
@pytest.mark.parametrize("preset", ["", "smoke", "paper"])
def test_the_configurations_are_of_this_question(name, preset):
    path = Path(__file__).parent.parent / "configs" / f"{name}.py"
    spec = Spec.from_config(runpy.run_path(str(path))["get_config"](preset))
    experiments.check_names(spec)
    assert spec.question == "information"
    exact = name == "mask_information_exact"
    tried = (
        question.tries_all(spec.information, n, noise, spec.data.classes)
        for n in spec.grid.n
        for noise in spec.grid.noise
    )
    assert set(tried) == {exact}
