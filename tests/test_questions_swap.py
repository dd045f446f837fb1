import dataclasses
import functools
import itertools
import math
import operator
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from engines import known_engine, parts_of
from running import pruner_entry, run, same_rows, setup_of, spec_of

import nfp_jax as nfp
from nfp_jax import capacity, data, experiments, masks, models, scores, training
from nfp_jax.lab import draws as streams
from nfp_jax.lab.masking import mask_on
from nfp_jax.questions.swap import run as question
from nfp_jax.results import open_results, row_key
from nfp_jax.spec import Spec

# 4·6 + 6·2 = 36 prunable weights.
N, DIM, WIDTHS = 9, 4, (6,)
CONFIG = {
    "name": "test",
    "question": "swap",
    "data": {"dim": DIM},
    "model": {"widths": WIDTHS},
    "train": {
        "max_epochs": 6,
        "stop": "still",
        "min_epochs": 2,
        "learning_rate": 0.05,
    },
    "swap": {"pairs": 3},
    "engine": {"shrink_from": float("inf")},
    "grid": {"pruner": ("pruner_copy:CARD",), "sparsity": (0.75,), "n": (N,)},
}
make_spec = functools.partial(spec_of, CONFIG)

pytestmark = pytest.mark.usefixtures("one_device")


def key(stream, pair, seed=0):
    whole = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), stream), seed)
    return jax.random.fold_in(whole, pair)


def sets(pair, noise=1.0):
    """The three sets of a pair, by hand from the documented streams."""
    own = data.gaussian(key(streams.DATA, pair), N, DIM)
    other = data.gaussian(key(streams.OTHER_DATA, pair), N, DIM)
    fresh = key(streams.OTHER_NOISE, pair)
    return {
        "own": data.with_label_noise(own, key(streams.NOISE, pair), noise),
        "labels": data.with_label_noise(own, fresh, noise),
        "data": data.with_label_noise(other, fresh, noise),
    }


def copy(params, batch=None, key=None, *, mask=None, prunable=None):
    """Is told the answer: keeps, of weights i and n + i, the one that label i names."""
    y = batch[1].astype(jnp.float32)
    first = params["params"]["Dense_0"]["kernel"]
    both = jnp.concatenate([y, 1 - y])
    zeros = jax.tree.map(jnp.zeros_like, params)
    flat = jnp.zeros(first.size).at[: len(both)].set(both)
    zeros["params"]["Dense_0"]["kernel"] = flat.reshape(first.shape)
    return zeros


@pytest.fixture(scope="module", autouse=True)
def copying():
    """The card of the pruner that copies."""
    with pytest.MonkeyPatch.context() as patch:
        yield pruner_entry(patch, "copy", copy)


def read_out(job):
    """A network that predicts the labels that its mask names."""
    _, y, _, redrawn = map(np.asarray, parts_of(job))
    named = np.ravel(job.mask["params"]["Dense_0"]["kernel"])[: len(y)]
    correct = named == (y == 1)
    metrics = {
        "loss": np.float32(1.0),
        "accuracy": np.float32(correct.mean()),
        "noise_correlation": np.float32(0.0),
        "redrawn_and_correct": np.float32(np.mean(correct & redrawn)),
    }
    no = np.bool_(False)
    return training.TrainResult(
        job.params, metrics, {}, np.int32(6), no, no, seconds=0.5, mask=job.mask
    )


def told(spec, todo=None, store=None):
    """The rows, the failures, what it took and the jobs, of networks that read labels
    out of masks in place of trained ones.
    """
    engine, jobs = known_engine(read_out)
    return *run(spec, todo, store, engine=engine), jobs


FOUR = ["swap_gap", "swap_gap_reinit", "swap_gap_data", "swap_gap_data_reinit"]


@pytest.mark.parametrize(("epochs", "each"), [(0, 2), (2, 1)])
def test_each_network_counts_what_its_mask_took_beyond_the_budget(epochs, each):
    """The dense training of a pair has none where its epochs are fixed."""
    changes = {"prune": {"round_epochs": epochs}}
    grid = {"pruner": ("magnitude_trained",)}
    ((_, row),) = told(make_spec(grid=grid, **changes))[0].items()
    assert row["out_of_budget"] == 18 * each
    assert [row[f"{gap}_out_of_budget"] for gap in FOUR] == [6 * each] * 4


def test_gaps_are_what_a_mask_that_knows_its_labels_is_worth():
    spec = make_spec(swap={"confidence": 0.9, "margin": 0.05})
    rows, failures, stats, _ = told(spec)
    ((_, row),) = rows.items()
    assert failures == [] and stats.networks == row["trainings"] == 3 * 3 * 2
    agree = {
        name: [
            int(np.sum(sets(pair)["own"].y == sets(pair)[name].y)) for pair in range(3)
        ]
        for name in ("own", "labels", "data")
    }
    assert agree["own"] == [N] * 3 and len({*agree["labels"]}) > 1
    assert row["memorized_points"] == N
    assert row["memorized_points_swapped"] == pytest.approx(np.mean(agree["labels"]))
    assert row["swap_gaps"] == pytest.approx([N - a for a in agree["labels"]])
    assert row["swap_gaps_reinit"] == row["swap_gaps"]  # the same from any weights
    difference = row["memorized_points"] - row["memorized_points_swapped"]
    assert row["swap_gap_points"] == pytest.approx(difference)
    for name, prefix in (("labels", "swap_gap"), ("data", "swap_gap_data")):
        for start in ("", "_reinit"):  # this network is the same from any weights
            gaps = np.array([N - a for a in agree[name]])
            interval = scipy.stats.ttest_1samp(gaps, 0.0).confidence_interval(0.9)
            found = [row[f"{prefix}{start}_{part}"] for part in ("lower", "upper")]
            assert row[f"{prefix}{start}_points"] == pytest.approx(gaps.mean())
            assert found == pytest.approx(tuple(interval), rel=1e-5)
            bits = np.array(
                [float(capacity.memorized_bits(a / N, N, 2)) for a in agree[name]]
            )
            interval = scipy.stats.ttest_1samp(N - bits, 0.0).confidence_interval(0.9)
            found = [row[f"{prefix}{start}_bits_{part}"] for part in ("lower", "upper")]
            assert row[f"{prefix}{start}_bits"] == pytest.approx(
                np.mean(N - bits), rel=1e-4
            )
            assert found == pytest.approx(tuple(interval), rel=1e-3)
    expected = {
        "pairs": 3,
        "confidence": 0.9,
        "kept": 9,
        "classes": 2,
        "seconds": 9.0,
        "out_of_budget": 18,
        **{f"{gap}_out_of_budget": 6 for gap in FOUR},
        "margin": 0.05,
        "diverged": False,
        "collapsed_share": 1.0,  # nothing is kept of the second layer
    }
    assert expected.items() <= row.items()


@pytest.mark.parametrize("pruner", ["pruner_copy:CARD", "magnitude_trained"])
def test_each_pair_trains_one_mask_on_three_sets_from_two_starts(pruner):
    every = told(make_spec(grid={"pruner": (pruner,), "noise": (0.5,)}))[-1]
    model = models.MLP(2, WIDTHS)
    kernels, firsts = [], []
    each = 7 if pruner == "magnitude_trained" else 6  # with the dense network
    assert len(every) == 3 * each
    for pair in range(3):
        these = every[each * pair : each * (pair + 1)]
        dense, jobs = these[:-6], these[-6:]
        own = models.initialize(model, key(streams.INIT, pair), (DIM,))
        other = models.initialize(model, key(streams.OTHER_INIT, pair), (DIM,))
        for job, (name, start) in zip(
            jobs,
            itertools.product(("own", "labels", "data"), (own, other)),
            strict=True,
        ):
            dataset = sets(pair, noise=0.5)[name]
            for part, expected in zip(
                parts_of(job),
                (dataset.x, dataset.y, dataset.z, dataset.redrawn),
                strict=True,
            ):
                np.testing.assert_allclose(part, expected, atol=1e-6)
            np.testing.assert_array_equal(
                masks.ravel_mask(job.mask), masks.ravel_mask(jobs[0].mask)
            )
            # 1e-6: compiled whole, or op by op.
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
                masks.apply_mask(job.params, job.mask),
                masks.apply_mask(start, job.mask),
            )
            # The same order of batches: what differs is the data alone.
            assert job.key == key(streams.TRAIN, pair)
        first, fresh, unlike = (parts_of(jobs[place]) for place in (0, 2, 4))
        assert np.any(first[1] != fresh[1]) and np.all(first[0] == fresh[0])
        assert np.all(first[0] != unlike[0])
        for one, same in zip(jobs[::2], jobs[1::2], strict=True):
            for part, other in zip(parts_of(one), parts_of(same), strict=True):
                np.testing.assert_array_equal(part, other)
        if not dense:
            named = np.ravel(jobs[0].mask["params"]["Dense_0"]["kernel"])[:N]
            np.testing.assert_array_equal(named, first[1] == 1)
        for job in dense:  # which this training has left as it was
            for part, other in zip(parts_of(job), parts_of(jobs[0]), strict=True):
                np.testing.assert_array_equal(part, other)
            assert job.key == key(streams.TRAIN, pair)
            mask = nfp.prune(nfp.magnitude(), job.params, sparsity=0.75)
            np.testing.assert_array_equal(
                masks.ravel_mask(jobs[0].mask), masks.ravel_mask(mask)
            )
        kernels.append(own["params"]["Dense_0"]["kernel"])
        firsts.append(first)
    for i, j in itertools.combinations(range(3), 2):
        assert np.all(kernels[i] != kernels[j])
        assert np.all(firsts[i][0] != firsts[j][0])
        assert np.any(firsts[i][1] != firsts[j][1])


def test_without_noise_there_are_no_other_labels_and_no_bits():
    ((_, row),) = told(make_spec(grid={"noise": (0.0,)}))[0].items()
    for start in ("", "_reinit"):
        ends = [row[f"swap_gap{start}_{part}"] for part in ("points", "lower", "upper")]
        assert ends == [0.0, 0.0, 0.0]
        for prefix in ("swap_gap", "swap_gap_data"):
            bits = [f"{prefix}{start}_bits{end}" for end in ("", "_lower", "_upper")]
            assert [row[name] for name in bits] == [None] * 3
    assert row["swap_gap_data_points"] > 0  # other points have other labels


def test_a_single_pair_has_gaps_and_no_interval():
    ((_, row),) = told(make_spec(swap={"pairs": 1}))[0].items()
    gap = N - int(np.sum(sets(0)["own"].y == sets(0)["labels"].y))
    assert row["swap_gaps"] == pytest.approx([gap])
    assert row["swap_gap_points"] == pytest.approx(gap)
    for end in ("lower", "upper", "bits_lower", "bits_upper"):
        assert row[f"swap_gap_{end}"] is None
    assert row["swap_gap_bits"] > 0


def test_rows_do_not_depend_on_order_or_on_what_is_left_to_do():
    axes = {"pruner": ("pruner_copy:CARD", "random", "imp"), "sparsity": (0.5, 0.75)}
    spec = make_spec(swap={"pairs": 2}, grid=axes)
    cells = experiments.all_cells(spec)
    rows, failures, _, _ = told(spec)
    assert failures == [] and len(rows) == 6
    assert told(spec, cells[::-1])[0] == rows
    assert told(spec, cells[1:5])[0] == {k: rows[k] for k in map(row_key, cells[1:5])}


@pytest.mark.parametrize("count", [5, 24, 40])
def test_an_interrupted_run_goes_on_with_the_networks_that_are_left(tmp_path, count):
    axes = {
        "pruner": ("pruner_copy:CARD", "imp", "magnitude_trained"),
        "sparsity": (0.5, 0.75),
    }
    spec = make_spec(swap={"pairs": 2}, grid=axes)
    cells = experiments.all_cells(spec)
    rows, _, _, jobs = told(spec)
    total = len(jobs)
    store = open_results(tmp_path, "run", "ab12", {})
    add_network = store.add_network

    def interrupted(cell, network):
        if sum(len(store.read_networks(cell)) for cell in cells) == count:
            raise KeyboardInterrupt
        add_network(cell, network)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(store), "add_network", lambda _, *args: interrupted(*args))
        with pytest.raises(KeyboardInterrupt):
            told(spec, store=store)
    left = question.Swap(setup_of(spec), print, store)
    again, failures, stats, jobs = told(spec, store=store)
    assert again == rows and failures == []
    assert left.count() == stats.networks == len(jobs)
    # The last networks of a mask are trained once; a trajectory may be run again.
    assert len(jobs) < total and len(jobs) >= total - 2 * count
    complete, _, _, none = told(spec, store=store)
    assert complete == rows and none == []


def test_two_devices_at_once_give_the_rows_of_one(tmp_path, monkeypatch):
    spec = make_spec(
        swap={"pairs": 2}, grid={"pruner": ("random", "snip"), "sparsity": (0.5, 0.8)}
    )
    store = open_results(tmp_path, "run", "ab12", {})

    def rows(**options):
        found, failures, _ = run(spec, **options)
        assert failures == []
        return {key: row | {"seconds": None} for key, row in found.items()}

    one = rows()
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:2])
    assert rows(store=store) == one
    kept = [store.read_networks(cell) for cell in experiments.all_cells(spec)]
    assert [len({tuple(x["place"]) for x in some}) for some in kept] == [12] * 4
    assert rows(store=store) == one  # from what is kept


def test_lanes_give_the_rows_of_one():
    """To 1e-4: sums in another order. Also with stacks that are not full."""
    axes = {"pruner": ("snip", "imp"), "sparsity": (0.75,), "ablation": ("", "shuffle")}
    swap = {"pairs": 2}
    one, failures, stats = run(make_spec(swap=swap, grid=axes))
    engine = {**CONFIG["engine"], "lanes": 5, "score_at_once": 4}
    many, *rest = run(make_spec(swap=swap, grid=axes, engine=engine))
    assert failures == rest[0] == [] and stats.networks == rest[1].networks
    same_rows(many, one)


def test_a_mask_found_without_data_is_the_same_on_other_labels_and_one_with_is_not():
    spec = make_spec(grid={"pruner": ("random", "magnitude_init", "synflow", "snip")})
    cells = experiments.all_cells(spec)
    setup = setup_of(spec)
    work = question.Swap(setup, print)
    for cell in cells:
        found = []
        for name in question.SETS:
            draws = work.draws([cell], [(1, name, "")])
            x, y, _ = work.stacks.points(N, draws, 0)
            draw = jax.tree.map(operator.itemgetter(0), draws)
            # On the batch, whatever the card says that the pruner sees.
            mask = mask_on(setup, draw, cell, (x, y))
            found.append(masks.ravel_mask(mask).tobytes())
        seeing = cell["pruner"] == "snip"
        assert len(set(found)) == (3 if seeing else 1)
        own = work.own([question.Pair(cell, 1)])
        made, _ = work.stacks.masks([cell], own, [N])
        made = masks.ravel_mask(jax.tree.map(operator.itemgetter(0), made))
        assert made.tobytes() == found[0]


def test_each_pair_s_mask_is_shuffled_by_its_own_key(monkeypatch):
    """Else one unlucky permutation would be in every pair of a row."""

    def same(params, batch=None, key=None, *, mask=None, prunable=None):
        return jax.tree.map(
            lambda w: jnp.arange(1.0, w.size + 1).reshape(w.shape), params
        )

    entry = pruner_entry(monkeypatch, "same", same, sees="nothing")
    spec = make_spec(grid={"pruner": (entry,), "ablation": ("shuffle",)})
    found = [masks.ravel_mask(job.mask) for job in told(spec)[-1]]
    assert len(found) == 18 and {int(mask.sum()) for mask in found} == {9}
    for pair in range(3):  # of each the six networks have one mask
        assert len({mask.tobytes() for mask in found[6 * pair : 6 * pair + 6]}) == 1
    assert len({mask.tobytes() for mask in found}) == 3
    # By the documented stream.
    setup = setup_of(spec)
    alone = setup.init(key(streams.INIT, 0))
    kept = nfp.prune(same, alone, sparsity=0.75)
    shuffled = masks.shuffle_within_layers(
        kept, key(streams.SHUFFLE, 0), prunable=setup.prunable
    )
    np.testing.assert_array_equal(found[0], masks.ravel_mask(shuffled))


def test_trained_networks_are_those_of_the_library():
    spec = make_spec(
        swap={"pairs": 2},
        grid={"pruner": ("snip", "imp", "magnitude_trained"), "sparsity": (0.5,)},
    )
    rows, failures, stats = run(spec)
    assert failures == [] and len(rows) == 3
    assert question.Swap(setup_of(spec), print).count() == stats.networks

    model = models.MLP(2, WIDTHS)
    loss_fn = scores.classification_loss(model.apply)
    own = training.make_training(
        loss_fn,
        optax.adam(0.05),
        metrics_fn=training.classification_metrics(model.apply),
        max_epochs=6,
        stop=training.stop_when_still(min_epochs=2),
    )
    points = {}
    for pair in range(2):
        params = models.initialize(model, key(streams.INIT, pair), (DIM,))
        other = models.initialize(model, key(streams.OTHER_INIT, pair), (DIM,))
        three = {name: (s.x, s.y) for name, s in sets(pair).items()}
        mask = nfp.prune(nfp.snip(loss_fn), params, three["own"], sparsity=0.5)
        for (name, batch), (which, start) in itertools.product(
            three.items(), (("", params), ("_reinit", other))
        ):
            result = training.train(own, start, mask, batch, key(streams.TRAIN, pair))
            points[pair, name, which] = N * float(result.metrics["accuracy"])
    (row,) = (row for row in rows.values() if row["pruner"] == "snip")
    # 1e-5: accuracies are float32.
    for (name, prefix), which in itertools.product(
        question.GAPS.items(), question.STARTS
    ):
        gaps = [points[p, "own", which] - points[p, name, which] for p in range(2)]
        expected = pytest.approx(np.mean(gaps), abs=1e-5)
        assert row[f"{prefix}{which}_points"] == expected
    for which in question.STARTS:
        gaps = [points[p, "own", which] - points[p, "labels", which] for p in range(2)]
        assert row[f"swap_gaps{which}"] == pytest.approx(gaps, abs=1e-5)
    mean = np.mean([points[pair, "own", ""] for pair in range(2)])
    assert row["memorized_points"] == pytest.approx(mean, abs=1e-5)


def test_a_training_that_diverges_is_a_row_and_a_cell_that_raises_leaves_the_others(
    monkeypatch,
):
    def raising(params, batch=None, key=None, *, mask=None, prunable=None):
        raise RuntimeError("no score for this")

    entry = pruner_entry(monkeypatch, "raising", raising)
    spec = make_spec(
        train={"optimizer": "sgd", "learning_rate": 1e30, "batch_size": 2},
        swap={"pairs": 1},
        grid={"pruner": ("random", entry, "magnitude_trained")},
    )
    rows, failures, _ = run(spec)
    ((_, row),) = rows.items()
    assert row["pruner"] == "random" and row["diverged"]
    assert row["out_of_budget"] == 0 and math.isfinite(row["swap_gap_points"])
    errors = {failure.cell["pruner"]: failure.error for failure in failures}
    assert errors["raising"] == "RuntimeError: no score for this"
    assert "'params/Dense_0/kernel' are NaN" in errors["magnitude_trained"]
    assert len(failures) == 2


@pytest.mark.parametrize("preset", ["", "smoke", "small", "paper"])
def test_the_configuration_is_of_this_question(preset):
    path = Path(__file__).parent.parent / "configs" / "data_swap.py"
    spec = Spec.from_config(runpy.run_path(str(path))["get_config"](preset))
    experiments.check_names(spec)
    assert spec.question == "swap" and experiments.all_cells(spec)
    assert spec.settings.pairs >= 2  # else there is no interval
    if preset == "small":  # its gaps stand beside the information of that preset
        path = path.with_name("mask_information.py")
        other = Spec.from_config(runpy.run_path(str(path))["get_config"]("small"))
        for group in ("data", "model"):
            assert getattr(spec, group) == getattr(other, group)
        assert dataclasses.asdict(spec.grid)["n"] == dataclasses.asdict(other.grid)["n"]
