"""The law of robustness: Lipschitz ends, the fitted exponent, tables and warnings."""

import html
import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from rows import entries_of, make_row
from test_information_figures import bars

from nfp_jax import report
from nfp_jax.pages import common, looks
from nfp_jax.questions.memorization import networks
from nfp_jax.questions.robustness import figures as robustness
from nfp_jax.report import kinds
from nfp_jax.results import open_results


def make_network(pruner="imp", sparsity=0.9, seed=0, n=1000, **changes):
    """A row of memorization; with the law's exponent, in closed form."""
    row = make_row(pruner, sparsity, seed, n=n, noise=0.5)
    kept = 50_400 if pruner == "dense" else round(50_400 * (1 - sparsity))
    excess = 0.2 + 0.01 * seed
    lower = 3 * excess * math.sqrt(n * 50 / kept)
    return {
        **row,
        "train_accuracy": 1.0,
        "kept": kept,
        "dim": 50,
        "classes": 2,
        "noise_variance": 0.25,
        "squared_error": 0.25 - excess,
        "excess": excess,
        "lipschitz_lower": lower,
        "lipschitz_upper": 10 * lower,
        "lipschitz_product": 20 * lower,
        **changes,
    }


def make_networks(pruners=("snip", "imp"), sparsities=(0.5, 0.9), seeds=2, **changes):
    grid = itertools.product(pruners, sparsities, range(seeds))
    rows = [make_network(*cell, **changes) for cell in grid]
    rows += [make_network("dense", 0.0, seed, **changes) for seed in range(seeds)]
    return pd.DataFrame(rows)


# Numbers


def test_a_cell_has_the_mean_of_each_end_beside_what_memorization_has():
    rows = make_networks(("imp",), (0.9,), seeds=3)
    rows["lipschitz_lower"] = [1.0, 2.0, 3.0, 5.0, 5.0, 5.0]
    rows["lipschitz_upper"] = [10.0, 20.0, 60.0, 50.0, math.inf, 50.0]
    rows["excess"] = [0.1, 0.2, 0.3, -0.1, 0.0, 0.1]
    dense, imp = robustness.summary(rows).to_dict("records")
    assert (imp["lipschitz_lower"], imp["lipschitz_upper"]) == (2.0, 30.0)
    assert imp["excess"] == pytest.approx(0.2)
    assert imp["excess_half_width"] == pytest.approx(0.2484138, abs=1e-7)
    assert dense["lipschitz_upper"] == math.inf
    assert (imp["unfit"], dense["unfit"]) == (0, 2)
    known = networks.summary(rows)
    assert known.columns.tolist() == list(imp)[: len(known.columns)]
    assert imp["train_accuracy"] == known["train_accuracy"][1]


def test_a_diverged_network_is_no_part_of_the_ends():
    rows = make_networks(("imp",), (0.9,))
    rows["lipschitz_lower"] = [1.0, math.nan, 5.0, 5.0]
    rows["excess"] = [0.1, math.nan, 0.1, 0.1]
    _, imp = robustness.summary(rows).to_dict("records")
    assert imp["lipschitz_lower"] == 1.0 and imp["unfit"] == 0


def test_networks_on_the_law_have_its_exponent_and_its_constant():
    fitted = robustness.fit(make_networks())
    np.testing.assert_allclose(fitted.slope, 0.5, atol=1e-9)
    assert fitted.constant == pytest.approx(3)
    x = fitted.rows["x"] ** 2
    np.testing.assert_allclose(x, 50_000 / fitted.rows["kept"])


def test_the_exponent_is_that_of_the_points_and_not_of_the_law():
    rows = make_networks()
    ratio = rows["n"] * rows["dim"] / rows["kept"]
    rows["lipschitz_lower"] = rows["excess"] * ratio**0.2
    np.testing.assert_allclose(robustness.fit(rows).slope, 0.2, atol=1e-9)


def test_what_does_not_fit_below_the_noise_is_no_point_of_the_law():
    rows = make_networks()
    rows.loc[[0, 1, 2], "excess"] = [0.0, -0.1, math.nan]
    rows.loc[3, "lipschitz_lower"] = 0.0
    assert robustness.fit(rows).rows.index.tolist() == list(range(4, len(rows)))
    caption = kinds.draw(rows)["law_of_robustness"].caption
    assert "Left out: 4 networks with a train accuracy below 0.95, with ε ≤" in caption
    assert "Left out" not in kinds.draw(make_networks())["law_of_robustness"].caption


def test_networks_that_do_not_fit_their_labels_are_no_points_of_the_law():
    rows = make_networks()
    rows.loc[[0, 1], "train_accuracy"] = [0.949, 0.95]
    assert robustness.fit(rows).rows.index.tolist() == list(range(1, len(rows)))
    caption = kinds.draw(rows)["law_of_robustness"].caption
    assert "A point is a network that fits at least 95 % of its labels." in caption
    assert "Left out: 1 network with a train accuracy below 0.95" in caption
    drawing = kinds.draw(rows.assign(train_accuracy=0.9))["law_of_robustness"]
    assert drawing.figure is None and "fits at least 95 %" in drawing.caption


# The figures


def test_networks_with_ends_have_figures_of_their_own():
    drawings = kinds.draw(make_networks())
    assert list(drawings) == ["lipschitz", "law_of_robustness", "memorization"]
    assert all(drawing.figure for drawing in drawings.values())
    memorization = kinds.draw(make_networks().assign(lipschitz_lower=None))
    assert "kept_by_layer" in memorization
    assert memorization["memorization"].caption == drawings["memorization"].caption


def test_a_bar_goes_from_the_lower_to_the_upper_end():
    rows = make_networks()
    drawing = kinds.draw(rows)["lipschitz"]
    [axes] = drawing.figure.axes
    assert axes.get_yscale() == "log"
    for pruner in ("snip", "imp"):
        cells = robustness.summary(rows[rows["pruner"] == pruner])
        ends = cells[["lipschitz_lower", "lipschitz_upper"]].to_numpy()
        found = [bar[1:] for bar in bars(axes, looks.PALETTE[pruner].color)]
        np.testing.assert_allclose(found, ends)
    dashed = [x.get_ydata()[0] for x in axes.lines if x.get_linestyle() == "--"]
    dense = robustness.summary(rows[rows["pruner"] == "dense"]).iloc[0]
    np.testing.assert_allclose(
        dashed, [dense["lipschitz_lower"], dense["lipschitz_upper"]]
    )
    assert "mean of the lower and mean of the upper ends" in drawing.caption
    assert "Dashed: both ends of the dense network." in drawing.caption


def test_an_infinite_upper_end_is_an_arrow_and_the_legend_says_so():
    rows = make_networks(("imp",))
    rows.loc[0, "lipschitz_upper"] = math.inf
    drawing = kinds.draw(rows)["lipschitz"]
    [axes] = drawing.figure.axes
    [arrow] = [x for x in axes.lines if x.get_markersize() == 26]
    assert arrow.get_ydata().tolist() == [rows.loc[:1, "lipschitz_lower"].mean()]
    [legend] = drawing.figure.legends
    assert legend.get_texts()[-1].get_text() == "no upper end"
    lengths = [len(part) for x in axes.collections for part in x.get_segments()]
    assert sorted(lengths) == [0, 2]  # where the arrow is, no bar
    assert np.isfinite(axes.get_ylim()).all()


def test_variants_have_panels_of_bars():
    rows = pd.concat([make_networks(select=x) for x in ("erk", "global")])
    titles = [x.get_title() for x in kinds.draw(rows)["lipschitz"].figure.axes]
    assert titles == ["erk", "global"]


def test_the_law_has_a_point_a_network_and_a_line_of_its_exponent():
    rows = make_networks()
    drawing = kinds.draw(rows)["law_of_robustness"]
    [axes] = drawing.figure.axes
    assert axes.get_xscale() == axes.get_yscale() == "log"
    points = {to_hex(x.get_color()): x for x in axes.lines}
    for pruner in ("dense", "snip", "imp"):
        mine = rows[rows["pruner"] == pruner]
        line = points[to_hex(looks.PALETTE[pruner].color)]
        assert line.get_linestyle() == "None" and line.get_marker()
        np.testing.assert_allclose(
            line.get_ydata(), mine["lipschitz_lower"] / mine["excess"]
        )
        np.testing.assert_allclose(line.get_xdata(), np.sqrt(50_000 / mine["kept"]))
    law = points["#777777"]
    np.testing.assert_allclose(law.get_ydata(), 3 * np.array(law.get_xdata()))


def test_the_caption_of_the_law_has_the_exponent_and_its_interval():
    rows = make_networks(seeds=1)
    rows["lipschitz_lower"] *= [1.1, 0.9, 1.0, 1.2, 0.8]
    slope, low, high = robustness.fit(rows).slope
    assert low < slope < high
    caption = kinds.draw(rows)["law_of_robustness"].caption
    words = f"{slope:.2f} (95 % Student-t interval {low:.2f} to {high:.2f}, 5 networks"
    assert words in caption
    two = rows[rows["pruner"] == "imp"]
    caption = kinds.draw(two)["law_of_robustness"].caption
    assert "(two networks, so there is no interval)" in caption
    caption = kinds.draw(two[:1])["law_of_robustness"].caption
    assert "There is no exponent to fit" in caption


def test_where_nothing_fits_below_the_noise_there_is_no_law():
    drawing = kinds.draw(make_networks(excess=-0.1))["law_of_robustness"]
    assert drawing.figure is None and "ε > 0" in drawing.caption


ODD_NETWORKS = {
    "one network": {"pruners": ("imp",), "sparsities": (0.9,), "seeds": 1},
    "one sparsity": {"sparsities": (0.9,)},
    "only dense": {"pruners": ()},
    "collapsed": {"lipschitz_lower": 0.0, "lipschitz_upper": 0.0, "collapsed": True},
    "no upper end": {"lipschitz_upper": math.inf},
    "no product": {"lipschitz_product": None},
    "unfit": {"excess": -0.1},
    "excess unknown": {"excess": None, "dim": None},
    "alike": {"lipschitz_lower": 2.0, "excess": 0.2, "kept": 100},
    "nothing kept": {"kept": 0},
    "its own pruners": {"pruners": ("$a_{$", "_own")},
}


@pytest.mark.parametrize("odd", ODD_NETWORKS)
def test_odd_networks_are_drawn_and_told(odd):
    """A smoke test; warnings are errors."""
    rows = make_networks(**ODD_NETWORKS[odd])
    for name, drawing in kinds.draw(rows).items():
        assert drawing.caption
        if drawing.figure is not None:
            assert "nan" not in common.svg(drawing.figure, name)
    section = report.section(rows, report.images(rows))
    assert "nan" not in re.sub("<svg.*?</svg>", "", section, flags=re.DOTALL).lower()


# The tables and the page


def test_the_table_has_the_ends_of_the_constant():
    rows = make_networks(("imp",), (0.5, 0.9), seeds=1)
    rows["lipschitz_lower"] = [1.0, 2.345, 5.0]
    rows["lipschitz_upper"] = [123.4, math.inf, 50.0]
    lines = report.table(rows, width=200).splitlines()
    assert lines[0].startswith("Lipschitz constant by sparsity, lower-upper end; one")
    assert lines[1] == "n = 1,000, noise = 0.5; the dense network: 5.00-50.0"
    assert lines[3].split() == ["imp", "1.00-123", "2.35-∞"]


def test_networks_above_the_noise_level_are_a_warning_beside_the_others():
    rows = make_networks(("imp",))
    rows.loc[0, "converged"], rows.loc[[2, 3], "excess"] = False, [0.0, -0.1]
    assert report.failures(rows) == [
        "1 of 4 networks of IMP did not converge within their budget, by sparsity: 1 "
        "of 2 at 0.5",
        "2 of 4 networks of IMP do not fit below the noise level (ε ≤ 0), so the law "
        "says nothing of them, by sparsity: 2 of 2 at 0.9",
    ]
    assert "3 networks have a warning; see Warnings." in report.section(rows, {})
    assert "No warnings: every training ended" in report.section(make_networks(), {})


def test_the_page_of_robustness_is_made_from_rows_on_file(tmp_path):
    results = open_results(tmp_path, "mlp", "ab12", {})
    results.write(make_networks().to_dict("records"))
    page = report.write_report(results.directory).read_text(encoding="utf-8")
    names = sorted(x.stem for x in results.directory.glob("figures/*.svg"))
    assert names == ["law_of_robustness", "lipschitz", "memorization"]
    assert page.count("<svg") == 3
    assert "10 networks: 2 dense, 8 pruned by" in page
    for words in robustness.TABLES.values():
        assert f"<caption>{html.escape(words)}. n = 1,000, noise = 0.5; the" in page
    # ε is 0.2 and 0.21: t(0.975, 1) = 12.7062, and the standard error is 0.005
    firsts = [line[0] for line in entries_of(page, "IMP")]
    assert "0.205&nbsp;±&nbsp;0.064" in firsts
