"""Information: intervals of what a mask knows, summed up, and their figures.

A row is one network's interval, in nats, from a lower to an upper end that hold
together at the row's confidence. What would surprise: nothing here is a point estimate.
Where several networks stand for a cell, its ends are the mean of the lower and the mean
of the upper ends, which hold the average over these networks and no other; and an exact
value is told where every network of the cell has one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from scipy import special

from nfp_jax.figures.common import (
    CELL,
    Drawing,
    Look,
    Plan,
    chosen,
    empty_grid,
    finish,
    in_order,
    mean_interval,
    networks_of,
    panels_of,
    plan_of,
    pruned,
    series_of,
    sparsity_axis,
    ticks,
    varying,
)

# What has a lower and an upper end: `<measure>_lower` and `<measure>_upper`.
MEASURES = ("information", "bits", "p_eff", "share")
TROUBLES = {
    "contradictory": "contradict themselves (the lower end is above the upper, or the "
    "exact value is outside)",
    "silent": "say nothing (from 0 to the label entropy or the log binomial, or to "
    "within 1 % of it)",
    "irreproducible_masks": "are of masks of which up to {irreproducible:.3g} % differ "
    "when made again (entropy that is not information)",
    "collapsed": "are of masks of which up to {collapsed_share:.3g} % collapsed (no "
    "path from input to output is left)",
}
CONDITIONINGS = {
    "labels": "I(m; y | W, X, R), labels y resampled, with initial weights W, inputs X "
    "and the pruner's randomness R fixed",
    "data": "I(m; D | W, R), the whole data set D resampled, with initial weights W "
    "and the pruner's randomness R fixed",
}
BOUND: dict[str, Any] = {"color": "#777777", "ls": "--", "lw": 1.0}
KEPT: dict[str, Any] = {"color": "#999999", "ls": "-", "lw": 1.0}
EXACT: dict[str, Any] = {"color": "black", "marker": "_", "ls": "", "mew": 1.6}
HOLLOW: dict[str, Any] = {"color": "#555555", "marker": "o", "ls": "", "mfc": "white"}


def is_information(rows: pd.DataFrame) -> bool:
    """Whether the rows are of information: they have a lower end."""
    return "information_lower" in rows and bool(rows["information_lower"].notna().any())


def measured(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with every measure's ends as floats, and a boolean for each trouble.

    Measures: ``information`` in nats, ``bits`` = nats / (log 2 * kept), ``p_eff`` =
    kept + nats, and ``share`` = nats / p_eff. Troubles: those of `TROUBLES`.
    """
    new = {name: _numbers(rows, name) for name in _NUMBERS}
    with np.errstate(divide="ignore", invalid="ignore"):
        for end in ("lower", "upper"):
            nats = new[f"information_{end}"]
            new[f"bits_{end}"] = nats / (np.log(2) * new["kept"])
            new[f"share_{end}"] = nats / new[f"p_eff_{end}"]
    lower, upper = new["information_lower"], new["information_upper"]
    exact = new["information_exact"]
    slack = 1e-6 * np.fmax(1, abs(upper))  # float32's, were the ends ever of it
    outside = (exact < lower - slack) | (exact > upper + slack)
    most = _log_binomial(new["prunable"], new["kept"])
    trivial = np.fmin(new["label_entropy"], most)
    said = (lower > 0) | (upper < 0.99 * trivial) | np.isfinite(exact)
    return rows.assign(
        **new,
        contradictory=(lower > upper + slack) | outside,
        silent=(trivial > 0) & ~said,
        irreproducible_masks=new["irreproducible"] > 0,
        collapsed=new["collapsed_share"] > 0,
    )


def intervals(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a cell (`CELL`): every measure's mean ends over its networks.

    Columns: the cell, ``networks`` (how many), the number of them in each of
    `TROUBLES`, the ends of each measure, ``information_exact`` (NaN unless every
    network has it), the means of ``kept`` and ``label_entropy``, and
    ``information_lower_by`` and ``information_upper_by``, the bounds that gave the
    ends, the most frequent first.
    """
    lines = []
    ends = [f"{measure}_{end}" for measure in MEASURES for end in ("lower", "upper")]
    given_by = ("information_lower_by", "information_upper_by")
    for cell, group in measured(rows).groupby(list(CELL), dropna=False):
        line = dict(zip(CELL, cell, strict=True))
        line["networks"] = len(group)
        line |= {trouble: int(group[trouble].sum()) for trouble in TROUBLES}
        for name in (*ends, "kept", "label_entropy"):
            line[name], _ = mean_interval(group[name])
        line["information_exact"] = group["information_exact"].mean(skipna=False)
        line |= {name: _often(group.get(name)) for name in given_by}
        lines.append(line)
    return in_order(pd.DataFrame(lines))


def about(rows: pd.DataFrame) -> str:
    """What stands beside every number: conditioning, K, confidence, and networks."""
    given = [CONDITIONINGS.get(x, x) for x in _values(rows, "conditioning")]
    sizes = ", ".join(f"{k:,.0f}" for k in _values(rows, "datasets"))
    levels = ", ".join(f"{100 * level:.5g} %" for level in _values(rows, "confidence"))
    parts = ["; ".join(given), f"K = {sizes} data sets" if sizes else ""]
    parts.append(f"each interval of confidence {levels}" if levels else "")
    count, most = networks_of(rows)
    over = f"mean of the lower and mean of the upper ends over {count} networks"
    parts.append("one network each (a single seed)" if most == 1 else over)
    return "; ".join(filter(None, parts))


def draw_information(rows: pd.DataFrame) -> dict[str, Drawing]:
    """The figures of information by name."""
    rows = pruned(rows)
    if rows.empty:
        why = "No pruned network is on file."
        return {"information": Drawing(_AGAINST_SPARSITY, None, why)}
    plan = plan_of(rows)._replace(panels=varying(rows), lines=None)
    return {
        "information": _information(rows, plan),
        "information_by_n": _information_by_n(rows, plan),
        "bits_per_weight": _bits_per_weight(rows, plan),
        "effective_parameters": _effective_parameters(rows, plan),
    }


# ---- Numbers

_NUMBERS = (
    *("information_lower", "information_upper", "information_exact", "p_eff_lower"),
    *("p_eff_upper", "kept", "prunable", "label_entropy", "irreproducible"),
    "collapsed_share",
)
_AGAINST_SPARSITY = "Information against sparsity"


def _numbers(rows: pd.DataFrame, name: str) -> np.ndarray:
    """The column as floats; what is null, or not there at all, is NaN."""
    column = rows.get(name, pd.Series(np.nan, rows.index))
    return pd.to_numeric(column).to_numpy(dtype=float, na_value=np.nan)


def _log_binomial(total: Any, keep: Any) -> np.ndarray:
    # C(P, k) = 1 / ((P + 1) B(P - k + 1, k + 1)), which overflows nowhere
    return np.asarray(-np.log1p(total) - special.betaln(total - keep + 1, keep + 1))


def _often(names: pd.Series[Any] | None) -> str:
    """The names, the most frequent first."""
    counts = Counter([] if names is None else names.dropna())
    return ", ".join(sorted(counts, key=lambda name: (-counts[name], name)))


def _values(rows: pd.DataFrame, name: str) -> list[Any]:
    return sorted(set(rows[name].dropna())) if name in rows else []


# ---- The figures


class _Axis(NamedTuple):
    """Where a cell lies sideways, and how the axis tells it."""

    column: str
    label: str
    place: Callable[[Any], Any]
    mark: Callable[[Axes, Any, float], None]  # of the values, and a label's room


def _mark_n(axes: Axes, values: Any, room: float) -> None:
    ticks(axes, np.log10(values), [f"{n:,}" for n in values], room)


_BY_SPARSITY = _Axis(
    "sparsity", "weights removed (%)", lambda s: -np.log10(1 - s), sparsity_axis
)
_BY_N = _Axis("n", "n, points of the training set", np.log10, _mark_n)
_CAPTION = (
    "Each bar goes from the lower to the upper end, both marked: the true value, or "
    "its average over the networks shown, may lie anywhere between. "
)
_SCALE = (
    "The scale is logarithmic in the share kept; bars are moved sideways, so as not to "
    "hide each other."
)


def _information(rows: pd.DataFrame, plan: Plan) -> Drawing:
    panels = _some(panels_of(rows, plan))
    figure = _bars(rows, plan, panels, _BY_SPARSITY, "information", "information, nats")
    caption = (
        "Information of the mask in nats, against the share of prunable weights "
        f"removed. {_CAPTION}{_bound_words(rows)}Shown: {about(rows)}. "
        f"{_SCALE}{_exact_words(rows)}{_notes(rows)}"
    )
    return Drawing(_AGAINST_SPARSITY, figure, caption)


def _information_by_n(rows: pd.DataFrame, plan: Plan) -> Drawing:
    title = "Information against n"
    if rows["n"].nunique() == 1:
        return Drawing(title, None, f"All masks are of n = {rows['n'].iloc[0]:,}.")
    plan = plan._replace(panels=[axis for axis in plan.panels if axis != "n"])
    panels = _some(panels_of(rows, plan, by_sparsity=True))
    figure = _bars(rows, plan, panels, _BY_N, "information", "information, nats")
    caption = (
        "Information of the mask in nats, against the number of points. "
        f"{_CAPTION}{_bound_words(rows)}{chosen(rows, plan, panels)}Shown: "
        f"{about(rows)}. Bars are moved sideways, so as not to hide each other."
        f"{_exact_words(rows)}{_notes(rows)}"
    )
    return Drawing(title, figure, caption)


def _bits_per_weight(rows: pd.DataFrame, plan: Plan) -> Drawing:
    panels = _some(panels_of(rows, plan))
    figure = _bars(rows, plan, panels, _BY_SPARSITY, "bits", "bits a kept weight")
    caption = (
        "Information of the mask, in bits, divided by the weights that it keeps. "
        f"{_CAPTION}Shown: {about(rows)}. Both scales are logarithmic, that of bits "
        "linear near 0, so that 0 is seen; bars are moved sideways, so as not to hide "
        f"each other.{_notes(rows)}"
    )
    return Drawing("Bits a kept weight against sparsity", figure, caption)


def _effective_parameters(rows: pd.DataFrame, plan: Plan) -> Drawing:
    panels = _some(panels_of(rows, plan))
    label = "effective parameters"
    figure = _bars(rows, plan, panels, _BY_SPARSITY, "p_eff", label)
    caption = (
        "Effective parameters: the weights that the mask keeps plus its information in "
        f"nats. {_CAPTION}Gray: the weights kept, where a mask without information "
        f"lies. Shown: {about(rows)}. Both scales are logarithmic; bars are moved "
        f"sideways, so as not to hide each other.{_notes(rows)}"
    )
    return Drawing("Effective parameters against sparsity", figure, caption)


def _some(panels: list[tuple[str, pd.DataFrame]]) -> list[tuple[str, pd.DataFrame]]:
    """The panels with something to show: not every select is run with every n."""
    return [(title, rows) for title, rows in panels if not rows.empty]


def _bound_words(rows: pd.DataFrame) -> str:
    if not np.isfinite(_numbers(rows, "label_entropy")).any():
        return ""
    return "Dashed gray: the label entropy, which no mask's information exceeds. "


def _exact_words(rows: pd.DataFrame) -> str:
    if not np.isfinite(intervals(rows)["information_exact"]).any():
        return ""
    return " Black tick: the exact value, where every labeling was enumerated."


def _notes(rows: pd.DataFrame) -> str:
    if not measured(rows)["contradictory"].any():
        return ""
    return " Hollow: the interval of at least one network contradicts itself."


def _bars(
    rows: pd.DataFrame,
    plan: Plan,
    panels: list[tuple[str, pd.DataFrame]],
    by: _Axis,
    measure: str,
    label: str,
) -> Figure:
    """A figure of a measure's intervals: for each cell a bar, moved sideways."""
    alike = measure != "information" or (by.column != "n" and rows["n"].nunique() == 1)
    figure, grid = empty_grid(len(panels), sharey=alike)
    values = np.array(sorted(set(rows[by.column])))
    places = by.place(values)
    gap = 0.8 * np.diff(places).min() if len(places) > 1 else 1.0
    size = 3 if len(panels) > 2 else 4  # of markers, in points
    for axes, (title, panel) in zip(grid, panels, strict=True):
        cells = intervals(panel)
        for column, style in _behind(measure).items():
            _level(axes, cells.groupby(by.column)[column].mean(), by, gap, style)
        lines = list(series_of(cells, plan))
        for i, (look, _, line) in enumerate(lines):
            x = by.place(line[by.column].to_numpy())
            x += gap * ((i + 0.5) / len(lines) - 0.5)
            _bar(axes, x, line, measure, look, size)
        axes.set_title(title)
        _scale(axes, measure, rows)
        by.mark(axes, values, 0.16 if len(panels) > 1 else 0.09)
    return finish(figure, rows, plan, by.label, label, _entries(rows, measure))


def _bar(
    axes: Axes, x: Any, cells: pd.DataFrame, measure: str, look: Look, size: int
) -> None:
    low, high = (cells[f"{measure}_{end}"].to_numpy() for end in ("lower", "upper"))
    hollow = cells["contradictory"].to_numpy() > 0
    axes.vlines(x, low, high, color=look.color, lw=size / 2.5)
    for y in (low, high):
        axes.plot(x, y, ms=size, **look.style(""))
        axes.plot(x[hollow], y[hollow], ms=size, mfc="white", **look.style(""))
    if measure == "information":
        axes.plot(x, cells["information_exact"], zorder=3, ms=2 * size, **EXACT)


def _behind(measure: str) -> dict[str, dict[str, Any]]:
    """The columns whose levels are drawn behind a measure's bars, and how."""
    return {"information": {"label_entropy": BOUND}, "p_eff": {"kept": KEPT}}.get(
        measure, {}
    )


def _level(
    axes: Axes, levels: pd.Series[Any], by: _Axis, gap: float, style: dict[str, Any]
) -> None:
    """A line where the levels are all alike, else one behind each group of bars."""
    levels = levels.dropna()
    places = by.place(levels.index.to_numpy())
    if levels.empty:
        return
    if np.isclose(levels.min(), levels.max()):
        axes.axhline(levels.iloc[0], **style)
    else:
        axes.hlines(levels, places - gap / 2, places + gap / 2, **style)


def _scale(axes: Axes, measure: str, rows: pd.DataFrame) -> None:
    """Nats lie on a linear scale, p_eff on a logarithmic one, and bits on both."""
    if measure == "p_eff":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if measure == "bits":
        ends = measured(rows)[["bits_lower", "bits_upper"]].to_numpy()
        ends = ends[np.isfinite(ends) & (ends > 0)]
        low, high = np.log10([ends.min(), ends.max()]) if ends.size else (0, 0)
        last = max(np.floor(high), np.floor(low) + 1)
        decades = 10.0 ** np.arange(np.floor(low), last + 1)
        axes.set_yscale("symlog", linthresh=decades[0], linscale=0.3)
        axes.set_yticks([0, *decades])
    axes.yaxis.set_major_formatter("{x:,g}")


def _entries(rows: pd.DataFrame, measure: str) -> list[tuple[str, dict[str, Any]]]:
    """What the legend says beside the pruners."""
    cells = intervals(rows)
    entries = []
    if measure == "information" and np.isfinite(cells["label_entropy"]).any():
        entries.append(("label entropy", BOUND))
    if measure == "information" and np.isfinite(cells["information_exact"]).any():
        entries.append(("exact", EXACT))
    if measure == "p_eff":
        entries.append(("weights kept", KEPT))
    if cells["contradictory"].any():
        entries.append(("contradictory", HOLLOW))
    return entries
