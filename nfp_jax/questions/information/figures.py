"""Information: intervals of what a mask knows, summed up, and their figures.

A row is one network's interval, in nats, from a lower to an upper end that hold
together at the row's confidence; nothing here is a point estimate. Where several
networks stand for a cell, its ends are the mean of the lower and the mean of the upper
ends, which hold the average over these networks and no other; and an exact value is
told where every network of the cell has one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import special

from nfp_jax.estimates import mean_interval
from nfp_jax.pages.bars import (
    BY_N,
    BY_SPARSITY,
    SIDEWAYS,
    Bars,
    Behind,
    by_kept,
    draw_bars,
)
from nfp_jax.pages.common import (
    Drawing,
    Plan,
    chosen,
    decades,
    panels_of,
    plan_of,
    zero_and_decades,
)
from nfp_jax.pages.kind import Grid, Kind, blocks_of, grids_of, verdict
from nfp_jax.pages.looks import BOUND, LEVEL
from nfp_jax.pages.points import Mark
from nfp_jax.pages.pruners import pruned, trained
from nfp_jax.pages.words import (
    CELL,
    OF_LABELS_ALONE,
    axes_of,
    counted,
    in_order,
    line_of,
    networks_of,
    number,
    numbers,
    p_eff_in_words,
    pruned_by,
    values_of,
    varying,
)
from nfp_jax.questions.information.scaling import bits_by_load

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
MARKS = (Mark.hollow("contradictory", "contradictory"),)
TABLES = {
    "information": "Information of the mask in nats, lower-upper end",
    "bits": "Bits a kept weight, information / (log 2 × weights kept)",
    "p_eff": "Effective parameters {p_eff}, weights kept + nats",
    "share": "Share of {p_eff} that is information, in %",
    "by": "The bounds that gave the lower | the upper end",
}


def measured(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with every measure's ends as floats, and a boolean for each trouble.

    Measures: ``information`` in nats, ``bits`` = nats / (log 2 * kept), ``p_eff`` =
    kept + nats, and ``share`` = nats / p_eff. Troubles: those of `TROUBLES`.
    """
    new = {name: numbers(rows, name) for name in _NUMBERS}
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
        line = line_of(cell, group)
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
    given = [CONDITIONINGS.get(x, x) for x in values_of(rows, "conditioning")]
    sizes = ", ".join(f"{k:,.0f}" for k in values_of(rows, "datasets"))
    levels = ", ".join(
        f"{100 * level:.9g} %" for level in values_of(rows, "confidence")
    )
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
        "bits_by_load": bits_by_load(
            intervals(rows),
            plan,
            MARKS,
            f"{_CAPTION}{_APART}Shown: {about(rows)}. {_BITS}{_notes(intervals(rows))}",
        ),
        "effective_parameters": _effective_parameters(rows, plan),
    }


# ---- Numbers

_NUMBERS = (
    "information_lower",
    "information_upper",
    "information_exact",
    "p_eff_lower",
    "p_eff_upper",
    "kept",
    "prunable",
    "label_entropy",
    "irreproducible",
    "collapsed_share",
)
_AGAINST_SPARSITY = "Information against sparsity"


def _log_binomial(total: Any, keep: Any) -> np.ndarray:
    # C(P, k) = 1 / ((P + 1) B(P - k + 1, k + 1)), which overflows nowhere
    return np.asarray(-np.log1p(total) - special.betaln(total - keep + 1, keep + 1))


def _often(names: pd.Series[Any] | None) -> str:
    """The names, the most frequent first."""
    counts = Counter([] if names is None else names.dropna())
    return ", ".join(sorted(counts, key=lambda name: (-counts[name], name)))


# ---- The figures


_CAPTION = (
    "Each bar goes from the lower to the upper end, both marked: the true value, or "
    "its average over the networks shown, may lie anywhere between. "
)
# What an interval can tell, and what it can't.
_LOWER = (
    "The lower end is what can be read off the masks for certain, and no more: masks "
    "may hold what nobody has read. "
)
_CAP = (
    "An upper end at the label entropy says nothing of the masks, for none can hold "
    "more of their labels. "
)
_APART = (
    "Only bars that don't overlap tell which of two masks holds more; a long bar "
    "tells that little is known, not that a mask holds much or little. "
)
_ALIKE = (
    "Masks of pruners that see no data hold 0: the upper end of their bars is what K "
    "equal masks can't rule out. "
)
_BITS = (
    "Both scales are logarithmic, that of bits linear near 0, so that 0 is seen; bars "
    "are moved sideways, so as not to hide each other."
)


def _information(rows: pd.DataFrame, plan: Plan) -> Drawing:
    cells = intervals(rows)
    panels = panels_of(cells, plan)
    alike = rows["n"].nunique() == 1
    figure = draw_bars(cells, plan, panels, by_kept(cells), _nats(), alike=alike)
    caption = (
        "Information of the mask in nats, against the share of prunable weights "
        "removed; below it the weights kept. "
        f"{_CAPTION}{_bound_words(rows)}{_can_tell(rows)}Shown: {about(rows)}. "
        f"{SIDEWAYS}{_exact_words(cells)}{_notes(cells)}"
    )
    return Drawing(_AGAINST_SPARSITY, figure, caption)


def _information_by_n(rows: pd.DataFrame, plan: Plan) -> Drawing:
    title = "Information against n"
    if rows["n"].nunique() == 1:
        return Drawing(title, None, f"All masks are of n = {rows['n'].iloc[0]:,}.")
    cells = intervals(rows)
    plan = plan._replace(panels=[axis for axis in plan.panels if axis != "n"])
    panels = panels_of(cells, plan, by_sparsity=True)
    wide = rows["n"].max() > 10 * rows["n"].min()

    def scale(axes: Axes) -> None:
        if wide:
            zero_and_decades(axes, cells[["information_lower", "information_upper"]])

    titled = [(_with_kept(panel_title, panel), panel) for panel_title, panel in panels]
    bars = _nats()._replace(scale=scale)
    figure = draw_bars(cells, plan, titled, BY_N, bars, alike=wide)
    both = (
        "Both scales are logarithmic, that of nats linear near 0, so that 0 is seen. "
        if wide
        else ""
    )
    caption = (
        "Information of the mask in nats, against the number of points; in a panel all "
        f"masks keep as many weights. {_CAPTION}{_bound_words(rows)}{_can_tell(rows)}"
        "It is certain that masks hold no more of more points only where an upper end "
        "is not above the lower end at a smaller n; a lower end that falls as n grows "
        "may be the decoder's limit. "
        f"{chosen(rows, plan, panels)}Shown: {about(rows)}. {both}Bars are moved "
        f"sideways, so as not to hide each other.{_exact_words(cells)}{_notes(cells)}"
    )
    return Drawing(title, figure, caption)


def _with_kept(title: str, cells: pd.DataFrame) -> str:
    """A panel's title with the weights kept, where its masks all keep as many."""
    kept = sorted(set(cells["kept"].dropna()))
    if len(kept) != 1:
        return title
    return f"{title}, {kept[0]:,.0f}\N{NO-BREAK SPACE}kept"


def _can_tell(rows: pd.DataFrame) -> str:
    """What the intervals of these rows can tell, and what they can't."""
    capped = np.isfinite(numbers(rows, "label_entropy")).any()
    alike = (rows["sees"] == "nothing").any()
    return f"{_LOWER}{_CAP if capped else ''}{_ALIKE if alike else ''}{_APART}"


def _bits_per_weight(rows: pd.DataFrame, plan: Plan) -> Drawing:
    cells = intervals(rows)
    ends = measured(rows)[["bits_lower", "bits_upper"]]

    def scale(axes: Axes) -> None:
        zero_and_decades(axes, ends)

    bars = Bars("bits", "bits a kept weight", scale, marks=MARKS)
    panels = panels_of(cells, plan)
    figure = draw_bars(cells, plan, panels, BY_SPARSITY, bars)
    caption = (
        "Information of the mask, in bits, divided by the weights that it keeps. "
        f"{_CAPTION}{_APART}Shown: {about(rows)}. {_BITS}{_notes(cells)}"
    )
    return Drawing("Bits a kept weight against sparsity", figure, caption)


def _effective_parameters(rows: pd.DataFrame, plan: Plan) -> Drawing:
    cells = intervals(rows)

    def scale(axes: Axes) -> None:
        axes.set_yscale("log")
        decades(axes.yaxis, cells[["kept", "p_eff_lower", "p_eff_upper"]])

    kept = Behind("kept", "weights kept", LEVEL)
    name = p_eff_in_words(rows)
    bars = Bars("p_eff", name, scale, kept, marks=MARKS)
    panels = panels_of(cells, plan)
    figure = draw_bars(cells, plan, panels, BY_SPARSITY, bars)
    caption = (
        f"Effective parameters, {name}: the weights that the mask keeps plus its "
        f"information in nats. {_CAPTION}Gray: the weights kept, where a mask "
        f"without information lies. {p_eff_words(rows)}Shown: {about(rows)}. Both "
        "scales are logarithmic; "
        f"bars are moved sideways, so as not to hide each other.{_notes(cells)}"
    )
    return Drawing(f"{name} against sparsity", figure, caption)


def p_eff_words(rows: pd.DataFrame) -> str:
    """Sentences on what p_eff of these rows is of, and how trained masks are read."""
    if "data" not in values_of(rows, "conditioning"):
        return f"{OF_LABELS_ALONE}. "
    if not trained(rows):
        return ""
    return (
        "Of masks found by training the lower end is the larger of what they tell of "
        "the labels and of the means of the classes, and the upper end a code that is "
        "fitted to other masks. "
    )


def _nats() -> Bars:
    entropy = Behind("label_entropy", "label entropy", BOUND)
    return Bars(
        "information",
        "information, nats",
        behind=entropy,
        exact="information_exact",
        marks=MARKS,
    )


def _bound_words(rows: pd.DataFrame) -> str:
    if not np.isfinite(numbers(rows, "label_entropy")).any():
        return ""
    return "Dashed gray: the label entropy, which no mask's information exceeds. "


def _exact_words(cells: pd.DataFrame) -> str:
    if not np.isfinite(cells["information_exact"]).any():
        return ""
    return " Black tick: the exact value, where every labeling was enumerated."


def _notes(cells: pd.DataFrame) -> str:
    if not cells["contradictory"].any():
        return ""
    return " Hollow: the interval of at least one network contradicts itself."


# ---- The tables and the page


def _grids(rows: pd.DataFrame, measure: str) -> Iterator[Grid]:
    """For each n, noise and select the table of a measure."""
    cells = pruned(intervals(rows)).copy()
    cells["text"] = [_interval(cell, measure) for _, cell in cells.iterrows()]
    return grids_of(rows, cells, ("n", "noise", "select"))


def _interval(cell: pd.Series[Any], measure: str) -> str:
    """A measure's interval, with the exact information where it is known."""
    if measure == "by":
        return " | ".join(cell[f"information_{end}_by"] for end in ("lower", "upper"))
    scale = 100 if measure == "share" else 1
    low, high = (number(scale * cell[f"{measure}_{end}"]) for end in ("lower", "upper"))
    exact = cell["information_exact"]
    if measure != "information" or exact != exact:
        return f"{low}-{high}"
    exact = number(exact)
    return (
        f"= exact {exact}" if low == high == exact else f"{low}-{high} = exact {exact}"
    )


def _headline(rows: pd.DataFrame) -> str:
    what = f"{counted(len(rows), 'intervals')} of the information that a mask has: "
    what += f"{about(rows)}. Pruned by {pruned_by(pruned(rows))}. {axes_of(rows)}."
    return f"{what} {verdict(measured(rows)[list(TROUBLES)], 'intervals', _FINE)}"


_FINE = (
    "no interval says nothing or contradicts itself, every mask came out the same when "
    "made again, none collapsed"
)
KIND: Kind = Kind(
    unit="intervals",
    troubles=TROUBLES,
    fine=_FINE,
    flagged=measured,
    summary=intervals,
    draw=draw_information,
    tables=TABLES,
    grids=_grids,
    heading=lambda rows: (
        f"Information in nats by sparsity, lower-upper end; {about(rows)}"
    ),
    headline=_headline,
    entries=lambda rows: (
        f"lower-upper end, {about(rows)}; = exact: every labeling enumerated. "
        f"{p_eff_words(rows)}".rstrip(". ")
    ),
    subject="intervals ",
    shares=("irreproducible", "collapsed_share"),
    names=lambda rows: {"p_eff": p_eff_in_words(rows)},
    card=lambda rows, name: blocks_of(KIND, rows, "information", "p_eff"),
)
