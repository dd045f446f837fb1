"""The targets' table: which intervals meet their targets, and what they took."""

import json
from pathlib import Path

import pandas as pd
import pytest
from rows import make_interval_row
from test_pages_joined import make_part, make_parts
from test_report_collection import make_collection, make_run

from nfp_jax.report.publishing import main, write_results
from nfp_jax.report.targets import HEADS, NOT_RUN, TARGETS, runs_of, targets


def make_thousand(pruner="snip", lower=600.0, upper=650.0, sparsity=0.9, **changes):
    given = {"information_lower": lower, "information_upper": upper, "datasets": 128}
    given |= {"seconds": 64.0, "bound_seconds": 256.0}
    given |= {"information_lower_by": "propagation"}
    return make_interval_row(pruner, sparsity, n=1000, **(given | changes))


ROW = [make_thousand()]


def lines_of(*rows, **groups):
    """The lines of a run with these rows, by heads, but those that were not run."""
    part = make_part(pd.DataFrame(rows), "information", **groups)
    found = [dict(zip(HEADS, x, strict=True)) for x in targets(make_parts(part))]
    return [line for line in found if line["run"] != NOT_RUN]


def test_a_line_has_the_interval_its_target_and_what_it_took():
    [line] = lines_of(make_thousand())
    assert line == {
        "resampled": "labels",
        "pruner": "SNIP",
        "n": "1,000",
        "removed": "90 %",
        "run": "information",
        "K": "128",
        "confidence": "95 %",
        "lower, nats": "600",
        "upper, nats": "650",
        "upper / lower": "1.08",
        "target": "upper / lower ≤ 1.10",
        "met": "yes",
        "read by": "propagation",
        "capped by": "code length",
        "seconds a mask: made": "0.500",
        "bounded": "2.00",
    }


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (make_thousand(upper=660.0), "yes"),
        (make_thousand(upper=660.1), "no"),
        (make_thousand(upper=660.1, sparsity=0.98), "yes"),  # 1.25 there
        (make_thousand(lower=0.0), "no"),
        (make_thousand("random", 0.0, 3.0), "yes"),
        (make_thousand("synflow", 0.0, 3.1, 0.98), "no"),
        (make_thousand("magnitude_trained", 500.0, 650.0), "yes"),
        (make_thousand("magnitude_trained", 500.0, 650.1), "no"),
        (make_thousand(confidence=0.9), "no: at 90 % alone"),
        (make_thousand(confidence=1 - 1e-6), "yes"),
        (make_thousand(lower=660.0), "no: the ends contradict each other"),
        (make_thousand(irreproducible=0.1), "no: masks differ when made again"),
    ],
)
def test_a_target_is_met_by_a_sound_interval_that_is_tight_enough(row, met):
    [line] = lines_of(row)
    assert line["met"] == met


def test_a_ratio_to_nothing_is_infinite_and_seconds_that_are_not_known_are_blank():
    [line] = lines_of(make_thousand(lower=0.0, bound_seconds=None))
    assert line["upper / lower"] == "∞"
    assert line["seconds a mask: made"] == "0.500" and line["bounded"] == ""


def test_networks_that_differ_in_their_seeds_share_a_line():
    rows = [make_thousand(seed=seed, lower=600.0 + 20 * seed) for seed in (0, 1)]
    [line] = lines_of(*rows)
    assert line["lower, nats"] == "610" and line["upper / lower"] == "1.07"
    rows[1]["irreproducible"] = 0.1  # one of them is enough
    assert lines_of(*rows)[0]["met"] == "no: masks differ when made again"


def test_every_target_has_a_line_and_those_without_rows_say_so():
    lines = targets(make_parts(make_part([make_thousand()], "information")))
    assert len(lines) == len(TARGETS)
    missing = [x for x in lines if x[HEADS.index("run")] == NOT_RUN]
    assert len(missing) == len(lines) - 1
    assert {len(line) for line in lines} == {len(HEADS)}
    texts = [x[HEADS.index("target")] for x in missing]
    assert texts.count("upper ≤ 3") == 8
    assert "lower ≥ 1,400, upper ≤ 3,300" in texts
    assert "IMP" in [x[HEADS.index("pruner")] for x in missing]
    assert runs_of(lines) == ["information"]


@pytest.mark.parametrize(
    ("lower", "upper", "met"),
    [
        (1400.0, 3300.0, "yes"),
        (1399.0, 3300.0, "no"),
        (1400.0, 3301.0, "no"),
    ],
)
def test_a_target_of_resampled_data_is_about_both_ends(lower, upper, met):
    given = {"conditioning": "data", "label_entropy": None}
    [line] = lines_of(make_thousand(lower=lower, upper=upper, **given))
    assert line["resampled"] == "data" and line["met"] == met


def test_rows_of_another_size_are_no_line():
    assert lines_of(make_interval_row("snip", n=200)) == []
    assert targets({}) == []


def test_each_run_with_such_rows_has_a_line_of_its_own():
    parts = make_parts(
        make_part([make_thousand()], "information", "information_thousand"),
        make_part([make_thousand(datasets=32)], "information"),
    )
    lines = targets(parts)
    assert runs_of(lines) == ["information_thousand", "information"]
    assert [x[HEADS.index("K")] for x in lines[:2]] == ["128", "32"]


def test_the_published_page_has_the_table_and_the_machines(tmp_path):
    rows = [make_thousand(), make_thousand("random", 0.0, 2.5)]
    run = make_run(tmp_path, "information", rows)
    launch = {"device": "2 x cpu", "processor": "a fast one", "versions": {"jax": "1"}}
    (run / "run.json").write_text(json.dumps({"runs": [launch, launch]}))
    directory = make_collection(tmp_path, {"information_thousand": run})
    text = write_results(directory, tmp_path / "page.md").read_text(encoding="utf-8")
    section = text.partition("## Targets of information\n")[2].partition("\n## ")[0]
    assert "| SNIP | 1,000 | 90 % | information_thousand | 128 | 95 % |" in section
    assert "| random | 1,000 | 90 % | information_thousand |" in section
    assert "- information_thousand: 2 x cpu on a fast one, jax 1" in section
    small = make_run(tmp_path, "information", name="small")
    directory = make_collection(tmp_path, {"information": small}, "other")
    text = write_results(directory, tmp_path / "other.md").read_text(encoding="utf-8")
    assert "Targets of information" not in text
    text = write_results(directory, tmp_path / "page.md").read_text(encoding="utf-8")
    assert section.strip() in text  # other runs wrote it: it stays


def test_the_table_alone_is_written_into_a_page_again_and_again(tmp_path):
    run = make_run(tmp_path, "information", [make_thousand()], name="thousand")
    page = tmp_path / "page.md"
    page.write_text("# Results\n\nkept\n\n## Claims\n\nthese\n", encoding="utf-8")
    command = [str(run), "--write", str(page), "--targets"]
    assert main(command) == 0
    once = page.read_text("utf-8")
    head, _, section = once.partition("## Targets of information\n")
    assert head == "# Results\n\nkept\n\n"
    assert section.endswith("\n\n## Claims\n\nthese\n")
    assert "| SNIP | 1,000 | 90 % | " in section
    assert main(command) == 0 and page.read_text("utf-8") == once


def test_a_table_that_can_not_be_written_leaves_the_page(tmp_path, capsys):
    other = make_run(tmp_path, "information", name="small")
    page = tmp_path / "page.md"
    for text in ("# Results\n\n## Claims\n", "# Results\n"):
        page.write_text(text, encoding="utf-8")
        rows = (
            other if "Claims" in text else make_run(tmp_path / "n", "information", ROW)
        )
        assert main([str(rows), "--write", str(page), "--targets"]) == 2
        assert page.read_text("utf-8") == text
    said = capsys.readouterr().err
    assert "no rows that a target is about" in said and "no section Claims" in said
    with pytest.raises(SystemExit):
        main([str(other), str(other), "--write", str(page)])


def test_the_published_table_is_that_of_the_rows_on_file(tmp_path):
    docs = Path(__file__).parent.parent / "docs"
    runs = sorted(file.parent for file in docs.glob("results/*/config.json"))
    published = (docs / "results.md").read_text("utf-8")
    page = tmp_path / "results.md"
    page.write_text(published, encoding="utf-8")
    assert main([*map(str, runs), "--write", str(page), "--targets"]) == 0
    assert page.read_text("utf-8") == published
