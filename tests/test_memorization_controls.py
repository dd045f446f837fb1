"""Controls beside the masks as found, and main figures without them; the load."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from rows import make_row, make_rows

from nfp_jax.pages import looks
from nfp_jax.questions.memorization.networks import as_found
from nfp_jax.report import kinds

SHARES = {"": 0.9, "shuffle": 0.6, "reinitialize": 0.7}


def make_controls(pruners=("snip", "imp"), sparsities=(0.9, 0.98), seeds=3):
    """Shares by ablation, those of fine-tuned networks 0.05 more."""
    rows = []
    for ablation, share in SHARES.items():
        for resume in ("rewind", "finetune"):
            more = 0.05 * (resume == "finetune")
            some = make_rows(pruners, sparsities, seeds, train_accuracy=share + more)
            trained = some["pruner"] == "imp"
            keeps = trained & (ablation != "reinitialize")
            some["resume"] = np.where(keeps, resume, "")
            some["ablation"] = np.where(some["pruner"] == "dense", "", ablation)
            first = ablation == "" or some["pruner"] != "dense"
            rows.append(some[first & ((resume == "rewind") | keeps)])
    return pd.concat(rows, ignore_index=True)


def points(axes, pruner):
    """Marker and mean of each point, from top to bottom."""
    color = to_hex(looks.PALETTE[pruner].color)
    lines = [x for x in axes.lines if to_hex(x.get_color()) == color]
    lines = [x for x in lines if x.get_marker() in ("o", "s", "^", "D")]
    found = [(*x.get_xydata()[0], x.get_marker()) for x in lines]
    return [(marker, round(x, 3)) for x, y, marker in sorted(found, key=lambda p: p[1])]


def test_main_figures_have_masks_as_found_alone_and_say_where_the_others_are():
    rows = make_controls()
    plain = rows[(rows["ablation"] == "") & (rows["resume"] != "finetune")]
    drawings, expected = kinds.draw(rows), kinds.draw(plain)
    for name, drawing in drawings.items():
        if name == "controls" or drawing.figure is None:
            continue
        counts = [
            [len(axes.lines) for axes in x.figure.axes]
            for x in (drawing, expected[name])
        ]
        assert counts[0] == counts[1]
        [legend] = drawing.figure.legends
        labels = [text.get_text() for text in legend.get_texts()]
        assert not {"shuffle", "finetune", "reinitialize"} & set(labels)
    words = "ablated and fine-tuned networks have a figure of their own, of controls"
    assert words in drawings["memorization"].caption
    assert words not in expected["memorization"].caption


def test_where_all_networks_are_fine_tuned_or_ablated_they_are_shown():
    rows = make_rows(("imp",), resume="finetune")
    assert len(as_found(rows)) == len(rows)
    rows = rows.assign(ablation="shuffle")
    assert len(as_found(rows)) == len(rows)


def test_each_pruner_has_its_variants_side_by_side_in_a_panel_a_sparsity():
    drawing = kinds.draw(make_controls())["controls"]
    titles = [x.get_title().replace("\u00a0", " ") for x in drawing.figure.axes]
    assert titles == ["90 % removed", "98 % removed"]
    for axes in drawing.figure.axes:
        snip = [("o", 0.9), ("s", 0.6), ("^", 0.7)]
        assert points(axes, "snip") == snip
        assert points(axes, "imp") == [*snip, ("D", 0.95)]
    labels = [x.get_text() for x in drawing.figure.axes[0].get_yticklabels()]
    assert labels == ["SNIP", "IMP"]
    [legend] = drawing.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "mask as found",
        "shuffled in its layers",
        "fresh weights",
        "as found, fine-tuned",
    ]
    assert "keeps as many weights in each layer" in drawing.caption
    assert "over 3 networks (seeds)" in drawing.caption


def test_a_control_has_its_interval_and_its_mark():
    rows = make_controls(("imp",), (0.9,)).assign(settled=True, out_of_budget=0)
    rows.loc[:2, "train_accuracy"] = [0.7, 0.8, 0.9]
    rows.loc[0, "out_of_budget"] = 1
    drawing = kinds.draw(rows)["controls"]
    [axes] = drawing.figure.axes
    bars = [part for x in axes.collections for part in x.get_segments()]
    # t(0.975, 2) = 4.302653, s = 0.1, k = 3
    width = 2 * 4.302653 * 0.1 / np.sqrt(3)
    assert max(np.ptp(bar[:, 0]) for bar in bars) == pytest.approx(width)
    [half] = [x for x in axes.lines if x.get_fillstyle() == "left"]
    assert half.get_xdata() == pytest.approx([0.8])
    assert "ran out of budget" in drawing.caption


def test_without_two_variants_there_are_no_controls_and_the_caption_says_so():
    drawing = kinds.draw(make_rows(("snip", "imp"), (0.5, 0.9)))["controls"]
    assert drawing.figure is None and "No two variants" in drawing.caption


# Memorized points by points a kept weight


def test_by_load_a_point_lies_at_n_over_the_weights_kept():
    rows = make_rows(("imp",), (0.5, 0.9), kept=500)
    rows.loc[rows["sparsity"] == 0.9, "kept"] = 100
    rows.loc[rows["pruner"] == "dense", "kept"] = 1000
    drawing = kinds.draw(rows)["memorized_by_load"]
    [axes] = drawing.figure.axes
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "n / weights kept"
    assert axes.get_ylabel() == "memorized points (of 1,000)"
    imp, dense = (
        next(x for x in axes.lines if to_hex(x.get_color()) == to_hex(look.color))
        for look in (looks.PALETTE["imp"], looks.PALETTE["dense"])
    )
    np.testing.assert_allclose(imp.get_xdata(), [2, 10])
    means = rows[rows["pruner"] == "imp"].groupby("sparsity")["memorized_points"].mean()
    np.testing.assert_allclose(imp.get_ydata(), means)
    assert dense.get_xdata().tolist() == [1] and dense.get_marker() == "*"


def test_by_load_each_n_has_a_line_style_and_shares_are_compared():
    rows = pd.concat([make_rows(("imp",), (0.5, 0.9), n=n) for n in (100, 1000)])
    drawing = kinds.draw(rows)["memorized_by_load"]
    [axes] = drawing.figure.axes
    assert axes.get_ylabel() == "share memorized"
    color = to_hex(looks.PALETTE["imp"].color)
    lines = [x for x in axes.lines if to_hex(x.get_color()) == color]
    styles = [x.get_linestyle() for x in lines if x.get_linestyle() != "None"]
    assert styles == ["-", ":"]
    [legend] = drawing.figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[-2:] == ["n = 100", "n = 1,000"]
    assert "A line style stands for an n" in drawing.caption


def test_by_load_a_network_out_of_budget_is_half_filled():
    rows = make_rows(("imp",), (0.5, 0.9)).assign(settled=True, out_of_budget=0)
    rows.loc[0, "out_of_budget"] = 1
    drawing = kinds.draw(rows)["memorized_by_load"]
    [half] = [x for x in drawing.figure.axes[0].lines if x.get_fillstyle() == "left"]
    assert half.get_ydata() == pytest.approx([rows.loc[:2, "memorized_points"].mean()])
    assert "Of 6 pruned networks 1 ran out of budget" in drawing.caption


def test_a_mask_that_keeps_nothing_has_no_load():
    rows = pd.DataFrame([make_row("imp", kept=0, collapsed=True)])
    drawing = kinds.draw(rows)["memorized_by_load"]
    assert drawing.figure is None and "keeps a weight" in drawing.caption
