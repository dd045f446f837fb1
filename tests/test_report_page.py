"""Tables, figures and the page of a run, from synthetic rows."""

import json
import math
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from rows import make_interval_row, make_interval_rows, make_rows

from nfp_jax import report
from nfp_jax.report import kinds
from nfp_jax.results import open_results, read_rows


def write(root, rows):
    results = open_results(root, "mlp", "ab12", {"lr": 1e-3, "note": "<i>"})
    results.write(rows.to_dict("records"))
    return results


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    rows = make_rows(("random", "magnitude_init", "snip", "imp"), (0.5, 0.9))
    results = write(tmp_path_factory.mktemp("results"), rows)
    results.write_run({"device": "cpu", "versions": {"jax": "0.10.2"}, "seconds": 1.5})
    report.write_report(results.directory)
    return results.directory


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
        "7 of 15 networks of IMP collapsed (no path from input to output is left), "
        "by sparsity: 1 of 3 at 0.5; 3 of 3 at 0.95, 0.98",
        "3 of 15 networks of SNIP did not converge within their budget, "
        "by sparsity: 3 of 3 at 0.98",
    ]
    assert report.table(rows).splitlines()[-2:] == [
        "warning: collapsed (no path from input to output is left): imp 7 of 15 "
        "(sparsity 0.5, 0.95, 0.98)",
        "warning: did not converge within their budget: snip 3 of 15 (sparsity 0.98)",
    ]


def test_networks_out_of_budget_are_counted_and_may_memorize_more():
    rows = make_rows(pruners=("snip",)).assign(settled=True, out_of_budget=0)
    rows.loc[rows["sparsity"] > 0.9, "out_of_budget"] = [0, 2, 1, 1, 1, 1]
    [line] = report.failures(rows)
    assert line.startswith("5 of 15 networks of SNIP ran out of budget (the training")
    assert "so the network may memorize more)" in line
    assert line.endswith("by sparsity: 2 of 3 at 0.95; 3 of 3 at 0.98")
    section = report.section(rows, {})
    assert "Of 18 networks 5 ran out of budget; see Warnings." in section


def test_of_a_dense_network_that_fails_no_sparsity_is_told():
    rows = make_rows(pruners=("imp",))
    rows.loc[rows["pruner"] == "dense", "converged"] = False
    words = "did not converge within their budget"
    assert report.failures(rows) == [f"3 of 3 networks of dense {words}"]
    assert report.warnings(rows) == [f"{words}: dense 3 of 3"]


def test_the_tables_warnings_are_one_sentence_a_kind_and_wrapped():
    rows = make_rows()
    rows["converged"] = False
    lines = report.table(rows, width=80).splitlines()
    warnings = lines[[line.startswith("warning") for line in lines].index(True) :]
    assert all(len(line) <= 80 for line in warnings)
    joined = " ".join(line.strip() for line in warnings)
    assert joined.count("warning") == 1 and "grasp 15 of 15" in joined
    assert joined.endswith("(sparsity 0.5, 0.8, 0.9, 0.95, 0.98)")


def test_of_many_sparsities_a_warning_tells_the_first_and_the_last():
    rows = make_rows(("imp",), np.arange(1, 10) / 10, seeds=1, converged=False)
    [line] = report.warnings(rows[rows["pruner"] == "imp"])
    assert line.endswith("imp 9 of 9 (sparsity 0.1 to 0.9, 9 values)")


def test_where_nothing_fails_nothing_is_said():
    assert report.failures(make_rows()) == []


# The page


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
    rows = make_rows(("snip", "imp"), (0.5, 0.9), seeds=1, **changes)
    directory = write(tmp_path, rows).directory
    (directory / "figures").mkdir()
    (directory / "figures" / f"{skipped}.svg").write_text("of an earlier report")
    page = report.write_report(directory).read_text()
    assert not (directory / "figures" / f"{skipped}.svg").exists()
    assert (directory / "figures" / "memorization.svg").exists()
    drawing = kinds.draw(read_rows(directory))[skipped]
    assert drawing.figure is None and re.search(why, drawing.caption)
    assert f"{drawing.title}</b>: no figure" in page


def test_crossed_seeds_are_told():
    rows = pd.concat([make_rows(init_seed=seed) for seed in range(2)])
    assert "over 6 networks (seeds crossed" in report.table(rows, width=200)


def test_only_the_dense_network_makes_a_page(tmp_path):
    directory = write(tmp_path, make_rows(pruners=())).directory
    page = report.write_report(directory).read_text()
    assert "No pruned network is on file" in page
    assert "the dense network: " in page


def test_diverged_networks_do_not_stop_the_page(tmp_path):
    rows = make_rows(("imp", "snip"), (0.5, 0.9))
    bad = rows["pruner"] == "snip"
    nans = ["loss", "noise_correlation", "noise_correlation_normalized"]
    rows.loc[bad, nans] = math.nan
    rows.loc[bad, "diverged"] = True
    column = "noise_correlation_by_epoch"
    rows[column] = [[0.1, math.nan] if b else [0.1, 0.2] for b in bad]
    page = report.write_report(write(tmp_path, rows).directory).read_text()
    assert "6 of 6 networks of SNIP diverged" in page


@pytest.mark.parametrize("epochs", [0, 1, 2, 40])
def test_rows_that_are_nan_throughout_do_not_stop_the_page(tmp_path, epochs):
    """Every network diverged: a curve without one finite point."""
    nan = [math.nan] * epochs
    rows = make_rows(
        ("snip", "imp"),
        (0.5, 0.9),
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
    names = ["report.html", *(f"figures/{x.name}" for x in run.glob("figures/*"))]
    assert len(names) == 17  # eight figures, and what each shows
    before = {name: (run / name).read_bytes() for name in names}
    report.write_report(run)
    assert {name: (run / name).read_bytes() for name in names} == before


def test_the_page_needs_no_other_file(run):
    page = (run / "report.html").read_text()
    assert page.count("<svg") == 8 and len(page) < 2_000_000
    assert not re.search(r"<(script src|link|img|iframe|object)\b|@import", page)
    text = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    for target in re.findall(r"(?:src|data)\s*=\s*[\"']?([^\"'> ]+)", text):
        assert target.startswith("#")
    links = set(re.findall(r'<a href="([^"#]+)"', page))  # to files beside it
    assert {"networks.csv", "figures/memorization.csv", "rows/"} <= links
    assert all((run / link).exists() for link in links)
    for target in re.findall(r"url\(([^)]*)\)", page):
        assert target.startswith("#")


def test_ids_of_the_page_are_unique_and_every_reference_has_one(run):
    page = (run / "report.html").read_text()
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert ids and len(ids) == len(set(ids))
    references = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', page)
    assert references and {a or b for a, b in references} <= set(ids)


def test_the_contents_list_sections_and_figures_in_their_order(run):
    page = (run / "report.html").read_text()
    contents = page.partition("<nav")[2].partition("</nav>")[0]
    linked = re.findall('<a href="#([^"]*)">', contents)
    assert linked == [x for x in re.findall(r'<(?:h2|figure) id="([^"]*)"', page)]
    assert linked[:2] == ["figures", "figure-memorization"]
    for mark in ("tables", "warnings", "rows", "configuration", "launches"):
        assert mark in linked


def test_the_figures_are_well_formed_and_on_file(run):
    for file in run.glob("figures/*.svg"):
        assert ElementTree.parse(file).getroot().tag.endswith("svg")


def test_the_page_tells_configuration_launches_and_how_to_make_it_again(run):
    page = (run / "report.html").read_text()
    assert "27 networks" in page and "to sparsity 0.5, 0.9" in page
    assert "&quot;note&quot;: &quot;&lt;i&gt;&quot;" in page
    assert "jax 0.10.2" in page and "cpu" in page
    assert "python -m nfp_jax.report" in page
    assert "No warnings: every training ended within its budget, none" in page


def test_a_hostile_name_is_text_everywhere(tmp_path):
    name = '<script>alert("x")</script>&$a$_{'
    rows = make_rows((name, "_own", "-->"), (0.5, 0.9), seeds=2)
    results = write(tmp_path, rows)
    results.write_run({name: name})
    page = report.write_report(results.directory).read_text()
    assert "<script>alert" not in page  # also where a script has the rows
    assert page.count("<script") == page.count("</script>") == 3
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;$a$_{" in page
    for file in results.directory.glob("figures/*.svg"):
        ElementTree.parse(file)
    own = kinds.draw(rows[rows["pruner"] == "_own"])
    [legend] = own["memorization"].figure.legends
    assert "_own" in [text.get_text() for text in legend.get_texts()]


def test_the_command_makes_the_page_from_rows_alone(run, capsys):
    before = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    assert report.main([str(run), "--formats=svg"]) == 0
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
        "import sys\n"
        "sys.modules['jax'] = None\n"  # importing it fails
        "from nfp_jax import questions, report\n"
        "for name in questions.names():\n"
        "    questions.module(name, 'figures')\n"
        "print('matplotlib.pyplot' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr


def test_the_page_counts_dense_and_pruned_networks_and_names_them_as_its_figures(run):
    page = (run / "report.html").read_text()
    assert "27 networks: 3 dense, 24 pruned by random, magnitude at init, SNIP" in page
    assert '<th scope="row" class="name">magnitude at init<td' in page
    page = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)  # rows as is
    assert "magnitude_init" not in page


def test_configuration_is_needed_to_make_the_page(run, tmp_path):
    directory = write(tmp_path, make_rows(seeds=1)).directory
    assert json.loads((directory / "config.json").read_text())["lr"] == 1e-3
    (directory / "config.json").unlink()
    assert report.main([str(directory)]) == 2


# A section, which a page may have several of


def test_a_page_is_the_section_of_its_rows_and_what_is_about_the_run(run):
    rows = read_rows(run)
    section = report.section(rows, report.images(rows), formats=("svg",))
    page = (run / "report.html").read_text()
    assert section in page
    for words in (">Figures</h2", ">Tables</h2", ">Warnings</h2", "27 networks: "):
        assert section.count(words) == 1
    for words in ("<h1>", ">Configuration</h2", "Launch 1", "<html"):
        assert words in page and words not in section


def test_sections_of_two_runs_have_no_id_in_common():
    first = make_rows(("snip", "imp"), (0.5, 0.9), seeds=1)
    second = make_interval_rows(seeds=1)
    parts = [
        report.section(rows, report.images(rows, prefix), level=3, mark=prefix)
        for rows, prefix in ((first, "a-"), (first, "b-"), (second, "c-"))
    ]
    assert all(">Tables</h3>" in part and "<h2" not in part for part in parts)
    ids = re.findall(r'\bid="([^"]*)"', "".join(parts))
    assert ids and len(ids) == len(set(ids))
    references = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', "".join(parts))
    assert references and {a or b for a, b in references} <= set(ids)


def test_a_section_has_the_figures_that_it_is_given():
    rows = make_rows(("snip", "imp"), (0.5, 0.9), seeds=1)
    images = report.images(rows)
    assert images["noise_correlation_by_noise"].svg is None
    some = {"memorization": images["memorization"]}
    section = report.section(rows, some)
    assert section.count("<svg") == 1 and "no figure" not in section
    assert report.section(rows, images).count("no figure") == 2  # and no controls


def test_no_rows_have_no_section():
    with pytest.raises(ValueError, match="at least one row"):
        report.section(make_rows().iloc[:0], {})


# Rows of information


def test_the_table_of_information_has_intervals_and_exact_values():
    ends = {"information_lower": 12.345, "information_upper": 69.31}
    exact = dict.fromkeys(("information_lower", "information_upper"), 8.049)
    rows = pd.DataFrame(
        [
            make_interval_row("imp", 0.5, **ends),
            make_interval_row("imp", 0.9, **exact, information_exact=8.049),
            make_interval_row("snip", 0.5, **ends, information_exact=20.0),
            make_interval_row("snip", 0.9, information_lower=0.0),
        ]
    )
    first, title, head, *lines = report.table(rows, width=300).splitlines()
    assert first.startswith("Information in nats by sparsity, lower-upper end; I(m; y")
    assert "K = 256 data sets; each interval of confidence 95 %" in first
    assert title == "n = 12, noise = 1, global"
    assert [re.split("  +", line) for line in (head, *lines)] == [
        ["pruner", "0.5", "0.9"],
        ["snip", "12.3-69.3 = exact 20.0", "0-4.46"],  # 0.5 * 12 log 2 + 0.3
        ["imp", "12.3-69.3", "= exact 8.05"],
    ]


def test_there_is_a_table_of_information_for_each_n_noise_and_select():
    rows = pd.concat(
        [make_interval_rows(n=n, select=x) for n in (12, 30) for x in ("erk", "global")]
    )
    titles = [x for x in report.table(rows).splitlines() if x.startswith("n = ")]
    assert titles == [
        "n = 12, noise = 1, erk",
        "n = 12, noise = 1, global",
        "n = 30, noise = 1, erk",
        "n = 30, noise = 1, global",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_of_information_is_no_wider_than_asked(width):
    sparsities = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
    rows = make_interval_rows(sparsities=sparsities, irreproducible=0.1)
    rows["information_exact"] = 3.0
    lines = report.table(rows, width=width).splitlines()
    assert max(map(len, lines)) <= width
    heads = [line.split()[1:] for line in lines if line.startswith("pruner")]
    assert [x for head in heads for x in head] == [f"{s:g}" for s in sparsities]


TROUBLED = {
    ("snip", 0.5): {"information_lower": 5.0, "information_upper": 4.0},
    ("random", 0.9): {"information_lower": 0.0, "information_upper": 8.3},
    ("imp", 0.9): {"irreproducible": 0.016, "collapsed_share": 0.25},
}


def troubled():
    cells = [
        (p, s, i) for p in ("random", "snip", "imp") for s in (0.5, 0.9) for i in (0, 1)
    ]
    return pd.DataFrame(
        [make_interval_row(*cell, **TROUBLED.get(cell[:2], {})) for cell in cells]
    )


def test_warnings_of_information_name_pruner_sparsity_and_counts():
    assert report.failures(troubled()) == [
        "2 of 4 intervals of SNIP contradict themselves (the lower end is above the "
        "upper, or the exact value is outside), by sparsity: 2 of 2 at 0.5",
        "2 of 4 intervals of random say nothing (from 0 to the label entropy or the "
        "log binomial, or to within 1 % of it), by sparsity: 2 of 2 at 0.9",
        "2 of 4 intervals of IMP are of masks of which up to 1.6 % differ when made "
        "again (entropy that is not information), by sparsity: 2 of 2 at 0.9",
        "2 of 4 intervals of IMP are of masks of which up to 25 % collapsed (no path "
        "from input to output is left), by sparsity: 2 of 2 at 0.9",
    ]
    lines = report.table(troubled(), width=200).splitlines()[-4:]
    assert lines[1] == (
        "warning: intervals say nothing (from 0 to the label entropy or the log "
        "binomial, or to within 1 % of it): random 2 of 4 (sparsity 0.9)"
    )
    assert all(line.startswith("warning: intervals ") for line in lines)


def test_the_largest_share_of_each_pruner_is_its_own():
    rows = make_interval_rows(("snip", "imp"), (0.9,), seeds=1)
    rows["irreproducible"] = [0.01, 0.08]
    snip, imp = report.failures(rows)
    assert "SNIP" in snip and "up to 1 %" in snip and "up to 8 %" in imp
    [both] = report.warnings(rows)
    assert "up to 8 %" in both and "snip 1 of 1, imp 1 of 1" in both


def test_where_no_interval_is_in_trouble_nothing_is_said():
    assert report.failures(make_interval_rows()) == []
    assert report.warnings(make_interval_rows()) == []


@pytest.fixture(scope="module")
def intervals_page(tmp_path_factory):
    rows = pd.concat([make_interval_rows(n=n) for n in (12, 30)])
    results = write(tmp_path_factory.mktemp("intervals"), rows)
    return report.write_report(results.directory)


def test_the_page_of_information_has_its_figures_and_tables(intervals_page):
    page = intervals_page.read_text()
    names = sorted(x.stem for x in intervals_page.parent.glob("figures/*.svg"))
    assert names == [
        "bits_by_load",
        "bits_per_weight",
        "effective_parameters",
        "information",
        "information_by_n",
    ]
    assert page.count("<svg") == 5 and page.count("<figure ") == 5
    rows = make_interval_rows()
    kind = kinds.kind_of(rows)
    for measure in kind.tables:
        for n in (12, 30):
            title = f"{kind.title(rows, measure)}. n = {n}, noise = 1, global"
            assert f"<caption>{title}</caption>" in page
    assert "<caption>Effective parameters p_eff (labels), weights kept + nats" in page
    page = page.partition("<main>")[2].partition("</main>")[0]  # without scripts
    for absent in ("accuracy", "converge", "memoriz", "no figure", "nan"):
        assert absent not in page.lower(), absent


def test_the_page_of_information_has_the_numbers_of_its_rows(tmp_path):
    ends = {"information_lower": 1.0, "information_upper": 4.0}
    by = {"information_lower_by": "collisions", "information_upper_by": "label entropy"}
    rows = pd.DataFrame([make_interval_row("imp", 0.9, **ends, **by)])
    page = report.write_report(write(tmp_path, rows).directory).read_text()
    entries = re.findall(r'<th scope="row" class="name">IMP<td[^>]*>([^<]*)', page)
    # 14 weights are kept: 1 / (14 log 2) and 4 / (14 log 2); 1 / 15 and 4 / 18
    assert entries == [
        "1.00-4.00",
        "0.103-0.412",
        "15.0-18.0",
        "6.67-22.2",
        "collisions | label entropy",
    ]
    assert "1 interval of the information" in page


def test_the_page_of_information_names_conditioning_data_sets_and_confidence(
    intervals_page,
):
    page = intervals_page.read_text()
    entries = page[page.index(">Tables</h2") : page.index("<table")]
    for part in (page[: page.index(">Figures</h2")], entries):
        assert "I(m; y | W, X, R), labels y resampled" in part
        assert "K = 256 data sets; each interval of confidence 95 %" in part
    assert page.count("<figcaption>") == page.count("each interval of confidence") - 2
    assert "<li>None: no interval says nothing or contradicts itself" in page


def test_the_page_of_information_tells_what_is_wrong(tmp_path):
    page = report.write_report(write(tmp_path, troubled()).directory).read_text()
    assert "6 intervals have a warning; see Warnings." in page
    assert "<li>2 of 4 intervals of SNIP contradict themselves" in page
    assert "<li>2 of 4 intervals of random say nothing" in page
    assert "Hollow: the interval of at least one network contradicts itself" in page
    assert "Information against n</b>: no figure. All masks are of n = 12." in page


def test_the_page_of_information_is_made_again_from_rows_alone(intervals_page, capsys):
    before = intervals_page.read_bytes()
    intervals_page.unlink()
    assert report.main([str(intervals_page.parent), "--formats=svg"]) == 0
    assert capsys.readouterr().out == f"{intervals_page}\n"
    assert intervals_page.read_bytes() == before
