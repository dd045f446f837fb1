"""Searches for the memorization capacity: medians, figures, tables and warnings."""

import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from rows import entries_of, told

from nfp_jax import report
from nfp_jax.pages import common, looks
from nfp_jax.questions.capacity import figures as capacity
from nfp_jax.report import kinds
from nfp_jax.results import open_results, read_rows


def make_search(pruner="imp", sparsity=0.9, seed=0, n=4000, **changes):
    kept = 50_400 if pruner == "dense" else round(50_400 * (1 - sparsity))
    points = min(n, int(0.1 * kept) + 10 * seed)
    row = {
        "pruner": pruner,
        **told(pruner),
        "sparsity": sparsity,
        "n": n,
        "noise": 1.0,
        "select": "" if pruner == "dense" else "global",
        "resume": "rewind" if pruner == "imp" else "",
        "ablation": "",
        **dict.fromkeys(("init_seed", "data_seed", "train_seed"), seed),
        "capacity": points,
        "capacity_upper": None if points == n else points + 1,
        "capacity_at_least": points == n,
        "share": 0.99,
        "tried": [100, n],
        "fitted": [1.0, 0.8],
        "out_of_budget": 0,
        "diverged": False,
        "collapsed": False,
        "kept": kept,
        "classes": 2,
        "seconds": 1.0,
        **changes,
    }
    bits = None if row["capacity"] is None else float(row["capacity"])
    per_weight = {
        "capacity_bits": bits,
        "capacity_bits_per_weight": bits and bits / kept,
    }
    return per_weight | row


def make_searches(pruners=("snip", "imp"), sparsities=(0.5, 0.9), seeds=3, **changes):
    grid = itertools.product(pruners, sparsities, range(seeds))
    return pd.DataFrame([make_search(*cell, **changes) for cell in grid])


def of_values(values, at_least=(), **changes):
    """One cell: a search for each value."""
    return pd.DataFrame(
        [
            make_search(seed=i, capacity=x, capacity_at_least=x in at_least, **changes)
            for i, x in enumerate(values)
        ]
    )


def ends(cell):
    return [cell[f"capacity{end}"] for end in ("", "_low", "_high")]


def opens(cell):
    return [cell[f"capacity{end}_open"] for end in ("", "_low", "_high")]


# Medians


def test_a_cell_has_the_median_and_the_range_of_few_searches():
    [cell] = capacity.summary(of_values([500, 300, 340])).to_dict("records")
    assert cell["networks"] == 3 and cell["kept"] == 5040
    assert ends(cell) == [340, 300, 500]
    assert opens(cell) == [False, False, False]
    assert cell["capacity_bits_per_weight"] == pytest.approx(340 / 5040)
    assert cell["capacity_bits_per_weight_high"] == pytest.approx(500 / 5040)


def test_of_nine_searches_the_interval_is_from_the_second_to_the_eighth():
    [cell] = capacity.summary(of_values(range(100, 1000, 100))).to_dict("records")
    assert ends(cell) == [500, 200, 800]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([300, 340, 4000], [False, False, True]),
        ([300, 4000, 4000], [True, False, True]),
        ([4000, 4000, 4000], [True, True, True]),
        # The median is the mean of 340 and 4000, so it too would be larger.
        ([300, 340, 4000, 4000], [True, False, True]),
        ([300, 320, 340, 4000], [False, False, True]),
    ],
)
def test_what_would_be_larger_had_the_search_gone_on_is_at_least(values, expected):
    [cell] = capacity.summary(of_values(values, {4000})).to_dict("records")
    assert opens(cell) == expected


def test_one_search_has_no_interval_and_can_be_at_least():
    [cell] = capacity.summary(of_values([4000], {4000})).to_dict("records")
    assert cell["capacity"] == 4000 and math.isnan(cell["capacity_low"])
    assert opens(cell) == [True, False, False]


@pytest.mark.parametrize(
    ("medians", "at_least", "flagged"),
    [
        ((900, 400, 100), (), [0, 0, 0]),
        ((300, 400, 100), (), [3, 0, 0]),  # the denser cell is told
        ((900, 90, 100), (), [0, 3, 0]),
        ((400, 400, 100), (), [0, 0, 0]),
        ((300, 4000, 100), (4000,), [3, 0, 0]),  # more than 4000 is more than 300
        ((4000, 4000, 100), (4000,), [0, 0, 0]),
        ((300, 400, 100), (300,), [0, 0, 0]),  # 300 or more is not below 400
    ],
)
def test_a_capacity_that_falls_with_the_weights_kept_is_told(
    medians, at_least, flagged
):
    rows = pd.concat(
        [
            of_values([x] * 3, at_least, sparsity=s)
            for s, x in zip((0.5, 0.8, 0.9), medians, strict=True)
        ]
    )
    assert capacity.summary(rows)["not_rising"].tolist() == flagged


def test_capacities_are_compared_within_a_variant_alone():
    rows = pd.concat(
        [
            of_values([300], sparsity=0.5, select="erk"),
            of_values([400], sparsity=0.8, select="global"),
            of_values([500], sparsity=0.9, pruner="snip"),
        ]
    )
    assert capacity.summary(rows)["not_rising"].sum() == 0
    rows = pd.concat([rows, of_values([350], sparsity=0.9, select="erk")])
    assert capacity.flagged(rows)["not_rising"].tolist() == [True, False, False, False]


# The figures


def drawn(axes, pruner):
    """The lines of points in the pruner's color."""
    color = to_hex(looks.PALETTE[pruner].color)
    return [x for x in axes.lines if to_hex(x.get_color()) == color]


def arrows(axes):
    marks = [x for x in axes.lines if x.get_markersize() == 26]
    return sorted(y for line in marks for y in np.ravel(line.get_ydata()))


def test_searches_have_figures_of_their_own():
    drawings = kinds.draw(make_searches())
    names = ["capacity", "capacity_by_kept", "capacity_bits_per_weight"]
    assert list(drawings) == names
    for drawing in drawings.values():
        assert drawing.figure is not None
        assert "smallest to largest, over 3 searches (seeds)" in drawing.caption
        assert "its confidence is 75 % with 3" in drawing.caption


def test_points_are_medians_on_a_logarithmic_scale():
    rows = pd.concat([make_searches(("imp",)), make_searches(("dense",), (0.0,))])
    drawing = kinds.draw(rows)["capacity"]
    [axes] = drawing.figure.axes
    assert axes.get_yscale() == "log"
    assert drawn(axes, "imp")[0].get_ydata().tolist() == [2530, 514]
    [dense] = [x for x in axes.lines if x.get_linestyle() == "--"]
    assert set(dense.get_ydata()) == {4000}
    assert "at least 99 % are fitted" in drawing.caption
    assert "Dashed: the dense network, its interval in gray." in drawing.caption
    low, high = axes.get_ylim()
    assert low < 504 and high > 4000


def test_against_the_weights_kept_each_point_lies_at_its_weights():
    rows = pd.concat([make_searches(("imp",)), make_searches(("dense",), (0.0,))])
    [axes] = kinds.draw(rows)["capacity_by_kept"].figure.axes
    assert axes.get_xscale() == axes.get_yscale() == "log"
    line = drawn(axes, "imp")[0]
    assert line.get_xdata().tolist() == [25_200, 5040]
    assert line.get_ydata().tolist() == [2530, 514]
    dense = drawn(axes, "dense")[0]
    assert dense.get_marker() == "*" and dense.get_xdata().tolist() == [50_400]
    guides = drawn_guides(axes)
    assert set(guides) == {text.get_text() for text in axes.texts}
    assert "0.1" in guides
    for text, line in guides.items():
        np.testing.assert_allclose(line.get_ydata(), float(text) * line.get_xdata())


def drawn_guides(axes):
    lines = [x for x in axes.lines if to_hex(x.get_color()) == "#bbbbbb"]
    return {f"{x.get_ydata()[0] / x.get_xdata()[0]:g}": x for x in lines}


def test_what_is_at_least_has_an_arrow_where_it_begins():
    rows = pd.concat(
        [
            of_values([4000, 4000, 3000], {4000}, sparsity=0.5),
            of_values([4000, 900, 800], {4000}, sparsity=0.8),
            of_values([400, 300, 200], sparsity=0.9),
        ]
    )
    for name in ("capacity", "capacity_by_kept"):
        drawing = kinds.draw(rows)[name]
        [axes] = drawing.figure.axes
        assert arrows(axes) == [4000, 4000]  # one median, and two upper ends
        words = "Arrow: a search ended with all its points fitted, or at a failure that"
        assert words in drawing.caption and "is only a lower bound" in drawing.caption
        [legend] = drawing.figure.legends
        assert legend.get_texts()[-1].get_text() == "at least"
    calm = kinds.draw(make_searches())["capacity"]
    assert "Arrow" not in calm.caption and not arrows(calm.figure.axes[0])


def test_a_dense_network_that_is_at_least_has_its_arrow_too():
    rows = pd.concat([make_searches(("imp",)), make_searches(("dense",), (0.0,))])
    drawing = kinds.draw(rows)["capacity"]
    assert arrows(drawing.figure.axes[0]) == [4000]
    assert "Arrow" in drawing.caption


def test_a_capacity_of_0_is_seen_on_the_logarithmic_scale():
    rows = pd.concat(
        [
            of_values([300] * 3),
            of_values([0] * 3, sparsity=0.98, collapsed=True),
        ]
    )
    drawing = kinds.draw(rows)["capacity"]
    [axes] = drawing.figure.axes
    low, high = axes.get_ylim()
    assert axes.get_yscale() == "symlog" and -100 <= low < 0 and 300 < high < 400
    [hollow] = [x for x in axes.lines if x.get_markerfacecolor() == "white"]
    assert hollow.get_ydata().tolist() == [0]
    assert "Hollow: at least one of the networks collapsed" in drawing.caption


def test_a_failure_out_of_budget_makes_the_capacity_a_lower_bound():
    rows = of_values([300, 340, 360], {340}, out_of_budget=1)
    drawing = kinds.draw(rows)["capacity"]
    assert arrows(drawing.figure.axes[0]) == [360]  # at the interval's end
    assert "340 is" not in drawing.caption and "out of budget" in drawing.caption
    assert "≥340 [300-≥360]" in report.table(rows, width=200)


def test_a_search_out_of_budget_is_half_filled():
    rows = make_searches(("imp",))
    rows.loc[4, "out_of_budget"] = 2
    drawing = kinds.draw(rows)["capacity"]
    [half] = [x for x in drawing.figure.axes[0].lines if x.get_fillstyle() == "left"]
    assert half.get_ydata().tolist() == [514]
    assert "Half-filled: at least one of the networks ran out of budget" in (
        drawing.caption
    )


def test_with_six_searches_captions_tell_of_order_statistics():
    caption = kinds.draw(make_searches(seeds=6))["capacity"].caption
    assert "order-statistic interval for it, of confidence 95 % at least" in caption
    assert "over 6 searches (seeds)" in caption and "smallest" not in caption
    mixed = pd.concat([make_searches(("imp",), seeds=7), make_searches(("snip",))])
    caption = kinds.draw(mixed)["capacity"].caption
    assert "over 3 to 7 searches" in caption
    assert "its confidence is 75 % with 3; with 6 or more, the order-stat" in caption
    caption = kinds.draw(make_searches(seeds=1))["capacity"].caption
    assert "one search each (a single seed), so there is no interval" in caption


def test_labels_that_are_no_noise_have_no_bits():
    rows = make_searches(capacity_bits=None, capacity_bits_per_weight=None)
    drawing = kinds.draw(rows)["capacity_bits_per_weight"]
    assert drawing.figure is None and "No bits are on file" in drawing.caption


ODD_SEARCHES = {
    "one search": {"pruners": ("imp",), "sparsities": (0.9,), "seeds": 1},
    "one sparsity": {"sparsities": (0.9,)},
    "two seeds": {"seeds": 2},
    "only dense": {"pruners": ("dense",), "sparsities": (0.0,)},
    "nothing fitted": {"capacity": 0, "collapsed": True},
    "all fitted": {"capacity": 4000, "capacity_at_least": True},
    "nothing kept": {"kept": 0, "capacity": 0},
    "sparsity 0": {"sparsities": (0.0, 0.5)},
    "flags unknown": dict.fromkeys(
        ("out_of_budget", "diverged", "collapsed", "capacity_at_least", "share")
    ),
    "its own pruners": {"pruners": ("$a_{$", "_own")},
    "huge": {"capacity": 3_000_000, "n": 10_000_000},
}


@pytest.mark.parametrize("odd", ODD_SEARCHES)
def test_odd_searches_are_drawn_and_told(odd):
    """A smoke test; warnings are errors."""
    rows = make_searches(**ODD_SEARCHES[odd])
    for name, drawing in kinds.draw(rows).items():
        assert drawing.caption
        if drawing.figure is not None:
            assert "nan" not in common.svg(drawing.figure, name)
    section = report.section(rows, report.images(rows))
    assert "nan" not in re.sub("<svg.*?</svg>", "", section, flags=re.DOTALL).lower()


# The tables and the page


def test_the_table_has_medians_their_intervals_and_at_least():
    rows = pd.concat(
        [
            of_values([4000, 4000, 3000], {4000}, sparsity=0.5),
            of_values([4000, 900, 800], {4000}, sparsity=0.8),
            of_values([20, 21, 23, 24], sparsity=0.9),
            of_values([4000] * 2, {4000}, sparsity=0.0, pruner="dense", select=""),
        ]
    )
    lines = report.table(rows, width=300).splitlines()
    assert lines[0].startswith("Memorization capacity in points by sparsity; median")
    assert lines[1] == "n = 4,000, noise = 1; the dense network: ≥4,000"
    assert re.split("  +", lines[3]) == [
        "imp",
        "≥4,000 [3,000-≥4,000]",
        "900 [800-≥4,000]",
        "22 [20-24]",
    ]


def test_warnings_of_searches_name_pruner_sparsity_and_counts():
    rows = pd.concat(
        [
            of_values([300, 310, 320], sparsity=0.5, out_of_budget=1),
            of_values([400, 4000, 390], {4000}, sparsity=0.8),
            of_values([0, 0, 0], sparsity=0.9, collapsed=True, diverged=True),
        ]
    )
    assert report.failures(rows) == [
        "3 of 9 searches of IMP end at a collapsed mask (no path from input to output "
        "is left, so the capacity is that of a constant function), by sparsity: 3 of 3 "
        "at 0.9",
        "3 of 9 searches of IMP have a training that diverged (the loss is not finite),"
        " by sparsity: 3 of 3 at 0.9",
        "3 of 9 searches of IMP rest on trainings that ran out of budget, so the "
        "capacity may be higher, by sparsity: 3 of 3 at 0.5",
        "1 of 9 searches of IMP end with all n points fitted, or at a failure that ran "
        "out of budget, so the capacity is only a lower bound, by sparsity: 1 of 3 at "
        "0.8",
        "3 of 9 searches of IMP are of a sparsity whose median capacity is below that "
        "of the next higher one (the capacity does not rise with the weights kept), by "
        "sparsity: 3 of 3 at 0.5",
    ]
    lines = report.table(rows, width=300).splitlines()[-5:]
    assert all(line.startswith("warning: searches ") for line in lines)
    assert lines[-1].endswith(
        "(the capacity does not rise with the weights kept): imp 3 of 9 (sparsity 0.5)"
    )


def test_the_page_of_searches_is_made_from_rows_on_file(tmp_path):
    results = open_results(tmp_path, "mlp", "ab12", {})
    rows = pd.concat([make_searches(), make_searches(("dense",), (0.0,))])
    results.write(rows.to_dict("records"))
    page = report.write_report(results.directory).read_text(encoding="utf-8")
    names = sorted(x.stem for x in results.directory.glob("figures/*.svg"))
    assert names == ["capacity", "capacity_bits_per_weight", "capacity_by_kept"]
    assert "15 searches for the memorization capacity, the largest n of whose" in page
    assert "3 searches have a warning; see Warnings." in page
    assert "<caption>Memorization capacity in points. n = 4,000, noise = 1; the" in page
    points, bits = entries_of(page, "IMP")
    assert points == ["2,530 [2,520-2,540]", "514 [504-524]"]
    assert bits == ["0.100 [0.100-0.101]", "0.102 [0.100-0.104]"]
    assert "<li>3 of 3 searches of dense end with all n points fitted" in page
    # What is read from file has pandas' nullable types.
    [direct, read] = (
        capacity.summary(x).drop(columns="pruner").to_numpy(dtype=object)
        for x in (rows, read_rows(results.directory))
    )
    assert direct.tolist() == read.tolist()


def test_searches_without_a_trouble_are_said_to_have_none():
    section = report.section(make_searches(), {})
    assert "No warnings: no search ended at a collapsed mask" in section
    assert "<li>None: no search ended at a collapsed mask" in section
