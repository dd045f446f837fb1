"""Initializations: variances, isometry, linearity, unit variance, quotients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import initial

from nfp_jax import models
from nfp_jax.fields import SpecError
from nfp_jax.masks import named_leaves
from nfp_jax.models.init import INITS
from nfp_jax.models.lsuv import lsuv
from nfp_jax.models.metainit import gradient_quotient, metainit


def kernel_of(name, shape, seed=0):
    return np.asarray(models.initializer(name)(jax.random.key(seed), shape))


def test_orthogonal_for_relu_keeps_the_second_moment():
    kernel = kernel_of("orthogonal_relu", (30, 20))
    # 1e-4: float32 factors.
    np.testing.assert_allclose(kernel.T @ kernel, 2 * np.eye(20), atol=1e-4)
    flat = kernel_of("orthogonal_relu", (3, 3, 4, 8)).reshape(36, 8)
    np.testing.assert_allclose(flat.T @ flat, 2 * np.eye(8), atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "center"),
    [((3, 3, 4, 8), (1, 1)), ((3, 3, 8, 4), (1, 1)), ((4, 4, 3, 5), (1, 1))],
)
def test_delta_orthogonal_is_an_orthogonal_matrix_at_the_center(shape, center):
    kernel = kernel_of("delta_orthogonal", shape)
    matrix = kernel[center]
    small = min(shape[-2:])
    gram = matrix.T @ matrix if shape[-1] == small else matrix @ matrix.T
    np.testing.assert_allclose(gram, 2 * np.eye(small), atol=1e-4)
    assert np.count_nonzero(kernel) == np.count_nonzero(matrix)


def test_signed_constants_are_all_as_large_as_the_deviation_of_he():
    kernel = kernel_of("signed_constant", (3, 3, 4, 200))
    np.testing.assert_allclose(np.abs(kernel), (2 / 36) ** 0.5, rtol=1e-6)
    # 7,200 signs: three deviations of their mean.
    assert abs(np.sign(kernel).mean()) < 3 / 7200**0.5


@pytest.mark.parametrize("widths", [(8,), (8, 6), (6, 8, 4)])
def test_looks_linear_is_linear_exactly_at_first(widths):
    """f(x) is x times the product of the W in its kernels."""
    model = models.build("mlp", 3, widths=widths, init="looks_linear")
    params = initial(model, (5,))
    x = jax.random.normal(jax.random.key(1), (7, 5))
    product, sizes = jnp.eye(5), [5, *(width // 2 for width in widths), 3]
    for i, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        kernel = params["params"][f"Dense_{i}"]["kernel"]
        product = product @ kernel[:rows, :columns]
    given = jax.jit(model.apply)(params, x)
    # 1e-5: sums in another order.
    np.testing.assert_allclose(given, x @ product, atol=1e-5)
    assert float(jnp.abs(given).max()) > 0.1
    np.testing.assert_allclose(jax.jit(model.apply)(params, -x), -given, atol=1e-5)


def test_looks_linear_keeps_lengths_where_no_layer_is_narrower():
    model = models.build("mlp", 6, widths=(12, 12), init="looks_linear")
    x = jax.random.normal(jax.random.key(1), (7, 6))
    out = jax.jit(model.apply)(initial(model, (6,)), x)
    lengths = [jnp.linalg.norm(v, axis=1) for v in (out, x)]
    np.testing.assert_allclose(*lengths, rtol=1e-4)  # products of float32 factors


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("convnet", {}, "init is 'looks_linear', and ConvNet is no chain of dense"),
        ("resnet", {"depth": 8}, "init is 'looks_linear', and ResNet is no chain of"),
        ("mlp", {"widths": (4, 3)}, "'params/Dense_1/kernel' has 3 outputs, expected"),
    ],
)
def test_looks_linear_is_refused_where_it_is_not_linear(name, settings, message):
    model = models.build(name, 3, init="looks_linear", **settings)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda key: models.initialize(model, key, (8, 8, 1)), KEY)


KEY = jax.random.key(0)


def outputs_of(model, params, x):
    """The deviation of each layer's outputs, by its path."""
    _, state = model.apply(
        params,
        x,
        capture_intermediates=lambda module, _: "kernel" in module.variables["params"],
        mutable=["intermediates"],
    )
    return {
        path.replace("intermediates", "params").rpartition("/__call__")[0]: jnp.std(x)
        for path, x in named_leaves(state)
    }


@pytest.mark.parametrize(
    ("name", "settings", "layers"),
    [
        ("mlp", {"widths": (20, 7)}, 3),
        ("convnet", {"channels": (3,), "widths": (4,)}, 3),
        ("resnet", {"depth": 8, "width": 8, "norm": "none"}, 10),
        ("vit", {"depth": 1, "width": 8, "heads": 2, "mlp": 16}, 8),
    ],
)
def test_lsuv_gives_every_layer_unit_variance_on_what_it_saw(name, settings, layers):
    model = models.build(name, 3, init="lsuv", **settings)
    x = 3 + 2 * jax.random.normal(jax.random.key(1), (16, 8, 8, 1))
    params = jax.jit(lambda params: lsuv(model, params, x))(initial(model, (8, 8, 1)))
    found = jax.jit(lambda params: outputs_of(model, params, x))(params)
    assert len(found) == layers
    for path, deviation in found.items():
        # 1e-3: float32 deviations of some hundred numbers.
        assert float(deviation) == pytest.approx(1, rel=1e-3), path


def test_lsuv_by_name_sees_noise_and_so_does_not_depend_on_data():
    model = models.build("mlp", 3, widths=(50,), init="lsuv")
    params = initial(model, (20,))
    x = jax.random.normal(jax.random.key(9), (2000, 20))
    for deviation in jax.jit(lambda p: outputs_of(model, p, x))(params).values():
        # Of 64 inputs of noise: within a fifth of other noise's.
        assert float(deviation) == pytest.approx(1, rel=0.2)


def test_the_gradient_quotient_of_a_quadratic_is_its_curvature():
    """Of ½ a w²: g = a w and Hg = a² w, so that it is a."""
    for a in (0.25, 2.0):
        found = gradient_quotient(
            lambda w, a=a: 0.5 * a * jnp.sum(w**2), jnp.array([1.0, -3.0, 0.5])
        )
        assert float(found) == pytest.approx(a, rel=1e-3)  # eps = 1e-5


def test_metainit_lowers_the_gradient_quotient_by_sizes_alone():
    model = models.MLP(2, widths=(16, 16))
    start = jax.tree.map(lambda w: 3 * w, initial(model, (6,)))  # far too large
    made = jax.jit(lambda p: metainit(model, p, KEY, (6,), steps=60))(start)
    x = jax.random.normal(jax.random.key(5), (64, 6))
    y = jnp.arange(64) % 2

    @jax.jit
    def quotient(params):
        def loss(params):
            logits = jax.nn.log_softmax(model.apply(params, x))
            return -jnp.mean(jnp.take_along_axis(logits, y[:, None], axis=1))

        return gradient_quotient(loss, params)

    assert float(quotient(made)) < float(quotient(start)) / 2
    for (path, before), after in zip(
        named_leaves(start), jax.tree.leaves(made), strict=True
    ):
        if path.endswith("kernel"):
            ratio = np.asarray(after / before)
            np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-4)


def test_initializations_by_name_see_nothing_and_run_under_vmap():
    takers = {name: init.sees for name, init in INITS.items() if init.on_source}
    assert takers == {"lsuv": "inputs", "metainit": "inputs", "pretrained": "training"}
    others = [init for name, init in INITS.items() if name not in takers]
    assert {init.sees for init in others} == {"nothing"}
    for name in ("delta_orthogonal", "signed_constant", "looks_linear", "lsuv"):
        model = models.build("mlp", 2, widths=(4,), init=name)
        keys = jax.random.split(KEY, 2)
        make = lambda key, model=model: models.initialize(model, key, (3,))  # noqa: E731
        both = jax.jit(jax.vmap(make))(keys)
        alone = jax.jit(make)(keys[1])
        for (path, many), one in zip(
            named_leaves(both), jax.tree.leaves(alone), strict=True
        ):
            # 1e-5: factorizations of many matrices at once.
            np.testing.assert_allclose(
                many[1], one, atol=1e-5, err_msg=f"{name} {path}"
            )


def test_an_unknown_name_is_refused_in_a_configuration():
    from nfp_jax.spec import Spec

    with pytest.raises(SpecError, match=r"init is 'he', expected one of.*'lsuv'"):
        Spec.from_config({"model": {"name": "vit", "init": "he"}})
