"""Intervals of information: their summary, figures and captions."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from rows import (
    KNOWS,
    SPARSITIES,
    make_interval_row,
    make_interval_rows,
    make_rows,
)

from nfp_jax.pages import common, looks
from nfp_jax.questions.information import figures as information
from nfp_jax.report import kinds


def bars(axes, color):
    """The bars of a color, from left to right: x, lower and upper end."""
    lines = [x for x in axes.collections if to_hex(x.get_color()[0]) == color]
    parts = [part for line in lines for part in line.get_segments()]
    return [(x, low, high) for (x, low), (_, high) in parts]


def test_an_interval_of_several_networks_is_the_mean_of_each_end():
    ends = [(1.0, 4.0), (2.0, 8.0)]
    rows = [
        make_interval_row(seed=seed, information_lower=low, information_upper=high)
        for seed, (low, high) in enumerate(ends)
    ]
    [cell] = information.intervals(pd.DataFrame(rows)).to_dict("records")
    assert cell["networks"] == 2
    assert (cell["information_lower"], cell["information_upper"]) == (1.5, 6.0)
    # 14 weights are kept: 1.5 / (14 log 2) bits a weight, and p_eff = 14 + nats
    assert cell["bits_lower"] == pytest.approx(0.154574, abs=1e-6)  # by hand
    assert cell["bits_upper"] == pytest.approx(4 * cell["bits_lower"])
    assert (cell["p_eff_lower"], cell["p_eff_upper"]) == (15.5, 20.0)
    assert cell["share_lower"] == pytest.approx((1 / 15 + 2 / 16) / 2)
    assert cell["share_upper"] == pytest.approx((4 / 18 + 8 / 22) / 2)


def test_an_exact_value_is_told_only_where_every_network_has_it():
    rows = make_interval_rows(("snip", "imp"), (0.9,))
    rows["information_exact"] = [4.0, 4.2, 7.5, None]
    snip, imp = information.intervals(rows)["information_exact"]
    assert snip == pytest.approx(4.1) and math.isnan(imp)


@pytest.mark.parametrize(
    ("ends", "exact", "contradictory"),
    [
        ((5.0, 4.0), None, True),
        ((4.0, 4.0 - 1e-9), None, False),  # rounding
        ((1.0, 4.0), 4.5, True),
        ((1.0, 4.0), 0.5, True),
        ((1.0, 4.0), 1.0, False),
        ((4.0, 4.0), 4.0, False),
    ],
)
def test_ends_that_cross_and_an_exact_value_outside_are_contradictions(
    ends, exact, contradictory
):
    changes = dict(zip(("information_lower", "information_upper"), ends, strict=True))
    row = make_interval_row(**changes, information_exact=exact)
    cells = information.intervals(pd.DataFrame([row]))
    assert cells["contradictory"].tolist() == [int(contradictory)]


# n = 12: 8.318 nats of labels. 2 of 144 kept: log(144 * 143 / 2) = 9.239 nats; 1 of
# 144: log 144 = 4.970, less than the labels have.
@pytest.mark.parametrize(
    ("ends", "changes", "silent"),
    [
        ((0.0, 8.317), {"kept": 2}, True),
        ((0.0, 8.24), {"kept": 2}, True),
        ((0.0, 8.23), {"kept": 2}, False),
        ((0.1, 8.317), {"kept": 2}, False),
        ((0.0, 4.95), {"kept": 1}, True),
        ((0.0, 4.91), {"kept": 1}, False),
        ((0.0, 9.2), {"kept": 2, "label_entropy": None}, True),
        ((0.0, 9.1), {"kept": 2, "label_entropy": None}, False),
        ((0.0, 8.317), {"kept": 2, "information_exact": 3.0}, False),
        ((0.0, 0.0), {"kept": 144}, False),  # one mask only: 0 is the truth
    ],
)
def test_an_interval_from_0_to_the_trivial_bound_says_nothing(ends, changes, silent):
    changes |= dict(zip(("information_lower", "information_upper"), ends, strict=True))
    cells = information.intervals(pd.DataFrame([make_interval_row(**changes)]))
    assert cells["silent"].tolist() == [int(silent)]


def test_the_bounds_that_gave_the_ends_are_told_the_most_frequent_first():
    rows = make_interval_rows(("snip",), (0.9,), seeds=3)
    rows["information_lower_by"] = ["collisions", "decoding", "decoding"]
    [cell] = information.intervals(rows).to_dict("records")
    assert cell["information_lower_by"] == "decoding, collisions"
    assert cell["information_upper_by"] == "code length"


def test_beside_the_numbers_stand_conditioning_data_sets_and_confidence():
    text = information.about(make_interval_rows())
    assert "I(m; y | W, X, R), labels y resampled" in text
    assert "K = 256 data sets; each interval of confidence 95 %" in text
    assert "mean of the lower and mean of the upper ends over 2 networks" in text
    text = information.about(make_interval_rows(seeds=1, conditioning="data"))
    assert "I(m; D | W, R), the whole data set D resampled" in text
    assert "one network each (a single seed)" in text
    for drawing in kinds.draw(make_interval_rows(n=30)).values():
        about = information.about(make_interval_rows(n=30))
        assert drawing.figure is None or about in drawing.caption


def test_rows_of_information_have_figures_of_their_own():
    rows = pd.concat([make_interval_rows(n=n) for n in (12, 30)])
    names = ["information", "information_by_n", "bits_per_weight", "bits_by_load"]
    drawings = kinds.draw(rows)
    assert list(drawings) == [*names, "effective_parameters"]
    assert all(drawing.figure for drawing in drawings.values())
    # The rows' own columns decide, not the columns that a file has besides.
    both = kinds.draw(make_rows().assign(information_lower=None))
    assert list(both) == list(kinds.draw(make_rows()))
    both = kinds.draw(rows.assign(train_accuracy=None, epochs=None, converged=None))
    assert list(both) == list(drawings)


def test_a_bar_goes_from_end_to_end_in_the_pruner_s_color():
    rows = make_interval_rows(("random", "snip", "imp"))
    [axes] = kinds.draw(rows)["information"].figure.axes
    for pruner in KNOWS:
        cells = information.intervals(rows[rows["pruner"] == pruner])
        drawn = bars(axes, looks.PALETTE[pruner].color)
        ends = cells[["information_lower", "information_upper"]].to_numpy()
        np.testing.assert_allclose([bar[1:] for bar in drawn], ends)
        # From 50 % to 90 % removed is log10(0.5 / 0.1) = 0.69897 of a decade.
        assert drawn[1][0] - drawn[0][0] == pytest.approx(0.69897, abs=1e-5)


def test_no_bar_hides_another():
    rows = make_interval_rows(tuple(looks.PALETTE)[1:], SPARSITIES, seeds=1)
    [axes] = kinds.draw(rows)["information"].figure.axes
    paints = list(looks.PALETTE.values())[1:]
    x = sorted(bar[0] for paint in paints for bar in bars(axes, paint.color))
    assert len(x) == 7 * len(SPARSITIES)
    assert np.diff(x).min() > 0.02  # of 1.4 decades of weights


def test_label_entropy_and_exact_values_are_drawn_and_named():
    rows = make_interval_rows(("snip", "imp"), (0.9,))
    rows["information_exact"] = [4.0, 4.2, None, None]
    drawing = kinds.draw(rows)["information"]
    [axes] = drawing.figure.axes
    [dashed] = [line for line in axes.lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(dashed.get_ydata(), 12 * math.log(2))
    ticks = [line for line in axes.lines if line.get_marker() == "_"]
    drawn = np.concatenate([line.get_ydata() for line in ticks])
    np.testing.assert_allclose(drawn[np.isfinite(drawn)], [4.1])
    assert "Dashed gray: the label entropy" in drawing.caption
    assert "Black tick: the exact value" in drawing.caption
    [legend] = drawing.figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["SNIP", "IMP", "label entropy", "exact"]


def test_under_data_there_is_no_label_entropy():
    rows = make_interval_rows(conditioning="data", label_entropy=None)
    for drawing in kinds.draw(rows).values():
        assert "label entropy" not in drawing.caption
        for legend in drawing.figure.legends if drawing.figure else ():
            assert "label entropy" not in [x.get_text() for x in legend.get_texts()]


def test_by_n_each_n_has_its_bars_and_its_label_entropy():
    rows = pd.concat([make_interval_rows(("imp",), n=n) for n in (12, 120)])
    drawing = kinds.draw(rows)["information_by_n"]
    assert [axes.get_title() for axes in drawing.figure.axes] == [
        "50\u00a0%\u00a0removed, 72\u00a0kept",
        "90\u00a0%\u00a0removed, 14\u00a0kept",
    ]
    for axes in drawing.figure.axes:
        (left, *_), (right, low, _) = bars(axes, "#d55e00")
        assert right - left == pytest.approx(1.0)  # 12 to 120 is a decade
        # seeds 0 and 1: 0.8 * 0.9 * 120 log 2, plus 0 and 0.1
        assert low == pytest.approx(0.72 * 120 * math.log(2) + 0.05)
        dashes = [x for x in axes.collections if to_hex(x.get_color()[0]) == "#777777"]
        levels = [part[0][1] for line in dashes for part in line.get_segments()]
        np.testing.assert_allclose(levels, [12 * math.log(2), 120 * math.log(2)])


@pytest.mark.parametrize(("most", "scale"), [(120, "linear"), (1200, "symlog")])
def test_by_n_nats_are_logarithmic_where_n_spans_more_than_a_decade(most, scale):
    rows = pd.concat([make_interval_rows(n=n) for n in (12, most)])
    drawing = kinds.draw(rows)["information_by_n"]
    assert {axes.get_yscale() for axes in drawing.figure.axes} == {scale}
    assert ("Both scales are logarithmic" in drawing.caption) == (scale == "symlog")


def test_the_weights_kept_stand_below_the_share_removed():
    [axes] = kinds.draw(make_interval_rows())["information"].figure.axes
    ticks = [x.get_text() for x in axes.get_xticklabels()]
    assert ticks == ["50\n72", "90\n14"]
    assert axes.get_xlabel() == "weights removed (%)\nweights kept"


def rows_of_loads():
    """SNIP and random, at n/k = 12/72, 12/14, 120/72 and 120/14."""
    pruners = ("random", "snip")
    return pd.concat([make_interval_rows(pruners, n=n) for n in (12, 120)])


def test_bits_by_load_have_a_panel_a_pruner_and_a_color_an_n():
    figure = kinds.draw(rows_of_loads())["bits_by_load"].figure
    assert [axes.get_title() for axes in figure.axes] == ["random", "SNIP"]
    [legend] = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["n = 12", "n = 120", "label entropy"]
    snip = figure.axes[1]
    drawn = [
        [(x, low, high) for (x, low), (_, high) in line.get_segments()]
        for line in snip.collections
    ]
    cells = information.intervals(rows_of_loads())
    for n, found in zip((12, 120), drawn, strict=True):
        mine = cells[(cells["pruner"] == "snip") & (cells["n"] == n)]
        assert len(found) == 2
        for (x, *ends), (_, cell) in zip(found, mine.iterrows(), strict=True):
            # Sideways by at most half of a tenth of a decade.
            assert abs(math.log10(x * cell["kept"] / n)) <= 0.05 + 1e-9
            assert ends == pytest.approx([cell["bits_lower"], cell["bits_upper"]])


def test_bits_by_load_stand_before_the_entropy_a_kept_weight():
    drawing = kinds.draw(rows_of_loads())["bits_by_load"]
    for axes in drawing.figure.axes:
        [dashed] = [line for line in axes.lines if line.get_linestyle() == "--"]
        x, y = dashed.get_data()
        # Labels are coin tosses: n bits of n points, so that bits a weight are n/k.
        np.testing.assert_allclose(x, [12 / 72, 12 / 14, 120 / 72, 120 / 14])
        np.testing.assert_allclose(y, x)
    assert "Dashed gray: the label entropy a kept weight" in drawing.caption


def test_bits_by_load_of_one_n_are_those_against_sparsity():
    drawing = kinds.draw(make_interval_rows(n=30))["bits_by_load"]
    assert drawing.figure is None and "of one n" in drawing.caption


def test_captions_say_what_an_interval_can_t_tell():
    names = ("information", "information_by_n")
    drawn = kinds.draw(rows_of_loads())
    resampled = rows_of_loads().assign(conditioning="data", label_entropy=None)
    for name in names:
        caption = drawn[name].caption
        assert "masks may hold what nobody has read" in caption
        assert "An upper end at the label entropy says nothing of the masks" in caption
        assert "what K equal masks can't rule out" in caption
        assert "Only bars that don't overlap tell" in caption
        assert "label entropy" not in kinds.draw(resampled)[name].caption
    seeing = rows_of_loads()
    seeing = seeing[seeing["pruner"] == "snip"]
    assert "equal masks" not in kinds.draw(seeing)["information"].caption


@pytest.mark.parametrize(
    ("confidence", "words"), [(0.95, "95 %"), (1 - 1e-6, "99.9999 %")]
)
def test_a_confidence_is_not_rounded_to_certainty(confidence, words):
    text = information.about(make_interval_rows(confidence=confidence))
    assert f"each interval of confidence {words};" in text


def test_where_n_does_not_vary_the_caption_says_why_there_is_no_figure():
    drawing = kinds.draw(make_interval_rows(n=1000))["information_by_n"]
    assert drawing.figure is None and drawing.caption == "All masks are of n = 1,000."


def test_every_axis_that_varies_has_its_panels_and_none_is_empty():
    rows = pd.concat(
        [
            make_interval_rows(n=12, select="global"),
            make_interval_rows(n=30, select="global"),
            make_interval_rows(n=30, select="per_layer"),
        ]
    )
    figure = kinds.draw(rows)["information"].figure
    titles = [axes.get_title().replace("\u00a0", " ") for axes in figure.axes]
    assert titles == ["n = 12, global", "n = 30, global", "n = 30, per_layer"]


def test_bits_of_0_are_seen_on_their_logarithmic_scale():
    rows = make_interval_rows(("random", "imp"), information_exact=None)
    [axes] = kinds.draw(rows)["bits_per_weight"].figure.axes
    assert axes.get_yscale() == "symlog" and axes.get_ylim()[0] < 0
    assert [low for _, low, _ in bars(axes, "#8a8a8a")] == [0.0, 0.0]


def test_effective_parameters_lie_above_the_weights_kept():
    rows = make_interval_rows(("imp",))
    drawing = kinds.draw(rows)["effective_parameters"]
    [axes] = drawing.figure.axes
    assert axes.get_yscale() == "log" and "Gray: the weights kept" in drawing.caption
    [gray] = [x for x in axes.collections if to_hex(x.get_color()[0]) == "#999999"]
    kept = [part[0][1] for part in gray.get_segments()]
    assert kept == [72, 14]
    assert all(bar[1] > k for bar, k in zip(bars(axes, "#d55e00"), kept, strict=True))


@pytest.mark.parametrize("conditioning", ["labels", "data"])
def test_effective_parameters_say_of_which_information_they_are(conditioning):
    rows = make_interval_rows(conditioning=conditioning)
    drawing, name = (
        kinds.draw(rows)["effective_parameters"],
        f"p_eff ({conditioning})",
    )
    assert drawing.title == f"{name} against sparsity" and name in drawing.caption
    assert drawing.figure.axes[0].get_ylabel() == name
    kind = kinds.kind_of(rows)
    assert kind.title(rows, "share") == f"Share of {name} that is information, in %"
    assert kind.title(rows, "p_eff").startswith(f"Effective parameters {name}, weights")


def test_p_eff_of_labels_alone_is_said_to_be_a_lower_bound():
    bound = "p_eff (labels) is a lower bound of the paper's count, p_eff (data)"
    trained = "the lower end is the larger of what they tell of the labels and"

    def said(pruners, conditioning):
        rows = make_interval_rows(pruners, conditioning=conditioning)
        drawing, kind = kinds.draw(rows)["effective_parameters"], kinds.kind_of(rows)
        found = {
            (bound in text, trained in text)
            for text in (drawing.caption, kind.entries(rows))
        }
        assert len(found) == 1
        return found.pop()

    assert said(("snip", "imp"), "labels") == (True, False)
    assert said(("snip", "imp"), "data") == (False, True)
    assert said(("snip",), "data") == (False, False)


def test_an_interval_that_contradicts_itself_is_hollow_and_the_caption_says_so():
    rows = make_interval_rows(("snip",))
    hollow = "Hollow: the interval of at least one network contradicts itself"
    assert hollow not in kinds.draw(rows)["information"].caption
    rows.loc[2, ["information_lower", "information_upper"]] = [6.0, 5.0]
    drawing = kinds.draw(rows)["information"]
    assert hollow in drawing.caption
    [axes] = drawing.figure.axes
    marks = [x for x in axes.lines if x.get_markerfacecolor() == "white"]
    cell = information.intervals(rows).iloc[1]
    drawn = [y for line in marks for y in line.get_ydata()]
    np.testing.assert_allclose(
        drawn, [cell["information_lower"], cell["information_upper"]]
    )


ODD_INTERVALS = {
    "all 0": {"information_lower": 0.0, "information_upper": 0.0},
    "no upper end": {"information_upper": math.inf},
    "nothing kept": {"kept": 0},
    "all kept": {"kept": 144},
    "nothing known of the labels": {"label_entropy": None, "classes": None},
    "one sparsity": {"sparsities": (0.9,)},
    "one network": {"pruners": ("imp",), "sparsities": (0.9,), "seeds": 1},
    "its own pruners": {"pruners": ("$a_{$", "_own")},
    "sparsity 0": {"sparsities": (0.0,)},
    "dense": {"pruners": ("dense",), "sparsities": (0.0,), "select": ""},
    "no facts": dict.fromkeys(
        ("datasets", "confidence", "conditioning", "irreproducible", "prunable")
    ),
}


OF_TWO_SIZES = ("all 0", "no upper end", "nothing kept", "one network", "no facts")


@pytest.mark.parametrize("odd", ODD_INTERVALS)
def test_odd_intervals_are_drawn(odd):
    """A smoke test; warnings are errors."""
    sizes = (12, 500) if odd in OF_TWO_SIZES else (12,)
    rows = pd.concat([make_interval_rows(n=n, **ODD_INTERVALS[odd]) for n in sizes])
    for name, drawing in kinds.draw(rows).items():
        assert drawing.caption
        if drawing.figure is not None:
            assert "nan" not in common.svg(drawing.figure, name)
