"""Figures of runs read together: where the points, their bars and guides are."""

import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from rows import told
from scipy import stats

from nfp_jax.pages import common, looks
from nfp_jax.pages.joined import beside_information
from nfp_jax.report.together.figures import (
    capacity_against_p_eff,
    gap_against_information,
)

HERE = "gaussian, d = 50, C = 2, mlp 50-50 (he_normal)"
THERE = "digits, mlp 50-50 (he_normal)"


@pytest.fixture(autouse=True)
def style():
    """That of a page, in which a "$" in a name is a "$"."""
    with matplotlib.style.context(["default", looks.RC]):
        yield


def make_line(pruner="imp", sparsity=0.9, values=(700, 500, 640), **changes):
    kept = round(5000 * (1 - sparsity))
    nats = {"imp": (80.0, 130.0), "random": (0.0, 2.0)}.get(pruner, (40.0, 90.0))
    return {
        "pruner": pruner,
        **told(pruner),
        "sparsity": sparsity,
        "select": "global",
        "noise": 1.0,
        "n": 200,
        "where": HERE,
        "values": list(values),
        "value": float(np.median(values)),
        "kept": float(kept),
        "information_n": 200.0,
        "information_lower": nats[0],
        "information_upper": nats[1],
        "p_eff_lower": kept + nats[0],
        "p_eff_upper": kept + nats[1],
        **changes,
    }


def make_lines(pruners=("random", "imp"), sparsities=(0.8, 0.9), **changes):
    return pd.DataFrame(
        [make_line(x, y, **changes) for x in pruners for y in sparsities]
    )


NOTHING = beside_information({}, "swap", "swap_gaps")
DRAW = {
    "capacity_against_p_eff": capacity_against_p_eff,
    "gap_against_information": gap_against_information,
}
draws = pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)


def points(axes, pruner):
    color = to_hex(looks.PALETTE[pruner].color)
    lines = [x for x in axes.lines if to_hex(x.get_color()) == color]
    return [tuple(xy) for x in lines for xy in x.get_xydata()]


def bars(axes, pruner):
    """The ends of its bars: (x, y) of each."""
    color = to_hex(looks.PALETTE[pruner].color)
    found = [x for x in axes.collections if to_hex(x.get_color()[0]) == color]
    ends = [np.array(part) for x in found for part in x.get_segments()]
    across = [x for x in ends if x[0, 1] == x[1, 1]]
    upward = [x for x in ends if x[0, 1] != x[1, 1]]
    return across, upward


@draws
def test_where_nothing_is_joined_there_is_no_figure_and_the_caption_says_why(draw):
    title, figure, caption = draw(NOTHING)
    assert title and figure is None
    assert caption == "No two runs of the collection are of the same data and network."


def test_a_capacity_is_a_median_at_the_middle_of_p_eff_with_a_bar_for_each_interval():
    values = (700, 500, 640)
    [axes] = capacity_against_p_eff(make_lines(("random", "imp"), (0.9,))).figure.axes
    # 500 weights kept, and 80 to 130 nats.
    [(x, y)] = points(axes, "imp")
    assert x == pytest.approx(np.sqrt(580 * 630)) and y == 640
    [across], [upward] = bars(axes, "imp")
    assert across.tolist() == [[580, 640], [630, 640]]
    np.testing.assert_allclose(upward, [(x, min(values)), (x, max(values))])
    [across], _ = bars(axes, "random")
    assert across[:, 0].tolist() == [500, 502]


@pytest.mark.parametrize("conditioning", ["labels", "data"])
def test_p_eff_says_of_which_information_it_is(conditioning):
    title, figure, caption = capacity_against_p_eff(
        make_lines(conditioning=conditioning)
    )
    name = f"p_eff ({conditioning})"
    assert title == f"Memorization capacity against {name}" and name in caption
    assert figure.axes[0].get_xlabel() == f"{name}, weights kept + nats"
    assert "p_eff (labels)" in capacity_against_p_eff(make_lines()).title


def test_the_guide_is_one_point_an_effective_parameter_from_end_to_end():
    [axes] = capacity_against_p_eff(make_lines()).figure.axes
    [guide] = [x for x in axes.lines if to_hex(x.get_color()) == "#bbbbbb"]
    assert guide.get_xydata().tolist() == [[500, 500], [1130, 1130]]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_a_network_that_fits_nothing_has_its_place_at_0():
    [axes] = capacity_against_p_eff(make_lines(values=(0, 0, 700))).figure.axes
    low, high = axes.get_ylim()
    assert low < 0 < 1130 < high and 0 in axes.get_yticks()
    assert {y for _, y in points(axes, "imp")} == {0}


def test_each_data_set_and_network_has_a_panel_of_capacities():
    lines = pd.concat([make_lines(), make_lines(where=THERE, values=(9, 10))])
    there, here = capacity_against_p_eff(lines).figure.axes
    assert [y for _, y in points(there, "imp")] == [9.5, 9.5]
    assert [y for _, y in points(here, "imp")] == [640, 640]
    assert there.get_title().replace("\n", " ").replace("\xa0", " ") == THERE


def test_a_panel_says_where_the_information_is_of_another_n():
    lines = make_lines(sparsities=(0.9,), n=1000)  # information at n = 200
    drawing = gap_against_information(lines)
    [axes] = drawing.figure.axes
    title = axes.get_title().replace("\n", " ").replace("\xa0", " ")
    assert title.endswith("n = 1,000, 90 % removed, information at n = 200")
    assert "the marker in its middle is no estimate" in drawing.caption


def test_a_gap_is_a_mean_at_the_middle_of_the_information():
    values = [22.0, 25.0, 19.0, 24.0]
    [axes] = gap_against_information(
        make_lines(("random", "imp"), (0.9,), values=values)
    ).figure.axes
    assert points(axes, "imp") == [(105.0, 22.5)]
    [across], [upward] = bars(axes, "imp")
    assert across.tolist() == [[80, 22.5], [130, 22.5]]
    ends = stats.t.interval(0.95, 3, 22.5, stats.sem(values))
    np.testing.assert_allclose(upward, [(105, ends[0]), (105, ends[1])])
    [zero] = [x for x in axes.lines if to_hex(x.get_color()) == "#bbbbbb"]
    assert set(zero.get_ydata()) == {0}


def test_in_a_panel_of_gaps_all_masks_keep_as_many_weights():
    more = {"sparsities": (0.9,), "n": 1000, "information_n": 1000.0}
    lines = pd.concat([make_lines(), make_lines(**more, values=(7, 8))])
    figure = gap_against_information(lines).figure
    titles = [x.get_title().replace("\n", " ") for x in figure.axes]
    words = [
        "n = 200, 80 % removed",
        "n = 200, 90 % removed",
        "n = 1,000, 90 % removed",
    ]
    assert [x.replace("\xa0", " ") for x in titles] == [f"{HERE}, {y}" for y in words]
    assert all(len(points(axes, "imp")) == 1 for axes in figure.axes)
    ends = figure.axes[0].get_ylim()  # one scale, so that gaps can be compared
    assert all(axes.get_ylim() == ends for axes in figure.axes)


def test_gaps_at_another_noise_rate_have_a_panel_of_their_own_that_says_so():
    lines = [make_line(x, noise=y) for x in ("random", "imp") for y in (0.5, 1.0)]
    panels = gap_against_information(pd.DataFrame(lines)).figure.axes
    titles = [axes.get_title().replace("\N{NO-BREAK SPACE}", " ") for axes in panels]
    assert ["noise = 0.5" in titles[0], "noise = 1" in titles[1]] == [True, True]
    for axes in panels:
        assert len(points(axes, "imp")) == len(points(axes, "random")) == 1


@draws
def test_a_long_title_breaks_after_commas_and_within_a_phrase_that_does_not_fit(draw):
    convnet = "cifar10, convnet 32-64-200-200 (he_normal)"
    lines = pd.concat([make_lines(), make_lines(where=convnet)])
    titles = [x.get_title().split("\n") for x in draw(lines).figure.axes]
    assert titles[0][:2] != titles[-1][:2]
    convnets, gaussians = titles[0], titles[-1]
    assert convnets[0].replace("\xa0", " ") == "cifar10, convnet 32-64-200-200"
    assert gaussians[0].replace("\xa0", " ") == "gaussian, d = 50, C = 2,"
    assert max(len(x) for title in titles for x in title) <= 30


@draws
def test_the_legend_has_the_pruners_in_their_order_and_a_users_own(draw):
    lines = make_lines(("mine", "imp", "snip", "random"))
    [legend] = draw(lines).figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["random", "SNIP", "IMP", "mine"]


ODD = {
    "one line": {"pruners": ("imp",), "sparsities": (0.9,)},
    "one seed": {"values": (5,)},
    "fits nothing": {"values": (0, 0)},
    "some fit nothing": {"values": (0, 0, 7)},
    "loses": {"values": (-3.0, -5.0)},
    "knows nothing": {"information_upper": 0.0, "information_lower": 0.0},
    "its own pruners": {"pruners": ("$a_{$", "_own")},
    "odd place": {"where": "<b>$x_{$ & y"},
}


@draws
@pytest.mark.parametrize("odd", ODD)
def test_odd_lines_are_drawn(draw, odd):
    """A smoke test; warnings are errors."""
    drawing = draw(make_lines(**ODD[odd]))
    text = common.svg(drawing.figure, "odd")
    assert text.startswith("<svg") and "nan" not in text


def test_the_same_lines_give_the_same_svg():
    first, second = (
        common.svg(gap_against_information(make_lines()).figure, "gap")
        for _ in range(2)
    )
    assert first == second and 'id="gap-' in first
