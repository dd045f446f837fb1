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
from typing import Any, NamedTuple

import pandas as pd

from nfp_jax.pages.common import Drawing, svg
from nfp_jax.pages.kind import Line
from nfp_jax.pages.pruners import DENSE, as_on_pages, labels_of
from nfp_jax.pages.words import span
from nfp_jax.report.kinds import draw, kind_of
from nfp_jax.results import (
    ResultsError,
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


class Image(NamedTuple):
    """A figure as SVG, its title and caption; without one, the caption says why."""

    title: str
    svg: str | None
    caption: str


def image(drawing: Drawing, name: str) -> Image:
    """The drawing as SVG, whose ids begin with the name."""
    title, figure, caption = drawing
    return Image(title, svg(figure, name) if figure else None, caption)


def images(rows: pd.DataFrame, prefix: str = "") -> dict[str, Image]:
    """The figures of the rows by name.

    ``prefix``, letters, digits and dashes, begins the ids in each, so that one page can
    have the figures of several runs.
    """
    return {name: image(each, prefix + name) for name, each in draw(rows).items()}


def section(rows: pd.DataFrame, figures: Mapping[str, Image], *, level: int = 2) -> str:
    """What a page says of rows of one kind, as HTML: `CSS` is its style.

    Headline, figures, tables and warnings; ``figures`` are those of `images`, or some
    of them, and ``level`` is that of the headings.

    Raises:
      ValueError: there are no rows.
    """
    if rows.empty:
        raise ValueError("a section needs at least one row")
    kind, labels = kind_of(rows), labels_of(rows)
    failed = "".join(f"<li>{html.escape(line)}" for line in failures(rows))
    tables = [
        _html(
            f"{kind.title(rows, measure)}. {title}",
            heads,
            [([labels[x], *y], z) for (x, *y), z in lines],
        )
        for measure in kind.tables
        for title, heads, lines in kind.grids(rows, measure)
    ]
    return f"""<p>{html.escape(kind.headline(rows))}</p>
<h{level}>Figures</h{level}>
{"".join(map(figure_html, figures.values()))}
<h{level}>Tables</h{level}>
<p>Across: sparsity, the share of prunable weights removed. Entries:
{html.escape(kind.entries(rows), quote=False)}.</p>
{"".join(tables)}
<h{level}>Warnings</h{level}>
<ul>{failed or f"<li>None: {html.escape(kind.fine)}."}</ul>"""


def write_report(directory: str | os.PathLike[str]) -> Path:
    """Makes ``figures/*.svg`` and ``report.html``, a file that needs no other.

    Raises:
      ResultsError: there are no rows, or a file can't be read or written.
    """
    directory = Path(directory)
    rows = as_on_pages(read_rows(directory))
    if rows.empty:
        raise ResultsError(f"{directory} has no rows yet")
    runs = read_launches(directory)
    config = read_json(directory / "config.json")
    (directory / "figures").mkdir(exist_ok=True)
    figures = images(rows)
    for name, image in figures.items():
        file = directory / "figures" / f"{name}.svg"
        if image.svg:
            write_file(file, image.svg.encode())
        else:
            file.unlink(missing_ok=True)  # an earlier report may have had it
    content = section(rows, figures) + _about_the_run(config, runs)
    again = f"python -m nfp_jax.report {directory}"
    page = directory / "report.html"
    write_file(page, page_html(directory.resolve().name, content, again).encode())
    return page


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the page of a run again; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m nfp_jax.report", description="Make the page of a run again."
    )
    parser.add_argument("directory", help="results/NAME-HASH")
    try:
        print(write_report(parser.parse_args(argv).directory))
    except (ResultsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


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

CSS = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.5rem }
figure { margin: 1.5rem 0 } figcaption { font-size: .875rem }
.card { background: white; padding: .75rem; border: 1px solid #8884; overflow-x: auto }
.card svg { display: block; max-width: 100%; height: auto; margin: auto }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .875rem;
  font-variant-numeric: tabular-nums; margin: .5rem 0 1rem }
caption { text-align: left; padding: .25rem 0 }
th, td { text-align: right; padding: .2rem .7rem; border-bottom: 1px solid #8884;
  white-space: nowrap }
th.name, td.name { text-align: left; padding-left: 0 }
td.wrap { white-space: normal }
pre { overflow-x: auto; font-size: .8125rem; background: #8881; padding: .75rem }
"""


def page_html(name: str, content: str, again: str) -> str:
    """A page that needs no other file: its name, its content, and how to make it."""
    name = html.escape(name)
    return f"""<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>{name}</title>
<meta name="viewport" content="width=device-width"><style>{CSS}</style>
<h1>{name}</h1>
{content}
<p>Made from the rows on file; to make it again:
<code>{html.escape(again)}</code></p>
</html>
"""


def figure_html(image: Image) -> str:
    """A figure and its caption, or why there is none."""
    title, caption = html.escape(image.title), html.escape(image.caption)
    if image.svg is None:
        return f"<p><b>{title}</b>: no figure. {caption}</p>"
    picture = image.svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    return (
        f"<figure><div class=card>{picture}</div>"
        f"<figcaption><b>{title}.</b> {caption}</figcaption></figure>"
    )


def _about_the_run(config: Any, runs: Sequence[Mapping[str, Any]]) -> str:
    launches = [
        _html(f"Launch {i}", None, [([key, _fact(run[key])], []) for key in run])
        for i, run in enumerate(runs, 1)
    ]
    settings = html.escape(json.dumps(config, indent=2, sort_keys=True))
    return f"""
<h2>Configuration</h2>
<pre>{settings}</pre>
<h2>Launches</h2>
{"".join(launches) or "<p>None is on file.</p>"}"""


def _html(title: str, heads: Line | None, lines: list[Line]) -> str:
    text = f"<div class=scroll><table><caption>{html.escape(title)}</caption>"
    for names, entries in [heads, *lines] if heads else lines:
        tag = "th" if (names, entries) == heads else "td"
        text += "<tr>"
        text += "".join(f"<{tag} class=name>{html.escape(name)}" for name in names)
        text += "".join(f"<{tag}>{html.escape(entry)}" for entry in entries)
    return text.replace(" ± ", "&nbsp;±&nbsp;") + "</table></div>"


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_fact(x)}" for key, x in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
