"""Time to memorize: medians with networks that are late, or never get there."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from rows import entries_of, make_row

from nfp_jax import report
from nfp_jax.pages import looks
from nfp_jax.questions.memorization import speed
from nfp_jax.report import kinds

LATE = {"epochs_to_99": None, "settled": False, "out_of_budget": 1, "epochs": 3200}
NEVER = {"epochs_to_99": None, "settled": True, "out_of_budget": 0, "epochs": 400}


def of_times(*given, sparsity=0.9, **changes):
    """One cell: a network for each time, "late" or "never"."""
    kinds = {"late": LATE, "never": NEVER}
    rows = []
    for seed, time in enumerate(given):
        found = {"epochs_to_99": time, "settled": True, "out_of_budget": 0}
        row = make_row("imp", sparsity, seed, **changes)
        rows.append(row | kinds.get(time, found))
    return pd.DataFrame(rows)


def entry(*given):
    [grid] = speed.grids(of_times(*given))
    [(_, [text])] = grid.lines
    return text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((100, 300, 140), "140"),
        ((100, 140), "120"),
        ((1000, 3000, 1500), "1,500"),
        ((100, 140, "late"), "140 (2 of 3)"),
        ((100, "late", "late"), "> 3,200 (1 of 3)"),
        ((100, "late"), "> 1,650 (1 of 2)"),  # the mean of 100 and more than 3200
        ((100, 140, "never"), "140 (2 of 3)"),
        (("never", "never", 100), "never (1 of 3)"),
        (("late", "never", 100), "> 3,200 (1 of 3)"),
        (("never",), "never (0 of 1)"),
        (("late",), "> 3,200 (0 of 1)"),
    ],
)
def test_an_entry_is_the_median_and_how_many_got_there(given, text):
    assert entry(*given) == text


def test_a_network_that_another_rule_stopped_is_late_and_a_diverged_one_never_there():
    stopped = {"settled": None, "converged": True, "epochs": 30, "epochs_to_99": None}
    rows = pd.DataFrame([make_row("imp", **stopped)])
    [cell] = speed.times(rows).to_dict("records")
    assert cell["epochs_to_99"] == 30 and cell["epochs_to_99_open"]
    [cell] = speed.times(rows.assign(diverged=True)).to_dict("records")
    assert cell["epochs_to_99"] == speed.NEVER and not cell["epochs_to_99_open"]


def test_the_interval_s_end_is_open_where_a_late_network_could_move_it():
    [cell] = speed.times(of_times(100, 140, "late")).to_dict("records")
    assert (cell["epochs_to_99_low"], cell["epochs_to_99_high"]) == (100, 3200)
    opens = [cell[f"epochs_to_99{end}_open"] for end in ("", "_low", "_high")]
    assert opens == [False, False, True]


def test_a_time_that_was_not_measured_is_left_out():
    rows = of_times("never").assign(memorization_area=None)
    assert speed.times(rows).empty
    drawing = kinds.draw(rows)["time_to_memorize"]
    assert drawing.figure is None and "time to memorize is on file" in drawing.caption


def test_medians_are_drawn_with_a_place_for_never_and_an_arrow_for_late():
    rows = pd.concat(
        [
            of_times(100, 140, 300, sparsity=0.5),
            of_times("late", "late", "late", sparsity=0.8),
            of_times("never", "never", "never", sparsity=0.9),
        ]
    )
    drawing = kinds.draw(rows)["time_to_memorize"]
    [axes] = drawing.figure.axes
    color = to_hex(looks.PALETTE["imp"].color)
    lines = [x for x in axes.lines if to_hex(x.get_color()) == color]
    [arrow] = [x for x in lines if x.get_markersize() == 26]
    y = lines[0].get_ydata()
    assert y[:2].tolist() == [140, 3200] and arrow.get_ydata().tolist() == [3200]
    labels = dict(
        zip(
            axes.get_yticks(),
            [x.get_text() for x in axes.get_yticklabels()],
            strict=True,
        )
    )
    assert labels[y[2]] == "never" and labels[200] == "200" and y[2] > 3200
    for words in ("Arrow: networks ran out", "Never: networks settled below 99 %"):
        assert words in drawing.caption
    calm = kinds.draw(of_times(100, 140))["time_to_memorize"]
    assert "Arrow" not in calm.caption and "Never" not in calm.caption
    assert "never" not in [x.get_text() for x in calm.figure.axes[0].get_yticklabels()]


def test_the_page_has_the_table_of_times():
    rows = pd.concat([of_times(100, 140, "late"), of_times(200, 200, sparsity=0.5)])
    page = report.section(rows, {})
    assert "<caption>Time to memorize, epochs to 99 % of the labels. n = 1,000" in page
    assert ["200", "140 (2 of 3)"] in [line[:2] for line in entries_of(page, "IMP")]
    assert "&gt;: a lower bound, since networks ran out of budget; never:" in page
    typed = rows.astype({"settled": "boolean", "epochs_to_99": "Int64"})
    np.testing.assert_array_equal(
        speed.times(typed)["epochs_to_99"], speed.times(rows)["epochs_to_99"]
    )
