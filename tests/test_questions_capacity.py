import collections
import functools
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engines import known_engine, parts_of
from running import pruner_entry, run, same_rows, setup_of, spec_of

import nfp_jax as nfp
from nfp_jax import capacity, experiments, masks, scores, training
from nfp_jax.lab.draws import draw_of, inputs_of
from nfp_jax.lab.trainer import Budget
from nfp_jax.results import ResultsError, open_results, row_key
from nfp_jax.spec import Spec, SpecError

# 4·6 + 6·2 = 36 prunable weights.
CONFIG = {
    "name": "test",
    "question": "capacity",
    "data": {"dim": 4},
    "model": {"widths": (6,)},
    "train": {"max_epochs": 100, "learning_rate": 0.05},
    "capacity": {"share": 1.0, "precision": 1e-9, "max_steps": 60, "tries": 1},
    "engine": {"shrink_from": float("inf")},
    "grid": {"pruner": ("random",), "sparsity": (0.5,), "n": (100,)},
}
make_spec = functools.partial(spec_of, CONFIG)

pytestmark = pytest.mark.usefixtures("one_device")


def of(rows, pruner, sparsity=0.5):
    """The one row of a pruner and a sparsity."""
    (row,) = (
        row
        for row in rows.values()
        if row["pruner"] == pruner and row["sparsity"] == sparsity
    )
    return row


def trained(job, accuracies, *, share=1.0, diverged=False, late=False):
    """The result of a training whose accuracies by epoch are known; without the share
    fitted it has settled, or used up its budget: ``late``.
    """
    last = np.float32(accuracies[-1])
    metrics = {
        "loss": np.float32(1.0),
        "accuracy": last,
        "noise_correlation": np.float32(0.0),
        "redrawn_and_correct": last * np.mean(job.data.labels.redrawn),
    }
    history = {name: np.full(100, np.nan, np.float32) for name in ("loss", "accuracy")}
    history["accuracy"][: len(accuracies)] = accuracies
    return training.TrainResult(
        job.params,
        metrics,
        history,
        np.int32(len(accuracies)),
        np.bool_(not diverged and (last >= share or not late)),
        np.bool_(diverged),
        seconds=0.5,
        mask=job.mask,
    )


def points_of(job):
    """The number of a job's points."""
    return len(job.data.index)


def kept_by(job):
    return int(masks.ravel_mask(job.mask).sum())


def look_up_table(job):
    """A network that fits five labels a weight."""
    return trained(job, [min(1.0, 5 * kept_by(job) / points_of(job))] * 4)


def searched(spec, result_of, todo=None, store=None):
    """The rows, the failures, what it took and the jobs, of results that are known."""
    engine, jobs = known_engine(result_of)
    return *run(spec, todo, store, engine=engine), jobs


PRUNERS = ("dense", "random", "imp", "magnitude_trained")


def test_known_capacities_are_found_exactly():
    axes = {"pruner": PRUNERS, "sparsity": (0.5, 0.8), "noise": (0.0, 1.0)}
    rows, failures, stats, jobs = searched(make_spec(grid=axes), look_up_table)
    assert failures == [] and len(rows) == 14 and stats.networks == len(jobs)
    for row in rows.values():
        entries = 5 * masks.keep_count(36, row["sparsity"])
        dense = row["pruner"] == "dense"  # fits 180, and 100 are the end
        assert row["capacity"] == min(entries, 100)
        assert row["capacity_upper"] == (None if dense else entries + 1)
        assert row["capacity_at_least"] == dense
        if row["noise"] == 1.0:
            assert row["capacity_bits"] == row["capacity"]  # of two classes, all fitted
            assert row["capacity_bits_per_weight"] == row["capacity"] / row["kept"]
        else:  # there is nothing to be memorized
            assert row["capacity_bits"] is row["capacity_bits_per_weight"] is None
        assert row["kept"] == masks.keep_count(36, row["sparsity"])
        assert row["share"] == 1.0 and row["classes"] == 2
        assert not row["collapsed"] and not row["diverged"]
        # What was tried is told, in order, and is what the search would try.
        search, tried = capacity.Search(100, 1e-9), []
        while (n := search.next_n()) is not None:
            search = search.told(n, n <= entries)
            tried.append(n)
        assert row["tried"] == sorted(tried)
        assert row["trainings"] == len(row["tried"])
        assert row["seconds"] == 0.5 * len(row["tried"])
        np.testing.assert_allclose(
            row["fitted"], np.minimum(1, entries / np.array(row["tried"])), rtol=1e-6
        )


def test_precision_and_share_are_those_of_the_specification():
    """80 % of n from 90 entries: up to n = 112; within 30 % of it."""

    def result_of(job):
        return trained(job, [min(1.0, 90 / points_of(job))], share=0.8)

    spec = make_spec(capacity={"precision": 0.3, "share": 0.8}, grid={"n": (1000,)})
    ((_, row),) = searched(spec, result_of)[0].items()
    assert row["capacity"] <= 112 < row["capacity_upper"] <= 1.3 * row["capacity"]
    by_n = dict(zip(row["tried"], row["fitted"], strict=True))
    assert by_n[row["capacity"]] >= 0.8 > by_n[row["capacity_upper"]]
    # Of the labels that are held, not of those that were shown.
    bits = float(capacity.memorized_bits(by_n[row["capacity"]], row["capacity"], 2))
    assert 0 < row["capacity_bits"] < row["capacity"]
    assert row["capacity_bits"] == pytest.approx(bits, rel=1e-5)


def test_every_n_has_its_own_mask_found_on_the_first_points():
    def result_of(job):
        return trained(job, [min(1.0, 9 / points_of(job))])

    spec = make_spec(
        capacity={"precision": 1.0},  # two programs, of n = 5 and 10
        grid={"pruner": ("snip",), "n": (20,), "noise": (0.5,)},
    )
    rows, _, _, jobs = searched(spec, result_of)
    ((_, row),) = rows.items()
    (cell,) = experiments.all_cells(spec)
    setup = setup_of(spec)
    draw = draw_of(setup, cell)
    snip = nfp.snip(scores.classification_loss(setup.model.apply))
    every = inputs_of(setup, draw), *draw.labels
    assert len(jobs) == row["trainings"] and row["tried"] == [5, 10]
    for job in jobs:
        for part, whole in zip(parts_of(job), every, strict=True):
            np.testing.assert_array_equal(part, whole[: points_of(job)])
        mask = nfp.prune(snip, draw.params, parts_of(job)[:2], sparsity=0.5)
        np.testing.assert_array_equal(
            masks.ravel_mask(job.mask), masks.ravel_mask(mask)
        )
        jax.tree.map(np.testing.assert_array_equal, job.params, draw.params)
    assert len({masks.ravel_mask(job.mask).tobytes() for job in jobs}) > 1
    # Bits count the redrawn labels alone.
    redrawn = int(draw.labels.redrawn[: row["capacity"]].sum())
    assert row["capacity_bits"] <= redrawn < row["capacity"]


def test_what_goes_wrong_is_a_column():
    """By how many weights are kept: 18 of 36 fit 20 points and diverge beyond; with 8,
    nothing is fitted; with 4 neither, and the budget ends it where n is at least 10.
    """

    def result_of(job):
        n, kept = points_of(job), kept_by(job)
        if kept == 18:
            return trained(job, [1.0], diverged=n > 20)
        return trained(job, [0.0] * 4, late=kept == 4 and n >= 10)

    spec = make_spec(grid={"sparsity": (0.5, 0.8, 0.9), "n": (400,)})
    rows, failures, _, _ = searched(spec, result_of)
    assert failures == []
    diverging, nothing, late = (of(rows, "random", s) for s in (0.5, 0.8, 0.9))
    assert diverging["capacity"] == 20 and diverging["diverged"]
    assert diverging["out_of_budget"] == 0  # no budget would be enough
    for row in (nothing, late):
        assert row["capacity"] == 0 and row["capacity_upper"] == 1
        assert row["capacity_bits"] == row["capacity_bits_per_weight"] == 0.0
        # The failure at n = 1 decides, and there the network has settled.
        assert not row["capacity_at_least"] and not row["diverged"]
        assert row["tried"] == [1, 2, 4, 20]  # sqrt(401) and so on down
    assert nothing["out_of_budget"] == 0 and late["out_of_budget"] == 1


def in_turn(result_of):
    """Tells ``result_of`` too how often a mask of n points was trained before."""
    seen = collections.Counter()

    def results(job):
        place = points_of(job), kept_by(job)
        seen[place] += 1
        return result_of(job, seen[place] - 1)

    return results


def test_an_n_counts_as_fitted_when_another_order_of_batches_fits_it():
    """Up to 30 points at once, up to 50 in the second order, none beyond."""

    def result_of(job, turn):
        fits = points_of(job) <= (30, 50)[turn]
        return trained(job, [1.0 if fits else 0.5])

    spec = make_spec(capacity={"tries": 2})
    rows, _, _, jobs = searched(spec, in_turn(result_of))
    ((_, row),) = rows.items()
    assert row["capacity"] == 50 and row["capacity_upper"] == 51
    assert not row["capacity_at_least"] and row["out_of_budget"] == 0
    tries = collections.Counter(points_of(job) for job in jobs)
    assert tries == {n: 1 + (n > 30) for n in row["tried"]}
    assert row["trainings"] == len(jobs) > len(row["tried"])
    fitted = dict(zip(row["tried"], row["fitted"], strict=True))
    assert fitted == {n: 1.0 if n <= 50 else 0.5 for n in row["tried"]}
    (cell,) = experiments.all_cells(spec)
    key = draw_of(setup_of(spec), cell).train_key
    first, second = (job for job in jobs if points_of(job) == 50)
    assert first.key == key and second.key == jax.random.fold_in(key, 1)
    for name in ("params", "mask", "data"):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(first, name), getattr(second, name)
        )


def test_as_many_orders_are_tried_as_asked_for_and_each_once():
    spec = make_spec(capacity={"tries": 3}, grid={"n": (4,)})
    rows, _, _, jobs = searched(spec, lambda job: trained(job, [0.0]))
    ((_, row),) = rows.items()
    assert row["capacity"] == 0 and row["trainings"] == 3 * len(row["tried"])
    for n in row["tried"]:
        keys = [jax.random.key_data(j.key) for j in jobs if points_of(j) == n]
        assert len({tuple(key.tolist()) for key in keys}) == 3


@pytest.mark.parametrize("late", [(0,), (1,), (0, 1)])
def test_a_failure_that_decides_out_of_budget_makes_the_capacity_a_lower_bound(late):
    """Whichever of its orders used up the budget; 20 points are fitted, 21 are not."""

    def result_of(job, turn):
        n = points_of(job)
        return trained(job, [1.0 if n <= 20 else 0.9], late=n == 21 and turn in late)

    spec = make_spec(capacity={"tries": 2})
    ((_, row),) = searched(spec, in_turn(result_of))[0].items()
    assert row["capacity"] == 20 and row["capacity_upper"] == 21
    assert row["capacity_at_least"] and row["out_of_budget"] == len(late)


def test_a_failure_out_of_budget_that_does_not_decide_leaves_the_capacity():
    """Beyond 21 points all use up their budget, and at 21 the network has settled."""

    def result_of(job):
        n = points_of(job)
        return trained(job, [1.0 if n <= 20 else 0.9], late=n > 21)

    spec = make_spec(capacity={"tries": 2})
    ((_, row),) = searched(spec, result_of)[0].items()
    assert row["capacity"] == 20 and not row["capacity_at_least"]
    assert row["out_of_budget"] == 2 * sum(n > 21 for n in row["tried"]) > 0


def test_what_used_up_its_budget_on_the_way_to_a_mask_counts():
    """IMP at half of 36 weights: the dense network and those of more than 18 weights
    do; the last ones settle, with 20 points fitted.
    """

    def result_of(job):
        on_the_way = kept_by(job) > 18
        fits = not on_the_way and points_of(job) <= 20
        return trained(job, [1.0 if fits else 0.5], late=on_the_way)

    grid = {"pruner": ("imp",), "n": (30,)}
    rows, _, _, jobs = searched(make_spec(grid=grid), result_of)
    ((_, row),) = rows.items()
    ways = {kept_by(job) for job in jobs if kept_by(job) > 18}
    assert len(ways) > 2 and 36 in ways
    assert row["capacity"] == 20 and row["capacity_at_least"]
    assert row["out_of_budget"] == len(ways) * len(row["tried"])
    # Of a fixed number of epochs none is the budget.
    fixed = make_spec(grid=grid, prune={"round_epochs": 3})
    ((_, row),) = searched(fixed, result_of)[0].items()
    assert row["capacity"] == 20 and not row["capacity_at_least"]
    assert row["out_of_budget"] == 0


def test_a_training_that_diverges_is_a_row():
    spec = make_spec(
        train={"optimizer": "sgd", "learning_rate": 1e30, "batch_size": 2},
        grid={"n": (8,)},
    )
    rows, failures, _ = run(spec)
    ((_, row),) = rows.items()
    assert failures == [] and row["diverged"] and row["capacity"] < 8


def test_a_cell_that_raises_is_reported_and_the_others_have_their_rows(monkeypatch):
    def raising(params, batch=None, key=None, *, mask=None, prunable=None):
        raise RuntimeError("no score for this")

    def late(params, batch=None, key=None, *, mask=None, prunable=None):
        if len(batch[1]) > 50:
            raise RuntimeError("no score for so many")
        return params

    entries = [
        pruner_entry(monkeypatch, score.__name__, score) for score in (raising, late)
    ]
    spec = make_spec(grid={"pruner": (*entries, "random", "imp")})
    rows, failures, _, _ = searched(spec, look_up_table)
    assert {row["pruner"]: row["capacity"] for row in rows.values()} == {
        "random": 90,
        "imp": 90,
    }
    assert {f.cell["pruner"]: f.error for f in failures} == {
        "raising": "RuntimeError: no score for this",
        "late": "RuntimeError: no score for so many",
    }


def test_rows_do_not_depend_on_order_or_on_what_is_left_to_do():
    spec = make_spec(
        capacity={"precision": 0.5},
        grid={"pruner": PRUNERS, "init_seed": (0, 1)},
    )
    cells = experiments.all_cells(spec)
    rows = searched(spec, look_up_table)[0]
    assert len(rows) == len(cells) == 8
    assert searched(spec, look_up_table, cells[::-1])[0] == rows
    left = searched(spec, look_up_table, cells[2:6])[0]
    assert left == {key: rows[key] for key in map(row_key, cells[2:6])}


def until(count, result_of):
    """Is interrupted after so many networks."""
    left = iter(range(count))

    def results(job):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return result_of(job)

    return results


@pytest.mark.parametrize("pruner", ["random", "imp"])
@pytest.mark.parametrize("count", [3, 7, 12])
def test_an_interrupted_search_goes_on_from_what_it_tried(tmp_path, pruner, count):
    spec = make_spec(grid={"pruner": (pruner,), "sparsity": (0.5, 0.8)})
    cells = experiments.all_cells(spec)
    rows, _, _, jobs = searched(spec, look_up_table)
    store = open_results(tmp_path, "run", "ab12", {})
    with pytest.raises(KeyboardInterrupt):
        searched(spec, until(count, look_up_table), store=store)
    tried = [len(store.read_networks(cell)) for cell in cells]
    resumed, _, _, left = searched(spec, look_up_table, store=store)
    assert resumed == rows
    # Of a trajectory that was not at its end nothing is kept.
    lost = 0 if pruner == "random" else 8
    assert len(jobs) - count <= len(left) <= len(jobs) - count + lost
    assert pruner == "imp" or sum(tried) == count
    # What is on file to its end is not trained at all.
    complete, _, _, none = searched(spec, look_up_table, store=store)
    assert complete == rows and none == []


def test_an_interrupted_search_with_further_tries_gives_the_same_row(tmp_path):
    def result_of(job):
        return trained(job, [1.0 if points_of(job) <= 20 else 0.5])

    spec = make_spec(capacity={"tries": 2}, grid={"n": (30,)})
    rows, _, _, jobs = searched(spec, result_of)
    store = open_results(tmp_path, "run", "ab12", {})
    with pytest.raises(KeyboardInterrupt):
        searched(spec, until(4, result_of), store=store)
    resumed, _, _, left = searched(spec, result_of, store=store)
    assert resumed == rows
    # Of an n whose second order was not trained yet, the first is trained again.
    assert len(jobs) - 4 <= len(left) <= len(jobs) - 3


def test_where_networks_cannot_be_kept_the_rows_come_all_the_same(
    tmp_path, monkeypatch, caplog
):
    def full(*_):
        raise ResultsError("can't write it: no space")

    spec = make_spec(capacity={"precision": 0.5})
    rows = searched(spec, look_up_table)[0]
    store = open_results(tmp_path, "run", "ab12", {})
    monkeypatch.setattr(type(store), "add_network", full)
    assert searched(spec, look_up_table, store=store)[:2] == (rows, [])
    assert "train a network again: can't write it: no space" in caplog.text


def test_lanes_give_the_rows_of_one():
    """To 1e-4: sums in another order. Searches end at different times."""
    axes = {"pruner": ("dense", "snip", "imp"), "sparsity": (0.5, 0.75), "n": (20,)}
    changes = {"grid": axes, "capacity": {"tries": 2}}
    one, failures, stats = run(make_spec(**changes))
    engine = {**CONFIG["engine"], "lanes": 3, "score_at_once": 2}
    many, *rest = run(make_spec(engine=engine, **changes))
    assert failures == rest[0] == [] and stats.networks == rest[1].networks
    assert len({row["trainings"] for row in one.values()}) > 1
    same_rows(many, one)


def test_dead_neurons_are_removed_where_the_budget_of_steps_is_worth_it():
    """4·64 + 64·2 products a point, 6 operations each: of n points an epoch, or 64."""
    spec = make_spec(
        model={"widths": (64,)}, engine={"shrink_from": 6.0 * 384 * 64 + 1}
    )
    job = searched(spec, look_up_table)[-1][-1]
    assert points_of(job) * spec.train.max_epochs > 2 * 64
    kernel = job.mask["params"]["Dense_1"]["kernel"].copy()
    kernel[8:] = False
    job.mask["params"]["Dense_1"]["kernel"] = kernel
    for steps, removed in ((1, False), (2, True)):
        budget = Budget(training.stop_when_fitted(1.0), steps)
        setup = setup_of(spec, budget=budget)
        assert (setup.shrink(job) is not None) == removed


def alike(spec, count):
    """A seed whose first so many labels, and no more, are the same."""
    setup = setup_of(spec, [])
    (cell,) = experiments.all_cells(spec)
    for seed in range(200):
        y = np.asarray(draw_of(setup, {**cell, "data_seed": seed}).labels.y)
        if np.argmax(y != y[0]) == count:
            return seed, y
    raise AssertionError("no such seed")


def emptied(params, batch=None, key=None, *, mask=None, prunable=None):
    """Keeps the first layer, so that the second is empty."""
    return {
        "params": {
            layer: jax.tree.map(
                functools.partial(jnp.full_like, fill_value=layer == "Dense_0"), leaf
            )
            for layer, leaf in params["params"].items()
        }
    }


def test_trained_networks_and_one_that_is_collapsed(monkeypatch):
    """That one fits n points whose labels are all the same, and no others."""
    entry = pruner_entry(monkeypatch, "emptied", emptied)
    seed, y = alike(make_spec(grid={"n": (16,)}), 5)
    spec = make_spec(
        capacity={"share": 0.99},
        grid={
            "pruner": (entry, "dense", "random", "imp"),
            "n": (16,),
            "data_seed": (seed,),
        },
    )
    rows, failures, _ = run(spec)
    assert failures == [] and len(rows) == 4
    empty = of(rows, "emptied")
    assert empty["collapsed"] and empty["kept"] == 18
    assert empty["capacity"] == 5 and empty["capacity_upper"] == 6
    most = [np.bincount(y[:n]).max() / n for n in empty["tried"]]
    np.testing.assert_allclose(empty["fitted"], most, rtol=1e-6)
    for pruner, sparsity in (("dense", 0.0), ("random", 0.5), ("imp", 0.5)):
        row = of(rows, pruner, sparsity)
        by_n = dict(zip(row["tried"], row["fitted"], strict=True))
        assert 5 < row["capacity"] and not row["collapsed"]
        assert by_n[row["capacity"]] == 1.0
        assert row["capacity_at_least"] or by_n[row["capacity_upper"]] < 0.99
        assert row["capacity_bits"] == pytest.approx(row["capacity"], rel=1e-5)


def test_a_share_that_a_constant_reaches_is_refused():
    with pytest.raises(SpecError, match=r"capacity\.share is 0\.5, expected 0\.5 < sh"):
        make_spec(capacity={"share": 0.5})
    spec = make_spec(
        data={"name": "digits"}, capacity={"share": 0.1}, grid={"n": (10,)}
    )
    message = r"capacity\.share is 0\.1, expected more than chance, 1/10"
    with pytest.raises(SpecError, match=message):
        run(spec)


def test_an_end_beyond_the_set_is_refused():
    spec = make_spec(data={"name": "digits"}, grid={"n": (1546,)})
    with pytest.raises(SpecError, match=r"grid\.n holds 1546, expected at most 1545"):
        run(spec)


@pytest.mark.parametrize("preset", ["", "smoke", "long", "digits", "seed", "paper"])
def test_the_configuration_is_of_this_question(preset):
    path = Path(__file__).parent.parent / "configs" / "capacity.py"
    spec = Spec.from_config(runpy.run_path(str(path))["get_config"](preset))
    experiments.check_names(spec)
    assert spec.question == "capacity" and experiments.all_cells(spec)
    # At the end of the search the budget is that of steps: epochs do not end before.
    steps = -(-max(spec.grid.n) // spec.train.batch_size)
    assert spec.train.max_epochs * steps >= spec.settings.max_steps
