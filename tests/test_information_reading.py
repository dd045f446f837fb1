"""Which decoder reads the masks of a cell, and what comes of it in a run."""

import dataclasses
import functools
import importlib

import jax
import numpy as np
import pytest
from running import pruner_entry, run, setup_of, spec_of

from nfp_jax import decoding
from nfp_jax.decoding import Stack, around, factor_law, relinearized, slopes
from nfp_jax.lab.draws import READ, draw_of, key_of
from nfp_jax.pruners.contract import Polynomial, Score
from nfp_jax.pruners.snip import snip
from nfp_jax.questions.information import reading

CONFIG = {
    "question": "information",
    "data": {"dim": 4},
    "model": {"widths": (6,)},
    "information": {"datasets": 16, "decoded": 16},
    "grid": {"pruner": ("snip",), "sparsity": (0.8,), "n": (12,)},
}
make_spec = functools.partial(spec_of, CONFIG)

pytestmark = pytest.mark.usefixtures("one_device")


def test_under_data_whole_examples_are_read_off_masks_of_a_sum_over_examples():
    """Its lists are no part of the data; random masks know nothing."""
    grid = {"pruner": ("snip", "random")}
    spec = make_spec(information={"conditioning": "data"}, grid=grid)
    rows, failures, _ = run(spec)
    snip, random = (
        next(row for row in rows.values() if row["pruner"] == pruner)
        for pruner in ("snip", "random")
    )
    assert failures == [] and random["information_lower"] == 0
    assert 0 <= snip["information_lower"] <= snip["information_upper"]
    assert snip["information_upper_by"] in ("code length and factors", "log binomial")
    setup = setup_of(spec)
    (cell,) = (cell for cell in setup.todo if cell["pruner"] == "snip")
    decoders, laws = reading.readers_of(setup, draw_of(setup, cell), cell)
    assert [one.name for one in decoders] == ["lists of examples"]
    assert [law.name for law in laws] == ["factors"]


@pytest.mark.parametrize("pruner", ["snip", "grasp"])
def test_under_labels_masks_that_fix_labels_are_read_in_a_run(pruner):
    """Rows say by which decoder, and how often propagation diverged."""
    grid = {"pruner": (pruner,), "sparsity": (0.5,)}
    spec = make_spec(grid=grid, model={"widths": (24,)}, data={"dim": 8})
    ((_, row),) = run(spec)[0].items()
    name = "expectation" if pruner == "snip" else "relinearized"
    assert row["information_lower_by"] == f"{name} propagation"
    assert row["decoder_fallbacks"] == 0
    assert 0.1 * row["label_entropy"] < row["information_lower"]
    assert row["information_lower"] <= row["information_upper"]


@pytest.mark.parametrize(
    ("pruner", "names"),
    [
        ("snip", ["expectation propagation"]),
        ("grasp", ["relinearized propagation"]),
        ("magnitude_trained", ["ridge decoding"]),
    ],
)
def test_a_decoder_that_knows_the_score_reads_its_masks(pruner, names):
    spec = make_spec(grid={"pruner": (pruner,)})
    setup = setup_of(spec)
    cell = setup.todo[0]
    decoders, laws = reading.readers_of(setup, draw_of(setup, cell), cell)
    assert [one.name for one in decoders] == names
    assert len(laws) == (pruner == "snip")
    three = make_spec(
        grid={"pruner": (pruner,)},
        data={**CONFIG["data"], "classes": 3},
    )
    setup = setup_of(three)
    cell = setup.todo[0]
    decoders, laws = reading.readers_of(setup, draw_of(setup, cell), cell)
    assert decoders[0].name == "ridge decoding" and laws == []


def test_lists_of_fresh_examples_are_for_independent_examples_alone():
    """Else what examples of a set share would tell them apart without the mask."""
    setup = setup_of(make_spec())
    cell = {**setup.todo[0], "noise": 0.5}

    def independent(noise=0.5, **changes):
        card = dataclasses.replace(setup.card, **changes)
        other = dataclasses.replace(setup, card=card)
        return reading.are_independent(other, {**cell, "noise": noise})

    assert independent() and independent(noise=1.0, uniform_labels=False)
    assert not independent(uniform_labels=False)
    assert not independent(gaussian_inputs=False)
    assert not reading.are_independent(dataclasses.replace(setup, card=None), cell)


def powered(degree, power):
    """The power of SNIP's signed score, said to be of a degree in the labels."""

    def build(net):
        signed = snip(net.loss_fn).polynomial.fn

        def fn(*arguments):
            return jax.tree.map(lambda u: u**power, signed(*arguments))

        polynomial = Polynomial(fn, degree=degree, absolute=False)
        return reading.ByScore(
            Score(fn, polynomial=polynomial), 1, None, True, False, None
        )

    return build


# Enough masks for ridge and search to say something.
MANY = {
    "model": {"widths": (24,)},
    "data": {"dim": 8},
    "information": {"datasets": 64, "decoded": 16},
}
GENERAL = ("ridge decoding", "search decoding")


def test_masks_that_have_no_slopes_are_read_as_those_of_any_score(monkeypatch):
    """That is found out when the first mask is decoded."""
    monkeypatch.setattr(relinearized, "DEVIATION", -1.0)
    monkeypatch.setattr(slopes, "MOST_WORK", 0)
    rows, failures, _ = run(make_spec(grid={"pruner": ("grasp",)}, **MANY))
    (row,) = rows.values()
    assert failures == [] and row["information_lower_by"] in GENERAL


def test_a_score_of_higher_degree_than_it_says_is_read_as_any_other(monkeypatch):
    entry = pruner_entry(monkeypatch, "cubed", build=powered(degree=2, power=3))
    rows, failures, _ = run(make_spec(grid={"pruner": (entry,)}, **MANY))
    (row,) = rows.values()
    assert failures == [] and row["information_lower_by"] in GENERAL


@pytest.mark.parametrize("conditioning", ["labels", "data"])
def test_a_pruner_that_is_no_mean_as_it_says_fails_by_name(monkeypatch, conditioning):
    entry = pruner_entry(monkeypatch, "wrong", build=powered(degree=1, power=2))
    settings = {"conditioning": conditioning}
    spec = make_spec(grid={"pruner": (entry, "random")}, information=settings)
    rows, (failure,), _ = run(spec)
    assert [row["pruner"] for row in rows.values()] == ["random"]
    assert failure.cell["pruner"] == "wrong"
    assert failure.error.startswith("NotAdditive: pruner 'wrong' says that its score")
    assert "of what it varies between" in failure.error


@pytest.mark.parametrize("conditioning", ["labels", "data"])
@pytest.mark.parametrize("pruner", ["snip", "grasp", "magnitude_trained"])
def test_few_masks_say_nothing_and_do_not_fail(conditioning, pruner):
    """Ridge has one mask to fit to, at first, and then none that it decodes."""
    settings = {"conditioning": conditioning, "datasets": 2}
    grid = {"pruner": (pruner,)}
    rows, failures, _ = run(make_spec(information=settings, grid=grid))
    (row,) = rows.values()
    assert failures == [] and row["information_lower_by"] == "nothing"
    assert 0 == row["information_lower"] < row["information_upper"]


def test_dense_layers_read_lists_as_any_network_does(monkeypatch):
    monkeypatch.setattr(factor_law, "SETS", 512)
    listing = importlib.import_module("nfp_jax.decoding.examples")
    monkeypatch.setattr(listing, "LEARNED", 12)
    asked, known = [], decoding.readout_for

    def watched(*given):
        asked.append(known(*given))
        return asked[0]

    monkeypatch.setattr(decoding, "readout_for", watched)
    spec = make_spec(information={"conditioning": "data"}, data={"dim": 8})
    setup = setup_of(spec)
    (cell,) = setup.todo
    draw = draw_of(setup, cell)
    signed = reading.signed_of(setup, draw, cell, reading.polynomial_of(setup, cell))
    (decoder,), _ = reading.by_examples(setup, draw, cell, signed, 1)
    assert asked[0].__qualname__.startswith("dense_readout")
    reader = decoder.gains.__self__
    first, _ = jax.random.split(key_of(setup, READ, cell["data_seed"]))
    general = decoding.examples(signed, reader.draw, first)
    keys = jax.random.split(jax.random.key(1), 3)
    x, y = jax.vmap(lambda key: reader.draw(key, 12))(keys)
    made = np.array([signed.mask(y[k], x[k]) for k in range(3)])
    prior = np.full((12, 2), 0.5)
    stack = Stack(made, np.asarray(y), prior, np.asarray(x), True)
    found, expected = (one.gains(stack, 0, 3) for one in (reader, general))
    assert np.abs(expected).min() > 1e-3
    assert found == pytest.approx(expected, abs=1e-3)  # sums in another order


def test_under_data_examples_are_read_off_grasp_where_that_is_not_too_much(
    monkeypatch,
):
    settings = {"conditioning": "data", "datasets": 16, "decoded": 16}
    spec = make_spec(information=settings, grid={"pruner": ("grasp",)})
    setup = setup_of(spec)
    (cell,) = setup.todo
    decoders, laws = reading.readers_of(setup, draw_of(setup, cell), cell)
    assert [one.name for one in decoders] == ["lists of examples"] and laws == []
    monkeypatch.setattr(around, "MOST_WORK_CPU", 1)
    monkeypatch.setattr(around, "MOST_WORK", 1)
    asked = []

    def general(*given):
        asked.append(given)
        return []

    monkeypatch.setattr(reading, "general_readers", general)
    rows, failures, _ = run(spec)
    assert failures == [] and len(rows) == len(asked) == 1
