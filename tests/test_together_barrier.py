"""Criteria by initializations: what is a line, what is drawn, and what is claimed."""

import matplotlib.style
import numpy as np
import pytest
from rows import PRUNERS, make_interval_row, make_rows
from test_pages_joined import MODEL, make_part, make_parts
from test_report_collection import make_collection, make_run
from test_smoother import make_slopes

from nfp_jax.pages import looks
from nfp_jax.questions.memorization.claims import together
from nfp_jax.report.collection import write_page
from nfp_jax.report.publishing import main
from nfp_jax.report.together.barrier import barrier, lines_of, tables

HERE, THERE = {"init": "he_normal"}, {"init": "orthogonal"}


def make_pair(seeds=4, **changes):
    """Two runs that differ in their initialization."""
    rows = make_rows(seeds=seeds, sparsities=(0.9, 0.95))
    other = make_rows(seeds=seeds, sparsities=(0.9, 0.95), **changes)
    return make_parts(
        make_part(rows, name="here", model=HERE),
        make_part(other, name="there", model=THERE),
    )


def test_a_part_knows_its_network_without_the_initialization():
    here, there = make_pair().values()
    assert (here.init, there.init) == ("he_normal", "orthogonal")
    assert here.but_init == there.but_init and here.where != there.where
    assert here.where == f"{here.but_init} (he_normal)"


def test_a_line_has_points_and_epochs_of_all_seeds_and_the_masks_information():
    parts = make_pair()
    row = make_interval_row("snip", n=1000, information_lower=40.0)
    row["information_upper"] = 60.0
    parts["i"] = make_part([row], "information", "i", model=THERE)
    lines = lines_of(parts)
    assert len(lines) == 2 * 2 * len(PRUNERS)
    mine = lines[(lines["pruner"] == "snip") & (lines["sparsity"] == 0.9)]
    here, there = (line for _, line in mine.iterrows())
    assert (here["init"], there["init"]) == ("he_normal", "orthogonal")
    assert len(here["points"]) == len(here["epochs"]) == 4
    assert np.isnan(here["p_eff_lower"])
    assert there["p_eff_lower"] == there["kept"] + 40
    assert there["p_eff_upper"] == there["kept"] + 60


def test_networks_of_one_initialization_are_no_line_and_draw_nothing():
    parts = make_pair()
    alone = {"here": parts["here"], "again": parts["here"]._replace(name="again")}
    assert lines_of(alone).empty and lines_of({}).empty
    assert list(barrier(lines_of(alone))) == []


def test_the_figure_has_a_height_for_each_criterion_and_the_best_on_top():
    parts = make_pair()
    parts["there"].rows["epochs_to_99"] = np.nan
    with matplotlib.style.context(["default", looks.RC]):
        drawn = dict(barrier(lines_of(parts)))
    assert list(drawn) == ["barrier_1", "barrier_2"]
    title, figure, caption = drawn["barrier_1"]
    assert "n = 1,000" in title and "he_normal" not in title and "90 %" in title
    assert "certified" in caption
    points, epochs = figure.axes  # neither information nor steepness is on file
    names = [text.get_text() for text in points.get_yticklabels()]
    assert len(names) == len(PRUNERS) and names[-1] == "IMP"
    bold = {x.get_text() for x in points.get_yticklabels() if x.get_weight() == "bold"}
    assert bold == {"IMP", "magnitude after training"}
    arrows = [x for x in epochs.lines if x.get_marker() == 9]
    assert len(arrows) == len(PRUNERS)  # those of the other never fit


def test_where_no_network_fits_its_labels_no_times_are_drawn():
    parts = make_pair()
    for part in parts.values():
        part.rows["epochs_to_99"] = np.nan
    with matplotlib.style.context(["default", looks.RC]):
        figure = dict(barrier(lines_of(parts)))["barrier_1"].figure
        figure.draw_without_rendering()
    assert [x.get_xlabel() for x in figure.axes] == ["points memorized"]


def test_steepness_is_of_networks_that_fit_and_has_a_panel_where_it_was_asked():
    parts = {}
    for name, model in (("here", HERE), ("there", THERE)):
        rows = make_slopes(2.0, seeds=3)
        unfit = (rows["pruner"] == "snip") & (rows["data_seed"] > 0)
        rows.loc[unfit, "train_accuracy"] = 0.9
        parts[name] = make_part(rows, "robustness", name, model=model)
    row = make_interval_row("imp", n=1000, information_lower=40.0)
    parts["i"] = make_part([row], "information", "i", model=HERE)
    lines = lines_of(parts)
    found = dict(zip(lines["pruner"], lines["steepness"], strict=True))
    assert [len(found[x]) for x in ("imp", "snip", "synflow")] == [3, 1, 3]
    assert found["imp"] == pytest.approx([5.0, 5.1, 5.2])
    with matplotlib.style.context(["default", looks.RC]):
        [(_, drawing)] = barrier(lines)
    names = [axes.get_xlabel() for axes in drawing.figure.axes]
    assert names[2:] == ["effective parameters", "steepness"]
    shown = [x for line in drawing.figure.axes[3].lines for x in line.get_xdata()]
    assert sorted(set(np.round(shown, 6))) == pytest.approx([5.1, 10.0, 45.9])


def test_tables_have_the_numbers_of_the_figures_and_say_what_was_cut_short():
    parts = make_pair(2)
    cut = parts["there"].rows
    cut["out_of_budget"] = ((cut["pruner"] == "imp") & (cut["data_seed"] == 0)) * 1
    here, there = make_slopes(2.0, seeds=2), make_slopes(3.0, seeds=2)
    there.loc[there["pruner"] == "snip", "train_accuracy"] = 0.9
    for name, rows in (("here", here), ("there", there)):
        model = {"here": HERE, "there": THERE}[name]
        parts[f"steep {name}"] = make_part(
            rows.assign(n=200), "robustness", f"steep {name}", model=model
        )
    found = {title: (heads, body) for title, heads, body in tables(lines_of(parts))}
    points = next(x for title, x in found.items() if "Points" in title)
    assert points[0] == ["criterion", "he_normal", "orthogonal"]
    assert points[1][0][0] == "IMP" and points[1][0][2].endswith("+")
    assert not points[1][0][1].endswith("+") and len(points[1]) == len(PRUNERS)
    [steepness] = [x for title, x in found.items() if "Lipschitz" in title]
    body = {label: cells for label, *cells in steepness[1]}
    assert body == {"IMP": ["5", "5"], "SNIP": ["10", "-"], "SynFlow": ["45", "45"]}


@pytest.mark.parametrize("more", [False, True])
def test_masks_of_another_initialization_are_held_against_trained_ones(more):
    parts = make_pair()
    there = parts["there"].rows
    if more:  # a mask at another initialization gets around the barrier
        there.loc[there["pruner"] == "snip", "memorized_points"] = 1000.0
    [claim] = [x for x in together(parts) if "/points/imp-rewind/n=1000/0.95" in x.key]
    assert claim.key.startswith("here-there/")
    assert "rivals: there, weights orthogonal" in claim.where
    assert (claim.measured > 0) != more
    assert (claim.p_holds < claim.p_not) != more


def test_other_networks_and_equal_initializations_are_not_compared():
    parts = make_pair()
    same = {"here": parts["here"], "again": parts["here"]._replace(name="again")}
    assert list(together(same)) == []
    wide = make_part(parts["there"].rows, name="wide", model={**THERE, "widths": [9]})
    assert list(together({"here": parts["here"], "wide": wide})) == []


def test_without_trained_masks_in_the_first_run_nothing_is_claimed():
    parts = make_pair()
    rows = parts["here"].rows
    few = parts["here"]._replace(rows=rows[rows["sees"] != "training"])
    assert list(together({**parts, "here": few})) == []


def test_the_section_is_written_into_a_page_again_and_again(tmp_path, capsys):
    runs = {}
    for name, init in (("here", HERE), ("there", THERE)):
        rows = make_rows(("snip", "imp"), (0.95,), seeds=3).to_dict("records")
        runs[name] = make_run(
            tmp_path, "memorization", rows, name, model={**MODEL, **init}
        )
    directory = make_collection(tmp_path, runs)
    write_page(directory)
    page = tmp_path / "page.md"
    page.write_text(
        "# Results\n\nkept\n\n## Targets\n\ntoo\n\n## Claims\n\nthese\n", "utf-8"
    )
    command = [str(directory), "--write", str(page), "--barrier"]
    assert main(command) == 0
    once = page.read_text("utf-8")
    assert once.startswith("# Results\n\nkept\n\n## Targets\n\ntoo\n\n## Around the b")
    assert once.endswith("\n\n## Claims\n\nthese\n")
    assert "![Around the barrier? Criteria by initializations: " in once
    assert (tmp_path / "page" / "around_barrier_1.svg").exists()
    assert "<b>here-there</b>" in once and "\nThe machines: " in once
    heads = "| criterion | he_normal | orthogonal |"
    assert "**Points memorized, mean over seeds" in once and heads in once
    assert main(command) == 0 and page.read_text("utf-8") == once
    alone = make_collection(tmp_path, {"here": runs["here"]}, "alone")
    write_page(alone)
    assert main([str(alone), "--write", str(page), "--barrier"]) == 2
    assert "no two initializations" in capsys.readouterr().err
    assert page.read_text("utf-8") == once
