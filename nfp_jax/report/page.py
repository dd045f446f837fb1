"""Tables and the page of a run, from its rows alone.

``python -m nfp_jax.report results/NAME-HASH`` makes the page again. A terminal's table
has the pruners' names; the page calls them by their labels, as its figures do.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nfp_jax.pages.kind import Line
from nfp_jax.pages.pruners import DENSE, as_on_pages, labels_of
from nfp_jax.pages.words import span
from nfp_jax.report import networks
from nfp_jax.report.figures import (
    Image,
    figure_html,
    files_of,
    images,
    write_figures,
)
from nfp_jax.report.html import heading, page_html, scrolled, table_html
from nfp_jax.report.kinds import kind_of
from nfp_jax.results import (
    FORMATS,
    ResultsError,
    check_formats,
    read_json,
    read_launches,
    read_rows,
    write_file,
)


def failures(rows: pd.DataFrame) -> list[str]:
    """One sentence for each pruner and way to fail, with counts by sparsity."""
    kind, labels, lines = kind_of(rows), labels_of(rows), []
    cells = kind.summary(rows)
    for trouble in kind.troubles:
        for pruner, counts in _failed(cells, trouble):
            total = counts.sum()
            line = f"{total[trouble]} of {total['networks']} {kind.unit} of "
            words = kind.words(rows[rows["pruner"] == pruner], trouble)
            places: dict[str, list[str]] = {}  # "3 of 3": the sparsities where
            for sparsity, few, all_ in counts[counts[trouble] > 0].itertuples():
                places.setdefault(f"{few} of {all_}", []).append(f"{sparsity:g}")
            at = [f"{count} at {', '.join(s)}" for count, s in places.items()]
            by = "" if pruner == DENSE else f", by sparsity: {'; '.join(at)}"
            lines.append(f"{line}{labels[pruner]} {words}{by}")
    return lines


def warnings(rows: pd.DataFrame) -> list[str]:
    """One sentence for each way to fail, with counts by pruner: `failures` in short."""
    kind, lines = kind_of(rows), []
    cells = kind.summary(rows)
    for trouble in kind.troubles:
        hit, where = [], set()
        for pruner, counts in _failed(cells, trouble):
            total = counts.sum()
            hit.append(f"{pruner} {total[trouble]} of {total['networks']}")
            if pruner != DENSE:
                where |= set(counts.index[counts[trouble] > 0])
        at = f" (sparsity {span(sorted(where))})" if where else ""
        if hit:
            what = f"{kind.subject}{kind.words(rows, trouble)}"
            lines.append(f"{what}: {', '.join(hit)}{at}")
    return lines


def _failed(cells: pd.DataFrame, trouble: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The pruners that failed so; by sparsity, the failures and the networks.

    ``cells`` are a kind's summary.
    """
    if not cells[trouble].any():
        return
    for pruner, mine in cells.groupby("pruner", sort=False):
        if mine[trouble].any():
            yield str(pruner), mine.groupby("sparsity")[[trouble, "networks"]].sum()


def table(rows: pd.DataFrame, width: int = 110) -> str:
    """The rows' main number by pruner and sparsity, for a terminal; then what failed.

    That is the first of the tables that the page has.
    """
    if rows.empty:
        return "no rows"
    rows = as_on_pages(rows)
    kind = kind_of(rows)
    parts = textwrap.wrap(kind.heading(rows), width)
    for title, heads, lines in kind.grids(rows, next(iter(kind.tables))):
        parts.append(title)
        parts += _columns(heads, lines, width)
    for text in warnings(rows):
        parts += textwrap.wrap(f"warning: {text}", width, subsequent_indent="  ")
    return "\n".join(parts)


def section(
    rows: pd.DataFrame,
    figures: Mapping[str, Image],
    *,
    level: int = 2,
    mark: str = "",
    folder: str = "",
    formats: Sequence[str] = (),
    room: int = networks.MOST,
) -> str:
    """What a page says of rows of one kind, as HTML, a part of a `page_html`.

    Headline, figures, tables, warnings and the rows.

    Args:
      rows: as on pages.
      figures: those of `images`, or some of them.
      level: of the headings.
      mark: begins the ids of headings and figures.
      folder: where the files of the run are from the page, ``""`` or ``"../NAME/"``.
      formats: of the figures' files.
      room: bytes that the rows may take.

    Raises:
      ValueError: there are no rows.
    """
    if rows.empty:
        raise ValueError("a section needs at least one row")
    kind, labels = kind_of(rows), labels_of(rows)
    failed = "".join(f"<li>{html.escape(line)}" for line in failures(rows))
    tables = [
        table_html(
            f"{kind.title(rows, measure)}. {title}",
            [*heads[0], *heads[1]],
            [[labels[x], *y, *z] for (x, *y), z in lines],
            names=len(heads[0]),
        )
        for measure in kind.tables
        for title, heads, lines in kind.grids(rows, measure)
    ]
    drawn = "".join(
        figure_html(
            each, mark + name, files_of(each, f"{folder}figures/{name}", formats)
        )
        for name, each in figures.items()
    )
    file = f"{folder}networks.csv" if formats else ""
    return f"""<p>{html.escape(kind.headline(rows))}</p>
{heading("Figures", f"{mark}figures", level)}
{drawn}
{heading("Tables", f"{mark}tables", level)}
<p>Across: sparsity, the share of prunable weights removed. Entries:
{html.escape(kind.entries(rows), quote=False)}.</p>
{"".join(tables)}
{heading("Warnings", f"{mark}warnings", level)}
<ul>{failed or f"<li>None: {html.escape(kind.fine)}."}</ul>
{heading("Rows", f"{mark}rows", level)}
{networks.section(rows, kind.unit, file, room)}"""


def write_report(
    directory: str | os.PathLike[str], formats: Sequence[str] = ("svg",)
) -> Path:
    """Makes ``report.html``, a file that needs no other, and files beside it.

    These are ``networks.csv``, the rows, and in ``figures/`` each figure in each of the
    formats with its data as CSV.

    Args:
      directory: of the run.
      formats: some of `FORMATS`; SVG is always there.

    Raises:
      ResultsError: there are no rows, a format is unknown, or a file can't be read or
        written.
    """
    formats = check_formats(formats)
    directory = Path(directory)
    rows = as_on_pages(read_rows(directory))
    if rows.empty:
        raise ResultsError(f"{directory} has no rows yet")
    runs = read_launches(directory)
    config = read_json(directory / "config.json")
    figures = images(rows)
    write_figures(directory / "figures", figures, formats)
    write_file(directory / "networks.csv", networks.csv(rows))
    content = section(rows, figures, formats=formats)
    content += commands(runs) + _about_the_run(config, runs)
    again = f"python -m nfp_jax.report {directory}"
    files = [
        ("networks.csv", "networks.csv: a line a row, without histories"),
        ("rows/", "rows/: all of each row, as Parquet"),
        ("figures/", "figures/: each figure, and what it shows as CSV"),
        ("config.json", "config.json: the configuration"),
    ]
    page = directory / "report.html"
    text = page_html(directory.resolve().name, content, again, files)
    write_file(page, text.encode())
    return page


def commands(runs: Sequence[Mapping[str, Any]]) -> str:
    """How rows are made from nothing, and how a run is resumed, as HTML."""
    told = [
        (run["commit"], run["command"]) for run in runs if run.get("command")
    ]  # rows of other programs have no launch on file
    if not told:
        return ""
    lines = []
    for commit, command in dict.fromkeys(told):
        lines += [f"git checkout {commit}"] if commit else []
        lines.append(f"python {command}")
    again = "\n".join(dict.fromkeys(f"python {command}" for _, command in told))
    return f"""{heading("Reproduce and resume", "again")}
<p>The same rows from nothing, with the versions that each launch tells below:</p>
<pre><code>{html.escape(chr(10).join(lines))}</code></pre>
<p>To resume, or to add what a wider grid asks for, the same command again: rows on file
are skipped.</p>
<pre><code>{html.escape(again)}</code></pre>"""


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the page of a run again; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m nfp_jax.report", description="Make the page of a run again."
    )
    parser.add_argument("directory", help="results/NAME-HASH")
    add_formats(parser)
    given = parser.parse_args(argv)
    try:
        print(write_report(given.directory, given.formats.split(",")))
    except (ResultsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def add_formats(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says in which formats figures are written."""
    parser.add_argument(
        "--formats",
        default=",".join(FORMATS),
        help="of figures, separated by commas; default: %(default)s",
    )


# ---- Tables


def _columns(heads: Line, lines: list[Line], width: int) -> Iterator[str]:
    """The table's lines for a terminal; what is too wide goes on below."""
    columns = zip(heads[0], *(names for names, _ in lines), strict=True)
    pads = [max(map(len, column)) for column in columns]
    wide = max([13, *(len(entry) for _, entries in lines for entry in entries)])
    step = max(1, (width - sum(pads) - 2 * len(pads) + 2) // (wide + 2))
    for start in range(0, len(heads[1]), step):
        for names, entries in [heads, *lines]:
            line = [f"{x:<{pad}}" for x, pad in zip(names, pads, strict=True)]
            line += [f"{x:>{wide}}" for x in entries[start : start + step]]
            yield "  ".join(line)


# ---- The page


def _about_the_run(config: Any, runs: Sequence[Mapping[str, Any]]) -> str:
    launches = [
        _facts(f"Launch {i}", [(key, _fact(run[key])) for key in run])
        for i, run in enumerate(runs, 1)
    ]
    settings = html.escape(json.dumps(config, indent=2, sort_keys=True))
    return f"""
{heading("Configuration", "configuration")}
<pre>{settings}</pre>
{heading("Launches", "launches")}
{"".join(launches) or "<p>None is on file.</p>"}"""


def _facts(title: str, facts: Sequence[tuple[str, str]]) -> str:
    """A table of names and what is known of them."""
    lines = "".join(
        f'<tr><th scope="row" class="name">{html.escape(name)}'
        f'<td class="name wrap">{html.escape(fact)}'
        for name, fact in facts
    )
    return scrolled(f"<table><caption>{html.escape(title)}</caption>{lines}</table>")


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_fact(x)}" for key, x in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
