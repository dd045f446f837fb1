import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import (
    OF_AN_MLP,
    cell_of,
    examples_of,
    make_mask,
    pruner_entry,
    run,
    setup_of,
    spec_of,
)

import nfp_jax as nfp
from nfp_jax import (
    capacity,
    data,
    experiments,
    masks,
    models,
    scores,
    training,
)
from nfp_jax.engine.examples import Padded
from nfp_jax.engine.jobs import rows_of
from nfp_jax.engine.stacks import job_of
from nfp_jax.fields import SpecError
from nfp_jax.lab import columns, draws
from nfp_jax.lab.draws import draw_of, inputs_of
from nfp_jax.lab.jobs import Step
from nfp_jax.lab.stacked import Stacks
from nfp_jax.questions.memorization.run import (
    Memorization,
    count_networks,
    kept_epochs,
)
from nfp_jax.results import row_key

CONFIG = {
    "name": "test",
    "data": {"dim": 6},
    "model": {"widths": (12, 12)},
    "train": {"max_epochs": 12, "learning_rate": 0.01, "stop": "still"},
    "pruners": {
        "synflow": {"rounds": 5},
        "ntk_sap": {"rounds": 3, "examples": 8},
        "edge_popup": {"steps": 20},
        "gem_miner": {"steps": 20, "every": 6},
        "rigl": {"every": 2, "until": 8},
        "set": {"every": 2, "until": 8},
    },
    "grid": {
        "pruner": ("dense", *OF_AN_MLP),
        "sparsity": (0.5, 0.8),
        "n": (40,),
        "init_seed": (3,),
        "data_seed": (4,),
        "train_seed": (5,),
    },
}
make_spec = functools.partial(spec_of, CONFIG)

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def everything(one_device):
    return run(make_spec())


def only(rows, **coordinates):
    (row,) = [
        row
        for row in rows.values()
        if all(row[name] == value for name, value in coordinates.items())
    ]
    return row


def key(stream, seed, root=0):
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(root), stream), seed)


def draw(n=40, noise=1.0):
    """The network and data of the one draw, by hand from the documented draws."""
    model = models.MLP(2, (12, 12))
    params = models.initialize(model, key(draws.INIT, 3), (6,))
    dataset = data.gaussian(key(draws.DATA, 4), n, 6)
    return (
        model,
        params,
        data.with_label_noise(dataset, key(draws.NOISE, 4), noise),
    )


def trained(model, params, mask, dataset):
    made = training.make_training(
        scores.classification_loss(model.apply),
        optax.adam(0.01),
        metrics_fn=training.classification_metrics(model.apply),
        max_epochs=12,
        stop=training.stop_when_still(),
    )
    return training.train(
        made, params, mask, (dataset.x, dataset.y), key(draws.TRAIN, 5)
    )


def test_every_cell_has_its_row_and_none_failed(everything):
    rows, failures, stats = everything
    assert failures == []
    assert set(rows) == {row_key(cell) for cell in experiments.all_cells(make_spec())}
    # Two sparse rows of each pruner, the dense one, and IMP's rounds at 0.8 to 0.262.
    assert stats.networks == 2 * len(OF_AN_MLP) + 1 + 6 + 1


def test_the_announced_number_of_networks_is_the_number_trained(everything):
    assert count_networks(setup_of(make_spec())) == everything[2].networks
    grown = make_spec(
        prune={"rewind_step": 2},
        grid={
            "pruner": ("imp", "magnitude_trained"),
            "select": ("global", "per_layer"),
            "resume": ("rewind", "finetune"),
            "ablation": ("", "shuffle", "reinitialize", "invert"),
        },
    )
    cells = experiments.all_cells(grown)
    rows, failures, stats = run(grown)
    assert failures == [] and len(rows) == len(cells)
    assert count_networks(setup_of(grown)) == stats.networks


@pytest.mark.parametrize("sparsity", [0.5, 0.8])
def test_a_row_of_snip_is_what_the_library_gives_by_hand(everything, sparsity):
    model, params, dataset = draw()
    loss_fn = scores.classification_loss(model.apply)
    mask = nfp.prune(
        nfp.snip(loss_fn), params, (dataset.x, dataset.y), sparsity=sparsity
    )
    result = trained(model, params, mask, dataset)
    row = only(everything[0], pruner="snip", sparsity=sparsity)
    assert row["train_accuracy"] == pytest.approx(float(result.metrics["accuracy"]))
    assert row["loss"] == pytest.approx(float(result.metrics["loss"]), abs=1e-5)
    assert row["epochs"] == int(result.epochs) == len(row["loss_by_epoch"])
    assert row["kept"] == masks.keep_count(12 * 6 + 144 + 24, sparsity)
    assert row["kept_by_layer"] == [
        int(mask["params"][f"Dense_{i}"]["kernel"].sum()) for i in range(3)
    ]
    logits = model.apply(result.params, dataset.x)
    correlation = capacity.noise_correlation(jax.nn.softmax(logits), dataset.z)
    assert row["noise_correlation"] == pytest.approx(float(correlation), abs=1e-5)
    power = float(capacity.noise_power(dataset.z))
    assert row["noise_correlation_normalized"] == pytest.approx(
        float(correlation) / power, abs=1e-4
    )
    assert row["noise_correlation_by_epoch"][-1] == row["noise_correlation"]
    assert row["memorized_points"] == pytest.approx(40 * row["train_accuracy"])
    bits = float(capacity.memorized_bits(row["train_accuracy"], 40, 2))
    assert row["memorized_bits"] == pytest.approx(bits, abs=1e-4)
    assert row["test_accuracy"] is None and not row["collapsed"] and not row["diverged"]


def test_rows_of_imp_and_magnitude_share_trainings_with_the_library(everything):
    """The experiment's queue of follow-up jobs against the library's sequential imp."""
    model, params, dataset = draw()

    def train_fn(params, mask, data, key):
        return trained(model, params, mask, dataset).params

    tickets = {
        "imp": nfp.imp_tickets(
            train_fn, params, None, jax.random.key(0), sparsities=[0.5, 0.8]
        ),
        "magnitude_trained": nfp.magnitude_after_training(
            train_fn, params, None, jax.random.key(0), sparsities=[0.5, 0.8]
        ),
    }
    for pruner, found in tickets.items():
        for sparsity, ticket in found.items():
            result = trained(model, params, ticket.mask, dataset)
            row = only(everything[0], pruner=pruner, sparsity=sparsity)
            assert row["loss"] == pytest.approx(float(result.metrics["loss"]), abs=1e-5)
            assert row["kept"] == int(masks.ravel_mask(ticket.mask).sum())


def test_a_row_does_not_depend_on_which_other_cells_are_run(everything):
    spec = make_spec()
    for pruner in ("imp", "magnitude_trained", "synflow"):
        alone = [
            cell
            for cell in experiments.all_cells(spec)
            if cell["pruner"] == pruner and cell["sparsity"] == 0.5
        ]
        rows, _, _ = run(spec, alone)
        (row,) = rows.values()
        expected = everything[0][row_key(alone[0])]
        assert {**row, "seconds": 0} == {**expected, "seconds": 0}


def test_finetune_goes_on_from_the_trained_weights_and_rewind_from_the_step():
    spec = make_spec(
        prune={"rewind_step": 3},
        grid={
            "pruner": ("magnitude_trained",),
            "sparsity": (0.5,),
            "resume": ("rewind", "finetune"),
        },
    )
    rows, failures, _ = run(spec)
    assert failures == []
    model, params, dataset = draw()
    dense = masks.dense_mask(params)
    late = trained(model, params, dense, dataset).params
    made = training.make_training(
        scores.classification_loss(model.apply),
        optax.adam(0.01),
        metrics_fn=training.classification_metrics(model.apply),
    )
    early = training.train(
        made, params, dense, (dataset.x, dataset.y), key(draws.TRAIN, 5), steps=3
    ).params
    mask = nfp.prune(nfp.magnitude(), late, sparsity=0.5)
    for resume, start in (("rewind", early), ("finetune", late)):
        expected = trained(model, start, mask, dataset)
        row = only(rows, resume=resume)
        assert row["loss"] == pytest.approx(float(expected.metrics["loss"]), abs=1e-5)


def test_ablations_do_what_they_say():
    spec = make_spec(
        grid={
            "pruner": ("magnitude_init",),
            "sparsity": (0.8,),
            "ablation": ("", "shuffle", "reinitialize", "invert"),
        }
    )
    rows, _, _ = run(spec)
    model, params, dataset = draw()
    mask = nfp.prune(nfp.magnitude(), params, sparsity=0.8)
    shuffled = nfp.shuffle_within_layers(mask, key(draws.SHUFFLE, 5))
    inverted = nfp.prune(nfp.invert(nfp.magnitude()), params, sparsity=0.8)
    fresh = models.initialize(model, key(draws.REINITIALIZE, 3), (6,))
    for ablation, start, cut in (
        ("", params, mask),
        ("shuffle", params, shuffled),
        ("reinitialize", fresh, mask),
        ("invert", params, inverted),
    ):
        expected = trained(model, start, cut, dataset)
        row = only(rows, ablation=ablation)
        assert row["loss"] == pytest.approx(float(expected.metrics["loss"]), abs=1e-5)


def test_sets_of_different_n_and_noise_are_nested(everything):
    spec = make_spec()
    cell = experiments.all_cells(spec)[0]
    setup = setup_of(spec, [cell])
    large, small = (draw_of(setup, {**cell, "n": n}) for n in (40, 10))
    parts = [(*draw.points, *draw.labels) for draw in (large, small)]
    for a, b in zip(*parts, strict=True):
        np.testing.assert_array_equal(a[:10], b)
    less = draw_of(setup, {**cell, "noise": 0.3})
    assert np.all(np.asarray(large.labels.redrawn) >= np.asarray(less.labels.redrawn))


def test_masks_made_one_by_one_are_those_of_the_library():
    """Also of pruners that get no data here, but do where many are made at once."""
    names = ("dense", "random", "magnitude_init", "synflow", "snip")
    setup = setup_of(make_spec(grid={"pruner": names, "ablation": ("", "invert")}))
    for pruner, ablation in (
        ("random", ""),
        ("magnitude_init", "invert"),
        ("synflow", ""),
        ("snip", ""),
        ("snip", "invert"),
    ):
        cell = next(
            cell
            for cell in setup.todo
            if (cell["pruner"], cell["sparsity"], cell["ablation"])
            == (pruner, 0.8, ablation)
        )
        draw = draw_of(setup, cell)
        score_fn = setup.pruners[pruner].score_fn
        expected = nfp.prune(
            nfp.invert(score_fn) if ablation else score_fn,
            draw.params,
            (inputs_of(setup, draw), draw.labels.y),
            draw.score_key,
            sparsity=0.8,
            rounds=5 if pruner == "synflow" else 1,
        )
        found = make_mask(setup, draw, cell)
        np.testing.assert_array_equal(
            masks.ravel_mask(found), masks.ravel_mask(expected)
        )
        kept = masks.ravel_mask(found, prunable=setup.prunable)
        assert int(kept.sum()) == masks.keep_count(240, 0.8)
    dense = make_mask(setup, draw, {**cell, "pruner": "dense"})
    assert int(masks.ravel_mask(dense, prunable=setup.prunable).sum()) == 240


@pytest.mark.parametrize("size", [1, 3])
def test_columns_that_follow_from_metrics_are_those_of_known_ones(size):
    changes = {"engine": {"score_at_once": size}}
    spec = make_spec(grid={"noise": (0.5, 0.0)}, **changes)
    noisy = cell_of(spec, noise=0.5)
    setup = setup_of(spec, [noisy])
    stacks, draw = Stacks(setup), draw_of(setup, noisy)
    redrawn = int(draw.labels.redrawn.sum())
    assert 4 < redrawn < 40
    metrics = {
        "accuracy": np.float32(0.75),
        "noise_correlation": np.float32(0.1),
        "redrawn_and_correct": np.float32((redrawn - 2) / 40),
    }
    dense = masks.dense_mask(draw.params)
    result = training.TrainResult(
        None, metrics, {}, 1, True, False, seconds=0.5, mask=dense
    )

    def measured(cell, result):
        draws, examples = stacks.draws([cell]), examples_of(draw_of(setup, cell))
        data = Padded(examples, np.int32(40))
        summary = columns.summary_of(setup)(result, data, None)
        known = result._replace(summary=summary)
        stacked = jax.tree.map(lambda leaf: np.asarray(leaf)[None], known)
        last = columns.Last(draws, 0, 40, late=2)
        step = Step([cell], print, last)
        (found,) = columns.measured_of(stacks, [step], [0], stacked)
        return found

    bits = float(capacity.memorized_bits(1 - 2 / redrawn, redrawn, 2))
    power = float(capacity.noise_power(draw.labels.z))
    assert measured(noisy, result) == {
        "memorized_points": 30.0,
        "memorized_bits": pytest.approx(bits, abs=1e-4),
        "noise_correlation_normalized": pytest.approx(0.1 / power, rel=1e-5),
        "collapsed": False,
        "out_of_budget": 2,
        "diverged": False,
        "kept": 240,
        "seconds": 0.5,
    }
    empty = jax.tree.map(jnp.zeros_like, dense)
    found = measured({**noisy, "noise": 0.0}, result._replace(mask=empty))
    assert found["memorized_points"] == 30.0 and found["collapsed"]
    assert found["memorized_bits"] is found["noise_correlation_normalized"] is None
    late = measured(noisy, result._replace(converged=False))
    assert (late["out_of_budget"], late["diverged"]) == (3, False)
    diverged = measured(noisy, result._replace(converged=False, diverged=True))
    assert (diverged["out_of_budget"], diverged["diverged"]) == (2, True)


def test_rows_say_how_many_gradients_a_mask_took(everything):
    """An epoch of training on the way to a mask counts as one."""
    rows, _, _ = everything
    assert only(rows, pruner="dense")["pruning_gradients"] is None
    dense = only(rows, pruner="dense")["epochs"]

    def cost(name, sparsity=0.5):
        return only(rows, pruner=name, sparsity=sparsity)["pruning_gradients"]

    costs = {"random": 0, "snip": 1, "grasp": 3, "synflow": 5}
    assert {name: cost(name) for name in costs} == costs
    assert cost("magnitude_trained") == cost("magnitude_trained", 0.8) == dense
    # By 0.8 a round, 0.5 is cut from the fourth training, and 0.8 from the eighth.
    assert dense < cost("imp") < cost("imp", 0.8)


def test_without_noise_bits_and_the_normalized_correlation_are_undefined():
    spec = make_spec(grid={"pruner": ("random",), "sparsity": (0.5,), "noise": (0.0,)})
    rows, _, _ = run(spec)
    (row,) = rows.values()
    assert row["memorized_bits"] is None
    assert row["noise_correlation_normalized"] is None
    assert row["noise_correlation"] == 0.0


def test_bits_count_the_redrawn_labels_alone():
    spec = make_spec(grid={"pruner": ("dense",), "noise": (0.3,)})
    rows, _, _ = run(spec)
    (row,) = rows.values()
    _, _, dataset = draw(noise=0.3)
    redrawn = int(dataset.redrawn.sum())
    assert 0 < redrawn < 40 and row["memorized_bits"] <= redrawn


def test_a_network_that_diverges_becomes_a_row_that_says_so():
    spec = make_spec(
        # 5 steps an epoch: the first makes huge weights, the next ones NaN of them.
        train={"optimizer": "sgd", "learning_rate": 1e30, "batch_size": 8},
        grid={"pruner": ("random", "magnitude_trained"), "sparsity": (0.5,)},
    )
    rows, failures, _ = run(spec)
    (row,) = rows.values()
    assert row["diverged"] and not row["converged"] and not math.isfinite(row["loss"])
    # Weights that are NaN have no magnitudes to rank: said, with the layer's name.
    assert [f.cell["pruner"] for f in failures] == ["magnitude_trained"]
    assert "Dense_0/kernel" in failures[0].error


def test_a_collapsed_mask_is_a_column():
    spec = make_spec(grid={"pruner": ("magnitude_init",), "sparsity": (0.99,)})
    rows, _, _ = run(spec)
    (row,) = rows.values()
    assert row["collapsed"] and row["kept"] == 3


def test_a_pruner_of_the_users_is_one_card_and_its_errors_are_rows_that_failed(
    monkeypatch,
):
    def score(params, batch=None, key=None, *, mask=None, prunable=None):
        return jax.tree.map(jnp.negative, params)

    def broken(params, batch=None, key=None, *, mask=None, prunable=None):
        return jax.tree.map(lambda p: p * jnp.nan, params)

    entries = (
        pruner_entry(monkeypatch, "signed", score),
        pruner_entry(monkeypatch, "broken", broken),
    )
    spec = make_spec(grid={"pruner": entries, "sparsity": (0.5,)})
    rows, failures, _ = run(spec)
    assert [row["pruner"] for row in rows.values()] == ["signed"]
    (failure,) = failures
    assert failure.cell["pruner"] == "broken"
    assert "scores at 'params/Dense_0/kernel' are NaN" in failure.error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {"pruner": ("snap",)}}, r"grid\.pruner names 'snap'.*'dense'.*'imp'"),
        ({"grid": {"select": ("some",)}}, r"grid\.select names 'some'.*'per_layer'"),
        ({"grid": {"resume": ("redo",)}}, r"grid\.resume names 'redo'.*'finetune'"),
        ({"grid": {"ablation": ("mix",)}}, r"grid\.ablation names 'mix'.*'shuffle'"),
        ({"train": {"stop": "never"}}, r"train\.stop names 'never'.*'paper'"),
        ({"train": {"optimizer": "adamm"}}, r"train\.optimizer names 'adamm'.*'adamw'"),
        (
            {"pruners": {"snip": {"schedule": "cubic"}}},
            r"pruners\.snip\.schedule is 'cubic', expected one of .*'linear'",
        ),
        (
            {"pruners": {"imp": {"rounds": 3}}},
            r"pruners\.imp\.rounds is not a field of pruners\.imp; known: keep_per_r",
        ),
        ({"pruners": {"snap": {}}}, r"pruners names 'snap', expected one of .*'snip'"),
        (
            {"pruners": {"synflow": {"rounds": 0}}},
            r"pruners\.synflow\.rounds is 0, expected rounds >= 1",
        ),
        (
            {"pruners": {"synflow": {"rounds": 1.5}}},
            r"pruners\.synflow\.rounds is 1\.5, expected int",
        ),
        (
            {"pruners": {"imp": {"keep_per_round": 1.0}}},
            r"pruners\.imp\.keep_per_round is 1\.0, expected 0 < keep_per_round < 1",
        ),
        (
            {"pruners": {"grasp": {"temperature": 0.0}}},
            r"pruners\.grasp\.temperature is 0\.0, expected a positive number",
        ),
        ({"grid": {"pruner": ("my.py",)}}, "names 'my.py', there is no file my.py"),
        ({"train": {"options": {"b9": 0.5}}}, r"train\.options do not fit.*b9"),
        ({"model": {"name": "convnet"}}, r"model\.name is 'convnet': ConvNet got"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(changes, message):
    with pytest.raises(SpecError, match=message):
        run(make_spec(**changes))


def test_an_unknown_question_is_refused_with_the_known_ones():
    spec = dataclasses.replace(make_spec(), question="capcity")
    known = "'capacity', 'information', 'masks', 'memorization', 'robustness', 'swap'"
    with pytest.raises(SpecError, match=f"question names 'capcity'.* {known}"):
        run(spec, [])


def test_n_beyond_the_set_is_refused():
    spec = make_spec(data={"name": "digits"}, grid={"n": (10, 2000)})
    with pytest.raises(SpecError, match=r"grid\.n holds 2000, expected at most 1545"):
        run(spec)


def test_a_set_with_test_points_has_its_test_accuracy():
    spec = make_spec(
        data={"name": "digits"},
        grid={"pruner": ("dense",), "n": (200,), "noise": (0.0,)},
    )
    rows, _, _ = run(spec)
    (row,) = rows.values()
    # 200 clean digits teach far more than chance, 0.1, within 12 epochs at rate 0.01.
    assert 0.5 < row["test_accuracy"] < 1.0


def test_any_optimizer_of_optax_with_its_options():
    spec = make_spec(
        train={"optimizer": "sgd", "options": {"momentum": 0.9, "nesterov": True}},
        grid={"pruner": ("random",), "sparsity": (0.5,)},
    )
    rows, failures, _ = run(spec)
    assert failures == [] and len(rows) == 1
    plain = dataclasses.replace(
        spec, train=dataclasses.replace(spec.train, options={"momentum": 0.0})
    )
    other, _, _ = run(plain)
    assert next(iter(rows.values()))["loss"] != next(iter(other.values()))["loss"]


# How trainings end


NEVER = {"stop": "settled", "settle_from": 6, "settle_steps": 10**6}


def test_what_used_up_its_budget_on_the_way_to_a_mask_is_in_its_row():
    """Of 240 weights IMP trains 240, 192 and 154 for half, and cuts at 123."""
    axes = {"pruner": ("dense", "snip", "magnitude_trained", "imp"), "sparsity": (0.5,)}
    rows, failures, stats = run(make_spec(train=NEVER, grid=axes))
    assert failures == []
    count = {row["pruner"]: row["out_of_budget"] for row in rows.values()}
    rounds = stats.networks - 3 - 1  # the last ones of three masks, and the dense one
    assert rounds >= 2 and count == {
        "dense": 1,
        "snip": 1,
        "magnitude_trained": 2,
        "imp": 1 + rounds + 1,
    }
    for row in rows.values():
        assert row["settled"] is row["converged"] is False and row["epochs"] == 12
    # Rounds of a fixed length have no budget to use up; the last training has.
    axes["pruner"] = ("magnitude_trained", "imp")
    fixed, _, _ = run(make_spec(train=NEVER, prune={"round_epochs": 2}, grid=axes))
    assert [row["out_of_budget"] for row in fixed.values()] == [1, 1]


def test_rows_say_whether_a_network_has_settled():
    settles = {"stop": "settled", "settle_from": 2, "settle_rise": 1.0}
    settles |= {"settle_fall": 1.0, "settle_steps": 0}
    axes = {"pruner": ("random", "magnitude_trained"), "sparsity": (0.5,)}
    rows, _, _ = run(make_spec(train=settles, grid=axes))
    for row in rows.values():
        assert row["settled"] is True and row["epochs"] == 4
        assert row["out_of_budget"] == 0
    rows, _, _ = run(make_spec(train={"stop": "still"}, grid=axes))
    assert {row["settled"] for row in rows.values()} == {None}


def test_rows_say_when_a_network_first_fitted_a_share():
    # At a rate of 0.05, 40 labels are learnt within 200 epochs of one step.
    spec = make_spec(
        train={"stop": "settled", "max_epochs": 200, "learning_rate": 0.05},
        grid={"pruner": ("dense", "random"), "sparsity": (0.8,)},
    )
    rows, _, _ = run(spec)
    assert only(rows, pruner="dense")["train_accuracy"] == 1.0
    for row in rows.values():
        by_epoch = row["train_accuracy_by_epoch"]
        if row["epochs"] <= 128:  # else some epochs are left out
            for percent in (50, 90, 99, 100):
                # 1e-6: float32.
                first = [a >= percent / 100 - 1e-6 for a in by_epoch]
                expected = first.index(True) + 1 if any(first) else None
                assert row[f"epochs_to_{percent}"] == expected
            area = capacity.memorization_area(by_epoch, 200)
            assert row["memorization_area"] == pytest.approx(area)
    assert (
        only(rows, pruner="dense")["epochs_to_100"]
        == only(rows, pruner="dense")["epochs"]
    )


def test_a_budget_of_one_epoch_makes_rows_too():
    spec = make_spec(train={"max_epochs": 1}, grid={"pruner": ("dense",)})
    rows, failures, _ = run(spec)
    ((_, row),) = rows.items()
    assert failures == [] and row["epochs"] == 1
    assert row["memorization_area"] == pytest.approx(row["train_accuracy"])


@given(st.integers(1, 20_000))
def test_of_many_epochs_64_an_octave_are_kept(epochs):
    def is_kept(epoch):
        octave = max(math.ceil(math.log2(epoch / 128)), 0)
        return epoch % 2**octave == 0 or epoch == epochs

    found = kept_epochs(epochs).tolist()
    assert found == [epoch for epoch in range(1, epochs + 1) if is_kept(epoch)]
    doublings = {50 * 2**k for k in range(9)} & set(range(epochs + 1))
    assert doublings <= set(found)  # where a training may have settled


def test_the_history_of_a_row_is_that_of_the_epochs_it_names():
    spec = make_spec(
        train={"max_epochs": 150, "min_epochs": 150},
        grid={"pruner": ("dense",)},
    )
    ((_, row),) = run(spec)[0].items()
    assert row["epochs"] == 150
    assert row["history_epochs"] == [*range(1, 129), *range(130, 151, 2)]
    model, params, dataset = draw()
    made = training.make_training(
        scores.classification_loss(model.apply),
        optax.adam(0.01),
        metrics_fn=training.classification_metrics(model.apply),
        max_epochs=150,
        stop=training.stop_when_still(min_epochs=150),
    )
    batch = dataset.x, dataset.y
    dense = masks.dense_mask(params)
    result = training.train(made, params, dense, batch, key(draws.TRAIN, 5))
    entries = np.array(row["history_epochs"]) - 1
    # 1e-3: the same sums in another order, over 150 steps of Adam at 0.01.
    expected = result.history["loss"][entries]
    np.testing.assert_allclose(row["loss_by_epoch"], expected, atol=1e-3)
    assert len(row["train_accuracy_by_epoch"]) == len(entries)
    assert len(row["noise_correlation_by_epoch"]) == len(entries)


def test_every_round_has_as_many_epochs_as_asked_for():
    """Batches of 16 of 40 points: three steps an epoch, nine in three epochs."""
    spec = make_spec(
        train={"batch_size": 16},
        prune={"round_epochs": 3},
        grid={"pruner": ("imp", "magnitude_trained"), "sparsity": (0.5,)},
    )
    rows, failures, _ = run(spec)
    assert failures == []
    model, params, dataset = draw()
    made = training.make_training(
        scores.classification_loss(model.apply),
        optax.adam(0.01),
        metrics_fn=training.classification_metrics(model.apply),
        batch_size=16,
        max_epochs=12,
        stop=training.stop_when_still(),
    )
    batch = dataset.x, dataset.y
    order = key(draws.TRAIN, 5)

    def train_fn(params, mask, data, key):
        return training.train(made, params, mask, batch, order, steps=9).params

    arguments = (train_fn, params, None, order)
    for pruner, find in (
        ("imp", nfp.imp_tickets),
        ("magnitude_trained", nfp.magnitude_after_training),
    ):
        mask = find(*arguments, sparsities=[0.5])[0.5].mask
        result = training.train(made, params, mask, batch, order)
        row = only(rows, pruner=pruner)
        # The network of the row itself is trained to its own end.
        assert row["epochs"] == int(result.epochs) > 3
        # 1e-4: sums in another order.
        loss = float(result.metrics["loss"])
        assert row["loss"] == pytest.approx(loss, abs=1e-4)


def test_a_rate_that_decays_begins_as_the_constant_one_and_ends_at_zero():
    spec = make_spec(train={"decay_steps": 6})
    cell = experiments.all_cells(spec)[0]

    def weights(changed, steps):
        setup = setup_of(changed, [])
        draw = draw_of(setup, cell)
        mask = masks.dense_mask(draw.params)
        key = draw.train_key
        result = training.train(
            setup.training, draw.params, mask, examples_of(draw), key, steps=steps
        )
        return np.asarray(result.params["params"]["Dense_0"]["kernel"])

    np.testing.assert_array_equal(weights(spec, 1), weights(make_spec(), 1))
    assert np.any(weights(spec, 3) != weights(make_spec(), 3))
    assert np.any(weights(spec, 5) != weights(spec, 6))
    np.testing.assert_array_equal(weights(spec, 6), weights(spec, 9))


# The engine's settings


def assert_same_rows(rows, others):
    """Masks to the entry, losses to sums in another order."""
    assert set(rows) == set(others)
    for name, row in rows.items():
        other = others[name]
        assert row["kept_by_layer"] == other["kept_by_layer"]
        assert row["epochs"] == other["epochs"]
        np.testing.assert_allclose(
            row["loss_by_epoch"], other["loss_by_epoch"], atol=1e-4
        )


def test_lanes_and_scoring_at_once_change_rows_by_the_order_of_sums_alone(everything):
    rows, failures, stats = run(make_spec(engine={"lanes": 3, "score_at_once": 4}))
    assert failures == [] and stats.wasted > 0
    assert_same_rows(rows, everything[0])


def first_jobs(setup):
    """The first networks of a run, as one lane takes them."""
    for networks in Memorization(setup, print).networks():
        for row in rows_of(networks):
            yield job_of(row, setup.training.batch_size, setup.inputs)


def test_training_without_dead_neurons_changes_rows_by_the_order_of_sums_alone():
    grid = {"pruner": ("random", "imp"), "sparsity": (0.9, 0.95)}
    spec = make_spec(grid=grid, engine={"shrink_from": 0.0})
    small = setup_of(spec)
    assert any(small.shrink(job) for job in first_jobs(small))
    whole = make_spec(grid=grid)
    large = setup_of(whole)  # too little work
    assert not any(large.shrink(job) for job in first_jobs(large))
    assert_same_rows(run(spec)[0], run(whole)[0])


def test_dead_neurons_stay_where_the_optimizer_would_move_them():
    spec = make_spec(train={"optimizer": "adamw"}, engine={"shrink_from": 0.0})
    assert setup_of(spec).shrink is None


def test_a_nan_among_networks_scored_at_once_fails_its_own_cells_alone(monkeypatch):
    def poisoned(params, batch=None, key=None, *, mask=None, prunable=None):
        bad = params["params"]["Dense_0"]["kernel"][0, 0] > 0
        return jax.tree.map(lambda w: jnp.where(bad, jnp.nan, w), params)

    entry = pruner_entry(monkeypatch, "poisoned", poisoned)
    grid = {"pruner": (entry,), "sparsity": (0.5,), "init_seed": tuple(range(6))}
    spec = make_spec(grid=grid, engine={"score_at_once": 4})
    rows, failures, _ = run(spec)
    setup = setup_of(spec)
    kernels = [
        draw_of(setup, cell).params["params"]["Dense_0"]["kernel"]
        for cell in setup.todo
    ]
    bad = {seed for seed, kernel in enumerate(kernels) if kernel[0, 0] > 0}
    assert 0 < len(bad) < 6
    assert {failure.cell["init_seed"] for failure in failures} == bad
    assert {row["init_seed"] for row in rows.values()} == set(range(6)) - bad
    assert all("scores at 'params/Dense_0" in failure.error for failure in failures)


def test_images_are_shared_and_no_job_holds_any():
    spec = make_spec(
        data={"name": "digits"}, grid={"n": (30,), "pruner": ("dense", "snip")}
    )
    setup = setup_of(spec)
    for job in first_jobs(setup):
        assert job.data.inputs is None
        index = job.data.index
        assert index.shape == (30,) and index.dtype == np.int32
        dataset = data.subset(setup.pool, 30, draws.key_of(setup, draws.DATA, 4))
        np.testing.assert_array_equal(setup.inputs[index], dataset.x)
