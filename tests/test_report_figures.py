"""Figures as files, their colors in the dark, and rows on a page."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image as Picture
from rows import make_rows

from nfp_jax.pages.looks import FURTHER, PALETTE
from nfp_jax.pages.pruners import as_on_pages
from nfp_jax.questions.memorization.figures import memorized
from nfp_jax.report import networks
from nfp_jax.report.figures import (
    LEAST,
    PAPER,
    contrast,
    dark_of,
    image,
    palette,
    themed,
    write_figures,
)
from nfp_jax.results import FORMATS, ResultsError, check_formats

ROWS = as_on_pages(make_rows(("snip", "imp"), (0.5, 0.9), seeds=2))


@pytest.fixture(scope="module")
def drawn():
    return image(memorized(ROWS), "it")


def test_a_figure_is_on_file_in_each_format_and_its_data_beside_it(drawn, tmp_path):
    write_figures(tmp_path, {"it": drawn}, FORMATS)
    files = {x.suffix: x.read_bytes() for x in tmp_path.iterdir()}
    assert sorted(files) == [".csv", ".pdf", ".png", ".svg"]
    assert files[".svg"].startswith(b"<svg") and files[".pdf"].startswith(b"%PDF")
    with Picture.open(io.BytesIO(files[".png"])) as picture:
        assert picture.width > 1000  # 200 points an inch
    data = pd.read_csv(io.BytesIO(files[".csv"]))
    assert {"label", "sparsity", "value", "low", "high", "by_seed"} <= set(data)
    # The same figure gives the same bytes; what is not asked for goes.
    write_figures(tmp_path, {"it": drawn}, FORMATS)
    assert {x.suffix: x.read_bytes() for x in tmp_path.iterdir()} == files
    write_figures(tmp_path, {"it": drawn}, ("svg",))
    assert sorted(x.suffix for x in tmp_path.iterdir()) == [".csv", ".svg"]


def test_an_unknown_format_is_refused_by_name():
    with pytest.raises(ResultsError, match="formats: 'gif' is unknown, expected some"):
        check_formats(["svg", "gif"])


def test_colors_can_be_told_from_a_dark_page():
    for paint in (*PALETTE.values(), *FURTHER):
        color = "#000000" if paint.color == "black" else paint.color
        assert contrast(dark_of(color), PAPER) >= LEAST, paint


def test_a_page_defines_each_color_of_its_figures_light_and_dark(drawn):
    text = themed(drawn.svg)
    used = set(re.findall(r"var\((--k[0-9a-f]{6})\)", text))
    assert "--k000000" in used and "--kffffff" in used
    light, dark = palette(text).split("@media")
    assert all(f"{name}:" in light and f"{name}:" in dark for name in used)


def test_rows_on_a_page_are_their_columns_of_one_value():
    text = networks.section(ROWS, "networks", "networks.csv")
    [data] = re.findall(r'<script type="application/json">(.*?)</script>', text)
    columns = json.loads(data)
    assert columns["pruner"] == ROWS["pruner"].tolist()
    np.testing.assert_allclose(
        columns["train_accuracy"], ROWS["train_accuracy"], rtol=1e-5
    )  # six digits
    assert "noise = 1" in text and "noise" not in columns  # the same in all
    assert "layers" not in columns and "loss_by_epoch" not in columns
    file = pd.read_csv(io.BytesIO(networks.csv(ROWS)))
    assert len(file) == len(ROWS) and {"noise", *columns} <= set(file)


def test_rows_that_find_no_room_are_in_the_file_alone():
    text = networks.section(ROWS, "networks", "networks.csv", room=100)
    assert "<script" not in text
    assert '10 networks are too many rows for a page. They are in <a href="' in text
