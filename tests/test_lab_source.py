"""Initial weights of other points than a run's own, by name."""

import jax
import numpy as np
import pytest
from running import run, setup_of, spec_of

from nfp_jax import experiments, masks, models
from nfp_jax.fields import SpecError
from nfp_jax.lab.source import source_name
from nfp_jax.models.lsuv import lsuv
from nfp_jax.models.metainit import metainit

pytestmark = pytest.mark.usefixtures("one_device")


def of_lab(init, name="digits", question="memorization", **changes):
    return spec_of(
        {
            "question": question,
            "data": {"name": name},
            "model": {"widths": (6,), "init": init},
            "train": {"max_epochs": 3, "stop": "still"},
            "grid": {"pruner": ("random",), "sparsity": (0.5,), "n": (16,)},
        },
        **changes,
    )


def leaves(params):
    return {path: np.asarray(leaf) for path, leaf in masks.named_leaves(params)}


def test_pretrained_weights_are_of_the_half_that_the_run_does_without():
    spec = of_lab("pretrained:half", train={"max_epochs": 60, "min_epochs": 60})
    setup = setup_of(spec)
    assert len(setup.pool.y) == 1545 // 2 and setup.init_sees == "nothing"
    first, second = (leaves(setup.init(jax.random.key(i))) for i in range(2))
    body, head = "params/Dense_0/kernel", "params/Dense_1/kernel"
    np.testing.assert_array_equal(first[body], second[body])
    assert (first[head] != second[head]).any()
    # A body that was trained reads digits better than a fresh one, by least squares.
    x, y = setup.pool.x.reshape(len(setup.pool.y), -1), np.eye(10)[setup.pool.y]

    def share(params):
        hidden = np.maximum(x @ params[body] + params["params/Dense_0/bias"], 0)
        return (
            (hidden @ np.linalg.lstsq(hidden, y)[0]).argmax(1) == setup.pool.y
        ).mean()

    fresh = models.build("mlp", 10, widths=(6,))
    fresh = leaves(models.initialize(fresh, jax.random.key(0), (8, 8, 1)))
    assert share(first) > share(fresh) + 0.1
    rows, failures, _ = run(spec)
    assert failures == [] and len(rows) == 1


def test_weights_that_saw_the_data_are_refused_where_information_is_asked():
    for init, sees in (("pretrained:digits", "training"), ("lsuv:digits", "inputs")):
        spec = of_lab(
            init, question="information", information={"conditioning": "data"}
        )
        todo = experiments.all_cells(spec) if "lsuv" in init else []
        assert setup_of(spec, todo=todo).init_sees == sees
        with pytest.raises(SpecError, match=rf"^model.init is '{init}', whose weights"):
            experiments.run(spec, todo, print)


def test_lsuv_and_metainit_by_name_see_the_inputs_of_the_source():
    x = 5 + np.asarray(jax.random.normal(jax.random.key(1), (200, 4)))
    key = jax.random.key(0)
    at = jax.random.fold_in(key, 1)
    model = models.build("mlp", 2, widths=(5,), init="lsuv:half")
    base = model.init(key, x[:1])
    rows = jax.random.randint(at, (64,), 0, 200)
    given = models.initialize(model, key, (4,), models.Source(x))
    expected = lsuv(model, base, x[rows])
    jax.tree.map(np.testing.assert_allclose, given, expected)
    # What it sees may not be lost: numbers that are none are in what it returns.
    nothing = np.full((8, 4), np.nan, np.float32)
    found = metainit(model, base, at, (4,), steps=1, inputs=nothing)
    assert np.isnan(found["params"]["Dense_0"]["kernel"]).all()


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("lsuv:", r"init is 'lsuv:', expected a set after the colon of one of \['lsu"),
        ("he_normal:half", r"init is 'he_normal:half', expected a set after the colon"),
        ("pretrained", r"init is 'pretrained', expected 'pretrained:' and a set"),
    ],
)
def test_names_without_a_source_are_refused(init, message):
    with pytest.raises(SpecError, match=message):
        of_lab(init)


def test_a_source_of_another_shape_is_refused():
    spec = of_lab("lsuv:digits", "gaussian")
    assert source_name(spec) == "digits"
    with pytest.raises(SpecError, match=r"'digits', whose points have shape \(8, 8, 1"):
        setup_of(spec)
    with pytest.raises(SpecError, match=r"at most 772, the training points of digits "):
        setup_of(of_lab("lsuv:half", grid={"n": (773,)}))
