"""Data-swap controls: gaps and their intervals, figures, tables and warnings."""

import html
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
from nfp_jax.questions.swap import figures as swap
from nfp_jax.report import kinds
from nfp_jax.results import open_results

GAP = {"random": 1.0, "snip": 10.0, "imp": 100.0}
SHARES = {"": 1.0, "_reinit": 0.5, "_data": 0.8, "_data_reinit": 0.3}


def make_swap(pruner="imp", sparsity=0.9, seed=0, n=1000, **changes):
    gap = GAP.get(pruner, 5.0) + 2 * seed
    row = {
        "pruner": pruner,
        **told(pruner),
        "sparsity": sparsity,
        "n": n,
        "noise": 1.0,
        "select": "global",
        "resume": "rewind" if pruner == "imp" else "",
        "ablation": "",
        **dict.fromkeys(("init_seed", "data_seed", "train_seed"), seed),
        "pairs": 6,
        "confidence": 0.95,
        "memorized_points": 800.0 - 100 * sparsity,
        "memorized_points_swapped": 800.0 - 100 * sparsity - gap,
        "swap_gaps": [gap - 1, gap + 1] * 3,
        "out_of_budget": 0,
        "diverged": False,
        "collapsed_share": 0.0,
        "kept": 5000,
        "seconds": 1.0,
    }
    for variant, share in SHARES.items():
        for unit, scale in (("", 1.0), ("_bits", 0.5)):
            value = gap * share * scale
            row[f"swap_gap{variant}{unit or '_points'}"] = value
            row[f"swap_gap{variant}{unit}_lower"] = value - 4
            row[f"swap_gap{variant}{unit}_upper"] = value + 6
    return row | changes


def make_swaps(pruners=tuple(GAP), sparsities=(0.5, 0.9), seeds=1, **changes):
    grid = itertools.product(pruners, sparsities, range(seeds))
    return pd.DataFrame([make_swap(*cell, **changes) for cell in grid])


def without_intervals(rows):
    ends = [x for x in rows if x.endswith(("_lower", "_upper"))]
    return rows.assign(**dict.fromkeys(ends), pairs=1)


# Gaps


def test_one_row_has_its_own_paired_interval():
    [cell] = swap.summary(make_swaps(("imp",), (0.9,))).to_dict("records")
    assert cell["networks"] == 1
    for name, value in {
        "swap_gap_points": 100.0,
        "swap_gap_bits": 50.0,
        "swap_gap_reinit_points": 50.0,
        "swap_gap_data_points": 80.0,
        "swap_gap_data_reinit_points": 30.0,
    }.items():
        found = [cell[f"{name}{end}"] for end in ("", "_low", "_high")]
        assert found == pytest.approx([value, value - 4, value + 6])
    assert cell["memorized_points"] == 710 and math.isnan(cell["memorized_points_low"])


def test_several_rows_have_the_interval_of_their_mean():
    rows = make_swaps(("imp",), (0.9,), seeds=3)  # gaps of 100, 102 and 104
    [cell] = swap.summary(rows).to_dict("records")
    # s = 2, k = 3: twice that of 1, 2 and 3 (see mean_interval)
    expected = [102.0, 102 - 2 * 2.484138, 102 + 2 * 2.484138]
    found = [cell[f"swap_gap_points{end}"] for end in ("", "_low", "_high")]
    assert found == pytest.approx(expected, abs=1e-5)
    assert cell["memorized_points_swapped"] == pytest.approx(608)
    assert cell["memorized_points_swapped_high"] == pytest.approx(608 + 4.968276)


def test_the_confidence_over_rows_is_that_of_the_rows():
    rows = make_swaps(("imp",), (0.9,), seeds=2, confidence=0.9)  # 100 and 102
    [cell] = swap.summary(rows).to_dict("records")
    # t(0.95, 1) = tan(0.45 pi), and the standard error is 1
    half_width = math.tan(0.45 * math.pi)
    assert cell["swap_gap_points_high"] == pytest.approx(101 + half_width)


def test_one_pair_has_a_gap_without_an_interval():
    [cell] = swap.summary(without_intervals(make_swaps(("imp",), (0.9,)))).to_dict(
        "records"
    )
    assert cell["swap_gap_points"] == 100
    assert math.isnan(cell["swap_gap_points_low"])


# The figures


def lines_of(axes, pruner):
    color = to_hex(looks.PALETTE[pruner].color)
    lines = [x for x in axes.lines if to_hex(x.get_color()) == color]
    return [x for x in lines if x.get_linestyle() != "None"]


def test_swaps_have_figures_of_their_own():
    drawings = kinds.draw(make_swaps())
    assert list(drawings) == ["swap_gap", "swap_gap_variants", "swap_memorized"]
    for drawing in list(drawings.values())[:2]:
        words = "the mean over 6 independent pairs and its paired 95 % Student-t"
        assert words in drawing.caption


def test_the_gap_is_drawn_with_its_interval_over_a_line_at_0():
    [axes] = kinds.draw(make_swaps())["swap_gap"].figure.axes
    for pruner, gap in GAP.items():
        [line] = lines_of(axes, pruner)
        assert line.get_ydata().tolist() == [gap, gap]
    bars = [x.get_segments() for x in axes.collections]
    ends = sorted({(low[1], high[1]) for line in bars for low, high in line})
    np.testing.assert_allclose(ends, [(-3, 7), (6, 16), (96, 106)])
    [zero] = [x for x in axes.lines if to_hex(x.get_color()) == "#999999"]
    assert set(zero.get_ydata()) == {0}


def test_each_variant_of_the_gap_has_its_panel():
    figure = kinds.draw(make_swaps())["swap_gap_variants"].figure
    found = {}
    for axes in figure.axes:
        title = re.sub(r"\s", " ", axes.get_title())
        [line] = lines_of(axes, "imp")
        found[title] = line.get_ydata()[0]
    assert found == {
        "fresh labels": 100.0,
        "fresh labels, fresh weights": 50.0,
        "new data set": 80.0,
        "new data set, fresh weights": 30.0,
    }


def test_where_n_varies_each_n_has_a_row_of_variants():
    rows = pd.concat([make_swaps(n=n) for n in (500, 1000)])
    figure = kinds.draw(rows)["swap_gap_variants"].figure
    titles = [re.sub(r"\s", " ", axes.get_title()) for axes in figure.axes]
    assert [title.split(", ")[0] for title in titles] == ["n = 500"] * 4 + [
        "n = 1,000"
    ] * 4
    rows = [axes.get_subplotspec().rowspan.start for axes in figure.axes]
    assert rows == [0] * 4 + [1] * 4


def test_own_labels_are_solid_and_swapped_ones_dotted():
    drawing = kinds.draw(make_swaps())["swap_memorized"]
    own, swapped = lines_of(drawing.figure.axes[0], "imp")
    assert (own.get_linestyle(), swapped.get_linestyle()) == ("-", ":")
    np.testing.assert_allclose(own.get_ydata(), [750, 710])
    np.testing.assert_allclose(swapped.get_ydata(), [650, 610])
    [legend] = drawing.figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[-2:] == ["own labels", "swapped labels"]
    assert "means over the pairs" in drawing.caption


def test_variants_have_line_styles_and_where_these_are_taken_panels():
    rows = pd.concat([make_swaps(select=x) for x in ("global", "per_layer")])
    drawings = kinds.draw(rows)
    [axes] = drawings["swap_gap"].figure.axes
    assert [x.get_linestyle() for x in lines_of(axes, "imp")] == ["-", ":"]
    titles = [x.get_title() for x in drawings["swap_memorized"].figure.axes]
    assert titles == ["global", "per_layer"]


def test_captions_tell_of_rows_or_of_a_single_pair():
    caption = kinds.draw(make_swaps(seeds=3))["swap_gap"].caption
    words = "mean and 95 % Student-t interval over 3 rows (seeds), each the mean over 6"
    assert words in caption
    drawings = kinds.draw(without_intervals(make_swaps()))
    assert "one pair each, so there is no interval" in drawings["swap_gap"].caption
    [axes] = drawings["swap_gap"].figure.axes
    segments = [part for x in axes.collections for part in x.get_segments()]
    assert not np.isfinite([part for part in segments if len(part)]).any()


def test_what_befell_a_swap_marks_its_point():
    rows = make_swaps(("imp",), (0.5, 0.8, 0.9))
    rows.loc[0, "out_of_budget"], rows.loc[2, "collapsed_share"] = 3, 0.5
    drawing = kinds.draw(rows)["swap_gap"]
    [axes] = drawing.figure.axes
    half = [x for x in axes.lines if x.get_fillstyle() == "left"]
    hollow = [x for x in axes.lines if x.get_markerfacecolor() == "white"]
    line = lines_of(axes, "imp")[0].get_xdata()
    assert [x.get_xdata().tolist() for x in half] == [[line[0]]]
    assert [x.get_xdata().tolist() for x in hollow] == [[line[2]]]
    assert "Half-filled: at least one of the networks ran out of" in drawing.caption
    assert "Hollow: at least one of the networks collapsed" in drawing.caption


def test_a_gap_is_marked_for_its_own_trainings_alone():
    """Of a row's trainings, 3 of those of another gap ran out of budget."""
    late = {"swap_gap_out_of_budget": 0, "swap_gap_data_out_of_budget": 3}
    rows = make_swaps(("imp",), (0.9,), out_of_budget=3, **late)
    drawings = kinds.draw(rows)

    def half(axes):
        return [x for x in axes.lines if x.get_fillstyle() == "left"]

    assert not half(drawings["swap_gap"].figure.axes[0])
    assert "budget" not in drawings["swap_gap"].caption
    counts = {
        re.sub(r"\s", " ", axes.get_title()): len(half(axes))
        for axes in drawings["swap_gap_variants"].figure.axes
    }
    assert counts == {
        "fresh labels": 0,
        "fresh labels, fresh weights": 1,  # not on file, so the row's count stands
        "new data set": 1,
        "new data set, fresh weights": 1,
    }


ODD_SWAPS = {
    "one row": {"pruners": ("imp",), "sparsities": (0.9,)},
    "two rows": {"seeds": 2},
    "one sparsity": {"sparsities": (0.9,)},
    "no gap": dict.fromkeys((*swap.GAPS, "swap_gap_lower", "swap_gap_upper"), 0.0),
    "diverged": {"diverged": True, "swap_gap_reinit_points": math.nan},
    "no bits": dict.fromkeys(
        ("swap_gap_bits", "swap_gap_bits_lower", "swap_gap_bits_upper")
    ),
    "facts unknown": dict.fromkeys(
        ("pairs", "confidence", "out_of_budget", "diverged", "collapsed_share")
    ),
    "only dense": {"pruners": ("dense",), "sparsities": (0.0,), "select": ""},
    "its own pruners": {"pruners": ("$a_{$", "_own")},
}


@pytest.mark.parametrize("odd", ODD_SWAPS)
def test_odd_swaps_are_drawn_and_told(odd):
    """A smoke test; warnings are errors."""
    rows = make_swaps(**ODD_SWAPS[odd])
    for name, drawing in kinds.draw(rows).items():
        assert drawing.caption
        if drawing.figure is not None:
            assert "nan" not in common.svg(drawing.figure, name)
    section = report.section(rows, report.images(rows))
    assert "nan" not in re.sub("<svg.*?</svg>", "", section, flags=re.DOTALL).lower()


# The tables and the page


def test_the_table_has_gaps_and_their_intervals():
    rows = make_swaps(("snip", "imp"))
    lines = report.table(rows, width=200).splitlines()
    assert lines[0].startswith("Points memorized of a mask's own labels less those of")
    assert [re.split("  +", line) for line in lines[1:]] == [
        ["n = 1,000, noise = 1"],
        ["pruner", "0.5", "0.9"],
        ["snip", "10.0 (6.00 to 16.0)", "10.0 (6.00 to 16.0)"],
        ["imp", "100 (96.0 to 106)", "100 (96.0 to 106)"],
    ]
    lines = report.table(without_intervals(rows)).splitlines()
    assert lines[-1].split() == ["imp", "100", "100"]


def test_warnings_of_swaps_name_pruner_sparsity_and_counts():
    rows = make_swaps(("snip", "imp"))
    rows.loc[1, "collapsed_share"], rows.loc[2, "diverged"] = 0.25, True
    rows.loc[3, "out_of_budget"] = 1
    assert report.failures(rows) == [
        "1 of 2 data swaps of SNIP have masks of which up to 25 % collapsed (no path "
        "from input to output is left), by sparsity: 1 of 1 at 0.9",
        "1 of 2 data swaps of IMP have a training that diverged (the loss is not "
        "finite), by sparsity: 1 of 1 at 0.5",
        "1 of 2 data swaps of IMP rest on trainings that ran out of budget, so "
        "networks may memorize more, by sparsity: 1 of 1 at 0.9",
    ]
    assert report.warnings(rows)[0].startswith("data swaps have masks of which up to")


def test_a_wide_interval_is_no_warning():
    rows = make_swaps(swap_gap_lower=-900.0, swap_gap_upper=900.0)
    assert report.failures(rows) == []
    assert "No warnings: no mask collapsed" in report.section(rows, {})


def test_the_page_of_swaps_is_made_from_rows_on_file(tmp_path):
    results = open_results(tmp_path, "mlp", "ab12", {})
    results.write(make_swaps().to_dict("records"))
    page = report.write_report(results.directory).read_text(encoding="utf-8")
    names = sorted(x.stem for x in results.directory.glob("figures/*.svg"))
    assert names == ["swap_gap", "swap_gap_variants", "swap_memorized"]
    assert page.count("<svg") == 3 and "6 data swaps: masks found on" in page
    for words in swap.TABLES.values():
        assert f"<caption>{html.escape(words)}. n = 1,000, noise = 1</caption>" in page
    entries = [line[0] for line in entries_of(page, "IMP")]
    assert entries == [
        "100 (96.0 to 106)",
        "50.0 (46.0 to 56.0)",
        "50.0 (46.0 to 56.0)",
        "80.0 (76.0 to 86.0)",
        "30.0 (26.0 to 36.0)",
    ]
