"""What rows are summed up to, and the figures of them, from synthetic rows."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from rows import make_noisy_rows, make_row, make_rows

from nfp_jax.pages import common, looks
from nfp_jax.questions.memorization import networks
from nfp_jax.report import kinds


def test_summary_has_mean_half_width_and_counts_of_each_cell():
    rows = [
        make_row(seed=0, train_accuracy=0.1, converged=False, collapsed=True),
        make_row(seed=1, train_accuracy=0.2, converged=False, diverged=True),
        make_row(seed=2, train_accuracy=0.3, converged=None),
        make_row("imp", train_accuracy=0.9),
    ]
    lines = networks.summary(pd.DataFrame(rows))
    assert lines["pruner"].tolist() == ["snip", "imp"]
    snip, imp = lines.to_dict("records")
    assert snip["train_accuracy"] == pytest.approx(0.2)
    assert snip["train_accuracy_half_width"] == pytest.approx(0.2484138, abs=1e-7)
    assert math.isnan(snip["test_accuracy"]) and math.isnan(imp["loss_half_width"])
    counts = [snip[x] for x in ("networks", "collapsed", "diverged", "unconverged")]
    assert counts == [3, 1, 1, 1]  # what diverged is not counted again as unconverged


# The figures


def test_every_figure_is_drawn_and_says_how_many_networks():
    rows = pd.concat([make_noisy_rows(), make_noisy_rows(ablation="shuffle")])
    for drawing in kinds.draw(rows[rows["pruner"] != "dense"]).values():
        assert drawing.figure is not None
        assert "over 3 networks (seeds)" in drawing.caption


def test_the_points_of_a_figure_are_the_means_in_the_pruner_s_color():
    rows = make_rows(pruners=("imp",))
    figure = kinds.draw(rows)["memorization"].figure
    [line] = [x for x in figure.axes[0].lines if x.get_color() == "#d55e00"][:1]
    means = rows[rows["pruner"] == "imp"].groupby("sparsity")["memorized_points"].mean()
    np.testing.assert_allclose(line.get_ydata(), means)
    # From 50 % to 95 % removed is a decade of weights kept; one line is not moved
    # relative to itself.
    x = line.get_xdata()
    assert x[3] - x[0] == pytest.approx(1.0)


def test_a_network_that_stopped_holds_its_last_value():
    rows = pd.DataFrame(
        [
            make_row(seed=0, noise_correlation_by_epoch=[0.0, 0.4]),
            make_row(seed=1, noise_correlation_by_epoch=[0.0, 0.1, 0.2, 0.2]),
        ]
    )
    drawing = kinds.draw(rows)["noise_correlation_by_epoch"]
    [line] = drawing.figure.axes[0].lines
    assert drawing.figure.axes[0].get_xscale() == "log"
    np.testing.assert_allclose(line.get_ydata(), [0.0, 0.25, 0.3, 0.3])
    assert line.get_xdata().tolist() == [1, 2, 3, 4]
    assert "holds its last value" in drawing.caption


def test_a_collapsed_cell_is_hollow_and_the_caption_says_so():
    rows = make_rows(("snip",), (0.5, 0.9))
    hollow = "Hollow: at least one of the networks collapsed"
    assert hollow not in kinds.draw(rows)["memorization"].caption
    rows.loc[0, "collapsed"] = True
    drawing = kinds.draw(rows)["memorization"]
    assert hollow in drawing.caption
    [markers] = [
        x for x in drawing.figure.axes[0].lines if x.get_markerfacecolor() == "white"
    ]
    [y] = markers.get_ydata()
    assert y == rows.loc[:2, "memorized_points"].mean()


def test_axes_that_vary_have_panels_and_a_variant_has_a_line_style():
    rows = pd.concat(
        [
            make_rows(("snip", "imp"), (0.5, 0.9), n=n, noise=noise, select=select)
            for n in (100, 1000)
            for noise in (0.5, 1.0)
            for select in ("global", "per_layer")
        ]
    )
    figure = kinds.draw(rows)["memorization"].figure
    titles = [axes.get_title().replace("\u00a0", " ") for axes in figure.axes]
    assert titles[0] == "n = 100, noise = 0.5" and len(titles) == 4
    [legend] = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[-2:] == ["global", "per_layer"]


def test_a_pruner_looks_the_same_whatever_else_is_in_a_figure():
    rows = make_noisy_rows(pruners=("mine", "yours", "imp"), sparsities=(0.5, 0.9))
    looks = []
    for name, drawing in kinds.draw(rows).items():
        if name == "controls":  # pruners have their names beside their points
            continue
        [legend] = drawing.figure.legends
        lines = zip(legend.get_texts(), legend.get_lines(), strict=True)
        looks.append({t.get_text(): (x.get_color(), x.get_marker()) for t, x in lines})
    for look in looks:
        assert {name: look[name] for name in ("mine", "yours", "IMP")} == {
            name: looks[0][name] for name in ("mine", "yours", "IMP")
        }
    assert len({looks[0][name] for name in looks[0]}) == len(looks[0])


def test_of_many_panels_by_sparsity_the_caption_says_which_are_shown():
    many = make_rows(("imp",), sparsities=np.arange(1, 10) / 10)
    drawing = kinds.draw(many)["kept_by_layer"]
    assert len(drawing.figure.axes) == 6
    assert drawing.figure.axes[-1].get_title() == "90\u00a0%\u00a0removed"
    assert "6 of the 9 sparsities have a panel" in drawing.caption
    twice = pd.concat([make_rows(("imp",), n=n) for n in (100, 1000)])
    drawing = kinds.draw(twice)["kept_by_layer"]
    assert len(drawing.figure.axes) == 2
    assert "Each panel shows its highest sparsity" in drawing.caption


def test_a_single_seed_has_no_interval_and_the_caption_says_so():
    few = {"pruners": ("snip", "imp"), "sparsities": (0.5, 0.9), "seeds": 1}
    rows = [make_noisy_rows(**few, ablation=x) for x in ("", "shuffle")]
    drawings = kinds.draw(pd.concat(rows))
    for drawing in drawings.values():
        assert "there is no interval" in drawing.caption


# Networks that failed


NAN = dict.fromkeys(
    ("loss", "train_accuracy", "memorized_points", "noise_correlation"), math.nan
)
NAN |= {"noise_correlation_normalized": math.nan, "diverged": True}
CURVE, KEPT = "noise_correlation_by_epoch", "kept_by_layer"
TWO = ("snip", "imp")
ODD_ROWS = {
    "all diverged": [(TWO, NAN | {CURVE: [math.nan] * 40})],
    "all diverged at once": [(TWO, NAN | {CURVE: [math.nan]})],
    "infinite": [(TWO, NAN | {CURVE: [0.1, math.inf, -math.inf]})],
    "one pruner diverged": [(("imp",), {}), (("snip",), NAN | {CURVE: [math.nan] * 9})],
    "dense diverged": [((), NAN | {CURVE: [math.nan] * 9}), (("imp",), {})],
    "no epochs": [(TWO, {CURVE: [], "epochs": 0})],
    "one pruner without epochs": [(("imp",), {}), (("snip",), {CURVE: []})],
    "one epoch": [(TWO, {CURVE: [0.3]})],
    "no lists": [(TWO, dict.fromkeys((CURVE, KEPT, "layers"), None))],
    "None in lists": [(TWO, {CURVE: [0.1, None], KEPT: [None, 10, 20]})],
    "only None in lists": [(TWO, {CURVE: [None] * 3, KEPT: [None] * 3})],
    "nothing kept": [(TWO, {KEPT: [0, 0, 0], "collapsed": True})],
    "flags unknown": [(TWO, dict.fromkeys(("converged", "diverged", "collapsed")))],
    "only dense": [((), {})],
    "one sparsity": [(TWO, {"sparsities": (0.9,)})],
    "one network": [(("imp",), {"sparsities": (0.9,), "seeds": 1})],
    "sparsity 0": [(TWO, {"sparsities": (0.0,)})],
    "sparsity 0 and more": [(TWO, {"sparsities": (0.0, 0.9)})],
    "dollars": [(("$a_{$",), {"layers": ["$b_{$"] * 3, "select": "$c_{$"}), (TWO, {})],
}


@pytest.mark.parametrize("odd", ODD_ROWS)
def test_odd_rows_are_drawn(odd):
    """A smoke test; warnings are errors."""
    few = {"sparsities": (0.5, 0.9)}
    parts = [make_rows(names, **(few | changes)) for names, changes in ODD_ROWS[odd]]
    rows = pd.DataFrame([row for part in parts for row in part.to_dict("records")])
    for name, drawing in kinds.draw(rows).items():
        assert drawing.caption
        if drawing.figure is not None:
            assert "nan" not in common.svg(drawing.figure, name)


def test_a_diverged_network_is_no_part_of_a_curve_and_the_caption_says_so():
    finite = [make_row(seed=seed, **{CURVE: [0.1, 0.2]}) for seed in range(2)]
    rows = pd.DataFrame([*finite, make_row(seed=2, **NAN, **{CURVE: [0.4, math.nan]})])
    drawing = kinds.draw(rows)[CURVE]
    line, hollow = drawing.figure.axes[0].lines
    assert hollow.get_xydata().tolist() == [[2, line.get_ydata()[-1]]]
    assert hollow.get_markerfacecolor() == "white"
    np.testing.assert_allclose(line.get_ydata(), [0.2, 0.2])
    assert "Means leave out what is not finite" in drawing.caption


def test_where_all_diverged_the_caption_does_not_say_there_was_no_noise():
    drawing = kinds.draw(make_rows(("imp",), (0.9,), **NAN))["noise_correlation"]
    assert drawing.figure is None and "finite correlation" in drawing.caption


def test_a_cell_that_did_not_converge_is_half_filled_and_the_legend_says_so():
    rows = make_rows(("snip",), (0.5, 0.8, 0.9))
    rows.loc[0, "converged"] = False
    rows.loc[3:4, ["converged", "diverged"]] = [[False, False], [False, True]]
    drawing = kinds.draw(rows)["memorization"]
    half, hollow = (
        [x for x in drawing.figure.axes[0].lines if look(x)]
        for look in (
            lambda x: x.get_fillstyle() == "left",
            lambda x: x.get_markerfacecolor() == "white",
        )
    )
    means = rows.groupby("sparsity")["memorized_points"].mean()
    np.testing.assert_allclose([x.get_ydata() for x in half], [[means[0.5]]])
    # Where one did not converge and another diverged, the worse is told.
    np.testing.assert_allclose([x.get_ydata() for x in hollow], [[means[0.8]]])
    [legend] = drawing.figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[-2:] == ["did not converge", "collapsed or diverged"]


def test_a_network_out_of_budget_is_told_apart_from_one_that_did_not_converge():
    """By ``settled``; a mask's own trainings count too, a diverged network does not."""
    cases = [
        # settled, out_of_budget, converged, diverged: out of budget, unconverged
        (True, 0, True, False, False, False),
        (False, 1, False, False, True, False),
        (True, 2, True, False, True, False),  # two trainings that the mask comes from
        (None, 1, False, False, False, True),  # another stopping rule
        (None, 2, True, False, True, False),
        (None, None, False, False, False, True),  # an older row
        (False, 0, False, True, False, False),
    ]
    names = ("settled", "out_of_budget", "converged", "diverged")
    rows = [make_row(**dict(zip(names, case, strict=False))) for case in cases]
    flags = networks.flagged(pd.DataFrame(rows))
    assert flags["out_of_budget"].tolist() == [case[4] for case in cases]
    assert flags["unconverged"].tolist() == [case[5] for case in cases]
    # What is read from file has pandas' nullable types.
    types = dict.fromkeys(("settled", "converged", "diverged"), "boolean")
    typed = pd.DataFrame(rows).astype({**types, "out_of_budget": "Int64"})
    assert networks.flagged(typed)["out_of_budget"].tolist() == [x[4] for x in cases]


def test_a_caption_says_how_many_networks_ran_out_of_budget():
    rows = make_rows(("snip",), (0.5, 0.8, 0.9)).assign(settled=True, out_of_budget=0)
    assert "budget" not in kinds.draw(rows)["memorization"].caption
    rows.loc[[0, 1, 5], "out_of_budget"] = [1, 1, 7]
    drawing = kinds.draw(rows)["memorization"]
    half = [x for x in drawing.figure.axes[0].lines if x.get_fillstyle() == "left"]
    means = rows.groupby("sparsity")["memorized_points"].mean()
    np.testing.assert_allclose([x.get_ydata() for x in half], [means[[0.5, 0.8]]])
    assert "Half-filled: at least one of the networks ran out of budget." in (
        drawing.caption
    )
    assert "Of 9 pruned networks 3 ran out of budget" in drawing.caption
    [legend] = drawing.figure.legends
    assert legend.get_texts()[-1].get_text() == "ran out of budget"


def test_the_axis_ends_at_n_where_an_interval_does_not():
    rows = make_rows(("snip",), (0.5, 0.9))
    rows.loc[:2, "memorized_points"] = [1000.0, 1000.0, 400.0]
    axes = kinds.draw(rows)["memorization"].figure.axes[0]
    assert axes.get_ylim()[1] == pytest.approx(1040)


def test_panels_that_share_their_axis_show_what_is_lowest_in_the_last():
    rows = pd.concat(
        [
            make_rows(("snip",), (0.5, 0.9), noise=0.5, memorized_points=990.0),
            make_rows(("snip",), (0.5, 0.9), noise=1.0, memorized_points=500.0),
        ]
    )
    figure = kinds.draw(rows)["memorization"].figure
    assert len(figure.axes) == 2
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert low < 500 and 990 < high <= 1040


def test_a_legend_that_is_longer_than_its_panels_makes_the_figure_taller():
    variants = [{"select": x} for x in ("global", "per_layer", "erk", "mine")]
    few = {"sparsities": (0.5, 0.9)}
    rows = pd.concat(
        [make_rows(n=n, **few, **variant) for n in (100, 1000) for variant in variants]
    )
    rows.loc[0, "converged"], rows.loc[3, "collapsed"] = False, True
    figure = kinds.draw(rows)["memorization"].figure
    figure.draw_without_rendering()
    [legend] = figure.legends
    assert len(legend.get_texts()) == 14
    assert legend.get_window_extent().y0 >= 0


# Correlation with the noise by the noise rate


def test_by_the_noise_rate_each_pruner_has_the_means_of_its_networks():
    rows = make_noisy_rows((0.2, 0.5, 1.0), pruners=("imp", "snip"), sparsities=(0.9,))
    drawing = kinds.draw(rows)["noise_correlation_by_noise"]
    [axes] = drawing.figure.axes
    assert axes.get_title() == "90\u00a0%\u00a0removed"
    metric = "noise_correlation_normalized"
    for pruner in ("imp", "snip", "dense"):
        color = to_hex(looks.PALETTE[pruner].color)
        [line] = [x for x in axes.lines if to_hex(x.get_color()) == color][:1]
        cells = rows[rows["pruner"] == pruner].groupby("noise")[metric].mean()
        np.testing.assert_allclose(line.get_ydata(), cells)
        np.testing.assert_allclose(line.get_xdata(), cells.index, atol=0.03)
    assert "Dashed: the dense network." in drawing.caption
    assert "Missing" not in drawing.caption


def test_without_noise_the_correlation_is_missing_and_the_caption_says_so():
    sparsities = (0.5, 0.8, 0.9)
    rows = make_noisy_rows((0.0, 0.5, 1.0), pruners=("imp",), sparsities=sparsities)
    drawing = kinds.draw(rows)["noise_correlation_by_noise"]
    assert len(drawing.figure.axes) == len(sparsities)
    for axes in drawing.figure.axes:
        assert min(x for line in axes.lines for x in line.get_xdata()) > 0.4
    assert "Missing: noise = 0" in drawing.caption


@pytest.mark.parametrize(
    ("noises", "words"),
    [((1.0,), "just one noise rate"), ((0.0, 1.0), "just one"), ((0.0,), "no noise")],
)
def test_one_noise_rate_alone_has_no_figure_and_the_caption_says_so(noises, words):
    rows = make_noisy_rows(noises, pruners=("imp",), sparsities=(0.5, 0.9))
    drawing = kinds.draw(rows)["noise_correlation_by_noise"]
    assert drawing.figure is None and words in drawing.caption
