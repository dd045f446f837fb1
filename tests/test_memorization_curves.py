"""Curves of trainings: means by epoch and by loss, from histories of any epochs."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from rows import make_row, make_rows

from nfp_jax.pages import looks
from nfp_jax.questions.memorization.curves import (
    History,
    by_epoch,
    by_loss,
    histories,
    noise_factor,
)
from nfp_jax.report import kinds

ACCURACY, CORRELATION = "train_accuracy_by_epoch", "noise_correlation_by_epoch"


def history(epochs, values):
    return History(np.array(epochs), np.array(values, dtype=float))


def at(curve, x):
    """The mean at the place of x, which is one of the curve's."""
    [place] = np.flatnonzero(np.isclose(curve.x, x))
    return curve.mean[place]


def lines_of(axes, pruner):
    color = to_hex(looks.PALETTE[pruner].color)
    return [x for x in axes.lines if to_hex(x.get_color()) == color]


# By epoch


def test_between_two_entries_a_history_stands_still_at_the_earlier_one():
    curve = by_epoch([history([1, 2, 4, 8], [0.1, 0.2, 0.4, 0.8])])
    assert curve.x.tolist() == list(range(1, 9))
    expected = [0.1, 0.2, 0.2, 0.4, 0.4, 0.4, 0.4, 0.8]
    np.testing.assert_allclose(curve.mean, expected)


def test_networks_of_different_epochs_are_averaged_at_the_same_ones():
    short, long = history([1, 2, 4], [0.0, 0.2, 1.0]), history([1, 6], [0.4, 0.6])
    curve = by_epoch([short, long])
    means = [0.2, 0.3, 0.3, 0.7, 0.7, 0.8]  # the short one holds 1, the long one 0.4
    np.testing.assert_allclose(curve.mean, means)
    # Of two values that differ by d the half-width is t(0.975, 1) d / 2.
    assert curve.half_width[0] == pytest.approx(12.7062 * 0.2, rel=1e-5)


def test_epochs_are_spread_on_a_logarithmic_scale_from_1_to_the_last():
    curve = by_epoch([history([1, 3200], [0.5, 1.0])])
    assert (curve.x[0], curve.x[-1]) == (1, 3200) and len(curve.x) <= 64
    ratios = curve.x[1:] / curve.x[:-1]
    assert ratios[curve.x[1:] > 20].max() < 1.2
    assert curve.mean[-2:].tolist() == [0.5, 1.0]


def test_without_epochs_on_file_an_entry_is_an_epoch():
    rows = pd.DataFrame([make_row(**{ACCURACY: [0.5, 0.7]})])
    [one] = histories(rows, ACCURACY)
    assert one.epochs.tolist() == [1, 2]
    [one] = histories(rows.assign(history_epochs=[[3, 9]]), ACCURACY)
    assert one.epochs.tolist() == [3, 9]
    with pytest.raises(ValueError, match="has 2 entries, expected the 3 of history_ep"):
        histories(rows.assign(history_epochs=[[3, 9, 10]]), ACCURACY)


@pytest.mark.parametrize(
    ("name", "column"),
    [("memorization_by_epoch", ACCURACY), ("noise_correlation_by_epoch", CORRELATION)],
)
def test_figures_by_epoch_take_the_epochs_of_the_rows(name, column):
    rows = [
        make_row(seed=0, history_epochs=[1, 2], **{column: [0.0, 0.4]}),
        make_row(seed=1, history_epochs=[1, 4], **{column: [0.2, 0.6]}),
    ]
    other = ACCURACY if column == CORRELATION else CORRELATION
    rows = pd.DataFrame(rows).assign(**{other: None})
    drawing = kinds.draw(rows)[name]
    [axes] = drawing.figure.axes
    [line] = lines_of(axes, "snip")
    assert axes.get_xscale() == "log"
    np.testing.assert_allclose(line.get_xydata()[:, 0], [1, 2, 3, 4])
    np.testing.assert_allclose(line.get_ydata(), [0.1, 0.3, 0.3, 0.5])
    assert "holds its last value" in drawing.caption


def test_each_sparsity_has_a_panel_and_each_pruner_a_line():
    rows = make_rows(("snip", "imp"), (0.5, 0.9))
    axes = kinds.draw(rows)["memorization_by_epoch"].figure.axes
    titles = [x.get_title().replace("\u00a0", " ") for x in axes]
    assert titles == ["50 % removed", "90 % removed"]
    for panel in axes:
        assert all(len(lines_of(panel, x)) == 1 for x in ("snip", "imp", "dense"))


def test_the_end_of_a_line_tells_that_networks_ran_out_of_budget():
    rows = make_rows(("snip", "imp"), (0.9,)).assign(settled=True, out_of_budget=0)
    rows.loc[4, "out_of_budget"] = 1  # the second network of IMP
    drawing = kinds.draw(rows)["memorization_by_epoch"]
    [axes] = drawing.figure.axes
    line, half = lines_of(axes, "imp")
    assert half.get_fillstyle() == "left" and len(lines_of(axes, "snip")) == 1
    np.testing.assert_allclose(half.get_xydata(), line.get_xydata()[-1:])
    assert "Of 6 pruned networks 1 ran out of budget" in drawing.caption


# By loss


def test_a_network_counts_where_its_loss_first_falls_so_low():
    losses = history([1, 2, 3, 4], [0.8, 0.4, 0.6, 0.2])  # it rises once
    others = history([1, 2, 3, 4], [0.0, 0.3, 0.9, 0.5])
    curve = by_loss([losses], [others])
    np.testing.assert_allclose([curve.x[0], curve.x[-1]], [0.8, 0.2])
    assert (at(curve, 0.8), at(curve, 0.2)) == (0.0, 0.5)
    # Half way on the logarithm from 0.8 to 0.4, and from 0.4 to 0.2.
    logs = np.log(curve.x)
    for loss, expected in ((0.8 / math.sqrt(2), 0.15), (0.4 / math.sqrt(2), 0.4)):
        found = np.interp(-math.log(loss), -logs, curve.mean)
        assert found == pytest.approx(expected, abs=0.005)  # 64 points


def test_networks_are_compared_where_all_have_passed():
    curve = by_loss(
        [history([1, 2], [0.8, 0.1]), history([1, 2], [0.6, 0.3])],
        [history([1, 2], [0.0, 1.0]), history([1, 2], [0.2, 0.8])],
    )
    np.testing.assert_allclose([curve.x[0], curve.x[-1]], [0.6, 0.3])
    first = math.log(0.8 / 0.6) / math.log(8)
    assert curve.mean[0] == pytest.approx((first + 0.2) / 2)
    apart = [history([1], [0.9]), history([1], [0.5])]
    assert by_loss(apart, apart) is None
    alone = by_loss(apart[:1], [history([1], [0.3])])
    assert alone.x.tolist() == pytest.approx([0.9]) and alone.mean.tolist() == [0.3]


def test_a_diverged_network_does_not_end_the_curve_of_the_others():
    losses = [history([1, 2], [0.8, 0.1]), history([1], [math.nan])]
    others = [history([1, 2], [0.0, 1.0]), history([1], [math.nan])]
    assert by_loss(losses, others).mean[-1] == 1.0
    assert by_loss(losses[1:], others[1:]) is None


def test_the_correlation_is_divided_by_the_noise_power_of_its_data_set():
    rows = pd.DataFrame(
        [
            make_row(seed=0, noise_correlation=0.2, noise_correlation_normalized=0.5),
            make_row("imp", noise_correlation=0.0, noise_correlation_normalized=0.0),
            make_row(seed=1, noise_correlation=0.1, noise_correlation_normalized=0.4),
            make_row(seed=2, noise=0.0),
        ]
    )
    factor = noise_factor(rows)
    np.testing.assert_allclose(factor, [2.5, 2.5, 4.0, np.nan])
    curves = {"loss_by_epoch": [0.6, 0.3], CORRELATION: [0.1, 0.2]}
    some = rows[:1].assign(**{name: [values] for name, values in curves.items()})
    drawing = kinds.draw(some)["noise_correlation_by_loss"]
    [axes] = drawing.figure.axes
    [line] = lines_of(axes, "snip")
    np.testing.assert_allclose(line.get_ydata()[[0, -1]], [0.25, 0.5])
    left, right = axes.get_xlim()
    assert axes.get_xscale() == "log" and left > 0.6 > 0.3 > right
    assert "divided by the mean of ‖z‖²" in drawing.caption


def test_where_no_losses_are_on_file_the_caption_says_so():
    drawing = kinds.draw(make_rows(loss_by_epoch=None))["noise_correlation_by_loss"]
    assert drawing.figure is None and "losses and correlations" in drawing.caption
