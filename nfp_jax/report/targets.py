"""The targets' table: how tight certified intervals are at n = 1000, and what it took.

Intervals of information against what they were to reach. The targets were
set before any of these rows was made. ``targets(parts)`` reads rows alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from nfp_jax.pages.joined import Part, main_rows
from nfp_jax.pages.pruners import labels_of
from nfp_jax.pages.words import number

LEVEL = 0.95  # the least confidence of both ends that meets a target


class Target(NamedTuple):
    """What an interval is to reach.

    Attributes:
      ratio: the most that the upper end may be of the lower one; None: no matter.
      upper: the most that the upper end may be, nats; None: no matter.
      lower: the least that the lower end may be, nats; None: no matter.
    """

    ratio: float | None = None
    upper: float | None = None
    lower: float | None = None

    def __str__(self) -> str:
        texts = []
        if self.ratio is not None:
            texts.append(f"upper / lower ≤ {self.ratio:.2f}")
        if self.lower is not None:
            texts.append(f"lower ≥ {self.lower:,g}")
        if self.upper is not None:
            texts.append(f"upper ≤ {self.upper:,g}")
        return ", ".join(texts)

    def reached(self, lower: float, upper: float) -> bool:
        """Returns whether an interval reaches it."""
        tight = self.ratio is None or (lower > 0 and upper <= self.ratio * lower)
        low = self.lower is None or lower >= self.lower
        return tight and low and (self.upper is None or upper <= self.upper)


# By what is resampled, pruner, n, and share removed.
TARGETS: Mapping[tuple[str, str, int, float], Target] = {
    ("labels", "snip", 1000, 0.9): Target(1.1),
    ("labels", "snip", 1000, 0.98): Target(1.25),
    ("labels", "grasp", 1000, 0.9): Target(1.1),
    ("labels", "grasp", 1000, 0.98): Target(1.5),
    ("labels", "magnitude_trained", 1000, 0.9): Target(1.3),
    ("labels", "magnitude_trained", 1000, 0.98): Target(3.0),
    ("labels", "imp", 1000, 0.9): Target(1.5),
    ("labels", "imp", 1000, 0.98): Target(3.0),
    **{
        ("labels", pruner, 1000, sparsity): Target(upper=3.0)
        for pruner in ("synflow", "random", "magnitude_init")
        for sparsity in (0.9, 0.98)
    },
    ("labels", "snip", 3000, 0.9): Target(1.25),
    ("data", "snip", 1000, 0.9): Target(lower=1400.0, upper=3300.0),
    ("data", "snip", 1000, 0.98): Target(lower=400.0, upper=800.0),
    ("data", "grasp", 1000, 0.9): Target(lower=800.0),
    ("data", "synflow", 1000, 0.9): Target(upper=3.0),
    ("data", "random", 1000, 0.9): Target(upper=3.0),
    ("data", "snip", 100, 0.9): Target(lower=700.0),
}
# What pruners are called whose rows are on no file.
CALLED = {"snip": "SNIP", "grasp": "GraSP", "synflow": "SynFlow", "imp": "IMP"}
CALLED |= {"magnitude_trained": "magnitude after training", "random": "random"}
CALLED |= {"magnitude_init": "magnitude at init"}
NOT_RUN = "not run"
HEADS = [
    "resampled",
    "pruner",
    "n",
    "removed",
    "run",
    "K",
    "confidence",
    "lower, nats",
    "upper, nats",
    "upper / lower",
    "target",
    "met",
    "read by",
    "capped by",
    "seconds a mask: made",
    "bounded",
]
WORDS = (
    "Certified intervals of I(m; y | W, X, R), where labels are resampled, and of "
    "I(m; D | W, R), where all data are, against targets that were set before. Ends "
    "are those of one network, or the means over networks that differ in their seeds; "
    "what masks know differs much between initial weights. "
    "*Read by* is the decoder, or bound, that gave the lower end, *capped by* that of "
    "the upper end. Seconds are wall time of the whole machine, which other work may "
    "have shared, divided by K: making the masks, and bounding what they hold; of "
    "trainings that several sparsities share, each has its part. A target that was not "
    "run has no numbers."
)


def targets(parts: Mapping[str, Part]) -> list[list[str]]:
    """Returns the lines of the table, as ``HEADS`` has the columns.

    A line for each target and run that has its rows, in the order of ``TARGETS``;
    one without numbers where no run has. No lines where no run has any.
    """
    asked = {name: _asked(part) for name, part in parts.items()}
    lines, seen = [], False
    for (resampled, pruner, n, sparsity), target in TARGETS.items():
        start = [f"{n:,}", f"{100 * sparsity:g} %"]
        found = {}
        for name, rows in asked.items():
            mine = rows[
                (rows["pruner"] == pruner)
                & (rows["n"] == n)
                & (rows["sparsity"] == sparsity)
                & (rows["conditioning"] == resampled)
            ]
            if len(mine):
                found[name] = mine
        for name, mine in found.items():
            label = labels_of(mine)[pruner]
            lines.append([resampled, label, *start, name, *_line(mine, target)])
        if not found:
            blank = dict.fromkeys(HEADS, "") | {"target": str(target)}
            ours = [resampled, CALLED[pruner], *start, NOT_RUN]
            lines.append([*ours, *list(blank.values())[len(ours) :]])
        seen |= bool(found)
    return lines if seen else []


def runs_of(lines: list[list[str]]) -> list[str]:
    """Returns the names of the runs that the lines are from, in their order."""
    column = HEADS.index("run")
    names = dict.fromkeys(line[column] for line in lines)
    return [name for name in names if name != NOT_RUN]


def _asked(part: Part) -> pd.DataFrame:
    """The rows of a part that a target may be about: intervals."""
    if part.question != "information":
        return part.rows[:0]
    rows = main_rows(part)
    return rows[rows["information_lower"].notna() & rows["information_upper"].notna()]


def _line(rows: pd.DataFrame, target: Target) -> list[str]:
    lower, upper = (
        float(rows[f"information_{end}"].astype(float).mean())
        for end in ("lower", "upper")
    )
    count, confidence = rows["datasets"].min(), float(rows["confidence"].min())
    seconds = [
        float((rows[name].astype(float) / rows["datasets"]).mean())
        for name in ("seconds", "bound_seconds")
    ]
    return [
        f"{count:,}",
        f"{100 * confidence:.9g} %",
        number(lower),
        number(upper),
        number(upper / lower if lower > 0 else math.inf),
        str(target),
        _met(rows, target, lower, upper),
        *(_names(rows[f"information_{end}_by"]) for end in ("lower", "upper")),
        *("" if math.isnan(x) else number(x) for x in seconds),
    ]


def _met(rows: pd.DataFrame, target: Target, lower: float, upper: float) -> str:
    """Whether a target is met; why not, where the interval is not sound."""
    confidence = float(rows["confidence"].min())
    if not confidence >= LEVEL:
        return f"no: at {100 * confidence:.9g} % alone"
    if (rows["information_lower"] > rows["information_upper"] * (1 + 1e-6)).any():
        return "no: the ends contradict each other"
    if not (rows["irreproducible"] == 0).all():
        return "no: masks differ when made again"
    return "yes" if target.reached(lower, upper) else "no"


def _names(column: pd.Series[Any]) -> str:
    return ", ".join(sorted(set(column.dropna())))
