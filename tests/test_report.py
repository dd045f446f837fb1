"""Tables, figures and the page of a run, from synthetic rows."""

import itertools
import json
import math
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from nfp_jax import report
from nfp_jax.results import open_results, read_rows

# Where memorization falls to a half: 0.4 of the way for random masks, 1 for IMP.
PRUNERS = {
    "random": 0.40,
    "magnitude_init": 0.44,
    "snip": 0.60,
    "grasp": 0.57,
    "synflow": 0.55,
    "magnitude_trained": 0.80,
    "imp": 1.00,
}
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
LAYERS = ["params/Dense_0/kernel", "params/Dense_1/kernel", "params/Dense_2/kernel"]
SIZES = np.array([20_000, 40_000, 400])


def make_row(pruner="snip", sparsity=0.9, seed=0, n=1000, noise=1.0, **changes):
    rng = np.random.default_rng([seed, n, int(100 * sparsity), len(pruner)])
    power = PRUNERS.get(pruner, 0.7)
    decades = -math.log10(1 - sparsity)
    share = 1 / (1 + math.exp(4 * (decades - 2 * power)))
    share = float(np.clip(share + rng.normal(0, 0.01), 0, 1))
    epochs = int(10 + 40 * sparsity + rng.integers(5))
    correlation = 0.5 * noise * share
    curve = correlation * (1 - np.exp(-4 * np.arange(1, epochs + 1) / epochs))
    kept = np.minimum(SIZES, SIZES * (1 - sparsity) * rng.uniform(0.8, 1.2, 3))
    kept = SIZES if pruner == "dense" else kept.astype(int)
    trained = pruner in ("imp", "magnitude_trained")
    return {
        "pruner": pruner,
        "sparsity": sparsity,
        "n": n,
        "noise": noise,
        "select": "" if pruner == "dense" else "global",
        "resume": "rewind" if trained else "",
        "ablation": "",
        **dict.fromkeys(("init_seed", "data_seed", "train_seed"), seed),
        "train_accuracy": share,
        "test_accuracy": None,
        "memorized_points": n * share,
        "memorized_bits": None,
        "noise_correlation": correlation,
        "noise_correlation_normalized": share if noise else None,
        "loss": 1 - share,
        "epochs": epochs,
        "converged": True,
        "diverged": False,
        "collapsed": False,
        "kept": int(kept.sum()),
        "seconds": 0.1,
        "loss_by_epoch": (1 - curve).tolist(),
        "train_accuracy_by_epoch": curve.tolist(),
        "noise_correlation_by_epoch": curve.tolist(),
        "layers": LAYERS,
        "kept_by_layer": kept.tolist(),
        "size_by_layer": SIZES.tolist(),
        **changes,
    }


def make_rows(pruners=tuple(PRUNERS), sparsities=SPARSITIES, seeds=3, **changes):
    grid = itertools.product(pruners, sparsities, range(seeds))
    rows = [make_row(*cell, **changes) for cell in grid]
    rows += [make_row("dense", 0.0, seed, **changes) for seed in range(seeds)]
    return pd.DataFrame(rows)


def write(root, rows):
    results = open_results(root, "mlp", "ab12", {"lr": 1e-3, "note": "<i>"})
    results.write(rows.to_dict("records"))
    return results


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    results = write(tmp_path_factory.mktemp("results"), make_rows())
    results.write_run({"device": "cpu", "versions": {"jax": "0.10.2"}, "seconds": 1.5})
    report.write_report(results.directory)
    return results.directory


# Means and intervals


def test_three_values_have_the_interval_of_the_textbook():
    # t(0.975, 2) = 4.302653 (table); s = 1, k = 3: 4.302653 / sqrt(3) = 2.484138
    mean, half_width = report.mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half_width == pytest.approx(2.484138, abs=1e-6)  # digits of the table


def test_two_values_have_the_interval_in_closed_form():
    # With one degree of freedom t is Cauchy: the quantile is tan(pi (p - 1/2)), and
    # for 0 and 2 the standard error is sqrt(2) / sqrt(2) = 1.
    _, half_width = report.mean_interval([0.0, 2.0], confidence=0.9)
    assert half_width == pytest.approx(math.tan(math.pi * 0.45), rel=1e-12)


def test_one_value_has_no_interval_rather_than_one_of_width_0():
    mean, half_width = report.mean_interval([3.0])
    assert mean == 3.0 and math.isnan(half_width)


def test_missing_values_are_left_out_column_by_column():
    values = [
        [1.0, 5.0, math.nan],
        [2.0, math.nan, math.nan],
        [3.0, math.nan, math.nan],
    ]
    mean, half_width = report.mean_interval(values)
    np.testing.assert_allclose(mean, [2.0, 5.0, math.nan])
    np.testing.assert_allclose(half_width, [2.484138, math.nan, math.nan], atol=1e-6)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(3, 20_000))
    mean, half_width = report.mean_interval(draws, confidence=0.8)
    # 0.8 ± 4 standard errors of a share of 20,000
    assert np.mean(abs(mean) < half_width) == pytest.approx(0.8, abs=0.0114)


def test_summary_has_mean_half_width_and_counts_of_each_cell():
    rows = [
        make_row(seed=0, train_accuracy=0.1, converged=False, collapsed=True),
        make_row(seed=1, train_accuracy=0.2, converged=False, diverged=True),
        make_row(seed=2, train_accuracy=0.3, converged=None),
        make_row("imp", train_accuracy=0.9),
    ]
    lines = report.summary(pd.DataFrame(rows))
    assert lines["pruner"].tolist() == ["snip", "imp"]
    snip, imp = lines.to_dict("records")
    assert snip["train_accuracy"] == pytest.approx(0.2)
    assert snip["train_accuracy_half_width"] == pytest.approx(0.2484138, abs=1e-7)
    assert math.isnan(snip["test_accuracy"]) and math.isnan(imp["loss_half_width"])
    counts = [snip[x] for x in ("networks", "collapsed", "diverged", "unconverged")]
    assert counts == [3, 1, 1, 1]  # what diverged is not counted again as unconverged


# The table


def test_the_table_has_pruners_down_and_sparsities_across():
    rows = make_rows(pruners=("imp", "snip"), sparsities=(0.9, 0.5), seeds=1)
    rows["train_accuracy"] = [0.1, 0.2, 0.3, 0.4, 1.0]
    _, title, *lines = report.table(rows, width=120).splitlines()
    assert title == "n = 1,000, noise = 1; the dense network: 1.000"
    assert [line.split() for line in lines] == [
        ["pruner", "0.5", "0.9"],
        ["snip", "0.400", "0.300"],
        ["imp", "0.200", "0.100"],
    ]


def test_an_entry_of_the_table_is_mean_and_half_width():
    rows = make_rows(pruners=("snip",), sparsities=(0.9,))
    rows["train_accuracy"] = [0.1, 0.2, 0.3, 0.5, 0.5, 0.5]
    text = report.table(rows)
    assert "snip    0.200 ± 0.248" in text
    assert "the dense network: 0.500 ± 0.000" in text
    assert "over 3 networks" in text


def test_the_table_names_only_the_variants_that_vary():
    assert "resume" not in report.table(make_rows()).splitlines()[2]
    twice = pd.concat([make_rows(), make_rows(("imp",), resume="finetune")])
    head, *lines = report.table(twice).splitlines()[2:]
    assert head.split()[:3] == ["pruner", "resume", "0.5"]
    assert [x.split()[:2] for x in lines if x.startswith("imp")] == [
        ["imp", "finetune"],
        ["imp", "rewind"],
    ]


def test_there_is_a_table_for_each_n_and_noise():
    rows = pd.concat([make_rows(n=n, noise=p) for n in (100, 1000) for p in (0.0, 0.5)])
    titles = [x for x in report.table(rows).splitlines() if x.startswith("n = ")]
    assert [title.split(";")[0] for title in titles] == [
        "n = 100, noise = 0",
        "n = 100, noise = 0.5",
        "n = 1,000, noise = 0",
        "n = 1,000, noise = 0.5",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_is_no_wider_than_asked(width):
    sparsities = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
    rows = make_rows(sparsities=sparsities).assign(converged=False)
    lines = report.table(rows, width=width).splitlines()
    assert max(map(len, lines)) <= width
    heads = [line.split()[1:] for line in lines if line.startswith("pruner")]
    assert [x for head in heads for x in head] == [f"{s:g}" for s in sparsities]


def test_failures_name_pruner_sparsity_and_counts():
    rows = make_rows(pruners=("snip", "imp"))
    bad = (rows["pruner"] == "snip") & (rows["sparsity"] == 0.98)
    rows.loc[bad, "converged"] = False
    rows.loc[(rows["pruner"] == "imp") & (rows["sparsity"] > 0.9), "collapsed"] = True
    rows.loc[(rows["pruner"] == "imp") & (rows["sparsity"] == 0.5), "collapsed"] = [
        True,
        False,
        False,
    ]
    assert report.failures(rows) == [
        "7 of 9 networks of imp collapsed: no path from input to output is left "
        "(by sparsity: 1 of 3 at 0.5; 3 of 3 at 0.95, 0.98)",
        "3 of 3 networks of snip at sparsity 0.98 did not converge within their budget",
    ]
    assert report.table(rows).splitlines()[-2:] == [
        "warning: collapsed: no path from input to output is left: imp 7 of 9",
        "warning: did not converge within their budget: snip 3 of 3",
    ]


def test_the_tables_warnings_are_one_sentence_a_kind_and_wrapped():
    rows = make_rows()
    rows["converged"] = False
    lines = report.table(rows, width=80).splitlines()
    warnings = lines[[line.startswith("warning") for line in lines].index(True) :]
    assert all(len(line) <= 80 for line in warnings)
    joined = " ".join(line.strip() for line in warnings)
    assert joined.count("warning") == 1 and "grasp 15 of 15" in joined


def test_where_nothing_fails_nothing_is_said():
    assert report.failures(make_rows()) == []


# The figures


def test_every_figure_is_drawn_and_says_how_many_networks():
    for drawing in report.figures(make_rows()).values():
        assert drawing.figure is not None
        assert "over 3 networks (seeds)" in drawing.caption


def test_the_points_of_a_figure_are_the_means_in_the_pruner_s_color():
    rows = make_rows(pruners=("imp",))
    figure = report.figures(rows)["memorization"].figure
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
    drawing = report.figures(rows)["noise_correlation_by_epoch"]
    [line] = drawing.figure.axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), [0.0, 0.25, 0.3, 0.3])
    assert line.get_xdata().tolist() == [1, 2, 3, 4]
    assert "holds its last value" in drawing.caption


def test_a_collapsed_cell_is_hollow_and_the_caption_says_so():
    rows = make_rows(pruners=("snip",))
    hollow = "Hollow: at least one of the networks collapsed"
    assert hollow not in report.figures(rows)["memorization"].caption
    rows.loc[0, "collapsed"] = True
    drawing = report.figures(rows)["memorization"]
    assert hollow in drawing.caption
    [markers] = [
        x for x in drawing.figure.axes[0].lines if x.get_markerfacecolor() == "white"
    ]
    [y] = markers.get_ydata()
    assert y == rows.loc[:2, "memorized_points"].mean()


def test_axes_that_vary_have_panels_and_a_variant_has_a_line_style():
    rows = pd.concat(
        [
            make_rows(n=n, noise=noise).assign(resume=resume)
            for n in (100, 1000)
            for noise in (0.5, 1.0)
            for resume in ("rewind", "finetune")
        ]
    )
    figure = report.figures(rows)["memorization"].figure
    titles = [axes.get_title().replace("\u00a0", " ") for axes in figure.axes]
    assert titles[0] == "n = 100, noise = 0.5" and len(titles) == 4
    [legend] = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[-2:] == ["finetune", "rewind"]


def test_a_pruner_looks_the_same_whatever_else_is_in_a_figure():
    rows = make_rows(pruners=("mine", "yours", "imp"))
    looks = []
    for drawing in report.figures(rows).values():
        [legend] = drawing.figure.legends
        lines = zip(legend.get_texts(), legend.get_lines(), strict=True)
        looks.append({t.get_text(): (x.get_color(), x.get_marker()) for t, x in lines})
    for look in looks:
        assert {name: look[name] for name in ("mine", "yours", "IMP")} == {
            name: looks[0][name] for name in ("mine", "yours", "IMP")
        }
    assert len({looks[0][name] for name in looks[0]}) == len(looks[0])


@pytest.mark.parametrize(
    ("changes", "skipped", "why"),
    [
        ({"noise": 0.0}, "noise_correlation", "no noise|noise > 0"),
        ({"noise": 0.0}, "noise_correlation_by_epoch", "noise"),
        ({"noise_correlation_by_epoch": None}, "noise_correlation_by_epoch", "epochs"),
        ({"kept_by_layer": None}, "kept_by_layer", "layers"),
    ],
)
def test_a_figure_without_data_is_left_out_and_the_page_says_why(
    tmp_path, changes, skipped, why
):
    directory = write(tmp_path, make_rows(seeds=1, **changes)).directory
    (directory / "figures").mkdir()
    (directory / "figures" / f"{skipped}.svg").write_text("of an earlier report")
    page = report.write_report(directory).read_text()
    assert not (directory / "figures" / f"{skipped}.svg").exists()
    assert (directory / "figures" / "memorization.svg").exists()
    drawing = report.figures(read_rows(directory))[skipped]
    assert drawing.figure is None and re.search(why, drawing.caption)
    assert f"{drawing.title}</b>: no figure" in page


def test_of_many_panels_by_sparsity_the_caption_says_which_are_shown():
    many = make_rows(("imp",), sparsities=np.arange(1, 10) / 10)
    drawing = report.figures(many)["kept_by_layer"]
    assert len(drawing.figure.axes) == 6
    assert drawing.figure.axes[-1].get_title() == "90\u00a0%\u00a0removed"
    assert "6 of the 9 sparsities have a panel" in drawing.caption
    twice = pd.concat([make_rows(("imp",), n=n) for n in (100, 1000)])
    drawing = report.figures(twice)["kept_by_layer"]
    assert len(drawing.figure.axes) == 2
    assert "Each panel shows its highest sparsity" in drawing.caption


def test_a_single_seed_has_no_interval_and_the_caption_says_so():
    drawings = report.figures(make_rows(seeds=1))
    for drawing in drawings.values():
        assert "there is no interval" in drawing.caption


def test_crossed_seeds_are_told():
    rows = pd.concat([make_rows(init_seed=seed) for seed in range(2)])
    assert "over 6 networks (seeds crossed" in report.table(rows, width=200)


def test_only_the_dense_network_makes_a_page(tmp_path):
    directory = write(tmp_path, make_rows(pruners=())).directory
    page = report.write_report(directory).read_text()
    assert "No pruned network is on file" in page
    assert "the dense network: " in page


def test_diverged_networks_do_not_stop_the_page(tmp_path):
    rows = make_rows(pruners=("imp", "snip"))
    bad = rows["pruner"] == "snip"
    nans = ["loss", "noise_correlation", "noise_correlation_normalized"]
    rows.loc[bad, nans] = math.nan
    rows.loc[bad, "diverged"] = True
    column = "noise_correlation_by_epoch"
    rows[column] = [[0.1, math.nan] if b else [0.1, 0.2] for b in bad]
    page = report.write_report(write(tmp_path, rows).directory).read_text()
    assert "15 of 15 networks of snip diverged" in page


# The page


@pytest.mark.parametrize("epochs", [0, 1, 2, 40])
def test_rows_that_are_nan_throughout_do_not_stop_the_page(tmp_path, epochs):
    """Every network diverged: a curve without one finite point."""
    nan = [math.nan] * epochs
    rows = make_rows(
        diverged=True,
        converged=False,
        loss=math.nan,
        noise_correlation=math.nan,
        noise_correlation_normalized=None,
        noise_correlation_by_epoch=nan,
        loss_by_epoch=nan,
    )
    write(tmp_path, rows)
    page = report.write_report(next(tmp_path.iterdir())).read_text(encoding="utf-8")
    assert "the loss is not finite" in page


def test_the_same_rows_give_the_same_bytes(run, tmp_path):
    names = ["report.html", *(f"figures/{x.name}" for x in run.glob("figures/*.svg"))]
    assert len(names) == 5
    before = {name: (run / name).read_bytes() for name in names}
    report.write_report(run)
    assert {name: (run / name).read_bytes() for name in names} == before


def test_the_page_needs_no_other_file(run):
    page = (run / "report.html").read_text()
    assert page.count("<svg") == 4
    assert not re.search(r"<(script|link|img|iframe|object)\b|@import", page)
    for target in re.findall(r"(?:src|href|data)\s*=\s*[\"']?([^\"'> ]+)", page):
        assert target.startswith("#")
    for target in re.findall(r"url\(([^)]*)\)", page):
        assert target.startswith("#")


def test_ids_of_the_page_are_unique_and_every_reference_has_one(run):
    page = (run / "report.html").read_text()
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert ids and len(ids) == len(set(ids))
    references = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', page)
    assert references and {a or b for a, b in references} <= set(ids)


def test_the_figures_are_well_formed_and_on_file(run):
    for file in run.glob("figures/*.svg"):
        assert ElementTree.parse(file).getroot().tag.endswith("svg")


def test_the_page_tells_configuration_launches_and_how_to_make_it_again(run):
    page = (run / "report.html").read_text()
    assert "108 networks" in page and "0.5, 0.8, 0.9, 0.95, 0.98" in page
    assert "&quot;note&quot;: &quot;&lt;i&gt;&quot;" in page
    assert "jax 0.10.2" in page and "cpu" in page
    assert "python -m nfp_jax.report" in page
    assert "All converged, none collapsed or diverged." in page


def test_a_hostile_name_is_text_everywhere(tmp_path):
    name = '<script>alert("x")</script>&$a$_{'
    results = write(tmp_path, make_rows(pruners=(name, "_own", "-->"), seeds=2))
    results.write_run({name: name})
    page = report.write_report(results.directory).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;$a$_{" in page
    for file in results.directory.glob("figures/*.svg"):
        ElementTree.parse(file)
    [legend] = report.figures(make_rows(pruners=("_own",)))[
        "memorization"
    ].figure.legends
    assert "_own" in [text.get_text() for text in legend.get_texts()]


def test_the_command_makes_the_page_from_rows_alone(run, capsys):
    before = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    assert report.main([str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert (run / "report.html").read_bytes() == before


def test_the_command_refuses_a_directory_without_rows(tmp_path, capsys):
    empty = open_results(tmp_path, "mlp", "ab12", {}).directory
    for directory, words in [(empty, "no rows"), (tmp_path / "no", "holds no results")]:
        assert report.main([str(directory)]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert str(directory) in line and words in line


def test_the_report_reads_rows_without_jax_or_global_figures():
    code = (
        "import sys, types\n"
        "sys.modules['jax'] = None\n"  # importing it fails
        "import importlib.util as u, pathlib\n"
        "package = types.ModuleType('nfp_jax')\n"
        "package.__path__ = [str(pathlib.Path(sys.argv[1]).parent)]\n"
        "sys.modules['nfp_jax'] = package\n"
        "import nfp_jax.report\n"
        "print('matplotlib.pyplot' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, report.__file__],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr


def test_configuration_is_needed_to_make_the_page(run, tmp_path):
    directory = write(tmp_path, make_rows(seeds=1)).directory
    assert json.loads((directory / "config.json").read_text())["lr"] == 1e-3
    (directory / "config.json").unlink()
    assert report.main([str(directory)]) == 2
