import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nfp_jax import models
from nfp_jax.masks import masked_apply, named_leaves

VARIANCE = {
    "he_normal": lambda fan_in, fan_out: 2 / fan_in,
    "he_uniform": lambda fan_in, fan_out: 2 / fan_in,
    "lecun_normal": lambda fan_in, fan_out: 1 / fan_in,
    "lecun_uniform": lambda fan_in, fan_out: 1 / fan_in,
    "glorot_normal": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "glorot_uniform": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
}


@pytest.mark.parametrize("name", VARIANCE)
def test_initialization_has_the_variance_of_its_name(name):
    fan_in, fan_out = 300, 200
    kernel = models.initializer(name)(jax.random.key(0), (fan_in, fan_out))
    # 60,000 draws: the sample variance of a normal is good to 3 * sqrt(2/60000).
    assert jnp.var(kernel) == pytest.approx(
        VARIANCE[name](fan_in, fan_out), rel=3 * (2 / 60_000) ** 0.5
    )


def test_orthogonal_kernels_have_orthonormal_columns():
    kernel = models.initializer("orthogonal")(jax.random.key(0), (30, 20))
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(20), atol=1e-5)


def test_an_unknown_initialization_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'he'.*expected one of.*'he_normal'"):
        models.initializer("he")


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (models.MLP(10), (28, 28, 1)),
        (models.MLP(2, widths=(7,)), (50,)),
        (models.ConvNet(10), (28, 28, 1)),
        (models.ConvNet(10, channels=(4,), widths=()), (32, 32, 3)),
    ],
)
def test_biases_start_at_zero_and_kernels_do_not(model, shape):
    params = models.initialize(model, jax.random.key(0), shape)
    for path, leaf in named_leaves(params):
        assert bool(jnp.any(leaf != 0)) == path.endswith("kernel"), path
    assert model.apply(params, jnp.ones((3, *shape))).shape == (3, model.classes)


def test_the_mlp_is_the_matrix_product_it_says():
    model = models.MLP(2, widths=(4,))
    params = models.initialize(model, jax.random.key(0), (3,))
    first, second = (params["params"][f"Dense_{i}"] for i in range(2))
    x = jax.random.normal(jax.random.key(1), (5, 3))
    hidden = np.maximum(x @ first["kernel"] + first["bias"][None], 0)
    expected = hidden @ second["kernel"] + second["bias"][None]
    np.testing.assert_allclose(model.apply(params, x), expected, rtol=1e-5)


def test_masked_apply_runs_under_vmap_over_masks():
    model = models.MLP(2, widths=(4,))
    params = models.initialize(model, jax.random.key(0), (3,))
    x = jnp.ones((1, 3))
    on = jax.tree.map(lambda p: jnp.ones((2, *p.shape)), params)
    on["params"]["Dense_1"]["kernel"] = on["params"]["Dense_1"]["kernel"].at[1].set(0.0)
    outputs = jax.vmap(masked_apply(model.apply), in_axes=(None, 0, None))(
        params, on, x
    )
    np.testing.assert_allclose(outputs[0], model.apply(params, x), rtol=1e-6)
    np.testing.assert_array_equal(outputs[1], jnp.zeros((1, 2)))


def test_a_convnet_on_inputs_that_are_no_images_says_so():
    with pytest.raises(ValueError, match=r"ConvNet got inputs of shape \(1, 50\)"):
        models.initialize(models.ConvNet(10), jax.random.key(0), (50,))


@pytest.mark.parametrize("kernel_shape", [(3, 3, 2, 4), (5, 3, 1, 2), (1, 1, 3, 3)])
def test_the_convolution_and_its_gradients_are_those_of_lax(kernel_shape):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 6, 5, kernel_shape[2]))
    kernel = jax.random.normal(keys[1], kernel_shape)
    weights = jax.random.normal(keys[2], (2, 6, 5, kernel_shape[3]))

    def of_lax(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        out = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=numbers
        )
        return jnp.sum(out * weights), out

    def ours(x, kernel):
        out = models.conv_as_matmul(x, kernel, (1, 1), "SAME")
        return jnp.sum(out * weights), out

    expected = jax.grad(of_lax, (0, 1), has_aux=True)(x, kernel)
    given = jax.grad(ours, (0, 1), has_aux=True)(x, kernel)
    jax.tree.map(
        # 1e-5: at most 60 products in another order.
        lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-5, atol=1e-5),
        given,
        expected,
    )


def test_a_convolution_with_strides_is_refused():
    with pytest.raises(ValueError, match=r"strides \(2, 2\).*expected strides of 1"):
        models.conv_as_matmul(
            jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), (2, 2), "SAME"
        )


def test_the_chain_of_layers_is_in_order_of_numbers():
    deep = models.layer_chain(models.MLP(2, widths=(3,) * 11))
    assert deep == tuple(f"params/Dense_{i}" for i in range(12))
    conv = models.layer_chain(models.ConvNet(2, channels=(4, 4), widths=()))
    assert conv == ("params/Conv_0", "params/Conv_1", "params/Dense_0")


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (models.MLP(2, widths=(3,) * 11), (4, 4, 1)),
        (models.ConvNet(2, channels=(4, 5), widths=(6,)), (13, 9, 2)),
    ],
)
def test_positions_times_kernels_are_the_multiply_adds_that_xla_counts(model, shape):
    params = models.initialize(model, jax.random.key(0), shape)
    chain = models.layer_chain(model)
    kernels = [params["params"][path.split("/")[1]]["kernel"] for path in chain]
    assert len(kernels) == len(jax.tree.leaves(params)) / 2
    positions = models.layer_positions(model, shape)
    products = [n * kernel.size for n, kernel in zip(positions, kernels, strict=True)]
    jaxpr = jax.make_jaxpr(model.apply)(params, jnp.ones((1, *shape)))
    counted = []
    for equation in jaxpr.jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (left, _), (out,) = equation.invars, equation.outvars
            counted.append(out.aval.size * left.aval.shape[-1])
    assert counted == products


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (models.MLP(2, widths=(7, 6)), (5,)),
        (models.ConvNet(2, channels=(4, 5), widths=(6,)), (8, 8, 1)),
        (models.ConvNet(2, channels=(4,), widths=()), (8, 8, 1)),
    ],
)
def test_applying_at_any_width_is_applying_where_widths_are_the_models(model, shape):
    params = models.initialize(model, jax.random.key(0), shape)
    x = jax.random.normal(jax.random.key(1), (3, *shape))
    np.testing.assert_array_equal(
        models.apply_at_any_width(model)(params, x), model.apply(params, x)
    )


def test_applying_at_any_width_is_applying_the_model_of_that_width():
    wide = models.ConvNet(2, channels=(8, 9), widths=(10,), activation=jnp.tanh)
    thin = wide.clone(channels=(2, 3), widths=(4,))
    params = models.initialize(thin, jax.random.key(0), (8, 8, 1))
    x = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
    apply_fn = models.apply_at_any_width(wide)
    np.testing.assert_array_equal(apply_fn(params, x), thin.apply(params, x))
    many = jax.tree.map(lambda p: jnp.stack([p, 2 * p]), params)
    outputs = jax.jit(jax.vmap(apply_fn, (0, None)))(many, x)
    # 1e-5: some hundred products in another order.
    np.testing.assert_allclose(outputs[0], thin.apply(params, x), atol=1e-5)


def test_the_layers_of_another_model_are_refused():
    for build in (models.layer_chain, models.apply_at_any_width):
        with pytest.raises(ValueError, match="layers of Dense are not known"):
            build(nn.Dense(3))
    with pytest.raises(ValueError, match="layers of Dense are not known"):
        models.layer_positions(nn.Dense(3), (5,))
