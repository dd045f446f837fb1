import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfp_jax import models
from nfp_jax.measures import lipschitz

KEY = jax.random.key(0)


def rng(seed=0):
    return np.random.default_rng(seed)


def linear(kernel, x):
    return x @ kernel


def chain(kernels, x):
    """A ReLU network without biases."""
    for kernel in kernels[:-1]:
        x = jax.nn.relu(x @ kernel)
    return x @ kernels[-1]


def random_chain(seed, sizes, gain=2.0):
    """Kernels of standard deviation ``gain / sqrt(in)``."""
    return [
        (gain / a**0.5 * rng(seed + i).normal(size=(a, b))).astype(np.float32)
        for i, (a, b) in enumerate(itertools.pairwise(sizes))
    ]


@functools.cache
def compiled(apply_fn, **options):
    return jax.jit(lipschitz.lipschitz_lower(apply_fn, **options))


def lower_of(apply_fn, params, x, **options):
    return float(compiled(apply_fn, **options)(params, jnp.asarray(x), KEY))


# Both bounds


def test_bounds_meet_at_the_constant_of_a_linear_network_of_two_classes():
    """f = softmax(W x) has gradient p(1-p) (w_1 - w_0), and its negative: norm at most
    sqrt(2)/4 |w_1 - w_0|, where p = 1/2."""
    kernel = rng().normal(size=(7, 2)).astype(np.float32)
    difference = kernel[:, 1] - kernel[:, 0]
    exact = math.sqrt(2) / 4 * np.linalg.norm(difference)
    # All on one side of the boundary, so that no segment crosses it: p near 0.95.
    x = 3 * difference / (difference @ difference) + 0.1 * rng(1).normal(size=(20, 7))
    x = x.astype(np.float32)
    start = lower_of(linear, kernel, x, steps=0)
    assert start < 0.7 * exact
    assert 0.99 * exact < lower_of(linear, kernel, x) < (1 + 1e-5) * exact
    bound, product = lipschitz.lipschitz_upper([kernel])
    assert bound == product == pytest.approx(exact, rel=2e-6) and bound > exact


def test_bounds_meet_for_orthogonal_weights_of_many_classes():
    """Where W^T W = s² I the norm is s |diag(p) - p p^T|, at most s/2: two classes
    share p between them, which is so at infinity alone."""
    kernel, _ = np.linalg.qr(rng().normal(size=(12, 5)))
    kernel = (3 * kernel).astype(np.float32)
    x = rng(1).normal(size=(30, 12)).astype(np.float32)
    assert 0.99 * 1.5 < lower_of(linear, kernel, x) < (1 + 1e-5) * 1.5
    assert lipschitz.lipschitz_upper([kernel]).bound == pytest.approx(1.5, rel=2e-6)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_lower_bound_is_the_steepest_singular_value_at_the_data(classes):
    """Without segments or ascent, in chunks of points: against jacfwd and an SVD."""
    kernels = random_chain(3, [6, 20, classes])
    x = rng(1).normal(size=(9, 6)).astype(np.float32)

    def f(point):
        return jax.nn.softmax(chain(kernels, point))

    expected = max(np.linalg.norm(jax.jacfwd(f)(point), 2) for point in x)
    found = lower_of(chain, kernels, x, segments=0, steps=0, batch_size=4)
    assert found == pytest.approx(expected, rel=1e-5)  # float32


def test_segments_find_the_boundary_between_points_far_from_it():
    x = np.array([[-30.0], [30.0]], np.float32)
    kernel = np.array([[1.0, 0.0]], np.float32)
    assert lower_of(linear, kernel, x, segments=0, steps=0) < 1e-9
    found = lower_of(linear, kernel, x, segments=1000, steps=0)
    assert 0.99 < found / (math.sqrt(2) / 4) < 1 + 1e-5


def biased_chain(params, x):
    """A ReLU network whose biases come with the kernels."""
    kernels, biases = params
    for kernel, bias in zip(kernels[:-1], biases, strict=True):
        x = jax.nn.relu(x @ kernel + bias[None])
    return x @ kernels[-1]


def test_an_ascent_starts_where_the_square_of_its_gradient_would_underflow():
    x = np.array([[-15.0, -15.0], [-15.0, -14.0]], np.float32)
    kernel = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    assert lower_of(linear, kernel, x, segments=0, steps=0) < 1e-12
    found = lower_of(linear, kernel, x, segments=0, steps=20)
    assert 0.99 < found / 0.5 < 1 + 1e-5


def test_the_lower_bound_is_near_the_steepest_point_of_a_dense_grid():
    """In two dimensions, a grid over the disc that the data surround: brute force."""
    axis = jnp.linspace(-1.5, 1.5, 151)
    grid = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    grid = grid[jnp.sum(grid**2, axis=1) < 1.5**2]

    @jax.jit
    def jacobians(params):
        def f(point):
            return jax.nn.softmax(biased_chain(params, point[None])[0])

        return jax.vmap(jax.jacrev(f))(grid)

    for seed in range(5):
        kernels = random_chain(10 * seed, [2, 12, 12, 3])
        params = kernels, list(rng(seed).normal(size=(2, 12)).astype(np.float32))
        brute = np.linalg.norm(jacobians(params), 2, axis=(1, 2)).max()
        x = rng(seed).normal(size=(50, 2)).astype(np.float32)
        # 0.9: the steepest corner of a linear region may be small.
        assert lower_of(biased_chain, params, x) > 0.9 * brute
        assert brute < lipschitz.lipschitz_upper(kernels).bound


@pytest.mark.parametrize("kept", [1.0, 0.3, 0.05])
def test_bounds_of_random_networks_are_in_order_and_hold_for_pairs(kept):
    kernels = random_chain(5, [10, 40, 40, 4], gain=2.0 / kept**0.5)
    kernels = [k * (rng(i).random(k.shape) < kept) for i, k in enumerate(kernels)]
    x = rng(1).normal(size=(200, 10)).astype(np.float32)
    lower = lower_of(chain, kernels, x)
    bound, product = lipschitz.lipschitz_upper(kernels)
    assert 0 < lower < bound <= product
    # Slopes of chords, long and short: none above the upper bound.
    near = x + 1e-2 * rng(2).normal(size=x.shape).astype(np.float32)
    for y in (np.roll(x, 1, axis=0), near):
        gap = jax.nn.softmax(chain(kernels, x)) - jax.nn.softmax(chain(kernels, y))
        chords = np.linalg.norm(gap, axis=1) / np.linalg.norm(x - y, axis=1)
        assert 0 < chords.max() < bound


def test_bounds_of_a_convolutional_network_are_in_order():
    model = models.ConvNet(classes=3, channels=(4,), widths=())
    params = models.initialize(model, KEY, (6, 6, 2))
    x = rng().normal(size=(12, 6, 6, 2)).astype(np.float32)

    def f(point):
        return jax.nn.softmax(model.apply(params, point[None])[0])

    jacobians = np.asarray(jax.jit(jax.vmap(jax.jacrev(f)))(x)).reshape(12, 3, -1)
    at_data = np.linalg.norm(jacobians, 2, axis=(1, 2)).max()
    lower = lower_of(model.apply, params, x, segments=20, ascents=4, steps=10)
    layers = [path.split("/")[1] for path in models.layer_chain(model)]
    kernels = [params["params"][layer]["kernel"] for layer in layers]
    assert 1.05 * at_data < lower < lipschitz.lipschitz_upper(kernels).bound


@pytest.mark.parametrize("classes", [2, 3])
def test_a_constant_network_has_constant_zero_and_not_nan(classes):
    kernels = [rng().normal(size=(5, 4)), np.zeros((4, classes))]
    kernels = [k.astype(np.float32) for k in kernels]
    x = rng(1).normal(size=(6, 5)).astype(np.float32)
    assert lower_of(chain, kernels, x, segments=6, steps=3) == 0.0
    assert lipschitz.lipschitz_upper(kernels) == (0.0, 0.0)
    assert lipschitz.lipschitz_upper([*kernels, np.ones((classes, 2))]).bound == 0.0


def test_the_lower_bound_of_a_diverged_network_is_nan():
    kernel = np.full((5, 3), np.nan, np.float32)
    assert math.isnan(lower_of(linear, kernel, np.ones((6, 5), np.float32), segments=6))


# The lower bound as a transform's subject


def test_vmap_over_networks_equals_a_loop_and_new_params_do_not_compile():
    traces = []

    def apply_fn(params, x):
        traces.append(x.shape)
        return chain(params, x)

    lower = lipschitz.lipschitz_lower(apply_fn, segments=30, ascents=3, steps=5)
    x = jnp.asarray(rng().normal(size=(40, 6)), jnp.float32)
    networks = [random_chain(seed, [6, 8, 3]) for seed in (0, 10, 20)]
    keys = jax.random.split(KEY, 3)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *networks)
    together = jax.jit(jax.vmap(lower, in_axes=(0, None, 0)))(stacked, x, keys)
    one = jax.jit(lower)
    alone = [one(networks[0], x, keys[0])]
    count = len(traces)
    alone += [one(networks[i], x, keys[i]) for i in (1, 2)]
    assert len(traces) == count
    np.testing.assert_allclose(together, jnp.stack(alone), rtol=1e-4)  # float32
    assert len(set(map(float, alone))) == 3


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [("segments", -1, 0), ("ascents", 0, 1), ("steps", -1, 0), ("batch_size", 0, 1)],
)
def test_the_lower_bound_refuses_numbers_out_of_range(name, value, least):
    with pytest.raises(
        ValueError, match=f"{name} is {value}, expected at least {least}"
    ):
        lipschitz.lipschitz_lower(linear, **{name: value})


# The upper bound


def test_the_paths_of_a_nonnegative_chain_give_its_exact_constant():
    """Where every ReLU is on, f is linear, and no path cancels another."""
    kernels = [rng(i).random(size) for i, size in enumerate([(5, 8), (8, 6), (6, 3)])]
    exact = np.linalg.norm(kernels[0] @ kernels[1] @ kernels[2], 2)
    bound, product = lipschitz.lipschitz_upper(kernels, softmax=False)
    assert bound == pytest.approx(exact, rel=2e-6) and bound >= exact
    norms = [np.linalg.norm(kernel, 2) for kernel in kernels]
    assert product == pytest.approx(math.prod(norms), rel=2e-6)
    assert product > 1.01 * bound


def test_averaging_is_exact_for_an_absolute_value():
    """ReLU(x) + ReLU(-x) = |x|: merged, the layers are 0, and cut, 2: the mean is 1."""
    kernels = [np.array([[1.0, -1.0]]), np.array([[1.0], [1.0]])]
    upper = lipschitz.lipschitz_upper(kernels, softmax=False)
    assert upper == pytest.approx((1.0, 2.0), rel=2e-6)


def test_the_chain_is_cut_where_that_is_best():
    """The absolute values of a rotation have a larger norm than it, 2 and 1; of diag(3,
    1/2) and diag(1, 4) the paths have norm 3, and cut, they have 12."""
    rotation = np.array([[1.0, 1.0], [-1.0, 1.0]]) / math.sqrt(2)
    thin = [np.kron(np.eye(2), np.diag(d)) for d in ([3.0, 0.5], [1.0, 4.0])]
    kernels = [np.kron(rotation, rotation), *thin]
    for chain_ in (kernels, [kernel.T for kernel in reversed(kernels)]):
        upper = lipschitz.lipschitz_upper(chain_, softmax=False)
        assert upper == pytest.approx((3.0, 12.0), rel=2e-6)


@pytest.mark.parametrize("kept", [1.0, 0.4])
def test_the_bound_holds_for_every_pattern_of_activations(kept):
    """The norm is convex in each slope, so that it is largest at slopes of 0 and 1."""
    gains = []
    for seed in range(30):
        kernels = random_chain(3 * seed, [3, 4, 4, 2])
        kernels = [k * (rng(seed + k.size).random(k.shape) < kept) for k in kernels]
        first, second, third = kernels
        on = np.array(list(itertools.product([0.0, 1.0], repeat=4)))
        steps = (first * on[:, None, :]) @ second  # [16, 3, 4]
        all_ = (steps[:, None] * on[None, :, None, :]) @ third  # [16, 16, 3, 2]
        steepest = np.linalg.norm(all_, 2, axis=(2, 3)).max()
        bound, product = lipschitz.lipschitz_upper(kernels, softmax=False)
        assert steepest * (1 - 1e-12) <= bound <= product
        gains.append((product + 1e-9) / (bound + 1e-9))
    assert np.median(gains) > 1.2


def test_a_sparse_network_is_bounded_better_by_its_paths():
    kernels = random_chain(5, [50, 100, 100, 2])
    kernels = [k * (rng(i).random(k.shape) < 0.02) for i, k in enumerate(kernels)]
    bound, product = lipschitz.lipschitz_upper(kernels)
    assert 0 < bound < 0.8 * product


def test_softmax_does_not_see_what_logits_have_in_common():
    kernel = rng().normal(size=(4, 3))
    shifted = kernel + 100 * rng(1).normal(size=(4, 1))
    alone, common = (lipschitz.lipschitz_upper([k]).bound for k in (kernel, shifted))
    assert alone == pytest.approx(common, rel=1e-9)
    without = lipschitz.lipschitz_upper([shifted], softmax=False).bound
    assert without == pytest.approx(np.linalg.norm(shifted, 2), rel=2e-6)


@pytest.mark.parametrize("size", [(3, 3), (1, 3), (5, 5), (1, 1)])
@pytest.mark.parametrize("channels", [(1, 1), (2, 3)])
def test_a_convolution_is_bounded_by_its_symbol_and_large_images_come_close(
    size, channels
):
    """Against the matrix of the zero-padded convolution on an image."""
    kernel = rng(sum(size)).normal(size=(*size, *channels)).astype(np.float32)
    bound = lipschitz.lipschitz_upper([kernel], softmax=False).bound

    def norm(side):
        pixels = side * side * channels[0]
        images = np.eye(pixels, dtype=np.float32).reshape(-1, side, side, channels[0])
        rows = models.conv_as_matmul(jnp.asarray(images), kernel, (1, 1), "SAME")
        return np.linalg.norm(np.asarray(rows, np.float64).reshape(pixels, -1), 2)

    small, large = norm(4), norm(16)
    # The smaller is a part of the larger, to float32; Z² has 7 % more than 16×16.
    assert (1 - 1e-6) * small <= large < bound < 1.09 * large


@pytest.mark.parametrize("points", [4, 32])
def test_the_bound_of_a_convolution_is_above_every_frequency_between_the_grid(
    points, monkeypatch
):
    """On a coarse grid too, whose largest norm alone would be too small."""
    monkeypatch.setattr(lipschitz, "_GRID", points)
    theta = 2 * np.pi * rng().random((3000, 2))
    p, q = np.meshgrid(np.arange(3), np.arange(5), indexing="ij")
    phase = np.exp(1j * (theta[:, :1, None] * p + theta[:, 1:, None] * q))
    for seed in range(5):
        kernel = rng(seed).normal(size=(3, 5, 2, 2))
        symbols = np.einsum("npq,pqio->nio", phase, kernel)
        highest = np.linalg.norm(symbols, 2, axis=(1, 2)).max()
        bound = lipschitz.lipschitz_upper([kernel], softmax=False).bound
        # 2 %: how near 3000 random frequencies come to the highest.
        assert highest < bound < 1.02 * highest / math.cos(math.pi / points) ** 2


def test_dense_paths_stop_at_a_convolution():
    """Norms 2 and 3 of 1×1 convolutions, then diag(1, 4) and diag(4, 1): 4 by paths."""
    convolutions = [np.full((1, 1, 1, 1), 2.0), np.full((1, 1, 1, 1), -3.0)]
    dense = [np.diag([1.0, 4.0]), np.diag([4.0, 1.0])]
    upper = lipschitz.lipschitz_upper(convolutions + dense, softmax=False)
    assert upper == pytest.approx((24.0, 96.0), rel=2e-6)
    upper = lipschitz.lipschitz_upper([*convolutions, np.array([[1.0, -1.0]])])
    assert upper == pytest.approx((6 * math.sqrt(2) / 2,) * 2, rel=2e-6)


@pytest.mark.parametrize(
    ("kernels", "message"),
    [
        ([], "kernels is empty, expected at least one"),
        (
            [np.ones((2, 2)), np.ones((2, 2, 2))],
            r"kernel 1 has shape \(2, 2, 2\), expected \[in, out\] or",
        ),
        ([np.ones((2, 3, 1, 1))], r"kernel 0 has shape \(2, 3, 1, 1\).* a and b odd"),
        (
            [np.ones((2, 2)), np.array([[1.0, np.nan]] * 2)],
            "kernel 1 has values that are not finite",
        ),
        (
            [np.ones((2, 3)), np.ones((2, 2))],
            r"kernel 1 has shape \(2, 2\), expected 3 inputs, the outputs of kernel 0",
        ),
        (
            [np.ones((2, 2)), np.ones((3, 3, 2, 2)), np.ones((2, 2))],
            "kernel 1 is a convolution after a dense layer",
        ),
        (
            [np.ones((3, 3, 1, 2))],
            r"the last kernel has shape \(3, 3, 1, 2\), expected \[in, out\] before",
        ),
    ],
)
def test_the_upper_bound_refuses_what_is_no_chain_of_layers(kernels, message):
    with pytest.raises(ValueError, match=message):
        lipschitz.lipschitz_upper(kernels)


# The unit of the inputs


def test_the_unit_of_gaussian_inputs_is_the_root_of_their_dimension():
    x = jax.random.normal(KEY, (2000, 6, 6, 1))
    scaled = lipschitz.in_unit_norm(jnp.array([1.0, 2.0]), x)
    np.testing.assert_allclose(scaled, [6.0, 12.0], rtol=0.01)  # 2000 samples


def test_scaled_inputs_change_the_constant_and_not_its_unit_norm_value():
    kernels = random_chain(0, [6, 8, 3])
    x = rng().normal(size=(40, 6)).astype(np.float32)
    wide, narrow = 4 * x, [kernels[0] / 4, kernels[1]]
    before = lower_of(chain, kernels, x)
    after = lower_of(chain, narrow, wide)
    assert before == pytest.approx(4 * after, rel=1e-3)  # float32, and its ascents
    in_units = [lipschitz.in_unit_norm(*pair) for pair in ((before, x), (after, wide))]
    np.testing.assert_allclose(*in_units, rtol=1e-3)
