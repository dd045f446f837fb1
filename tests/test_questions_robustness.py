import dataclasses
import functools
import math
import runpy
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from running import batch_of, model_entry, pruner_entry, run, setup_of, spec_of

from nfp_jax import experiments, masks, models, scores, training
from nfp_jax.lab.draws import draw_of
from nfp_jax.questions.robustness import run as question
from nfp_jax.spec import Spec

CONFIG = {
    "name": "test",
    "question": "robustness",
    "data": {"dim": 6},
    "model": {"widths": (8, 8)},
    "train": {
        "max_epochs": 12,
        "stop": "still",
        "learning_rate": 0.05,
        "batch_size": 16,
    },
    "robustness": {"segments": 64, "ascents": 4, "steps": 20},
    "engine": {"shrink_from": float("inf")},
    "grid": {"pruner": ("dense",), "sparsity": (0.5,), "n": (40,)},
}
make_spec = functools.partial(spec_of, CONFIG)

pytestmark = pytest.mark.usefixtures("one_device")


def trained(spec, model, cell):
    """The data set of a cell that is not pruned, and its network by the library."""
    setup = setup_of(spec, [cell])
    draw = draw_of(setup, cell)
    batch = batch_of(setup, draw)
    own = training.make_training(
        scores.classification_loss(model.apply),
        optax.adam(0.05),
        metrics_fn=training.classification_metrics(model.apply),
        batch_size=16,
        max_epochs=12,
        stop=training.stop_when_still(),
    )
    mask = masks.dense_mask(draw.params)
    result = training.train(own, draw.params, mask, batch, draw.train_key)
    return (*batch, draw.labels.z), result.params


@pytest.fixture(autouse=True, scope="module")
def raising():
    """A pruner that raises."""

    def score(params, batch=None, key=None, *, mask=None, prunable=None):
        raise RuntimeError("no score for this")

    with pytest.MonkeyPatch.context() as patch:
        yield pruner_entry(patch, "raising", score)


@pytest.fixture(scope="module")
def everything(one_device, raising):
    """Dense, with half of the weights, and with 2 of 128, which leave no path."""
    spec = make_spec(
        grid={
            "pruner": (raising, "dense", "magnitude_init"),
            "sparsity": (0.5, 0.99),
            "noise": (0.5,),
        }
    )
    return spec, *run(spec)[:2]


def test_a_cell_that_raises_leaves_the_others(everything):
    _, rows, failures = everything
    assert sorted(row["pruner"] for row in rows.values()) == [
        "dense",
        "magnitude_init",
        "magnitude_init",
    ]
    assert [failure.cell["pruner"] for failure in failures] == ["raising"] * 2
    assert {f.error for f in failures} == {"RuntimeError: no score for this"}


def test_rows_are_those_of_memorization_and_more(everything):
    spec, rows, _ = everything
    cells = [
        cell
        for cell in experiments.all_cells(spec)
        if cell["pruner"] != "raising" and cell["sparsity"] < 0.9
    ]
    plain, _, _ = run(dataclasses.replace(spec, question="memorization"), cells)
    assert len(plain) == 2
    more = {
        *(f"lipschitz_{which}" for which in ("lower", "upper", "product")),
        *("squared_error", "noise_variance", "excess", "dim", "classes"),
    }
    for key, memorized in plain.items():
        row = rows[key]
        own = {name: value for name, value in row.items() if name not in more}
        assert set(row) - set(own) == more
        assert {**own, "seconds": 0} == {**memorized, "seconds": 0}
        # 1e-5: the lower end is found in float32.
        assert 0 < row["lipschitz_lower"] <= row["lipschitz_upper"] * (1 + 1e-5)
        assert row["lipschitz_upper"] <= row["lipschitz_product"] * (1 + 1e-12)
        assert row["lipschitz_upper"] < math.inf
        below = row["noise_variance"] - row["squared_error"]
        assert row["excess"] == pytest.approx(below, abs=1e-6)  # float32
        assert row["dim"] == 6 and row["classes"] == 2


def test_a_collapsed_network_has_slope_zero(everything):
    (row,) = (row for row in everything[1].values() if row["sparsity"] == 0.99)
    assert row["collapsed"] and row["kept"] == 2
    assert row["lipschitz_lower"] == row["lipschitz_upper"] == 0.0
    # A constant q has squared error 2 (s (1-q)² + (1-s) q²), at best 2 s (1-s).
    assert row["squared_error"] >= 0.5 - 2 * (row["train_accuracy"] - 0.5) ** 2 - 1e-5


def test_the_ends_of_a_linear_network_are_its_constant():
    """softmax(Wᵀx + b) of two classes is steepest where they are alike: the Jacobian
    is ±(w_0 - w_1)/4 there, of norm √2/4 ‖w_0 - w_1‖."""
    spec = make_spec(model={"widths": ()}, robustness={"steps": 60})
    ((_, row),) = run(spec)[0].items()
    (cell,) = experiments.all_cells(spec)
    (x, y, z), params = trained(spec, models.MLP(2, ()), cell)
    weights = np.asarray(params["params"]["Dense_0"]["kernel"], float)
    slope = math.sqrt(2) / 4 * np.linalg.norm(weights[:, 0] - weights[:, 1])
    unit = math.sqrt(np.mean(np.sum(np.square(x), axis=1)))
    # 1e-4: another order of sums in the training; 1 %: the ascent ends near the top.
    assert row["lipschitz_upper"] == pytest.approx(slope * unit, rel=1e-4)
    assert row["lipschitz_product"] == pytest.approx(slope * unit, rel=1e-4)
    assert row["lipschitz_lower"] == pytest.approx(slope * unit, rel=1e-2)
    outputs = jax.nn.softmax(models.MLP(2, ()).apply(params, x))
    error = np.mean(np.sum((outputs - jax.nn.one_hot(y, 2)) ** 2, axis=1))
    assert row["squared_error"] == pytest.approx(float(error), abs=1e-5)
    # Of labels that are pure noise, of two classes: z is ±1/2 each.
    assert row["noise_variance"] == 0.5
    np.testing.assert_array_equal(np.abs(z), 0.5)
    assert row["excess"] == pytest.approx(0.5 - float(error), abs=1e-5)


class Own(nn.Module):
    """No chain: the input goes around the hidden layer too."""

    @nn.compact
    def __call__(self, x):
        hidden = nn.relu(nn.Dense(8)(x))
        return nn.Dense(2)(jnp.concatenate([x, hidden], axis=-1))


def test_a_network_without_a_proven_bound_has_an_infinite_one(monkeypatch):
    entry = model_entry(monkeypatch, "own", lambda classes: Own())
    rows, failures, _ = run(make_spec(model={"name": entry}))
    ((_, row),) = rows.items()
    assert failures == [] and row["lipschitz_upper"] == math.inf
    assert row["lipschitz_product"] == math.inf and 0 < row["lipschitz_lower"] < 1e3


@pytest.mark.parametrize(
    ("activation", "proven"),
    [
        (nn.relu, True),
        (jnp.tanh, True),
        (nn.sigmoid, True),
        (nn.gelu, False),
        (lambda x: 2 * nn.relu(x), False),
    ],
)
def test_slopes_above_one_have_no_proven_bound(monkeypatch, activation, proven):
    model = models.MLP(2, (8, 8), activation=activation)
    entry = model_entry(monkeypatch, "own", lambda classes: model)
    setup = setup_of(make_spec(model={"name": entry}), [])
    assert bool(question.bounded_layers(setup.model)) == proven


def test_a_network_that_diverges_is_a_row_without_slopes():
    spec = make_spec(train={"optimizer": "sgd", "learning_rate": 1e30})
    rows, failures, _ = run(spec)
    ((_, row),) = rows.items()
    assert failures == [] and row["diverged"]
    assert math.isnan(row["lipschitz_upper"]) and math.isnan(row["lipschitz_product"])
    assert math.isnan(row["excess"])


@pytest.mark.parametrize(
    ("name", "asked", "presets"),
    [
        ("robustness", "robustness", ("", "smoke", "paper")),
        (
            "noise_correlation",
            "memorization",
            ("", "smoke", "paper", "digits", "gaussian", "fashion_mnist", "cifar10"),
        ),
    ],
)
def test_the_configurations_are_of_their_question(name, asked, presets):
    path = Path(__file__).parent.parent / "configs" / f"{name}.py"
    get_config = runpy.run_path(str(path))["get_config"]
    for preset in presets:
        spec = Spec.from_config(get_config(preset))
        experiments.check_names(spec)
        assert spec.question == asked and experiments.all_cells(spec)
    with pytest.raises(ValueError, match=f"preset 'tiny' of {name}.py, expected"):
        get_config("tiny")
