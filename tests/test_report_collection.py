"""The page of several runs and the claims on file, from rows of synthetic runs."""

import json
import math
import re
from urllib.parse import unquote
from xml.etree import ElementTree

import pandas as pd
import pytest
from rows import make_interval_row, make_rows
from test_capacity_figures import make_search
from test_pages_joined import make_config
from test_robustness_figures import make_networks
from test_swap_figures import make_swap

from nfp_jax import collection
from nfp_jax.listing import write_collection
from nfp_jax.pages import bootstrap
from nfp_jax.pages.claim import Claim
from nfp_jax.report.claims import claims
from nfp_jax.report.collection import (
    claims_csv,
    claims_text,
    counted,
    ends_of,
    late_of,
    number_of,
    read_claims,
    read_parts,
    write_page,
)
from nfp_jax.report.figures import themed
from nfp_jax.results import ResultsError, open_results

PRUNERS = ("random", "synflow", "snip", "imp")
ROWS = {
    "memorization": make_rows(("snip", "imp"), (0.9,)).to_dict("records"),
    "capacity": [make_search(x, seed=y) for x in PRUNERS for y in range(2)],
    "swap": [make_swap(x, swap_gaps=[1.0, y]) for y, x in enumerate(PRUNERS)],
    "information": [make_interval_row(x) for x in PRUNERS],
    "robustness": make_networks(train_accuracy=1.0).to_dict("records"),
}
ODD = "<b>&_swap"  # a part's name that HTML has to escape


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Few repeats: what is tested is what becomes of the claims."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "REPEATS", 50)
        yield


def make_run(root, question, rows=None, name=None, **config):
    config = make_config(question) | config
    store = open_results(root, name or question, "ab12", config)
    store.write(ROWS[question] if rows is None else rows)
    return store.directory


def make_collection(root, parts, name="both"):
    return write_collection(root, name, "cd34", parts)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """All questions, of one network, with a page."""
    root = tmp_path_factory.mktemp("results")
    names = [ODD if x == "swap" else x for x in ROWS]
    runs = [make_run(root, x) for x in ROWS]
    directory = make_collection(root, dict(zip(names, runs, strict=True)))
    write_page(directory)
    return directory


def page_of(directory):
    return (directory / "report.html").read_text(encoding="utf-8")


# The claims on file

CLAIMS = [
    Claim(
        *("it, it holds", 'a "run"', "per cent\nand more", 0.1, 1 / 3, 2e-300),
        *(1e-9, 1.0, 0, 2, 3e-9, "holds", "run/points/imp-rewind/n=10/0.9"),
    ),
    Claim("‖m‖₁", "ε·sqrt(n d)", "", 1.5, 1.25, math.inf, out_of_budget=3, key="b"),
    Claim(
        "none", "", "one seed", -0.0, -math.inf, math.nan, 0.5, 0.5, 0, p=1.0, key="c"
    ),
    Claim("slope", "", "", 1.0, 0.5, 1.5, verdict="not judged", key="d"),
]


def test_claims_are_read_back_as_they_were_written(tmp_path):
    text = claims_csv(CLAIMS)
    (tmp_path / "claims.csv").write_bytes(text.encode())
    assert text.startswith(
        "claim,where,what,measured,lower,upper,p_holds,p_not,out_of_budget,left_out,p,"
        "verdict,key\n"
    )
    # NaN differs from itself: its name does not.
    assert list(map(repr, read_claims(tmp_path))) == list(map(repr, CLAIMS))
    frame = pd.read_csv(tmp_path / "claims.csv")
    assert frame["upper"][1] == math.inf and math.isnan(frame["upper"][2])
    assert frame["out_of_budget"].tolist() == [0, 3, 0, 0]
    assert frame["left_out"].tolist() == [2, 0, 0, 0]


def test_a_file_of_an_earlier_version_is_refused_with_both_lists_of_columns(tmp_path):
    old = "claim,where,what,measured,lower,upper,verdict\na,b,c,1,1,1,holds\n"
    (tmp_path / "claims.csv").write_text(old)
    with pytest.raises(ResultsError) as error:
        read_claims(tmp_path)
    words = str(error.value)
    assert words.startswith(f"can't read {tmp_path / 'claims.csv'}: its columns are [")
    assert "'verdict'], expected ('claim'" in words and "\n" not in words


def test_claims_that_cannot_be_read_name_the_file(tmp_path):
    heads = ",".join(Claim._fields)
    short, wrong = "a,b,c,1,1,1", "a,b,c,x,1,1,1,1,0,0,1,holds,k"
    lines = [f"{heads}\n{short}\n", f"{heads}\n{wrong}\n"]
    for text in (None, "", "claim,where\nshort,line\n", *lines):
        if text is not None:
            (tmp_path / "claims.csv").write_text(text)
        with pytest.raises(ResultsError, match=r"can't read .*claims\.csv"):
            read_claims(tmp_path)


def test_the_page_judges_its_parts_and_keeps_the_claims(written):
    found = read_claims(written)
    judged = claims(read_parts(written))
    assert list(map(repr, found)) == list(map(repr, judged))
    wheres = [x.where.partition(": ")[0] for x in found]
    assert set(ROWS) - {"swap"} | {ODD} <= set(wheres)
    assert any("4 cells" in x for x in wheres)
    assert f"<p>{counted(found)}</p>" in page_of(written)


def test_in_a_terminal_a_claim_has_its_verdict_its_number_and_where_from():
    line, rest, *judged = claims_text(CLAIMS[:1]).splitlines()
    assert line == (
        "holds          it, it holds: 0.1 [0.333 to 2e-300] (per cent and more; a "
        '"run"); 2 of its trainings used up'
    )
    assert rest.split(maxsplit=3)[3] == "the verdict does not rest on them"
    assert " ".join(judged) == counted(CLAIMS[:1])
    lines = claims_text([claim._replace(what="word " * 40) for claim in CLAIMS], 80)
    assert max(map(len, lines.splitlines())) <= 80
    starts = [x for x in lines.splitlines() if not x.startswith(" " * 15)]
    first = [x.split()[0] for x in starts[:4]]
    assert first == ["holds", "undecided", "undecided", "not"]
    assert starts[4].startswith("4 claims: 1 holds, 0 do not hold, 2 are undecided, 1 ")
    assert claims_text([]) == "No claim can be judged from these rows."


def test_it_is_said_how_many_trainings_used_up_their_budget():
    assert late_of(CLAIMS[1]) == "; 3 of its trainings used up their budget"
    assert late_of(CLAIMS[2]) == ""
    assert late_of(CLAIMS[0]) == (
        "; 2 of its trainings used up their budget, and the verdict does not rest on "
        "them"
    )
    undecided = CLAIMS[0]._replace(verdict="undecided", out_of_budget=1)
    assert late_of(undecided) == "; 3 of its trainings used up their budget"
    text = " ".join(claims_text(CLAIMS).split())
    assert "(; ε·sqrt(n d)); 3 of its trainings used up their budget" in text


def test_it_is_said_how_many_claims_a_budget_alone_leaves_undecided():
    late = CLAIMS[1]._replace(p=0.05)
    shown = CLAIMS[3]._replace(out_of_budget=4)  # not judged, so not undecided
    open_ = late._replace(p=0.051)  # undecided in any case
    end = "used up its budget: for that alone {} claims are undecided."
    for judged, count in (
        ([CLAIMS[0], late, CLAIMS[2]], 1),
        ([CLAIMS[0], shown, open_], 0),
        ([late, late, shown, open_], 2),
    ):
        assert counted(judged).endswith(end.format(count))


def test_what_is_not_finite_is_a_sign():
    numbers = (math.inf, math.nan, 12345.6, 0.12345, -1000.4, 999.4, 0.0, 999.6)
    assert [number_of(x) for x in numbers] == [
        *("∞", "?", "12,346", "0.123", "-1,000", "999", "0", "1,000")
    ]
    assert number_of(-math.inf) == "-∞"
    assert ends_of(CLAIMS[1]) == "1.25 to ∞"


# The page


def test_each_part_has_its_section_in_the_order_of_the_collection(written):
    page = page_of(written)
    heads = re.findall('<h2 id="[^"]*">(.*?)</h2>', page)
    where = "gaussian, d = 50, C = 2, mlp 200-200 (he_normal)"
    names = ["memorization", "capacity", "&lt;b&gt;&amp;_swap", "information"]
    names.append("robustness")
    assert heads == [
        "Claims",
        "Runs read together",
        *(f"{name}: {where}" for name in names),
    ]
    _, *sections = page.split("<h2 ")
    for section in sections[2:]:
        assert re.findall('<h3 id="[^"]*">(.*?)</h3>', section) == [
            "Figures",
            "Tables",
            "Warnings",
            "Rows",
        ]
        assert section.count("<svg") >= 1
    assert sections[1].count("<svg") == 2


def test_names_are_escaped_wherever_they_stand(written):
    page = page_of(written)
    assert "<b>&_swap" not in page
    assert page.count("&lt;b&gt;&amp;_swap") > 3  # its heading and its claims


def test_a_page_with_several_runs_has_no_id_twice(written):
    page = page_of(written)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) > 50 and len(ids) == len(set(ids))
    used = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', page)
    assert {first or second for first, second in used} <= set(ids)


def test_names_that_differ_in_a_dash_alone_share_no_id(tmp_path):
    run = make_run(tmp_path, "swap", [make_swap()])
    directory = make_collection(tmp_path, {"a_b": run, "a-b": run})
    ids = re.findall(r'\bid="([^"]*)"', write_page(directory).read_text())
    assert ids and len(ids) == len(set(ids))


def test_each_picture_is_sound_xml_and_the_page_asks_for_no_other_file(written):
    page = page_of(written)
    for picture in re.findall("<svg.*?</svg>", page, flags=re.DOTALL):
        ElementTree.fromstring(picture)
    assert not re.search(r'src="(?!#)|url\((?!#)|@import', page)
    links = set(re.findall(r'<a href="([^"#]+)"', page))
    assert "claims.csv" in links
    assert all((written / unquote(link)).exists() for link in links)


def test_the_table_of_claims_has_each_with_its_verdict_and_ends(written):
    marks = '<h2 id="(?:claims|together)">'
    _, table, _ = re.split(marks, page_of(written))
    found = read_claims(written)
    some = "holds|does not hold|undecided|not judged"
    verdicts = re.findall(f"<td class=name>({some})<td ", table)
    assert verdicts == [claim.verdict for claim in found]
    assert len(set(verdicts)) > 2
    cell = '<td data-sort="[^"]*">'
    end = "(?=<tr>|</tbody>)"
    ends = re.findall(f"{cell}([^<]*){cell}([^<]*){end}", table)
    assert ends == [(ends_of(x), number_of(x.p)) for x in found]


def test_the_figures_of_runs_read_together_are_files_too(written):
    files = sorted(x.name for x in written.glob("figures/*"))
    names = ("capacity_against_p_eff", "gap_against_information")
    assert files == [f"{name}.{ending}" for name in names for ending in ("csv", "svg")]
    page = page_of(written)
    for file in written.glob("figures/*.svg"):
        body = themed(file.read_text(encoding="utf-8")).partition(">")[2]
        assert body.strip().removesuffix("</svg>") in page


def test_p_eff_of_data_stands_beside_that_of_labels(tmp_path):
    """A line a mask; where one was not bounded, the page says what that means."""
    data = [
        make_interval_row(
            "snip",
            conditioning="data",
            information_lower=100.0 + 10 * seed,
            information_upper=200.0 + 30 * seed,
            seed=seed,
        )
        for seed in (0, 1)
    ]
    parts = {
        "capacity": make_run(tmp_path, "capacity"),
        "labels": make_run(tmp_path, "information"),
        "data": make_run(tmp_path, "information", data, name="of-data"),
    }
    directory = make_collection(tmp_path, parts)
    page = write_page(directory).read_text(encoding="utf-8")
    table = page.partition("Effective parameters, weights kept + nats")[2]
    table = table.partition("</table>")[0]
    cell = r"<t[dh][^>]*>([^<]*)"
    lines = [re.findall(cell, line) for line in table.split("<tr>")]
    kept, row = 14, make_interval_row("snip")
    ends = (f"{kept + row[f'information_{end}']:.3g}" for end in ("lower", "upper"))
    assert ["SNIP", "90 % removed", "14.0", "-".join(ends), "119-229"] in lines
    assert ["IMP", "90 % removed", "14.0"] in [line[:3] for line in lines]
    assert [line[-1] for line in lines if line[:1] == ["IMP"]] == ["-"]
    assert "I(m; D | W) = I(m; X | W) + I(m; y | X, W)" in table
    files = {x.name for x in directory.glob("figures/*")}
    assert "capacity_against_p_eff_of_data.svg" in files
    alone = make_collection(tmp_path, {"capacity": parts["capacity"]}, "alone")
    assert "Effective parameters" not in write_page(alone).read_text(encoding="utf-8")


def test_runs_of_other_networks_have_no_figure_and_no_claim_together(tmp_path):
    directory = make_collection(tmp_path, {"only": make_run(tmp_path, "capacity")})
    (directory / "figures").mkdir()
    (directory / "figures" / "capacity_against_p_eff.svg").write_text("of an old page")
    page = write_page(directory).read_text(encoding="utf-8")
    assert page.count("no figure. No two runs of the collection") == 2
    assert list(directory.glob("figures/*")) == []
    assert all(x.where.startswith("only: ") for x in read_claims(directory))


def test_where_nothing_is_claimed_the_page_says_so(tmp_path):
    rows = [make_search("dense", 0.0)]
    run = make_run(tmp_path, "capacity", rows)
    page = write_page(make_collection(tmp_path, {"dense": run})).read_text()
    assert "<p>No claim can be judged from these rows.</p>" in page
    assert read_claims(tmp_path / "both-cd34") == []


# Directories


def test_parts_are_found_relative_to_the_collection_wherever_it_is(tmp_path):
    (tmp_path / "first").mkdir()
    run = make_run(tmp_path / "first", "capacity")
    directory = make_collection(tmp_path / "first", {"capacity": run})
    assert json.loads((directory / "collection.json").read_text()) == {
        "parts": {"capacity": "../capacity-ab12"},
        "shown": [],
    }
    (tmp_path / "first").rename(tmp_path / "second")
    [(name, part)] = read_parts(tmp_path / "second" / directory.name).items()
    assert (name, part.question, len(part.rows)) == ("capacity", "capacity", 8)


def test_a_part_without_rows_is_no_part_of_the_page(tmp_path):
    runs = {
        "swap": make_run(tmp_path, "swap", [make_swap()]),
        "none": make_run(tmp_path, "capacity", []),
    }
    directory = make_collection(tmp_path, runs)
    assert list(read_parts(directory)) == ["swap"]
    assert "<h2>none" not in write_page(directory).read_text(encoding="utf-8")


def refusal(directory, capsys):
    """What the command prints where it makes no page."""
    assert collection.main([str(directory)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    return line


def test_a_directory_that_is_no_collection_is_refused(tmp_path, capsys):
    run = make_run(tmp_path, "swap")
    expected = f"error: {run} is no collection: it has no collection.json"
    assert refusal(run, capsys) == expected
    with pytest.raises(ResultsError, match=r"is no collection: it has no collection\."):
        read_parts(tmp_path / "nowhere")


def test_a_collection_without_rows_is_refused(tmp_path, capsys):
    empty = make_run(tmp_path, "capacity", [])
    directory = make_collection(tmp_path, {"empty": empty})
    assert refusal(directory, capsys) == f"error: {directory} has no rows yet"
    assert not (directory / "report.html").exists()


def test_runs_of_two_stopping_rules_make_no_page(tmp_path, capsys):
    runs = {
        name: make_run(tmp_path, name, train={"stop": stop})
        for name, stop in (("swap", "settled"), ("capacity", "paper"))
    }
    directory = make_collection(tmp_path, runs)
    with pytest.raises(ResultsError, match="claims are judged over rows of one"):
        write_page(directory)
    line = refusal(directory, capsys)
    for name in runs:
        assert str(directory / ".." / f"{name}-ab12") in line
    assert not (directory / "report.html").exists()


def test_a_part_that_is_gone_or_a_damaged_list_is_refused(tmp_path, capsys):
    directory = make_collection(tmp_path, {"gone": tmp_path / "gone-ab12"})
    assert "can't read" in refusal(directory, capsys)
    (directory / "collection.json").write_text('{"parts": ')
    assert "collection.json" in refusal(directory, capsys)


def test_the_command_makes_the_same_page_again(tmp_path, capsys):
    runs = {x: make_run(tmp_path, x) for x in ("swap", "information")}
    directory = make_collection(tmp_path, runs)
    write_page(directory)
    before = {x: x.read_bytes() for x in directory.rglob("*") if x.is_file()}
    assert len(before) == 5  # the list, the claims, a figure, its data and the page
    assert collection.main([str(directory), "--formats=svg"]) == 0
    assert capsys.readouterr().out == f"{directory / 'report.html'}\n"
    assert {x: x.read_bytes() for x in directory.rglob("*") if x.is_file()} == before
    again = f"<code>python -m nfp_jax.collection {directory}</code>"
    assert again in page_of(directory)


def test_what_finds_no_room_is_left_out_and_the_page_says_where_it_is(
    tmp_path, monkeypatch
):
    run = make_run(tmp_path, "swap")
    directory = make_collection(tmp_path, {"swap": run})
    (run / "report.html").write_text("the run's own page")
    whole = write_page(directory).read_text(encoding="utf-8")
    assert whole.count("<svg") == 3 and ", with 1 more" not in whole
    size = len(whole) - whole.rindex("<figure id")  # all but the last figure
    monkeypatch.setattr("nfp_jax.report.collection.MOST", len(whole) - size // 2)
    page = write_page(directory).read_text(encoding="utf-8")
    assert page.count("<svg") < 3
    own = '<a href="../swap-ab12/report.html">The run\'s own page</a>, with '
    assert own in page and "more figures" in page
