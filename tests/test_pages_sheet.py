"""What figures say that they show, against rows and against what was drawn."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rows import make_rows

from nfp_jax.pages import sheet
from nfp_jax.pages.common import plan_of, svg
from nfp_jax.pages.pruners import as_on_pages
from nfp_jax.questions.memorization import curves, speed
from nfp_jax.questions.memorization.figures import memorized

ROWS = as_on_pages(make_rows(("snip", "imp"), (0.5, 0.9), seeds=3))


@pytest.fixture(scope="module")
def drawn():
    figure = memorized(ROWS).figure
    return figure, svg(figure, "it")


def test_a_file_has_a_line_a_point_with_the_value_of_each_seed(drawn):
    lines = sheet.table(drawn[0])
    assert len(lines) == 5  # two pruners at two sparsities, and dense
    for _, line in lines.iterrows():
        same = (ROWS["pruner"] == line["pruner"]) & (
            ROWS["sparsity"] == line["sparsity"]
        )
        values = ROWS.loc[same, "memorized_points"]
        assert line["value"] == pytest.approx(values.mean())
        assert line["low"] < line["value"] < line["high"]
        by_seed = json.loads(line["by_seed"])
        assert list(by_seed) == ["seed 0", "seed 1", "seed 2"]
        # six digits are written
        np.testing.assert_allclose(list(by_seed.values()), values, rtol=1e-5)


def test_tips_lie_where_markers_are_drawn(drawn):
    figure, text = drawn
    used = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', text)
    markers = np.array(used, float)
    tips = [tip for tip in sheet.tips(figure) if not tip.text.startswith("dense")]
    assert len(tips) == 4
    for tip in tips:
        # hundredths of a point are written
        assert np.abs(markers - tip.start).max(axis=1).min() < 0.02
        assert len(tip.seeds) == 3 and all(x == tip.start[0] for x, _ in tip.seeds)


def test_a_tip_tells_pruner_value_interval_and_seeds(drawn):
    first = sheet.tips(drawn[0])[1]
    number = r"[\d.,]+"
    assert re.fullmatch(
        rf"SNIP, 50 % removed, .* kept: {number} \({number} to {number}\); "
        rf"seed 0: {number}, seed 1: {number}, seed 2: {number}",
        first.text,
    )


def test_an_alternative_text_says_what_is_seen(drawn):
    text = sheet.seen("How much", drawn[0])
    assert text.startswith(
        "How much: memorized points (of 1,000) against weights removed (%). dense "
    )
    assert re.search(r"; SNIP from [\d.]+ to [\d.]+; IMP (from )?[\d.]+", text)
    assert sheet.seen("How much", None) == "How much"


def test_what_never_comes_is_infinite_in_the_file():
    rows = ROWS.assign(settled=True)
    rows.loc[rows["sparsity"] == 0.9, "epochs_to_99"] = np.nan
    figure = speed.time_to_memorize(rows, plan_of(rows)).figure
    lines = sheet.table(figure)
    assert np.isinf(lines.loc[lines["sparsity"] == 0.9, "value"].astype(float)).all()
    assert np.isfinite(lines.loc[lines["sparsity"] == 0.5, "value"].astype(float)).all()


def test_a_curve_has_all_its_points_in_the_file_and_tips_at_its_markers():
    rows = ROWS[(ROWS["sparsity"] == 0.9) & (ROWS["pruner"] == "snip")]
    figure = curves.memorization_by_epoch(rows, plan_of(rows)).figure
    svg(figure, "it")
    lines, tips = sheet.table(figure), sheet.tips(figure)
    assert len(lines) > 5 * len(tips) / 2 > 5
    assert pd.api.types.is_numeric_dtype(lines["epoch"].astype(float))
    assert all("epoch" in tip.text for tip in tips)


def test_points_are_noted_on_a_sheet_alone():
    axes = Figure().subplots()
    with pytest.raises(TypeError, match="axes are of a Figure, expected a Sheet"):
        sheet.show(axes, [0.0], [0.0], pd.DataFrame({"label": ["it"]}), "black")
