"""Networks summed up: what befell them, their means, and which of them are controls.

Every number is a mean over the networks of a cell (its seeds) with a Student-t
interval, and leaves out what is not finite; where a single network stands for a cell,
there is no interval, rather than one of width 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from nfp_jax.estimates import mean_interval
from nfp_jax.pages.common import Plan, plan_of
from nfp_jax.pages.points import LOGARITHMIC, Mark, marks_in_words
from nfp_jax.pages.pruners import dense, pruned
from nfp_jax.pages.sheet import with_seeds
from nfp_jax.pages.words import CELL, in_order, line_of, numbers, truth

METRICS = (
    "train_accuracy",
    "test_accuracy",
    "memorized_points",
    "memorized_bits",
    "noise_correlation",
    "noise_correlation_normalized",
    "loss",
    "epochs",
    "seconds",
)
FAILURES = {
    "collapsed": "collapsed (no path from input to output is left)",
    "diverged": "diverged (the loss is not finite)",
    "out_of_budget": "ran out of budget (the training itself, or one that the mask "
    "comes from, used up its epochs, so the network may memorize more)",
    "unconverged": "did not converge within their budget",
}
MARKS = (
    Mark.hollow("collapsed or diverged", "collapsed", "diverged"),
    Mark.half("ran out of budget", "out_of_budget"),
    Mark.half("did not converge", "unconverged"),
)


def flagged(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with every metric, and a plain boolean for each way to fail.

    A network is out of budget where at least one training that its row rests on is.
    Rows of other stopping rules, where ``settled`` is null, are ``unconverged`` where
    ``converged`` is false.
    """
    rows = rows.reindex(columns=list(dict.fromkeys([*rows.columns, *METRICS])))
    diverged = truth(rows, "diverged")
    judged = truth(rows, "settled") | truth(rows, "settled", False)
    unconverged = truth(rows, "converged", False) & ~diverged & ~judged
    late = numbers(rows, "out_of_budget") > 0
    late |= truth(rows, "settled", False) & ~diverged
    return rows.assign(
        collapsed=truth(rows, "collapsed"),
        diverged=diverged,
        out_of_budget=late & ~unconverged,
        unconverged=unconverged,
    )


def summary(rows: pd.DataFrame, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """One line a cell (`CELL`): a metric's mean and half-width over its networks.

    Columns: the cell, its pruner's label and what it sees, ``networks`` (how many), the
    number of them in each of `FAILURES`, the mean of ``kept``, and for each of the
    metrics its mean under its own name and ``<metric>_half_width``. Pruners come in
    the order of legends.
    """
    rows = flagged(rows)
    failed = {kind: rows[kind].to_numpy() for kind in FAILURES}
    kept = numbers(rows, "kept")
    values = {metric: numbers(rows, metric) for metric in metrics}
    told = rows[["label", "sees"]]
    lines = []
    cells: Any = rows.groupby(list(CELL), dropna=False).indices
    for cell, where in cells.items():
        line = line_of(cell, told.iloc[where])
        line["networks"] = len(where)
        line |= {kind: int(flags[where].sum()) for kind, flags in failed.items()}
        line["kept"], _ = mean_interval(kept[where])
        for metric, each in values.items():
            line[metric], line[f"{metric}_half_width"] = mean_interval(each[where])
        lines.append(line)
    extra = [name for metric in metrics for name in (metric, f"{metric}_half_width")]
    columns = [*CELL, "label", "sees", "networks", *FAILURES, "kept", *extra]
    return in_order(pd.DataFrame(lines, columns=columns))


def with_ends(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The cells, with the ends of a metric's interval, and its value of each seed."""
    cells = with_seeds(summary(rows, [metric]), rows, numbers(rows, metric))
    mean, half_width = cells[metric], cells[f"{metric}_half_width"]
    ends = {f"{metric}_low": mean - half_width, f"{metric}_high": mean + half_width}
    return cells.assign(**ends)


def as_found(rows: pd.DataFrame) -> pd.DataFrame:
    """The networks under masks as they were found: no ablation, and not fine-tuned.

    The dense ones are among them. Where all networks are ablated, or all of those that
    go on from a training are fine-tuned, that is no reason to leave any out.
    """
    if (pruned(rows)["ablation"] == "").any():
        rows = rows[rows["ablation"] == ""]
    if (rows["resume"] == "rewind").any():
        rows = rows[rows["resume"] != "finetune"]
    return rows


def plan_as_found(rows: pd.DataFrame) -> Plan:
    """The plan of the main figures, which says that controls are shown elsewhere."""
    main = as_found(rows)
    plan = plan_of(main)
    if len(main) == len(rows):
        return plan
    elsewhere = (
        "ablated and fine-tuned networks have a figure of their own, of controls"
    )
    return plan._replace(looks=plan_of(rows).looks, over=f"{plan.over}; {elsewhere}")


# ---- In words


def sparsity_caption(rows: pd.DataFrame, plan: Plan) -> str:
    """The end of the caption of a figure against sparsity."""
    return f"Shown: {plan.over}. {LOGARITHMIC}{marks_told(rows)}{notes(rows)}"


def marks_told(rows: pd.DataFrame) -> str:
    """What the marks of these networks mean, and how many ran out of budget."""
    flags = flagged(pruned(rows))
    text, late = marks_in_words(flags, MARKS), int(flags["out_of_budget"].sum())
    if late:
        text += f" Of {len(flags):,} pruned networks {late:,} ran out of budget, so "
        text += "they may memorize more."
    return text


def notes(rows: pd.DataFrame) -> str:
    """What means leave out, and how the dense network is drawn."""
    band = ", its interval in gray" if len(dense(rows)) > 1 else ""
    return left_out(rows) + dashed(rows).replace("network", f"network{band}")


def left_out(rows: pd.DataFrame) -> str:
    """That means leave out what is not finite, where there is such a thing."""
    diverged = flagged(rows)["diverged"].any()
    return " Means leave out what is not finite." if diverged else ""


def dashed(rows: pd.DataFrame) -> str:
    """Which line the dense network is, where there is one."""
    return "" if dense(rows).empty else " Dashed: the dense network."
