"""Which decoder reads the masks of a cell, and what comes of it in a run."""

import dataclasses
import functools

import pytest
from running import run, setup_of, spec_of

from nfp_jax.lab.draws import draw_of
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
