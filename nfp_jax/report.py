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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nfp_jax.figures import (
    FAILURES,
    LOOKS,
    draw,
    flagged,
    in_words,
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


def failures(rows: pd.DataFrame) -> list[str]:
    """One sentence for each pruner and way to fail, with counts by sparsity."""
    lines = []
    for kind, words in FAILURES.items():
        for pruner, counts in _failed(rows, kind):
            total = counts.sum()
            line = f"{total[kind]} of {total['networks']} networks of {_label(pruner)}"
            line = f"{line} {words}"
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
    for kind, words in FAILURES.items():
        hit, where = [], set()
        for pruner, counts in _failed(rows, kind):
            total = counts.sum()
            hit.append(f"{pruner} {total[kind]} of {total['networks']}")
            if pruner != "dense":
                where |= set(counts.index[counts[kind] > 0])
        at = f" (sparsity {_span(sorted(where))})" if where else ""
        if hit:
            lines.append(f"{words}: {', '.join(hit)}{at}")
    return lines


def _failed(rows: pd.DataFrame, kind: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The pruners that failed so; by sparsity, the failures and the networks."""
    for pruner, cells in summary(rows).groupby("pruner", sort=False):
        if cells[kind].any():
            yield str(pruner), cells.groupby("sparsity")[[kind, "networks"]].sum()


def table(rows: pd.DataFrame, width: int = 110) -> str:
    """Train accuracy by pruner and sparsity, for a terminal; then what failed."""
    if rows.empty:
        return "no rows"
    parts = textwrap.wrap(f"Train accuracy by sparsity; {shown(rows)}", width)
    for title, heads, lines in _grids(rows, "train_accuracy"):
        parts.append(title)
        columns = zip(heads[0], *(names for names, _ in lines), strict=True)
        pads = [max(map(len, column)) for column in columns]
        step = max(1, (width - sum(pads) - 2 * len(pads) + 2) // 15)
        for start in range(0, len(heads[1]), step):
            for names, entries in [heads, *lines]:
                line = [f"{x:<{pad}}" for x, pad in zip(names, pads, strict=True)]
                line += [f"{x:>13}" for x in entries[start : start + step]]
                parts.append("  ".join(line))
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
        group = pruned(group)
        sparsities = sorted(set(group["sparsity"]))
        heads = ["pruner", *variants], [f"{s:g}" for s in sparsities]
        lines = []
        for names, line in group.groupby(["pruner", *variants], sort=False):
            texts = dict(zip(line["sparsity"], line["text"], strict=True))
            entries = [texts.get(s, "") for s in sparsities]
            lines.append(([str(name) for name in names], entries))
        yield title, heads, lines


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
    tables = [
        _html(
            f"{words}. {title}", heads, [([_label(x), *y], z) for (x, *y), z in lines]
        )
        for metric, words in TABLES.items()
        for title, heads, lines in _grids(rows, metric)
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
<p>{html.escape(_headline(rows))}</p>
<h2>Figures</h2>
{"".join(drawings)}
<h2>Tables</h2>
<p>Across: sparsity, the share of prunable weights removed. Entries:
{html.escape(shown(rows))}; after ± the interval's half-width.</p>
{"".join(tables)}
<h2>Warnings</h2>
<ul>{failed or "<li>None: every network converged, none collapsed or diverged."}</ul>
<h2>Configuration</h2>
<pre>{settings}</pre>
<h2>Launches</h2>
{"".join(launches) or "<p>None is on file.</p>"}
<p>Made from the rows on file; to make it again:
<code>python -m nfp_jax.report {html.escape(str(directory))}</code></p>
</html>
"""


def _headline(rows: pd.DataFrame) -> str:
    some = pruned(rows)
    dense = len(rows) - len(some)
    what = f"{len(rows):,} networks: " + (f"{dense:,} dense" if dense else "")
    if not some.empty:
        names = ", ".join(map(_label, pruners_of(some)))
        sparsities = _span(sorted(set(some["sparsity"])))
        what += f"{', ' if dense else ''}{len(some):,} pruned by {names}, "
        what += f"to sparsity {sparsities}"
    axes = {axis: sorted(set(rows[axis]) - {""}) for axis in COORDINATES[2:]}
    parts = [f"{axis}: {_span(values)}" for axis, values in axes.items() if values]
    failed = flagged(rows)[list(FAILURES)].any(axis=1).sum()
    end = "All converged, none collapsed or diverged."
    if failed:
        end = f"{failed:,} networks collapsed, diverged or did not converge; see "
        end += "Warnings."
    return f"{what}. {'; '.join(parts)}. {end}"


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
