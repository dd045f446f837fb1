import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfp_jax import ensemble, masks, models, scores, training
from nfp_jax.engine.examples import epoch_order
from nfp_jax.pruners.contract import MaskUpdate
from nfp_jax.training import Progress, make_training, train

N, DIM, CLASSES = 20, 5, 3
MODEL = models.MLP(CLASSES, widths=(8,))
LOSS = scores.classification_loss(MODEL.apply)
METRICS = training.classification_metrics(MODEL.apply)
PARAMS = models.initialize(MODEL, jax.random.key(0), (DIM,))
MASK = masks.top_k(scores.magnitude()(PARAMS), 30)
X = np.asarray(jax.random.normal(jax.random.key(1), (N, DIM)))
DATA = (X, np.asarray(jax.random.randint(jax.random.key(2), (N,), 0, CLASSES)))
KEY = jax.random.key(3)

pytestmark = pytest.mark.usefixtures("one_device")


def never(progress):
    return progress.epoch < 0


def make(optimizer=None, **options):
    options = {"batch_size": 8, "max_epochs": 3, "stop": never, **options}
    return make_training(
        LOSS, optimizer or optax.adam(0.01), metrics_fn=METRICS, **options
    )


ADAM = make()  # one for all that want no other: it is compiled once


@jax.jit
@jax.grad
def gradient_of(params, mask, batch):
    return LOSS(masks.apply_mask(params, mask), batch)


def by_hand(optimizer, epochs, batch_size=8, mask=MASK, steps=None):
    """The same training as a plain loop: a mask in the forward pass, slices of an
    explicit permutation, the last smaller batch by its own mean."""
    params = masks.apply_mask(PARAMS, mask)
    state, done = optimizer.init(params), 0
    for epoch in range(epochs):
        bits = jax.random.bits(jax.random.fold_in(KEY, epoch), (N,), jnp.uint32)
        order = np.argsort(bits, kind="stable")
        for start in range(0, N, batch_size):
            if done == steps:
                return params
            index = order[start : start + batch_size]
            gradient = gradient_of(params, mask, (DATA[0][index], DATA[1][index]))
            updates, state = optimizer.update(gradient, state, params)
            params = masks.apply_mask(optax.apply_updates(params, updates), mask)
            done += 1
    return params


def assert_close(a, b, tolerance=1e-5):
    """1e-5: the same operations in another order, over some ten steps."""
    jax.tree.map(
        lambda u, v: np.testing.assert_allclose(u, v, atol=tolerance, rtol=0), a, b
    )


@pytest.mark.parametrize("batch_size", [8, 5, 20, 64])
def test_training_equals_a_plain_loop_over_batches(batch_size):
    """20 points: batches with a smaller last one, without one, one batch, too large."""
    optimizer = optax.adam(0.01)
    result = train(make(batch_size=batch_size), PARAMS, MASK, DATA, KEY)
    expected = by_hand(optimizer, 3, batch_size=min(batch_size, N))
    assert_close(result.params, expected)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adamw(0.01, weight_decay=0.1),
        optax.sgd(0.1, momentum=0.9),
        optax.chain(optax.add_decayed_weights(0.1), optax.sign_sgd(0.1)),
        optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.01)),
    ],
    ids=["adamw", "momentum", "sign", "clipped"],
)
def test_pruned_weights_stay_exactly_zero(optimizer):
    result = train(make(optimizer), PARAMS, MASK, DATA, KEY)
    params, start, mask = jax.device_get((result.params, PARAMS, MASK))
    removed = jax.tree.map(lambda p, m: p[~m], params, mask)
    assert all(np.all(leaf == 0.0) for leaf in jax.tree.leaves(removed))
    moved = jax.tree.map(lambda p, q, m: np.any((p != q)[m]), params, start, mask)
    assert moved["params"]["Dense_0"]["kernel"]


def test_pruned_weights_do_not_count_in_the_norm_that_clips():
    optimizer = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1))
    assert_close(
        train(make(optimizer), PARAMS, MASK, DATA, KEY).params, by_hand(optimizer, 3)
    )


def test_metrics_are_those_of_the_network_at_the_end_of_each_epoch():
    result = train(ADAM, PARAMS, MASK, DATA, KEY)
    for epoch in range(3):
        params = by_hand(optax.adam(0.01), epoch + 1)
        logits = MODEL.apply(params, X)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, DATA[1]).mean()
        accuracy = jnp.mean(jnp.argmax(logits, axis=1) == DATA[1])
        assert float(result.history["loss"][epoch]) == pytest.approx(float(loss), 1e-5)
        assert float(result.history["accuracy"][epoch]) == pytest.approx(
            float(accuracy)
        )
    assert float(result.metrics["loss"]) == float(result.history["loss"][2])


@pytest.mark.parametrize("steps", [0, 1, 3, 4, 7])
def test_the_weights_of_a_step_are_those_on_the_way(steps):
    """3 steps an epoch, the third on the smaller batch."""
    early = train(ADAM, PARAMS, MASK, DATA, KEY, steps=steps)
    assert_close(early.params, by_hand(optax.adam(0.01), 3, steps=steps))


def test_the_outcome_depends_on_the_arguments_alone():
    twice = [train(own, PARAMS, MASK, DATA, KEY) for own in (ADAM, make())]
    jax.tree.map(np.testing.assert_array_equal, twice[0].params, twice[1].params)
    other = train(ADAM, PARAMS, MASK, DATA, jax.random.key(4))
    assert not np.array_equal(twice[0].history["loss"], other.history["loss"])


def test_vmap_over_masks_and_keys_equals_a_loop():
    own = ADAM
    keys = jax.random.split(KEY, 2)
    other = masks.top_k(scores.random()(PARAMS, key=KEY), 30)
    stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), MASK, other)
    both = jax.vmap(lambda mask, key: train(own, PARAMS, mask, DATA, key))(
        stacked, keys
    )
    for i, mask in enumerate([MASK, other]):
        one = train(own, PARAMS, mask, DATA, keys[i])
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], both.params), one.params)


def test_another_mask_or_key_does_not_compile_again():
    traced = []

    def loss(params, batch):
        traced.append(1)
        return LOSS(params, batch)

    own = make_training(
        loss, optax.adam(0.01), metrics_fn=METRICS, batch_size=8, max_epochs=1
    )
    train(own, PARAMS, MASK, DATA, KEY)
    count = len(traced)
    train(own, PARAMS, masks.dense_mask(PARAMS), DATA, jax.random.key(9))
    assert len(traced) == count


def test_a_loss_that_is_not_finite_ends_the_training_as_diverged():
    result = train(make(optax.sgd(1e30), max_epochs=10), PARAMS, MASK, DATA, KEY)
    assert bool(result.diverged) and not bool(result.converged)
    assert int(result.epochs) < 10
    assert not np.isfinite(result.metrics["loss"])


@functools.lru_cache
def of_scripts(stop, each, epochs):
    """A training of ``each`` steps an epoch whose data hold the metrics of its epochs:
    ``[each, epochs]`` of losses and of accuracies, the same for every example."""

    def metrics(params, data):
        # The one weight counts the steps.
        epoch = jnp.round(params[0, 0] / each).astype(int) - 1
        return {
            name: jnp.mean(jnp.take(values, epoch, axis=1))
            for name, values in zip(("loss", "accuracy"), data, strict=True)
        }

    return make_training(
        lambda params, batch: 0.0 * jnp.sum(params) + 0.0 * jnp.sum(batch[0]),
        optax.stateless(lambda updates, params: jax.tree.map(jnp.ones_like, params)),
        metrics_fn=metrics,
        batch_size=1,
        max_epochs=epochs,
        stop=stop,
    )


ZERO = np.zeros((1, 1), np.float32)


def script(losses, accuracies, each):
    return tuple(
        np.tile(np.asarray(values, np.float32), (each, 1))
        for values in (losses, accuracies)
    )


def end_of(losses, accuracies, stop, each=1):
    """How many epochs the training of a script runs, and whether it converged."""
    data = script(losses, accuracies, each)
    result = train(of_scripts(stop, each, len(losses)), ZERO, ZERO == 0, data, KEY)
    return int(result.epochs), bool(result.converged)


STILL = training.stop_when_still()  # once, and so is the program
FALLING = [5.0 - 0.1 * i for i in range(20)]


def test_still_stops_after_three_epochs_without_change_but_not_before_ten():
    rising = [0.05 * i for i in range(12)] + [0.6] * 8
    # Epoch 13 repeats nothing yet (0.55 -> 0.6); 14, 15, 16 do.
    assert end_of(FALLING, rising, STILL) == (16, True)
    assert end_of(FALLING, [0.5] * 20, STILL) == (10, True)


def test_still_stops_at_accuracy_one_but_not_before_ten():
    rising = [0.05 * i for i in range(11)] + [1.0] * 9
    assert end_of(FALLING, rising, STILL) == (12, True)
    ones = [0.5] * 2 + [1.0] * 18
    assert end_of(FALLING, ones, STILL) == (10, True)


def test_a_budget_that_runs_out_is_not_convergence():
    rising = [0.04 * i for i in range(20)]
    assert end_of(FALLING, rising, STILL) == (20, False)


@pytest.mark.parametrize(
    ("converged", "diverged", "expected"),
    [(False, False, True), (True, False, False), (False, True, False)],
)
def test_out_of_budget_is_neither_converged_nor_diverged(converged, diverged, expected):
    flags = np.bool_(converged), np.bool_(diverged)
    assert training.TrainResult(None, {}, {}, 1, *flags).out_of_budget == expected


# Settled under doubling

EPOCHS = 26


def settled_by_hand(losses, accuracies, each, *, share, first, rise, fall, min_steps):
    """The definition, over a list of the doublings T."""
    doublings = {2 * first * 2**k: first * 2**k for k in range(8)}
    for epoch in range(1, EPOCHS + 1):
        loss, accuracy = losses[epoch - 1], accuracies[epoch - 1]
        if accuracy >= share:
            return epoch, True
        if epoch in doublings and epoch * each >= min_steps:
            before = doublings[epoch] - 1
            rose = accuracy - accuracies[before]
            fell = losses[before] - loss
            if rose < rise and fell < fall * losses[before]:
                return epoch, True
    return EPOCHS, False


RULES = [
    {"share": 1.0, "first": 1, "rise": 1 / 16, "fall": 1 / 4, "min_steps": 0},
    {"share": 1.0, "first": 3, "rise": 1 / 8, "fall": 1 / 2, "min_steps": 20},
    {"share": 7 / 8, "first": 2, "rise": 1 / 4, "fall": 1 / 8, "min_steps": 8},
]
STOPS = [training.stop_when_settled(**rule) for rule in RULES]


@st.composite
def scripts(draw):
    """Losses and accuracies that move seldom: in sixteenths, so that float32 is exact
    and the bounds of the rules are met."""
    losses, accuracies = [8.0], [0.5]
    for _ in range(EPOCHS - 1):
        losses.append(max(losses[-1] - draw(st.sampled_from([0, 0, 0, 0.5, 2])), 0.5))
        step = draw(st.sampled_from([0, 0, 0, 0, 1, 1, -1, 2])) / 16
        accuracies.append(min(max(accuracies[-1] + step, 0.0), 1.0))
    return losses, accuracies


@pytest.mark.parametrize("rule", range(len(RULES)))
@pytest.mark.parametrize("each", [1, 2])
@given(history=scripts())
def test_settled_ends_where_the_definition_says(rule, each, history):
    expected = settled_by_hand(*history, each, **RULES[rule])
    assert end_of(*history, STOPS[rule], each) == expected


def test_settled_ends_at_every_doubling_and_nowhere_else():
    """A rise in each octave but the last: 3, 6, 12 are passed, at 24 it has settled."""
    settled = training.stop_when_settled(first=3, min_steps=0)
    rising = [0.1] * 4 + [0.2] * 4 + [0.3] * 18
    assert end_of([1.0] * EPOCHS, rising, settled) == (24, True)
    falling = [4.0] * 3 + [2.0] * 6 + [1.0] * 17
    assert end_of(falling, [0.5] * EPOCHS, settled) == (24, True)
    assert end_of([1.0] * EPOCHS, [0.5] * EPOCHS, settled) == (6, True)


def test_settled_ends_at_accuracy_one_however_early():
    fitted = [0.5, 0.5, 1.0] + [0.5] * 23
    stop = training.stop_when_settled()
    assert end_of([1.0] * EPOCHS, fitted, stop) == (3, True)


def test_settled_is_not_looked_at_before_so_many_steps():
    """Doublings at 2, 4, 8, 16: of two steps an epoch, the 8th step ends the 4th."""
    flat = [1.0] * EPOCHS, [0.5] * EPOCHS
    for least, each, expected in ((8, 1, 8), (9, 1, 16), (8, 2, 4), (9, 2, 8)):
        stop = training.stop_when_settled(first=1, min_steps=least)
        assert end_of(*flat, stop, each) == (expected, True)


def doubled(accuracy=0.7, half_accuracy=0.7, loss=0.6, half_loss=0.6):
    """Whether a training of 100 epochs has settled by the rule of the claims."""
    progress = Progress(
        100, loss, loss, accuracy, 0, half_loss, half_accuracy, step=1600
    )
    return bool(training.stop_when_settled()(progress))


def test_settled_wants_a_rise_below_half_a_percent_and_a_fall_below_five():
    assert doubled() and doubled(accuracy=0.7049) and doubled(loss=0.5705)
    assert not doubled(accuracy=0.7051) and not doubled(loss=0.5695)
    # What falls in accuracy, or rises in loss, does not climb.
    assert doubled(accuracy=0.6, loss=0.7)
    assert not doubled(accuracy=0.6, loss=0.5695)
    # At the bound itself it still climbs: powers of 2 have no rounding.
    stop = training.stop_when_settled(rise=1 / 8, fall=1 / 4, min_steps=0)
    at = Progress(100, 4.0, 4.0, 0.75, 0, 4.0, 0.625)
    assert not bool(stop(at)) and bool(stop(at._replace(half_accuracy=0.6875)))
    assert not bool(stop(at._replace(half_accuracy=0.75, loss=3.0)))


def test_settled_is_the_rule_unless_another_is_given():
    """One step an epoch: 1000 steps end before the doubling at 1600 epochs."""
    flat = [1.0] * 1700, [0.5] * 1700
    assert end_of(*flat, None) == (1600, True)


@pytest.mark.parametrize("each", [1, 2])
def test_a_rule_sees_the_metrics_of_half_as_many_epochs_and_the_steps(each):
    losses = [100.0 - epoch for epoch in range(1, EPOCHS + 1)]
    accuracies = [epoch / 64 for epoch in range(1, EPOCHS + 1)]

    def differs(progress):
        half = progress.epoch // 2
        wrong = (progress.half_accuracy != half / 64) | (
            progress.half_loss != 100.0 - half
        )
        unknown = jnp.isnan(progress.half_loss) & jnp.isnan(progress.half_accuracy)
        wrong = jnp.where(progress.epoch == 1, ~unknown, wrong)
        return wrong | (progress.step != each * progress.epoch)

    assert end_of(losses, accuracies, differs, each) == (EPOCHS, False)


def test_settled_under_vmap_and_in_lanes_is_settled_one_by_one():
    # Each climbs for some epochs, by 1/32 in each, and settles at a later doubling.
    histories = [
        script([8.0] * EPOCHS, 0.125 + np.minimum(range(EPOCHS), climbs) / 32, 2)
        for climbs in (0, 9, 3, 1, 25, 0, 5)
    ]
    stop = training.stop_when_settled(first=2, rise=1 / 32, min_steps=0)
    own = of_scripts(stop, 2, EPOCHS)
    alone = [train(own, ZERO, ZERO == 0, data, KEY) for data in histories]
    ends = [int(result.epochs) for result in alone]
    assert ends == [4, 26, 8, 4, 26, 4, 16]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *histories)
    both = jax.vmap(lambda data: train(own, ZERO, ZERO == 0, data, KEY))(stacked)
    jobs = [ensemble.Job(ZERO, ZERO == 0, data, KEY) for data in histories]
    lanes, _ = ensemble.run(own, jobs, lanes=3)
    for results in (
        [jax.tree.map(operator.itemgetter(i), both) for i in range(len(alone))],
        lanes,
    ):
        for one, result in zip(alone, results, strict=True):
            assert int(result.epochs) == int(one.epochs)
            assert bool(result.converged) == bool(one.converged)
            jax.tree.map(np.testing.assert_array_equal, result.history, one.history)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": 0.0}, "share is 0.0, expected 0 < share <= 1"),
        ({"share": 1.01}, "share is 1.01, expected 0 < share <= 1"),
        ({"rise": 0.0}, "rise is 0.0, expected 0 < rise <= 1"),
        ({"rise": float("nan")}, "rise is nan, expected 0 < rise <= 1"),
        ({"fall": -0.1}, "fall is -0.1, expected 0 < fall <= 1"),
        ({"fall": 1.5}, "fall is 1.5, expected 0 < fall <= 1"),
        ({"first": 0}, "first is 0, expected at least 1"),
    ],
)
def test_settled_refuses_what_makes_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        training.stop_when_settled(**arguments)


def test_fitted_stops_at_the_first_epoch_with_the_share_whatever_else():
    rising = [0.5, 0.5, 0.5, 0.5, 0.98, 0.99, 1.0] + [1.0] * 13
    stop = training.stop_when_fitted(0.99)
    assert end_of(FALLING, rising, stop) == (6, True)
    assert end_of(FALLING, [0.98] * 20, stop) == (20, False)
    assert end_of(FALLING, [1.0] * 20, stop) == (1, True)


def stops_at(count, n, share):
    accuracy = np.float32(count) / np.float32(n)
    return bool(training.stop_when_fitted(share)(Progress(1, 0.5, 0.5, accuracy, 0)))


@given(st.integers(1, 40_000), st.sampled_from([51, 90, 95, 99, 100]))
def test_fitted_counts_labels_whatever_the_rounding(n, hundredths):
    needed = -(-hundredths * n // 100)
    assert stops_at(needed, n, hundredths / 100)
    assert not stops_at(needed - 1, n, hundredths / 100)


def test_fitted_wants_every_label_where_the_share_is_just_above_one_less():
    """0.99 of 30,099 is 29,798.01: a search told so stopped at 29,798, unfitted."""
    assert stops_at(29_799, 30_099, 0.99) and not stops_at(29_798, 30_099, 0.99)


def test_a_budget_of_steps_is_the_same_for_sets_of_all_sizes():
    """7 steps of batches of 8, looked at after each epoch; and 5 epochs at most."""
    own = make(max_steps=7, max_epochs=5)
    for n, epochs in ((3, 5), (8, 5), (17, 3), (20, 3)):
        result = train(own, PARAMS, MASK, on(n), KEY)
        assert int(result.epochs) == epochs
        assert not result.converged and not result.diverged
    # The steps to rewind to are as many as asked for.
    assert int(train(own, PARAMS, MASK, DATA, KEY, steps=13).epochs) == 5


def test_a_training_that_converges_in_the_last_step_of_its_budget_has_converged():
    own = make(max_steps=6, stop=lambda progress: progress.epoch >= 2)
    result = train(own, PARAMS, MASK, DATA, KEY)
    assert int(result.epochs) == 2 and bool(result.converged)


def test_the_papers_rule_stops_when_the_loss_stands_or_the_accuracy_does():
    rising = [0.04 * i for i in range(20)]
    losses = [3.0, 2.0, 1.5, 1.495] + [1.0] * 16
    stop = training.stop_as_paper()
    assert end_of(losses, rising, stop) == (4, True)
    still = [0.1, 0.2, 0.2, 0.2, 0.2] + [0.3] * 15
    assert end_of(FALLING, still, stop) == (5, True)


def test_the_papers_rule_does_not_stop_at_the_first_epoch():
    first = Progress(jnp.int32(1), jnp.float32(0.5), jnp.inf, jnp.float32(0.5), 0)
    assert not bool(training.stop_as_paper()(first))


def on(n):
    return (X[:n], DATA[1][:n])


def test_sizes_that_pad_to_the_same_one_share_a_program():
    traced = []

    def loss(params, batch):
        traced.append(1)
        return LOSS(params, batch)

    own = make_training(
        loss, optax.adam(0.01), metrics_fn=METRICS, batch_size=2, max_epochs=2
    )
    train(own, PARAMS, MASK, on(20), KEY)
    count = len(traced)
    train(own, PARAMS, MASK, on(18), KEY)
    train(own, PARAMS, MASK, on(17), KEY)
    assert len(traced) == count


def test_padding_changes_nothing():
    """9 examples padded to 10 and to 20; to rounding, since sums have more zeros."""
    own, short = make(batch_size=4), on(9)
    whole = training.pad(short, 4)
    more = jax.tree.map(
        lambda a: jnp.pad(a, [(0, 11)] + [(0, 0)] * (a.ndim - 1)), short
    )

    def padded(x, y):
        return training.Padded(
            training.Examples(x, jnp.arange(20, dtype=jnp.int32), (y,)), np.int32(9)
        )

    results = [
        training.run_training(own, PARAMS, MASK, examples, KEY, training.NO_LIMIT)
        for examples in (whole, padded(more[0], more[1]))
    ]
    assert_close(results[0].params, results[1].params, 1e-6)
    assert_close(results[0].metrics, results[1].metrics, 1e-6)
    # What stands in the padding is never looked at, not even where it is NaN.
    bad = padded(more[0].at[9:].set(jnp.nan), more[1])
    again = training.run_training(own, PARAMS, MASK, bad, KEY, training.NO_LIMIT)
    jax.tree.map(np.testing.assert_array_equal, again.params, results[1].params)
    jax.tree.map(np.testing.assert_array_equal, again.metrics, results[1].metrics)


def test_metrics_in_chunks_are_those_of_the_whole():
    whole = train(ADAM, PARAMS, MASK, DATA, KEY)
    for chunk in (3, 5, 20):
        own = make(evaluate_at_once=chunk)
        assert_close(train(own, PARAMS, MASK, DATA, KEY).history, whole.history, 1e-6)


def test_inputs_are_fetched_by_index_shared_or_not():
    index = jnp.array([3, 1, 4, 15, 9, 2, 6, 5])
    made = make(batch_size=3)
    labels = (DATA[1][index],)
    direct = train(made, PARAMS, MASK, (X[index], labels[0]), KEY)
    for inputs, shared in ((X, None), (None, X)):
        examples = training.Examples(inputs, index, labels)
        found = train(made, PARAMS, MASK, examples, KEY, inputs=shared)
        jax.tree.map(np.testing.assert_array_equal, found, direct)


def test_examples_that_lack_inputs_or_an_index_are_refused():
    made, index = make(batch_size=3), jnp.arange(8)
    with pytest.raises(ValueError, match="the examples have no inputs, and the run"):
        train(made, PARAMS, MASK, training.Examples(None, index, ()), KEY)
    with pytest.raises(ValueError, match=r"index is .*, expected an integer array"):
        train(made, PARAMS, MASK, training.Examples(X, X[:8, 0], ()), KEY)
    with pytest.raises(ValueError, match="inputs are given, expected data to be Exam"):
        train(made, PARAMS, MASK, on(4), KEY, inputs=X)
    with pytest.raises(ValueError, match="leading sizes"):
        train(made, PARAMS, MASK, training.Examples(X, index, (DATA[1],)), KEY)


# A mask that moves


def rotate(count):
    """Moves the mask: the smallest weights kept go, the steepest removed ones come."""

    def update(state, params, mask, gradient_fn, epoch):
        gradient = gradient_fn(params)
        weights = masks.ravel_mask(jax.tree.map(jnp.abs, params))
        slopes = masks.ravel_mask(jax.tree.map(jnp.abs, gradient))
        flat = masks.ravel_mask(mask)
        goes = jnp.argsort(jnp.where(flat, weights, jnp.inf))[:count]
        comes = jnp.argsort(jnp.where(flat, -jnp.inf, slopes))[-count:]
        flat = flat.at[goes].set(False).at[comes].set(True)
        return state + 1, masks.unravel_mask(flat, params)

    return MaskUpdate(
        start=None, init=lambda params, mask, key: jnp.int32(0), update=update
    )


def test_a_mask_moves_after_every_epoch_and_new_weights_start_at_zero():
    """RigL's move by hand: after an epoch, with moments at 0 where a weight came."""
    update = rotate(3)
    optimizer = optax.adam(0.01)
    made = make(optimizer, max_epochs=1, mask_update=update)
    result = train(made, PARAMS, MASK, DATA, KEY)
    stayed = by_hand(optimizer, epochs=1)
    bits = jax.random.bits(jax.random.fold_in(KEY, 0), (N,), jnp.uint32)
    batch = np.argsort(bits, kind="stable")[:8]
    first = (DATA[0][batch], DATA[1][batch])
    gradient_fn = jax.jit(lambda params: jax.grad(LOSS)(params, first))
    _, mask = jax.jit(update.update, static_argnums=3)(0, stayed, MASK, gradient_fn, 0)
    jax.tree.map(np.testing.assert_array_equal, result.mask, mask)
    both = jax.tree.map(jnp.logical_and, mask, MASK)
    assert_close(result.params, masks.apply_mask(stayed, both))
    assert int(masks.ravel_mask(result.mask).sum()) == 30
    # In the state: a second epoch from moments that are 0 where a weight came or left.
    state = made.init(PARAMS, MASK, training.pad(DATA, 8), KEY)
    state = jax.jit(made.epoch)(state, training.pad(DATA, 8))
    adam = state.opt_state[0]
    for moment in (adam.mu, adam.nu):
        jax.tree.map(
            lambda leaf, kept: np.testing.assert_array_equal(leaf[~kept], 0),
            moment,
            both,
        )
    assert int(state.moving) == 1 and int(adam.count) == 3


def test_moving_masks_in_lanes_are_those_of_one_lane():
    """1e-6: sums in another order, over some ten steps."""
    made = make(max_epochs=4, mask_update=rotate(2))
    jobs = [
        ensemble.Job(PARAMS, MASK, DATA, jax.random.key(seed), steps=steps)
        for seed, steps in ((0, None), (1, 5), (2, None), (3, None))
    ]
    alone, _ = ensemble.run(made, jobs)
    lanes, _ = ensemble.run(made, jobs, lanes=3)
    for one, other in zip(alone, lanes, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one.mask, other.mask)
        assert_close(one.params, other.params, 1e-6)
        outside = jax.tree.map(lambda p, m: p * ~m, one.params, one.mask)
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(outside))


def test_every_epoch_goes_through_all_examples_once():
    for n in (1, 7, 10):
        order = epoch_order(KEY, 2, n, 10)
        assert sorted(order[:n].tolist()) == list(range(n))


@given(st.integers(1, 5000), st.integers(1, 200))
def test_padded_sizes_are_few_and_near(n, batch_size):
    size = training.padded_size(n, batch_size)
    steps = -(-n // batch_size)
    assert size >= n
    if n > batch_size:
        assert size % batch_size == 0 and size // batch_size <= steps * 1.25
    else:
        assert size <= max(2 * n - 1, 8) and size <= batch_size


def test_a_single_batch_has_few_sizes():
    for batch_size, sizes in ((64, {8, 16, 32, 64}), (20, {8, 16, 20}), (3, {3})):
        found = {training.padded_size(n, batch_size) for n in range(1, batch_size + 1)}
        assert found == sizes


def test_logits_in_chunks_equal_those_of_the_whole():
    whole = MODEL.apply(PARAMS, X)
    for chunk in (3, 5, 20, 100):
        np.testing.assert_allclose(
            training.logits_in_chunks(MODEL.apply, PARAMS, X, chunk), whole, atol=1e-6
        )


def test_refusals_name_what_is_wrong():
    with pytest.raises(ValueError, match="batch_size is 0, expected at least 1"):
        make(batch_size=0)
    with pytest.raises(ValueError, match="max_epochs is 0, expected at least 1"):
        make(max_epochs=0)
    with pytest.raises(ValueError, match="max_steps is 0, expected at least 1"):
        make(max_steps=0)
    with pytest.raises(ValueError, match="evaluate_at_once is 0"):
        make(evaluate_at_once=0)
    with pytest.raises(ValueError, match=r"returns shape \(1,\), expected a scalar"):
        vector = lambda params, batch: LOSS(params, batch)[None]  # noqa: E731
        own = make_training(vector, optax.sgd(0.1), metrics_fn=METRICS)
        train(own, PARAMS, MASK, DATA, KEY)
    with pytest.raises(ValueError, match=r"leading sizes .*'0': .*20.*'1': .*19"):
        train(ADAM, PARAMS, MASK, (X, DATA[1][:19]), KEY)
    with pytest.raises(ValueError, match="expected loss and accuracy"):
        own = make_training(LOSS, optax.sgd(0.1), metrics_fn=lambda p, d: {"loss": 0.0})
        train(own, PARAMS, MASK, DATA, KEY)
    with pytest.raises(ValueError, match="mask has no leaf 'params/Dense_1/kernel'"):
        broken = {"params": {**MASK["params"], "Dense_1": {"bias": jnp.ones(3, bool)}}}
        train(ADAM, PARAMS, broken, DATA, KEY)
