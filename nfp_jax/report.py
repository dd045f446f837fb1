"""Tables and the page of a run, from its rows alone.

``python -m nfp_jax.report results/NAME-HASH`` makes the page again. Depends on
`nfp_jax.results` and `nfp_jax.figures`; never on arrays or JAX. What would surprise: a
terminal's table has the pruners' names as they stand in the rows; the page calls them
as its figures do.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from nfp_jax.figures import (
    FAILURES,
    LOOKS,
    TROUBLES,
    about,
    draw,
    flagged,
    in_words,
    intervals,
    is_information,
    measured,
    pruned,
    pruners_of,
    shown,
    summary,
    svg,
    varying,
)
from nfp_jax.results import COORDINATES, ResultsError, read_json, read_rows, write_file

TABLES = {
    "train_accuracy": "Train accuracy, the share of the n points memorized",
    "test_accuracy": "Test accuracy",
    "noise_correlation_normalized": "Correlation with the label noise, 1 = all learned",
}
INFORMATION_TABLES = {
    "information": "Information of the mask in nats, lower-upper end",
    "bits": "Bits a kept weight, information / (log 2 × weights kept)",
    "p_eff": "Effective parameters, weights kept + nats",
    "share": "Share of the effective parameters that is information, in %",
    "by": "The bounds that gave the lower | the upper end",
}


def failures(rows: pd.DataFrame) -> list[str]:
    """One sentence for each pruner and way to fail, with counts by sparsity."""
    lines = []
    what = "intervals" if is_information(rows) else "networks"
    for kind in _kinds(rows):
        for pruner, counts in _failed(rows, kind):
            total = counts.sum()
            line = f"{total[kind]} of {total['networks']} {what} of {_label(pruner)}"
            line = f"{line} {_words(rows[rows['pruner'] == pruner], kind)}"
            places: dict[str, list[str]] = {}  # "3 of 3": the sparsities where
            for sparsity, few, all_ in counts[counts[kind] > 0].itertuples():
                places.setdefault(f"{few} of {all_}", []).append(f"{sparsity:g}")
            at = [f"{count} at {', '.join(s)}" for count, s in places.items()]
            by = "" if pruner == "dense" else f", by sparsity: {'; '.join(at)}"
            lines.append(line + by)
    return lines


def warnings(rows: pd.DataFrame) -> list[str]:
    """One sentence for each way to fail, with counts by pruner: `failures` in short."""
    lines = []
    for kind in _kinds(rows):
        hit, where = [], set()
        for pruner, counts in _failed(rows, kind):
            total = counts.sum()
            hit.append(f"{pruner} {total[kind]} of {total['networks']}")
            if pruner != "dense":
                where |= set(counts.index[counts[kind] > 0])
        at = f" (sparsity {_span(sorted(where))})" if where else ""
        if hit:
            what = "intervals " if is_information(rows) else ""
            lines.append(f"{what}{_words(rows, kind)}: {', '.join(hit)}{at}")
    return lines


def _kinds(rows: pd.DataFrame) -> dict[str, str]:
    """What may be wrong with rows of this question, in words."""
    return TROUBLES if is_information(rows) else FAILURES


def _words(rows: pd.DataFrame, kind: str) -> str:
    """What is wrong, with the largest shares among these rows in %."""
    if not is_information(rows):
        return FAILURES[kind]
    shares = measured(rows)[["irreproducible", "collapsed_share"]].max()
    return TROUBLES[kind].format(**(100 * shares))


def _cells(rows: pd.DataFrame) -> pd.DataFrame:
    return intervals(rows) if is_information(rows) else summary(rows)


def _failed(rows: pd.DataFrame, kind: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The pruners that failed so; by sparsity, the failures and the networks."""
    for pruner, cells in _cells(rows).groupby("pruner", sort=False):
        if cells[kind].any():
            yield str(pruner), cells.groupby("sparsity")[[kind, "networks"]].sum()


def table(rows: pd.DataFrame, width: int = 110) -> str:
    """The rows' main number by pruner and sparsity, for a terminal; then what failed.

    That is the train accuracy or, of rows of information, its interval.
    """
    if rows.empty:
        return "no rows"
    if is_information(rows):
        what = f"Information in nats by sparsity, lower-upper end; {about(rows)}"
        grids = _information_grids(rows, "information")
    else:
        what = f"Train accuracy by sparsity; {shown(rows)}"
        grids = _grids(rows, "train_accuracy")
    parts = textwrap.wrap(what, width)
    for title, heads, lines in grids:
        parts.append(title)
        parts += _columns(heads, lines, width)
    for text in warnings(rows):
        parts += textwrap.wrap(f"warning: {text}", width, subsequent_indent="  ")
    return "\n".join(parts)


def write_report(directory: str | os.PathLike[str]) -> Path:
    """Makes ``figures/*.svg`` and ``report.html``, a file that needs no other.

    Raises:
      ResultsError: there are no rows, or a file can't be read or written.
    """
    directory = Path(directory)
    rows = read_rows(directory)
    if rows.empty:
        raise ResultsError(f"{directory} has no rows yet")
    run = directory / "run.json"
    runs = read_json(run)["runs"] if run.exists() else []
    config = read_json(directory / "config.json")
    (directory / "figures").mkdir(exist_ok=True)
    parts = []
    for name, drawing in draw(rows).items():
        title, caption = html.escape(drawing.title), html.escape(drawing.caption)
        file = directory / "figures" / f"{name}.svg"
        if drawing.figure is None:
            file.unlink(missing_ok=True)  # an earlier report may have had it
            parts.append(f"<p><b>{title}</b>: no figure. {caption}</p>")
            continue
        image = svg(drawing.figure, name)
        write_file(file, image.encode())
        image = image.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
        parts.append(
            f"<figure><div class=card>{image}</div>"
            f"<figcaption><b>{title}.</b> {caption}</figcaption></figure>"
        )
    page = directory / "report.html"
    write_file(page, _page(directory, rows, parts, config, runs).encode())
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

Line = tuple[list[str], list[str]]  # names of a pruner and its variant; entries


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


def _grids(rows: pd.DataFrame, metric: str) -> Iterator[tuple[str, Line, list[Line]]]:
    """For each n and noise a title, the heads and the lines of a table."""
    cells = summary(rows).dropna(subset=[metric])
    halves = [f" ± {x:.3f}" if x == x else "" for x in cells[f"{metric}_half_width"]]
    cells["text"] = cells[metric].map("{:.3f}".format) + halves
    variants = [axis for axis in varying(rows) if axis not in ("n", "noise")]
    for (n, noise), group in cells.groupby(["n", "noise"]):
        title = f"{in_words('n', n)}, {in_words('noise', noise)}"
        for text in group.loc[group["pruner"] == "dense", "text"]:
            title += f"; the dense network: {text}"
        yield title, *_laid_out(pruned(group), variants)


def _information_grids(
    rows: pd.DataFrame, measure: str
) -> Iterator[tuple[str, Line, list[Line]]]:
    """For each n, noise and select a title, the heads and the lines of a table."""
    cells = intervals(pruned(rows))
    cells["text"] = [_interval(cell, measure) for _, cell in cells.iterrows()]
    variants = [axis for axis in varying(rows) if axis in ("resume", "ablation")]
    for values, group in cells.groupby(["n", "noise", "select"]):
        names = zip(("n", "noise", "select"), values, strict=True)
        title = ", ".join(filter(None, (in_words(*name) for name in names)))
        yield title, *_laid_out(group, variants)


def _laid_out(cells: pd.DataFrame, variants: list[str]) -> tuple[Line, list[Line]]:
    """Heads and lines of the cells' texts: pruners down, sparsities across."""
    sparsities = sorted(set(cells["sparsity"]))
    heads = ["pruner", *variants], [f"{s:g}" for s in sparsities]
    lines = []
    for names, line in cells.groupby(["pruner", *variants], sort=False):
        texts = dict(zip(line["sparsity"], line["text"], strict=True))
        entries = [texts.get(s, "") for s in sparsities]
        lines.append(([str(name) for name in names], entries))
    return heads, lines


def _interval(cell: pd.Series[Any], measure: str) -> str:
    """A measure's interval, with the exact information where it is known."""
    if measure == "by":
        return " | ".join(cell[f"information_{end}_by"] for end in ("lower", "upper"))
    scale = 100 if measure == "share" else 1
    low, high = (
        _number(scale * cell[f"{measure}_{end}"]) for end in ("lower", "upper")
    )
    exact = cell["information_exact"]
    if measure != "information" or exact != exact:
        return f"{low}-{high}"
    exact = _number(exact)
    return (
        f"= exact {exact}" if low == high == exact else f"{low}-{high} = exact {exact}"
    )


def _number(x: float) -> str:
    """Three digits, or all of those before the point; 0 is 0."""
    return f"{x:,.0f}" if abs(x) >= 99.95 or x == 0 else f"{x:#.3g}"


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
pre { overflow-x: auto; font-size: .8125rem; background: #8881; padding: .75rem }
"""


def _page(
    directory: Path,
    rows: pd.DataFrame,
    drawings: list[str],
    config: Any,
    runs: list[Mapping[str, Any]],
) -> str:
    name = html.escape(directory.resolve().name)
    failed = "".join(f"<li>{html.escape(line)}" for line in failures(rows))
    texts = _information(rows) if is_information(rows) else _memorization(rows)
    tables = [
        _html(title, heads, [([_label(x), *y], z) for (x, *y), z in lines])
        for title, heads, lines in texts.grids
    ]
    launches = [
        _html(f"Launch {i}", None, [([key, _fact(run[key])], []) for key in run])
        for i, run in enumerate(runs, 1)
    ]
    settings = html.escape(json.dumps(config, indent=2, sort_keys=True))
    return f"""<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>{name}</title>
<meta name="viewport" content="width=device-width"><style>{CSS}</style>
<h1>{name}</h1>
<p>{html.escape(texts.headline)}</p>
<h2>Figures</h2>
{"".join(drawings)}
<h2>Tables</h2>
<p>Across: sparsity, the share of prunable weights removed. Entries:
{html.escape(texts.entries, quote=False)}.</p>
{"".join(tables)}
<h2>Warnings</h2>
<ul>{failed or f"<li>None: {texts.fine}."}</ul>
<h2>Configuration</h2>
<pre>{settings}</pre>
<h2>Launches</h2>
{"".join(launches) or "<p>None is on file.</p>"}
<p>Made from the rows on file; to make it again:
<code>python -m nfp_jax.report {html.escape(str(directory))}</code></p>
</html>
"""


class _Texts(NamedTuple):
    """What one question's page says in its own words."""

    headline: str
    entries: str  # what the tables' entries are
    grids: list[tuple[str, Line, list[Line]]]
    fine: str  # where there is no warning


def _memorization(rows: pd.DataFrame) -> _Texts:
    some = pruned(rows)
    dense = len(rows) - len(some)
    what = f"{len(rows):,} networks: " + (f"{dense:,} dense" if dense else "")
    if not some.empty:
        what += f"{', ' if dense else ''}{len(some):,} pruned by {_span_of(some)}"
    failed = flagged(rows)[list(FAILURES)].any(axis=1).sum()
    end = "All converged, none collapsed or diverged."
    if failed:
        end = f"{failed:,} networks collapsed, diverged or did not converge; see "
        end += "Warnings."
    return _Texts(
        f"{what}. {_axes(rows)}. {end}",
        f"{shown(rows)}; after ± the interval's half-width",
        _named(TABLES, rows, _grids),
        "every network converged, none collapsed or diverged",
    )


def _information(rows: pd.DataFrame) -> _Texts:
    count = f"{len(rows):,} interval" + ("s" if len(rows) > 1 else "")
    what = f"{count} of the information that a mask has: "
    what += f"{about(rows)}. Pruned by {_span_of(pruned(rows))}. {_axes(rows)}."
    fine = "no interval says nothing or contradicts itself, every mask came out the "
    fine += "same when made again, none collapsed"
    troubled = measured(rows)[list(TROUBLES)].any(axis=1).sum()
    end = f"{troubled:,} intervals have a warning; see Warnings."
    return _Texts(
        f"{what} {end if troubled else f'No warnings: {fine}.'}",
        f"lower-upper end, {about(rows)}; = exact: every labeling enumerated",
        _named(INFORMATION_TABLES, rows, _information_grids),
        fine,
    )


def _named(
    tables: Mapping[str, str],
    rows: pd.DataFrame,
    grids: Callable[[pd.DataFrame, str], Iterator[tuple[str, Line, list[Line]]]],
) -> list[tuple[str, Line, list[Line]]]:
    """All of the tables, their names in front of their titles."""
    return [
        (f"{words}. {title}", heads, lines)
        for metric, words in tables.items()
        for title, heads, lines in grids(rows, metric)
    ]


def _span_of(rows: pd.DataFrame) -> str:
    names = ", ".join(map(_label, pruners_of(rows)))
    return f"{names}, to sparsity {_span(sorted(set(rows['sparsity'])))}"


def _axes(rows: pd.DataFrame) -> str:
    axes = {axis: sorted(set(rows[axis]) - {""}) for axis in COORDINATES[2:]}
    return "; ".join(
        f"{axis}: {_span(values)}" for axis, values in axes.items() if values
    )


def _label(pruner: str) -> str:
    """The pruner's name as the figures have it."""
    return LOOKS[pruner].label if pruner in LOOKS else pruner


def _span(values: Sequence[Any]) -> str:
    """The values, or where there are many numbers, the first, the last and how many."""
    texts = [x if isinstance(x, str) else f"{x:,}".removesuffix(".0") for x in values]
    if len(texts) > 5 and not isinstance(values[0], str):
        return f"{texts[0]} to {texts[-1]}, {len(texts)} values"
    return ", ".join(texts)


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


if __name__ == "__main__":
    sys.exit(main())
