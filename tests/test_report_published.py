"""The published results: the page, its figures and claims, and README's table."""

import re

import pytest
from rows import make_rows
from test_capacity_figures import make_search
from test_report_collection import ROWS, make_collection, make_run

from nfp_jax import results_page
from nfp_jax.pages import bootstrap
from nfp_jax.pages.claim import Claim
from nfp_jax.report.collection import claims_csv, ends_of, number_of, read_claims
from nfp_jax.report.published import BEGIN, END, short_table, with_table, write_results
from nfp_jax.results import ResultsError


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Few repeats: what is tested is what becomes of the claims."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "REPEATS", 50)
        yield


README = f"# Title\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n"
AROUND = "## Around the barrier\n\nOf it.\n\n![It.](results/around_1.svg)\n"
OLD_PAGE = f"# Results\n\nOld.\n\n{AROUND}\n## Claims\n\nOld.\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """All questions, of one network; with an old figure, an old table, and the section
    of other runs that the page has.
    """
    root = tmp_path_factory.mktemp("published")
    runs = {x: make_run(root / "results", x) for x in ROWS}
    directory = make_collection(root / "results", runs)
    (root / "docs" / "results").mkdir(parents=True)
    (root / "docs" / "results" / "old.svg").write_text("of an old page")
    (root / "docs" / "results" / "around_1.svg").write_text("<svg/>")
    (root / "docs" / "results.md").write_text(OLD_PAGE)
    (root / "README.md").write_text(README)
    page = write_results(directory, root / "docs" / "results.md", root / "README.md")
    assert page == root / "docs" / "results.md"
    return root


def page_of(root):
    return (root / "docs" / "results.md").read_text(encoding="utf-8")


CLAIM = Claim("it", "a run", "points", 47.0, 40.0, 52.5, verdict="holds")


def headline(what, n, sparsity, part="gaussian", **changes):
    key = f"{part}/{what}/imp-rewind/n={n}/{sparsity:g}"
    return CLAIM._replace(key=key, **changes)


# The page


def test_every_claim_is_on_the_page_with_its_number_ends_and_verdict(written):
    text, found = page_of(written), read_claims(written / "docs")
    assert len(found) > 15
    lines = text.splitlines()
    for claim in found:
        start = f"| **{claim.claim}**<br>{claim.what}. {claim.where}"
        numbers = [number_of(claim.measured), ends_of(claim), number_of(claim.p)]
        end = f". | {claim.verdict} | {' | '.join(numbers)} |"
        assert any(x.startswith(start) and x.endswith(end) for x in lines)
    assert text.count("**<br>") == len(found)


def test_claims_on_file_beside_the_page_are_those_of_the_collection(written):
    [directory] = (written / "results").glob("both-*")
    here, there = (x / "claims.csv" for x in (written / "docs", directory))
    assert here.read_bytes() == there.read_bytes()


def test_each_figure_of_the_page_is_a_file_beside_it_and_no_old_one_stays(written):
    named = re.findall(r"!\[[^]]*\]\(([^)]*)\)", page_of(written))
    files = {f"results/{x.name}" for x in (written / "docs" / "results").iterdir()}
    assert set(named) == files and len(named) == len(files) > 5
    assert "results/together_capacity_against_p_eff.svg" in files
    assert any(x.startswith("results/memorization_") for x in files)
    for file in files:
        assert (written / "docs" / file).read_text(encoding="utf-8").count("<svg") == 1


def test_p_eff_of_either_information_has_a_table(written):
    text = page_of(written)
    heads = "| pruner | removed | weights kept | p_eff (labels) | p_eff (data) |"
    assert heads in text and "**Effective parameters, weights kept + nats" in text
    line = next(x for x in text.splitlines() if x.startswith("| IMP | 90 % removed |"))
    assert line.endswith("| - |")
    assert "Where it stands alone: p_eff (labels) is a lower bound" in text


def test_each_part_has_its_section_in_the_order_of_the_collection(written):
    heads = re.findall("^## (.*)$", page_of(written), flags=re.MULTILINE)
    where = "gaussian, d = 50, C = 2, mlp 200-200 (he_normal)"
    parts = [f"{name}: {where}" for name in ROWS]
    around = "Around the barrier"
    assert heads == ["In short", around, "Claims", "Runs read together", *parts]


def test_the_page_names_the_rows_that_it_is_written_from_and_no_other_place(written):
    text = page_of(written)
    assert "from the rows of `both-cd34`" in text
    assert str(written) not in text


def test_the_same_rows_give_the_same_files(written):
    [directory] = (written / "results").glob("both-*")
    before = {x: x.read_bytes() for x in (written / "docs").rglob("*") if x.is_file()}
    readme = written / "README.md"
    text = readme.read_bytes()
    write_results(directory, written / "docs" / "results.md", readme)
    after = {x: x.read_bytes() for x in (written / "docs").rglob("*") if x.is_file()}
    assert after == before and readme.read_bytes() == text


def test_sections_of_other_runs_stay_on_the_page(written):
    text = page_of(written)
    assert f"\n{AROUND}\n## Claims\n" in text
    assert "Old." not in text


# The short table and README


def test_the_short_table_has_a_line_a_run_and_measure_and_a_column_a_sparsity():
    judged = [
        headline("points", 1000, 0.95),
        headline("points", 1000, 0.9, measured=1.0, lower=-5.0, upper=2.0),
        headline("epochs", 1000, 0.95, measured=3.5, lower=2.0, verdict="undecided"),
        headline("within", 1000, 0.95, verdict="does not hold"),
        headline("points", 200, 0.9, "small", where="small: digits, mlp 200-200"),
        headline("noise", 1000, 0.9),
        CLAIM._replace(key="gaussian/points/imp-finetune/n=1000/0.9"),
        CLAIM._replace(key="gaussian/points/magnitude_trained-rewind/n=1000/0.9"),
    ]
    heads = "| run | IMP, rewound, against the best mask at initialization |"
    assert short_table(judged) == [
        f"{heads} 90 % removed | 95 % removed |",
        "| --- | --- | --- | --- |",
        "| gaussian, n = 1,000 | points more (of 1,000) | 1 (-5 to 2) holds | "
        "47 (40 to 52.5) holds |",
        "| gaussian, n = 1,000 | times sooner at 99 % |  | 3.5 (2 to 52.5) undecided |",
        "| gaussian, n = 1,000 | some mask there memorizes as much, to within 2 % of n "
        "|  | does not hold |",
        "| small (digits), n = 200 | points more (of 200) | 47 (40 to 52.5) holds |  |",
    ]
    assert len(short_table([])) == 2
    # Where capacity does not bind a claim isn't judged; of sensitivity runs none is.
    shown = [claim._replace(verdict="not judged") for claim in judged]
    assert len(short_table(shown)) == 2
    other = [x._replace(key=f"other-{x.key}") for x in shown]
    assert short_table([*judged, *other]) == short_table(judged)
    table = "\n".join(short_table([shown[0], *judged[1:]]))
    assert "| 1 (-5 to 2) holds | both fit all |" in table


def test_the_short_table_takes_no_more_than_the_claims_on_file(written, tmp_path):
    found = read_claims(written / "docs")
    (tmp_path / "claims.csv").write_text(claims_csv(found))
    table = "\n".join(short_table(read_claims(tmp_path)))
    assert (
        table in page_of(written) and "| memorization (gaussian), n = 1,000 |" in table
    )
    readme = (written / "README.md").read_text(encoding="utf-8")
    assert readme == f"# Title\n\nBefore.\n\n{BEGIN}\n{table}\n{END}\n\nAfter.\n"


def test_a_text_keeps_all_that_is_outside_of_its_marks():
    once = with_table(README, [CLAIM], "README.md")
    assert once.startswith("# Title\n\nBefore.\n\n") and once.endswith("\n\nAfter.\n")
    assert "old" not in once and with_table(once, [CLAIM], "README.md") == once


@pytest.mark.parametrize(
    "text", ["", BEGIN, END, f"{END}\nall of it\n{BEGIN}\n and more"], ids=repr
)
def test_a_text_without_both_marks_in_their_order_is_refused(text):
    with pytest.raises(ResultsError, match=r"README\.md has no lines .*begin.*end"):
        with_table(text, [CLAIM], "README.md")


# The command


def test_the_command_writes_the_page_and_says_where(tmp_path, capsys):
    rows = make_rows(("snip", "imp"), (0.9,), seeds=2).to_dict("records")
    run = make_run(tmp_path, "memorization", rows)
    directory = make_collection(tmp_path, {"one": run})
    (tmp_path / "README.md").write_text(README)
    page = tmp_path / "new" / "page.md"
    given = [str(directory), "--write", str(page)]
    assert results_page.main([*given, "--readme", str(tmp_path / "README.md")]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert (tmp_path / "new" / "page").is_dir()
    assert "| one (gaussian), n = 1,000 |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("readme", "words"),
    [("no marks", "has no lines '<!-- results: begin -->'"), (None, "No such file")],
)
def test_the_command_refuses_a_readme_without_marks(tmp_path, capsys, readme, words):
    run = make_run(tmp_path, "capacity", [make_search()])
    directory = make_collection(tmp_path, {"one": run})
    file = tmp_path / "README.md"
    if readme is not None:
        file.write_text(readme)
    given = [str(directory), "--write", str(tmp_path / "page.md")]
    assert results_page.main([*given, "--readme", str(file)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ")
    assert words in printed.err and str(file) in printed.err
    assert readme is None or file.read_text() == readme


def test_the_command_refuses_what_is_no_collection(tmp_path, capsys):
    run = make_run(tmp_path, "swap")
    assert results_page.main([str(run), "--write", str(tmp_path / "page.md")]) == 2
    expected = f"error: {run} is no collection: it has no collection.json\n"
    assert capsys.readouterr().err == expected
    assert not (tmp_path / "page.md").exists()
