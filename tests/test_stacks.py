"""Networks given as stacks: in lanes on the device, and one by one."""

import concurrent.futures
import gc
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nfp_jax import ensemble
from nfp_jax.engine import many_lanes
from nfp_jax.training import (
    NO_LIMIT,
    Examples,
    classification_metrics,
    make_training,
    train,
)

ONE = jax.local_devices()[:1]
DIM, ROOM = 3, 12


def apply_fn(w, x):
    return x @ w


def loss_fn(w, batch):
    x, y = batch
    logits = apply_fn(w, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


TRAINING = make_training(
    loss_fn,
    optax.adam(0.1),
    metrics_fn=classification_metrics(apply_fn),
    batch_size=4,
    max_epochs=40,
    stop=lambda progress: progress.loss < 0.55,
)
SIZES = np.array([5, 12, 9, 3, 7], np.int32)


@jax.jit
@jax.vmap
def make(seed):
    key = jax.random.key(seed)
    w = jax.random.normal(key, (DIM, 2))
    mask = jax.random.bernoulli(key, 0.7, w.shape)
    x = jax.random.normal(jax.random.fold_in(key, 1), (ROOM, DIM))
    y = jax.random.bernoulli(jax.random.fold_in(key, 2), shape=(ROOM,)).astype(int)
    return w, mask, (x, y), key


def stack(count=5, **changes):
    return ensemble.Networks(*make(jnp.arange(count)), **changes)


def network(i):
    return jax.tree.map(lambda leaf: leaf[i], make(jnp.arange(5)))


def alone(i, n=ROOM, steps=None):
    w, mask, (x, y), key = network(i)
    return train(TRAINING, w, mask, (x[:n], y[:n]), key, steps=steps)


def check(results, expected):
    """1e-5: sums in another order over some tens of steps."""
    for result, one in zip(results, expected, strict=True):
        np.testing.assert_allclose(result.params, one.params, atol=1e-5)
        np.testing.assert_array_equal(result.mask, one.mask)
        assert int(result.epochs) == int(one.epochs)
        assert int(result.steps) == int(one.steps)
        np.testing.assert_allclose(result.history["loss"], one.history["loss"], 1e-4)


@pytest.mark.parametrize("lanes", [1, 2, 8])
def test_a_stack_is_its_networks_one_after_the_other(lanes):
    results, stats = ensemble.run(TRAINING, [stack()], lanes=lanes, devices=ONE)
    assert stats.networks == 5
    check(results, [alone(i) for i in range(5)])
    assert len({int(result.epochs) for result in results}) > 1


@pytest.mark.parametrize("lanes", [1, 3])
def test_each_network_counts_its_first_examples(lanes):
    given = stack(n=jnp.asarray(SIZES), most=12)
    results, _ = ensemble.run(TRAINING, [given], lanes=lanes, devices=ONE)
    check(results, [alone(i, n) for i, n in enumerate(SIZES)])


def test_arrays_longer_than_the_most_examples_are_cut():
    given = stack(n=np.full(5, 3, np.int32), most=3)
    results, _ = ensemble.run(TRAINING, [given], lanes=4, devices=ONE)
    check(results, [alone(i, 3) for i in range(5)])


@pytest.mark.parametrize("lanes", [1, 3])
def test_steps_may_be_those_of_each_network(lanes):
    steps = [4, NO_LIMIT, 7, 1, NO_LIMIT]
    given = stack(steps=np.array(steps, np.int32))
    results, _ = ensemble.run(TRAINING, [given], lanes=lanes, devices=ONE)
    limits = [None if x == NO_LIMIT else x for x in steps]
    check(results, [alone(i, steps=limit) for i, limit in enumerate(limits)])


@pytest.mark.parametrize("lanes", [1, 3])
def test_examples_of_a_stack_lie_among_shared_inputs(lanes):
    w, mask, (x, y), key = make(jnp.arange(5))
    pool = np.asarray(x).reshape(-1, DIM)
    index = np.arange(5 * ROOM, dtype=np.int32).reshape(5, ROOM)
    given = ensemble.Networks(w, mask, Examples(None, index, (y,)), key)
    run = {"lanes": lanes, "devices": ONE}
    results, _ = ensemble.run(TRAINING, [given], inputs=pool, **run)
    check(results, [alone(i) for i in range(5)])
    with pytest.raises(ValueError, match="no inputs, and the run has none for all"):
        ensemble.run(TRAINING, [given], **run)


def test_jobs_and_stacks_of_one_shape_share_lanes_and_keep_their_places():
    w, mask, (x, y), key = network(1)
    job = ensemble.Job(w, mask, (x, y), key)
    filled_up = stack(tags=["a", "b"])  # of five networks two
    results, stats = ensemble.run(TRAINING, [job, filled_up, job], lanes=2, devices=ONE)
    assert stats.networks == 4
    check(results, [alone(i) for i in (1, 0, 1, 1)])


@pytest.mark.parametrize("lanes", [1, 3])
def test_networks_that_ended_together_are_handed_over_stacked(lanes):
    """And what follows from them is trained, too."""
    ended = {}

    def follow(tags, results):
        assert isinstance(results.history["loss"], np.ndarray)
        for i, tag in enumerate(tags):
            ended[tag] = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), results)
        first = [i for i, tag in enumerate(tags) if isinstance(tag, int)]
        if not first:
            return None
        rows = np.array([tags[i] for i in first])
        _, _, data, key = jax.tree.map(lambda leaf: leaf[rows], make(jnp.arange(5)))
        params, mask = jax.tree.map(
            lambda leaf: leaf[np.array(first)], (results.params, results.mask)
        )
        names = [f"again {row}" for row in rows]
        return [ensemble.Networks(params, mask, data, key, 3, tags=names)]

    run = {"lanes": lanes, "devices": ONE, "on_ended": follow}
    results, stats = ensemble.run(TRAINING, [stack(tags=range(5))], **run)
    assert results == [] and stats.networks == 10
    check([ended[i] for i in range(5)], [alone(i) for i in range(5)])
    for i in range(5):
        _, mask, (x, y), key = network(i)
        again = train(TRAINING, alone(i).params, mask, (x, y), key, steps=3)
        np.testing.assert_allclose(ended[f"again {i}"].params, again.params, atol=1e-5)


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_summary_is_measured_on_the_device_and_weights_stay_there(lanes):
    def summary(result, data, scale):
        counts = jnp.arange(len(data.examples.index)) < data.n
        ones = jnp.sum(jnp.where(counts, data.examples.labels[0], 0))
        return {"norm": scale * jnp.sum(result.params**2), "ones": ones}

    given = stack(n=jnp.asarray(SIZES))
    results, _ = ensemble.run(
        TRAINING,
        [given],
        lanes=lanes,
        devices=ONE,
        summary=summary,
        measured_on=np.float32(2.0),
        weights=False,
    )
    for i, (n, result) in enumerate(zip(SIZES, results, strict=True)):
        norm = 2 * np.sum(np.square(alone(i, n).params))
        np.testing.assert_allclose(result.summary["norm"], norm, rtol=1e-4)
        y = make(jnp.arange(5))[2][1][i]
        assert result.summary["ones"] == int(y[:n].sum())
        assert lanes == 1 or (result.params is None and result.mask is None)


class AtOnce(concurrent.futures.Executor):
    """What runs a call where it is submitted."""

    def submit(self, fn, /, *args, **kwargs):
        future = concurrent.futures.Future()
        future.set_result(fn(*args, **kwargs))
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        pass


def test_lanes_grow_fewer_in_the_tail_and_as_many_again(monkeypatch):
    """Two networks are trained long; when one of them ends, seven more follow."""
    monkeypatch.setattr(many_lanes, "PATIENCE", 1)
    monkeypatch.setattr(
        concurrent.futures, "ThreadPoolExecutor", lambda count: AtOnce()
    )
    widths = []
    turn = many_lanes.Lanes.turn
    monkeypatch.setattr(
        many_lanes.Lanes,
        "turn",
        lambda self: widths.append(self.programs.width) or turn(self),
    )
    steps = np.array([900, 200, *[1] * 6], np.int32)
    seven = ensemble.Networks(*make(jnp.arange(1, 8)))

    def follow(job, result):
        return [seven._replace(tags=[None] * 7)] if job.tag == 1 else None

    first = ensemble.Networks(*make(jnp.arange(8)), steps, tags=range(8))
    results, stats = ensemble.run(
        TRAINING, [first], lanes=8, devices=ONE, on_finish=follow
    )
    assert [width for width, _ in itertools.groupby(widths)] == [8, 2, 1, 8, 1]
    assert stats.networks == 15
    check(results[:2], [alone(0, steps=900), alone(1, steps=200)])


def test_stacks_over_two_devices_give_what_one_gives_bit_by_bit():
    assert len(jax.local_devices()) > 1
    one, _ = ensemble.run(TRAINING, [stack()], lanes=2, devices=ONE)
    two, _ = ensemble.run(TRAINING, [stack()], lanes=2)
    for a, b in zip(one, two, strict=True):
        for x, y in zip(
            *(jax.tree.leaves(r._replace(seconds=0)) for r in (a, b)), strict=True
        ):
            np.testing.assert_array_equal(x, y)


def test_a_stack_that_cannot_be_trained_is_refused_network_by_network():
    failed = []
    bad = stack(tags=["x", "y"])._replace(mask=make(jnp.arange(5))[0])
    uneven = stack(tags=["z"])._replace(key=make(jnp.arange(3))[3])
    results, _ = ensemble.run(
        TRAINING,
        [bad, stack(2), uneven],
        lanes=2,
        on_error=lambda row, error: failed.append((row.tag, str(error))),
    )
    assert len(results) == 2
    assert [tag for tag, _ in failed] == ["x", "y", "z"]
    assert "mask" in failed[0][1] and "leading sizes [3, 5]" in failed[2][1]
    with pytest.raises(ValueError, match="6 tags, expected at most 5"):
        ensemble.run(TRAINING, [stack(tags=range(6))], lanes=2)


def test_a_slow_network_does_not_keep_the_whole_stack_on_the_device():
    """Nor does it end otherwise."""
    count, at_end = 37, {}  # no other array is as long
    steps = np.array([900, 300, *[2] * (count - 2)], np.int32)

    def stacks():
        yield stack(count, steps=steps, tags=range(count))

    def ended(row, result):
        gc.collect()
        long = [x for x in jax.live_arrays() if x.shape[:1] == (count,)]
        at_end[row.tag] = (len(long), result)

    ensemble.run(TRAINING, stacks(), lanes=40, devices=ONE, on_finish=ended)
    assert at_end[2][0] > 0 and at_end[1][0] == 0 and at_end[0][0] == 0
    check([at_end[i][1] for i in (0, 1)], [alone(0, steps=900), alone(1, steps=300)])


def test_slow_networks_start_anew_from_what_is_left_of_their_stack(monkeypatch):
    steps = np.array([900, 600, *[2] * 14], np.int32)
    turn, turns = many_lanes.Lanes.turn, []

    def full_once(self):
        turns.append(self.programs.width)
        if len(turns) == 6:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return turn(self)

    monkeypatch.setattr(many_lanes.Lanes, "turn", full_once)
    monkeypatch.setattr(many_lanes, "PATIENCE", 10**9)
    given = ensemble.Networks(*make(jnp.arange(16)), steps)
    results, stats = ensemble.run(TRAINING, [given], lanes=16, devices=ONE)
    assert turns[:7] == [*[16] * 6, 8] and stats.networks == 16
    check(results[:2], [alone(0, steps=900), alone(1, steps=600)])
