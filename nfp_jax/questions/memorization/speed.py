"""Time to memorize: the first epoch at whose end 99 % of the labels are fitted.

A network that ran out of its budget before takes longer than its epochs; one that
settled below 99 %, or diverged, never gets there. Medians over seeds count both in
their place: behind every network that got there, the second kind behind the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from nfp_jax.estimates import median_interval
from nfp_jax.pages.common import Drawing, Plan, ticks_within
from nfp_jax.pages.kind import Grid, grids_of
from nfp_jax.pages.looks import GUIDE
from nfp_jax.pages.points import BOTH_LOGARITHMIC, Mark, against_sparsity, opened
from nfp_jax.pages.pruners import pruned
from nfp_jax.pages.sheet import Sheet, with_seeds
from nfp_jax.pages.words import CELL, in_order, line_of, medians_shown, numbers, truth
from nfp_jax.questions.memorization.networks import FAILURES, dashed, flagged

TIME = "epochs_to_99"
NEVER = 1e300  # behind every number of epochs, and two of them have a finite mean
MARKS = (Mark.hollow("collapsed or diverged", "collapsed", "diverged"),)


def times(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a cell (`CELL`): the median time to memorize, and its interval.

    Columns: the cell, ``networks`` (how many), how many of them ``reached`` 99 %, the
    number of them in each of `FAILURES`, ``epochs_to_99``, ``epochs_to_99_low`` and
    ``epochs_to_99_high`` (`median_interval`; at least half of `NEVER`: never), and
    ``_open`` behind each of these three: True where it is only a lower bound. Networks
    whose time was not measured are left out.
    """
    rows = flagged(rows)
    time = numbers(rows, TIME)
    measured = np.isfinite(time) | np.isfinite(numbers(rows, "memorization_area"))
    missing = ~np.isfinite(time)
    never = missing & (truth(rows, "settled") | rows["diverged"].to_numpy())
    epochs = numbers(rows, "epochs")
    rows = rows.assign(
        time=np.select([never, missing], [NEVER, epochs], time),
        late=missing & ~never,
        reached=~missing,
    )[measured]
    lines = []
    for cell, group in rows.groupby(list(CELL), dropna=False):
        line = line_of(cell, group)
        line |= {"networks": len(group), "reached": int(group["reached"].sum())}
        line |= {kind: int(group[kind].sum()) for kind in FAILURES}
        ends = median_interval(group["time"])
        late = np.where(group["late"], NEVER, group["time"])  # were they never there
        moved = median_interval(late)
        for name, end, after in zip(_NAMES, ends, moved, strict=True):
            line |= {name: end, f"{name}_open": bool(after > end)}
        lines.append(line)
    more = [x for name in _NAMES for x in (name, f"{name}_open")]
    columns = [*CELL, "label", "sees", "networks", "reached", *FAILURES, *more]
    return in_order(pd.DataFrame(lines, columns=columns))


_NAMES = (TIME, f"{TIME}_low", f"{TIME}_high")


def time_to_memorize(rows: pd.DataFrame, plan: Plan) -> Drawing:
    """The median time to memorize against sparsity."""
    title = "Time to memorize against sparsity"
    cells = times(rows)
    if pruned(cells).empty:
        return Drawing(title, None, "No pruned network's time to memorize is on file.")
    values = cells[list(_NAMES)].to_numpy(dtype=float)
    finite = values[values < NEVER / 2]
    low, high = finite.min(initial=100), finite.max(initial=1)
    never = (values >= NEVER / 2).any()
    top = high * max(3, (high / low) ** 0.3)  # above the heads of arrows
    cells[list(_NAMES)] = np.where(values >= NEVER / 2, top, values)
    cells = with_seeds(cells, rows, numbers(rows, TIME))

    def scale(axes: Axes, panel: pd.DataFrame) -> None:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.5, 1.3 * top)
        places = ticks_within(low / 1.5, 1.5 * high)
        labels = [f"{place:,g}" for place in places]
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(FixedLocator([*places, *([top] if never else [])]))
        axes.yaxis.set_ticklabels([*labels, *(["never"] if never else [])])
        if never:
            axes.axhline(top, zorder=0, **GUIDE)

    label = "epochs to 99 % of the labels"
    figure = against_sparsity(cells, plan, TIME, label, MARKS, finally_=scale)
    assert isinstance(figure, Sheet)
    for points in figure.shown:  # "never" is drawn at the top, and is infinite
        ends = points.lines[["value", "low", "high"]]
        points.lines[["value", "low", "high"]] = ends.replace(top, np.inf)
    arrows = (
        " Arrow: networks ran out of their budget before, so the value where the arrow "
        "begins is a lower bound."
        if opened(cells, TIME).any()
        else ""
    )
    nevers = (
        " Never: networks settled below 99 %, or diverged, so more epochs would not do."
        if never
        else ""
    )
    hollow = " Hollow: at least one of the networks collapsed or diverged."
    failed = pruned(cells)[["collapsed", "diverged"]].to_numpy().any()
    caption = (
        "The first epoch at whose end the network gets 99 % of its labels right, "
        "against the share of prunable weights removed. Shown: "
        f"{medians_shown(rows, 'networks')}. {BOTH_LOGARITHMIC}{arrows}{nevers}"
        f"{hollow if failed else ''}{dashed(cells)}"
    )
    return Drawing(title, figure, caption)


def grids(rows: pd.DataFrame) -> Iterator[Grid]:
    """For each n and noise the table of the time to memorize."""
    cells = times(rows)
    cells["text"] = [_entry(cell) for _, cell in cells.iterrows()]
    return grids_of(rows, cells)


def _entry(cell: pd.Series[Any]) -> str:
    """The median, and how many networks got there where not all did.

    As in ``142``, ``> 3,200 (2 of 8)`` or ``never (0 of 8)``.
    """
    median = cell[TIME]
    text = "never" if median >= NEVER / 2 else f"{median:,g}"
    text = f"> {text}" if cell[f"{TIME}_open"] else text
    reached, networks = cell["reached"], cell["networks"]
    return text if reached == networks else f"{text} ({reached} of {networks})"
