"""What can't be run is refused before anything is, with the field's name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_running import config

import nfp_jax as nfp
from nfp_jax.grid import GridSpec, cells, share
from nfp_jax.lab.limits import check_optimizer, check_options, check_sizes, memory_of
from nfp_jax.pruners.imp import imp_rounds
from nfp_jax.spec import Spec, SpecError


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"b1": 5}, "b1 is 5, expected 0 <= b1 < 1"),
        ({"b2": 1.0}, "b2 is 1.0, expected 0 <= b2 < 1"),
        ({"momentum": "fast"}, "momentum is 'fast', expected 0 <= momentum < 1"),
        ({"eps": -1e-8}, "eps is -1e-08, expected 0 <= eps < inf"),
        ({"b1": True}, "b1 is True, expected"),
        ({"mask": lambda x: x}, "mask is <function"),
        ({"b1": np.zeros(2)}, "expected a number, a text or a bool"),
    ],
)
def test_an_option_of_a_wrong_type_or_range_is_named(options, expected):
    with pytest.raises(SpecError) as error:
        check_options(options)
    assert str(error.value).startswith("train.options.") and expected in str(
        error.value
    )


def test_options_in_range_and_those_that_are_not_known_pass():
    check_options({"b1": 0.0, "eps": 0, "momentum": None, "nesterov": True, "x": -3})


def test_an_optimizer_that_needs_more_than_gradients_is_refused():
    for name in ("adam", "sgd", "lion"):
        check_optimizer(name, getattr(optax, name)(0.1))
    with pytest.raises(SpecError, match=r"train\.optimizer is 'lbfgs', expected one"):
        check_optimizer("lbfgs", optax.lbfgs(0.1))


def test_sizes_beyond_memory_are_told_with_their_field():
    shapes = {"kernel": jax.ShapeDtypeStruct((1000, 1000), jnp.float32)}
    check_sizes(shapes, (50,), 100, memory=2e7)
    with pytest.raises(SpecError, match=r"model: training 1,000,000 weights takes"):
        check_sizes(shapes, (50,), 100, memory=1e7)
    with pytest.raises(SpecError, match=r"grid\.n is 100,000: points take 0\.0 GiB"):
        check_sizes(shapes, (50,), 100_000, memory=2e7)
    wide = {"kernel": jax.ShapeDtypeStruct((10**5, 10**5), jnp.float32)}
    with pytest.raises(SpecError, match=r"10,000,000,000 weights, expected fewer than"):
        check_sizes(wide, (50,), 1)
    assert memory_of() > 2**30


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"out": "a\0b"}, r"out is .*, expected the path of a folder"),
        ({"out": ""}, r"out is '', expected the path of a folder"),
        (
            {"train": {"max_epochs": 2**31}},
            r"max_epochs is .*, expected max_epochs <",
        ),
        (
            {"train": {"stop": "still", "min_epochs": 5, "max_epochs": 4}},
            r"train\.min_epochs is 5, expected at most train\.max_epochs, 4",
        ),
        ({"capacity": {"precision": float("inf")}}, r"precision is inf, expected 0 < "),
    ],
)
def test_values_beyond_sense_are_named(changes, expected):
    with pytest.raises(SpecError, match=expected):
        Spec.from_config(changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train": {"optimizer": "lbfgs"}}, r"train\.optimizer is 'lbfgs'"),
        ({"train": {"options": {"b1": 5}}}, r"train\.options\.b1 is 5"),
        (
            {"pruners": {"imp": {"keep_per_round": 0.9999999}}},
            r"pruners\.imp\.keep_per_round is 0\.9999999, with which .* takes ",
        ),
        ({"pruners": {"synflow": {"rounds": 10**9}}}, r"rounds <= 10000"),
        ({"model": {"widths": (10**6, 10**6)}}, r"weights, expected fewer than 2\^31"),
    ],
)
def test_they_are_refused_before_a_run_and_leave_no_directory(
    tmp_path, changes, expected
):
    given = config(tmp_path)
    for group, fields in changes.items():
        given[group] = {**given.get(group, {}), **fields}
    given["grid"] = {**given["grid"], "pruner": ("imp", "synflow")}
    with pytest.raises(SpecError, match=expected):
        nfp.run(given)
    assert not list(tmp_path.iterdir())


def test_scalars_of_numpy_are_taken():
    spec = Spec.from_config(
        {
            "train": {"batch_size": np.int64(8), "learning_rate": np.float32(0.5)},
            "grid": {"n": (np.int32(7),), "paired_seeds": np.bool_(True)},
        }
    )
    assert spec.train.batch_size == 8 and isinstance(spec.train.batch_size, int)
    assert spec.grid.n == (7,) and spec.grid.paired_seeds is True
    same = Spec.from_config({"train": {"batch_size": 8, "learning_rate": 0.5}})
    assert same.train == spec.train


def test_an_enormous_number_of_shares_takes_no_memory():
    grid = GridSpec(pruner=("dense",), n=(10, 20))
    every = cells(grid, {})
    few = [share(every, i, 5) for i in range(5)]
    assert [share(every, i, 10**15) for i in range(5)] == few
    assert sum(map(len, few)) == len(every)
    assert share(every, 10**15 - 1, 10**15) == []


def test_rounds_of_imp_are_counted_before_they_are_made():
    assert len(imp_rounds(1000, [0.5], keep_per_round=0.999)) > 600
    with pytest.raises(ValueError, match="6,931,471 rounds, expected at most 1000"):
        imp_rounds(1000, [0.5], keep_per_round=0.9999999)
