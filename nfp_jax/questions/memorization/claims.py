"""How much and how fast: masks from training against those at initialization.

For every n and sparsity: points memorized at settled, the correlation with the label
noise at equal training loss, and the epochs until 99 % of the labels are fitted. The
correlation where each training ended is shown and not judged: networks end at different
confidence. Both ways to go on from a trained mask are judged. Then come the claims of
``ablations``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from nfp_jax.pages.claim import (
    MARGIN,
    RESOLUTION,
    SHOWN,
    UNDECIDED,
    Claim,
    collapsed,
    groups,
    late,
)
from nfp_jax.pages.joined import Part, scope, usual_rows
from nfp_jax.pages.paired import AgainstAll, against_all, differences_of, mean_of
from nfp_jax.pages.pruners import at_initialization, labels_of, trained
from nfp_jax.pages.words import SEEDS
from nfp_jax.questions.memorization.ablations import ablated
from nfp_jax.questions.memorization.times import (
    HOW,
    paired_times,
    times_sooner,
    unknown,
    unknown_in_words,
    with_times,
)

POINTS, NOISE = "memorized_points", "noise_correlation_normalized"


def claims(part: Part) -> Iterator[Claim]:
    """What the rows of such a run say."""
    rows = usual_rows(part)
    rows = rows[rows["ablation"] == ""]
    for (n, sparsity), group in groups(rows, ["n", "sparsity"]):
        rivals = at_initialization(group)
        if rivals.empty:
            continue
        for pruner in trained(group):
            for way, mine in groups(group[group["pruner"] == pruner], "resume"):
                yield from _against_rivals(part, mine, rivals, n, sparsity, way)
    yield from ablated(part)


def together(parts: Mapping[str, Part]) -> Iterator[Claim]:
    """Whether masks at another initialization do what masks from training do.

    Of runs that differ in the initialization alone: masks from training of the first
    run against those of all pruners at initialization of each other run, at the same n
    and weights kept, paired by seeds and so by data.
    """
    runs = [part for part in parts.values() if part.question == "memorization"]
    for place, first in enumerate(runs):
        before = {part.but_init for part in runs[:place]}
        if first.but_init not in before:
            for other in runs[place + 1 :]:
                if other.but_init == first.but_init and other.init != first.init:
                    yield from _at_another_init(first, other)


def _at_another_init(first: Part, other: Part) -> Iterator[Claim]:
    rows, rivals = (
        part[part["ablation"] == ""] for part in map(usual_rows, (first, other))
    )
    for (n, sparsity), group in groups(rows, ["n", "sparsity"]):
        here = (rivals["n"] == n) & (rivals["sparsity"] == sparsity)
        others = at_initialization(rivals[here])
        if others.empty:
            continue
        for pruner in trained(group):
            mine = group[(group["pruner"] == pruner) & (group["resume"] != "finetune")]
            if mine.empty:
                continue
            pair = first._replace(name=f"{first.name}-{other.name}")
            for claim in _against_rivals(pair, mine, others, n, sparsity, "rewind"):
                where = f"{claim.where}; rivals: {other.name}, weights {other.init}"
                yield claim._replace(where=where)


class _Against(NamedTuple):
    """Networks under masks of one pruner, beside those of its rivals.

    Attributes:
      mine: the rows of the pruner.
      rivals: those of pruners at initialization.
      pruner: its name.
      label: what claims call it, with the way to go on from its masks.
      n: how many points there are.
      unsure: the rivals that no verdict may rest on, and how many trainings of theirs
        used up their budget.
      key: of its claims, with a place for their name.
      fixed: what all of its claims have.
    """

    mine: pd.DataFrame
    rivals: pd.DataFrame
    pruner: str
    label: str
    n: int
    unsure: dict[str, int]
    key: str
    fixed: dict[str, Any]

    @property
    def both(self) -> pd.DataFrame:
        """The rows of the pruner and of its rivals."""
        return pd.concat([self.mine, self.rivals])

    @property
    def labels(self) -> dict[str, str]:
        """What all of these pruners are called."""
        return labels_of(self.both)

    @property
    def broken(self) -> str:
        """How many of its masks collapsed, in words; empty where none did."""
        count = collapsed(self.mine)
        return f"; {count} of {len(self.mine)} of its masks collapsed" if count else ""

    @property
    def named(self) -> str:
        """Which rivals no verdict rests on, in words; empty where there is none."""
        labels = self.labels
        names = ", ".join(f"{labels[name]} ({x})" for name, x in self.unsure.items())
        return f"; some trainings used up their budget: {names}" if names else ""


def _against_rivals(
    part: Part,
    mine: pd.DataFrame,
    rivals: pd.DataFrame,
    n: int,
    sparsity: float,
    way: str,
) -> Iterator[Claim]:
    pruner, unsure = str(mine["pruner"].iloc[0]), _late_rivals(rivals)
    fixed: dict[str, Any] = {
        "where": scope(part, n=n, sparsity=sparsity, rows=pd.concat([mine, rivals])),
        "out_of_budget": late(mine),
        "left_out": sum(unsure.values()),
    }
    label = f"{labels_of(mine)[pruner]} ({way})"
    key = f"{part.name}/{{}}/{pruner}-{way}/n={n}/{sparsity:g}"
    against = _Against(mine, rivals, pruner, label, n, unsure, key, fixed)
    yield from _more_points(against, rewound=way == "rewind")
    if way == "finetune":
        return  # its trainings begin where others end
    yield from _more_noise(against)
    yield from _sooner(against)


def _more_points(against: _Against, *, rewound: bool) -> Iterator[Claim]:
    """Whether more points are memorized; of rewound networks also whether as many."""
    points = differences_of(against.both, against.pruner, POINTS)
    if not points:
        return
    full = _all_fit(against)
    verdict = SHOWN if full else UNDECIDED
    found = against_all(points, mean_of(RESOLUTION * against.n), against.unsure)
    yield _claim(
        f"Networks under masks of {against.label} memorize more points than those of "
        "every pruner at initialization",
        f"points at settled, less those of the closest, {against.labels[found.closest]}"
        f"; {_paired(points)}{against.named}{against.broken}{full}",
        found,
        key=against.key.format("points"),
        verdict=verdict,
        **against.fixed,
    )
    if rewound:
        within = _within_margin(points, against)
        what = f"{within.what}{against.broken}{full}"
        yield within._replace(what=what, verdict=verdict)


def _more_noise(against: _Against) -> Iterator[Claim]:
    """Whether networks correlate more with the label noise, where there is any."""
    both = against.both
    if not both["noise"].iloc[0] > 0:
        return
    ended = differences_of(both, against.pruner, NOISE)
    equal = _at_equal_loss(both, against.pruner)
    claim = (
        f"Networks under masks of {against.label} correlate more with the label noise "
        "than those of every pruner at initialization, "
    )
    what = "correlation, 1 = all noise learned, less that of the closest, "
    if ended:
        found = against_all(ended, mean_of(0.0))
        yield _claim(
            f"{claim}where each training ended",
            f"{what}{against.labels[found.closest]}; {_paired(ended)}; at different "
            "confidence",
            found,
            key=against.key.format("noise"),
            **{**against.fixed, "verdict": SHOWN},
        )
    if equal:
        found = against_all(equal, mean_of(0.0), against.unsure)
        yield _claim(
            f"{claim}at the least training loss that both reach",
            f"{what}{against.labels[found.closest]}; {_paired(equal)}{against.named}; "
            "those that never have a loss in common with it are left out"
            f"{against.broken}",
            found,
            key=against.key.format("noise-at-loss"),
            verdict=SHOWN if against.broken else UNDECIDED,
            **against.fixed,
        )


def _all_fit(against: _Against) -> str:
    """Why points can't tell a pruner from its rivals; empty where they can."""
    mine, n = against.mine, against.n
    fit = against.rivals.groupby("pruner")[POINTS].min().astype(float) >= n
    if fit.any() and (mine[POINTS].astype(float) >= n).all():
        names = ", ".join(against.labels[str(name)] for name in fit.index[fit])
        return f"; not judged, for {names} fit all points too: capacity does not bind"
    return ""


def _within_margin(points: dict[str, np.ndarray], against: _Against) -> Claim:
    """Whether some rival memorizes nearly as much: then the lead is one of speed.

    It holds where one rival is certainly less than the margin behind, and does not
    where all are certainly more.
    """
    margin = MARGIN * against.n
    least = RESOLUTION * against.n
    found = against_all(points, mean_of(least, margin), against.unsure)
    return Claim(
        claim=f"Some pruner at initialization memorizes as much as {against.label}, to "
        f"within {MARGIN:.0%} of n",
        what=f"points at settled, less those of the closest, "
        f"{against.labels[found.closest]}; the margin is {margin:g}; {_paired(points)}"
        f"{against.named}",
        measured=found.estimate,
        lower=found.lower,
        upper=found.upper,
        p_holds=found.p_not,
        p_not=found.p_holds,
        key=against.key.format("within"),
        **against.fixed,
    )


def _late_rivals(rivals: pd.DataFrame) -> dict[str, int]:
    """The pruners of which trainings used up their budget, and how many of them."""
    counts = {str(name): late(rows) for name, rows in groups(rivals, "pruner")}
    return {name: count for name, count in counts.items() if count}


def _claim(claim: str, what: str, found: AgainstAll, **more: Any) -> Claim:
    return Claim(
        claim=claim,
        what=what,
        measured=found.estimate,
        lower=found.lower,
        upper=found.upper,
        p_holds=found.p_holds,
        p_not=found.p_not,
        **more,
    )


def _paired(differences: dict[str, np.ndarray]) -> str:
    count = len(next(iter(differences.values())))
    return f"least over {len(differences)} rivals, paired, {count} seeds"


def _at_equal_loss(both: pd.DataFrame, pruner: str) -> dict[str, np.ndarray]:
    """The differences in correlation where both first have the least common loss."""
    found: dict[str, list[float]] = {}
    for _, seed in groups(both, SEEDS):
        curves = {row["pruner"]: _curve(row) for _, row in seed.iterrows()}
        if pruner not in curves:
            continue
        for name in curves.keys() - {pruner}:
            found.setdefault(str(name), []).append(
                _compared(curves[pruner], curves[name])
            )
    known = {name: np.array(values) for name, values in sorted(found.items())}
    return {name: x for name, x in known.items() if np.isfinite(x).all()}


def _curve(row: pd.Series[Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Loss and normalized correlation at the epochs on file; None without them."""
    loss, noise = row.get("loss_by_epoch"), row.get("noise_correlation_by_epoch")
    last, whole = row["noise_correlation"], row[NOISE]
    if loss is None or noise is None or pd.isna(whole) or not last:
        return None
    loss = np.asarray(loss, float)
    if not np.isfinite(loss).any():
        return None  # it diverged before the first epoch ended
    return loss, np.asarray(noise, float) * (whole / last)


def _compared(one: Any, other: Any) -> float:
    if one is None or other is None:
        return np.nan
    loss = max(np.nanmin(one[0]), np.nanmin(other[0]))
    return at_loss(one[0], one[1], loss) - at_loss(other[0], other[1], loss)


def at_loss(loss: np.ndarray, values: np.ndarray, target: float) -> float:
    """Returns a value where the loss first falls to a target, linear between epochs.

    NaN where the loss never falls so far, or is below the target from the first epoch.

    >>> round(at_loss(np.array([0.8, 0.6]), np.array([0.0, 1.0]), 0.7), 6)
    0.5
    """
    first = int(np.argmax(loss <= target))
    if loss[first] > target or (first == 0 and loss[0] < target):
        return np.nan  # it never has that loss, or begins below it
    if first == 0:
        return float(values[0])
    before, after = loss[first - 1], loss[first]
    share = (before - target) / (before - after)
    return float(values[first - 1] + share * (values[first] - values[first - 1]))


def _sooner(against: _Against) -> Iterator[Claim]:
    """Whether 99 % are fitted in fewer epochs than under any rival's masks.

    No rival is left out: one that used up its budget counts as any time beyond it.
    """
    mine, rivals = with_times(against.mine), with_times(against.rivals)
    if not np.isfinite(pd.concat([mine, rivals])["time_most"]).any():
        return
    times = {
        str(name): paired_times(mine, rows) for name, rows in groups(rivals, "pruner")
    }
    times = {name: pairs for name, pairs in times.items() if len(pairs.least)}
    if not times:
        return
    found = against_all(times, times_sooner)
    closest = against.labels[found.closest]
    yield Claim(
        claim=f"Networks under masks of {against.label} fit 99 % of the labels in "
        "fewer epochs of the last training than those of every pruner at "
        "initialization",
        what=f"epochs of the closest, {closest}, ÷ its epochs, least "
        f"over {len(times)} rivals, paired, {len(times[found.closest].least)} seeds; "
        f"{HOW}{unknown_in_words(rivals)}",
        measured=found.estimate,
        lower=found.lower,
        upper=found.upper,
        p_holds=found.p_holds,
        p_not=found.p_not,
        key=against.key.format("epochs"),
        **{**against.fixed, "left_out": unknown(rivals)},
    )
