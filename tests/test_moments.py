"""Moments in bfloat16: their rounding, and trainings with them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nfp_jax import ensemble, masks, models, scores, training
from nfp_jax.engine import lanes
from nfp_jax.engine.moments import dithered, round_by
from nfp_jax.engine.shapes import shapes_of
from nfp_jax.lab.trainer import training_of
from nfp_jax.pruners.contract import MaskUpdate
from nfp_jax.spec import Spec
from nfp_jax.training import bfloat16_moments, make_training, train

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


def make(optimizer, **options):
    options = {"batch_size": 8, "max_epochs": 30, **options}
    return make_training(
        LOSS,
        optimizer,
        metrics_fn=METRICS,
        stop=lambda progress: progress.epoch < 0,
        **options,
    )


PLAIN = make(optax.adam(0.01))
HALF = make(bfloat16_moments(optax.adam(0.01)))


def equal(a, b):
    """Bit by bit, NaN too."""
    same = jax.tree.map(
        lambda x, y: np.asarray(x).tobytes() == np.asarray(y).tobytes(), a, b
    )
    return all(jax.tree.leaves(same))


def assert_close(a, b, tolerance):
    jax.tree.map(
        lambda u, v: np.testing.assert_allclose(u, v, atol=tolerance, rtol=0), a, b
    )


def dtypes(tree):
    return [str(leaf.dtype) for leaf in jax.tree.leaves(tree)]


# Rounding


def test_a_value_is_rounded_up_in_as_many_steps_as_it_is_far_up():
    """To 4 steps: multiples of the golden ratio were uneven by 3.5 at most in 5,000
    steps. Rounding at random would miss by 12 of 610."""
    values = np.random.default_rng(0).normal(size=200).astype(np.float32)
    steps = jnp.arange(610)
    rounded = np.asarray(jax.vmap(dithered, (None, 0))(values, steps), np.float64)
    gaps = 2.0 ** (np.frexp(values)[1] - 8)  # to the neighbor in bfloat16
    assert np.all(np.abs(rounded - values) < gaps)
    assert np.all(np.abs(rounded.mean(axis=0) - values) <= gaps * 4 / 610)


@pytest.mark.parametrize("threshold", [0, 1, 0x8000, 0xFFFF])
def test_numbers_of_bfloat16_infinities_and_nan_stay(threshold):
    numbers = [0.0, -0.0, 1.0, -1.5, 2.0**-126, 3.3895314e38, np.inf, -np.inf]
    values = jnp.asarray(numbers, jnp.float32)
    # NaN of all bits: adding to it would run over into 0.
    nan = jax.lax.bitcast_convert_type(jnp.uint32([0x7FFFFFFF, 0xFFFFFFFF]), "float32")
    rounded = round_by(values, jnp.uint32(threshold)).astype(jnp.float32)
    assert np.array_equal(rounded, values)
    assert np.array_equal(np.signbit(rounded), np.signbit(values))
    assert np.all(np.isnan(round_by(nan, jnp.uint32(threshold)).astype(jnp.float32)))


def after_quiet(optimizer, steps):
    """The second moment after one gradient of 1 and so many of 0, over its start."""
    params = jnp.zeros(64)
    # Different sizes, since the fate of a value depends on its last bits.
    first = jnp.linspace(1.0, 2.0, 64)
    state = optimizer.update(first, optimizer.init(params), params)[1]

    def step(state, _):
        return optimizer.update(jnp.zeros(64), state, params)[1], None

    end = jax.jit(lambda state: jax.lax.scan(step, state, length=steps)[0])(state)
    nu = [optax.tree.get(x, "nu").astype(jnp.float32) for x in (state, end)]
    return np.asarray(nu[1] / nu[0])


def test_the_second_moment_decays_once_gradients_vanish():
    """As in float32 to 10 %: a few steps more or less on the grid of 8 bits."""
    ratio = after_quiet(bfloat16_moments(optax.adam(0.1)), 3000)
    np.testing.assert_allclose(ratio, 0.999**3000, rtol=0.1)


def test_rounded_to_nearest_it_would_never_decay():
    """The reason for the dither."""
    nearest = bfloat16_moments(
        optax.adam(0.1), round_fn=lambda values, step: values.astype(jnp.bfloat16)
    )
    assert np.all(after_quiet(nearest, 3000) > 0.9)


# The optimizer


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(0.1, momentum=0.9),
        optax.rmsprop(0.01),
        optax.lion(0.01),
        optax.adamw(0.01, weight_decay=0.1),
        optax.adafactor(0.01),
        optax.yogi(0.01),
        optax.noisy_sgd(0.1, key=jax.random.key(0)),
        optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.01)),
        optax.inject_hyperparams(optax.adam)(learning_rate=0.01),
        optax.adam(optax.cosine_decay_schedule(0.01, 100)),
        optax.sgd(0.1),
    ],
    ids=(
        "momentum rmsprop lion adamw adafactor yogi noisy clip inject schedule sgd"
    ).split(),
)
def test_any_optimizer_trains_much_the_same(optimizer):
    """0.02: 15 steps of 0.01 to 0.1, each off by 1 % where both moments are. What does
    not mirror the parameters keeps its type."""
    few = {"max_epochs": 5}
    plain, half = make(optimizer, **few), make(bfloat16_moments(optimizer), **few)
    expected = train(plain, PARAMS, MASK, DATA, KEY).params
    found = train(half, PARAMS, MASK, DATA, KEY).params
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=0.02), found, expected
    )
    kept = bfloat16_moments(optimizer).init(PARAMS).inner
    before = optimizer.init(PARAMS)
    assert jax.tree.structure(kept) == jax.tree.structure(before)
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(before), strict=True):
        mirrors = b.ndim > 0 and b.dtype == jnp.float32
        assert a.dtype == (jnp.bfloat16 if mirrors else b.dtype)


def test_removed_weights_and_their_moments_stay_exactly_zero():
    state = HALF.init(PARAMS, MASK, training.pad(DATA, 8), KEY)
    state = jax.jit(HALF.epoch)(state, training.pad(DATA, 8))
    trees = (state.params, *optax.tree.get_all_with_path(state.opt_state, "nu")[0][1:])
    for tree in trees:
        removed = jax.tree.map(lambda p, m: np.asarray(p, np.float32)[~m], tree, MASK)
        assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(removed))


def test_moments_of_weights_that_moved_are_cleared():
    def update(moving, params, mask, gradient_fn, epoch):
        return moving, jax.tree.map(jnp.logical_not, mask)

    moves = MaskUpdate(None, lambda params, mask, key: (), update)
    half = make(bfloat16_moments(optax.adam(0.01)), mask_update=moves, max_epochs=2)
    data = training.pad(DATA, 8)
    state = jax.jit(half.epoch)(half.init(PARAMS, MASK, data, KEY), data)
    moments = state.opt_state.inner[0]
    assert set(dtypes((moments.mu, moments.nu))) == {"bfloat16"}
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(moments.nu))


# Trainings


def test_moments_are_bfloat16_in_the_compiled_programs_carry():
    data = training.pad(DATA, 8)
    arguments = (PARAMS, MASK, data, KEY, training.NO_LIMIT)
    for made, expected in ((PLAIN, False), (HALF, True)):
        text = training.run_training.lower(made, *arguments).as_text()
        loops = re.findall(r"stablehlo\.while.*? : (.*)", text)
        carried = [loop for loop in loops if "tensor<5x8xf32>" in loop]
        assert carried
        assert all(("tensor<5x8xbf16>" in loop) == expected for loop in carried)


def test_lanes_hold_bfloat16_and_take_a_quarter_less():
    """Weights 4, moments 2 and 2 in place of 4 and 4, a byte of mask: 9 of 13."""
    data = training.pad(DATA, 8)
    network = (PARAMS, MASK, data, KEY, jnp.int32(training.NO_LIMIT))
    sizes = []
    for made in (PLAIN, HALF):
        shapes = shapes_of((network, None, None))
        devices = tuple(jax.devices()[:1])
        programs = lanes.lane_programs(made, devices, shapes, 4, None, None)
        held = lanes.Lanes(programs, None, None)
        held.turn()
        state = held.held[0]
        kinds = dtypes(state.opt_state)
        assert kinds.count("bfloat16") == (8 if made is HALF else 0)
        parts = (state.params, state.mask, state.opt_state)
        arrays = [leaf for leaf in jax.tree.leaves(parts) if leaf.ndim > 1]
        sizes.append(sum(leaf.nbytes for leaf in arrays))
    assert sizes[1] < 0.72 * sizes[0]


def jobs_of(keys):
    return [ensemble.Job(PARAMS, MASK, DATA, jax.random.key(key)) for key in keys]


def test_a_network_is_the_same_in_any_lane_and_a_second_time():
    results, _ = ensemble.run(HALF, jobs_of(range(5)), lanes=3)
    again, _ = ensemble.run(HALF, jobs_of(reversed(range(5))), lanes=3)
    for one, other in zip(results, reversed(again), strict=True):
        assert equal(one._replace(seconds=0.0), other._replace(seconds=0.0))
    twice = [train(HALF, PARAMS, MASK, DATA, KEY) for _ in range(2)]
    assert equal(*twice)


def test_lanes_train_as_one_lane_does():
    """1e-3 after 90 steps of 0.01: sums in another order differ by 1e-7, which now and
    then moves a moment to its neighbor, and so a step by some 1e-5."""
    one, _ = ensemble.run(HALF, jobs_of(range(4)), lanes=1)
    many, _ = ensemble.run(HALF, jobs_of(range(4)), lanes=4)
    for a, b in zip(one, many, strict=True):
        assert_close(a.params, b.params, 1e-3)


# The specification


def made_of(**train_fields):
    spec = Spec.from_config({"train": train_fields, "model": {"widths": (8,)}})
    model = models.build("mlp", 2, **spec.model.settings)
    return training_of(spec, model, (DIM,))


def state_of(made):
    params = models.initialize(models.MLP(2, (8,)), jax.random.key(0), (DIM,))
    y = DATA[1] % 2
    parts = (X, y, np.zeros((N, 2), np.float32), y > 2)
    data = training.pad(parts, made.batch_size)
    state = made.init(params, masks.dense_mask(params), data, KEY)
    return jax.jit(made.epoch)(state, data)


def test_by_default_a_training_is_that_of_the_optimizer_as_it_is():
    made = state_of(made_of()[0])
    expected = optax.adam(1e-3).init(made.params)
    assert jax.tree.structure(made.opt_state) == jax.tree.structure(expected)
    assert dtypes(made.opt_state) == dtypes(expected)


def test_the_option_keeps_moments_in_bfloat16_and_removes_dead_neurons_still():
    made, shrink = made_of(moments="bfloat16")
    state = state_of(made)
    assert dtypes(state.opt_state).count("bfloat16") == 8
    assert not equal(state.params, state_of(made_of()[0]).params)
    assert shrink is not None
